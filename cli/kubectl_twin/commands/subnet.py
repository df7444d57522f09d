"""`miners` and `metagraph`: who is on a subnet.

Programs of their own, as `verify` is: they need what the neurons need to read a chain, and the cluster only to learn
which subnet is meant.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated

import typer

from kubectl_twin import terminal
from kubectl_twin.errors import TwinCliError
from kubectl_twin.kubeconfig import Reach
from kubectl_twin.options import HERE, Namespace, connect, filled
from kubectl_twin.programs import neurons_program


class Listing(StrEnum):
    """How miners are printed."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"


Network = Annotated[
    str | None,
    typer.Option(
        "--network", help="finney, test, ws(s)://… or http://… of a local subnet.", metavar="NETWORK", callback=filled
    ),
]
Netuid = Annotated[int | None, typer.Option("--netuid", min=0, max=65535, help="The subnet.", metavar="N")]
Pool = Annotated[
    str | None, typer.Option("--pool", help="The subnet of this MinerPool.", metavar="NAME", callback=filled)
]
Validator = Annotated[
    str | None, typer.Option("--validator", help="The subnet of this Validator.", metavar="NAME", callback=filled)
]


def miners_command(  # noqa: PLR0917 - Typer reads the options from here
    network: Network = None,
    netuid: Netuid = None,
    pool: Pool = None,
    validator: Validator = None,
    metagraph: Annotated[
        str | None,
        typer.Option("--metagraph", help="From this file, without a chain.", metavar="FILE", callback=filled),
    ] = None,
    wallet: Annotated[
        str | None,
        typer.Option(
            "--wallet",
            help="Ask each miner for its twins, signed by the hotkey there.",
            metavar="FOLDER",
            callback=filled,
        ),
    ] = None,
    everyone: Annotated[bool, typer.Option("--all", help="Validators too.")] = False,
    output: Annotated[Listing, typer.Option("--output", "-o", help="table, wide or json.")] = Listing.TABLE,
    namespace: Namespace = None,
    reach: Reach = HERE,
) -> None:
    """List a subnet's miners.

    Who they are, what they earn, where they serve, and which twins they announce.

    The subnet is that of --network and --netuid, of a MinerPool or a Validator, or else the one that the namespace's
    MinerPools are on. Miners tell validators alone which twins they serve: give the hotkey of one with --wallet.
    """
    if metagraph is not None:
        asked = {"--network": network, "--netuid": netuid, "--pool": pool, "--validator": validator}
        _not_both("--metagraph", asked)
        source = ["--metagraph", metagraph]
    else:
        source = _subnet(network, netuid, pool=pool, validator=validator, namespace=namespace, reach=reach)
    more = [*(["--wallet", wallet] if wallet is not None else []), *(["--all"] if everyone else [])]
    _run("miners", *source, *more, "--output", output.value)


def metagraph_command(  # noqa: PLR0917
    file: Annotated[str, typer.Argument(help="Where to write it.", metavar="FILE", callback=filled)],
    network: Network = None,
    netuid: Netuid = None,
    pool: Pool = None,
    validator: Validator = None,
    namespace: Namespace = None,
    reach: Reach = HERE,
) -> None:
    """Write the subnet's metagraph into a file, for `verify`.

    `kubectl twin verify --metagraph FILE` reads it.
    """
    _run(
        "metagraph",
        *_subnet(network, netuid, pool=pool, validator=validator, namespace=namespace, reach=reach),
        file,
    )


def _subnet(
    network: str | None, netuid: int | None, *, pool: str | None, validator: str | None, namespace: str | None,
    reach: Reach,
) -> list[str]:  # fmt: skip
    """Return the arguments that name the subnet; what is given counts before what an object says."""
    if pool is not None:
        _not_both("--pool", {"--validator": validator})
    if network is not None and netuid is not None:
        for option, value in (("--pool", pool), ("--validator", validator)):
            if value is not None:
                raise TwinCliError(f"Give {option} or --network with --netuid, and not both: each names a subnet.")
    if network is None or netuid is None:
        from kubectl_twin.api import Api, pool_path, pools_path, validator_path  # noqa: PLC0415
        from kubectl_twin.subnets import Subnet, only_subnet, subnet_of  # noqa: PLC0415

        def read(api: Api) -> Subnet:
            here = namespace or api.namespace
            if pool is None and validator is None:
                return only_subnet(api.items(pools_path(here)), namespace=here)
            kind, name = ("MinerPool", pool) if pool is not None else ("Validator", validator)
            path = pool_path if pool is not None else validator_path
            named = subnet_of(api.get(path(here, str(name))))
            if named is None:
                raise TwinCliError(f"{kind} {name} names no subnet: give --network and --netuid.")
            return named

        try:
            api = connect(reach)
        except TwinCliError as error:
            raise TwinCliError(f"{error} With --network and --netuid no cluster is needed.") from error
        with api:
            found = read(api)
        network, netuid = network or found.network, found.netuid if netuid is None else netuid
    return ["--network", network, "--netuid", str(netuid)]


def _not_both(option: str, others: Mapping[str, object]) -> None:
    """Refuse a second way to say which subnet; one of the two would go unheard."""
    for other, value in others.items():
        if value is not None:
            raise TwinCliError(f"Give {option} or {other}, and not both: each names a subnet.")


def _run(*arguments: str) -> None:
    raise typer.Exit(terminal.run_program(neurons_program("subnet", *arguments)))

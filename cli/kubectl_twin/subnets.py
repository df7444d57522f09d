"""Which subnet a MinerPool or a Validator is on, by its spec. Pure: no requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bettertherapy_api import names
from kubectl_twin.api import Json
from kubectl_twin.errors import TwinCliError


@dataclass(frozen=True)
class Subnet:
    """A subnet, as the chain's network and its number."""

    network: str
    netuid: int


def subnet_of(thing: Json) -> Subnet | None:
    """Return the subnet that a MinerPool or a Validator names; None if it names none."""
    spec = thing.get("spec") or {}
    chain = spec.get("chain")
    if isinstance(chain, dict):  # a Validator's
        network, netuid = chain.get("network"), chain.get("netuid")
    else:
        miner = spec.get("miner") or {}
        network, netuid = miner.get("chain"), miner.get("netuid")
    if not isinstance(network, str) or not isinstance(netuid, int):
        return None
    namespace = (thing.get("metadata") or {}).get("namespace", "")
    return Subnet(names.network_of(network, namespace), netuid)


def only_subnet(pools: Sequence[Json], *, namespace: str) -> Subnet:
    """Return the one subnet that these pools are on.

    Raises:
        TwinCliError: they are on none, or on several.
    """
    found = {pool["metadata"]["name"]: subnet for pool in pools if (subnet := subnet_of(pool)) is not None}
    if not found:
        raise TwinCliError(
            f"No MinerPool of namespace {namespace} is on a subnet: give --network and --netuid, or set "
            "spec.miner.netuid and spec.miner.chain of one."
        )
    if len(set(found.values())) > 1:
        raise TwinCliError(
            f"The MinerPools of namespace {namespace} are on several subnets: choose one with --pool "
            f"({', '.join(sorted(found))})."
        )
    return next(iter(found.values()))

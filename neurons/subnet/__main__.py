"""`python -m neurons.subnet miners | metagraph | ask`: look at a subnet, and ask it as a validator does.

`kubectl twin miners` and `metagraph` run it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sys
from collections.abc import Sequence

from neurons.arguments import filled, filled_path
from neurons.receipts import MetagraphFile, MetagraphFileError, read_metagraph, write_metagraph
from neurons.subnet import listing
from neurons.subnet.errors import SubnetError
from neurons.wire.announcement import Announcement


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    given = _parser().parse_args(arguments)
    logging.basicConfig(level="ERROR", stream=sys.stderr)
    os.environ.setdefault("HOME", "/tmp")  # noqa: S108 - the SDK wants a home
    try:
        commands = {"miners": _miners, "metagraph": _metagraph, "ask": _ask}
        return asyncio.run(commands[given.command](given))
    except SubnetError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except BrokenPipeError:
        sys.stderr.close()  # `| head` went away
        return 0


async def _miners(given: argparse.Namespace) -> int:
    metagraph = await _read(given)
    said: dict[str, Announcement | str] = {}
    if given.wallet is not None:
        from neurons.subnet.announced import announcements, signer_from  # noqa: PLC0415 - it loads the SDK

        said = await announcements(metagraph.neurons, signer_from(given.wallet), netuid=metagraph.netuid)
    found = listing.rows(metagraph, said, everyone=given.all)
    if given.output == "json":
        sys.stdout.write(json.dumps(listing.document(metagraph, found), indent=2, ensure_ascii=False) + "\n")
    else:
        sys.stdout.write(listing.text(metagraph, found, wide=given.output == "wide"))
    return 0


async def _metagraph(given: argparse.Namespace) -> int:
    if given.file.is_dir():
        raise SubnetError(f"{given.file} is a folder: name a file in it.")
    metagraph = await _read(given)
    try:
        write_metagraph(
            given.file, netuid=metagraph.netuid, block=metagraph.block, neurons=metagraph.neurons,
            time_ms=metagraph.time,
        )  # fmt: skip
    except OSError as error:
        raise SubnetError(f"{given.file} can't be written: {error.strerror}.") from None
    sys.stdout.write(
        f"{given.file}: {len(metagraph.neurons)} neurons of subnet {metagraph.netuid} as of block {metagraph.block}\n"
    )
    return 0


async def _ask(given: argparse.Namespace) -> int:
    from neurons.subnet import asking  # noqa: PLC0415 - it loads the SDK
    from neurons.subnet.announced import announcements, signer_from  # noqa: PLC0415

    signer = signer_from(given.wallet)
    metagraph = await _read(given)
    said = await announcements(metagraph.neurons, signer, netuid=metagraph.netuid)
    by_incentive = [row.neuron for row in listing.rows(metagraph, said)]
    neuron, announced = asking.miner_of(given.twin, by_incentive, said, hotkey=given.hotkey)
    answered = await asking.ask(
        metagraph, neuron, announced, signer, twin=given.twin, text=given.text, max_tokens=given.max_tokens,
        temperature=given.temperature,
    )  # fmt: skip
    if given.output == "json":
        sys.stdout.write(json.dumps(answered.to_dict(), indent=2, ensure_ascii=False) + "\n")
    else:
        sys.stdout.write(asking.text_of(answered))
    return 0


async def _read(given: argparse.Namespace) -> MetagraphFile:
    file = getattr(given, "metagraph", None)
    if file is not None:
        if given.network is not None or given.netuid is not None:
            other = "--network" if given.network is not None else "--netuid"
            raise SubnetError(f"Give --metagraph or {other}, and not both: each names a subnet.")
        try:
            return read_metagraph(file)
        except MetagraphFileError as error:
            raise SubnetError(str(error)) from None
    if given.network is None or given.netuid is None:
        raise SubnetError("Which subnet? Give --network and --netuid.")
    from neurons.subnet.reading import from_chain  # noqa: PLC0415 - it loads the SDK

    return await from_chain(given.network, given.netuid)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m neurons.subnet",
        description="Look at a Bittensor subnet, and ask its miners.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    miners = commands.add_parser("miners", help="list the miners", allow_abbrev=False)
    miners.add_argument("--metagraph", metavar="FILE", type=filled_path, help="from a file, without a chain")
    miners.add_argument(
        "--wallet", metavar="FOLDER", type=filled_path, help="ask each for its twins, signed by this hotkey"
    )
    miners.add_argument("--all", action="store_true", help="validators too")
    miners.add_argument("--output", "-o", choices=("table", "wide", "json"), default="table")
    metagraph = commands.add_parser("metagraph", help="write the metagraph into a file", allow_abbrev=False)
    metagraph.add_argument("file", metavar="FILE", type=filled_path)
    ask = commands.add_parser("ask", help="ask a twin by a signed request, and check the receipt", allow_abbrev=False)
    ask.add_argument("twin", type=filled, metavar="TWIN")
    ask.add_argument("text", type=filled, metavar="TEXT", help="the question")
    ask.add_argument(
        "--wallet", metavar="FOLDER", type=filled_path, required=True, help="a validator's hotkey, which signs"
    )
    ask.add_argument(
        "--hotkey", type=filled, metavar="SS58", help="ask this miner (default: the first that announces the twin)"
    )
    ask.add_argument("--metagraph", metavar="FILE", type=filled_path, help="from a file, without a chain")
    ask.add_argument("--max-tokens", type=int, default=256)
    ask.add_argument("--temperature", type=float)
    ask.add_argument("--output", "-o", choices=("text", "json"), default="text")
    for command in (miners, metagraph, ask):
        command.add_argument("--network", type=filled, help="finney, test, ws(s)://… or http://… of a local subnet")
        command.add_argument("--netuid", type=int, help="the subnet")
    return parser


if __name__ == "__main__":
    sys.exit(main())

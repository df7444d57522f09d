"""`python -m neurons.chain.local --file chain.db --owner-coldkey … --owner-hotkey …`: serve a local subnet.

Started again on the same file it goes on where it was; what says how the chain begins is then not looked at.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import signal
import sqlite3
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from neurons.chain.local.genesis import HYPERPARAMETERS, Genesis
from neurons.chain.local.node import LocalChain
from neurons.chain.local.service import RateLimit, Service
from neurons.http_server import ApplicationRunner
from neurons.unsaid import WithoutWords, on_loop_error

log = logging.getLogger("neurons.chain.local")

PORT = 9944
SHORTEST_SECONDS, LONGEST_SECONDS = 0.001, 86_400.0
"""Between blocks; the chain's clock counts milliseconds."""
INSTANT, MANUAL = "instant", "manual"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How this service runs."""

    file: Path
    host: str
    port: int
    sealing: str
    """`instant`: a block for each extrinsic; `manual`: when `POST /blocks` says so; or seconds between blocks.

    With a clock of its own the service takes no `POST /blocks`.
    """
    requests_per_second: float | None
    genesis: Genesis | None

    @property
    def interval(self) -> float | None:
        """Seconds between blocks; None when no clock makes them."""
        return None if self.sealing in {INSTANT, MANUAL} else float(self.sealing)


def parse(arguments: Sequence[str]) -> Settings:
    """Read the command line; exits with a usage message when it is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m neurons.chain.local", description="Serve a local subnet.", allow_abbrev=False
    )
    parser.add_argument("--file", type=Path, required=True, help="where the chain is kept; made if it isn't there")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=_from_to(0, 65535), default=PORT)
    parser.add_argument("--blocks", default="12", metavar="SECONDS|instant|manual", help="when blocks are made")
    parser.add_argument(
        "--requests-per-second", type=_rate, help="refuse a client's further ones with 429, as public ones"
    )
    begins = parser.add_argument_group("how a new chain begins")
    begins.add_argument("--owner-coldkey", metavar="SS58")
    begins.add_argument("--owner-hotkey", metavar="SS58")
    begins.add_argument("--netuid", type=_from_to(0, 65535), default=1)
    begins.add_argument("--name", default="bettertherapy")
    begins.add_argument("--max-uids", type=_from_to(1, 65535), default=256)
    begins.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=JSON",
        help=f"a hyperparameter: {', '.join(HYPERPARAMETERS)}",
    )
    given = parser.parse_args(arguments)
    if given.blocks not in {INSTANT, MANUAL} and not _is_interval(given.blocks):
        parser.error(f"--blocks is {given.blocks!r}: give seconds, instant or manual")
    hyperparameters = {}
    for setting in given.set:
        name, _, value = setting.partition("=")
        if name not in HYPERPARAMETERS:
            parser.error(f"--set {setting}: no such hyperparameter; there are {', '.join(HYPERPARAMETERS)}")
        try:
            hyperparameters[name] = json.loads(value)
        except ValueError:
            hyperparameters[name] = value
    genesis = None
    if given.owner_coldkey and given.owner_hotkey:
        genesis = Genesis(
            owner_coldkey=given.owner_coldkey,
            owner_hotkey=given.owner_hotkey,
            netuid=given.netuid,
            name=given.name,
            max_uids=given.max_uids,
            hyperparameters=hyperparameters,
            block_seconds=12.0 if given.blocks in {INSTANT, MANUAL} else float(given.blocks),
        )
    if not given.file.exists():
        if genesis is None:
            parser.error(f"{given.file} holds no chain yet: say whose it is with --owner-coldkey and --owner-hotkey")
        try:
            genesis.check()
        except ValueError as error:
            parser.error(f"a chain can't begin so: {error}")
    return Settings(
        file=given.file,
        host=given.host,
        port=given.port,
        sealing=given.blocks,
        requests_per_second=given.requests_per_second,
        genesis=genesis,
    )


def _is_interval(text: str) -> bool:
    try:
        return SHORTEST_SECONDS <= float(text) <= LONGEST_SECONDS
    except ValueError:
        return False


def _from_to(least: int, most: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        value = int(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text} is not between {least} and {most}")
        return value

    return number


def _rate(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1e6:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most 1000000: leave it out to take all")
    return value


async def serve(given: Settings, stop: asyncio.Event) -> None:
    """Serve until `stop` is set."""
    chain = LocalChain.open(given.file, given.genesis)
    service = Service(
        chain,
        instant=given.sealing == INSTANT,
        driven=given.interval is None,
        rate_limit=RateLimit(given.requests_per_second),
    )
    runner = ApplicationRunner(service.application())
    await runner.setup()
    try:
        await web.TCPSite(runner, given.host, given.port).start()
        log.info("block %d of %s, on http://%s:%d", chain.head, given.file, given.host, given.port)
        while not stop.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(given.interval):
                    await stop.wait()
            if given.interval is not None and not stop.is_set():
                await service.make_blocks()
    finally:
        await runner.cleanup()
        chain.close()


async def _run(given: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(on_loop_error)
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    await serve(given, stop)


def main() -> int:
    """Run the process; returns its exit status."""
    given = parse(sys.argv[1:])
    handler = logging.StreamHandler()
    handler.setFormatter(WithoutWords("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    try:
        asyncio.run(_run(given))
    except sqlite3.Error as error:
        log.error("%s can't be used as a chain: %s", given.file, error)  # noqa: TRY400
        return 1
    except (OSError, ValueError) as error:
        log.error("can't serve: %s", error)  # noqa: TRY400 - the message says what to do; a traceback would hide it
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

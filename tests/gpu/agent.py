"""`python -m tests.gpu.agent`: the real agent, with files in the place of its two ConfigMaps.

It follows `<tables>/routing.json` and writes `<tables>/report/<pod>.json`: the folder that a miner's --tables-dir
follows. What this leaves out of a cluster is the API server's own delay.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Final

import uvloop

from bettertherapy_api import names
from neurons.agent.agent import Agent
from neurons.agent.settings import Settings

_POLL_SECONDS: Final = 0.01


class Tables:
    """A folder that both ConfigMaps are kept in."""

    def __init__(self, folder: Path, *, pod: str) -> None:
        self._routing = folder / names.ROUTING_KEY
        self._report = folder / "report" / f"{pod}.json"

    async def __aiter__(self) -> AsyncIterator[Mapping[str, str]]:
        """Yield the routing table each time it changes; written by renaming."""
        seen: tuple[int, int] | None = None
        while True:
            try:
                stat = self._routing.stat()
                if seen != (stat.st_ino, stat.st_mtime_ns):
                    text = self._routing.read_text()
                    seen = (stat.st_ino, stat.st_mtime_ns)
                    yield {names.ROUTING_KEY: text}
            except FileNotFoundError:
                pass
            await asyncio.sleep(_POLL_SECONDS)

    async def publish(self, document: str | None) -> None:
        """Write the report, or take it away."""
        if document is None:
            self._report.unlink(missing_ok=True)
            return
        partial = self._report.with_suffix(".part")
        partial.write_text(document)
        os.replace(partial, self._report)


async def _run(args: argparse.Namespace) -> int:
    settings = Settings(
        pool=args.pool,
        namespace=args.namespace,
        pod_name=args.pod,
        pod_uid=f"uid-{args.pod}",
        pod_ip="127.0.0.1",
        host="127.0.0.1",
        port=args.port,
        socket=args.socket,
        run_dir=args.socket.parent,
        adapters_dir=args.adapters_dir,
    )
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    tables = Tables(args.tables, pod=args.pod)
    async with Agent(settings, routing=tables, publish=tables.publish) as agent:
        done = [asyncio.ensure_future(stop.wait()), asyncio.ensure_future(agent.failed.wait())]
        await asyncio.wait(done, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.cancel()
        return 70 if agent.failed.is_set() else 0


def main() -> int:
    """Run until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.agent", description=__doc__)
    for name in ("--pool", "--namespace", "--pod"):
        parser.add_argument(name, required=True)
    for name in ("--tables", "--socket", "--adapters-dir"):
        parser.add_argument(name, required=True, type=Path)
    parser.add_argument("--port", required=True, type=int)
    args = parser.parse_args()
    logging.basicConfig(level="INFO", stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(args))


if __name__ == "__main__":
    sys.exit(main())

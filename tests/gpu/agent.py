"""`python -m tests.gpu.agent`: the real agent, with files in the place of the API server.

It follows `<tables>/slices/*.json` and writes `<tables>/reports/<pod>.json`: the folder that a miner's --tables-dir
follows. What this leaves out of a cluster is the API server's own delay.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Final

import orjson
import uvloop

from bettertherapy_api.manifest import AdapterManifest
from bettertherapy_api.report import PodReport
from neurons.agent.agent import Agent
from neurons.agent.settings import Settings
from neurons.cluster import FolderWatch
from neurons.store import read_manifest

_POLL_SECONDS: Final = 0.01


class Report:
    """The pod's report, as a file."""

    def __init__(self, folder: Path, *, pod: str) -> None:
        self._path = folder / "reports" / f"{pod}.json"
        self._metadata = {"name": pod}

    async def publish(self, report: PodReport | None) -> None:
        """Write the report, or take it away."""
        if report is None:
            self._path.unlink(missing_ok=True)
            return
        partial = self._path.with_suffix(".part")
        partial.write_bytes(orjson.dumps({"metadata": self._metadata, **report.to_dict()}))
        os.replace(partial, self._path)


async def copy_unchecked(uri: str, digest: str, destination: Path) -> AdapterManifest:
    """Bring an adapter in as it is, whatever is in its files."""
    manifest, _ = await read_manifest(uri)
    partial = destination.with_name(f".{destination.name}.part")

    def copy() -> None:
        if destination.is_dir():
            return
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(uri.removeprefix("file://"), partial)
        partial.rename(destination)

    await asyncio.to_thread(copy)
    return manifest


async def _run(args: argparse.Namespace) -> int:
    settings = Settings(
        pool=args.pool,
        namespace=args.namespace,
        pod_name=args.pod,
        pod_uid=f"uid-{args.pod}",
        host="127.0.0.1",
        port=args.port,
        metrics_port=0,
        socket=args.socket,
        run_dir=args.socket.parent,
        adapters_dir=args.adapters_dir,
    )
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    routing = FolderWatch(args.tables / "slices", poll_seconds=_POLL_SECONDS)
    report = Report(args.tables, pod=args.pod)
    fetch = copy_unchecked if args.unchecked else None
    async with Agent(settings, routing=routing, publish=report.publish, fetch=fetch) as agent:
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
    parser.add_argument("--unchecked", action="store_true", help="take files without looking into them")
    args = parser.parse_args()
    logging.basicConfig(level="INFO", stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(args))


if __name__ == "__main__":
    sys.exit(main())

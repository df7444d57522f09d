"""Agent and miner as processes, and the operator's part in a few lines: tables to write, a report to read."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Self

import aiohttp
from pydantic import ValidationError

from bettertherapy_api import names
from bettertherapy_api.report import AdapterReport, AdapterState, PodReport
from bettertherapy_api.routing import BaseModelRef, PodEntry, PoolHeader, RoutingSlice, TwinEntry, Version
from tests.bench.results import ROOT
from tests.gpu.adapters import Published
from tests.gpu.engine import NAMESPACE, POOL
from twin_operator.domain.objects import Pool

POD: Final = "gpu-engine-0"
TOKEN: Final = "a-token-of-good-length"
_POLL_SECONDS: Final = 0.005
_START_SECONDS: Final = 30.0


class TooLateError(Exception):
    """Something didn't come about."""


class Plane:
    """The data plane of one pod. Use as `async with Plane(...)`; it runs whether or not the engine does."""

    def __init__(self, folder: Path, *, pool: Pool, engine_socket: Path, logs: Path) -> None:
        self._pool = pool
        self._socket = engine_socket
        self._adapters = folder / "adapters"
        self._tables = folder / "tables"
        self._access = folder / "access"
        self._logs = logs
        self._generation = 0
        self._agent_port, self._miner_port = _free_port(), _free_port()
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def url(self) -> str:
        """The miner's."""
        return f"http://127.0.0.1:{self._miner_port}"

    async def __aenter__(self) -> Self:
        for folder in (self._adapters, self._tables / "slices", self._tables / "reports", self._access):
            folder.mkdir(parents=True)
        (self._access / "measuring").write_text(TOKEN)
        self._start(
            "agent", "tests.gpu.agent", f"--pool={POOL}", f"--namespace={NAMESPACE}", f"--pod={POD}",
            f"--tables={self._tables}", f"--socket={self._socket}", f"--adapters-dir={self._adapters}",
            f"--port={self._agent_port}",
        )  # fmt: skip
        self._start(
            "miner", "neurons.miner", f"--pool={POOL}", f"--namespace={NAMESPACE}", "--host=127.0.0.1",
            f"--port={self._miner_port}", f"--access-dir={self._access}", f"--tables-dir={self._tables}",
            "--drain-delay=0", "--drain-seconds=5",
        )  # fmt: skip
        return self

    async def __aexit__(self, *_: object) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            try:
                await asyncio.to_thread(process.wait, 15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(15)

    def write(self, adapters: Sequence[Published], routes: Mapping[str, Published]) -> float:
        """Write the routing: what to hold, and which version of each twin answers. Returns time.monotonic() of it."""
        self._generation += 1
        twins = sorted({adapter.twin for adapter in adapters} | routes.keys())
        routing = RoutingSlice(
            pool=PoolHeader(
                name=POOL,
                uid="pool-uid",
                generation=self._generation,
                base_model=BaseModelRef(name=self._pool.spec.base_model.name),
                max_loras=self._pool.max_loras,
                max_lora_rank=self._pool.spec.engine.max_lora_rank,
            ),
            twins={
                f"uid-{twin}": TwinEntry(
                    name=twin,
                    versions=tuple(
                        Version(served_name=version.name, digest=version.digest, weight_percent=100)
                        for version in [routes.get(twin)]
                        if version is not None
                    ),
                    adapters=tuple(adapter.entry() for adapter in adapters if adapter.twin == twin),
                )
                for twin in twins
            },
            pods={f"uid-{POD}": PodEntry(name=POD, address=f"127.0.0.1:{self._agent_port}")},
        )
        name = names.routing_slice_name(POOL, 0)
        target = self._tables / "slices" / f"{name}.json"
        partial = target.with_suffix(".part")
        partial.write_text(json.dumps({"metadata": {"name": name}, **routing.to_dict()}))
        written_at = time.monotonic()
        os.replace(partial, target)
        return written_at

    def report(self) -> PodReport | None:
        """Return what the agent last reported."""
        try:
            return PodReport.model_validate_json((self._tables / "reports" / f"{POD}.json").read_text())
        except (FileNotFoundError, ValidationError):
            return None

    def adapter(self, version: Published) -> AdapterReport | None:
        """Return what the agent last reported of one version."""
        report = self.report()
        return report.adapters.get(version.name) if report is not None else None

    async def verified(self, *versions: Published, seconds: float) -> list[AdapterReport]:
        """Wait until all are Verified; raises TooLateError, also at once when one has failed for good."""
        found: list[AdapterReport] = []

        def done() -> bool:
            report = self.report()
            held = report.adapters if report is not None else {}
            states = [held.get(version.name) for version in versions]
            found[:] = [state for state in states if state is not None]
            bad = [s for s in found if s.state is AdapterState.FAILED and not s.retryable]
            if bad:
                raise TooLateError(f"{bad[0].twin}: {bad[0].reason}: {bad[0].message}")
            return len(found) == len(versions) and all(s.state is AdapterState.VERIFIED for s in found)

        await self.until(done, seconds=seconds, what="Verified: " + ", ".join(version.name for version in versions))
        return found

    async def failed(self, version: Published, *, seconds: float) -> AdapterReport:
        """Wait until it is Failed and return its report; raises TooLateError when it is Verified instead."""
        found: list[AdapterReport] = []

        def done() -> bool:
            state = self.adapter(version)
            if state is not None and state.state is AdapterState.VERIFIED:
                raise TooLateError(f"{version.name} was verified, {state.fingerprint_milli_nats} milli-nats off")
            found[:] = [state] if state is not None and state.state is AdapterState.FAILED else []
            return bool(found)

        await self.until(done, seconds=seconds, what=f"Failed: {version.name}")
        return found[0]

    async def until(self, condition: Callable[[], bool], *, seconds: float, what: str) -> None:
        """Wait for a condition; raises TooLateError."""
        deadline = time.monotonic() + seconds
        while not condition():
            self.check()
            if time.monotonic() > deadline:
                report = self.report()
                raise TooLateError(f"not within {seconds:.0f} s: {what}; {report.to_json() if report else 'no report'}")
            await asyncio.sleep(_POLL_SECONDS)

    async def answering(self) -> None:
        """Wait until the miner knows the routing, the reports and a ready pod."""
        deadline = time.monotonic() + _START_SECONDS
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
            while time.monotonic() < deadline:
                self.check()
                try:
                    async with session.get(f"{self.url}/readyz") as response:
                        if response.status == 200:
                            return
                except (aiohttp.ClientError, TimeoutError):
                    pass
                await asyncio.sleep(0.05)
        raise TooLateError(f"the miner was not ready within {_START_SECONDS:.0f} s")

    def check(self) -> None:
        """Raise TooLateError when a process has ended."""
        for process in self._processes:
            if process.poll() is not None:
                raise TooLateError(f"a process ended with status {process.returncode}: {process.args!r}; see its log")

    def _start(self, name: str, module: str, *arguments: str) -> None:
        with (self._logs / f"{name}.log").open("ab") as log:
            self._processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", module, *arguments], cwd=ROOT, stdout=log, stderr=subprocess.STDOUT,
                    stdin=subprocess.DEVNULL,
                )
            )  # fmt: skip


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])

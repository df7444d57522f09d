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
from contextlib import ExitStack
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

TOKEN: Final = "a-token-of-good-length"
_POLL_SECONDS: Final = 0.005
_START_SECONDS: Final = 30.0


class TooLateError(Exception):
    """Something didn't come about."""


def pod_name(number: int) -> str:
    """Return the name of the pod with that number."""
    return f"gpu-engine-{number}"


class Plane:
    """The data plane: a pod for each engine's socket, and one miner.

    Use as `async with Plane(...)`; it runs whether or not the engines do. Each socket is in a folder of its own. With
    `checks` off, agents take files as they are, so that only what is measured in the engine stands before a patient.
    """

    def __init__(
        self, folder: Path, *, pool: Pool, sockets: Sequence[Path], logs: Path, miner_arguments: Sequence[str] = (),
        checks: bool = True,
    ) -> None:  # fmt: skip
        self._pool = pool
        self._sockets = tuple(sockets)
        self._miner_arguments = tuple(miner_arguments)
        self._checks = checks
        self._folder = folder
        self._tables = folder / "tables"
        self._access = folder / "access"
        self._logs = logs
        self._generation = 0
        self._miner_port, *self._agent_ports = _free_ports(1 + len(self._sockets))
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def url(self) -> str:
        """The miner's."""
        return f"http://127.0.0.1:{self._miner_port}"

    async def __aenter__(self) -> Self:
        for folder in (self._tables / "slices", self._tables / "reports", self._access):
            folder.mkdir(parents=True)
        (self._access / "measuring").write_text(TOKEN)
        for number, (engine_socket, port) in enumerate(zip(self._sockets, self._agent_ports, strict=True)):
            adapters = self._folder / f"adapters-{number}"
            adapters.mkdir(parents=True)
            self._start(
                f"agent-{number}", "tests.gpu.agent", f"--pool={POOL}", f"--namespace={NAMESPACE}",
                f"--pod={pod_name(number)}", f"--tables={self._tables}", f"--socket={engine_socket}",
                f"--adapters-dir={adapters}", f"--port={port}", *([] if self._checks else ["--unchecked"]),
            )  # fmt: skip
        self._start(
            "miner", "neurons.miner", f"--pool={POOL}", f"--namespace={NAMESPACE}", "--host=127.0.0.1",
            f"--port={self._miner_port}", "--metrics-port=0", f"--access-dir={self._access}",
            f"--tables-dir={self._tables}", "--drain-delay=0", "--drain-seconds=5", *self._miner_arguments,
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
                max_lora_rank=self._pool.max_lora_rank,
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
            pods={
                f"uid-{pod_name(number)}": PodEntry(name=pod_name(number), address=f"127.0.0.1:{port}")
                for number, port in enumerate(self._agent_ports)
            },
        )
        name = names.routing_slice_name(POOL, 0)
        target = self._tables / "slices" / f"{name}.json"
        partial = target.with_suffix(".part")
        partial.write_text(json.dumps({"metadata": {"name": name}, **routing.to_dict()}))
        written_at = time.monotonic()
        os.replace(partial, target)
        return written_at

    def report(self, pod: int = 0) -> PodReport | None:
        """Return what a pod's agent last reported."""
        path = self._tables / "reports" / f"{pod_name(pod)}.json"
        try:
            return PodReport.model_validate_json(path.read_text())
        except (FileNotFoundError, ValidationError):
            return None

    def adapter(self, version: Published, pod: int = 0) -> AdapterReport | None:
        """Return what a pod's agent last reported of one version."""
        report = self.report(pod)
        return report.adapters.get(version.name) if report is not None else None

    def serves(self, pod: int, versions: Sequence[Published]) -> bool:
        """Tell whether a pod is ready and holds all these versions, verified."""
        report = self.report(pod)
        if report is None or not report.ready or not report.engine.live:
            return False
        held = [report.adapters.get(version.name) for version in versions]
        return all(state is not None and state.state is AdapterState.VERIFIED for state in held)

    async def verified(self, *versions: Published, seconds: float, pod: int = 0) -> list[AdapterReport]:
        """Wait until all are Verified in a pod; raises TooLateError, also at once when one has failed for good."""
        found: list[AdapterReport] = []

        def done() -> bool:
            report = self.report(pod)
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


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [int(sock.getsockname()[1]) for sock in sockets]

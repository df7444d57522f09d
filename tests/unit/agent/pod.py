"""One engine pod without Kubernetes: a stand-in engine, a real agent, a table to write and reports to read."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import aiohttp

from bettertherapy_api import names
from bettertherapy_api.report import AdapterReport, AdapterState, PodReport
from bettertherapy_api.routing import BaseModelRef, PoolHeader, RoutingSlice, TwinEntry
from neurons.agent.agent import Agent
from neurons.agent.keeper import Fetch
from neurons.agent.settings import Settings
from neurons.cluster import Event, Listed
from tests.standin import BASE, FakeAdapter, StandIn, write_adapter


class Tables:
    """A pool's routing slices that a test writes: each time all of them, as a list after a broken watch."""

    def __init__(self, *, miners_have_tokens: bool = False) -> None:
        self._queue: asyncio.Queue[Event] = asyncio.Queue()
        self._generation = 0
        self._miners_have_tokens = miners_have_tokens

    async def __aiter__(self) -> AsyncIterator[Event]:
        while True:
            yield await self._queue.get()

    def write(
        self, *adapters: FakeAdapter | TwinEntry, max_lora_rank: int = 16, base: str = BASE, pool: str = "pool",
        running: int | None = None, max_loras: int = 4, at_hand: int | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Want these adapters and no others; returns the slice."""
        self._generation += 1
        header = PoolHeader(
            name=pool, uid="pool-uid", generation=self._generation, base_model=BaseModelRef(name=base),
            max_loras=max_loras, max_lora_rank=max_lora_rank, miners_have_tokens=self._miners_have_tokens,
            max_running=running, max_at_hand=at_hand,
        )  # fmt: skip
        twins: dict[str, TwinEntry] = {}
        for entry in (a.entry() if isinstance(a, FakeAdapter) else a for a in adapters):
            before = twins.get(f"uid-{entry.name}")
            both = (*before.adapters, *entry.adapters) if before is not None else entry.adapters
            twins[f"uid-{entry.name}"] = TwinEntry(
                name=entry.name, adapters=both, placement=entry.placement, pods=entry.pods, versions=entry.versions
            )
        document = {
            "metadata": {"name": names.routing_slice_name(pool, 0)},
            **RoutingSlice(pool=header, twins=twins).to_dict(),
        }
        self.put(Listed([document]))
        return document

    def put(self, event: Event) -> None:
        self._queue.put_nowait(event)


class Pod:
    """The pod and its surroundings. Settings are those of production, with shorter times."""

    def __init__(self, folder: Path, *, miners_have_tokens: bool = False, **settings: Any) -> None:
        self.folder = folder
        self.store = folder / "store"
        self.run_dir = folder / "run"
        self.run_dir.mkdir(parents=True)
        self.engine = StandIn(socket=self.run_dir / "vllm.sock")
        self.tables = Tables(miners_have_tokens=miners_have_tokens)
        self.reports: list[PodReport] = []
        self.withdrawn = False
        self.api_error: Exception | None = None
        self.settings = Settings(
            **{
                "pool": "pool",
                "namespace": "clinic",
                "pod_name": "pod-1",
                "pod_uid": "uid-1",
                "host": "127.0.0.1",
                "port": 0,
                "metrics_port": 0,
                "socket": self.engine.socket,
                "run_dir": self.run_dir,
                "adapters_dir": folder / "adapters",
                "linger_seconds": 0.2,
                "retry_first": 0.05,
                "retry_most": 0.2,
                **settings,
            }
        )
        self.agent = self.new_agent()
        self._http: aiohttp.ClientSession | None = None

    def new_agent(self, *, fetch: Fetch | None = None) -> Agent:
        self.agent = Agent(self.settings, routing=self.tables, publish=self._publish, fetch=fetch)
        return self.agent

    async def __aenter__(self) -> Self:
        self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20))
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._http is not None
        await self._http.close()

    async def _publish(self, report: PodReport | None) -> None:
        if self.api_error is not None:
            raise self.api_error
        if report is None:
            self.withdrawn = True
        else:
            self.reports.append(PodReport.model_validate_json(report.to_json()))

    @property
    def http(self) -> aiohttp.ClientSession:
        assert self._http is not None
        return self._http

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.agent.port}"

    async def metrics(self) -> str:
        """Return the page at the port for Prometheus."""
        async with self.http.get(f"http://127.0.0.1:{self.agent.metrics_port}/metrics") as response:
            assert response.status == 200
            return await response.text()

    def adapter(self, twin: str, **kwargs: Any) -> FakeAdapter:
        return write_adapter(self.store, twin, **kwargs)

    def path(self, adapter: FakeAdapter) -> Path:
        return self.settings.adapter_path(adapter.twin, adapter.digest)

    def state(self, adapter: FakeAdapter) -> AdapterReport | None:
        """What the agent would report now."""
        return self.agent.report().adapters.get(adapter.name)

    async def verified(self, *adapters: FakeAdapter, seconds: float = 10.0) -> float:
        """Wait until all are Verified; returns the seconds it took."""
        began = time.monotonic()
        await until(
            lambda: all((r := self.state(a)) is not None and r.state is AdapterState.VERIFIED for a in adapters),
            seconds=seconds,
            what=lambda: f"verified: {self.agent.report().to_json()}",
        )
        return time.monotonic() - began

    async def failed(self, adapter: FakeAdapter, *, seconds: float = 10.0) -> AdapterReport:
        """Wait until it has Failed and return its report."""
        await until(
            lambda: (r := self.state(adapter)) is not None and r.state is AdapterState.FAILED,
            seconds=seconds,
            what=lambda: f"failed: {self.agent.report().to_json()}",
        )
        report = self.state(adapter)
        assert report is not None
        return report

    async def gone(self, *adapters: FakeAdapter, seconds: float = 10.0) -> None:
        await until(lambda: all(self.state(a) is None for a in adapters), seconds=seconds)

    def ask(self, model: str, **body: Any) -> Any:
        """POST a chat; use as a context manager or await it."""
        document = {"model": model, "messages": [{"role": "user", "content": "hello doctor"}], "max_tokens": 4, **body}
        return self.http.post(f"{self.url}/v1/chat/completions", json=document)

    async def answer(self, model: str, **body: Any) -> tuple[int, dict[str, Any], Mapping[str, str]]:
        """Ask and return status, document and headers."""
        async with self.ask(model, **body) as response:
            return response.status, await response.json(), dict(response.headers)

    async def get(self, path: str) -> tuple[int, str]:
        async with self.http.get(self.url + path) as response:
            return response.status, await response.text()


@asynccontextmanager
async def running_pod(
    folder: Path, *adapters: FakeAdapter | TwinEntry, table: bool = True, engine: bool = True, **settings: Any
) -> AsyncIterator[Pod]:
    """Yield a pod whose engine and agent run, and that has a table of `adapters`."""
    async with Pod(folder, **settings) as pod:
        if engine:
            await pod.engine.start()
        try:
            if table:
                pod.tables.write(*adapters)
            async with pod.agent:
                yield pod
        finally:
            await pod.engine.stop()


async def until(
    condition: Callable[[], bool], *, seconds: float = 10.0, what: Callable[[], str] = lambda: "the condition"
) -> None:
    """Wait for a condition; fails by saying what was waited for."""
    try:
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"not within {seconds} s: {what()}") from None


async def read_events(response: aiohttp.ClientResponse) -> list[dict[str, Any]]:
    """Read an SSE answer to its end."""
    events = []
    async for line in response.content:
        if line.startswith(b"data: ") and line.strip() != b"data: [DONE]":
            events.append(json.loads(line[6:]))
    return events


def words(document: dict[str, Any]) -> str:
    """Return a chat answer's text."""
    return str(document["choices"][0]["message"]["content"])


def set_modified(path: Path, at: float) -> None:
    os.utime(path, (at, at))

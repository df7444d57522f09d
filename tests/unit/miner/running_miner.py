"""A running miner with tables set by the test: no Kubernetes, real sockets."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import aiohttp

from bettertherapy_api import names
from bettertherapy_api.routing import Adapter, BaseModelRef, PodEntry, PoolHeader, RoutingSlice, TwinEntry, Version
from neurons.cluster import Listed, Put
from neurons.miner.metrics import Metrics
from neurons.miner.service import MinerService
from neurons.miner.settings import Settings
from tests.unit.miner.fake_agent import FakeAgent

TOKEN = "a-token-of-good-length"


def digest(letter: str) -> str:
    return "sha256:" + letter * 64


def version(twin: str, letter: str, weight: int = 100) -> Version:
    name = names.served_name(twin, digest(letter))
    return Version(served_name=name, digest=digest(letter), weight_percent=weight)


def held(*versions: Version) -> dict[str, str]:
    return {v.served_name: v.digest for v in versions if v.digest is not None}


@dataclass(frozen=True)
class Twin:
    """A twin as a test wants it routed."""

    versions: tuple[Version, ...]
    system_prompt: str | None = None
    doctor: str | None = None
    uid: str | None = None
    pods: tuple[str, ...] | None = None
    placement: Literal["Spread", "OnDemand"] | None = None

    def entry(self, name: str) -> TwinEntry:
        prompt = names.prompt_digest(self.system_prompt) if self.system_prompt is not None else None
        adapters = tuple(
            Adapter(served_name=each.served_name, digest=each.digest, uri="pvc://adapters/x", rank=8)
            for each in self.versions
            if each.digest is not None
        )
        return TwinEntry(
            name=name, doctor=self.doctor, prompt_digest=prompt, versions=self.versions, pods=self.pods,
            placement=self.placement, adapters=adapters,
        )  # fmt: skip


def header(pool: str = "pool", generation: int = 1, running: int | None = None) -> PoolHeader:
    return PoolHeader(
        name=pool, uid="pool-uid", generation=generation, base_model=BaseModelRef(name="base"), max_loras=8,
        max_lora_rank=16, max_running=running,
    )  # fmt: skip


def slices(twins: Mapping[str, Twin], agents: Iterable[FakeAgent], *, pool: PoolHeader) -> list[dict[str, Any]]:
    """Return the objects that an operator would have written."""
    prompts = [twin.system_prompt for twin in twins.values() if twin.system_prompt is not None]
    parts = {
        names.prompts_slice_name(pool.name, 0): RoutingSlice(
            pool=pool, prompts={names.prompt_digest(text): text for text in prompts}
        ),
        names.routing_slice_name(pool.name, 0): RoutingSlice(
            pool=pool, twins={twin.uid or f"uid-{name}": twin.entry(name) for name, twin in twins.items()}
        ),
        names.pods_slice_name(pool.name): RoutingSlice(
            pool=pool, pods={agent.uid: PodEntry(name=agent.pod, address=agent.address) for agent in agents}
        ),
    }
    return [{"metadata": {"name": name}, **part.to_dict()} for name, part in parts.items()]


def report_object(agent: FakeAgent) -> dict[str, Any]:
    return {"metadata": {"name": agent.pod}, **agent.report().to_dict()}


class RunningMiner:
    """`async with RunningMiner(tmp_path) as miner`: listening, with one access token."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        access = folder / "access"
        access.mkdir(exist_ok=True)
        (access / "clinic").write_text(TOKEN + "\n")
        self.access_dir = access
        # An empty folder of tables: the tests set them by hand.
        values: dict[str, Any] = {
            "pool": "pool",
            "namespace": "clinic",
            "host": "127.0.0.1",
            "port": 0,
            "metrics_port": 0,
            "access_dir": access,
            "access_secret": "pool-access",
            "tables_dir": folder / "none",
            "hold_seconds": 5.0,
            "drain_delay_seconds": 0.0,
            "drain_seconds": 5.0,
        }
        self.service = MinerService(Settings(**(values | settings)), metrics=Metrics())
        self._generation = 0
        self.running: int | None = None
        """What each engine runs at once, by the next table."""
        self._twins: Mapping[str, Twin] = {}
        self._agents: list[FakeAgent] = []

    async def __aenter__(self) -> Self:
        self.run = asyncio.create_task(self.service.run())
        async with asyncio.timeout(5):
            await self.service.listening.wait()
        self.url = f"http://127.0.0.1:{self.service.port}"
        self.metrics_url = f"http://127.0.0.1:{self.service.metrics_port}/metrics"
        self.client = aiohttp.ClientSession(
            self.url, headers={"Authorization": f"Bearer {TOKEN}"}, connector=aiohttp.TCPConnector(limit=0)
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.close()
        self.service.stop()
        async with asyncio.timeout(20):
            await self.run

    def route(self, twins: Mapping[str, Twin]) -> None:
        """Route these twins and no others."""
        self._generation += 1
        self._twins = twins
        objects = slices(twins, self._agents, pool=header(generation=self._generation, running=self.running))
        self.service.tables.take_routing(Listed(objects))

    def report(self, agents: Iterable[FakeAgent]) -> None:
        """Let the operator know these pods and no others, and let them report."""
        self._agents = list(agents)
        if self._generation:
            objects = slices(self._twins, self._agents, pool=header(generation=self._generation, running=self.running))
            self.service.tables.take_routing(Put(objects[-1]))
        self.service.tables.take_reports(Listed([report_object(agent) for agent in self._agents]))

    async def ask(
        self, twin: str, *, text: str = "Hello", headers: Mapping[str, str] | None = None, **body: Any
    ) -> Any:
        """Ask without streaming; returns (status, headers, document)."""
        document = {"model": twin, "messages": [{"role": "user", "content": text}]} | body
        async with self.client.post("/v1/chat/completions", json=document, headers=headers) as response:
            return response.status, response.headers, json.loads(await response.read())

    def metric(self, name: str, **labels: str) -> float:
        metrics = self.service.metrics
        if name == "bettertherapy_miner_requests_total":
            labels["process"] = metrics.process
        return metrics.registry.get_sample_value(name, labels) or 0.0


async def eventually_async(condition: Callable[[], Awaitable[bool]], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.02)


async def eventually(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError("it didn't come about in time")
        await asyncio.sleep(0.005)

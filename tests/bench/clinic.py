"""Many twins on a real API server, with pods that are objects only and reports written as agents write them."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from bettertherapy_api import names
from tests.api import operator_harness
from tests.api.operator_harness import BASE, condition, until
from twin_operator.kinds.resources import DOCTOR_TWIN, POD_REPORT, ROUTING_SLICE

AT_ONCE: Final = 16
READY_SECONDS: Final = 900.0


def digest_of(*parts: object) -> str:
    """Return a digest that stands for an artifact."""
    return "sha256:" + hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()


@dataclass
class Clinic:
    """`twins` twins, spread over `pools` pools with one engine pod each."""

    world: operator_harness.Cluster
    twins: int
    pools: int
    version: dict[str, int] = field(default_factory=dict)
    """Which version each twin asks for."""
    spec: dict[str, Any] = field(default_factory=dict)
    """What the twins' specs say besides."""
    _unsaid: dict[str, dict[str, Any]] = field(default_factory=dict)
    _saying: dict[str, asyncio.Lock] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The twins' names."""
        return [f"dr-{number:05d}" for number in range(self.twins)]

    def pool_of(self, twin: str) -> str:
        """Return the pool that serves the twin."""
        return f"pool-{int(twin.rpartition('-')[2]) % self.pools}"

    def pod_of(self, pool: str) -> str:
        """Return the pool's one engine pod."""
        return f"{pool}-engine-0"

    def adapter(self, twin: str) -> dict[str, Any]:
        """Return the twin's present adapter, as its spec has it."""
        digest = digest_of(twin, self.version.get(twin, 0))
        return {"uri": f"pvc://adapters/store/{twin}/{names.digest_hex(digest)}", "digest": digest, "rank": 8}

    def held(self, twin: str) -> tuple[str, dict[str, Any]]:
        """Return what the agent says of the twin's present adapter, by its served name."""
        digest = self.adapter(twin)["digest"]
        return names.served_name(twin, digest), {"twin": twin, "digest": digest, "state": "Verified"}

    async def furnish(self) -> None:
        """Make pools, pods, reports and twins."""
        for number in range(self.pools):
            pool = f"pool-{number}"
            await self.world.apply(
                operator_harness.pool_manifest(
                    self.world.namespace, pool, engine={"device": "CPU", "maxLoras": 256},
                )
            )  # fmt: skip
            await self.world.start_pod(self.pod_of(pool), pool=pool, status={"podIP": f"10.0.0.{number + 1}"})
            await self.world.report(self.pod_of(pool), pool=pool)
        await at_once(self._make(name) for name in self.names)
        for number in range(self.pools):
            pool = f"pool-{number}"
            await self.say(pool, dict(self.held(name) for name in self.names if self.pool_of(name) == pool))

    async def _make(self, twin: str) -> None:
        await self.world.api.create({
            "apiVersion": names.API_VERSION, "kind": DOCTOR_TWIN.kind,
            "metadata": {"name": twin, "namespace": self.world.namespace},
            "spec": {
                "doctor": {"name": f"Dr. {twin}", "licence": "NMC-1", "specialty": "General practice"},
                "baseModel": {"name": BASE},
                "poolSelector": {"matchLabels": {"tier": self.pool_of(twin)}},
                "systemPrompt": f"You are the AI twin of {twin}. Speak plainly, and send emergencies to a hospital.",
                "adapter": self.adapter(twin),
                **self.spec,
            },
        })  # fmt: skip

    async def say(self, pool: str, adapters: dict[str, Any]) -> None:
        """Change what the pool's agent reports, by a merge patch as agents send it.

        One at a time, as an agent does: what is said while one is under way goes with the next.
        """
        self._unsaid.setdefault(pool, {}).update(adapters)
        async with self._saying.setdefault(pool, asyncio.Lock()):
            if patch := self._unsaid.pop(pool, {}):
                await self.world.api.merge(
                    POD_REPORT, namespace=self.world.namespace, name=self.pod_of(pool),
                    patch={"metadata": {"managedFields": names.UNTRACKED}, "adapters": patch},
                )  # fmt: skip

    async def ask(self, twin: str) -> None:
        """Give the twin a new version."""
        self.version[twin] = self.version.get(twin, 0) + 1
        await self.world.api.merge(
            DOCTOR_TWIN, namespace=self.world.namespace, name=twin, patch={"spec": {"adapter": self.adapter(twin)}}
        )

    async def change(self, twin: str) -> None:
        """Give the twin a new version and let the agent hold it instead of the former one."""
        former, _ = self.held(twin)
        await self.ask(twin)
        name, held = self.held(twin)
        await self.say(self.pool_of(twin), {name: held, former: None})

    async def all_ready(self) -> bool:
        """Tell whether every twin is Ready with the version that it asks for."""
        twins, _ = await self.world.api.list(DOCTOR_TWIN, namespace=self.world.namespace)
        return len(twins) == self.twins and all(
            condition(twin, "Ready")[0] == "True"
            and twin["status"]["activeVersion"]["digest"] == twin["spec"]["adapter"]["digest"]
            for twin in twins
        )

    async def until_ready(self) -> None:
        """Wait until every twin is. Of many it is asked seldom: the listing of all would be what is measured."""
        every = max(1.0, self.twins / 1000)
        await until(self.all_ready, seconds=READY_SECONDS, what=f"all {self.twins} twins are Ready", every=every)

    async def seen_ms(self, twin: str, change: Awaitable[None], check: Callable[[Any], bool]) -> float:
        """Return how long after `change` began the twin's published entry passes `check`, by a watch, in ms."""
        opened = asyncio.Event()
        watch = asyncio.ensure_future(self._until_entry(twin, check, opened))
        await opened.wait()
        began = time.monotonic()
        await change
        return (await watch - began) * 1000

    async def _until_entry(self, twin: str, check: Callable[[Any], bool], opened: asyncio.Event) -> float:
        path = ROUTING_SLICE.path(namespace=self.world.namespace)
        query = {"watch": "true", "labelSelector": f"{names.LABEL_POOL}={self.pool_of(twin)}"}
        async with asyncio.timeout(120), self.world.agents.stream(path, query, silence_seconds=120) as response:
            opened.set()
            buffer = b""
            async for chunk in response.content.iter_any():
                *lines, buffer = (buffer + chunk).split(b"\n")
                at = time.monotonic()
                for line in lines:
                    event = json.loads(line)
                    entries = event["object"].get("twins") or {} if event["type"] in ("ADDED", "MODIFIED") else {}
                    for entry in entries.values():
                        if entry["name"] == twin and check(entry):
                            return at
        raise TimeoutError(f"{twin}: the watch ended")

    async def slices(self) -> list[dict[str, Any]]:
        """Return all that is published."""
        found, _ = await self.world.api.list(ROUTING_SLICE, namespace=self.world.namespace)
        return found


async def at_once(jobs: Iterable[Awaitable[None]]) -> None:
    """Await all, so many at the same time."""
    room = asyncio.Semaphore(AT_ONCE)

    async def one(job: Awaitable[None]) -> None:
        async with room:
            await job

    await asyncio.gather(*(one(job) for job in jobs))


async def paced(jobs: Iterable[Callable[[], Awaitable[None]]], *, seconds: float) -> None:
    """Start the jobs evenly over that time, and wait for all of them."""
    every = list(jobs)
    began = time.monotonic()
    tasks = []
    for number, job in enumerate(every):
        await asyncio.sleep(max(0.0, began + number * seconds / len(every) - time.monotonic()))
        tasks.append(asyncio.ensure_future(job()))
    await asyncio.gather(*tasks)

"""Stand-ins of vLLM as a miner's pods, without the agent between."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bettertherapy_api.routing import Version
from tests.standin import BASE, StandIn
from tests.unit.miner.fake_agent import FakeAgent
from tests.unit.miner.running_miner import RunningMiner, Twin

ON_BASE = Version(served_name=BASE, weight_percent=100)
QUESTION = [{"role": "user", "content": "I have had a headache for two days."}]


@dataclass(frozen=True)
class Pool:
    """A miner before engines; a twin `indra` without an adapter."""

    miner: RunningMiner
    engines: Mapping[str, StandIn]

    @property
    def order(self) -> list[StandIn]:
        """The engines, the twin's preferred one first."""
        snapshot = self.miner.service.tables.snapshot
        return [self.engines[pod.name] for pod in snapshot.pods_for(snapshot.twins["indra"].active[0])]

    @property
    def asked(self) -> int:
        """Questions that reached an engine."""
        return sum(len(engine.bodies) for engine in self.engines.values())

    async def stream(self, path: str = "/v1/chat/completions", **body: Any) -> list[Any]:
        """Ask for a stream; returns its events, "[DONE]" as the last where it is there."""
        asked = {"model": "indra", "messages": QUESTION, "stream": True, "max_tokens": 8} | body
        async with self.miner.client.post(path, json=asked) as response:
            data = await response.read()
            assert response.status == 200, data
        return events(data)


def events(data: bytes) -> list[Any]:
    lines = [line.removeprefix(b"data: ") for line in data.split(b"\n") if line.startswith(b"data: ")]
    return [line.decode() if line == b"[DONE]" else json.loads(line) for line in lines]


def text(got: list[Any]) -> str:
    """All that a chat's stream said."""
    chunks = [event for event in got if isinstance(event, dict) and event.get("choices")]
    return "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)


@asynccontextmanager
async def pool(folder: Path, count: int = 2, *, system_prompt: str | None = None, **knobs: Any) -> AsyncIterator[Pool]:
    """`count` engines with these knobs, listed as ready; settings of the miner begin with `miner_`."""
    settings = {name.removeprefix("miner_"): knobs.pop(name) for name in list(knobs) if name.startswith("miner_")}
    async with AsyncExitStack() as stack:
        engines = {
            f"pod-{number}": await stack.enter_async_context(StandIn(port=0, **knobs)) for number in range(count)
        }
        miner = await stack.enter_async_context(RunningMiner(folder, **settings))
        miner.route({"indra": Twin(versions=(ON_BASE,), system_prompt=system_prompt)})
        agents = [FakeAgent(pod=name, address=f"127.0.0.1:{engine.port}") for name, engine in engines.items()]
        miner.report(agents)
        yield Pool(miner, engines)

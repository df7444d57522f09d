"""A running gateway before miners that really run: real sockets, signatures, receipts; a metagraph in a file."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from neurons.receipts import NeuronEntry, write_metagraph
from neurons.validator.gateway.asking import Patience
from neurons.validator.gateway.keys import hash_of, new_key
from neurons.validator.gateway.metrics import Metrics
from neurons.validator.gateway.service import GatewayService
from neurons.validator.gateway.settings import Settings
from tests.unit.gateway.rogue_miner import RogueMiner
from tests.unit.miner.fake_agent import FakeAgent
from tests.unit.miner.running_miner import RunningMiner, Twin, eventually, held, version
from tests.unit.miner.signing_miner import on_subnet
from tests.unit.receipts.keyring import VALIDATOR, key

INDRA = version("indra", "a")
NETUID = 42
BLOCK = 1000
QUESTION = [{"role": "user", "content": "I have had a headache for two days."}]
PATIENCE = Patience(miners=3, deadline=5.0, connect=1.0, hedge=2.0, grace=1.0, explore=0.0)


@dataclass
class HonestMiner:
    """The project's own miner before one engine pod."""

    miner: RunningMiner
    agent: FakeAgent
    keypair: Any

    @property
    def axon(self) -> str:
        return self.miner.url.removeprefix("http://")

    @property
    def says(self) -> str:
        return "".join(self.agent.words)


@dataclass
class RunningGateway:
    """What a test holds of it all."""

    service: GatewayService
    client: aiohttp.ClientSession
    url: str
    key: str
    folder: Path
    miners: list[HonestMiner] = field(default_factory=list)
    rogues: list[RogueMiner] = field(default_factory=list)

    async def post(self, path: str, body: Any, headers: Mapping[str, str] | None = None) -> tuple[int, Any, Any]:
        """Return (status, headers, document)."""
        async with self.client.post(path, json=body, headers=headers) as response:
            return response.status, response.headers, json.loads(await response.read())

    async def get(self, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, Any]:
        async with self.client.get(path, headers=headers) as response:
            return response.status, json.loads(await response.read())

    async def ask(
        self, text: str | None = None, *, headers: Mapping[str, str] | None = None, **body: Any
    ) -> tuple[int, Any, Any]:
        messages = QUESTION if text is None else [{"role": "user", "content": text}]
        return await self.post("/v1/chat/completions", {"model": "indra", "messages": messages} | body, headers)

    async def stream(self, text: str | None = None, **body: Any) -> tuple[int, str]:
        """Return status and all that was sent."""
        messages = QUESTION if text is None else [{"role": "user", "content": text}]
        asked = {"model": "indra", "messages": messages, "stream": True} | body
        async with self.client.post("/v1/chat/completions", json=asked) as response:
            return response.status, (await response.read()).decode()

    def metric(self, name: str, **labels: str) -> float:
        return self.service.metrics.registry.get_sample_value(f"bettertherapy_gateway_{name}", labels) or 0.0

    def outcomes(self, outcome: str) -> float:
        """How many of all miners' answers came to this."""
        return sum(
            sample.value
            for family in self.service.metrics.registry.collect()
            for sample in family.samples
            if sample.name == "bettertherapy_gateway_miner_answers_total" and sample.labels["outcome"] == outcome
        )

    async def look(self) -> None:
        """Let the gateway ask every miner what it serves."""
        assert self.service.roster is not None
        await self.service.roster.refresh_metagraph()
        await self.service.roster.refresh_announcements()


def neuron(uid: int, keypair: Any, axon: str | None, *, permit: bool = False, owner: str | None = None) -> NeuronEntry:
    return NeuronEntry(
        uid=uid, hotkey=keypair.ss58_address, coldkey=key(owner or f"Owner{uid}").ss58_address, axon=axon,
        validator_permit=permit, stake=1000, block_at_registration=100 + uid,
    )  # fmt: skip


def write_keys(path: Path, **keys: Mapping[str, Any]) -> None:
    """Write a file of keys; each with its `key`."""
    entries = [
        {"id": name, "hash": hash_of(given["key"]), "perMinute": 60_000, "burst": 10_000}
        | {field: value for field, value in given.items() if field != "key"}
        for name, given in keys.items()
    ]
    path.write_text(json.dumps({"format": "bettertherapy-keys/1", "keys": entries}))


def write_miners(path: Path, axons: Sequence[tuple[Any, str]], *, block: int = BLOCK) -> None:
    rows = [neuron(uid, keypair, axon) for uid, (keypair, axon) in enumerate(axons, start=1)]
    write_metagraph(
        path, netuid=NETUID, block=block, time_ms=time.time_ns() // 10**6,
        neurons=(neuron(0, VALIDATOR, None, permit=True), *rows),
    )  # fmt: skip


@asynccontextmanager
async def honest(folder: Path, name: str, *, words: Sequence[str] | None = None) -> AsyncIterator[HonestMiner]:
    folder.mkdir(exist_ok=True)  # noqa: ASYNC240
    agent = FakeAgent(pod="a", holds=held(INDRA))
    if words is not None:
        agent.words = words
    # Validators are known to miners by a metagraph of their own, which has no axons yet.
    write_miners(folder / "metagraph.json", [])
    keypair = key(name)
    async with agent, RunningMiner(folder, subnet=on_subnet(folder, keypair)) as miner:
        miner.route({"indra": Twin(versions=(INDRA,), doctor="Dr. Indra Gurung")})
        miner.report([agent])
        await eventually(lambda: miner.metric("bettertherapy_miner_metagraph_age_seconds") != float("inf"), 30)
        yield HonestMiner(miner, agent, keypair)


@asynccontextmanager
async def gateway(
    folder: Path,
    *,
    names: Sequence[str] = ("Alice", "Charlie", "Dave"),
    rogues: Sequence[RogueMiner] = (),
    patience: Patience = PATIENCE,
    keys: Mapping[str, Mapping[str, Any]] | None = None,
    settings: Mapping[str, Any] | None = None,
    **given: Any,
) -> AsyncIterator[RunningGateway]:
    """A gateway with these miners of ours, and these rogues; ready."""
    async with AsyncExitStack() as stack:
        miners = [await stack.enter_async_context(honest(folder / name, name)) for name in names]
        for rogue in rogues:
            await stack.enter_async_context(rogue)
        everybody: list[tuple[Any, str]] = [(each.keypair, each.axon) for each in miners]
        everybody += [(rogue.keypair, rogue.axon) for rogue in rogues]
        write_miners(folder / "metagraph.json", everybody)
        own = new_key()
        write_keys(folder / "keys.json", clinic={"key": own}, **(keys or {}))
        values: dict[str, Any] = {
            "keys_file": folder / "keys.json", "metagraph_file": folder / "metagraph.json", "state_dir": folder,
            "host": "127.0.0.1", "port": 0, "metrics_port": 0, "patience": patience, "drain_delay_seconds": 0.0,
            "drain_seconds": 5.0, "keep_alive_seconds": 0.05,
        }  # fmt: skip
        service = GatewayService(
            Settings(**(values | dict(settings or {}))), metrics=Metrics(), **({"keypair": VALIDATOR} | given)
        )
        running = asyncio.create_task(service.run())
        try:
            async with asyncio.timeout(10):
                await service.listening.wait()
                assert service.roster is not None
                await service.roster.looked.wait()
            url = f"http://127.0.0.1:{service.port}"
            client = await stack.enter_async_context(
                aiohttp.ClientSession(url, headers={"Authorization": f"Bearer {own}"})
            )
            yield RunningGateway(service, client, url, own, folder, miners, list(rogues))
        finally:
            service.stop()
            async with asyncio.timeout(20):
                await running

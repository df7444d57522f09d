"""A running miner with a wallet, and a validator that calls it."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import bittensor_core
from yarl import URL

from neurons.miner.settings import SubnetSettings
from neurons.receipts import NeuronEntry, write_metagraph
from neurons.wire.signer import RequestSigner, signed_request
from tests.unit.miner.fake_agent import FakeAgent
from tests.unit.miner.running_miner import RunningMiner, Twin, eventually, held, version
from tests.unit.receipts.keyring import COLDKEY, MINER, VALIDATOR

INDRA = version("indra", "a")
QUESTION = [{"role": "user", "content": "I have had a headache for two days."}]
CHAT = "/v1/chat/completions"


def wallet(folder: Path, keypair: Any = MINER) -> Path:
    path = folder / "wallet"
    path.mkdir(exist_ok=True)
    (path / "hotkey").write_bytes(bittensor_core.serialized_keypair_to_keyfile_data(keypair))
    return path


def neuron(uid: int, keypair: Any, *, permit: bool = False) -> NeuronEntry:
    return NeuronEntry(
        uid=uid, hotkey=keypair.ss58_address, coldkey=COLDKEY.ss58_address, validator_permit=permit, stake=1000
    )


def on_subnet(folder: Path, keypair: Any = MINER, **settings: Any) -> SubnetSettings:
    """Return settings by which Alice (or who has `keypair`) mines and Bob validates; one clock, so no skew."""
    path = folder / "metagraph.json"
    if not path.exists():
        neurons = (neuron(0, VALIDATOR, permit=True), neuron(1, MINER))
        write_metagraph(path, netuid=42, block=1000, neurons=neurons, time_ms=time.time_ns() // 10**6)
    values: dict[str, Any] = {
        "wallet_dir": wallet(folder, keypair), "netuid": 42, "metagraph_file": path, "skew_seconds": 0.0,
    }  # fmt: skip
    return SubnetSettings(**(values | settings))


class Validator:
    """Bob, asking one miner."""

    def __init__(self, miner: RunningMiner, keypair: Any = VALIDATOR) -> None:
        self._base = URL(miner.url)
        self.signer = RequestSigner(keypair)
        self.session = aiohttp.ClientSession()

    def url(self, path: str) -> URL:
        """Return where a path is."""
        return self._base.join(URL(path))

    async def get(self, path: str) -> tuple[int, bytes]:
        async with signed_request(
            self.session, self.signer, method="GET", url=self._base.join(URL(path)), receiver=MINER.ss58_address,
            tries=1,
        ) as response:  # fmt: skip
            return response.status, await response.read()

    async def ask(self, path: str = CHAT, **body: Any) -> tuple[int, Mapping[str, str], bytes]:
        """Return status, headers and body of an answer."""
        document = {"model": "indra", "messages": QUESTION} | body
        data = json.dumps({name: value for name, value in document.items() if value is not None}).encode()
        async with signed_request(
            self.session, self.signer, method="POST", url=self._base.join(URL(path)), receiver=MINER.ss58_address,
            body=data, tries=1,
        ) as response:  # fmt: skip
            return response.status, dict(response.headers), await response.read()


@asynccontextmanager
async def signing(folder: Path, *, agent: FakeAgent | None = None, **subnet: Any) -> AsyncIterator[RunningMiner]:
    """Return a miner with a wallet that serves `indra`, its metagraph read."""
    miner_settings = {"doors": subnet.pop("doors")} if "doors" in subnet else {}
    agent = agent or FakeAgent(pod="a", holds=held(INDRA))
    async with agent, RunningMiner(folder, subnet=on_subnet(folder, **subnet), **miner_settings) as miner:
        miner.route({"indra": Twin(versions=(INDRA,), doctor="Dr. Indra Gurung")})
        miner.report([agent])
        await eventually(lambda: miner.metric("bettertherapy_miner_metagraph_age_seconds") != float("inf"))
        yield miner


@asynccontextmanager
async def validator(miner: RunningMiner, keypair: Any = VALIDATOR) -> AsyncIterator[Validator]:
    made = Validator(miner, keypair)
    try:
        yield made
    finally:
        await made.session.close()

"""Large bodies, however slowly they are sent, fill no miner's memory, and keep no small one out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from yarl import URL

from neurons.miner.settings import MAX_BODY_BYTES
from neurons.wire.signer import RequestSigner
from tests.unit.miner.fake_agent import FakeAgent
from tests.unit.miner.running_miner import RunningMiner, Twin, eventually, held, version
from tests.unit.miner.signing_miner import CHAT, on_subnet, validator
from tests.unit.receipts.keyring import MINER, STRANGER, VALIDATOR

INDRA = version("indra", "a")
QUESTION = {"model": "indra", "messages": [{"role": "user", "content": "x" * (MAX_BODY_BYTES - 200)}]}
BODY = json.dumps(QUESTION).encode()


class SlowBodies:
    """Bodies that stand still after their beginning until they are told to go on."""

    def __init__(self) -> None:
        self.begun, self.go_on = 0, asyncio.Event()

    async def one(self) -> AsyncIterator[bytes]:
        yield BODY[:1000]
        self.begun += 1
        await self.go_on.wait()
        yield BODY[1000:]


async def send(miner: RunningMiner, body: Any, *, length: int | None = None) -> tuple[int, dict[str, Any]]:
    headers = {"Content-Type": "application/json"} | ({"Content-Length": str(length)} if length is not None else {})
    async with miner.client.post("/v1/chat/completions", data=body, headers=headers) as response:
        return response.status, json.loads(await response.read())


@pytest.mark.parametrize("length", [len(BODY), None], ids=["with its length", "chunked"])
async def test_slow_large_bodies_are_bounded_and_keep_no_small_one_out(tmp_path: Path, length: int | None) -> None:
    bodies = SlowBodies()

    async with (
        FakeAgent(pod="a", holds=held(INDRA)) as agent,
        RunningMiner(tmp_path, large_bodies_bytes=2 * MAX_BODY_BYTES) as miner,
    ):
        miner.route({"indra": Twin(versions=(INDRA,))})
        miner.report([agent])
        slow = [asyncio.create_task(send(miner, bodies.one(), length=length)) for _ in range(2)]
        await eventually(lambda: bodies.begun == 2)
        status, document = await send(miner, BODY)
        assert (status, document["error"]["code"]) == (429, "overloaded")
        assert "large requests" in document["error"]["message"]
        assert (await miner.ask("indra"))[0] == 200
        bodies.go_on.set()
        assert [(await each)[0] for each in slow] == [200, 200]
        assert (await send(miner, BODY))[0] == 200


async def test_large_bodies_count_for_as_long_as_their_questions_wait(tmp_path: Path) -> None:
    async with (
        FakeAgent(pod="a", holds=held(INDRA)) as agent,
        RunningMiner(tmp_path, large_bodies_bytes=MAX_BODY_BYTES) as miner,
    ):
        miner.route({"indra": Twin(versions=(INDRA,))})
        miner.report([])
        waits = asyncio.create_task(send(miner, BODY))
        await eventually(lambda: miner.metric("bettertherapy_miner_held") == 1)
        assert (await send(miner, BODY))[0] == 429
        miner.report([agent])
        assert (await waits)[0] == 200
        assert (await send(miner, BODY))[0] == 200


async def test_bodies_of_whoever_only_says_to_be_a_validator_keep_no_clients_body_out(tmp_path: Path) -> None:
    """A validator's hotkey is public: until its signature was seen, a body is a stranger's."""
    bodies = SlowBodies()

    async def pretend(miner: RunningMiner) -> int:
        signer = RequestSigner(STRANGER)
        headers = signer.headers(method="POST", url=URL(CHAT), body=b"", receiver=MINER.ss58_address)
        headers |= {"X-Bittensor-Hotkey": VALIDATOR.ss58_address, "Content-Length": str(len(BODY))}
        async with miner.client.post(CHAT, data=bodies.one(), headers=headers) as response:
            return response.status

    async with (
        FakeAgent(pod="a", holds=held(INDRA)) as agent,
        RunningMiner(tmp_path, subnet=on_subnet(tmp_path), large_bodies_bytes=4 * MAX_BODY_BYTES) as miner,
        validator(miner) as bob,
    ):
        miner.route({"indra": Twin(versions=(INDRA,))})
        miner.report([agent])
        await eventually(lambda: miner.metric("bettertherapy_miner_metagraph_age_seconds") != float("inf"))
        impostors = [asyncio.create_task(pretend(miner)) for _ in range(4)]
        await eventually(lambda: bodies.begun == 4)
        await eventually(lambda: sum(each.done() for each in impostors) == 2)
        assert (await send(miner, BODY))[0] == 200, "a token's client is known before its body is read"
        bodies.go_on.set()
        assert sorted(await asyncio.gather(*impostors)) == [401, 401, 429, 429]

        miner.report([])  # nobody answers now: questions wait, and with them their bodies
        large = [{"role": "user", "content": "x" * (MAX_BODY_BYTES - 400)}]
        proven = []
        for number in range(3):
            proven.append(asyncio.create_task(bob.ask(messages=large)))
            await eventually(lambda number=number: miner.metric("bettertherapy_miner_held") == number + 1)
        miner.report([agent])
        assert [(await each)[0] for each in proven] == [200] * 3, "once proven, a body has all the room"

"""Large bodies, however slowly they are sent, fill no miner's memory, and keep no small one out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from neurons.miner.settings import MAX_BODY_BYTES
from tests.unit.miner.fake_agent import FakeAgent
from tests.unit.miner.running_miner import RunningMiner, Twin, eventually, held, version

INDRA = version("indra", "a")
QUESTION = {"model": "indra", "messages": [{"role": "user", "content": "x" * (MAX_BODY_BYTES - 200)}]}
BODY = json.dumps(QUESTION).encode()


async def send(miner: RunningMiner, body: Any, *, length: int | None = None) -> tuple[int, dict[str, Any]]:
    headers = {"Content-Type": "application/json"} | ({"Content-Length": str(length)} if length is not None else {})
    async with miner.client.post("/v1/chat/completions", data=body, headers=headers) as response:
        return response.status, json.loads(await response.read())


@pytest.mark.parametrize("length", [len(BODY), None], ids=["with its length", "chunked"])
async def test_slow_large_bodies_are_bounded_and_keep_no_small_one_out(tmp_path: Path, length: int | None) -> None:
    begun, go = [0], asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield BODY[:1000]
        begun[0] += 1
        await go.wait()
        yield BODY[1000:]

    async with (
        FakeAgent(pod="a", holds=held(INDRA)) as agent,
        RunningMiner(tmp_path, large_bodies_bytes=2 * MAX_BODY_BYTES) as miner,
    ):
        miner.route({"indra": Twin(versions=(INDRA,))})
        miner.report([agent])
        slow = [asyncio.create_task(send(miner, slowly(), length=length)) for _ in range(2)]
        await eventually(lambda: begun[0] == 2)
        status, document = await send(miner, BODY)
        assert (status, document["error"]["code"]) == (429, "overloaded")
        assert "large requests" in document["error"]["message"]
        assert (await miner.ask("indra"))[0] == 200
        go.set()
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

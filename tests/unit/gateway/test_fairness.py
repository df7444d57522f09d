"""A key that floods the gateway, or the pages' visitors, keep no other key from an answer."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from neurons.validator.gateway import server
from neurons.validator.gateway.keys import VISITORS, ApiKey, new_key
from tests.unit.gateway.rogue_miner import RogueMiner
from tests.unit.gateway.running_gateway import PATIENCE, RunningGateway, gateway
from tests.unit.gateway.test_emergencies import CHEST
from tests.unit.gateway.test_keys import bearer
from tests.unit.miner.running_miner import eventually

FULL = {"max_in_flight": 4}
LONG = replace(PATIENCE, deadline=60.0, hedge=60.0)


async def flood(running: RunningGateway, count: int) -> list[asyncio.Task[tuple[int, object, object]]]:
    """Have so many questions of the first key in work, none of which is answered."""
    asking = [asyncio.create_task(running.ask("Hello")) for _ in range(count)]
    await eventually(lambda: running.metric("in_flight") == count)
    return asking


async def test_a_key_that_takes_all_places_leaves_others_theirs(tmp_path: Path) -> None:
    gate, other = asyncio.Event(), new_key()
    rogue = RogueMiner(gate=gate)
    async with gateway(
        tmp_path, names=(), rogues=[rogue], settings=FULL, patience=LONG, keys={"other": {"key": other}}
    ) as running:
        flooding = await flood(running, 4)
        await eventually(lambda: len(rogue.questions) == 4)
        status, _, document = await running.ask("Hello")
        assert (status, document["error"]["code"]) == (429, "overloaded"), "its own next one waits"
        theirs = asyncio.create_task(running.ask("Hi", headers=bearer(other)))
        # Not at the gateway's limit alone: the miner, too, has as many of the first key's questions as it takes.
        await eventually(lambda: len(rogue.questions) == 5)
        assert rogue.questions[-1]["messages"][0]["content"] == "Hi"
        gate.set()
        assert (await theirs)[0] == 200
        assert {(await each)[0] for each in flooding} == {200}
        assert running.metric("in_flight") == 0


async def test_a_key_whose_refused_questions_do_not_arrive_keeps_no_other_from_its_notice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MOST_TURNED_AWAY", 2)
    gate, other = asyncio.Event(), new_key()
    async with gateway(
        tmp_path,
        names=(),
        rogues=[RogueMiner(gate=gate)],
        settings={"max_in_flight": 1},
        patience=LONG,
        keys={"other": {"key": other, "perMinute": 1, "burst": 1}},
    ) as running:
        [first] = await flood(running, 1)
        assert (await running.post("/v1/sessions", {"model": "maya"}, bearer(other)))[0] != 429
        opened = [await unfinished(running) for _ in range(4)]
        try:
            # Two of them are read, and the others told at once whom to call: what they say is not known.
            for reader, _ in opened[2:]:
                told = await reader.readuntil(b"}")
                assert b" 429 " in told
                assert b"In an emergency" in told
            status, _, document = await running.ask(CHEST, headers=bearer(other))
            assert (status, document["bettertherapy"]["error"]["code"]) == (200, "key_rate")
            assert document["bettertherapy"]["notice"]["kinds"][0] == "heart"
        finally:
            for _, writer in opened:
                writer.close()
        gate.set()
        await first


async def unfinished(running: RunningGateway) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send a question's beginning, and no more."""
    reader, writer = await asyncio.open_connection("127.0.0.1", running.service.port)
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Authorization: Bearer " + running.key.encode() + b"\r\nContent-Length: 500\r\n\r\n{"
    )
    await writer.drain()
    return reader, writer


def test_all_visitors_of_the_pages_share_as_one_client() -> None:
    nobody = "sha256:" + "0" * 64
    assert ApiKey(id="clinic", hash=nobody).share == "clinic"
    assert {ApiKey(id=f"{VISITORS}{number}", hash=nobody).share for number in range(3)} == {VISITORS}

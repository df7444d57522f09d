"""What a miner with a task gets of the gateway, and what the gateway takes of it: nobody else's, nothing too late."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from yarl import URL

from neurons.ledger import Ledger, Miner, Task, TaskState, schema
from neurons.ledger.dataset import Bounds
from neurons.receipts import sha256
from neurons.validator.gateway import task_desk
from neurons.validator.rounds.tasks import event_of, task_id
from neurons.wire.capability import Capability, signed_url
from neurons.wire.tasks import MAX_BYTES, sign_report
from tests.unit.gateway.rogue_miner import RogueMiner
from tests.unit.gateway.running_gateway import RunningGateway, gateway
from tests.unit.ledger.world import DAY, GURUNG, NOON, Conversation
from tests.unit.receipts.keyring import VALIDATOR, key

ADAPTER = "sha256:" + "a" * 64
DAY_OF_TALK = date.fromisoformat(DAY)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass
class Desk:
    """A gateway with a ledger, and one task of the miner Mallory, who really is on the subnet."""

    running: RunningGateway
    ledger: Ledger
    task: Task
    talks: list[Conversation]
    miner: Any

    @property
    def path(self) -> str:
        return URL(self.task.dataset_uri).raw_path_qs

    async def fetch(self, path: str | None = None) -> tuple[int, bytes]:
        headers = {"Authorization": ""}
        url = URL(self.running.url + (path or self.path), encoded=True)
        async with self.running.client.get(url, headers=headers) as response:
            return response.status, await response.read()

    async def say(self, state: str, *, by: Any = None, task: str | None = None, **more: Any) -> tuple[int, Any]:
        named = task or self.task.task_id
        data = sign_report(by or self.miner, task=named, state=state, time_ms=now_ms(), **more)
        return await self.post(data, task=named)

    async def post(self, data: bytes, *, task: str | None = None) -> tuple[int, Any]:
        path = f"/v1/tasks/{task or self.task.task_id}/reports"
        async with self.running.client.post(path, data=data, headers={"Authorization": ""}) as response:
            return response.status, await response.json()

    async def states(self) -> list[TaskState]:
        found = await self.ledger.task(self.task.task_id)
        assert found is not None
        return [event.state for event in found.events]


@asynccontextmanager
async def desk(
    folder: Path, *, seconds: float = 600, block: int = 101, settings: Mapping[str, Any] | None = None
) -> AsyncIterator[Desk]:
    async with await Ledger.open(f"sqlite:///{folder}/ledger.db") as ledger:
        talks = []
        for number in range(3):
            talk = Conversation(at_ms=NOON + number * 1000)
            [answer] = talk.ask(f"My knee hurts, number {number}.", "Rest it.")
            talk.rate(answer, 4)
            await ledger.record(*talk.records)
            talks.append(talk)
        made = await ledger.task_dataset(
            twin_uid=GURUNG.uid, day=DAY_OF_TALK, zone="UTC", choose=lambda lines, _: lines
        )
        rogue = RogueMiner(name="Mallory")
        miner = Miner(hotkey=str(rogue.keypair.ss58_address), registered_block=block)
        own, bounds = task_id(GURUNG, made.digest, miner), Bounds.of(DAY_OF_TALK)
        deadline = now_ms() + round(seconds * 1000)
        async with gateway(folder, names=(), rogues=[rogue], recorder=ledger, settings=settings) as running:
            url = signed_url(
                VALIDATOR, Capability(own, made.digest, bounds.start_ms, bounds.end_ms, deadline), base=running.url
            )
            task = Task(own, GURUNG, miner, url, made.digest, now_ms(), deadline)
            await ledger.record(task)
            yield Desk(running, ledger, task, talks, rogue.keypair)


async def test_the_dataset_is_given_by_its_address_and_has_its_digest(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)  # as the process logs
    async with desk(tmp_path) as given:
        status, data = await given.fetch()
        assert (status, sha256(data)) == (200, given.task.dataset_digest)
        assert data.count(b"\n") == 3
        assert "knee" not in caplog.text
        assert "signature" not in caplog.text


@pytest.mark.parametrize("field", ["digest", "from", "to", "until", "signature"])
async def test_an_address_that_was_changed_opens_nothing(tmp_path: Path, field: str) -> None:
    async with desk(tmp_path) as given:
        url = URL(given.task.dataset_uri)
        value = url.query[field]
        changed = url.update_query({field: value[:-1] + ("0" if value[-1] != "0" else "1")})
        status, body = await given.fetch(changed.raw_path_qs)
        assert (status, b"not_opened" in body) == (403, True)


async def test_when_the_tasks_time_is_over_it_opens_nothing(tmp_path: Path) -> None:
    async with desk(tmp_path, seconds=-1) as given:
        status, body = await given.fetch()
        assert status == 403
        assert b"time is over" in body
        status, said = await given.say("accepted")
        assert (status, said["error"]["code"]) == (409, "not_taken")


@pytest.mark.parametrize("how", ["erased", "withdrawn"])
async def test_what_a_patient_takes_back_is_gone_and_the_task_counts_neither_way(tmp_path: Path, how: str) -> None:
    async with desk(tmp_path) as given:
        assert (await given.say("accepted"))[0] == 200
        if how == "erased":
            await given.ledger.erase(patient_id=given.talks[1].patient_id)
        else:
            talk = Conversation(patient_id=given.talks[1].patient_id, consents=False)
            talk.consent(False, at_ms=NOON + 60_000)
            await given.ledger.record(*talk.records)
        for _ in range(2):
            status, body = await given.fetch()
            assert (status, b"dataset_withdrawn" in body) == (410, True)
        assert given.running.metric("task_requests_total", what="dataset", code="410") == 2
        assert given.running.metric("task_requests_total", what="reports", code="200") == 1
        assert await given.states() == [TaskState.ACCEPTED, TaskState.WITHDRAWN]
        status, said = await given.say("finished", adapter=ADAPTER)
        assert (status, said["error"]["code"]) == (409, "not_taken")


async def test_reports_are_taken_once_and_in_turn_and_lineage_is_kept(tmp_path: Path) -> None:
    async with desk(tmp_path) as given:
        status, said = await given.say("finished", adapter=ADAPTER)
        assert (status, "can't become" in said["error"]["message"]) == (409, True)
        for state, more in (("accepted", {}), ("finished", {"adapter": ADAPTER})):
            for _ in range(2):
                assert await given.say(state, **more) == (200, {"task": given.task.task_id, "state": state})
        assert await given.states() == [TaskState.ACCEPTED, TaskState.FINISHED]
        status, _ = await given.fetch()
        assert status == 410, "a task that is over gives nothing more"
        erased = await given.ledger.erase(patient_id=given.talks[0].patient_id)
        assert [each.adapter_digest for each in erased.retrain] == [ADAPTER]
        async with given.ledger.database.reading() as connection:
            rows = list(await connection.execute(select(schema.TRAININGS)))
        assert len(rows) == 1


async def test_nobody_speaks_for_another_miner(tmp_path: Path) -> None:
    async with desk(tmp_path) as given:
        stranger = key("Zed")
        assert (await given.say("accepted", by=stranger))[0] == 403, "not on the subnet: the ledger isn't even asked"
        status, said = await given.say("accepted", by=VALIDATOR)
        assert (status, "not by" in said["error"]["message"]) == (409, True)
        forged = sign_report(stranger, task=given.task.task_id, state="accepted", time_ms=1).replace(
            str(stranger.ss58_address).encode(), str(given.miner.ss58_address).encode()
        )
        assert (await given.post(forged))[0] == 400
        other = "99999999-9999-4999-8999-999999999999"
        assert (await given.say("accepted", task=other))[0] == 404
        good = sign_report(given.miner, task=given.task.task_id, state="accepted", time_ms=1)
        assert (await given.post(good, task=other))[0] == 400
        assert (await given.post(b" " * (MAX_BYTES + 1)))[0] == 413
        assert await given.states() == []


async def test_a_hotkey_that_was_registered_anew_is_another_miner(tmp_path: Path) -> None:
    async with desk(tmp_path, block=7) as given:
        status, said = await given.say("accepted")
        assert (status, "registered anew" in said["error"]["message"]) == (409, True)


async def test_a_task_that_was_refused_gives_nothing(tmp_path: Path) -> None:
    async with desk(tmp_path) as given:
        await given.ledger.record(event_of(given.task, TaskState.REFUSED, at_ms=now_ms()))
        assert (await given.fetch())[0] == 410
        assert await given.states() == [TaskState.REFUSED]


async def test_it_is_fetched_so_often_and_by_its_own_method(tmp_path: Path) -> None:
    async with desk(tmp_path) as given:
        found = [(await given.fetch())[0] for _ in range(11)]
        assert found == [200] * 10 + [429]
        async with given.running.client.post(URL(given.task.dataset_uri, encoded=True), data=b"") as response:
            assert response.status == 405
        async with given.running.client.get(f"/v1/tasks/{given.task.task_id}/reports") as response:
            assert response.status == 405


async def test_strangers_who_send_slowly_hold_no_dataset_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_desk, "READ_SECONDS", 1.0)
    monkeypatch.setattr(task_desk, "MOST_REPORTS", 4)
    async with desk(tmp_path) as given:
        host, port = "127.0.0.1", URL(given.running.url).port
        head = f"POST /v1/tasks/{given.task.task_id}/reports HTTP/1.1\r\nHost: v\r\nContent-Length: 100\r\n\r\n"
        opened = [await asyncio.open_connection(host, port) for _ in range(4)]
        for _, writer in opened:
            writer.write(head.encode())
            await writer.drain()

        async def taken() -> int:
            return (await given.say("accepted"))[0]

        assert (await given.fetch())[0] == 200
        answers = await asyncio.gather(*(reader.readline() for reader, _ in opened))
        assert all(b"408" in each for each in answers)
        async with asyncio.timeout(10):
            while await taken() != 200:
                await asyncio.sleep(0.05)
        for _, writer in opened:
            writer.close()


async def test_without_a_ledger_there_is_no_desk(tmp_path: Path) -> None:
    async with gateway(tmp_path, names=(), rogues=[RogueMiner(name="Mallory")]) as running:
        path = "/v1/tasks/99999999-9999-4999-8999-999999999999/dataset"
        status, said = await running.get(path)
        assert (status, said["error"]["code"]) == (404, "no_ledger")


def test_the_day_is_the_talks() -> None:
    assert datetime.fromtimestamp(NOON / 1000, UTC).date() == DAY_OF_TALK

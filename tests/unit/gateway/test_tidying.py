"""What was delivered for a task goes once nobody needs it, and not before."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from neurons.ledger import Ledger, LedgerDown, Miner, Task, TaskState
from neurons.ledger.rounds import TaskStates
from neurons.validator.gateway.deliveries import Deliveries
from neurons.validator.gateway.tidying import EVERY_SECONDS, Tidying, is_settled, settled
from neurons.validator.rounds.tasks import TASK_DAYS, event_of
from tests.unit.gateway.rogue_miner import RogueMiner
from tests.unit.gateway.running_gateway import gateway
from tests.unit.gateway.test_deliveries import CONFIG, WEIGHTS, WEIGHTS_FILE, deliver, manifest, taking
from tests.unit.gateway.test_task_desk import desk, now_ms
from tests.unit.ledger.world import GURUNG
from tests.unit.receipts.keyring import key

HOUR = 3600 * 1000
DAY = 24 * HOUR
BEGAN = 1_700_000_000_000
ADAPTER, PARENT = "sha256:" + "a" * 64, "sha256:" + "f" * 64
MINER = Miner(hotkey=str(key("Charlie").ss58_address), registered_block=7)


def task(number: int = 1, *, parent: str = PARENT) -> Task:
    own = f"{number:08}-0000-4000-8000-000000000000"
    return Task(own, GURUNG, MINER, "https://v.example", "sha256:" + "d" * 64, BEGAN, BEGAN + DAY, parent)


def states(of: Task, *said: TaskState) -> TaskStates:
    events = [
        event_of(of, state, at_ms=BEGAN + number * HOUR, adapter=ADAPTER if state is TaskState.FINISHED else None)
        for number, state in enumerate(said, start=1)
    ]
    return TaskStates(of, tuple(events))


ACCEPTED, FINISHED, WITHDRAWN = TaskState.ACCEPTED, TaskState.FINISHED, TaskState.WITHDRAWN


@pytest.mark.parametrize("verdict", [TaskState.PASSED, TaskState.FAILED, TaskState.INCONCLUSIVE, TaskState.DISALLOWED])
def test_a_task_with_a_verdict_is_settled_an_hour_later(verdict: TaskState) -> None:
    over = states(task(), ACCEPTED, FINISHED, verdict)
    assert not is_settled(over, now_ms=BEGAN + 3 * HOUR + HOUR // 2)
    assert is_settled(over, now_ms=BEGAN + 4 * HOUR)


@pytest.mark.parametrize(
    ("said", "from_then_on"),
    [
        ((), DAY + HOUR),
        ((ACCEPTED,), DAY + HOUR),
        ((ACCEPTED, TaskState.FAILED), 3 * HOUR),
        ((ACCEPTED, FINISHED), TASK_DAYS * DAY + DAY + HOUR),
        ((ACCEPTED, FINISHED, WITHDRAWN), 3 * HOUR + DAY + HOUR),
    ],
)
def test_without_a_verdict_it_is_once_nothing_can_come_of_it(said: Sequence[TaskState], from_then_on: int) -> None:
    found = states(task(), *said)
    assert not is_settled(found, now_ms=BEGAN + from_then_on - 1)
    assert is_settled(found, now_ms=BEGAN + from_then_on)


def test_what_a_later_report_is_held_against_stays() -> None:
    over, open_ = states(task(1), ACCEPTED, FINISHED, TaskState.PASSED), states(task(2), ACCEPTED, FINISHED)
    other = states(task(3, parent=ADAPTER), ACCEPTED, FINISHED, TaskState.FAILED)
    there = [each.task.task_id for each in (over, open_, other)]
    now = BEGAN + 2 * DAY
    assert settled([over, open_, other], there, now_ms=now) == [other.task.task_id]
    then = states(task(2), ACCEPTED, FINISHED, TaskState.INCONCLUSIVE)
    assert settled([over, then, other], there, now_ms=now) == there
    assert settled([over, then, other], there[:1], now_ms=now) == there[:1]


def test_a_twin_that_keeps_its_version_for_months_keeps_no_deliveries_that_rounds_look_at_no_more() -> None:
    over = states(task(1), ACCEPTED, FINISHED, TaskState.PASSED)
    end = BEGAN + TASK_DAYS * DAY + DAY + HOUR
    newest = replace(task(2), at_ms=end - HOUR, deadline_ms=end + DAY)
    there, open_ = [over.task.task_id], TaskStates(newest, ())
    assert settled([over, open_], there, now_ms=end - 1) == []
    assert settled([over, open_], there, now_ms=end) == there


async def test_the_folder_of_a_settled_task_goes_and_all_others_stay(tmp_path: Path) -> None:
    async with desk(tmp_path, **taking(tmp_path)) as given:
        assert (await given.say("accepted"))[0] == 200
        adapter = await deliver(given, manifest(given))
        assert (await given.say("finished", adapter=adapter))[0] == 200
        folder = tmp_path / "delivered"
        unknown = folder / "99999999-0000-4000-8000-000000000000" / "x"
        unknown.mkdir(parents=True)
        clock = [now_ms() + 2 * HOUR]
        tidying = Tidying(Deliveries(f"file://{folder}"), given.ledger, now_ms=lambda: clock[0])
        assert await tidying.tidy() == []
        assert (folder / given.task.task_id / adapter.removeprefix("sha256:") / WEIGHTS_FILE).read_bytes() == WEIGHTS
        await given.ledger.record(event_of(given.task, TaskState.PASSED, at_ms=now_ms(), adapter=adapter))
        assert await tidying.tidy() == [given.task.task_id]
        assert [each.name for each in folder.iterdir()] == [unknown.parent.name], "the ledger doesn't know that one"
        assert await tidying.tidy() == []


async def test_what_was_removed_in_part_is_removed_when_it_is_looked_at_again(tmp_path: Path) -> None:
    deliveries = Deliveries(f"file://{tmp_path}/delivered")
    assert await deliveries.tasks() == []
    (tmp_path / "delivered" / "t" / "x").mkdir(parents=True)
    (tmp_path / "delivered" / "t" / "x" / "adapter_config.json").write_bytes(CONFIG)
    assert await deliveries.tasks() == ["t"]
    for _ in range(2):
        await deliveries.remove("t")
    assert await deliveries.tasks() == []


async def test_a_ledger_that_is_away_is_asked_again_and_nothing_goes_meanwhile(tmp_path: Path) -> None:
    (tmp_path / "delivered" / "00000001-0000-4000-8000-000000000000").mkdir(parents=True)
    slept: list[float] = []
    enough = asyncio.Event()

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 2:
            enough.set()
            await asyncio.Event().wait()

    class Away:
        @property
        def database(self) -> Any:
            raise LedgerDown("it is away")

    tidying = Tidying(Deliveries(f"file://{tmp_path}/delivered"), Away(), sleep=sleep)  # type: ignore[arg-type]
    following = asyncio.create_task(tidying.follow())
    async with asyncio.timeout(5):
        await enough.wait()
    following.cancel()
    assert slept == [EVERY_SECONDS] * 2
    assert len(await Deliveries(f"file://{tmp_path}/delivered").tasks()) == 1


async def test_a_gateway_that_takes_deliveries_tidies_them(tmp_path: Path) -> None:
    folder = tmp_path / "delivered" / task().task_id
    folder.mkdir(parents=True)
    async with await Ledger.open(f"sqlite:///{tmp_path}/ledger.db") as ledger:
        await ledger.record(task())
        rogues = [RogueMiner(name="Mallory")]
        async with gateway(tmp_path, names=(), rogues=rogues, recorder=ledger, **taking(tmp_path)):
            async with asyncio.timeout(10):
                while folder.exists():
                    await asyncio.sleep(0.02)

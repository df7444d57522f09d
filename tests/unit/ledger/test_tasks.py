"""Tasks in the ledger: their datasets are made again or not at all, and of two that speak at once the second hears."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import date

import pytest

from neurons.ledger import AnyRecord, Ledger, Task, TaskEvent, TaskState, new_id
from neurons.ledger.dataset import Bounds, Disliked, Line
from tests.unit.ledger.world import DAY, DAY_MS, GURUNG, NOON, SHARMA, Conversation, digest, miner

BOUNDS = Bounds.of(date.fromisoformat(DAY))


async def talks(ledger: Ledger, count: int = 3) -> list[Conversation]:
    made = []
    for number in range(count):
        talk = Conversation(at_ms=NOON + number * 1000)
        [answer] = talk.ask(f"My knee hurts, number {number}.", "Rest it.")
        talk.rate(answer, 2 + number)
        if number == 0:
            talk.correct(answer, "Rest it, and come on Tuesday.")
        await ledger.record(*talk.records)
        made.append(talk)
    unrated = Conversation()
    unrated.ask("And my elbow?", "Rest that too.")
    await ledger.record(*unrated.records)
    return [*made, unrated]


async def test_what_was_picked_is_noted_and_made_again_byte_for_byte(ledger: Ledger) -> None:
    await talks(ledger)
    bad = Conversation()
    [answer] = bad.ask("Why does my head ache?", "It does not.")
    bad.rate(answer, 1)
    await ledger.record(*bad.records)
    seen: list[Line] = []
    unliked: list[Disliked] = []

    def picking(lines: Sequence[Line], disliked: Sequence[Disliked]) -> Sequence[Line]:
        seen.extend(lines)
        unliked.extend(disliked)
        return [line for line in reversed(lines) if line.teaches]

    made = await ledger.task_dataset(twin_uid=GURUNG.uid, day=date.fromisoformat(DAY), zone="UTC", choose=picking)
    assert made.lines == 3
    assert sorted((line.stars, line.teaches) for line in seen if line.stars) == [(2, True), (3, True), (4, True)]
    assert [(each.asked, each.stars) for each in unliked] == [("Why does my head ache?", 1)]
    assert [line.asked for line in seen if not line.teaches] == ["And my elbow?"]
    assert await ledger.dataset_again(twin_uid=GURUNG.uid, bounds=BOUNDS, digest=made.digest) == made.data
    assert await ledger.dataset_again(twin_uid=SHARMA.uid, bounds=BOUNDS, digest=made.digest) is None
    assert await ledger.dataset_again(twin_uid=GURUNG.uid, bounds=BOUNDS, digest=digest("other")) is None


async def test_a_dataset_ends_with_the_consent_of_any_of_its_patients(ledger: Ledger) -> None:
    given = await talks(ledger)
    made = await ledger.task_dataset(
        twin_uid=GURUNG.uid, day=date.fromisoformat(DAY), zone="UTC", choose=lambda lines, _: lines
    )
    withdrawing = Conversation(patient_id=given[1].patient_id, consents=False, at_ms=NOON + DAY_MS)
    withdrawing.consent(False, at_ms=NOON + DAY_MS)
    await ledger.record(*withdrawing.records)
    assert await ledger.dataset_again(twin_uid=GURUNG.uid, bounds=BOUNDS, digest=made.digest) is None


async def test_nothing_picked_is_noted_nowhere(ledger: Ledger) -> None:
    await talks(ledger)
    made = await ledger.task_dataset(
        twin_uid=GURUNG.uid, day=date.fromisoformat(DAY), zone="UTC", choose=lambda lines, _: []
    )
    assert (made.lines, made.data) == (0, b"")
    assert await ledger.exported_twins() == ()


async def test_of_two_that_decide_at_once_the_second_sees_the_first(ledger: Ledger) -> None:
    task = Task(new_id(), GURUNG, miner(), "https://v/x", digest("d"), NOON, NOON + DAY_MS)
    await ledger.record(task)
    saw: list[int] = []

    def decide(found: Task, events: Sequence[TaskEvent]) -> Sequence[AnyRecord]:
        assert found == task
        saw.append(len(events))
        return [TaskEvent(new_id(), task.task_id, TaskState.ACCEPTED, NOON + len(events))]

    await asyncio.gather(*(ledger.decide_on_task(task.task_id, decide) for _ in range(4)))
    assert sorted(saw) == [0, 1, 2, 3]


async def test_what_is_not_decided_changes_nothing(ledger: Ledger) -> None:
    task = Task(new_id(), GURUNG, miner(), "https://v/x", digest("d"), NOON, NOON + DAY_MS)
    await ledger.record(task)

    def refuse(found: Task, events: Sequence[TaskEvent]) -> Sequence[AnyRecord]:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await ledger.decide_on_task(task.task_id, refuse)
    found = await ledger.task(task.task_id)
    assert found is not None
    assert found.events == ()
    assert not await ledger.decide_on_task(new_id(), refuse)
    assert await ledger.task(new_id()) is None

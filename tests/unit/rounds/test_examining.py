"""The validator's own examination of tasks: which versions wait for it, and that each is credited once and rightly."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from yarl import URL

from bettertherapy_api.round_progress import Candidate, ExaminedTask, RoundProgress
from neurons.ledger import Ledger, Miner, Task, TaskEvent, TaskState, Twin
from neurons.ledger.dataset import Bounds
from neurons.ledger.rounds import TaskStates, round_rows, tasks
from neurons.validator.rounds import round as round_module
from neurons.validator.rounds.examining import candidates, credits_of, earlier_than, finished_of, waiting
from neurons.validator.rounds.planning import round_id_of
from neurons.validator.rounds.progress import Remembered
from neurons.validator.rounds.steps import Step, key
from neurons.validator.rounds.tasks import event_of
from neurons.wire.capability import Capability, CapabilityError, read_capability, signed_url
from neurons.wire.tasks import EXAMINATION
from tests.unit.ledger.world import DAY_MS, Conversation, patient
from tests.unit.receipts.keyring import VALIDATOR
from tests.unit.rounds.people import ROUND, STARTED_MS, TWIN, order
from tests.unit.rounds.played import Killed, MortalLedger, means, played, right, run, wrong
from tests.unit.rounds.test_handing_out import BAD, GOOD, Clock, PlayedPost, handing

A, B, PARENT = ("sha256:" + letter * 64 for letter in "abf")
BEFORE = STARTED_MS - 2 * DAY_MS
TASKS = {"url": "https://ask.clinic.example", "minInteractions": 2, "examine": True}


def task(number: int = 1, *, miner: Miner = GOOD) -> Task:
    own = f"{number}{'0' * 7}-0000-4000-8000-000000000000"
    bounds = Bounds(BEFORE - DAY_MS, BEFORE)
    url = signed_url(
        VALIDATOR, Capability(own, "sha256:" + "d" * 64, bounds.start_ms, bounds.end_ms, STARTED_MS),
        base="https://ask.clinic.example",
    )  # fmt: skip
    return Task(own, TWIN, miner, url, "sha256:" + "d" * 64, BEFORE, STARTED_MS + DAY_MS, PARENT)


def finished(of: Task, adapter: str = A, *, at_ms: int = BEFORE + 1000, **more: Any) -> TaskStates:
    events = [
        event_of(of, TaskState.ACCEPTED, at_ms=BEFORE + 1),
        event_of(of, TaskState.FINISHED, at_ms=at_ms, adapter=adapter),
        *(event_of(of, state, at_ms=at_ms + 1, adapter=adapter) for state in more.get("then", ())),
    ]
    return TaskStates(of, tuple(events))


def examined(of: Task, credit: str = "Passed", *, adapter: str = A, message: str = "no worse") -> ExaminedTask:
    return ExaminedTask.model_validate({"task": of.task_id, "adapter": adapter, "credit": credit, "message": message})


def states(found: list[TaskEvent]) -> list[tuple[str, TaskState, str | None]]:
    return [(each.task_id, each.state, each.adapter_digest) for each in found]


def test_finished_tasks_wait_and_duplicates_and_the_parent_do_not() -> None:
    mine, copy, parent, lazy = task(1), task(2, miner=BAD), task(3, miner=BAD), task(4)
    accepted = TaskStates(lazy, (event_of(lazy, TaskState.ACCEPTED, at_ms=BEFORE),))
    found = waiting([finished(copy, at_ms=BEFORE + 2000), finished(mine), finished(parent, PARENT), accepted])
    assert [(each.task.task_id, each.adapter) for each in found] == [(mine.task_id, A)]


@pytest.mark.parametrize("then", [TaskState.PASSED, TaskState.FAILED, TaskState.INCONCLUSIVE, TaskState.DISALLOWED])
def test_what_has_a_verdict_waits_no_more_and_who_copies_it_later_gets_nothing_by_it(then: TaskState) -> None:
    mine, copy = task(1), task(2, miner=BAD)
    assert waiting([finished(mine, then=[then]), finished(copy, at_ms=BEFORE + 5000)]) == []


@pytest.mark.parametrize(
    ("credit", "state"),
    [
        ("Passed", TaskState.PASSED), ("Failed", TaskState.FAILED), ("Inconclusive", TaskState.INCONCLUSIVE),
        ("Disallowed", TaskState.DISALLOWED),
    ],
)  # fmt: skip
def test_what_it_is_worth_is_credited_in_words(credit: str, state: TaskState) -> None:
    mine = task()
    [event] = credits_of([examined(mine, credit, message="because")], [finished(mine)], at_ms=STARTED_MS)
    assert (event.state, event.detail, event.adapter_digest) == (state, "because", A)


@pytest.mark.parametrize(("verdict", "credit"), [("Promote", "Passed"), ("Reject", "Failed")])
def test_the_order_of_a_round_that_a_former_release_held_is_still_read(verdict: str, credit: str) -> None:
    said = {"task": task().task_id, "adapter": A, "verdict": verdict}
    assert ExaminedTask.model_validate(said).credit == credit
    with pytest.raises(ValueError, match="credit"):
        ExaminedTask.model_validate(said | {"verdict": "Splendid"})


def test_nothing_is_credited_for_another_adapter_an_unknown_task_or_twice() -> None:
    mine, other = task(1), task(2)
    assert credits_of([examined(mine, adapter=B)], [finished(mine)], at_ms=STARTED_MS) == []
    assert credits_of([examined(other)], [finished(mine)], at_ms=STARTED_MS) == []
    both = [examined(mine, "Failed"), examined(mine, "Passed")]
    assert [each.state for each in credits_of(both, [finished(mine)], at_ms=STARTED_MS)] == [TaskState.FAILED]
    over = finished(mine, then=[TaskState.DISALLOWED])
    assert credits_of([examined(mine)], [over], at_ms=STARTED_MS) == []


C, D = ("sha256:" + letter * 64 for letter in "ce")


def test_a_version_is_held_against_all_that_were_reported_before_it_whatever_became_of_them() -> None:
    other_day = replace(task(5), dataset_digest="sha256:" + "7" * 64)
    other_parent = replace(task(6), parent_digest="sha256:" + "8" * 64)
    other_twin = replace(task(7), twin=Twin("99999999-0000-4000-8000-000000000000", "dr-other"))
    mine = finished(task(3), C, at_ms=BEFORE + 3000)
    others = [
        finished(other_day, D, at_ms=BEFORE + 1000),
        finished(task(1), A, at_ms=BEFORE + 2000, then=[TaskState.FAILED]),
        finished(task(2, miner=BAD), B, at_ms=BEFORE + 2500, then=[TaskState.PASSED]),
        finished(task(4), "sha256:" + "1" * 64, at_ms=BEFORE + 4000),
        finished(other_parent, "sha256:" + "2" * 64),
        finished(other_twin, "sha256:" + "3" * 64),
        finished(task(8), C, at_ms=BEFORE + 1),
        finished(task(9), PARENT, at_ms=BEFORE + 1),
    ]
    found = finished_of(mine)
    assert found is not None
    assert earlier_than(found, [mine, *others]) == (A, B, D), "of its own dataset first, the first reported first"
    assert earlier_than(found, [mine, *reversed(others)]) == (A, B, D)
    many = [
        finished(replace(task(4), task_id=f"{number:08}-0000-4000-8000-000000000000"), f"sha256:{number:064x}")
        for number in range(10, 150)
    ]  # fmt: skip
    assert len(earlier_than(found, [mine, *many])) == 100


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[MortalLedger]:
    async with await MortalLedger.open(f"sqlite:///{tmp_path}/ledger.db") as opened:
        yield opened


async def keep(ledger: Ledger, *found: TaskStates) -> None:
    await ledger.record(*(each.task for each in found), *(event for each in found for event in each.events))


async def corrected(ledger: Ledger, *, held_out: bool) -> None:
    talk = Conversation(patient_id=patient(held_out=held_out), twin=TWIN, at_ms=BEFORE - DAY_MS // 2)
    [answer] = talk.ask("May I swim?", "Yes.")
    talk.correct(answer, "Yes, from Tuesday on.")
    await ledger.record(*talk.records)


async def test_a_candidate_has_addresses_of_its_own_that_no_miner_was_given(ledger: MortalLedger) -> None:
    await corrected(ledger, held_out=True)
    await corrected(ledger, held_out=False)
    mine = task()
    [found] = await candidates(ledger, VALIDATOR, [finished(mine)], base="https://ask.clinic.example", at_ms=STARTED_MS)
    assert (found.task, found.adapter, found.parent, found.twin_uid) == (mine.task_id, A, PARENT, TWIN.uid)
    assert found.held_out is not None
    for uri, digest in ((found.dataset, mine.dataset_digest), (found.held_out, found.held_out_digest)):
        url = URL(uri)
        assert url.path == f"/v1/tasks/{mine.task_id}/examination"
        opened = read_capability(mine.task_id, url.query, keypair=VALIDATOR, now_ms=STARTED_MS, what=EXAMINATION)
        assert opened.digest == digest
        with pytest.raises(CapabilityError):
            read_capability(mine.task_id, url.query, keypair=VALIDATOR, now_ms=STARTED_MS)
    query = URL(found.held_out).query
    bounds = Bounds(int(query["from"]), int(query["to"]))
    data = await ledger.dataset_again(twin_uid=TWIN.uid, bounds=bounds, digest=found.held_out_digest or "")
    assert data is not None
    assert data.count(b"\n") == 1


async def test_without_anybody_held_out_the_twins_own_items_are_all_that_is_asked(ledger: MortalLedger) -> None:
    [found] = await candidates(
        ledger, VALIDATOR, [finished(task())], base="https://ask.clinic.example", at_ms=STARTED_MS
    )
    assert (found.held_out, found.held_out_digest) == (None, None)


async def held(ledger: MortalLedger, *said: ExaminedTask, teller: Remembered | None = None, **changes: Any) -> None:
    subnet = played(right, wrong, miners=[GOOD, BAD])
    wanted = order(tasks=TASKS, examined=[each.model_dump(mode="json", by_alias=True) for each in said], **changes)
    await run(means(ledger, subnet, **handing(ledger, subnet, PlayedPost(), Clock())), wanted, teller).run()


async def known(ledger: Ledger, of: Task) -> list[TaskState]:
    found = await tasks(ledger.database, since_ms=0, until_ms=2**50)
    return [event.state for each in found if each.task.task_id == of.task_id for event in each.events]


async def test_a_round_names_what_waits_and_the_next_one_credits_it(ledger: MortalLedger) -> None:
    mine, copy = task(1), task(2, miner=BAD)
    await keep(ledger, finished(mine), finished(copy, at_ms=BEFORE + 2000))
    teller = Remembered()
    await held(ledger, teller=teller)
    last = teller.told[-1][1]
    assert isinstance(last, RoundProgress)
    assert [(each.task, each.adapter) for each in last.candidates] == [(mine.task_id, A)]
    assert isinstance(last.candidates[0], Candidate)
    assert await known(ledger, copy) == [TaskState.ACCEPTED, TaskState.FINISHED, TaskState.DISALLOWED]
    teller, uid = Remembered(), ROUND.replace("a", "b")
    await held(ledger, examined(mine), teller=teller, name="r2", uid=uid)
    last = teller.told[-1][1]
    assert isinstance(last, RoundProgress)
    assert last.candidates == ()
    assert last.tasks is not None
    assert (last.tasks.examined, last.tasks.passed) == (1, 1)
    assert (await known(ledger, mine))[-1] is TaskState.PASSED
    rows = await round_rows(ledger.database, round_id_of(uid))
    took = rows.steps[Step.PARTICIPATION.value].evidence["of"]
    assert took[key(GOOD)] == [100_000, 1, 1, 1, 1]
    assert took[key(BAD)][4] == 0


@pytest.mark.parametrize("committed", [False, True])
async def test_killed_at_any_write_a_round_gives_the_credit_once(
    ledger: MortalLedger, committed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(round_module, "ITEMS_AT_ONCE", 1)  # one write after another, so that they can be counted
    mine = task(1)
    await keep(ledger, finished(mine))
    ledger.committed = committed
    deaths = 0
    for _ in range(60):
        ledger.writes, ledger.dies_at = 0, 1 if committed else 2
        try:
            await held(ledger, examined(mine), itemsPerTwin=2)
        except Killed:
            deaths += 1
            assert (await known(ledger, mine)).count(TaskState.PASSED) <= 1
            continue
        break
    assert deaths > 5
    assert await known(ledger, mine) == [TaskState.ACCEPTED, TaskState.FINISHED, TaskState.PASSED]


async def test_a_round_counts_what_it_took_in_near_copies_too_and_copies_apart(ledger: MortalLedger) -> None:
    adapters = [f"sha256:{digit * 64}" for digit in "1234"]
    mine = [task(number) for number in range(1, 5)]
    copy = task(5, miner=BAD)
    kept = [finished(one, adapter=made) for one, made in zip(mine, adapters, strict=True)]
    await keep(ledger, *kept, finished(copy, adapter=adapters[0], at_ms=BEFORE + 2000))
    said_of = ("Passed", "Failed", "Inconclusive", "Disallowed")
    said = [
        examined(one, credit, adapter=made) for one, credit, made in zip(mine, said_of, adapters, strict=True)
    ]  # fmt: skip
    for _ in range(2):  # begun again it counts the same
        teller = Remembered()
        await held(ledger, *said, teller=teller)
        last = teller.told[-1][1]
        assert isinstance(last, RoundProgress)
        assert last.tasks is not None
        assert (last.tasks.examined, last.tasks.passed, last.tasks.disallowed) == (4, 1, 2)


async def test_an_examination_that_came_to_nothing_counts_neither_way(ledger: MortalLedger) -> None:
    mine = task(1)
    await keep(ledger, finished(mine))
    await held(ledger, examined(mine, "Inconclusive", message="no pool has its base model"))
    assert (await known(ledger, mine))[-1] is TaskState.INCONCLUSIVE
    rows = await round_rows(ledger.database, round_id_of(ROUND))
    assert rows.steps[Step.PARTICIPATION.value].evidence["of"][key(GOOD)] == [50_000, 1, 1, 1, 0]

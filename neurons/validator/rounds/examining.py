"""The validator's own examination of what miners made for tasks: which versions wait for it, and what it came to.

A round's pod has no model. It names the versions that wait, with addresses that open what the miner was given and what
no miner was; the operator has each examined against its parent by the twin's gate, and tells a later round.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from yarl import URL

from bettertherapy_api.finetune_run import MAX_EARLIER, CreditVerdict
from bettertherapy_api.round_progress import MAX_CANDIDATES, Candidate, ExaminedTask
from neurons.ledger import Ledger
from neurons.ledger.dataset import Bounds, Day
from neurons.ledger.records import Task, TaskEvent, TaskState
from neurons.ledger.rounds import TaskStates
from neurons.receipts import Keypair
from neurons.validator.rounds.reporting import moment
from neurons.validator.rounds.tasks import Finished, distinct, event_of
from neurons.wire.capability import Capability, signed_url
from neurons.wire.tasks import EXAMINATION

log = logging.getLogger(__name__)

HELD_OUT_DAYS: Final = 30
"""So far back what no miner was given is asked: one day's corrections are few."""
EXAMINE_MS: Final = 24 * 3600 * 1000
"""So long an examination may take, with its wait for a place."""
VERDICTS: Final = frozenset({TaskState.PASSED, TaskState.FAILED, TaskState.INCONCLUSIVE, TaskState.DISALLOWED})
_DAY_MS: Final = 24 * 3600 * 1000
_CREDITS: Final[Mapping[CreditVerdict, TaskState]] = {
    "Passed": TaskState.PASSED, "Failed": TaskState.FAILED, "Inconclusive": TaskState.INCONCLUSIVE,
    "Disallowed": TaskState.DISALLOWED,
}  # fmt: skip


def waiting(tasks: Iterable[TaskStates]) -> list[Finished]:
    """Return the finished tasks without a verdict, the first reported first, without duplicates and the parent itself.

    Which was reported first is told by all that were finished, those with a verdict too.
    """
    by_id = {each.task.task_id: each for each in tasks}
    finished = [found for each in by_id.values() if (found := finished_of(each)) is not None]
    first, _ = distinct(finished, known=frozenset())
    return [
        each
        for each in first
        if each.adapter != each.task.parent_digest
        and not VERDICTS & {event.state for event in by_id[each.task.task_id].events}
        and TaskState.WITHDRAWN not in {event.state for event in by_id[each.task.task_id].events}
    ]


def finished_of(states: TaskStates) -> Finished | None:
    """Return a task with the adapter that its miner reported; None where it reported none."""
    for event in states.events:
        if event.state is TaskState.FINISHED and event.adapter_digest is not None:
            return Finished(states.task, event.adapter_digest, event.at_ms)
    return None


def credits_of(examined: Iterable[ExaminedTask], tasks: Iterable[TaskStates], *, at_ms: int) -> list[TaskEvent]:
    """Return what the examinations come to; of a task that has a verdict nothing more is said.

    Only the adapter that the task's miner reported counts: an examination of any other says nothing of it.
    """
    by_id: Mapping[str, TaskStates] = {each.task.task_id: each for each in tasks}
    made: dict[str, TaskEvent] = {}
    for each in examined:
        states = by_id.get(each.task)
        finished = finished_of(states) if states is not None else None
        if states is None or finished is None or finished.adapter != each.adapter or each.task in made:
            continue
        if VERDICTS & {event.state for event in states.events}:
            continue
        made[each.task] = event_of(
            finished.task, _CREDITS[each.credit], at_ms=at_ms, adapter=finished.adapter, detail=each.message
        )
    return list(made.values())


async def candidates(
    ledger: Ledger, keypair: Keypair, tasks: Sequence[TaskStates], *, base: str, at_ms: int
) -> tuple[Candidate, ...]:
    """Return the versions that wait for their examination, with the addresses of what they are examined by.

    `base`: the gateway's origin. Raises LedgerError.
    """
    found: list[Candidate] = []
    asked: dict[tuple[str, int], Day] = {}
    for each in waiting(tasks)[:MAX_CANDIDATES]:
        bounds = _bounds(each.task)
        if bounds is None:
            log.error("a task's dataset has no day, so its version isn't examined", extra={"task": each.task.task_id})
            continue
        place = (each.task.twin.uid, bounds.end_ms)
        wider = Bounds(max(0, bounds.end_ms - HELD_OUT_DAYS * _DAY_MS), bounds.end_ms)
        if place not in asked:
            day = datetime.fromtimestamp(bounds.start_ms / 1000, UTC).date()
            asked[place] = await ledger.held_out(twin_uid=each.task.twin.uid, bounds=wider, day=day)
        found.append(
            _candidate(
                each, keypair, bounds, (asked[place], wider), base=base, until_ms=at_ms + EXAMINE_MS,
                earlier=earlier_than(each, tasks),
            )
        )  # fmt: skip
    return tuple(found)


def earlier_than(finished: Finished, tasks: Iterable[TaskStates]) -> tuple[str, ...]:
    """Return the versions that were reported before this one for other tasks of its twin, from the same parent.

    Those of its own dataset come first, and of these the first reported: whoever trains once and delivers often does
    so for one dataset, and the first of it owns it.
    """
    own = finished.task

    def place(each: Finished) -> tuple[bool, int, str]:
        return each.task.dataset_digest != own.dataset_digest, each.at_ms, each.task.task_id

    others = [
        each
        for states in tasks
        if (each := finished_of(states)) is not None
        and each.task.task_id != own.task_id
        and (each.task.twin.uid, each.task.parent_digest) == (own.twin.uid, own.parent_digest)
        and (each.at_ms, each.task.task_id) < (finished.at_ms, own.task_id)
        and each.adapter not in (finished.adapter, own.parent_digest)
    ]
    return tuple(dict.fromkeys(each.adapter for each in sorted(others, key=place)))[:MAX_EARLIER]


def _candidate(
    finished: Finished, keypair: Keypair, bounds: Bounds, held_out: tuple[Day, Bounds], *, base: str, until_ms: int,
    earlier: tuple[str, ...],
) -> Candidate:  # fmt: skip
    task, (day, wider) = finished.task, held_out
    dataset = Capability(
        task.task_id, task.dataset_digest, bounds.start_ms, bounds.end_ms, until_ms, EXAMINATION
    )  # fmt: skip
    hidden = Capability(task.task_id, day.digest, wider.start_ms, wider.end_ms, until_ms, EXAMINATION)
    return Candidate(
        task=task.task_id, twin=task.twin.name, twin_uid=task.twin.uid, miner=task.miner.hotkey,
        adapter=finished.adapter, parent=task.parent_digest, dataset=signed_url(keypair, dataset, base=base),
        dataset_digest=task.dataset_digest, held_out=signed_url(keypair, hidden, base=base) if day.lines else None,
        held_out_digest=day.digest if day.lines else None, earlier=earlier, until=moment(until_ms),
    )  # fmt: skip


def _bounds(task: Task) -> Bounds | None:
    """Return the day of a task's dataset, as its address has it."""
    try:
        query = URL(task.dataset_uri).query
        return Bounds(int(query["from"]), int(query["to"]))
    except (KeyError, ValueError):
        return None

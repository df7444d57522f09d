"""Fine-tune tasks: what a twin should learn first, for which miners; and what their reports come to. Pure.

What is reported is believed of the miner that was asked alone; whether a version is any better is for the gate's paired
test to say, never for a report.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from neurons.ledger.records import Miner, Task, TaskEvent, TaskState, Twin, derived_id
from neurons.ledger.rounds import TaskStates
from neurons.validator.rounds.steps import key
from neurons.wire.tasks import MAX_DETAIL, MOST_TOPICS, TaskError, read_report

TASK_DAYS: Final = 14
"""So long after a task was offered a round still examines and credits it."""
PRIOR: Final = 5.0
"""Answers of middling worth that each topic is given on its way, so that one bad answer doesn't decide."""
_AFTER: Final[Mapping[TaskState, frozenset[TaskState]]] = {
    TaskState.OFFERED: frozenset({TaskState.ACCEPTED, TaskState.REFUSED}),
    # Its answer to the offer was lost: what it says later counts all the same.
    TaskState.EXPIRED: frozenset({TaskState.ACCEPTED, TaskState.REFUSED}),
    TaskState.ACCEPTED: frozenset({TaskState.FINISHED, TaskState.FAILED}),
}
"""What a miner may say next; PASSED and FAILED of a finished one are the validator's."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of one answer to a topic: what it was worth, whether its claims are supported, how it was rated."""

    topic: str
    worth: float | None = None
    """0 to 1."""
    supported: float | None = None
    rating: float | None = None
    """0 to 1."""


def weakest_topics(seen: Iterable[Seen], *, most: int = MOST_TOPICS) -> tuple[str, ...]:
    """Return the topics to learn first: the worst rated, least supported, least right; of equals the one seen most."""
    values: defaultdict[str, list[float]] = defaultdict(list)
    for each in seen:
        values[each.topic] += [value for value in (each.worth, each.supported, each.rating) if value is not None]
    known = {topic: given for topic, given in values.items() if given}
    every = [value for given in known.values() for value in given]
    if not every:
        return ()
    middle = math.fsum(every) / len(every)
    means = {topic: (math.fsum(given) + PRIOR * middle) / (len(given) + PRIOR) for topic, given in known.items()}
    return tuple(sorted(means, key=lambda topic: (means[topic], -len(known[topic]), topic))[:most])


def task_id(twin: Twin, dataset_digest: str, miner: Miner) -> str:
    """Return a task's id: a miner gets a twin's dataset once, however many rounds find the same one."""
    return derived_id("task", twin.uid, dataset_digest, key(miner))


def take_report(data: bytes, *, task: Task, events: Sequence[TaskEvent], at_ms: int) -> TaskEvent:
    """Return the event that a miner's report comes to; one that came before is the same event.

    Raises:
        TaskError: it isn't by the task's miner, comes out of turn or too late, or names no adapter.
    """
    report = read_report(data, miner=task.miner.hotkey)
    if report.task != task.task_id:
        raise TaskError("The report is of another task.")
    state = TaskState(report.state)
    known = next((event for event in events if event.state is state), None)
    if known is not None:
        if known.adapter_digest != report.adapter:
            raise TaskError(f"The task is {state.value} already, with another adapter: the first one counts.")
        return known
    latest = events[-1].state if events else TaskState.OFFERED
    if state not in _AFTER.get(latest, frozenset()):
        raise TaskError(f"A task that is {latest.value} can't become {state.value}.")
    if at_ms > task.deadline_ms:
        raise TaskError("The task's time is over.")
    if state is TaskState.FINISHED and report.adapter is None:
        raise TaskError("A finished task names the digest of its adapter.")
    return event_of(task, state, at_ms=at_ms, adapter=report.adapter, detail=report.detail)


@dataclass(frozen=True, slots=True)
class Finished:
    """A finished task with the adapter that came of it."""

    task: Task
    adapter: str
    at_ms: int


def distinct(finished: Iterable[Finished], *, known: frozenset[str]) -> tuple[list[Finished], list[Finished]]:
    """Return the finished tasks that are evaluated, and those that aren't.

    An adapter that another reported first, or that there was before (`known`), is no work of who reports it now.
    """
    first: dict[str, Finished] = {}
    twice: list[Finished] = []
    for each in sorted(finished, key=lambda one: (one.at_ms, one.task.task_id)):
        if each.adapter in known or each.adapter in first:
            twice.append(each)
        else:
            first[each.adapter] = each
    return list(first.values()), twice


def disallowed(tasks: Sequence[TaskStates], *, at_ms: int) -> list[TaskEvent]:
    """Return what is said of finished tasks whose adapter is no work of their miner's; nothing is said twice.

    Which versions serve says nothing here: one that was made for a task may have been taken up since.
    """
    states = {each.task.task_id: {event.state for event in each.events} for each in tasks}
    finished = [
        Finished(each.task, event.adapter_digest, event.at_ms)
        for each in tasks
        for event in each.events
        if event.state is TaskState.FINISHED and event.adapter_digest is not None
    ]
    _, twice = distinct(finished, known=frozenset())
    parents = [each for each in finished if each.adapter == each.task.parent_digest]
    return [
        event_of(
            each.task, TaskState.DISALLOWED, at_ms=at_ms, adapter=each.adapter,
            detail="another reported this adapter first, or it is the one that the task began from",
        )
        for each in {one.task.task_id: one for one in (*twice, *parents)}.values()
        if TaskState.DISALLOWED not in states[each.task.task_id]
    ]  # fmt: skip


def event_of(task: Task, state: TaskState, *, at_ms: int, adapter: str | None = None, detail: str = "") -> TaskEvent:
    """Return the record of what became of a task; the same state is the same record."""
    return TaskEvent(
        event_id=derived_id("task-event", task.task_id, state.value), task_id=task.task_id, state=state, at_ms=at_ms,
        adapter_digest=adapter, detail=detail[:MAX_DETAIL],
    )  # fmt: skip

"""Validators' fine-tune tasks: which of those that a pool's miners were offered become runs, and what is said of them.

Pure. A task has one run, whose name follows from its id; the run is its memory, so nothing is kept beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from bettertherapy_api.report import TaskClaim
from bettertherapy_api.task_states import MOST, PublishedTask, PublishedTasks, TaskState
from twin_operator.domain.objects import Pool, Run, Twin
from twin_operator.domain.training_pool import choose_pool
from twin_operator.domain.versions import wanted_version
from twin_operator.engine.conditions import Finding
from twin_operator.engine.resources import Manifest
from twin_operator.engine.times import moment
from twin_operator.kinds.miner_pool.task_run import build_task_run, task_run_name

REPORT_MARGIN: Final = timedelta(minutes=3)
"""So long before its deadline a task that isn't done is said to have failed, for the miner to report it in time."""
LEAST: Final = timedelta(minutes=20)
"""A task that leaves less time is refused."""
TOLD_AFTER: Final = timedelta(hours=1)
_WORDS: Final = 1000


@dataclass(frozen=True, kw_only=True)
class TasksView:
    """What a pool's tasks depend on."""

    pool: Pool
    claims: tuple[TaskClaim, ...]
    """What its miners are offered and ask about."""
    runs: tuple[Run, ...]
    """Those of tasks that its miners took."""
    twins: Mapping[str, Twin]
    """The namespace's, by name, as far as claims name them."""
    pools: Sequence[Pool]
    """All of the namespace."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """By a task's id: why the API server will not have its run."""


@dataclass(frozen=True, kw_only=True)
class TasksPlan:
    """What to make and what to say."""

    create: tuple[Manifest, ...] = ()
    published: PublishedTasks = field(default_factory=PublishedTasks)
    wake_at: datetime | None = None


def plan_tasks(view: TasksView, *, now: datetime) -> TasksPlan:
    """Return the runs to make, and what becomes of all tasks that are under way or were until an hour ago."""
    told = [_of_run(run, now=now) for run in view.runs if run.spec.task is not None and _is_told(run, now=now)]
    taken = {run.name for run in view.runs}
    going = sum(_is_open(run, now=now) for run in view.runs)
    create: list[Manifest] = []
    claims = {claim.id: claim for claim in view.claims}  # each replica may have been offered it
    for claim in sorted(claims.values(), key=lambda each: (each.deadline, each.id)):
        if task_run_name(claim.id) in taken or moment(claim.deadline) <= now:
            continue
        made = _run_or_why_not(view, claim, going=going + len(create), now=now)
        if isinstance(made, str):
            told.append(_published(claim, TaskState.REFUSED, made))
        else:
            create.append(made)
    told.sort(key=lambda each: (each.deadline, each.id))
    moments = [each for run in view.runs for each in _moments(run) if each > now]
    return TasksPlan(
        create=tuple(create), published=PublishedTasks(tasks=tuple(told[:MOST])), wake_at=min(moments, default=None)
    )


def _run_or_why_not(view: TasksView, claim: TaskClaim, *, going: int, now: datetime) -> Manifest | str:
    """Return the run of a task, or why it isn't taken, as a sentence for the validator."""
    twin = view.twins.get(claim.twin)
    if twin is None or twin.deleted or twin.uid != claim.twin_uid:
        return "the twin isn't here any more"
    why = _not_now(view, claim, going=going, now=now) or _not_of_twin(view.pool, claim, twin)
    if why is not None:
        return why
    trains = choose_pool(twin, view.pools)
    if isinstance(trains, Finding):
        return "the twin can't be trained here"
    return build_task_run(claim, twin, view.pool, trains, now=now)


def _not_now(view: TasksView, claim: TaskClaim, *, going: int, now: datetime) -> str | None:
    """Return what stands against any task, or this one, of whichever twin."""
    policy = view.pool.spec.miner.tasks
    if policy is None or not policy.accept:
        return "this miner takes no tasks"
    if (why := view.refused.get(claim.id)) is not None:
        return f"the run can't be made: {why}"
    if moment(claim.deadline) - now < LEAST:
        return "too little time is left"
    if going >= policy.max_open:
        return f"{going} tasks are under way, and no more are taken at a time"
    return None


def _not_of_twin(pool: Pool, claim: TaskClaim, twin: Twin) -> str | None:
    """Return what stands against a task of this twin."""
    if not twin.spec.pool_selector.matches(dict(pool.labels)):
        return "the twin isn't served here any more"
    parent = wanted_version(twin).digest
    if parent != claim.parent_digest:
        return f"the twin's version is {parent or 'the base model'} by now, and the task begins from another"
    return None


def _of_run(run: Run, *, now: datetime) -> PublishedTask:
    """Return what is said of a task that has its run."""
    task = run.spec.task
    assert task is not None  # noqa: S101 - only such runs are told of
    state, adapter, message = _state(run, now=now)
    return PublishedTask(
        id=task.id, validator=task.validator, dataset=run.spec.dataset.uri, deadline=task.deadline, state=state,
        adapter=adapter, message=message[:_WORDS],
    )  # fmt: skip


def _state(run: Run, *, now: datetime) -> tuple[TaskState, str | None, str]:
    status = run.status
    if run.ended:
        if status.failure is not None:
            return TaskState.FAILED, None, f"{status.failure.failure_class}: {status.failure.message}"
        if status.artifact is None:
            return TaskState.FAILED, None, "nothing was trained: the dataset holds too little that can be learned"
        samples = status.eval.samples if status.eval is not None else 0
        return TaskState.FINISHED, status.artifact.digest, f"{status.verdict} by the miner's own gate, {samples} items"
    if now >= _reported_by(run):
        return TaskState.FAILED, None, f"it is not done in time: it is at {status.stage or 'its beginning'}"
    return TaskState.ACCEPTED, None, ""


def _published(claim: TaskClaim, state: TaskState, message: str) -> PublishedTask:
    return PublishedTask(
        id=claim.id, validator=claim.validator, dataset=claim.dataset, deadline=claim.deadline, state=state,
        message=message[:_WORDS],
    )  # fmt: skip


def _reported_by(run: Run) -> datetime:
    return _deadline(run) - REPORT_MARGIN


def _deadline(run: Run) -> datetime:
    assert run.spec.task is not None  # noqa: S101 - see `_of_run`
    return moment(run.spec.task.deadline)


def _is_told(run: Run, *, now: datetime) -> bool:
    return now < _deadline(run) + TOLD_AFTER


def _is_open(run: Run, *, now: datetime) -> bool:
    return not run.ended and now < _deadline(run)


def _moments(run: Run) -> list[datetime]:
    """Return when something else is to be said though nothing changes."""
    return [_deadline(run) + TOLD_AFTER, *([] if run.ended else [_reported_by(run)])]

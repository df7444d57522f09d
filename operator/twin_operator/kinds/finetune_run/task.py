"""A run that does a validator's task: when it is given up, and what becomes of its version. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from twin_operator.domain.objects import Run, Twin
from twin_operator.domain.reasons import Reason
from twin_operator.domain.task_versions import better_than, is_chosen
from twin_operator.engine.conditions import Finding
from twin_operator.engine.times import moment
from twin_operator.kinds.finetune_run.facts import Failure


def deadline_of(run: Run) -> datetime | None:
    """Return when the run's task, or the time for its candidate, is over; None for a run that has neither."""
    asked = run.spec.task or run.spec.candidate
    return moment(asked.deadline) if asked is not None else None


def given_up(run: Run, *, now: datetime) -> Failure | None:
    """Return why a run that has not begun never will; None where it may."""
    deadline = deadline_of(run)
    if deadline is None or now < deadline:
        return None
    queued = run.condition("Queued")
    waited = f": {queued[2]}" if queued is not None else ""
    return Failure(
        reason=Reason.TASK_OVERDUE, retryable=False,
        message=f"the time of the validator's {'task' if run.spec.task else 'examination'} was over before it could "
        f"begin{waited}",
    )  # fmt: skip


def awaits_choice(run: Run, twin: Twin, digest: str, runs: Sequence[Run] = ()) -> Finding | None:
    """Return that the doctor must choose a task's version; None where it was, and of other runs.

    `runs`: the twin's, by which the best of several candidates is told.
    """
    if not run.of_task or is_chosen(twin, digest):
        return None
    ahead = better_than(run, runs)
    if ahead is not None and ahead.status.artifact is not None:
        digest, better = ahead.status.artifact.digest, f"; that of {ahead.name} did better, and is the one to choose"
    else:
        better = ""
    return Finding(
        Reason.AWAITING_CHOICE,
        f"the version passed its gate{better}; that of a validator's task is rolled out only where it is chosen: "
        f"`kubectl twin approve {twin.name} --digest {digest}`, or reject",
    )

"""A run that does a validator's task: when it is given up, and what becomes of its version. Pure."""

from __future__ import annotations

from datetime import datetime

from twin_operator.domain.objects import Run, Twin
from twin_operator.domain.reasons import Reason
from twin_operator.domain.task_versions import is_chosen
from twin_operator.engine.conditions import Finding
from twin_operator.engine.times import moment
from twin_operator.kinds.finetune_run.facts import Failure


def deadline_of(run: Run) -> datetime | None:
    """Return when the run's task is over; None for a run that does none."""
    return moment(run.spec.task.deadline) if run.spec.task is not None else None


def given_up(run: Run, *, now: datetime) -> Failure | None:
    """Return why a run that has not begun never will; None where it may."""
    deadline = deadline_of(run)
    if deadline is None or now < deadline:
        return None
    queued = run.condition("Queued")
    waited = f": {queued[2]}" if queued is not None else ""
    return Failure(
        reason=Reason.TASK_OVERDUE, retryable=False,
        message=f"the time of the validator's task was over before it could begin{waited}",
    )  # fmt: skip


def awaits_choice(run: Run, twin: Twin, digest: str) -> Finding | None:
    """Return that the doctor must choose a task's version; None where it was, and of other runs."""
    if run.spec.task is None or is_chosen(twin, digest):
        return None
    return Finding(
        Reason.AWAITING_CHOICE,
        f"the version passed its gate; that of a validator's task is rolled out only where it is chosen: kubectl "
        f"annotate doctortwin {twin.name} bettertherapy.io/approve={digest} --overwrite",
    )

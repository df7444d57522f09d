"""What a pool says of itself beyond domain.pool_checks."""

from __future__ import annotations

from twin_operator.domain.objects import Unreadable
from twin_operator.domain.pool_checks import Finding
from twin_operator.engine.apply import ApplyOutcome
from twin_operator.engine.status import Condition


def unreadable_conditions(problem: Unreadable) -> list[Condition]:
    reason = "SpecInvalid" if problem.part == "spec" else "StatusUnreadable"
    return [Condition(type="Ready", status="False", reason=reason, message=str(problem))]


def refused_children(outcome: ApplyOutcome) -> Finding | None:
    if not outcome.refusals:
        return None
    refusal = outcome.refusals[0]
    return ("ChildConflict" if refusal.foreign else "ApplyRefused"), refusal.message

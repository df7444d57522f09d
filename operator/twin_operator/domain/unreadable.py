"""Conditions of an object that this operator can't read. Nothing else is said of it, and nothing is done for it."""

from __future__ import annotations

from typing import Final

from twin_operator.domain.objects import Unreadable
from twin_operator.domain.reasons import Reason
from twin_operator.engine.conditions import Condition, Finding, Truth

_CONDITIONS: Final[dict[str, tuple[str, Truth]]] = {
    "DoctorTwin": ("Ready", "False"),
    "MinerPool": ("Ready", "False"),
    "FineTuneRun": ("Queued", "True"),
    "Validator": ("Ready", "False"),
    "ValidatorRound": ("Running", "False"),
}

SAYS_UNREADABLE: Final = frozenset({Reason.SPEC_INVALID.value, Reason.STATUS_UNREADABLE.value})
"""Reasons of a condition that says no more than that the object could not be read."""


def spec_invalid(problem: str) -> Finding:
    """Return what to say of a spec that doesn't parse."""
    return Finding(Reason.SPEC_INVALID, f"the stored spec can't be read: {problem}")


def status_unreadable(problem: str) -> Finding:
    """Return what to say of a status that doesn't parse: it may hold what another release knows, and stays as it is."""
    return Finding(
        Reason.STATUS_UNREADABLE,
        f"the stored status can't be read, so nothing is done until it can; what serves goes on: {problem}",
    )


def conditions_of(kind: str, found: Unreadable) -> list[Condition]:
    """Return what an object of this kind says of the part of it that can't be read."""
    said = spec_invalid(found.problem) if found.part == "spec" else status_unreadable(found.problem)
    return [unreadable_condition(kind, said)]


def unreadable_condition(kind: str, found: Finding) -> Condition:
    """Return the condition in which an object of this kind says that it can't be read."""
    return found.condition(*_CONDITIONS[kind])

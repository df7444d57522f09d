"""Conditions, and how they are found: a chain of checks in order, whose first finding is reason and message.

A check is a function with a name, from what was observed to a finding, or None when all is well. A chain is declared
once for each condition; as it is a check itself, a longer chain may hold a shorter one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Generic, Literal, TypeAlias, TypeVar

from twin_operator.engine.resources import Manifest
from twin_operator.engine.times import timestamp

Truth = Literal["True", "False", "Unknown"]
MESSAGE_LENGTH = 4096


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One aspect of an object's state; without a clock, so that plans stay pure."""

    type: str
    status: Truth
    reason: str
    message: str


@dataclass(frozen=True)
class Finding:
    """What a check found: a reason out of the program's enumeration, and a sentence."""

    reason: StrEnum
    message: str

    def condition(self, kind: str, status: Truth) -> Condition:
        """Return it as a condition of this type."""
        return Condition(type=kind, status=status, reason=self.reason.value, message=self.message)

    def followed_by(self, more: str) -> Finding:
        """Return it with more at the end of its sentence."""
        return Finding(self.reason, self.message + more)

    def __str__(self) -> str:
        return f"{self.reason.value}: {self.message}"


View = TypeVar("View")
View_contra = TypeVar("View_contra", contravariant=True)
Check: TypeAlias = Callable[[View], Finding | None]


class Chain(Generic[View_contra]):
    """Checks in the order in which their findings count."""

    def __init__(self, name: str, *checks: Check[View_contra]) -> None:
        self.name = name
        self._checks = checks

    def evaluate(self, view: View_contra) -> Finding | None:
        """Return what the first violated check found."""
        return next((found for check in self._checks if (found := check(view)) is not None), None)

    __call__ = evaluate

    def including(self, *checks: Check[View_contra]) -> Chain[View_contra]:
        """Return a chain of the same name with more checks at its end."""
        return Chain(self.name, *self._checks, *checks)

    def __repr__(self) -> str:
        names = ", ".join(getattr(check, "__name__", None) or repr(check) for check in self._checks)
        return f"Chain({self.name}: {names})"


def truth(text: str) -> Truth:
    """Return a condition's status as its type; anything else than True and False is Unknown."""
    return "True" if text == "True" else "False" if text == "False" else "Unknown"


def carried_over(status: object, kind: str, reason: StrEnum) -> Finding | None:
    """Return what a stored status says in this condition, if it says it for this reason."""
    conditions = status.get("conditions") if isinstance(status, Mapping) else None
    for each in conditions if isinstance(conditions, list) else ():
        if isinstance(each, Mapping) and each.get("type") == kind and each.get("reason") == reason.value:
            return Finding(reason, str(each.get("message") or ""))
    return None


def conditions_in(status: object, kinds: Collection[str]) -> Iterator[Condition]:
    """Yield those conditions of a stored status that are of these types; what can't be one is passed over."""
    conditions = status.get("conditions") if isinstance(status, Mapping) else None
    for each in conditions if isinstance(conditions, list) else ():
        if isinstance(each, Mapping) and each.get("type") in kinds:
            kind, status_, why, message = (str(each.get(part) or "") for part in _PARTS)
            yield Condition(type=kind, status=truth(status_), reason=why, message=message)


_PARTS = ("type", "status", "reason", "message")


def shortened(message: str, length: int) -> str:
    """Return a message of at most so many characters."""
    return message if len(message) <= length else message[: length - 1] + "…"


def dated(
    conditions: Iterable[Condition], *, live: Iterable[Mapping[str, Any]], generation: int, now: datetime
) -> list[Manifest]:
    """Return API conditions; lastTransitionTime moves only when a condition's status changes."""
    before = {condition.get("type"): condition for condition in live}
    result = []
    for condition in conditions:
        known = before.get(condition.type) or {}
        same = known.get("status") == condition.status
        result.append(
            {
                "type": condition.type,
                "status": condition.status,
                "observedGeneration": generation,
                "lastTransitionTime": (same and known.get("lastTransitionTime")) or timestamp(now),
                "reason": condition.reason,
                "message": shortened(condition.message, MESSAGE_LENGTH),
            }
        )
    return result

"""What one grader said of one criterion, or why it said nothing that counts; and what several said together."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Why(enum.StrEnum):
    """Why there is no grade. None of these is a zero: nothing is known."""

    DOWN = "Down"
    """The endpoint can't be reached, fails, or refuses the request."""
    SLOW = "Slow"
    """It had no answer within its time."""
    UNPARSABLE = "Unparsable"
    """It answered, and not in the form that was asked for: prose, a part of an answer, other criteria."""
    CANARY_FAILED = "CanaryFailed"
    """It was wrong about a criterion whose truth is known, in the same answer."""
    MODEL_CHANGED = "ModelChanged"
    """Another model answered than the one that was calibrated."""
    NOT_CALIBRATED = "NotCalibrated"
    """It has not been calibrated for this task and language, or too long ago."""
    TOO_LONG = "TooLong"
    """What is to be graded is longer than is sent; it is never cut, since what is cut off might be the worst of it."""
    HELD_BACK = "HeldBack"
    """It may identify a person, and is not sent."""


class NoGrade(Exception):  # noqa: N818 - said of the grader
    """A grader gave no grade. The message holds nothing of what was asked or answered, no address and no key."""

    def __init__(self, why: Why, message: str) -> None:
        super().__init__(message)
        self.why = why


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """One grader's word on one criterion."""

    seat: str
    """Which grader: a digest of endpoint, model and prompt."""
    met: bool | None
    """None when it gave no grade; `why` then says why not."""
    why: Why | None = None
    message: str = ""
    """Why there is no grade, in words."""
    reason: str = ""
    """The grader's own words, cut. They may repeat what the answer says: show them, and log them nowhere."""


class Outcome(enum.StrEnum):
    """What several graders' votes on one criterion come to."""

    MET = "Met"
    NOT_MET = "NotMet"
    DISAGREED = "Disagreed"
    """They differ; the criterion is unscored."""
    UNGRADED = "Ungraded"
    """Fewer than two gave a grade; the criterion is unscored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Graded:
    """A criterion, what came of it, and each vote."""

    criterion: str
    """Its digest."""
    outcome: Outcome
    votes: tuple[Vote, ...]

    @property
    def met(self) -> bool | None:
        """Return whether the answer meets the criterion; None where that isn't known."""
        return {Outcome.MET: True, Outcome.NOT_MET: False}.get(self.outcome)


AGREEING = 2
"""Grades that it takes, all of them alike."""


def come_to(votes: tuple[Vote, ...]) -> Outcome:
    """Return what votes come to: one that differs is enough for Disagreed, and fewer than two grades are none."""
    grades = [each.met for each in votes if each.met is not None]
    if len(set(grades)) > 1:
        return Outcome.DISAGREED
    if len(grades) < AGREEING:
        return Outcome.UNGRADED
    return Outcome.MET if grades[0] else Outcome.NOT_MET

"""The error that a gate may make, and how tries and nights share it.

A dataset has one budget: of all versions that were ever trained on the same lines, one that is too much worse passes
with 5% at most, however often somebody tries. Each try has a share of its own, fixed beforehand, and the shares add up
to the whole (Bonferroni; nothing is assumed of how the tries depend on each other).

The anchor, the version that the doctor last approved, stands for many nights, each with a dataset of its own. Its
budget is shared among NIGHTS of them, so that small losses don't add up behind the backs of single nights.
"""

from __future__ import annotations

from typing import Final

BUDGET: Final = 0.05
"""One-sided."""
TRIES: Final = 8
"""So often versions trained on the same lines may be examined; then the budget is spent."""
NIGHTS: Final = 60
_FIRST: Final = 0.8
"""Of the budget for the first try: most datasets are trained on once. Each further one has a fifth of the one
before."""


def error_of(attempt: int) -> float | None:
    """Return the one-sided error of the attempt, counted from 1, against the parent; None when the budget is spent."""
    if attempt < 1:
        raise ValueError("attempts are counted from 1")
    return BUDGET * _FIRST * (1 - _FIRST) ** (attempt - 1) if attempt <= TRIES else None


def anchor_error_of(attempt: int) -> float | None:
    """Return the one-sided error of the attempt against the anchor; None when the budget is spent."""
    error = error_of(attempt)
    return None if error is None else error / NIGHTS

"""The error that a gate may make, and how tries and nights share it.

A dataset has one budget: of all versions that were ever trained on the same lines, one that is too much worse passes
with 5% at most, however often somebody tries. Each try has a share of its own, fixed beforehand, and the shares add up
to the whole (Bonferroni; nothing is assumed of how the tries depend on each other). A dataset is known by the
digest of its lines, whatever their order; with a line more it is another one with a budget of its own.

The anchor, the version that a person last chose, stands for many nights, and all of them ask the same items. Its
budget is shared equally among LOOKS of them, and the share is halved by each night whose version was not promoted. The
shares add up to no more than the whole, so versions that were settled beforehand and lost more than the margin pass
with 5% at most, all together. Versions are not settled beforehand: each was chosen by what the one before happened to
gain on those very items, and keeps that. Where the anchor's comparison begins to choose, nights end now so, now so, and
the halving stops them: small losses creep past the margin by equal shares alone, and not by these. That is measured
(tests/bench/nights.py) and not proved; what can be proved, a share for each course of verdicts, stops twins that lost
nothing within days.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

BUDGET: Final = 0.05
"""One-sided."""
TRIES: Final = 8
"""So often versions trained on the same lines may be examined; then the budget is spent."""
LOOKS: Final = 60
"""So often versions may be compared with one anchor; then its budget is spent."""
_KEPT: Final = 0.5
"""Of the share, after each night whose version was not promoted."""
_FIRST: Final = 0.8
"""Of the budget for the first try: most datasets are trained on once. Each further one has a fifth of the one
before."""


@dataclass(frozen=True, slots=True)
class Look:
    """How often an anchor was compared with. Raises ValueError for what can't be."""

    number: int = 1
    """Of the versions that were compared with it, which this one is, counted from 1."""
    promoted: int = 0
    """Of those before, to so many the gate said Promote, whatever became of them."""

    def __post_init__(self) -> None:
        if not 0 <= self.promoted < self.number:
            raise ValueError(f"{self.promoted} of {self.number - 1} earlier versions can't have been promoted")


def error_of(attempt: int) -> float | None:
    """Return the one-sided error of the attempt, counted from 1, against the parent; None when the budget is spent."""
    if attempt < 1:
        raise ValueError("attempts are counted from 1")
    return BUDGET * _FIRST * (1 - _FIRST) ** (attempt - 1) if attempt <= TRIES else None


def anchor_error_of(look: Look) -> float | None:
    """Return the one-sided error of that comparison with an anchor; None when the budget is spent."""
    return BUDGET / LOOKS * _KEPT ** (look.number - 1 - look.promoted) if look.number <= LOOKS else None

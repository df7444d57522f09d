"""A mean difference and what it leaves open."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean difference and its interval, in the unit of what was compared."""

    mean: float
    low: float
    high: float

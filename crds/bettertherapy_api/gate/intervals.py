"""The confidence interval of a paired difference, by bootstrap with a fixed seed: same answers, same interval."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

RESAMPLES: Final = 2000
_SEED: Final = 20_260_101
_MOST_DRAWS: Final = 4_000_000


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean difference and its 95% percentile-bootstrap interval, in the unit of its arguments."""

    mean: float
    low: float
    high: float


def paired_interval(parent: Sequence[float], child: Sequence[float], *, span: float = math.inf) -> Interval:
    """Return the interval of `child - parent`, item by item. Raises ValueError for no items, or for unequal numbers.

    Items are drawn with replacement, pairs stay together (Efron and Tibshirani 1993, chapter 13). No difference is
    larger than `span`, the length of the scale: what the widening for few items adds beyond that is cut off.
    """
    differences = [after - before for before, after in zip(parent, child, strict=True)]
    if not differences:
        raise ValueError("no items, no interval")
    count = len(differences)
    mean = sum(differences) / count
    if min(differences) == max(differences):
        return Interval(mean=mean, low=mean, high=mean)
    resamples = max(200, min(RESAMPLES, _MOST_DRAWS // count))
    draw = random.Random(_SEED)  # noqa: S311 - reproducible, not secret
    means = sorted(sum(draw.choices(differences, k=count)) / count for _ in range(resamples))
    low, high = means[int(0.025 * resamples)], means[min(resamples - 1, int(0.975 * resamples))]
    widening = _widening(count)
    return Interval(
        mean=mean,
        low=max(-span, mean + (low - mean) * widening),
        high=min(span, mean + (high - mean) * widening),
    )


def _widening(count: int) -> float:
    """Return how much too narrow a percentile interval of few items is: its variance, and t against z (Hesterberg)."""
    degrees = count - 1
    return float((count / degrees) ** 0.5 * (1 + 1.21 / degrees))

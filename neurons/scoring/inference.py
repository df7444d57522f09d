"""What a count or a paired difference leaves open: intervals, by scipy.

Wilson for shares, and a BCa bootstrap for mean differences in which items of one cluster (a conversation, a disease, a
template) are drawn together.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Final

import numpy as np
from scipy import stats

from bettertherapy_api.gate.intervals import Interval

LEVEL: Final = 0.95
RESAMPLES: Final = 9_999
_SEED: Final = 20_260_101
_BATCH: Final = 2_000_000
"""Numbers drawn at a time, at the most: what bounds memory (8 bytes each)."""


def share_interval(successes: int, trials: int, *, level: float = LEVEL) -> Interval:
    """Return a share and its Wilson interval, 0 to 1. Raises ValueError for no trials or impossible counts."""
    if trials < 1:
        raise ValueError("no trials, no share")
    found = stats.binomtest(successes, trials).proportion_ci(confidence_level=level, method="wilson")
    return Interval(mean=successes / trials, low=float(found.low), high=float(found.high))


def difference_interval(
    before: Sequence[float],
    after: Sequence[float],
    *,
    span: float,
    clusters: Sequence[Hashable] | None = None,
    level: float = LEVEL,
) -> Interval:
    """Return the mean of `after - before`, item by item, and its interval.

    Args:
        before: scores of the one version, `after` those of the other, in the same order.
        span: the length of the scale; no difference is larger.
        clusters: which items belong together; each by itself without it.
        level: of confidence.

    Where all clusters differ equally nothing can be resampled. The interval then says what so many could have missed:
    the upper end of the exact interval for none seen (Clopper and Pearson 1934), each differing by the whole span.

    Raises:
        ValueError: no items, unequal numbers, a score that is no number, or a difference beyond the span.
    """
    if len(before) != len(after) or not before or (clusters is not None and len(clusters) != len(before)):
        raise ValueError("both versions need a score for each of the same items, and at least one item")
    differences = np.asarray(after, dtype=float) - np.asarray(before, dtype=float)
    if not np.isfinite(differences).all() or not math.isfinite(span) or np.abs(differences).max() > span:
        raise ValueError("a score is no number, or lies outside the scale")
    sums, counts = _clustered(differences, clusters)
    mean = float(differences.mean())
    means = sums / counts
    if np.ptp(means) <= np.finfo(float).eps * span:
        missed = float(stats.binomtest(0, len(sums)).proportion_ci(confidence_level=level, method="exact").high)
        return Interval(mean=mean, low=max(-span, mean - span * missed), high=min(span, mean + span * missed))
    found = stats.bootstrap(
        (sums, counts), _ratio, paired=True, vectorized=True, n_resamples=RESAMPLES, confidence_level=level,
        method="BCa", batch=max(1, _BATCH // len(sums)), rng=np.random.default_rng(_SEED),
    ).confidence_interval  # fmt: skip
    if not (math.isfinite(found.low) and math.isfinite(found.high)):
        return Interval(mean=mean, low=-span, high=span)  # too few to bend the interval by: they tell nothing
    return Interval(mean=mean, low=max(-span, float(found.low)), high=min(span, float(found.high)))


def _clustered(differences: np.ndarray, clusters: Sequence[Hashable] | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the sum and the number of each cluster's differences."""
    if clusters is None:
        return differences, np.ones_like(differences)
    places = {name: place for place, name in enumerate(dict.fromkeys(clusters))}
    at = np.array([places[name] for name in clusters])
    return np.bincount(at, weights=differences), np.bincount(at).astype(float)


def _ratio(sums: np.ndarray, counts: np.ndarray, axis: int = -1) -> np.ndarray:
    return np.asarray(sums.sum(axis=axis) / counts.sum(axis=axis))

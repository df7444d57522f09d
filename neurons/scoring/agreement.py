"""Cohen's kappa of a grader with known answers, and its 95% interval, by scipy."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import Final

import numpy as np
from scipy import stats

from bettertherapy_api.gate.intervals import Interval
from neurons.scoring.inference import LEVEL, RESAMPLES

_SEED: Final = 20_260_101
_BATCH: Final = 500


def kappa_interval(truth: Sequence[bool], graded: Sequence[bool], clusters: Sequence[Hashable]) -> Interval:
    """Return kappa and its interval, from -1 to 1.

    Items of one cluster (a question with its right and its wrong answer) are drawn together, by a BCa bootstrap (Efron
    1987) with a fixed seed. Where all clusters come out alike nothing can be resampled. A grader without any error then
    gets as lower end what so many clusters could have missed: the upper end of the exact interval for none seen
    (Clopper and Pearson 1934), each wrong throughout. Where there is no interval, it is -1 to 1: too few items tell
    nothing.

    Raises:
        ValueError: no items, unequal numbers, or items of one truth only, for which kappa says nothing.
    """
    if not truth or len(truth) != len(graded) or len(truth) != len(clusters):
        raise ValueError("kappa needs a truth, a grade and a cluster for each item, and at least one item")
    if len(set(truth)) < 2:
        raise ValueError("kappa needs items that are met and items that are not")
    counts: dict[Hashable, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for is_met, said, cluster in zip(truth, graded, clusters, strict=True):
        counts[cluster][2 * (not said) + (is_met is not said)] += 1  # true met, false met, true not, false not
    table = np.array(list(counts.values()), dtype=float).T
    mean = float(_kappa(*table.sum(axis=1)))
    # Clusters of unequal size are fewer than they look (Kish 1965), down to one that holds nearly all items.
    apart = math.floor(len(truth) ** 2 / float((table.sum(axis=0) ** 2).sum()))
    faultless = faultless_low(apart, sum(truth) / len(truth))
    if list(truth) == list(graded):
        return Interval(mean=mean, low=faultless, high=1.0)
    if len(counts) < 2 or np.ptp(table, axis=1).max() == 0:
        return Interval(mean=mean, low=-1.0, high=1.0)
    found = stats.bootstrap(
        tuple(table), _resampled, paired=True, vectorized=True, n_resamples=RESAMPLES, confidence_level=LEVEL,
        method="BCa", batch=_BATCH, rng=np.random.default_rng(_SEED),
    ).confidence_interval  # fmt: skip
    if not (math.isfinite(found.low) and math.isfinite(found.high)):
        return Interval(mean=mean, low=-1.0, high=1.0)
    # one error must not be surer than none
    return Interval(mean=mean, low=min(mean, faultless, float(found.low)), high=max(mean, float(found.high)))


def faultless_low(clusters: int, true: float = 0.5) -> float:
    """Return the lower end of kappa, of a grader that made no error on so many clusters; `true` is the share that is
    met. No lower end is above it."""
    missed = float(stats.binomtest(0, clusters).proportion_ci(confidence_level=LEVEL, method="exact").high)
    # wrong alike on both kinds: what is met and what is said to be met keep their shares
    return max(-1.0, 1 - missed / (2 * true * (1 - true)))


def _resampled(
    true_met: np.ndarray, false_met: np.ndarray, true_not: np.ndarray, false_not: np.ndarray, axis: int = -1
) -> np.ndarray:
    return _kappa(*(each.sum(axis=axis) for each in (true_met, false_met, true_not, false_not)))


def _kappa(true_met: np.ndarray, false_met: np.ndarray, true_not: np.ndarray, false_not: np.ndarray) -> np.ndarray:
    """Return kappa, elementwise; 0 where chance alone would agree always."""
    count = true_met + false_met + true_not + false_not
    agreed = (true_met + true_not) / count
    said, true = (true_met + false_met) / count, (true_met + false_not) / count
    chance = said * true + (1 - said) * (1 - true)
    beyond = 1 - chance
    return np.asarray(np.where(beyond > 0, (agreed - chance) / np.where(beyond > 0, beyond, 1.0), 0.0))

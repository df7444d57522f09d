"""Many canaries at a time: what `twin_operator.domain.canary_analysis` finds of them, look by look, in arrays.

The operator computes one canary's evidence at one look, in plain Python. Thousands of canaries with hundreds of looks
each take numpy; the formulas are written down here once more, with the operator's own priors and limits, and a test
holds both to the same figures (tests/unit/bench/test_canaries.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.special import gammaln, xlog1py, xlogy

from bettertherapy_api.doctor_twin import Rollout
from bettertherapy_api.metrics.miner import REQUEST_SECONDS
from twin_operator.domain import canary_analysis
from twin_operator.domain.sequential import Prior, Tried

LOOK_EVERY: Final = 5
"""Requests of the canary between two looks."""
BEFORE: Final = 5000
"""Requests that the serving version answered before the canary, where it answered any."""
RATED: Final = 0.1
"""Share of requests that are rated."""
TASTE: Final = (0.04, 0.04, 0.12, 0.32, 0.48)
"""Of those, how many give one star, two and so on."""
BOUNDS: Final = np.array(REQUEST_SECONDS.buckets)

Array = np.ndarray
Failing = float | Array
"""A share of requests: at all times, or for each look (and canary)."""


@dataclass(frozen=True, kw_only=True)
class Counted:
    """What was counted of one version: arrays of looks, canaries and, for histograms, bounds or stars."""

    requests: Array
    failed: Array
    within: Array
    """So many answers within each bound."""
    stars: Array
    """So many ratings of each number of stars."""


def played(
    draw: np.random.Generator, canaries: int, *, steps: Sequence[tuple[int, int]], failing: tuple[Failing, Failing],
    slower: float = 1.0, rating: bool = False,
) -> tuple[Counted, Counted]:  # fmt: skip
    """Play so many canaries and return what had been counted at each look, of the canary and of the serving version.

    `steps` are weights in percent with the canary's requests at each; `failing` the true shares of failed requests of
    canary and serving version, alike at all times or one for each look and canary. Answers are log-normal around 1.2 s,
    the canary's longer by the factor `slower`.
    """
    sizes = [
        (np.full(canaries, LOOK_EVERY), draw.negative_binomial(LOOK_EVERY, weight / 100, canaries))
        for weight, requests in steps
        for _ in range(requests // LOOK_EVERY)
    ]
    return (
        _counted(draw, [canary for canary, _ in sizes], failing[0], slower, rating),
        _counted(draw, [serving for _, serving in sizes], failing[1], 1.0, rating),
    )


def _counted(
    draw: np.random.Generator, sizes: Sequence[Array], failing: Failing, slower: float, rating: bool
) -> Counted:
    shares = np.diff([0.0, *_within_share(BOUNDS / slower), 1.0])
    numbers = np.array(sizes)
    given = draw.binomial(numbers, RATED if rating else 0.0)
    return Counted(
        requests=numbers.cumsum(0).astype(float),
        failed=draw.binomial(numbers, failing).cumsum(0).astype(float),
        within=draw.multinomial(numbers, shares).cumsum(0).cumsum(-1)[..., :-1].astype(float),
        stars=draw.multinomial(given, TASTE).cumsum(0).astype(float),
    )


def _within_share(bounds: Array) -> list[float]:
    """Return which share of answers is there within each bound."""
    return [0.5 * math.erfc(-math.log(bound / 1.2) / 0.6 / math.sqrt(2)) for bound in bounds]


def evidence(tried: Array, bad: Array, serving: Array, beside: Array, *, allowed: float, prior: Prior) -> Array:
    """Return `sequential.log_evidence` of numbers and sums, elementwise."""
    mixed = np.logaddexp.reduce(
        [math.log(weight) + _mixed(tried, bad, yes, no) for weight, yes, no in prior.tried], axis=0
    )
    found = mixed + np.where(serving > 0, _mixed(serving, beside, *prior.serving), 0.0)
    share, other = bad / np.maximum(tried, 1), beside / np.maximum(serving, 1)
    freely = _likelihood(tried, bad, share) + _likelihood(serving, beside, other)
    pooled = (bad + beside) / np.maximum(tried + serving, 1)
    bound = np.maximum(
        _likelihood(tried, bad, pooled) + _likelihood(serving, beside, pooled),
        _likelihood(tried, bad, np.full_like(share, allowed)) + _likelihood(serving, beside, other),
    )
    alone = _likelihood(tried, bad, np.minimum(share, allowed))
    no_worse = np.where(serving > 0, np.where(share <= np.maximum(other, allowed), freely, bound), alone)
    return np.asarray(np.where(tried > 0, found - no_worse, 0.0))


def _likelihood(number: Array, bad: Array, share: Array) -> Array:
    return np.asarray(xlogy(bad, share) + xlog1py(number - bad, -share))


def _mixed(number: Array, bad: Array, yes: float, no: float) -> Array:
    return np.asarray(_log_beta(yes + bad, no + number - bad) - _log_beta(np.array(yes), np.array(no)))


def _log_beta(yes: Array, no: Array) -> Array:
    return np.asarray(gammaln(yes) + gammaln(no) - gammaln(yes + no))


def taken_back(
    canary: Counted, serving: Counted, *, steps: Sequence[tuple[int, int]], before: float | None,
    limits: Rollout | None = None,
) -> Array:  # fmt: skip
    """Return for each canary at which look it is taken back; -1 where it never is.

    `steps` are those that were played; `before` is the share of failed requests of the serving version before, None
    where it had none.
    """
    limits = limits or Rollout()
    asked = Tried(0, 0) if before is None else Tried(BEFORE, BEFORE * before)
    prior, allowed = canary_analysis._prior(asked), limits.max_error_percent / 100
    counted = (canary.requests, canary.failed, serving.requests, serving.failed)
    worse = evidence(*counted, allowed=allowed, prior=prior) >= -math.log(canary_analysis.ERROR_ALARMS)
    first = 0
    for _, requests in steps:
        looks = slice(first, first + requests // LOOK_EVERY)
        if first:
            since = [each[looks] - each[first - 1] for each in counted]
            worse[looks] &= evidence(*since, allowed=allowed, prior=prior) >= math.log(canary_analysis.CONFIRMED)
        first = looks.stop
    worse |= _slower(canary, serving, limits) >= -math.log(canary_analysis.LATENCY_ALARMS)
    worse |= _rated_lower(canary, serving) >= -math.log(canary_analysis.RATING_ALARMS)
    return np.where(worse.any(0), worse.argmax(0), -1)


def _slower(canary: Counted, serving: Counted, limits: Rollout) -> Array:
    ratio = limits.max_latency_ratio_percent / 100
    logs = []
    for place, bound in enumerate(BOUNDS):
        slow = canary.requests - canary.within[..., place]
        others = serving.requests - _within(serving, bound / ratio)
        logs.append(
            evidence(
                canary.requests, slow, serving.requests, others, allowed=canary_analysis.SLOW_SHARE,
                prior=canary_analysis._SLOW,
            )
        )  # fmt: skip
    return _mean(logs, both=(canary.requests > 0) & (serving.requests > 0))


def _within(counted: Counted, seconds: float) -> Array:
    """Return how many took no longer, evenly spread inside a bucket."""
    place = int(np.searchsorted(BOUNDS, seconds, side="right"))
    upper = counted.within[..., place] if place < len(BOUNDS) else counted.requests
    below = counted.within[..., place - 1] if place else np.zeros_like(counted.requests)
    if place == len(BOUNDS):
        return below
    lower = BOUNDS[place - 1] if place else 0.0
    return np.asarray(below + (seconds - lower) / (BOUNDS[place] - lower) * (upper - below))


def _rated_lower(canary: Counted, serving: Counted) -> Array:
    given, beside = canary.stars.sum(-1), serving.stars.sum(-1)
    logs = [
        evidence(
            given, canary.stars[..., :most].sum(-1), beside, serving.stars[..., :most].sum(-1), allowed=0.0,
            prior=canary_analysis._LOW,
        )
        for most in (1, 2, 3, 4)
    ]  # fmt: skip
    return _mean(logs, both=(given > 0) & (beside > 0))


def _mean(logs: Sequence[Array], *, both: Array) -> Array:
    """Return the logarithm of the mean of evidences, 0 where one of the two versions has nothing."""
    return np.asarray(np.where(both, np.logaddexp.reduce(logs, axis=0) - math.log(len(logs)), 0.0))

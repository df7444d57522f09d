"""Is one version's share worse than another's? A test that may be looked at at any time, as often as one likes.

What is counted may be anything from 0 to 1 an observation: a request that failed, an answer slower than a bound, a
rating. Under the hypothesis that the tried version's mean p is no higher than what is allowed, p <= max(q, a), with q
the serving version's mean and a an allowance,

    E = integral of L(p, q) dW(p, q)  /  sup of L(p, q) over p <= max(q, a),      L of n, k: p^k (1-p)^(n-k) each

is at every moment at most a nonnegative supermartingale that begins at 1: the numerator over L at the true (p, q) is
one, for a mixture of likelihood ratios is (Robbins 1970: the mixture SPRT), and the supremum is no less than L at the
truth (Wasserman, Ramdas and Balakrishnan 2020, "Universal inference", section 8: sequential). So by Ville's inequality
(1939) E ever reaches 1/alpha with probability alpha at most, whatever the traffic, the split and the number of looks.
Assumed is that each observation's mean, given those before it, is p or q; no approximation is made. Where an
observation is a fraction, each factor of E is convex in it, so its expectation is at most that of a coin with the same
mean.

Beta priors make W's integral a ratio of beta functions; the supremum is at p = q (both pooled) or at p = a. E depends
on the four sums alone: nobody has to remember earlier looks, and an operator that was away reads the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

_ROUNDING: Final = 1e-12
"""Of all observations: what differences of fractions leave where there is nothing."""


@dataclass(frozen=True, slots=True)
class Tried:
    """Observations, and the sum of what was counted in them: 0 to 1 each."""

    number: float
    sum: float

    @property
    def share(self) -> float:
        """The mean; 0 where nothing was observed."""
        return self.sum / self.number if self.number else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Prior:
    """Beta distributions of the serving version's share, and of the tried version's where it is worse.

    They decide how soon something is seen, never how often something is seen that is not there.
    """

    serving: tuple[float, float]
    tried: tuple[tuple[float, float, float], ...]
    """Several, mixed: each with its weight, of which the sum is 1. A wide one sees whatever there is, and late; a
    narrow one sees what it was made for, and soon. A mixture loses the logarithm of the weight to each."""


def log_evidence(tried: Tried, serving: Tried, *, allowed: float, prior: Prior) -> float:
    """Return the logarithm of E; log(1/alpha) or more says *worse* with at most alpha false alarms over all looks.

    Where nothing of the serving version was observed, the tried one is compared with the allowance alone. Raises
    ValueError for sums that are no sums of shares.
    """
    for each in (tried, serving):
        if not (0 <= each.sum <= each.number < math.inf):
            raise ValueError("what was counted is more than there was")
    if tried.number == 0:
        return 0.0
    parts = [math.log(weight) + _mixed(tried, (yes, no)) for weight, yes, no in prior.tried]
    mixed = math.log(len(parts)) + log_mean(parts)
    if serving.number:
        mixed += _mixed(serving, prior.serving)
    return mixed - _no_worse(tried, serving, allowed)


def doubt(tried: Tried, serving: Tried, *, allowed: float) -> float:
    """Return by how much what was counted is likelier where the tried version is worse: a logarithm, 0 or more.

    At a single look an equal version has 1.35 or more once in twenty (Wilks 1938: half of a chi-square of one degree).
    It is no test to look at again and again, only a reason to wait.
    """
    if tried.number == 0:
        return 0.0
    freely = _log_likelihood(tried, tried.share) + _log_likelihood(serving, serving.share)
    return max(0.0, freely - _no_worse(tried, serving, allowed))


def _no_worse(tried: Tried, serving: Tried, allowed: float) -> float:
    """Return the logarithm of the largest likelihood with which the tried version is no worse than allowed."""
    if serving.number == 0:
        return _log_likelihood(tried, min(tried.share, allowed))
    if tried.share <= max(serving.share, allowed):
        return _log_likelihood(tried, tried.share) + _log_likelihood(serving, serving.share)
    pooled = (tried.sum + serving.sum) / (tried.number + serving.number)
    return max(
        _log_likelihood(tried, pooled) + _log_likelihood(serving, pooled),
        _log_likelihood(tried, allowed) + _log_likelihood(serving, serving.share),
    )


def log_mean(logs: list[float]) -> float:
    """Return the logarithm of the mean of what these are logarithms of: a mean of evidences is evidence."""
    most = max(logs)
    if math.isinf(most):
        return most
    return most + math.log(math.fsum(math.exp(each - most) for each in logs) / len(logs))


def _log_likelihood(seen: Tried, share: float) -> float:
    rest = seen.number - seen.sum
    if rest < _ROUNDING * seen.number:
        rest = 0.0
    if (seen.sum > 0 and share <= 0) or (rest > 0 and share >= 1):
        return -math.inf
    return (seen.sum * math.log(share) if seen.sum else 0.0) + (rest * math.log1p(-share) if rest else 0.0)


def _mixed(seen: Tried, beta: tuple[float, float]) -> float:
    yes, no = beta
    return _log_beta(yes + seen.sum, no + seen.number - seen.sum) - _log_beta(yes, no)


def _log_beta(yes: float, no: float) -> float:
    return math.lgamma(yes) + math.lgamma(no) - math.lgamma(yes + no)

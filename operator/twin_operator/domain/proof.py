"""Whether the pods of a pool hold the same weights, where no fingerprint was recorded that each could go by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Final

from bettertherapy_api.report import AdapterReport, Proof

SAME_MILLI_NATS: Final = 100
"""Mean absolute difference at the standard questions up to which two pods of a pool hold the same weights."""


@dataclass(frozen=True, kw_only=True)
class Disagreement:
    """Two pods of a pool that answer differently under one name."""

    pods: tuple[str, str]
    milli_nats: int
    """Mean absolute difference of their log-probabilities at the standard questions, in 1/1000 nats."""


def disagreement(reports: Mapping[str, AdapterReport]) -> Disagreement | None:
    """Return the two pods of one pool, by name, whose answers at the first load are furthest apart, if that is too far.

    Only pods that were asked the same questions are compared: another release of the agent may ask others.
    """
    measured = {
        pod: held.measured_milli_nats
        for pod, held in sorted(reports.items())
        if held.rests_on() is Proof.FIRST_LOAD and held.measured_milli_nats
    }
    found = [
        Disagreement(pods=(one, other), milli_nats=round(apart))
        for one, other in combinations(measured, 2)
        if len(measured[one]) == len(measured[other])
        and (apart := _mean_difference(measured[one], measured[other])) > SAME_MILLI_NATS
    ]
    return max(found, key=lambda each: each.milli_nats, default=None)


def _mean_difference(one: tuple[int, ...], other: tuple[int, ...]) -> float:
    return sum(abs(a - b) for a, b in zip(one, other, strict=True)) / len(one)

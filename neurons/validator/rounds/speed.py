"""How soon miners answer, as the gateway measured: the median of its histogram, and the share that came. Pure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from neurons.ledger.records import Miner

LEAST_ANSWERS: Final = 10
"""Questions that a miner has to have been asked for its speed to be told."""
FAST_SECONDS: Final = 1.0
"""A median of it, or below, is as fast as anybody can feel."""
SLOW_SECONDS: Final = 30.0
"""A median of it, or above, earns nothing: the gateway waits no longer."""
NOT_ITS_FAULT: Final = frozenset({"busy", "refused"})
ANSWERED: Final = "answered"
_SS58: Final = 40


@dataclass(frozen=True, slots=True)
class Series:
    """One sample of a query, with its labels."""

    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Speed:
    """One miner's. Seconds."""

    value: float
    """0 to 1: how fast, times the share of its answers that came."""
    median: float
    answered: float
    asked: float


def speeds(buckets: Iterable[Series], attempts: Iterable[Series]) -> Mapping[Miner, Speed]:
    """Return the speed of each miner that was asked often enough; of others nothing is known.

    `buckets`: `bettertherapy_gateway_miner_seconds_bucket` by hotkey, registered and le; `attempts`:
    `bettertherapy_gateway_miner_answers_total` by hotkey, registered and outcome; both as increases over one window.
    """
    counts: defaultdict[Miner, dict[float, float]] = defaultdict(dict)
    for each in buckets:
        if (miner := _miner(each.labels)) is not None and (edge := _edge(each.labels.get("le", ""))) is not None:
            counts[miner][edge] = counts[miner].get(edge, 0.0) + each.value
    asked: defaultdict[Miner, float] = defaultdict(float)
    answered: defaultdict[Miner, float] = defaultdict(float)
    for each in attempts:
        outcome = each.labels.get("outcome", "")
        if (miner := _miner(each.labels)) is None or outcome in NOT_ITS_FAULT:
            continue
        asked[miner] += each.value
        if outcome == ANSWERED:
            answered[miner] += each.value
    found = {}
    for miner, count in asked.items():
        if count < LEAST_ANSWERS:
            continue
        median = median_of(counts.get(miner, {}))
        if median is None:
            if answered[miner] > 0:
                continue  # the two series contradict each other
            median = SLOW_SECONDS
        share = min(1.0, answered[miner] / count)
        found[miner] = Speed(value=how_fast(median) * share, median=median, answered=answered[miner], asked=count)
    return found


def how_fast(seconds: float) -> float:
    """Return 1 up to FAST_SECONDS, 0 from SLOW_SECONDS, and between them by the logarithm, as waiting is felt."""
    if seconds <= FAST_SECONDS:
        return 1.0
    return max(0.0, math.log(SLOW_SECONDS / seconds) / math.log(SLOW_SECONDS / FAST_SECONDS))


def median_of(buckets: Mapping[float, float]) -> float | None:
    """Return the median of a histogram with cumulative buckets, between its edges in proportion; None for an empty."""
    edges = sorted(buckets)
    if not edges or buckets[edges[-1]] <= 0:
        return None
    half = buckets[edges[-1]] / 2
    below, low = 0.0, 0.0
    for edge in edges:
        held = buckets[edge]
        if held >= half:
            if math.isinf(edge):
                return low
            return low + (edge - low) * ((half - below) / (held - below) if held > below else 1.0)
        below, low = held, edge
    return low


def _miner(labels: Mapping[str, str]) -> Miner | None:
    hotkey, registered = labels.get("hotkey", ""), labels.get("registered", "")
    if not (_SS58 <= len(hotkey) <= 64 and hotkey.isalnum() and registered.isdecimal()):
        return None
    try:
        return Miner(hotkey=hotkey, registered_block=int(registered))
    except ValueError:
        return None


def _edge(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None

"""How a canary does against the version that serves: error rate, latency and ratings, from Prometheus.

Errors and latency are the miners'. Ratings are the patients', counted by whoever takes them; where nobody does, a
canary is judged without.

The miners of the pools that serve the twin must all be scraped, told apart by the `pod` that their series carry:
another pool's miners say nothing of this one's.

The canary's counters are read as they stand, not as rates: its series begin with it, and a rate would miss whatever
came before their first sample. Missing or old data is never read as good or bad: it holds the canary where it is. No
request at all, in fresh data, is no reason to hold it: a twin that nobody asked would never get a new version. A figure
that no counter can have is none, and neither is one whose labels say nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from bettertherapy_api.doctor_twin import Rollout as RolloutSpec
from twin_operator.domain.pool_facts import PodFacts
from twin_operator.domain.reasons import Reason
from twin_operator.engine.prometheus import Sample

FRESH_SECONDS: Final = 90
"""Older samples are stale: three scrapes at the usual interval of 30 s."""
JUDGED_REQUESTS: Final = 10
"""From so many requests on the error rate counts."""
JUDGED_ERRORS: Final = 3
"""From so many failed requests on the error rate counts, however few there were in all."""
JUDGED_LATENCIES: Final = 20
"""From so many requests on a 95th percentile means something."""

RATINGS: Final = "bettertherapy_gateway_ratings_total"
"""Counter of ratings with the labels twin, version and rating (1 to 5)."""
RATINGS_DAYS: Final = 7
"""How far back ratings count; those of the version that serves are many times the canary's."""
JUDGED_RATINGS: Final = 20
"""From so many ratings of each version on they are compared."""
RATED_LOWER_BY: Final = 3.0
"""In standard errors of the difference. More than for one test: a canary is looked at again and again."""
_MOST: Final = 2.0**53
"""A float counts up to here: no counter is above it, and none below zero."""


class Outlook(StrEnum):
    """What the analysis says of a canary."""

    GOOD = "Good"
    WORSE = "Worse"
    UNCLEAR = "Unclear"
    UNKNOWN = "Unknown"
    UNWATCHED = "Unwatched"


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """An outlook, with a reason and a sentence with the numbers."""

    outlook: Outlook
    reason: Reason
    message: str


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What Prometheus knows. Latencies are 95th percentiles in seconds, None where there is none."""

    fresh_miners: frozenset[str] = frozenset()
    """Pods of the namespace's miners with fresh samples."""
    unnamed_miners: int = 0
    """Miners with fresh samples that don't say of which pod they are."""
    odd_requests: bool = False
    """Whether what is told of the canary's requests can't be true, so that they were not measured."""
    requests: Mapping[str, float] = field(default_factory=dict)
    """The canary's ended requests by code."""
    canary_seconds: float | None = None
    stable_seconds: float | None = None
    canary_ratings: Mapping[int, float] = field(default_factory=dict)
    """How often each rating from 1 to 5 was given."""
    stable_ratings: Mapping[int, float] = field(default_factory=dict)


UNWATCHED: Final = Analysis(
    outlook=Outlook.UNWATCHED, reason=Reason.NOT_ANALYSED,
    message="steps go by time and verification alone: the operator has no Prometheus (prometheus.url of its chart)",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, order=True)
class Trial:
    """A canary with traffic, and the version it is compared with."""

    twin: str
    canary: str
    """Served name."""
    stable: str


def queries(trials: Sequence[Trial], *, window_seconds: int, matchers: str) -> dict[str, str]:
    """Return the PromQL of each part of a measurement of all a namespace's canaries at once."""
    more = f",{matchers}" if matchers else ""
    ready = f"bettertherapy_miner_pods_ready{{{matchers}}}"
    bucket = "bettertherapy_miner_request_seconds_bucket"
    twins = "|".join(sorted({trial.twin for trial in trials}))
    canaries = "|".join(sorted({trial.canary for trial in trials}))
    stables = "|".join(sorted({trial.stable for trial in trials}))
    rated = f'{RATINGS}{{twin=~"{twins}",version=~"{canaries}|{stables}"{more}}}'
    tried, serving = (
        f'{{twin=~"{twins}",version=~"{versions}"{more}}}[{window_seconds}s]' for versions in (canaries, stables)
    )
    return {
        "fresh": f"count by (pod) (time() - timestamp({ready}) < {FRESH_SECONDS})",
        "requests": f"sum by (twin, version, code) (max_over_time(bettertherapy_miner_requests_total{tried}))",
        "canary": f"histogram_quantile(0.95, sum by (twin, version, le) (max_over_time({bucket}{tried})))",
        "stable": f"histogram_quantile(0.95, sum by (twin, version, le) (rate({bucket}{serving})))",
        "ratings": f"sum by (twin, version, rating) (max_over_time({rated}[{RATINGS_DAYS}d]))",
    }


def measurements(found: Mapping[str, Sequence[Sample]], trials: Sequence[Trial]) -> dict[Trial, Measurement]:
    """Return what the answers to `queries` say of each trial."""
    fresh: dict[str, float] = dict(_labelled(found["fresh"], "pod"))
    by_part: dict[str, dict[tuple[str, str], list[Sample]]] = {}
    for part, samples in found.items():
        groups = by_part.setdefault(part, {})
        for sample in samples:
            groups.setdefault((_label(sample, "twin"), _label(sample, "version")), []).append(sample)
    made = {}
    for trial in trials:
        canary, stable = (trial.twin, trial.canary), (trial.twin, trial.stable)
        asked = by_part["requests"].get(canary, [])
        requests = dict(_labelled(asked, "code"))
        made[trial] = Measurement(
            fresh_miners=frozenset(fresh) - {""},
            unnamed_miners=round(fresh.get("", 0)),
            odd_requests="" in requests or len(requests) < len(asked),
            requests=requests,
            canary_seconds=next(_figures(by_part["canary"].get(canary, [])), None),
            stable_seconds=next(_figures(by_part["stable"].get(stable, [])), None),
            canary_ratings=_ratings(by_part["ratings"].get(canary, [])),
            stable_ratings=_ratings(by_part["ratings"].get(stable, [])),
        )
    return made


def _label(sample: Sample, name: str) -> str:
    """Return a label, empty where there is none; Prometheus' are texts, other programs' may be anything."""
    value = sample.labels.get(name)
    return value if isinstance(value, str) else ""


def _figures(samples: Iterable[Sample]) -> Iterator[float]:
    return (each.value for each in samples if 0 <= each.value <= _MOST)


def _labelled(samples: Iterable[Sample], name: str) -> Iterator[tuple[str, float]]:
    """Yield the figures that can be true, each with its label."""
    for sample in samples:
        for value in _figures([sample]):
            yield _label(sample, name), value


def _ratings(samples: Sequence[Sample]) -> dict[int, float]:
    return {int(rating): times for rating, times in _labelled(samples, "rating") if rating in {"1", "2", "3", "4", "5"}}


def assess(  # noqa: PLR0911  # one return per finding
    measured: Measurement | str, limits: RolloutSpec, *, miners: Sequence[PodFacts]
) -> Analysis:
    """Return what the measurement says; `miners` are the pods of the pools that serve the twin."""
    if isinstance(measured, str):
        return Analysis(outlook=Outlook.UNKNOWN, reason=Reason.METRICS_UNAVAILABLE, message=measured)
    stale = _stale(measured, miners)
    if stale is not None:
        return Analysis(outlook=Outlook.UNKNOWN, reason=Reason.METRICS_STALE, message=stale)
    if measured.odd_requests:
        return Analysis(
            outlook=Outlook.UNKNOWN, reason=Reason.METRICS_UNAVAILABLE,
            message="Prometheus counts the canary's requests in figures or codes that can't be true: look at "
            "bettertherapy_miner_requests_total there",
        )  # fmt: skip
    total = round(sum(measured.requests.values()))
    errors = round(sum(count for code, count in measured.requests.items() if _is_failure(code)))
    if total == 0:
        return Analysis(outlook=Outlook.GOOD, reason=Reason.NO_TRAFFIC, message="no request has reached it yet")
    percent = 100 * errors / total
    rate = f"{errors} of {total} requests failed ({percent:.2f}%, allowed {limits.max_error_percent}%)"
    if percent > limits.max_error_percent:
        judged = total >= JUDGED_REQUESTS or errors >= JUDGED_ERRORS
        outlook = Outlook.WORSE if judged else Outlook.UNCLEAR
        return Analysis(outlook=outlook, reason=Reason.ERROR_RATE, message=rate)
    lower, rated = _compare_ratings(measured)
    if lower:
        return Analysis(outlook=Outlook.WORSE, reason=Reason.RATING, message=f"{rated}; {rate}")
    slower, latency = _compare_latencies(measured, limits, total)
    if slower:
        return Analysis(outlook=Outlook.WORSE, reason=Reason.LATENCY, message=f"{latency}; {rate}")
    told = "; ".join(each for each in (rate, latency, rated) if each)
    return Analysis(outlook=Outlook.GOOD, reason=Reason.WITHIN_LIMITS, message=told)


def _stale(measured: Measurement, miners: Sequence[PodFacts]) -> str | None:
    """Return how many of these miners have fresh samples, unless all that are ready do, and at least one at all."""
    known = [pod.name for pod in miners if pod.name in measured.fresh_miners]
    ready = [pod.name for pod in miners if pod.ready and not pod.leaving]
    missing = [name for name in ready if name not in measured.fresh_miners]
    if known and not missing:
        return None
    said = f"Prometheus has samples of the last {FRESH_SECONDS} s from {len(ready) - len(missing)} of {len(ready)} "
    said += "ready miner pods of the twin's pools"
    if missing:
        said += f", none from {', '.join(missing[:3])}{' and others' if len(missing) > 3 else ''}"
    if measured.unnamed_miners:
        said += f"; {measured.unnamed_miners} miners' samples carry no label `pod`, so nobody knows whose they are"
    return f"{said}: check that it scrapes them"


def _compare_latencies(measured: Measurement, limits: RolloutSpec, total: int) -> tuple[bool, str]:
    """Tell whether the canary is slower than allowed, and the numbers."""
    canary, stable = measured.canary_seconds, measured.stable_seconds
    if canary is None or not stable or total < JUDGED_LATENCIES:
        return False, "too few to compare latencies"
    ratio = 100 * canary / stable
    return ratio > limits.max_latency_ratio_percent, (
        f"95% answered within {canary:.2f} s against {stable:.2f} s ({ratio:.0f}%, "
        f"allowed {limits.max_latency_ratio_percent}%)"
    )


def _compare_ratings(measured: Measurement) -> tuple[bool, str]:
    """Tell whether patients rate the canary lower, by more than chance explains; and the numbers, if there are any."""
    (given, mean, error), (given_stable, mean_stable, error_stable) = (
        _mean_rating(ratings) for ratings in (measured.canary_ratings, measured.stable_ratings)
    )
    if not given:
        return False, ""
    said = f"rated {mean:.1f} of 5 by {given} against {mean_stable:.1f} by {given_stable}"
    if min(given, given_stable) < JUDGED_RATINGS:
        return False, f"{said}, too few to compare"
    return mean_stable - mean > RATED_LOWER_BY * math.hypot(error, error_stable), said


def _mean_rating(ratings: Mapping[int, float]) -> tuple[int, float, float]:
    """Return how many there are, their mean, and its standard error."""
    count = sum(ratings.values())
    if round(count) < 1:
        return 0, 0.0, 0.0
    mean = sum(rating * times for rating, times in ratings.items()) / count
    variance = sum(times * (rating - mean) ** 2 for rating, times in ratings.items()) / max(count - 1, 1)
    return round(count), mean, math.sqrt(variance / count)


def _is_failure(code: str) -> bool:
    return code.startswith("5") or code == "broken"

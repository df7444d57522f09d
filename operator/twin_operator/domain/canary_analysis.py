"""How a canary does against the version that serves: errors, latency and ratings, from Prometheus' counters.

Errors and latency are the miners'. Ratings are the patients', counted by whoever takes them; where nobody does, a
canary is judged without.

Each of the three is a sequential test (`domain.sequential`): it may be looked at every few seconds, and over a whole
canary a version that does as well as what serves is taken back with ERROR_ALARMS, LATENCY_ALARMS and RATING_ALARMS at
most, 5% in all. Compared are shares: of requests that failed; of answers slower than a bound of the histogram, against
those of the serving version that are slower than the bound divided by the allowed ratio; of ratings that are so low or
lower. Where there are several bounds the mean of their evidence counts, which is evidence itself.

The miners of the pools that serve the twin must all be scraped, told apart by the `pod` that their series carry:
another pool's miners say nothing of this one's.

The canary's counters are read as they stand, not as rates: its series begin with it, and a rate would miss whatever
came before their first sample. The serving version's count from about when the canary began (the oldest one of the
namespace), so that what hurts both is held against neither. Missing or old data is never read as good or bad: it holds
the canary where it is. Its requests before that only tell what to look out for: how soon something is seen, not how
often something is seen that is not there.

Sums over steps of different weight compare different hours: where both versions fail more after a step than before it,
more of the canary's requests than of the other's are in the bad hours, and it looks worse for nothing. So what the
errors say takes a canary back only where those since its step began say so too (CONFIRMED), as long as it is known what
there was before: an operator that was away judges by all. That takes back fewer, never more.

No traffic is no proof: fewer requests than `rollout.minRequests` hold it too, for a bounded time (`domain.rollout`). A
figure that no counter can have is none, and neither is one whose labels say nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from bettertherapy_api.doctor_twin import Rollout as RolloutSpec
from bettertherapy_api.metrics import gateway, miner
from twin_operator.domain.pool_facts import PodFacts
from twin_operator.domain.reasons import Reason
from twin_operator.domain.sequential import Prior, Tried, doubt, log_evidence, log_mean
from twin_operator.engine.prometheus import Sample

FRESH_SECONDS: Final = 90
"""Older samples are stale: three scrapes at the usual interval of 30 s."""
ERROR_ALARMS: Final = 0.045
LATENCY_ALARMS: Final = 0.004
RATING_ALARMS: Final = 0.001
"""How often, at most, a version that does as well as what serves is taken back for it: over its whole canary."""
CONFIRMED: Final = 2.0
"""What the requests since a canary's step began must say of its errors, if those of all steps are to take it back."""
FEW_SINCE: Final = 30
"""Of fewer requests since the step began nothing is concluded that contradicts what all say: the canary is held."""
DOUBT: Final = 1.35
"""What looks as bad as this at a single look, as one equal version in twenty does, holds a canary where it is."""
SLOW_SHARE: Final = 0.05
"""So many answers may be slower than any bound: what is judged is the 95th percentile and all below."""

RATINGS: Final = gateway.RATINGS.name
"""Counter of ratings with the labels twin, version and rating (1 to 5)."""
RATINGS_DAYS: Final = 7
"""How far back ratings count; those of the version that serves are many times the canary's."""
_BEFORE_SECONDS: Final = 300
"""A pod that was scraped in so long before the canary had counters then."""
_BEFORE_REQUESTS: Final = 3000
"""What was before counts as so many requests at most: things may have changed since."""
_WORSE: Final = ((0.25, 5, 0.05, 40), (0.5, 5, 0.05, 200), (0.25, 2, 0.02, 400))
"""What a bad version is looked out for to do: weight; how many times as often as the serving version it fails, and how
often at least; and by how many requests that is held to be known. Others are found a little later."""
_MOST_WORSE: Final = 0.7
_SLOW: Final = Prior(serving=(0.5, 0.5), tried=((1.0, 0.5, 0.5),))
_LOW: Final = Prior(serving=(0.5, 0.5), tried=((1.0, 0.5, 0.5),))
_MOST: Final = 2.0**53
"""A float counts up to here: no counter is above it, and none below zero."""


class Outlook(StrEnum):
    """What the analysis says of a canary."""

    GOOD = "Good"
    WORSE = "Worse"
    UNCLEAR = "Unclear"
    """It looks worse, and that may be chance."""
    AWAITING = "Awaiting"
    """Too few requests to prove anything."""
    UNKNOWN = "Unknown"
    UNWATCHED = "Unwatched"


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """An outlook, with a reason and a sentence with the numbers."""

    outlook: Outlook
    reason: Reason
    message: str


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """Ended requests by code, of a canary and of the serving version, up to the beginning of its step."""

    requests: Mapping[str, float]
    serving_requests: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What Prometheus knows. Requests are ended ones by code, seconds a histogram's cumulative counts by upper
    bound."""

    fresh_miners: frozenset[str] = frozenset()
    """Pods of the namespace's miners with fresh samples."""
    unnamed_miners: int = 0
    """Miners with fresh samples that don't say of which pod they are."""
    odd_requests: bool = False
    """Whether what is told of the canary's requests can't be true, so that they were not measured."""
    requests: Mapping[str, float] = field(default_factory=dict)
    """The canary's."""
    serving_requests: Mapping[str, float] = field(default_factory=dict)
    """The serving version's since about when the canary began."""
    serving_before: Mapping[str, float] = field(default_factory=dict)
    """The serving version's up to then."""
    earlier: Earlier | None = None
    """What of these was counted when the canary's step began; None in its first step, and where it isn't known."""
    canary_seconds: Mapping[float, float] = field(default_factory=dict)
    serving_seconds: Mapping[float, float] = field(default_factory=dict)
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
    ready = f"{miner.PODS_READY.name}{{{matchers}}}"
    requests, bucket = miner.REQUESTS.name, miner.REQUEST_SECONDS.bucket
    twins = "|".join(sorted({trial.twin for trial in trials}))
    canaries = "|".join(sorted({trial.canary for trial in trials}))
    stables = "|".join(sorted({trial.stable for trial in trials}))
    rated = f'{RATINGS}{{twin=~"{twins}",version=~"{canaries}|{stables}"{more}}}'
    earlier = f'{{twin=~"{twins}",version=~"{stables}"{more}}}[{_BEFORE_SECONDS}s] offset {window_seconds}s'
    tried, serving = (
        f'{{twin=~"{twins}",version=~"{versions}"{more}}}[{window_seconds}s]' for versions in (canaries, stables)
    )
    return {
        "fresh": f"count by (pod) (time() - timestamp({ready}) < {FRESH_SECONDS})",
        "requests": f"sum by (twin, version, code) (max_over_time({requests}{tried}))",
        "serving": f"sum by (twin, version, code) (increase({requests}{serving}))",
        "before": f"sum by (twin, version, code) (max_over_time({requests}{earlier}))",
        "canary_seconds": f"sum by (twin, version, le) (max_over_time({bucket}{tried}))",
        "serving_seconds": f"sum by (twin, version, le) (increase({bucket}{serving}))",
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
            serving_requests=dict(_labelled(by_part["serving"].get(stable, []), "code")),
            serving_before=dict(_labelled(by_part["before"].get(stable, []), "code")),
            canary_seconds=_buckets(by_part["canary_seconds"].get(canary, [])),
            serving_seconds=_buckets(by_part["serving_seconds"].get(stable, [])),
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


def _buckets(samples: Iterable[Sample]) -> dict[float, float]:
    """Return the cumulative counts by upper bound, never falling; none where the histogram is not whole."""
    found: dict[float, float] = {}
    for bound, count in _labelled(samples, "le"):
        try:
            upper = float(bound)
        except ValueError:
            return {}
        if not upper > 0:
            return {}
        found[upper] = found.get(upper, 0.0) + count  # one bound may be written in two ways
    if math.inf not in found:
        return {}
    counted, rising = 0.0, {}
    for upper in sorted(found):  # pods are not scraped at one moment, and increase() extrapolates
        counted = max(counted, found[upper])
        rising[upper] = counted
    return rising


@dataclass(frozen=True, kw_only=True)
class _Test:
    """What one of the sequential tests found."""

    reason: Reason
    evidence: float
    """Logarithm of it: 0 is neither way."""
    doubt: float
    alarms: float
    said: str
    confirmed: bool = True
    """Whether what came since its step began says so too."""

    @property
    def worse(self) -> bool:
        return self.confirmed and self.evidence >= -math.log(self.alarms)

    @property
    def doubtful(self) -> bool:
        return self.worse or self.doubt >= DOUBT

    @property
    def told(self) -> str:
        """What was measured and, where it speaks against the canary, how strongly."""
        if not self.doubtful:
            return self.said
        odds = "more than a million" if self.evidence > math.log(1e6) else f"{math.exp(self.evidence):,.1f}"
        return f"{self.said}: evidence {odds} to 1 that it is worse, {1 / self.alarms:.0f} to 1 takes it back"


def assess(  # noqa: PLR0911  # one return per finding
    measured: Measurement | str, limits: RolloutSpec, *, miners: Sequence[PodFacts]
) -> Analysis:
    """Return what the measurement says; `miners` are the pods of the pools that serve the twin."""
    if isinstance(measured, str):
        return Analysis(outlook=Outlook.UNKNOWN, reason=Reason.METRICS_UNAVAILABLE, message=measured)
    unmeasured = _unmeasured(measured, miners)
    if unmeasured is not None:
        return unmeasured
    total = round(sum(measured.requests.values()))
    tests = [each for each in (_errors(measured, limits), _ratings_test(measured), _latency(measured, limits)) if each]
    worse = next((each for each in tests if each.worse), None)
    leaning = next((each for each in tests if each.doubtful), None)
    decisive = worse or leaning
    ordered = [decisive, *(each for each in tests if each is not decisive)] if decisive else tests
    said = "; ".join(each.told for each in ordered)
    if worse is not None:
        return Analysis(outlook=Outlook.WORSE, reason=worse.reason, message=said)
    if total < limits.min_requests:
        needed = f"{total} of the {limits.min_requests} requests that rollout.minRequests asks for have reached it"
        return Analysis(
            outlook=Outlook.AWAITING, reason=Reason.AWAITING_TRAFFIC, message=f"{needed}; {said}" if total else needed
        )
    if leaning is not None:
        return Analysis(outlook=Outlook.UNCLEAR, reason=leaning.reason, message=said)
    if total == 0:
        return Analysis(outlook=Outlook.GOOD, reason=Reason.NO_TRAFFIC, message="no request has reached it yet")
    return Analysis(outlook=Outlook.GOOD, reason=Reason.WITHIN_LIMITS, message=said)


def _errors(measured: Measurement, limits: RolloutSpec) -> _Test:
    tried, serving, before = (
        _failed(codes) for codes in (measured.requests, measured.serving_requests, measured.serving_before)
    )
    allowed = limits.max_error_percent / 100
    prior = _prior(before)
    since = _since_step(measured)
    evidence = log_evidence(tried, serving, allowed=allowed, prior=prior)
    confirmed = since is None or log_evidence(*since, allowed=allowed, prior=prior) >= math.log(CONFIRMED)
    doubtful = doubt(*(since or (tried, serving)), allowed=allowed)
    if since is not None and since[0].number < FEW_SINCE and evidence >= -math.log(ERROR_ALARMS):
        doubtful = max(doubtful, DOUBT)  # what all steps say stands, until enough came to contradict it
    beside = (
        f"of the serving version's {serving.number:.0f} since about its start {100 * serving.share:.2f}%"
        if round(serving.number)
        else "none is known of the serving version's"
    )
    return _Test(
        reason=Reason.ERROR_RATE,
        evidence=evidence,
        doubt=doubtful,
        alarms=ERROR_ALARMS,
        said=f"{tried.sum:.0f} of {tried.number:.0f} requests failed ({100 * tried.share:.2f}%; {beside}; allowed "
        f"{limits.max_error_percent}%{_said_since(since)})",
        confirmed=confirmed,
    )


def _failed(codes: Mapping[str, float]) -> Tried:
    return Tried(sum(codes.values()), sum(count for code, count in codes.items() if _is_failure(code)))


def _since_step(measured: Measurement) -> tuple[Tried, Tried] | None:
    """Return what came of the canary and of the serving version since the canary's step began; None where that isn't
    known."""
    if (earlier := measured.earlier) is None:
        return None
    return (
        _came(_failed(measured.requests), _failed(earlier.requests)),
        _came(_failed(measured.serving_requests), _failed(earlier.serving_requests)),
    )


def _came(now: Tried, then: Tried) -> Tried:
    """Return the difference; increase() extrapolates, so a little less may be counted now than then."""
    number = max(0.0, now.number - then.number)
    return Tried(number, min(number, max(0.0, now.sum - then.sum)))


def _said_since(since: tuple[Tried, Tried] | None) -> str:
    if since is None:
        return ""
    tried, serving = since
    return f"; since its step began {100 * tried.share:.2f}% of {tried.number:.0f} against {100 * serving.share:.2f}%"


def _prior(before: Tried) -> Prior:
    """Return what to look out for: what the serving version did before, and a multiple of that."""
    weight = min(1.0, _BEFORE_REQUESTS / before.number) if before.number else 0.0
    tried = []
    for part, times, least, known in _WORSE:
        worse = min(_MOST_WORSE, max(least, times * before.share))
        tried.append((part, worse * known, (1 - worse) * known))
    return Prior(
        serving=(1 + weight * before.sum, 60 + weight * (before.number - before.sum)),
        tried=tuple(tried),
    )


def _latency(measured: Measurement, limits: RolloutSpec) -> _Test | None:
    """Compare how long answers took; None where one of the two has none."""
    canary, serving = measured.canary_seconds, measured.serving_seconds
    count, beside = canary.get(math.inf, 0.0), serving.get(math.inf, 0.0)
    if not count or not beside:
        return None
    ratio = limits.max_latency_ratio_percent / 100
    bounds = sorted(upper for upper in canary if upper < math.inf)
    if not bounds:
        return None
    pairs = [
        (Tried(count, count - canary[bound]), Tried(beside, beside - _within(serving, bound / ratio)))
        for bound in bounds
    ]
    each = [log_evidence(tried, stands, allowed=SLOW_SHARE, prior=_SLOW) for tried, stands in pairs]
    evidence, place = log_mean(each), each.index(max(each))
    tried, stands = pairs[place]
    doubtful = doubt(tried, stands, allowed=SLOW_SHARE)
    slow = (
        f"{tried.sum:.0f} of {count:.0f} answers took longer than {bounds[place]:g} s, and "
        f"{100 * stands.share:.1f}% of the serving version's {beside:.0f} longer than {bounds[place] / ratio:.3g} s, "
        f"which is that by the allowed {limits.max_latency_ratio_percent}%"
    )
    usual = (
        f"95% answered within {_percentile(canary, 0.95):.2f} s against {_percentile(serving, 0.95):.2f} s (allowed "
        f"{limits.max_latency_ratio_percent}%)"
    )
    return _Test(
        reason=Reason.LATENCY, evidence=evidence, doubt=doubtful, alarms=LATENCY_ALARMS,
        said=f"{usual}: {slow}" if doubtful >= DOUBT else usual,
    )  # fmt: skip


def _within(buckets: Mapping[float, float], seconds: float) -> float:
    """Return how many took no longer, evenly spread inside a bucket, as Prometheus has it."""
    lower, below = 0.0, 0.0
    for upper in sorted(buckets):
        if seconds < upper:
            part = 0.0 if math.isinf(upper) else (seconds - lower) / (upper - lower)
            return below + part * (buckets[upper] - below)
        lower, below = upper, buckets[upper]
    return below


def _percentile(buckets: Mapping[float, float], share: float) -> float:
    """Return about which time that share took at most: the lower end of the last bucket where it is there."""
    rank, lower, below = share * buckets[math.inf], 0.0, 0.0
    for upper in sorted(buckets):
        if buckets[upper] >= rank:
            if math.isinf(upper):
                return lower
            return lower + (upper - lower) * ((rank - below) / (buckets[upper] - below) if rank > below else 0.0)
        lower, below = upper, buckets[upper]
    return lower


def _unmeasured(measured: Measurement, miners: Sequence[PodFacts]) -> Analysis | None:
    """Return why nothing can be said; None when something can."""
    stale = _stale(measured, miners)
    if stale is not None:
        return Analysis(outlook=Outlook.UNKNOWN, reason=Reason.METRICS_STALE, message=stale)
    if measured.odd_requests:
        return Analysis(
            outlook=Outlook.UNKNOWN, reason=Reason.METRICS_UNAVAILABLE,
            message="Prometheus counts the canary's requests in figures or codes that can't be true: look at "
            f"{miner.REQUESTS.name} there",
        )  # fmt: skip
    return None


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


def _ratings_test(measured: Measurement) -> _Test | None:
    """Compare how patients rate the two: the shares that are so low or lower; None where one of the two has no
    rating."""
    canary, serving = measured.canary_ratings, measured.stable_ratings
    given, beside = sum(canary.values()), sum(serving.values())
    if not round(given):
        return None
    said = f"rated {_mean_rating(canary):.1f} of 5 by {given:.0f}"
    if not round(beside):
        return _Test(
            reason=Reason.RATING, evidence=0.0, doubt=0.0, alarms=RATING_ALARMS,
            said=f"{said}, the serving version by nobody",
        )  # fmt: skip
    pairs = [
        (Tried(given, _so_low(canary, rating)), Tried(beside, _so_low(serving, rating))) for rating in (1, 2, 3, 4)
    ]
    each = [log_evidence(tried, stands, allowed=0.0, prior=_LOW) for tried, stands in pairs]
    evidence, place = log_mean(each), each.index(max(each))
    tried, stands = pairs[place]
    doubtful = doubt(tried, stands, allowed=0.0)
    said += f" against {_mean_rating(serving):.1f} by {beside:.0f}"
    low = f"{tried.sum:.0f} and {stands.sum:.0f} of them gave {place + 1} or less"
    return _Test(
        reason=Reason.RATING, evidence=evidence, doubt=doubtful, alarms=RATING_ALARMS,
        said=f"{said}, {low}" if doubtful >= DOUBT else said,
    )  # fmt: skip


def _so_low(ratings: Mapping[int, float], most: int) -> float:
    return sum(times for rating, times in ratings.items() if rating <= most)


def _mean_rating(ratings: Mapping[int, float]) -> float:
    return sum(rating * times for rating, times in ratings.items()) / sum(ratings.values())


def _is_failure(code: str) -> bool:
    return code.startswith("5") or code == "broken"

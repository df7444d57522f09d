"""What is usual for a twin's version, learnt from its own traffic, and whether it has left that.

*Learnt* of each version anew are two things. Of its latency: the bound of the miners' histogram that nine in ten of
its first LEARN_REQUESTS answers (over LEARN_WINDOWS windows at least) were faster than, and the next bound, about twice
that. Of its ratings: the mean of the first LEARN_RATINGS. Both with an upper confidence bound, so that few
observations promise little. What was learnt is kept in the twin's status and is not learnt again: a version that
becomes slow must not make slowness usual. A version that is bad from its first day on has a bad baseline; comparing it
with the one before is the canary's work.

*Left* is judged window by window. A window is WINDOW_SECONDS long, or as much longer as it takes until it holds
LEAST_REQUESTS requests (LEAST_RATINGS ratings): no traffic is no verdict. Each gives one number x from 0 to 1: the
share of its answers that took longer than the next bound; how far its ratings are from 5, of 4. Bets on x being above
m, the most that is tolerated, multiply 1 + b (x - m), b > 0, and start anew at 1 whenever they fell below: a CUSUM of
e-values. If the mean of each x, given what came before, is m at most, however the x are distributed and whatever the
traffic, the mean time to a false alarm is at least RUN_LENGTH windows (Shin, Ramdas and Rinaldo 2022, "E-detectors",
theorem 2.4). A whole window counts once, so that requests that are slow together, as in a burst, are not taken for so
many proofs. The twin is back when all bets have fallen below 1 again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final, TypeVar

from bettertherapy_api.doctor_twin import Baseline
from bettertherapy_api.metrics import gateway, miner
from twin_operator.domain.reasons import Reason
from twin_operator.domain.sequential import log_mean
from twin_operator.engine.conditions import Condition, Finding
from twin_operator.engine.prometheus import Sample
from twin_operator.engine.times import timestamp

WINDOW_SECONDS: Final = 300
LEAST_REQUESTS: Final = 5
LEAST_RATINGS: Final = 5
LEARN_REQUESTS: Final = 200
LEARN_WINDOWS: Final = 12
LEARN_RATINGS: Final = 50
USUAL_TAIL: Final = 0.1
"""So many answers may be slower than the learnt bound, with confidence."""
TOLERATED_TAIL: Final = 0.15
"""So many may be slower than the next bound before it counts against the twin."""
RATING_MARGIN: Final = 0.0625
"""A quarter of a star, of 4: so much worse than learnt is tolerated."""
CONFIDENCE: Final = 2.33
"""Standard deviations: 99%, one-sided."""
RUN_LENGTH: Final = 20_000
"""Windows, on average, to a false alarm at least: 69 days of traffic in every window, at the edge of what is
tolerated."""
_BETS: Final = (0.4, 0.9)
"""Of what 1/m allows: a small one for a small change, a large one for a large."""
_MOST: Final = 2.0**53
_BEST: Final = 500
"""Hundredths of a star: no mean is better."""

CONDITION: Final = "Degraded"
Number = TypeVar("Number", int, float)


@dataclass(frozen=True, kw_only=True)
class Counted:
    """What ended in a window, of one version."""

    seconds: Mapping[float, float] = field(default_factory=dict)
    """Requests by upper bound, cumulative; all of them at infinity."""
    ratings: Mapping[int, float] = field(default_factory=dict)
    """By rating, 1 to 5."""

    @property
    def requests(self) -> float:
        """All requests."""
        return self.seconds.get(math.inf, 0.0)

    @property
    def rated(self) -> float:
        """All ratings."""
        return sum(self.ratings.values())

    def slower_than(self, bound: float) -> float:
        """Return the share of requests that took longer than a bound of the histogram."""
        return 1.0 - self.seconds.get(bound, 0.0) / self.requests

    def dissatisfaction(self) -> float:
        """Return how far the ratings are from 5 on average, of 4."""
        return sum((5 - rating) / 4 * times for rating, times in self.ratings.items()) / self.rated

    def plus(self, other: Counted) -> Counted:
        """Return both together."""
        return Counted(seconds=_added(self.seconds, other.seconds), ratings=_added(self.ratings, other.ratings))


NOTHING: Final = Counted()


@dataclass(frozen=True, kw_only=True)
class Detector:
    """One e-detector: the logarithms of its bets, and the window that is still being filled."""

    bets: tuple[float, ...] = tuple(0.0 for _ in _BETS)
    open: Counted = NOTHING

    @property
    def log_evidence(self) -> float:
        """Logarithm of the mean of all bets; 0 is neither way."""
        return log_mean(list(self.bets))

    @property
    def alarms(self) -> bool:
        """Whether there is as much evidence as a false alarm reaches once in RUN_LENGTH windows."""
        return self.log_evidence >= math.log(RUN_LENGTH)

    @property
    def calm(self) -> bool:
        """Whether nothing of it is left."""
        return not any(self.bets)

    def bet(self, x: float, tolerated: float) -> Detector:
        """Return it after one window that gave x."""
        most = math.log(RUN_LENGTH * len(_BETS))  # more evidence would only make the way back longer
        steps = (math.log(max(1e-9, 1 + share / tolerated * (x - tolerated))) for share in _BETS)
        bets = tuple(min(most, max(0.0, before + step)) for before, step in zip(self.bets, steps, strict=True))
        return Detector(bets=bets)


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What is remembered of one version of a twin."""

    known: Baseline
    learning: Counted = NOTHING
    windows: int = 0
    """With requests, so far."""
    squares: float = 0.0
    """Sum of the squares of the ratings' distances from 5."""
    latency: Detector = field(default_factory=Detector)
    rating: Detector = field(default_factory=Detector)


def queries(matchers: str) -> dict[str, str]:
    """Return the PromQL of a window of all versions that the matchers select; what is absent was not counted."""
    window = f"{{{matchers}}}[{WINDOW_SECONDS}s]"
    return {
        "seconds": f"sum by (twin, version, le) (increase({miner.REQUEST_SECONDS.bucket}{window})) > 0",
        "ratings": f"sum by (twin, version, rating) (increase({gateway.RATINGS.name}{window})) > 0",
    }


def counted(found: Mapping[str, Iterable[Sample]]) -> dict[tuple[str, str], Counted]:
    """Return what the answers to `queries` say, by twin and version; what can't be was not measured."""
    seconds: dict[tuple[str, str], dict[float, float]] = {}
    for key, bound, value in _figures(found["seconds"], "le"):
        if bound > 0:
            of_version = seconds.setdefault(key, {})
            of_version[bound] = of_version.get(bound, 0.0) + value
    ratings: dict[tuple[str, str], dict[int, float]] = {}
    for key, rating, value in _figures(found["ratings"], "rating"):
        if rating in {1, 2, 3, 4, 5}:
            ratings.setdefault(key, {})[int(rating)] = value
    whole = {key: bounds for key, bounds in seconds.items() if math.inf in bounds}
    return {
        key: Counted(seconds=_rising(whole.get(key, {})), ratings=ratings.get(key, {}))
        for key in whole.keys() | ratings.keys()
    }


def begin(served_name: str, known: Baseline | None) -> Memory:
    """Return the memory of a version, with what a status knows of it; of another version nothing is known."""
    if known is None or known.served_name != served_name:
        return Memory(known=Baseline(served_name=served_name))
    known = _judged_by(known)
    most = Detector(bets=tuple(math.log(RUN_LENGTH * len(_BETS)) for _ in _BETS))
    return Memory(
        known=known,
        latency=most if known.slow_since else Detector(),
        rating=most if known.poorly_rated_since else Detector(),
    )


def observe(memory: Memory, seen: Counted, *, now: datetime) -> Memory:
    """Return what is known after one more window."""
    if seen.requests == 0 and seen.rated == 0:
        return memory
    if not _has_learnt(memory.known):
        memory = _learn(memory, seen)
    return _judge(memory, seen, now)


def condition(known: Baseline | None) -> Condition | None:
    """Return what a twin's condition says of its baseline; None where nobody looks."""
    if known is None:
        return None
    slow, poor = known.slow_since, known.poorly_rated_since
    if slow and known.slow_milliseconds is not None:
        bound = f"{known.slow_milliseconds / 1000:g} s"
        found = Finding(
            Reason.LATENCY_ABOVE_BASELINE,
            f"more than {TOLERATED_TAIL:.0%} of the answers of {known.served_name} take longer than {bound}, as was "
            f"found at {slow}; when its baseline was learnt, at most {USUAL_TAIL:.0%} took more than about half that",
        )
        if poor:
            found = found.followed_by(f". And it is rated lower than its baseline, as was found at {poor}")
        return found.condition(CONDITION, "True")
    if poor and known.least_rating_hundredths is not None and known.rating_hundredths is not None:
        least, usual = (f"{each / 100:.2f}" for each in (known.least_rating_hundredths, known.rating_hundredths))
        return Finding(
            Reason.RATING_BELOW_BASELINE,
            f"patients rate {known.served_name} below {least} on average, as was found at {poor}; when its baseline "
            f"was learnt, they rated it {usual}",
        ).condition(CONDITION, "True")
    if known.slow_milliseconds is None and known.least_rating_hundredths is None:
        latency = f"its first {LEARN_REQUESTS} requests, of {LEARN_WINDOWS * WINDOW_SECONDS // 60} minutes at least"
        if known.requests is not None:
            latency = "(its answers take longer than the miners' histogram tells apart)"
        return Finding(
            Reason.BASELINE_LEARNING,
            f"what is usual for {known.served_name} is learnt from {latency} and its first {LEARN_RATINGS} ratings",
        ).condition(CONDITION, "Unknown")
    measures = [
        *(["latency"] if known.slow_milliseconds is not None else []),
        *(["ratings"] if known.least_rating_hundredths is not None else []),
    ]
    return Finding(
        Reason.WITHIN_BASELINE, f"{' and '.join(measures)} of {known.served_name} were not seen to leave the baseline"
    ).condition(CONDITION, "False")


def _judged_by(known: Baseline) -> Baseline:
    """Return what of a status can be judged by; what can't (a bound of other buckets, say) is learnt anew."""
    bounds = {round(bound * 1000) for bound in miner.REQUEST_SECONDS.buckets}
    bounded = known.slow_milliseconds in bounds if known.slow_milliseconds is not None else known.slow_since is None
    if known.requests is None or not bounded:
        known = known.model_copy(update={"requests": None, "slow_milliseconds": None, "slow_since": None})
    least = known.least_rating_hundredths
    if known.rating_hundredths is None or least is None or least >= _BEST:
        nothing = {"rating_hundredths": None, "least_rating_hundredths": None, "poorly_rated_since": None}
        known = known.model_copy(update=nothing)
    return known


def _has_learnt(known: Baseline) -> bool:
    return known.requests is not None and known.least_rating_hundredths is not None


def _learn(memory: Memory, seen: Counted) -> Memory:
    known = memory.known
    squares = sum(((5 - rating) / 4) ** 2 * times for rating, times in seen.ratings.items())
    memory = replace(
        memory, learning=memory.learning.plus(seen), windows=memory.windows + (seen.requests > 0),
        squares=memory.squares + squares,
    )  # fmt: skip
    learnt = memory.learning
    if known.requests is None and learnt.requests >= LEARN_REQUESTS and memory.windows >= LEARN_WINDOWS:
        bound = _next_bound(learnt)
        known = known.model_copy(
            update={"requests": round(learnt.requests), "slow_milliseconds": round(bound * 1000) if bound else None}
        )
    if known.least_rating_hundredths is None and learnt.rated >= LEARN_RATINGS:
        mean = learnt.dissatisfaction()
        spread = math.sqrt(max(0.0, memory.squares / learnt.rated - mean**2) / learnt.rated)
        most = min(1.0, mean + CONFIDENCE * spread + RATING_MARGIN)
        known = known.model_copy(
            update={"rating_hundredths": _hundredths(mean), "least_rating_hundredths": _hundredths(most)}
        )
    return replace(memory, known=known)


def _next_bound(learnt: Counted) -> float | None:
    """Return the bound after the one that nine in ten are faster than; None where the histogram has none."""
    number = learnt.requests
    for bound, after in zip(miner.REQUEST_SECONDS.buckets, miner.REQUEST_SECONDS.buckets[1:], strict=False):
        share = (learnt.slower_than(bound) * number + 1) / (number + 2)
        if share + CONFIDENCE * math.sqrt(share * (1 - share) / number) <= USUAL_TAIL:
            return after
    return None


def _judge(memory: Memory, seen: Counted, now: datetime) -> Memory:
    known, latency, rating = memory.known, memory.latency, memory.rating
    if known.slow_milliseconds is not None:
        window = latency.open.plus(Counted(seconds=seen.seconds))
        if window.requests < LEAST_REQUESTS:
            latency = replace(latency, open=window)
        else:
            latency = latency.bet(window.slower_than(known.slow_milliseconds / 1000), TOLERATED_TAIL)
        known = known.model_copy(update={"slow_since": _since(known.slow_since, latency, now)})
    if known.least_rating_hundredths is not None:
        window = rating.open.plus(Counted(ratings=seen.ratings))
        if window.rated < LEAST_RATINGS:
            rating = replace(rating, open=window)
        else:
            rating = rating.bet(window.dissatisfaction(), (5 - known.least_rating_hundredths / 100) / 4)
        known = known.model_copy(update={"poorly_rated_since": _since(known.poorly_rated_since, rating, now)})
    return replace(memory, known=known, latency=latency, rating=rating)


def _since(before: str | None, detector: Detector, now: datetime) -> str | None:
    if before is not None:
        return None if detector.calm else before
    return timestamp(now) if detector.alarms else None


def _hundredths(dissatisfaction: float) -> int:
    return round(100 * (5 - 4 * dissatisfaction))


def _figures(samples: Iterable[Sample], label: str) -> Iterator[tuple[tuple[str, str], float, float]]:
    """Yield twin and version, the label as a number, and the figure; what can't be read or be is left out."""
    for sample in samples:
        twin, version = sample.labels.get("twin"), sample.labels.get("version")
        try:
            number = float(sample.labels.get(label, ""))
        except ValueError:
            continue
        if twin and version and not math.isnan(number) and 0 <= sample.value <= _MOST:
            yield (twin, version), number, sample.value


def _rising(bounds: Mapping[float, float]) -> dict[float, float]:
    """Return all of the histogram's bounds, never falling: pods are not scraped at one moment."""
    most, found = 0.0, {}
    for bound in (*miner.REQUEST_SECONDS.buckets, math.inf) if bounds else ():
        most = max(most, bounds.get(bound, 0.0))
        found[bound] = most
    return found


def _added(one: Mapping[Number, float], other: Mapping[Number, float]) -> dict[Number, float]:
    return {key: one.get(key, 0.0) + other.get(key, 0.0) for key in one.keys() | other.keys()}

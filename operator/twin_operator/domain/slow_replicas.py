"""Which engine pods write slower than the others under like load: a CUSUM of what Prometheus counted, pod by pod.

*What is compared.* The seconds that a sequence takes for a token, by Little's law: sequences that run, on average over
a window, times the window, over the tokens written in it. A window in which a pod ran less than LEAST_RUNNING
sequences, or no other pod at least half as many, is no window: no traffic is no verdict. Compared is with the median of
those others that aren't held to be slow themselves, which a minority can't move. Miners keep pods within 1.25 times
their average (`neurons.miner.selection`); a pod that piles up what only it holds is relieved by placement's bound of
load, since nobody can tell there whether it is slow or busy.

*When a pod is slow.* Each window adds the logarithm of that ratio, at most of MOST_RATIO, less that of TOLERATED, and
never falls below 0 (Page 1954, the CUSUM): at ALARM the pod is slow. Ten times slower takes three windows; what is
less than twice as slow never adds up. False alarms: fewer than one in FALSE_ALARM_WINDOWS windows that a pod is
compared in, as simulated (`tests/bench/degraded.py`) with pods that are alike, asked at random and scraped four times
a window.

*How it comes back.* A slow pod from which twins were taken may have no load to be measured by, so it is tried again:
after TRIAL_SECONDS, doubled with each time that it turned out to be slow again within FORGET_SECONDS after a trial, as
Envoy's outlier detection ejects. A slow pod that still has load, and whose sum has fallen to 0, is back at once.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from bettertherapy_api.metrics import engine
from twin_operator.engine.prometheus import Sample
from twin_operator.engine.times import moment, timestamp

WINDOW_SECONDS: Final = 120
"""Four scrapes at the usual interval of 30 s."""
LEAST_RUNNING: Final = 1.0
"""Sequences, on average: of fewer four scrapes say too little."""
LIKE_LOAD: Final = 2.0
"""A pod is compared with those of which it runs at most so many times the sequences: batches slow engines down."""
TOLERATED: Final = 2.0
"""A pod that is less than so many times slower than the others is as it may be: nodes and batches differ."""
MOST_RATIO: Final = 10.0
"""One window counts for no more than this."""
ALARM: Final = 4.0
"""What the logarithms must add up to."""
FALSE_ALARM_WINDOWS: Final = 100_000
"""Of pods that are alike, a false alarm comes at most once in so many compared windows: 139 days under load."""
TRIAL_SECONDS: Final = 600
MOST_TRIAL_SECONDS: Final = 4 * 3600
FORGET_SECONDS: Final = 3600
MOST_TIMES: Final = 100
_MOST: Final = 2.0**53
"""A float counts up to here: no figure is above it."""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """What one pod did in a window."""

    running: float
    """Sequences, on average."""
    tokens: float
    """Written in the window."""

    @property
    def seconds_per_token(self) -> float:
        """How long a sequence took for a token; of a pod that wrote nothing, as if it had written one."""
        return self.running * WINDOW_SECONDS / max(1.0, self.tokens)


@dataclass(frozen=True, kw_only=True)
class Slow:
    """A pod that is slow, and since when."""

    uid: str
    since: str
    until: str
    """When it is tried again at the latest."""
    times: int = 1
    """How often in a row it turned out to be slow."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What is remembered of one pod."""

    sum: float = 0.0
    slow: Slow | None = None
    times: int = 0
    """How often it was slow so far."""
    tried_at: str | None = None
    """When it was last given twins again."""


def queries(matchers: str) -> dict[str, str]:
    """Return the PromQL for all pools that the matchers select. Of several Prometheus replicas the highest counts."""
    running, tokens = engine.RUNNING.name, engine.GENERATED_TOKENS.name
    window = f"{{{matchers}}}[{WINDOW_SECONDS}s]"
    return {
        "running": f"sum by (pod) (max by (pod, engine, model_name) (avg_over_time({running}{window})))",
        "tokens": f"sum by (pod) (max by (pod, engine, model_name) (increase({tokens}{window})))",
    }


def paces(found: Mapping[str, Iterable[Sample]], pods: Mapping[str, str]) -> dict[str, Pace]:
    """Return what the answers to `queries` say of these pods (UIDs by name); what can't be was not measured."""
    by_part: dict[str, dict[str, float]] = {"running": {}, "tokens": {}}
    for part, figures in by_part.items():
        for sample in found[part]:
            name = sample.labels.get("pod") or ""
            if name in pods and 0 <= sample.value <= _MOST:
                figures[pods[name]] = sample.value
    return {
        uid: Pace(running=running, tokens=by_part["tokens"][uid])
        for uid, running in by_part["running"].items()
        if uid in by_part["tokens"]
    }


def ratios(seen: Mapping[str, Pace], slow: Collection[str] = ()) -> dict[str, float]:
    """Return how many times slower each pod is than those of like load; of pods that can't be compared nothing."""
    found = {}
    for uid, pace in seen.items():
        others = [
            other.seconds_per_token
            for each, other in seen.items()
            if each != uid and each not in slow and other.running >= LEAST_RUNNING and _is_like(pace, other)
        ]
        if pace.running >= LEAST_RUNNING and others:
            found[uid] = pace.seconds_per_token / statistics.median(others)
    return found


def judge(
    memory: Mapping[str, Standing], seen: Mapping[str, Pace], *, pods: Collection[str], now: datetime
) -> dict[str, Standing]:
    """Return what is known after one more window, of the pods (UIDs) that there are."""
    slow = {uid for uid, standing in memory.items() if standing.slow is not None}
    compared = ratios(seen, slow)
    return {uid: _after(uid, memory.get(uid, Standing()), compared.get(uid), now) for uid in sorted(pods)}


def slow_of(memory: Mapping[str, Standing]) -> tuple[Slow, ...]:
    """Return the pods that are slow, by UID."""
    return tuple(standing.slow for _, standing in sorted(memory.items()) if standing.slow is not None)


def recalled(slow: Sequence[Slow]) -> dict[str, Standing]:
    """Return the memory of a process that has only a status to remember by."""
    return {each.uid: Standing(sum=ALARM, slow=each, times=each.times) for each in slow}


def _is_like(one: Pace, other: Pace) -> bool:
    """Tell whether the other has enough load to be compared with: the more it runs, the slower it may be."""
    return one.running <= LIKE_LOAD * other.running


def _after(uid: str, before: Standing, ratio: float | None, now: datetime) -> Standing:
    if before.tried_at is not None and _seconds(before.tried_at, now) > FORGET_SECONDS and before.slow is None:
        before = replace(before, times=0, tried_at=None)
    if ratio is not None:
        step = math.log(min(MOST_RATIO, ratio)) - math.log(TOLERATED) if ratio > 0 else -ALARM
        before = replace(before, sum=min(ALARM, max(0.0, before.sum + step)))
    if before.slow is None:
        return before if before.sum < ALARM else _begun(uid, before, now)
    if before.sum == 0:
        return replace(before, slow=None, tried_at=timestamp(now))
    if now >= moment(before.slow.until):  # half way to the alarm: one that is still slow needn't be proven so anew
        return replace(before, slow=None, tried_at=timestamp(now), sum=ALARM / 2)
    return before


def _begun(uid: str, before: Standing, now: datetime) -> Standing:
    times = min(before.times + 1, MOST_TIMES)
    seconds = min(MOST_TRIAL_SECONDS, TRIAL_SECONDS * 2 ** min(times - 1, 16))
    until = timestamp(now + timedelta(seconds=seconds))
    return replace(before, times=times, slow=Slow(uid=uid, since=timestamp(now), until=until, times=times))


def _seconds(since: str, now: datetime) -> float:
    return (now - moment(since)).total_seconds()

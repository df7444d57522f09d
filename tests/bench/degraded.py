"""How soon slow engine pods and twins out of their usual are found, and how often for nothing, simulated.

The detectors are the real code (`domain.slow_replicas`, `domain.baseline`); engines, patients and Prometheus' scrapes
are played by what the unit tests play them by, with seeds.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from tests.bench.registry import Options
from tests.bench.results import Figure, Result, Spread
from tests.unit.operator.slow_fleet import Fleet
from tests.unit.operator.usual_traffic import LOW, Traffic
from twin_operator.domain.baseline import RUN_LENGTH, Memory, begin, observe
from twin_operator.domain.baseline import WINDOW_SECONDS as TWIN_WINDOW
from twin_operator.domain.slow_replicas import FALSE_ALARM_WINDOWS, slow_of
from twin_operator.domain.slow_replicas import WINDOW_SECONDS as POD_WINDOW

ALIKE: Final = (
    Fleet(seed=0, pods=8, requests_per_second=0.2),
    Fleet(seed=0, pods=3, requests_per_second=0.2, growth=1.5),
    Fleet(seed=0, pods=8, requests_per_second=0.1, growth=1.5, tokens=400.0),
    Fleet(seed=0, pods=2, requests_per_second=0.3),
    Fleet(seed=0, pods=5, requests_per_second=1.0, tokens=60.0),
)
"""Pools of pods that are alike: of little and much load, short and long answers, more and less slow in batches."""
POD_WINDOWS: Final = 300
SLOW_WINDOWS: Final = 60
"""Two hours, in which one of three pods is slower."""
TWINS: Final = 6
"""For each seed."""
USUAL_WINDOWS: Final = 1500
"""Five days."""
LEARNT: Final = 300
CHANGED: Final = 600
"""Two days, in which a twin is otherwise than learnt."""
NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)


def false_pods(seeds: int) -> tuple[int, int]:
    """Return how many windows of pods that are alike were compared, and how many alarms there were."""
    found = [replace(fleet, seed=seed).alarms(POD_WINDOWS) for seed in range(seeds) for fleet in ALIKE]
    return sum(compared for compared, _ in found), sum(alarms for _, alarms in found)


def slow_pod(seed: int, times_slower: float) -> int | None:
    """Return after how many windows one slow pod of three is found; None: not within SLOW_WINDOWS."""
    fleet = Fleet(seed=seed, pods=3, requests_per_second=0.2, slow=0, factor=times_slower)
    for number, (_, memory, _) in enumerate(fleet.windows(SLOW_WINDOWS), start=1):
        if any(each.uid == "0" for each in slow_of(memory)):
            return number
    return None


def usual(seed: int) -> Traffic:
    """Return a twin's traffic: answers of 0.3 to 20 s in the median, of like or unlike length, few or more of them."""
    chance = random.Random(seed)
    return Traffic(
        seed=seed, requests=chance.choice((6.0, 15.0)), spread=chance.choice((0.4, 0.8)),
        median_seconds=math.exp(chance.uniform(math.log(0.3), math.log(20.0))),
    )  # fmt: skip


def false_twins(seeds: int) -> tuple[int, int]:
    """Return how many windows there were of twins that stay as they are, and how many alarms."""
    alarms = 0
    for seed in range(seeds * TWINS):
        before = begin("version", None)
        for memory in _seen(usual(seed), before, USUAL_WINDOWS):
            alarms += before.known.slow_since is None and memory.known.slow_since is not None
            alarms += before.known.poorly_rated_since is None and memory.known.poorly_rated_since is not None
            before = memory
    return seeds * TWINS * USUAL_WINDOWS, alarms


def changed_twin(seed: int, *, times_slower: float = 1.0, ratings: tuple[int, ...] | None = None) -> int | None:
    """Return after how many windows a change is found; None: not within CHANGED."""
    traffic = usual(seed)
    # What takes longer than the miners' histogram tells apart is nobody's to find.
    traffic.median_seconds = min(traffic.median_seconds, 8.0)
    *_, learnt = _seen(traffic, begin("version", None), LEARNT)
    traffic.times_slower, traffic.ratings = times_slower, ratings or traffic.ratings
    for number, memory in enumerate(_seen(traffic, learnt, CHANGED), start=1):
        if (memory.known.slow_since if ratings is None else memory.known.poorly_rated_since) is not None:
            return number
    return None


def _seen(traffic: Traffic, memory: Memory, windows: int) -> Iterator[Memory]:
    for window in traffic.windows(windows):
        memory = observe(memory, window, now=NOW)
        yield memory


def measure(options: Options) -> Result:
    """Simulate all with as many seeds."""
    seeds = range(options.seeds)
    return Result(
        name="degraded",
        title="Slow engine pods, and twins out of their usual (simulated)",
        how=f"Simulated with {options.seeds} seeds; the detectors are the real code, no engine runs. Pods: "
        f"{len(ALIKE)} pools of 2 to 8 pods that are alike, asked at random and scraped every 30 s, "
        f"{POD_WINDOWS} windows of {POD_WINDOW // 60} minutes for each seed; and one of three pods that is "
        f"slower for {SLOW_WINDOWS} windows. "
        f"Twins: {TWINS} for each seed, with days, nights and bursts that slow all down, {USUAL_WINDOWS} windows of "
        f"{TWIN_WINDOW // 60} minutes; and one that changes after {LEARNT} windows, for {CHANGED}.",
        figures=(
            _false("pods", *false_pods(options.seeds), of=FALSE_ALARM_WINDOWS),
            *_found("pods", "one of three ten times slower", [slow_pod(seed, 10.0) for seed in seeds], least=100),
            *_found("pods", "one of three three times slower", [slow_pod(seed, 3.0) for seed in seeds]),
            _false("twins", *false_twins(options.seeds), of=RUN_LENGTH),
            *(
                row
                for times in (10.0, 5.0, 2.0)
                for row in _found(
                    "twins", f"{times:g} times slower", [changed_twin(seed, times_slower=times) for seed in seeds]
                )
            ),
            *_found("twins", "rated low", [changed_twin(seed, ratings=LOW) for seed in seeds]),
        ),
        command="make bench BENCH_ARGS=degraded",
    )


def _false(subject: str, windows: int, alarms: int, *, of: int) -> Figure:
    """Return how often a detector was wrong in so many windows; it may be once in `of`."""
    return Figure(
        subject=subject, figure=f"as usual: alarms in {windows:,} windows", unit="", spread=Spread.of([alarms]),
        digits=0, target=f"at most one in {of:,} windows", met=alarms <= windows / of,
    )  # fmt: skip


def _found(subject: str, what: str, after: list[int | None], *, least: float | None = None) -> list[Figure]:
    """Return how often a change was found, and after how many windows where it was."""
    share = 100 * sum(each is not None for each in after) / len(after)
    target = None if least is None else f"at least {least:g}%"
    met = None if least is None else share >= least
    rows = [
        Figure(subject=subject, figure=f"{what}: found", unit="%", spread=Spread.of([share]), digits=0, target=target,
               met=met)
    ]  # fmt: skip
    if found := [float(each) for each in after if each is not None]:
        rows.append(
            Figure(subject=subject, figure=f"{what}: windows until then", unit="", spread=Spread.of(found), digits=0)
        )
    return rows

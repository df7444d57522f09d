"""A pool that is scaled by its load: an hour of it simulated, and bursts, sleep and an outage on real processes.

`python -m tests.bench.scaling`, or `scaling` as one of `python -m tests.bench`. Parts to skip: simulated, live.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp

from bettertherapy_api.miner_pool import Autoscaling
from tests.api.operator_harness import BASE, until
from tests.bench import versions
from tests.bench.bench_cluster import NAMESPACE, bench_cluster
from tests.bench.registry import BenchmarkError, Options
from tests.bench.results import Curve, Figure, Result, Spread
from tests.bench.scaled_pool import SCRAPE_SECONDS, ScaledPool, load, scaled_pool, twin_manifest
from tests.standin import write_adapter
from twin_operator.domain.reasons import Reason
from twin_operator.domain.scaling import Memory, Unmeasured, decide, observe, outlook
from twin_operator.domain.scaling_signals import Look
from twin_operator.engine.conditions import Finding

# --- simulated
HOUR: Final = 3600
SCRAPE: Final = 15
START_SECONDS: Final = 60
"""From a decision to an engine that answers."""
AT_ONCE: Final = 16
"""Requests that one engine runs."""
ANSWER_SECONDS: Final = 8.0
OUTAGE: Final = (1500, 2100)
"""Prometheus doesn't answer."""
SIMULATED: Final = Autoscaling.model_validate({
    "mode": "Operator", "min": 0, "max": 8, "waitingPerReplica": 4, "slotPressurePercent": 1000, "idleSeconds": 300,
    "stabilizationSeconds": 300,
})  # fmt: skip

# --- live
TWINS: Final = tuple(f"dr-{letter}" for letter in "abcdef")
BURSTS: Final = 5
WAKES: Final = 5
OUTAGE_SECONDS: Final = 600.0
LIVE: Final = {
    "mode": "Operator", "min": 0, "max": 3, "waitingPerReplica": 2, "slotPressurePercent": 1000, "idleSeconds": 5,
    "stabilizationSeconds": 6,
}  # fmt: skip


def measure(options: Options) -> Result:
    """Simulate an hour, and play the rest on a cluster of its own, which is gone afterwards."""
    figures: list[Figure] = []
    curves: list[Curve] = []
    software = versions.of_python()
    if "simulated" not in options.skip:
        seen = list(simulated())
        figures += _of_simulation(seen)
        curves += _curves(seen)
    if "live" not in options.skip:
        with bench_cluster() as cluster, tempfile.TemporaryDirectory() as folder:
            software = versions.of_cluster(cluster) | software
            try:
                figures += asyncio.run(_live(cluster.kubeconfig_path, Path(folder)))
            except (AssertionError, TimeoutError) as error:
                raise BenchmarkError(str(error)) from error
    return Result(
        name="scaling",
        title="A pool that is scaled by its load",
        how=(
            f"Simulated: an hour of arrivals, on which the operator's functions decide from a scrape every {SCRAPE} s; "
            f"an engine takes {START_SECONDS} s to start, runs {AT_ONCE} requests at once and takes "
            f"{ANSWER_SECONDS:.0f} s for each; Prometheus is away for ten minutes under load. Live: real operator, "
            f"miner, agents, API server and Prometheus, which scrapes every {SCRAPE_SECONDS} s; engines played by "
            "stand-ins with one LoRA slot; the benchmark starts pods' processes as the Deployment asks. Bursts: one "
            "client for each of six twins, timed from their start to the Deployment's new size. Sleep: ten questions "
            "at once to a pool with no engine, timed to the new size, and from the engine's readiness to the first "
            "answer."
        ),
        figures=tuple(figures),
        curves=tuple(curves),
        versions=software,
    )  # fmt: skip


@dataclass(frozen=True)
class Second:
    """One second of the simulated hour."""

    at: int
    arriving: float
    """Requests a second."""
    waiting: float
    running: float
    decided: int
    ready: int
    changed: str = ""
    """By which reason the size changed."""


def arriving(second: int) -> float:
    """Return how many requests come in a second: a quiet start, a burst, an afternoon, silence, and one question."""
    minute = second / 60
    if minute < 5:
        return 0.5
    if minute < 15:
        return 9.0
    if minute < 38:
        return 4.0
    return 1.0 if second == 55 * 60 else 0.0


def simulated(
    spec: Autoscaling = SIMULATED, arrivals: Callable[[int], float] = arriving, *, outage: tuple[int, int] = OUTAGE
) -> Iterator[Second]:
    """Yield each second of an hour: a fluid queue before engines, and the operator's functions in front of it."""
    memory, replicas, starting = Memory(), 1, [-START_SECONDS]
    inside = counted = 0.0
    unseen = Unmeasured(why=Finding(Reason.METRICS_UNAVAILABLE, "Prometheus doesn't answer"))
    for second in range(HOUR):
        came = arrivals(second)
        ready = sum(second - begun >= START_SECONDS for begun in starting)
        inside += came
        running = min(inside, float(ready * AT_ONCE))
        done = running / ANSWER_SECONDS
        inside, counted = inside - done, counted + done
        inside = 0.0 if inside < 0.01 else inside  # of a fluid there is always a last drop
        waiting, changed = inside - running + done if ready else inside, ""
        out = outage[0] <= second < outage[1]
        if second % SCRAPE == 0 and not out:
            held = waiting if not ready else 0.0
            look = Look(
                sampled_at=float(second), waiting=waiting, held=held, running=running, measured=ready,
                asked={"miner": counted},
            )  # fmt: skip
            memory = observe(memory, look, spec=spec, slots=8, replicas=replicas, now=float(second))
        if second % 2 == 0:
            seen = outlook(memory, spec=spec, slots=8, now=float(second)) or unseen
            made = decide(spec, replicas=replicas, seen=seen, demanded=not ready and inside >= 1)
            if made.replicas != replicas:
                changed = str(made.scaling.reason)
            replicas = made.replicas
            starting = [*starting[:replicas], *([second] * (replicas - len(starting)))]
        yield Second(second, came, waiting, running, replicas, ready, changed)


def _of_simulation(seen: list[Second]) -> list[Figure]:
    def row(figure: str, value: float, unit: str, *, target: str | None = None, met: bool | None = None) -> Figure:
        return Figure(
            subject="simulated hour", figure=figure, unit=unit, digits=0, spread=Spread.of([value]), target=target,
            met=met,
        )  # fmt: skip

    changes = [each for each in seen if each.changed]
    before, during = seen[OUTAGE[0] - 1].decided, [each.decided for each in seen[OUTAGE[0] : OUTAGE[1]]]
    lost = before - min(during)
    crossed = next(each.at for each in seen if each.waiting > SIMULATED.waiting_per_replica)
    grown = next(each.at for each in changes if each.at >= crossed)
    turns = sum(
        (later.decided > middle.decided) != (middle.decided > earlier.decided)
        for earlier, middle, later in zip(
            [seen[0], *changes], changes, changes[1:], strict=False
        )
    )  # fmt: skip
    return [
        row("the queue crosses its target to another size", grown - crossed, "s", target=f"≤ {SCRAPE} + 5 s",
            met=grown - crossed <= SCRAPE + 5),
        row("most engines at once", max(each.decided for each in seen), "engines"),
        row("changes of the size", len(changes), ""),
        row("turns between growing and shrinking", turns, "", target="≤ 3: up, down, asleep, awake", met=turns <= 3),
        row("engines lost in ten minutes without Prometheus", lost, "", target="0", met=lost == 0),
    ]  # fmt: skip


def _curves(seen: list[Second]) -> list[Curve]:
    def curve(plot: str, name: str, of: Callable[[Second], float]) -> Curve:
        return Curve(
            plot=plot, name=name, points=tuple((each.at / 60, of(each), of(each), of(each)) for each in seen[::10])
        )

    return [
        curve("scaling load", "waiting", lambda each: each.waiting),
        curve("scaling load", "running", lambda each: each.running),
        curve("scaling engines", "decided", lambda each: each.decided),
        curve("scaling engines", "ready", lambda each: each.ready),
        Curve(plot="scaling outage", name="Prometheus away", points=tuple((at / 60, 0, 0, 0) for at in OUTAGE)),
    ]


async def _live(kubeconfig: Path, folder: Path) -> list[Figure]:
    store = folder / "pvc" / "adapters" / "store"
    adapters = {twin: write_adapter(store, twin, content=twin, base=BASE) for twin in TWINS}
    grown: list[float] = []
    woken: list[float] = []
    first: list[float] = []
    statuses: list[int] = []
    async with (
        scaled_pool(kubeconfig, NAMESPACE, folder, replicas=1, autoscaling=LIVE) as pool,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=150)) as http,
    ):
        for twin, adapter in adapters.items():
            await pool.world.apply(twin_manifest(NAMESPACE, adapter, twin))
        await _all_answer(pool, http)
        for _ in range(BURSTS):
            await _at_size(pool, 1, keep=http)
            begun = time.monotonic()
            with load(pool, list(TWINS), tokens=25) as said:
                at = await _grown(pool, begun)
                await asyncio.sleep(0)
            grown.append(at - begun)
            statuses += said
        for _ in range(WAKES):
            await pool.until_size(0, seconds=120)
            begun = time.monotonic()
            answers = await asyncio.gather(*(pool.ask(http, twin, tokens=5) for twin in (*TWINS, *TWINS[:4])))
            woken.append(next(each.at for each in pool.sizes if each.at >= begun and each.replicas) - begun)
            first.append(min(at for _, at in answers) - pool.ready_at[0])
            statuses += [status for status, _ in answers]
        lost, said = await _outage(pool)
        statuses += said
    dropped = sum(status != 200 for status in statuses)
    limit = SCRAPE_SECONDS + 5
    return [
        Figure(subject="live", figure="burst to the Deployment's new size", unit="s", spread=Spread.of(grown),
               target=f"≤ one scrape + 5 s, {limit} s", met=max(grown) <= limit),
        Figure(subject="live", figure="asked while asleep to the new size", unit="s", spread=Spread.of(woken)),
        Figure(subject="live", figure="its engine's readiness to the first answer", unit="s", spread=Spread.of(first),
               target="≤ 2 s", met=max(first) <= 2),
        Figure(subject="live", figure=f"requests not answered, of {len(statuses)}", unit="", digits=0,
               spread=Spread.of([float(dropped)]), target="0", met=dropped == 0),
        Figure(subject="live", figure=f"engines lost in {OUTAGE_SECONDS:.0f} s without Prometheus, under load", unit="",
               digits=0, spread=Spread.of([float(lost)]), target="0", met=lost == 0),
    ]  # fmt: skip


async def _all_answer(pool: ScaledPool, http: aiohttp.ClientSession) -> None:
    for twin in TWINS:

        async def answered(twin: str = twin) -> bool:
            return (await pool.ask(http, twin, tokens=1))[0] == 200

        await until(answered, seconds=60, what=f"{twin} answers")


async def _at_size(pool: ScaledPool, replicas: int, *, keep: aiohttp.ClientSession) -> None:
    """Wait until the pool has shrunk, somebody asking now and then so that it doesn't sleep."""

    async def shrunk() -> bool:
        await pool.ask(keep, TWINS[0], tokens=1)
        return pool.replicas == replicas and len(pool.ready_at) == replicas

    await until(shrunk, seconds=120, what=f"{replicas} engines", every=1.0)


async def _grown(pool: ScaledPool, since: float) -> float:
    async def larger() -> bool:
        return pool.replicas > 1

    await until(larger, seconds=60, what="the Deployment asks for more")
    return next(each.at for each in pool.sizes if each.at >= since and each.replicas > 1)


async def _outage(pool: ScaledPool) -> tuple[int, list[int]]:
    """Return how many engines went while Prometheus was away under load, and what clients were answered."""
    with load(pool, list(TWINS), tokens=25) as statuses:
        await pool.until_size(3, seconds=60)
        pool.prometheus.kill()
        fewest, end = 3, time.monotonic() + OUTAGE_SECONDS
        while time.monotonic() < end:
            fewest = min(fewest, pool.replicas)
            await asyncio.sleep(0.5)
        return 3 - fewest, list(statuses)


if __name__ == "__main__":
    from tests.bench.__main__ import main

    sys.exit(main(["scaling", *sys.argv[1:]]))

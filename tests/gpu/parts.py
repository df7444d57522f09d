"""What is measured, one function a part. Each yields its figures as they come, so that a failure loses none."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bettertherapy_api.manifest import AdapterManifest
from bettertherapy_api.report import AdapterState, FailureReason
from tests.bench.results import Figure, Spread
from tests.gpu import load
from tests.gpu.adapters import Published, Trained, publish, publish_mixed_up
from tests.gpu.engine import Engine, EngineError
from tests.gpu.plane import Plane, TooLateError

VERIFY_SECONDS: Final = 90.0
"""A first adapter may have to wait until its kernels are compiled."""
SWAP_SECONDS: Final = 30.0
TARGET_SWAP_SECONDS: Final = 0.8
SWAP_PAUSE_SECONDS: Final = 0.5
"""Between swaps of an idle engine: old versions linger for 2 s, so a few are held at a time, fewer than the slots."""


class CheckError(Exception):
    """A part found that something doesn't hold."""


@dataclass(kw_only=True)
class Stage:
    """What the parts work on."""

    engine: Engine
    plane: Plane
    trained: Sequence[Trained]
    store: Path
    deadline: float
    """time.monotonic() by which all must be over."""
    start_seconds: float
    """Longest start of an engine."""
    swaps: int
    loaded_swaps: int
    clients: int
    in_flight: int
    requests: int
    """In each round of the throughput part."""
    tokens: int
    rounds: int
    heals: int
    current: dict[str, Published] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def twins(self) -> tuple[str, ...]:
        """The twins' names."""
        return tuple(trained.twin for trained in self.trained)

    def left(self) -> float:
        """Return the seconds left."""
        return self.deadline - time.monotonic()

    def next_version(self, trained: Trained, why: str) -> Published:
        """Publish another version of the same weights."""
        return publish(trained, self.store, run=f"{why}-{next(self._numbers)}")

    async def begin(self) -> float:
        """Start the engine, with a first version of each twin in the table; return the seconds to its first answer."""
        for trained in self.trained:
            self.current[trained.twin] = self.next_version(trained, "first")
        self.show()
        return await self.engine.start(seconds=min(self.start_seconds, self.left()))

    async def ready(self) -> None:
        """Make sure that engine and adapters are there, after a part that failed too."""
        if not self.engine.runs:
            self.engine.kill()
            await self.engine.start(seconds=min(self.start_seconds, self.left()))
        self.show()
        await self.plane.verified(*self.current.values(), seconds=VERIFY_SECONDS)
        await self.plane.answering()

    def show(self, *others: Published) -> float:
        """Write the table: the current versions answer, `others` are held beside them."""
        return self.plane.write([*self.current.values(), *others], self.current)

    async def swap(self, trained: Trained, why: str) -> float:
        """Bring in a version as the operator does, let it answer; return the seconds from table to Verified."""
        new = self.next_version(trained, why)
        written = self.show(new)
        await self.plane.verified(new, seconds=SWAP_SECONDS)
        seconds = time.monotonic() - written
        self.current[trained.twin] = new
        self.show()
        return seconds


async def verify(stage: Stage) -> AsyncIterator[Figure]:
    """Are both adapters' weights recognised, and others refused?"""
    reports = await stage.plane.verified(*stage.current.values(), seconds=VERIFY_SECONDS)
    pod = stage.plane.report()
    stage.notes.append(f"the engine says it is version {pod.engine.version if pod is not None else 'unknown'}")
    for report in reports:
        if report.fingerprint_milli_nats is None:
            raise CheckError(f"{report.twin} was verified without a fingerprint")
        tolerance = _tolerance(_manifest(stage, report.twin))
        yield Figure(
            subject=report.twin, figure="fingerprint: mean difference to the trainer's own", unit="milli-nats",
            spread=Spread.of([report.fingerprint_milli_nats]), digits=0,
            target=f"≤ {tolerance:.0f}", met=report.fingerprint_milli_nats <= tolerance,
        )  # fmt: skip
        yield Figure(
            subject=report.twin, figure="first load and fingerprint", unit="ms", digits=0,
            spread=Spread.of([report.load_millis or 0]),
        )  # fmt: skip
    one, other = stage.trained[0], stage.trained[1]
    wrong = publish_mixed_up(one, other, stage.store)
    stage.show(wrong)
    report = await stage.plane.failed(wrong, seconds=VERIFY_SECONDS)
    tolerance = _tolerance(one.manifest)
    yield Figure(
        subject=one.twin, figure=f"{other.twin}'s weights under its fingerprint: refused, {report.reason}",
        unit="milli-nats", digits=0, spread=Spread.of([report.fingerprint_milli_nats or 0]),
        target=f"FingerprintMismatch, > {tolerance:.0f}",
        met=report.reason is FailureReason.FINGERPRINT_MISMATCH,
    )  # fmt: skip
    stage.show()
    await stage.plane.verified(*stage.current.values(), seconds=1.0)


async def answers(stage: Stage) -> AsyncIterator[Figure]:
    """Do both twins answer one question, each by its own adapter, streaming and not?"""
    texts: dict[str, str] = {}
    async with load.miner(stage.plane.url) as target:
        for twin, stream in itertools.product(stage.twins, (True, False)):
            answer = await target.ask(twin, stream=stream, tokens=120)
            if answer.error is not None:
                raise CheckError(f"{twin}: {answer.error}")
            if answer.digest != stage.current[twin].digest:
                raise CheckError(f"{twin}: the answer names {answer.digest}, it should be {stage.current[twin].digest}")
            if not stream:
                continue
            texts[twin] = answer.text.strip()
            stage.notes.append(f"{twin} ({answer.digest}): {' '.join(texts[twin].split())[:600]}")
            yield Figure(
                subject=twin, figure="one streamed answer through miner and agent: first byte", unit="ms", digits=1,
                spread=Spread.of([answer.first_seconds * 1000]),
            )  # fmt: skip
            yield Figure(
                subject=twin, figure="one streamed answer: whole", unit="ms", digits=0,
                spread=Spread.of([answer.seconds * 1000]),
            )  # fmt: skip
    distinct = len(set(texts.values()))
    yield Figure(
        subject="both twins", figure="different answers to one question", unit="", digits=0,
        spread=Spread.of([distinct]), target=f"{len(stage.twins)}", met=distinct == len(stage.twins),
    )  # fmt: skip


async def swap(stage: Stage) -> AsyncIterator[Figure]:
    """How long from a table that names a new version to Verified, nothing else running?"""
    swaps = _Swaps(stage, "swap", stage.swaps)
    async for _ in swaps.run():
        await asyncio.sleep(SWAP_PAUSE_SECONDS)
    for figure in swaps.figures("idle engine"):
        yield figure


async def swap_under_load(stage: Stage) -> AsyncIterator[Figure]:
    """Does any request fail while versions change as fast as they can?"""
    swaps = _Swaps(stage, "load", stage.loaded_swaps)
    known = {version.digest for version in stage.current.values()}
    async with (
        load.miner(stage.plane.url) as target,
        load.Clients(target, stage.twins, count=stage.clients, tokens=48) as clients,
    ):
        await asyncio.sleep(1.0)
        async for version in swaps.run():
            known.add(version.digest)
        await asyncio.sleep(1.0)
    failed = [answer for answer in clients.answers if answer.error is not None]
    unknown = [answer for answer in clients.answers if answer.error is None and answer.digest not in known]
    stage.notes += [f"load: failed, {answer.model}: {answer.error}" for answer in failed[:5]]
    subject = f"{stage.clients} clients, {len(swaps.seconds)} swaps"
    yield Figure(
        subject=subject, figure="requests failed", unit=f"of {len(clients.answers)}", digits=0,
        spread=Spread.of([len(failed)]), target="0", met=not failed,
    )  # fmt: skip
    yield Figure(
        subject=subject, figure="answers that name no version of ours", unit=f"of {len(clients.answers)}", digits=0,
        spread=Spread.of([len(unknown)]), target="0", met=not unknown,
    )  # fmt: skip
    for figure in swaps.figures(subject):
        yield figure


async def throughput(stage: Stage) -> AsyncIterator[Figure]:
    """What do our two hops cost?"""
    model_of = {twin: version.name for twin, version in stage.current.items()}
    async with load.miner(stage.plane.url) as hops, load.engine(stage.engine.socket, model_of) as direct:
        for stream in (True, False):
            kind = "streamed" if stream else "whole"
            rounds: dict[str, list[load.Round]] = {direct.name: [], hops.name: []}
            for number in range(stage.rounds + 1):  # the first warms up
                for target in (direct, hops):
                    done = await load.drive(
                        target, stage.twins, in_flight=stage.in_flight, requests=stage.requests, stream=stream,
                        tokens=stage.tokens,
                    )  # fmt: skip
                    if done.failed:
                        stage.notes.append(f"throughput, {target.name}: {done.failed} failed: {done.errors}")
                    if number and done.first:
                        rounds[target.name].append(done)
                if stage.left() < 2 * SWAP_SECONDS:
                    stage.notes.append(f"throughput, {kind}: {number} of {stage.rounds} rounds, for want of time")
                    break
            for figure in _round_figures(f"{stage.in_flight} in flight, {kind}", rounds, stream=stream):
                yield figure
        for figure in [figure async for figure in _alone(stage, direct, hops)]:
            yield figure


async def heal(stage: Stage) -> AsyncIterator[Figure]:
    """How long does a killed engine's successor need until it serves all adapters again?"""
    starts, heals = [], []
    longest = 0.0
    for number in range(stage.heals):
        if stage.left() < longest * 1.2 + SWAP_SECONDS:
            stage.notes.append(f"heal: {number} of {stage.heals} restarts, for want of time")
            break
        began = time.monotonic()
        stage.engine.kill()
        await stage.plane.until(lambda: _none_verified(stage), seconds=10.0, what="the agent sees that it is gone")
        starts.append(await stage.engine.start(seconds=min(stage.start_seconds, stage.left())))
        answered = time.monotonic()
        await stage.plane.verified(*stage.current.values(), seconds=VERIFY_SECONDS)
        heals.append(time.monotonic() - answered)
        longest = max(longest, time.monotonic() - began)
    if not heals:
        return
    subject = f"engine killed, {len(stage.current)} adapters"
    yield Figure(
        subject=subject, figure="from its first answer to all Verified", unit="s", digits=3, spread=Spread.of(heals)
    )  # fmt: skip
    yield Figure(
        subject=subject, figure="the engine's own start to its first answer", unit="s", digits=1,
        spread=Spread.of(starts),
    )  # fmt: skip


Part = Callable[[Stage], AsyncIterator[Figure]]
PARTS: Final[Mapping[str, tuple[Part, float]]] = {
    "verify": (verify, 200.0),
    "answers": (answers, 90.0),
    "swap": (swap, 240.0),
    "load": (swap_under_load, 300.0),
    "throughput": (throughput, 300.0),
    "heal": (heal, 560.0),
}
"""Parts in their order, each with the seconds after which it is given up."""
FAILURES: Final = (CheckError, TooLateError, EngineError, TimeoutError)
"""What a part may end with; its message says all."""


async def _alone(stage: Stage, direct: load.Target, hops: load.Target) -> AsyncIterator[Figure]:
    """One request at a time, by turns, so that a drift of the machine hits both alike."""
    milliseconds: dict[str, list[float]] = {direct.name: [], hops.name: []}
    for number in range(40):
        for target in (direct, hops):
            answer = await target.ask(
                stage.twins[number % 2], question=f"Alone {number}: {load.QUESTION}", stream=True, tokens=16
            )
            if answer.error is not None:
                raise CheckError(f"{target.name}: {answer.error}")
            if number >= 4:
                milliseconds[target.name].append(answer.first_seconds * 1000)
    for name, values in milliseconds.items():
        yield Figure(subject=name, figure="1 in flight, streamed: first byte", unit="ms", spread=Spread.of(values))
    added = [b - a for a, b in zip(milliseconds[direct.name], milliseconds[hops.name], strict=True)]
    yield Figure(
        subject=hops.name, figure="1 in flight, streamed: first byte, added", unit="ms", spread=Spread.of(added)
    )


def _round_figures(what: str, rounds: Mapping[str, list[load.Round]], *, stream: bool) -> list[Figure]:
    figures = []
    for name, done in rounds.items():
        if not done:
            continue
        rates = {
            "tokens/s": [r.tokens_per_second for r in done],
            "requests/s": [r.per_second for r in done],
        }
        for unit, values in rates.items():
            figures.append(
                Figure(subject=name, figure=f"{what}: {unit}", unit="/s", digits=0, spread=Spread.of(values))
            )
        for share in (50, 95):
            figure = f"{what}: first byte p{share}" if stream else f"{what}: answer p{share}"
            values = [r.first_at(share) for r in done]
            figures.append(Figure(subject=name, figure=figure, unit="ms", digits=1, spread=Spread.of(values)))
    direct, hops = rounds.values()
    if direct and len(direct) == len(hops):
        shares = [100 * b.tokens_per_second / a.tokens_per_second for a, b in zip(direct, hops, strict=True)]
        figures.append(
            Figure(
                subject="miner and agent", figure=f"{what}: tokens/s kept", unit="% of the engine's own", digits=1,
                spread=Spread.of(shares),
            )
        )  # fmt: skip
    return figures


class _Swaps:
    """Many swaps one after another, the twins by turns."""

    def __init__(self, stage: Stage, why: str, count: int) -> None:
        self._stage, self._why, self._count = stage, why, count
        self._late = 0
        self._loads: list[float] = []
        self.seconds: list[float] = []

    async def run(self) -> AsyncIterator[Published]:
        """Swap; yield each new version. Ends early for want of time, or when a version doesn't come in."""
        stage = self._stage
        for number in range(self._count):
            if stage.left() < 2 * SWAP_SECONDS:
                stage.notes.append(f"{self._why}: {number} of {self._count} swaps, for want of time")
                return
            trained = stage.trained[number % len(stage.trained)]
            try:
                self.seconds.append(await stage.swap(trained, self._why))
            except TooLateError as error:
                self._late += 1
                stage.notes.append(f"{self._why}: swap {number} failed: {error}")
                return
            version = stage.current[trained.twin]
            report = stage.plane.adapter(version)
            if report is not None and report.load_millis is not None:
                self._loads.append(float(report.load_millis))
            yield version

    def figures(self, subject: str) -> Iterator[Figure]:
        """Yield what came of it."""
        yield Figure(
            subject=subject, figure="versions that didn't become Verified", unit=f"of {len(self.seconds) + self._late}",
            digits=0, spread=Spread.of([self._late]), target="0", met=not self._late,
        )  # fmt: skip
        if not self.seconds:
            return
        for figure, value in (
            ("table change to Verified", Spread.of(self.seconds)),
            ("table change to Verified, p99", _single(load.percentile(self.seconds, 99), len(self.seconds))),
        ):
            yield Figure(
                subject=subject, figure=figure, unit="s", digits=3, spread=value,
                target=f"≤ {TARGET_SWAP_SECONDS:g} s", met=value.median <= TARGET_SWAP_SECONDS,
            )  # fmt: skip
        if self._loads:
            yield Figure(
                subject=subject, figure="of it in the engine: load and fingerprint", unit="ms", digits=0,
                spread=Spread.of(self._loads),
            )  # fmt: skip


def _single(value: float, runs: int) -> Spread:
    return Spread(value, value, value, runs)


def _none_verified(stage: Stage) -> bool:
    report = stage.plane.report()
    return report is not None and all(a.state is not AdapterState.VERIFIED for a in report.adapters.values())


def _manifest(stage: Stage, twin: str) -> AdapterManifest:
    return next(trained.manifest for trained in stage.trained if trained.twin == twin)


def _tolerance(manifest: AdapterManifest) -> float:
    return manifest.fingerprint.tolerance_nats * 1000 if manifest.fingerprint is not None else 0.0

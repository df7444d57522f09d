"""Versions that take over and are taken back one after the other under load, and what was seen of it."""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from bettertherapy_api import names
from bettertherapy_api.report import AdapterState, PodReport
from neurons.cluster import ClusterClient
from tests.api import operator_harness
from tests.bench.clients import Answer, Clients, Tally
from tests.bench.demo_pool import Version
from tests.bench.registry import BenchmarkError
from tests.bench.trainers import PATIENCE_SECONDS, Trainer
from tests.bench.watching import REPORTS, RUNS, TWINS, Manifest, Seen, Watch, following, serves, watching
from twin_operator.kinds.resources import DOCTOR_TWIN

STEPS: Final = ((20, 1), (60, 1))
"""Weight in percent and seconds of each step of a promotion."""
HELD_WEIGHT: Final = 80
"""Of a version that is going to be taken back: nearly all requests, so that the last on it is soon after the word."""
TRAFFIC_SECONDS: Final = 1.0
"""How long a version answers before somebody asks for it to be taken back."""


class Kind(StrEnum):
    """What becomes of a version."""

    PROMOTED = "promoted"
    ASKED = "taken back because somebody asked"
    WORSE = "taken back because it did worse"


@dataclass(frozen=True, kw_only=True)
class Change:
    """One promotion or rollback; moments are time.monotonic()."""

    kind: Kind
    leaves: str
    """Digest of the version that is to get no more requests."""
    stays: str
    decided: float
    trained: float
    """The trainer's end."""
    steps: tuple[float, ...] = ()
    """When each step began, and when the last one ended, by the twin's status."""
    said: float
    """When the status said that all is well."""

    def traffic_at(self, answers: Sequence[Answer]) -> float | None:
        """Return when the first request was sent after which none reached the leaving version; None if none was.

        `answers` are in the order in which they were sent.
        """
        last = max((answer.sent for answer in answers if answer.digest == self.leaves), default=-math.inf)
        told = self.steps[-1] if self.steps else self.decided
        start = bisect.bisect_right(answers, max(last, told), key=lambda answer: answer.sent)
        return next((answer.sent for answer in answers[start:] if answer.digest == self.stays), None)

    def spent_in_steps(self) -> float:
        """Return the seconds that the steps took, of what they were to take."""
        lasted = zip(self.steps, self.steps[1:], STEPS, strict=False)
        return sum(min(after - before, seconds) for before, after, (_, seconds) in lasted)


@dataclass
class RolloutRun:
    """What was seen on one engine."""

    subject: str
    changes: list[Change] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
    verified: dict[tuple[str, str], float] = field(default_factory=dict)
    """When a pod first reported a version as verified."""
    artifacts: int = 0
    """Promoted versions whose files were read back from the store and had their digests."""
    metrics: str = ""

    def unverified(self) -> int:
        """Return how many answers came from a version that its pod had not reported as verified when they ended."""
        return sum(
            answer.ended < self.verified.get((answer.pod, answer.served), math.inf) for answer in self.answers
        )  # fmt: skip

    def hear_report(self, seen: Seen) -> None:
        """Take one state of a pod's report."""
        report = PodReport.model_validate(seen.thing)
        for name, held in report.adapters.items():
            if held.state is AdapterState.VERIFIED:
                self.verified.setdefault((report.pod.name, name), seen.at)


class Bench:
    """Promotes and takes back one version after the other, while clients ask."""

    def __init__(
        self, run: RolloutRun, world: operator_harness.Cluster, trainer: Trainer, *, twin: str, twins: Watch,
        runs: Watch, serving: str,
    ) -> None:  # fmt: skip
        self._run, self._world, self._trainer, self._twin = run, world, trainer, twin
        self._twins, self._runs = twins, runs
        self.serving = serving
        """Digest of the version that answers."""

    async def promote(self, number: int, version: Version) -> None:
        """Let a version take over, step by step."""
        await self._roll_out(STEPS, latency_percent=1000)
        trained, decided = await self._pass_gate(number, version)
        steps = [await self._weighs(weight, version, number) for weight, _ in STEPS]
        promoted = await self._status(
            lambda status: (status.get("promotedVersion") or {}).get("digest") == version.digest, version,
            f"version {number} is promoted",
        )  # fmt: skip
        done = await self._twins.until(
            lambda twin: serves(twin, version.digest, generation=twin["metadata"]["generation"]),
            seconds=PATIENCE_SECONDS, what=f"version {number} serves",
        )  # fmt: skip
        self._run.changes.append(Change(
            kind=Kind.PROMOTED, leaves=self.serving, stays=version.digest, trained=trained, decided=decided,
            steps=(*steps, promoted), said=done.at,
        ))  # fmt: skip
        self.serving = version.digest

    async def take_back(self, number: int, version: Version, kind: Kind) -> None:
        """Let a version have most of the traffic and take it back, or have the operator find that it does worse."""
        asked = kind is Kind.ASKED
        await self._roll_out(((HELD_WEIGHT, 3600),), latency_percent=1000 if asked else 150)
        trained, decided = await self._pass_gate(number, version)
        await self._weighs(HELD_WEIGHT, version, number)
        if asked:
            await asyncio.sleep(TRAFFIC_SECONDS)
            decided = time.monotonic()
            await self._annotate(names.ROLLBACK_ANNOTATION, f"{self.serving}@{number}")
        seen = await self._twins.until(
            lambda twin: _refused(twin, version.digest) is not None, seconds=PATIENCE_SECONDS,
            what=f"version {number} is taken back",
        )  # fmt: skip
        why = _refused(seen.thing, version.digest) or ""
        if not asked and not why.startswith("RolledBack: Latency"):
            raise BenchmarkError(f"version {number} was not taken back for its latency: {why}")
        self._run.changes.append(Change(
            kind=kind, leaves=version.digest, stays=self.serving, trained=trained,
            decided=decided if asked else seen.at, said=seen.at,
        ))  # fmt: skip

    async def _pass_gate(self, number: int, version: Version) -> tuple[float, float]:
        """Have a run made that ends with this version; returns when its trainer ended and when it was decided."""
        name = await self._trainer.start(number, self.serving)
        trained = await self._trainer.finish(name, version)

        def decided(run: Manifest) -> bool:
            status = run.get("status") or {}
            return run["metadata"]["name"] == name and "completionTime" in status and status.get("verdict") == "Promote"

        return trained, (await self._runs.until(decided, seconds=PATIENCE_SECONDS, what=f"run {name} is decided")).at

    async def _weighs(self, weight: int, version: Version, number: int) -> float:
        return await self._status(
            lambda status: status.get("canaryWeightPercent") == weight, version, f"{weight}% on version {number}"
        )

    async def _status(self, check: Callable[[Manifest], bool], version: Version, what: str) -> float:
        def met(twin: Manifest) -> bool:
            if (why := _refused(twin, version.digest)) is not None:
                raise BenchmarkError(f"{what}: it was taken back instead: {why}")
            return check(twin.get("status") or {})

        return (await self._twins.until(met, seconds=PATIENCE_SECONDS, what=what)).at

    async def _roll_out(self, steps: Sequence[tuple[int, int]], *, latency_percent: int) -> None:
        rollout = {
            "steps": [{"weightPercent": weight, "seconds": seconds} for weight, seconds in steps],
            "maxLatencyRatioPercent": latency_percent,
        }
        await self._patch({"spec": {"rollout": rollout}})

    async def _annotate(self, name: str, value: str) -> None:
        await self._patch({"metadata": {"annotations": {name: value}}})

    async def _patch(self, patch: Manifest) -> None:
        await self._world.api.merge(DOCTOR_TWIN, namespace=self._world.namespace, name=self._twin, patch=patch)


def _refused(twin: Manifest, digest: str) -> str | None:
    """Return why the twin will not try a version again; None when it may."""
    refused = (twin.get("status") or {}).get("refusedVersions") or []
    return next((f"{each['reason']}: {each['message']}" for each in refused if each["digest"] == digest), None)


@contextlib.asynccontextmanager
async def watched(
    run: RolloutRun, client: ClusterClient, *, namespace: str, pool: str, twin: str
) -> AsyncIterator[tuple[Watch, Watch]]:  # fmt: skip
    """Watch the twin, the runs and the pods' reports while the block lasts; yields the first two."""
    selector = {"labelSelector": f"{names.LABEL_POOL}={pool}"}
    async with (
        watching(client, TWINS.format(namespace), twin) as twins,
        watching(client, RUNS.format(namespace)) as runs,
        following(client, REPORTS.format(namespace), run.hear_report, **selector),
    ):
        yield twins, runs


async def under_load(
    run: RolloutRun, clients: Clients, bench: Bench, changes: Sequence[tuple[Kind, Version]], *, count: int,
    tokens: tuple[int, ...],
) -> None:  # fmt: skip
    """Go through all changes while so many clients ask the twin."""
    load = asyncio.create_task(clients.run(count, tokens=tokens))
    try:
        for number, (kind, version) in enumerate(changes, start=1):
            if kind is Kind.PROMOTED:
                await bench.promote(number, version)
            else:
                await bench.take_back(number, version, kind)
        await asyncio.sleep(TRAFFIC_SECONDS)  # so that the last change has requests after it
    except TimeoutError as error:
        raise BenchmarkError(f"{error}; the clients' failures: {dict(clients.tally.failures)}") from error
    finally:
        clients.stop()
        await load
        run.tally = clients.tally

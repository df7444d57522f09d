"""Measures the canaries, beside the workers: one set of questions to Prometheus for all canaries of a namespace.

A Prometheus that hangs delays no reconciliation: those read what was measured last, and hold a canary when that is old.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from twin_operator.domain.canary_analysis import Earlier, Measurement, Trial, measurements, queries
from twin_operator.domain.objects import Twin
from twin_operator.domain.versions import canary_version, wanted_version
from twin_operator.engine.prometheus import Prometheus
from twin_operator.engine.resources import Key
from twin_operator.engine.store import Store
from twin_operator.engine.times import moment
from twin_operator.errors import PrometheusError
from twin_operator.kinds.resources import DOCTOR_TWIN
from twin_operator.kinds.watched import CANARY

POLL_SECONDS: Final = 2.0
OLD_SECONDS: Final = 30.0
"""What was measured longer ago says nothing of now."""
_SHORTEST_WINDOW: Final = 120
_LONGEST_WINDOW: Final = 86400


@dataclass(frozen=True, kw_only=True)
class _Taken:
    measured: Measurement | str
    at: float


@dataclass(frozen=True, kw_only=True)
class _Step:
    """A canary's step, since when the serving version is counted, and what there was when the step began."""

    began: str | None
    since: datetime | None
    """None where that moves along, so that what is counted may become less."""
    earlier: Earlier | None = None


class CanaryWatch:
    """Keeps the last measurement of each canary that takes traffic."""

    def __init__(
        self, prometheus: Prometheus, *, store: Store, wake: Callable[[Key], None], matchers: str,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:  # fmt: skip
        self._prometheus = prometheus
        self._store = store
        self._wake = wake
        self._matchers = matchers
        self._poll_seconds = poll_seconds
        self._taken: dict[tuple[str, Trial], _Taken] = {}
        self._steps: dict[tuple[str, Trial], _Step] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}

    def measured(self, twin: Twin) -> Measurement | str:
        """Return what is known of the twin's canary, or why nothing is."""
        trial = trial_of(twin)
        taken = self._taken.get((twin.namespace, trial)) if trial is not None else None
        if taken is None:
            return "Prometheus has not answered yet"
        if time.monotonic() - taken.at > OLD_SECONDS:
            return f"Prometheus has not answered for {time.monotonic() - taken.at:.0f} s"
        return taken.measured

    async def run(self) -> None:
        """Measure for ever; a namespace whose questions are still under way is not asked again."""
        try:
            while True:
                self._look()
                await asyncio.sleep(self._poll_seconds)
        finally:
            for task in self._asking.values():
                task.cancel()

    def _look(self) -> None:
        trials: dict[str, dict[Trial, Twin]] = {}
        for value in self._store.values_of(CANARY):
            for entry in self._store.find_any(CANARY, value):
                if isinstance(entry.value, Twin) and (trial := trial_of(entry.value)) is not None:
                    trials.setdefault(entry.key.namespace, {})[trial] = entry.value
        current = {(namespace, trial) for namespace, found in trials.items() for trial in found}
        for gone in self._taken.keys() - current:
            del self._taken[gone]
            self._steps.pop(gone, None)
        for namespace, found in trials.items():
            if namespace not in self._asking:
                task = asyncio.create_task(self._measure(namespace, found), name=f"measure {namespace}")
                self._asking[namespace] = task
                task.add_done_callback(lambda _, namespace=namespace: self._asking.pop(namespace, None))  # type: ignore[misc]

    async def _measure(self, namespace: str, trials: dict[Trial, Twin]) -> None:
        now = datetime.now(UTC)
        since = min(moment(twin.status.canary_start_time or "") for twin in trials.values())
        lasted = (now - since).total_seconds()
        found = await measure(
            self._prometheus, sorted(trials),
            window_seconds=int(min(max(lasted + 60, _SHORTEST_WINDOW), _LONGEST_WINDOW)),
            matchers=self._matchers.replace("{namespace}", namespace),
        )  # fmt: skip
        at = time.monotonic()
        for trial, twin in trials.items():
            measured: Measurement | str = found if isinstance(found, str) else found[trial]
            if isinstance(measured, Measurement):
                began = self._step((namespace, trial), twin, since if lasted + 60 < _LONGEST_WINDOW else None, at)
                measured = replace(measured, earlier=began)
            self._taken[namespace, trial] = _Taken(measured=measured, at=at)
            self._wake(Key(DOCTOR_TWIN.kind, namespace, twin.name))

    def _step(self, key: tuple[str, Trial], twin: Twin, since: datetime | None, at: float) -> Earlier | None:
        """Return what had been counted when the twin's present step began, if this process saw it begin."""
        before, taken = self._steps.get(key), self._taken.get(key)
        step = _Step(began=twin.status.canary_step_time, since=since)
        if before is not None and since is not None and before.since == since:
            if before.began == step.began:
                step = before
            elif taken is not None and isinstance(taken.measured, Measurement) and at - taken.at <= OLD_SECONDS:
                last = taken.measured
                step = replace(step, earlier=Earlier(requests=last.requests, serving_requests=last.serving_requests))
        self._steps[key] = step
        return step.earlier


async def measure(
    prometheus: Prometheus, trials: Sequence[Trial], *, window_seconds: int, matchers: str
) -> dict[Trial, Measurement] | str:
    """Ask Prometheus of these canaries; returns what went wrong as a sentence when it doesn't answer."""
    asked = queries(trials, window_seconds=window_seconds, matchers=matchers)
    try:
        answers = await asyncio.gather(*(prometheus.query(promql) for promql in asked.values()))
    except PrometheusError as error:
        return str(error)
    return measurements(dict(zip(asked, answers, strict=True)), trials)


def trial_of(twin: Twin) -> Trial | None:
    """Return the twin's canary once it takes traffic, and what it is compared with."""
    canary = canary_version(twin)
    if canary is None or twin.status.canary_start_time is None:
        return None
    return Trial(twin=twin.name, canary=canary.served_name, stable=wanted_version(twin).served_name)

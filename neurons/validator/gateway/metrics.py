"""What the gateway counts; its series are `bettertherapy_api.metrics.gateway`'s."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

from bettertherapy_api.metrics import gateway
from bettertherapy_api.metrics.bounds import MOST_RATED, MOST_TWINS, Bound
from bettertherapy_api.metrics.collectors import Collectors, openmetrics
from bettertherapy_api.metrics.series import OTHER, Process
from neurons.validator.gateway.standing import MinerId

ANSWERED: Final = "answered"


class Metrics:
    """One registry with the gateway's metrics; a process has one, a test may have many."""

    def __init__(self, *, process: bool = False) -> None:
        self.registry = registry = CollectorRegistry()
        self.process = f"{time.time_ns():x}"
        """Label of what a canary is judged by: a restarted gateway counts on beside what it counted, not from zero."""
        if process:
            ProcessCollector(registry=registry)
            GCCollector(registry=registry)
        make = self._make = Collectors(registry, of=Process.GATEWAY)
        self._requests = make.counter(gateway.REQUESTS)
        self._request_seconds = make.histogram(gateway.REQUEST_SECONDS)
        self.added_seconds = make.histogram(gateway.ADDED_SECONDS)
        self.attempts = make.counter(gateway.MINER_ANSWERS)
        self.miner_seconds = make.histogram(gateway.MINER_SECONDS)
        self.hedged = make.counter(gateway.HEDGES)
        self.held_back = make.counter(gateway.ANSWERS_HELD_BACK)
        self.tasks = make.counter(gateway.TASK_REQUESTS)
        self.notices = make.counter(gateway.EMERGENCIES)
        self._ratings = make.counter(gateway.RATINGS)
        self.records = make.counter(gateway.RECORDS)
        self.in_flight = make.gauge(gateway.IN_FLIGHT)
        self.miners = make.gauge(gateway.MINERS)
        self._twins, self._rated = Bound(MOST_TWINS), Bound(MOST_RATED)
        self._miners: dict[MinerId, dict[str, Counter]] = {}
        self._seconds: dict[MinerId, Histogram] = {}
        """Their series at hand: to look one up by its labels takes longer than to count."""

    def watch(self, *, age: Callable[[], float], twins: Callable[[], float], waiting: Callable[[], float]) -> None:
        """Show what others know: the metagraph's age, the twins that can be asked, records on their way."""
        self._make.watch(gateway.METAGRAPH_AGE_SECONDS, age)
        self._make.watch(gateway.TWINS, twins)
        self._make.watch(gateway.LEDGER_WAITING, waiting)

    def watch_writer(self, *, runs: Callable[[], float], ends: Callable[[], float]) -> None:
        """Show how the process stands that writes the ledger."""
        self._make.watch(gateway.LEDGER_WRITER_UP, runs)
        self._make.watch(gateway.LEDGER_WRITER_ENDS, ends)

    def ended(self, twin: str, code: str) -> None:
        """Count a question that ended; of a twin that nobody serves `twin` is empty."""
        self._requests.labels(self._label(twin), code).inc()

    def took(self, twin: str, seconds: float, *, trace_id: str = "") -> None:
        """Count how long an answered question took."""
        self._request_seconds.labels(self._label(twin)).observe(seconds, {"trace_id": trace_id} if trace_id else None)

    def _label(self, twin: str) -> str:
        return twin if not twin or self._twins.admits(twin) else OTHER

    def attempt(self, miner: MinerId, outcome: str) -> None:
        """Count what came of asking a miner."""
        known = self._miners.setdefault(miner, {})
        series = known.get(outcome)
        if series is None:
            series = known[outcome] = self.attempts.labels(miner.hotkey, str(miner.registered_at), outcome)
        series.inc()

    def answered(self, miner: MinerId, seconds: float) -> None:
        """Count an answer that can be used."""
        self.attempt(miner, ANSWERED)
        series = self._seconds.get(miner)
        if series is None:
            series = self._seconds[miner] = self.miner_seconds.labels(miner.hotkey, str(miner.registered_at))
        series.observe(seconds)

    def keep(self, miners: Collection[MinerId]) -> None:
        """Drop the series of miners that left the metagraph."""
        self.miners.set(len(miners))
        for gone in self._miners.keys() - set(miners):
            for outcome in self._miners.pop(gone):
                self.attempts.remove(gone.hotkey, str(gone.registered_at), outcome)
            if self._seconds.pop(gone, None) is not None:
                self.miner_seconds.remove(gone.hotkey, str(gone.registered_at))

    def rated(self, twin: str, version: str, stars: int) -> None:
        """Count a first rating."""
        if not self._rated.admits(twin, version):
            twin = version = OTHER
        self._ratings.labels(twin, version, str(stars), self.process).inc()

    def render(self) -> bytes:
        """Return the text exposition."""
        return generate_latest(self.registry)

    def render_openmetrics(self) -> bytes:
        """Return the exposition that has exemplars."""
        return openmetrics(self.registry)

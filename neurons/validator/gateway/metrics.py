"""Every metric of the gateway, with its help text. Labels are bounded: twins that miners announce, miners of the
metagraph (256), closed sets of words. Nothing of a patient is in any.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

from neurons.validator.gateway.standing import MinerId

SECONDS_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0)
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
        self.requests = Counter(
            "bettertherapy_gateway_requests_total",
            "Questions that ended, by twin and HTTP status; a stream that ended by an error event counts as the status"
            ' it would have had (499: the client left). Requests for twins that nobody serves count under twin="".',
            ("twin", "code"),
            registry=registry,
        )
        self.request_seconds = Histogram(
            "bettertherapy_gateway_request_seconds",
            "Seconds from a question's headers to the last byte of its answer.",
            ("twin",),
            buckets=SECONDS_BUCKETS,
            registry=registry,
        )
        self.added_seconds = Histogram(
            "bettertherapy_gateway_added_seconds",
            "Seconds that the gateway took beside waiting for miners: before they were asked, and after the last answer"
            " that was waited for.",
            buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0),
            registry=registry,
        )
        self.attempts = Counter(
            "bettertherapy_gateway_miner_answers_total",
            "What came of asking a miner: answered, or why its answer wasn't used (late, busy, forged, …).",
            ("hotkey", "registered", "outcome"),
            registry=registry,
        )
        self.miner_seconds = Histogram(
            "bettertherapy_gateway_miner_seconds",
            "Seconds that a miner took for an answer that was used in the comparison.",
            ("hotkey", "registered"),
            buckets=SECONDS_BUCKETS,
            registry=registry,
        )
        self.hedged = Counter(
            "bettertherapy_gateway_hedges_total", "Miners asked in a slow one's place.", registry=registry
        )
        self.held_back = Counter(
            "bettertherapy_gateway_answers_held_back_total",
            "Answers that play an emergency down, and were given to nobody.",
            registry=registry,
        )
        self.tasks = Counter(
            "bettertherapy_gateway_task_requests_total",
            "What miners with fine-tune tasks asked: a dataset or to take a report, by the answer's status.",
            ("what", "code"),
            registry=registry,
        )
        self.notices = Counter(
            "bettertherapy_gateway_emergencies_total",
            "Questions whose answer began with an emergency notice, by its most dangerous kind.",
            ("kind",),
            registry=registry,
        )
        self.ratings = Counter(
            "bettertherapy_gateway_ratings_total",
            "Patients' first ratings of an answer, by twin, version (served name) and rating (1 to 5).",
            ("twin", "version", "rating", "process"),
            registry=registry,
        )
        self.records = Counter(
            "bettertherapy_gateway_records_total",
            "Exchanges written to the ledger: kept, without_text (they could not be de-identified), lost (no room).",
            ("outcome",),
            registry=registry,
        )
        self.in_flight = Gauge("bettertherapy_gateway_in_flight", "Questions in work now.", registry=registry)
        self.miners = Gauge(
            "bettertherapy_gateway_miners", "Miners of the metagraph that have an address.", registry=registry
        )
        self._miners: dict[MinerId, dict[str, Counter]] = {}
        self._seconds: dict[MinerId, Histogram] = {}
        """Their series at hand: to look one up by its labels takes longer than to count."""

    def watch(self, *, age: Callable[[], float], twins: Callable[[], float], waiting: Callable[[], float]) -> None:
        """Show what others know: the metagraph's age, the twins that can be asked, records on their way."""
        for name, text, function in (
            ("metagraph_age_seconds", "Seconds since the metagraph in use was read; +Inf while none was.", age),
            ("twins", "Twins that some miner announced lately.", twins),
            ("ledger_waiting", "Records on this disk that are not in the ledger yet.", waiting),
        ):
            Gauge(f"bettertherapy_gateway_{name}", text, registry=self.registry).set_function(function)

    def watch_writer(self, *, runs: Callable[[], float], ends: Callable[[], float]) -> None:
        """Show how the process stands that writes the ledger."""
        for name, text, function in (
            ("ledger_writer_up", "1 while the process that writes the ledger runs.", runs),
            ("ledger_writer_ends", "How often it ended, hung or could not be started since this gateway began.", ends),
        ):
            Gauge(f"bettertherapy_gateway_{name}", text, registry=self.registry).set_function(function)

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
        self.ratings.labels(twin, version, str(stars), self.process).inc()

    def render(self) -> bytes:
        """Return the text exposition."""
        return generate_latest(self.registry)

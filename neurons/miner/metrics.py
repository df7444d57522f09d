"""What the miner counts; its series are `bettertherapy_api.metrics.miner`'s."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

from bettertherapy_api.metrics import miner
from bettertherapy_api.metrics.bounds import MOST_TRIED, MOST_VERSIONS, Bound
from bettertherapy_api.metrics.collectors import Collectors, openmetrics
from bettertherapy_api.metrics.series import OTHER, Process

_OTHERS: Final = (OTHER, OTHER)
CODE_CLIENT_GONE: Final = "499"
CODE_BROKEN_STREAM: Final = "broken"
"""The client saw a 200 and then an SSE error event. Counts as a failure in every reader."""


@dataclass(frozen=True, slots=True, eq=False)
class VersionSeries:
    """The labelled series of one version, looked up once."""

    labels: tuple[str, str]
    in_flight: Gauge
    request_seconds: Histogram
    first_token_seconds: Histogram
    requests: dict[str, Counter] = field(default_factory=dict)


class Metrics:
    """One registry with the miner's metrics; a process has one, a test may have many."""

    def __init__(self, *, process: bool = False) -> None:
        self.registry = registry = CollectorRegistry()
        self.process = f"{time.time_ns():x}"
        """Label of what a canary is judged by: a restarted miner counts on beside what it counted, not from zero."""
        if process:
            ProcessCollector(registry=registry)
            GCCollector(registry=registry)
        make = Collectors(registry, of=Process.MINER)
        self.requests = make.counter(miner.REQUESTS)
        self.request_seconds = make.histogram(miner.REQUEST_SECONDS)
        self.first_token_seconds = make.histogram(miner.FIRST_TOKEN_SECONDS)
        self.in_flight = make.gauge(miner.IN_FLIGHT)
        self.retries = make.counter(miner.RETRIES)
        self.continued = make.counter(miner.CONTINUED_STREAMS)
        self.draws = make.counter(miner.DRAWS)
        self.candidates = make.counter(miner.CANDIDATES)
        self.chosen = make.counter(miner.CANDIDATE_CHOSEN)
        self.comparing_seconds = make.histogram(miner.COMPARING_SECONDS)
        self.scorer_failures = make.counter(miner.SCORER_FAILURES)
        self.cached = make.counter(miner.CACHE)
        self.template_refusals = make.counter(miner.TEMPLATE_REFUSALS)
        self.histories = make.counter(miner.SHORTENED_HISTORIES)
        self.left_out = make.counter(miner.LEFT_OUT_MESSAGES)
        self.lessons = make.gauge(miner.LESSONS)
        self.lessons_asked = make.counter(miner.LESSON_LOOKUPS)
        self.lesson_errors = make.counter(miner.LESSON_ERRORS)
        self.held = make.gauge(miner.HELD)
        self.turn_seconds = make.histogram(miner.TURN_SECONDS)
        self.turned_away = make.counter(miner.TURNED_AWAY)
        self.pods_ready = make.gauge(miner.PODS_READY)
        self.table_errors = make.counter(miner.TABLE_ERRORS)
        self.table_generation = make.gauge(miner.TABLE_GENERATION)
        self.clients = make.gauge(miner.CLIENTS)
        self._bound = Bound(MOST_VERSIONS, reserved=MOST_TRIED)
        self._series: dict[tuple[str, str], VersionSeries] = {}

    def series(self, twin: str, version: str, *, tried: bool = False) -> VersionSeries:
        """Return the version's series; only call it with names from a routing table.

        Beyond the bound it is that of all others; `tried`: a canary is judged by the version, which goes before.
        """
        key = (twin, version)
        found = self._series.get(key)
        if found is None and not self._bound.admits(twin, version, preferred=tried):
            key = _OTHERS
            found = self._series.get(key)
        if found is None:
            found = self._series[key] = VersionSeries(
                labels=key,
                in_flight=self.in_flight.labels(*key),
                request_seconds=self.request_seconds.labels(*key),
                first_token_seconds=self.first_token_seconds.labels(*key),
            )
        return found

    def count(self, twin: str, version: str, code: str) -> None:
        """Count one ended request; twin and version are "" for a model that doesn't exist."""
        if not twin:
            self.requests.labels("", "", code, self.process).inc()
            return
        series = self.series(twin, version)
        counter = series.requests.get(code)
        if counter is None:
            counter = series.requests[code] = self.requests.labels(*series.labels, code, self.process)
        counter.inc()

    def known(self) -> set[tuple[str, str]]:
        """Return the (twin, version) pairs that have series."""
        return self._series.keys() - {_OTHERS}

    def forget(self, twin: str, version: str) -> None:
        """Drop all series of a version that has left the routing table."""
        series = self._series.pop((twin, version), None)
        if series is None:
            return
        self._bound.forget(twin, version)
        for metric in (self.request_seconds, self.first_token_seconds, self.in_flight):
            metric.remove(twin, version)
        for code in series.requests:
            self.requests.remove(twin, version, code, self.process)

    def render(self) -> bytes:
        """Return the text exposition."""
        return generate_latest(self.registry)

    def render_openmetrics(self) -> bytes:
        """Return the exposition that has exemplars."""
        return openmetrics(self.registry)

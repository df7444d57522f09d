"""Every metric of the miner, with its help text. Labels are bounded by the pool's routing table.

`version` is the served name (`<twin>-<first 8 of the digest>`, or the base model's name); a version's series are
dropped some time after it has left the table. Requests for models that do not exist count under twin="" version="".
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

REQUEST_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0)
FIRST_TOKEN_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2)

CODE_CLIENT_GONE: Final = "499"
CODE_BROKEN_STREAM: Final = "broken"
"""The client saw a 200 and then an SSE error event. Counts as a failure in every reader."""


@dataclass(frozen=True, slots=True, eq=False)
class VersionSeries:
    """The labelled series of one version, looked up once."""

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
        labels = ("twin", "version")
        self.requests = Counter(
            "bettertherapy_miner_requests_total",
            "Requests that ended, by twin, version and HTTP status; an error event in a stream of status 200 counts as"
            " the status that it names (499: the client left; broken: the stream broke off and no engine finished it).",
            (*labels, "code", "process"),
            registry=registry,
        )
        self.request_seconds = Histogram(
            "bettertherapy_miner_request_seconds",
            "Seconds from a request's headers to the last byte of its answer, waiting for a pod included.",
            labels,
            buckets=REQUEST_BUCKETS,
            registry=registry,
        )
        self.first_token_seconds = Histogram(
            "bettertherapy_miner_first_token_seconds",
            "Seconds from a streaming request's headers to the first byte of its answer.",
            labels,
            buckets=FIRST_TOKEN_BUCKETS,
            registry=registry,
        )
        self.in_flight = Gauge(
            "bettertherapy_miner_in_flight", "Requests that are at an engine pod now.", labels, registry=registry
        )
        self.retries = Counter(
            "bettertherapy_miner_retries_total",
            "Attempts given up for another pod: adapter_not_here, pod_draining, busy, connect, reset, engine_error,"
            " error_event (an error or a stop in an answer of status 200), no_answer (a 200 that is none), stream (it"
            " broke off), template (it refused), template_unknown (it didn't say what it takes).",
            ("reason",),
            registry=registry,
        )
        self.continued = Counter(
            "bettertherapy_miner_continued_streams_total",
            "Streams that an engine broke, by what came of them: continued (another pod went on, the client saw"
            " nothing), impossible (such an answer can't go on elsewhere), failed (no other pod finished it).",
            ("outcome",),
            registry=registry,
        )
        self.draws = Counter(
            "bettertherapy_miner_draws_total",
            "Questions for which several answers were drawn, by what came of it: compared, one_complete (in time),"
            " live (none was complete by then: one was forwarded as it came), failed, refused (the engine draws one).",
            ("outcome",),
            registry=registry,
        )
        self.candidates = Counter(
            "bettertherapy_miner_candidates_total",
            "Answers drawn of which one was chosen: complete, or missing (late, failed) when it was.",
            ("outcome",),
            registry=registry,
        )
        self.chosen = Counter(
            "bettertherapy_miner_candidate_chosen_total",
            "Answers chosen among several, by their number among those drawn (0: what one draw would have given).",
            ("index",),
            registry=registry,
        )
        self.comparing_seconds = Histogram(
            "bettertherapy_miner_comparing_seconds",
            "Seconds from the first sign of several answers until one was chosen.",
            buckets=REQUEST_BUCKETS,
            registry=registry,
        )
        self.scorer_failures = Counter(
            "bettertherapy_miner_scorer_failures_total",
            "Comparisons in which a scorer had no say: error, late, nonsense (no number from 0 to 1).",
            ("scorer", "why"),
            registry=registry,
        )
        self.cached = Counter(
            "bettertherapy_miner_cache_total",
            "Questions that may be answered from what was answered before: hit, miss. Hits count in no other series.",
            ("outcome",),
            registry=registry,
        )
        self.template_refusals = Counter(
            "bettertherapy_miner_template_refusals_total",
            "Chat requests that the chat template of the pool's base model refuses in every form.",
            registry=registry,
        )
        self.histories = Counter(
            "bettertherapy_miner_shortened_histories_total",
            "Conversations that the pool's context doesn't hold, by what was done: summarised (rounds are left out, the"
            " user's sentences kept), dropped (nothing of them is), too_long (refused: the newest message alone is).",
            ("outcome",),
            registry=registry,
        )
        self.left_out = Counter(
            "bettertherapy_miner_left_out_messages_total",
            "Messages of those conversations that didn't reach the engine whole.",
            registry=registry,
        )
        self.lessons = Gauge(
            "bettertherapy_miner_lessons", "Corrections and liked answers in use, of all twins.", registry=registry
        )
        self.lessons_asked = Counter(
            "bettertherapy_miner_lesson_lookups_total",
            "Chats with twins that have lessons: found (some are in the prompt), none (none is alike enough), late (the"
            " question couldn't be compared in time; only the same words were looked for).",
            ("outcome",),
            registry=registry,
        )
        self.lesson_errors = Counter(
            "bettertherapy_miner_lesson_errors_total",
            "Lessons files that couldn't be used; the last good one of that twin stays.",
            registry=registry,
        )
        self.held = Gauge(
            "bettertherapy_miner_held",
            "Requests that wait for a pod now (rollout, scale-up from zero).",
            registry=registry,
        )
        self.pods_ready = Gauge(
            "bettertherapy_miner_pods_ready", "Engine pods that may get requests, as last reported.", registry=registry
        )
        self.table_errors = Counter(
            "bettertherapy_miner_table_errors_total",
            "Tables that didn't parse; the last good one stays in use.",
            ("table",),
            registry=registry,
        )
        self.table_generation = Gauge(
            "bettertherapy_miner_table_generation",
            "Generation of the MinerPool that the routing table in use was made from.",
            registry=registry,
        )
        self.clients = Gauge("bettertherapy_miner_clients", "Access tokens that are accepted now.", registry=registry)
        self._series: dict[tuple[str, str], VersionSeries] = {}

    def series(self, twin: str, version: str) -> VersionSeries:
        """Return the version's series; only call it with names from a routing table."""
        key = (twin, version)
        found = self._series.get(key)
        if found is None:
            found = self._series[key] = VersionSeries(
                in_flight=self.in_flight.labels(twin, version),
                request_seconds=self.request_seconds.labels(twin, version),
                first_token_seconds=self.first_token_seconds.labels(twin, version),
            )
        return found

    def count(self, twin: str, version: str, code: str) -> None:
        """Count one ended request; twin and version are "" for a model that doesn't exist."""
        if not twin:
            self.requests.labels("", "", code, self.process).inc()
            return
        requests = self.series(twin, version).requests
        counter = requests.get(code)
        if counter is None:
            counter = requests[code] = self.requests.labels(twin, version, code, self.process)
        counter.inc()

    def known(self) -> set[tuple[str, str]]:
        """Return the (twin, version) pairs that have series."""
        return set(self._series)

    def forget(self, twin: str, version: str) -> None:
        """Drop all series of a version that has left the routing table."""
        series = self._series.pop((twin, version), None)
        if series is None:
            return
        for metric in (self.request_seconds, self.first_token_seconds, self.in_flight):
            metric.remove(twin, version)
        for code in series.requests:
            self.requests.remove(twin, version, code, self.process)

    def render(self) -> bytes:
        """Return the text exposition."""
        return generate_latest(self.registry)

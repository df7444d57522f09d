"""What the agent counts, for Prometheus; the engine's own text follows it on the same page."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from bettertherapy_api.report import AdapterReport, AdapterState

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class AgentMetrics:
    """The agent's series, in a registry without process figures: the engine's page has those under the same names."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.adapters = Gauge("bettertherapy_agent_adapters", "Adapters by state.", ["state"], registry=self.registry)
        self.load_seconds = Histogram(
            "bettertherapy_agent_adapter_load_seconds",
            "From the load request to Verified.",
            buckets=(0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0),
            registry=self.registry,
        )
        self.engine_up = Gauge(
            "bettertherapy_agent_engine_up", "1 when the engine answers and makes progress.", registry=self.registry
        )
        self.engine_processes = Gauge(
            "bettertherapy_agent_engine_processes", "Engine processes seen by this agent.", registry=self.registry
        )
        self.in_flight = Gauge(
            "bettertherapy_agent_requests_in_flight", "Requests being answered.", registry=self.registry
        )
        self.refused = Counter(
            "bettertherapy_agent_requests_refused",
            "Requests not sent on to the engine, by reason.",
            ["reason"],
            registry=self.registry,
        )
        self.odd_answers = Counter(
            "bettertherapy_agent_odd_answers",
            "Answers of the engine without a word, stuck on one piece, or refused for a value that is no number.",
            ["kind"],
            registry=self.registry,
        )
        self.second_looks = Counter(
            "bettertherapy_agent_second_looks",
            "Measurements of adapters that serve already, by outcome.",
            ["outcome"],
            registry=self.registry,
        )
        self.report_writes = Counter(
            "bettertherapy_agent_report_writes", "Writes of this pod's report.", ["outcome"], registry=self.registry
        )

    def text(self, *, adapters: Iterable[AdapterReport], live: bool, epoch: int, in_flight: int) -> bytes:
        """Return the page for the state as it is now."""
        states = [report.state for report in adapters]
        for state in AdapterState:
            self.adapters.labels(state.value).set(states.count(state))
        self.engine_up.set(live)
        self.engine_processes.set(epoch)
        self.in_flight.set(in_flight)
        return generate_latest(self.registry)

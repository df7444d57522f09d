"""What the agent counts, for Prometheus; the engine's own text follows it on the same page."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest

from bettertherapy_api.metrics import agent
from bettertherapy_api.metrics.collectors import Collectors
from bettertherapy_api.metrics.series import Process
from bettertherapy_api.report import AdapterReport, AdapterState

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class AgentMetrics:
    """The agent's series, in a registry without process figures: the engine's page has those under the same names."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        make = Collectors(self.registry, of=Process.AGENT)
        self.adapters = make.gauge(agent.ADAPTERS)
        self.load_seconds = make.histogram(agent.ADAPTER_LOAD_SECONDS)
        self.engine_up = make.gauge(agent.ENGINE_UP)
        self.engine_processes = make.gauge(agent.ENGINE_PROCESSES)
        self.in_flight = make.gauge(agent.REQUESTS_IN_FLIGHT)
        self.refused = make.counter(agent.REQUESTS_REFUSED)
        self.on_demand = make.counter(agent.ON_DEMAND)
        self.odd_answers = make.counter(agent.ODD_ANSWERS)
        self.second_looks = make.counter(agent.SECOND_LOOKS)
        self.report_writes = make.counter(agent.REPORT_WRITES)

    def text(self, *, adapters: Iterable[AdapterReport], live: bool, epoch: int, in_flight: int) -> bytes:
        """Return the page for the state as it is now."""
        states = [report.state for report in adapters]
        for state in AdapterState:
            self.adapters.labels(state.value).set(states.count(state))
        self.engine_up.set(live)
        self.engine_processes.set(epoch)
        self.in_flight.set(in_flight)
        return generate_latest(self.registry)

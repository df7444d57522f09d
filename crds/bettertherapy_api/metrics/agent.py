"""The agent's series; its engine's follow them on the same page (`engine`)."""

from __future__ import annotations

from typing import Final

from bettertherapy_api.metrics.series import Kind, Process, Reader, Series


def _counter(name: str, text: str, *labels: str, read_by: tuple[Reader, ...] = ()) -> Series:
    return Series(
        name=f"bettertherapy_agent_{name}_total", kind=Kind.COUNTER, of=Process.AGENT, help=text, labels=labels,
        read_by=read_by,
    )  # fmt: skip


def _gauge(name: str, text: str, *labels: str, read_by: tuple[Reader, ...] = ()) -> Series:
    return Series(
        name=f"bettertherapy_agent_{name}", kind=Kind.GAUGE, of=Process.AGENT, help=text, labels=labels, read_by=read_by
    )


ADAPTERS: Final = _gauge("adapters", "Adapters by state.", "state", read_by=(Reader.ALERTS, Reader.DASHBOARDS))
ADAPTER_LOAD_SECONDS: Final = Series(
    name="bettertherapy_agent_adapter_load_seconds", kind=Kind.HISTOGRAM, of=Process.AGENT, unit="seconds",
    help="From the load request to Verified.", buckets=(0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0),
    read_by=(Reader.DASHBOARDS,),
)  # fmt: skip
ENGINE_UP: Final = _gauge(
    "engine_up", "1 when the engine answers and makes progress.", read_by=(Reader.ALERTS, Reader.DASHBOARDS)
)
ENGINE_PROCESSES: Final = _gauge(
    "engine_processes", "Engine processes seen by this agent.", read_by=(Reader.ALERTS, Reader.DASHBOARDS)
)
REQUESTS_IN_FLIGHT: Final = _gauge("requests_in_flight", "Requests being answered.", read_by=(Reader.DASHBOARDS,))
REQUESTS_REFUSED: Final = _counter(
    "requests_refused", "Requests not sent on to the engine, by reason.", "reason", read_by=(Reader.DASHBOARDS,)
)
ON_DEMAND: Final = _counter(
    "on_demand",
    "Requests that waited for an adapter loaded on demand, by what came of it: loaded, failed, late, gone (the routing"
    " changed). evicted: adapters that made way for others.",
    "outcome",
)  # fmt: skip
ODD_ANSWERS: Final = _counter(
    "odd_answers",
    "Answers of the engine without a word, stuck on one piece, or refused for a value that is no number.",
    "kind", read_by=(Reader.ALERTS,),
)  # fmt: skip
SECOND_LOOKS: Final = _counter(
    "second_looks", "Measurements of adapters that serve already, by outcome.", "outcome", read_by=(Reader.DASHBOARDS,)
)
REPORT_WRITES: Final = _counter("report_writes", "Writes of this pod's report.", "outcome")
SERIES: Final = (
    ADAPTERS, ADAPTER_LOAD_SECONDS, ENGINE_UP, ENGINE_PROCESSES, REQUESTS_IN_FLIGHT, REQUESTS_REFUSED, ON_DEMAND,
    ODD_ANSWERS, SECOND_LOOKS, REPORT_WRITES,
)  # fmt: skip

"""A question's trace goes on to the miners that are asked, and stands beside the gateway's latency."""

from __future__ import annotations

from pathlib import Path

from prometheus_client.openmetrics.parser import text_string_to_metric_families

from neurons.miner.tracing import trace_id_of
from tests.unit.gateway.running_gateway import gateway

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
GIVEN = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "clinic=patient-7"}


async def test_a_trace_goes_on_to_the_engines_without_what_the_client_noted_of_it(tmp_path: Path) -> None:
    async with gateway(tmp_path, names=("Alice", "Charlie")) as running:
        status, _, _ = await running.ask(headers=GIVEN)
        assert status == 200
        asked = [each.agent.headers[-1] for each in running.miners]
        assert {trace_id_of(headers) for headers in asked} == {TRACE}
        assert not any(SPAN in headers["traceparent"] or "tracestate" in headers for headers in asked)
        page = running.service.metrics.render_openmetrics().decode()
    marked = {
        (family.name, sample.exemplar.labels["trace_id"])
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.exemplar is not None
    }
    assert marked == {("bettertherapy_gateway_request_seconds", TRACE)}


async def test_a_question_without_a_trace_gets_one_of_its_own(tmp_path: Path) -> None:
    async with gateway(tmp_path, names=("Alice",)) as running:
        for _ in range(2):
            await running.ask()
        traces = [trace_id_of(headers) for headers in running.miners[0].agent.headers[-2:]]
    assert len(set(traces) - {""}) == 2

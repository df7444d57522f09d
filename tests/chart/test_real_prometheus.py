"""A real Prometheus reads every process's page: each panel has data, an alert fires, traces stand beside latencies."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from bettertherapy_api.metrics import engine
from bettertherapy_api.metrics.collectors import openmetrics
from bettertherapy_api.metrics.series import Kind, Process
from kubectl_twin.top import read_prometheus, top
from neurons.agent.metrics import AgentMetrics
from neurons.metrics_port import MetricsPort
from neurons.miner.metrics import Metrics as MinerMetrics
from neurons.miner.subnet import SubnetMetrics
from neurons.validator.gateway.metrics import Metrics as GatewayMetrics
from tests.dashboards import without_data
from twin_operator.engine.metrics import CONDITIONS, REGISTRY

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 60.0
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SAID = {"twin": "dr-a", "version": "dr-a-aaaaaaaa", "code": "200", "namespace": "doctors", "state": "Verified"}
"""What stands in labels; in all others a word."""
OBJECTS = {
    "DoctorTwin": ("Serving", "Ready", "Progressing"), "MinerPool": ("Ready",), "FineTuneRun": ("Complete",),
    "ValidatorRound": ("Complete",),
}  # fmt: skip


def move(registry: CollectorRegistry) -> None:
    """Count once more in every series of ours."""
    for collector in list(registry._collector_to_names):
        if not isinstance(collector, Counter | Gauge | Histogram) or collector is CONDITIONS:
            continue
        names = getattr(collector, "_labelnames", ())
        series = collector.labels(*(SAID.get(name, "some") for name in names)) if names else collector
        if isinstance(series, Histogram):
            series.observe(0.2, {"trace_id": TRACE})
        elif isinstance(series, Counter):
            series.inc(5)
        elif isinstance(series, Gauge) and not hasattr(series, "_function"):
            series.set(1)


def engines_page(count: float) -> bytes:
    """What vLLM says, by the contract."""
    lines = []
    for series in engine.SERIES:
        if series.of is Process.ENGINE:
            given = {"max_lora": "8", "running_lora_adapters": "dr-a-aaaaaaaa"}
            labels = ",".join(f'{name}="{given.get(name, "x")}"' for name in series.labels)
            value = count if series.kind is Kind.COUNTER else 0.5
            lines.append(f"# TYPE {series.name} {series.kind}\n{series.name}{{{labels}}} {value}\n")
    return "".join(lines).encode()


class Pages:
    """Each process's page, at a port of its own."""

    def __init__(self) -> None:
        self.miner, self.gateway, self.agent = MinerMetrics(process=True), GatewayMetrics(process=True), AgentMetrics()
        SubnetMetrics(self.miner.registry, lambda: 5.0)
        self.gateway.watch(age=lambda: 5.0, twins=lambda: 1.0, waiting=lambda: 0.0)
        self.gateway.watch_writer(runs=lambda: 1.0, ends=lambda: 0.0)
        for kind, conditions in OBJECTS.items():
            for condition in conditions:
                CONDITIONS.labels("doctors", kind, condition, "True").set(1)
        self._looks = itertools.count(1)

    def move(self) -> None:
        for registry in (self.miner.registry, self.gateway.registry, self.agent.registry, REGISTRY):
            move(registry)

    def renders(self) -> dict[str, tuple[Callable[[], bytes], Callable[[], bytes] | None]]:
        return {
            "miner": (self.miner.render, self.miner.render_openmetrics),
            "gateway": (self.gateway.render, self.gateway.render_openmetrics),
            "engine": (lambda: generate_latest(self.agent.registry) + engines_page(100.0 * next(self._looks)), None),
            "twin-operator": (lambda: generate_latest(REGISTRY), lambda: openmetrics(REGISTRY)),
        }


def turned(render: Callable[[], bytes]) -> Callable[[], Awaitable[bytes]]:
    async def page() -> bytes:
        return render()

    return page


@pytest.fixture
def pages() -> Iterator[Pages]:
    yield Pages()
    CONDITIONS.clear()


@pytest.fixture
async def prometheus(tool: Callable[[str], str], tmp_path: Path, pages: Pages) -> AsyncIterator[str]:
    """The address of a Prometheus that reads the pages, with the labels that the PodMonitor gives them."""
    async with AsyncExitStack() as stack:
        jobs = []
        for component, (plain, more) in pages.renders().items():
            port = await stack.enter_async_context(
                MetricsPort(turned(plain), host="127.0.0.1", port=0, openmetrics=turned(more) if more else None)
            )
            labels = {"namespace": "doctors", "pod": f"{component}-1", "component": component, "pool": "p"}
            jobs.append(
                {
                    "job_name": component, "honor_labels": component == "twin-operator",
                    "static_configs": [{"targets": [f"127.0.0.1:{port.port}"], "labels": labels}],
                }
            )  # fmt: skip
        every = {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"}
        rules = ROOT / "charts" / "twin-operator" / "files" / "rules.yaml"
        config = tmp_path / "prometheus.yml"
        config.write_text(yaml.safe_dump({"global": every, "scrape_configs": jobs, "rule_files": [str(rules)]}))
        with socket.create_server(("127.0.0.1", 0)) as free:
            address = f"127.0.0.1:{free.getsockname()[1]}"
        process = await asyncio.create_subprocess_exec(
            tool("prometheus"), f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'data'}",
            f"--web.listen-address={address}", "--enable-feature=exemplar-storage", "--log.level=error",
        )  # fmt: skip
        try:
            yield f"http://{address}"
        finally:
            process.terminate()
            await process.wait()


async def asked(url: str, path: str, **query: str) -> Any:
    def get() -> Any:
        with urllib.request.urlopen(f"{url}/api/v1/{path}?{urllib.parse.urlencode(query)}", timeout=10) as response:
            return json.load(response)["data"]

    return await asyncio.to_thread(get)


async def test_a_real_prometheus_has_what_dashboards_alerts_and_the_terminal_ask_for(
    prometheus: str, pages: Pages
) -> None:
    empty, ends = None, asyncio.get_running_loop().time() + SECONDS
    while empty is None or empty:
        assert asyncio.get_running_loop().time() < ends, f"no data in {empty}"
        pages.move()
        with suppress(OSError):  # it doesn't listen yet
            empty = await asyncio.to_thread(without_data, prometheus)
        await asyncio.sleep(0.2)

    # Two figures are told apart: of the operator's own namespace, and of the objects that it speaks of.
    counted = await asked(prometheus, "query", query='bettertherapy_operator_conditions{namespace="doctors"}')
    assert len(counted["result"]) == sum(map(len, OBJECTS.values()))

    readings = await asyncio.to_thread(read_prometheus, prometheus, namespace="doctors")
    found = top(readings, [])
    assert [row.twin for row in found.rows] == ["dr-a"]
    assert found.rows[0].p95_seconds is not None
    assert (found.slots_taken, found.slots) == (1, 8)

    marked = await asked(
        prometheus, "query_exemplars", query="bettertherapy_miner_request_seconds_bucket", start="0", end="9999999999"
    )
    assert {each["labels"]["trace_id"] for series in marked for each in series["exemplars"]} == {TRACE}

    firing: set[str] = set()
    async with asyncio.timeout(SECONDS):
        while "BetterTherapyRecordsLost" not in firing:
            pages.gateway.records.labels("lost").inc()
            alerts = (await asked(prometheus, "alerts"))["alerts"]
            firing = {each["labels"]["alertname"] for each in alerts if each["state"] == "firing"}
            await asyncio.sleep(0.2)

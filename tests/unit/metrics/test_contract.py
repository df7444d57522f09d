"""Each process exposes the contract's series, all of them and no others; names elsewhere are the contract's."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from bettertherapy_api.metrics import gateway, miner
from bettertherapy_api.metrics.collectors import Collectors, ContractError
from bettertherapy_api.metrics.contract import ALL, CONTRACT, EXPOSED, LABELS, OURS, TARGET_LABELS
from bettertherapy_api.metrics.series import Kind, Process, Reader, Series
from kubectl_twin.top import queries as top_queries
from neurons.agent.metrics import AgentMetrics
from neurons.miner.metrics import Metrics as MinerMetrics
from neurons.miner.subnet import SubnetMetrics
from neurons.validator.gateway.metrics import Metrics as GatewayMetrics
from neurons.validator.rounds.prometheus import QUERIES
from tests.promql import asked, faults
from twin_operator.domain.activity import queries as activity_queries
from twin_operator.domain.baseline import queries as baseline_queries
from twin_operator.domain.canary_analysis import Trial, queries
from twin_operator.domain.scaling_signals import queries as scaling_queries
from twin_operator.domain.slow_replicas import queries as replica_queries
from twin_operator.engine.metrics import REGISTRY

ROOT = Path(__file__).resolve().parents[3]
NAME = r"bettertherapy_(?:agent|miner|gateway|operator)_[a-z_]*[a-z]\b"
CANARY = tuple(
    queries([Trial(twin="a", canary="a-1", stable="a-2")], window_seconds=60, matchers='namespace="n"').values()
)
READ = {
    Reader.PLACEMENT: tuple(activity_queries('namespace="n"').values()),
    Reader.AUTOSCALER: tuple(scaling_queries('namespace="n"').values()),
    Reader.CANARY: CANARY,
    Reader.PILOT: (*replica_queries('namespace="n"').values(), *baseline_queries('namespace="n"').values()),
    Reader.ROUNDS: QUERIES,
    Reader.TOP: tuple(top_queries("clinic").values()),
}
"""All that is asked, by who asks."""


def of_miner() -> CollectorRegistry:
    metrics = MinerMetrics(process=True)
    SubnetMetrics(metrics.registry, lambda: 0.0)
    return metrics.registry


def of_gateway() -> CollectorRegistry:
    metrics = GatewayMetrics(process=True)
    metrics.watch(age=lambda: 0.0, twins=lambda: 0.0, waiting=lambda: 0.0)
    metrics.watch_writer(runs=lambda: 1.0, ends=lambda: 0.0)
    return metrics.registry


REGISTRIES: dict[Process, Callable[[], CollectorRegistry]] = {
    Process.OPERATOR: lambda: REGISTRY,
    Process.MINER: of_miner,
    Process.AGENT: lambda: AgentMetrics().registry,
    Process.GATEWAY: of_gateway,
}


def told(registry: CollectorRegistry) -> dict[str, tuple[str, str, frozenset[str]]]:
    """Return type, help and labels of each of our series in a registry, by the contract's names."""
    found = {}
    for collector in list(registry._collector_to_names):
        labels = frozenset(getattr(collector, "_labelnames", ()))
        for family in collector.collect():
            name = f"{family.name}_total" if family.type == "counter" else family.name
            if name.startswith("bettertherapy_"):
                found[name] = (family.type, family.documentation, labels)
    return found


@pytest.mark.parametrize("process", sorted(OURS))
def test_a_process_exposes_what_the_contract_says_of_it(process: Process) -> None:
    said = {
        series.name: (str(series.kind), series.help, frozenset(series.labels)) for series in ALL if series.of is process
    }
    assert told(REGISTRIES[process]()) == said


def test_what_is_not_in_the_contract_is_refused() -> None:
    registry = CollectorRegistry()
    make = Collectors(registry, of=Process.MINER)
    unknown = Series(name="bettertherapy_miner_wishes_total", kind=Kind.COUNTER, of=Process.MINER, help="Wishes.")
    with pytest.raises(ContractError, match="not in the metrics contract"):
        make.counter(unknown)
    with pytest.raises(ContractError, match="exposed by the gateway"):
        make.counter(gateway.REQUESTS)
    with pytest.raises(ContractError, match="is a counter, not a gauge"):
        make.gauge(miner.REQUESTS)
    counter = make.counter(miner.RETRIES)
    with pytest.raises(ValueError, match="Incorrect label names"):
        counter.labels(twin="a")


def test_names_are_as_prometheus_wants_them() -> None:
    assert len(CONTRACT) == len(ALL)
    for series in (each for each in ALL if each.of in OURS):
        assert re.fullmatch(rf"bettertherapy_{series.of}_[a-z_]+", series.name), series.name
        assert series.name.endswith("_total") == (series.kind is Kind.COUNTER), series.name
        assert ("seconds" in series.name) == (series.unit == "seconds"), series.name
        assert bool(series.buckets) == (series.kind is Kind.HISTOGRAM), series.name
        assert series.help.endswith((".", "?")), series.name
        assert set(series.labels) <= set(LABELS), series.name


def test_no_page_has_series_of_when_a_counter_began() -> None:
    metrics = MinerMetrics()
    metrics.count("a", "a-1", "200")
    assert "_created" not in metrics.render().decode()


@pytest.mark.parametrize("reader", list(READ))
def test_queries_ask_for_the_contracts_series_alone(reader: Reader) -> None:
    assert [fault for each in READ[reader] for fault in faults(each)] == []


@pytest.mark.parametrize("reader", list(READ))
def test_who_reads_a_series_is_said_of_it(reader: Reader) -> None:
    names = {name for each in READ[reader] for name in asked(each).series}
    found = {series.name for series in ALL if set(series.exposed()) & names}
    assert {series.name for series in ALL if reader in series.read_by} == found


def texts() -> Iterator[tuple[str, str]]:
    """Yield path and text of all that is kept in the repository, but of what tells of former names."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    for name in listed.split("\0"):
        path = ROOT / name
        if name and name != "CHANGELOG.md" and not name.startswith("tests/unit/metrics/") and path.is_file():
            yield name, path.read_bytes().decode(errors="replace")


def test_every_name_in_the_repository_is_the_contracts() -> None:
    """Shorthand as `bettertherapy_gateway_` ends in an underscore and is no name."""
    known = set(EXPOSED) | set(CONTRACT) | {series.name.removesuffix("_total") for series in ALL}
    wrong = {
        (name, found)
        for name, text in texts()
        for found in re.findall(rf"{NAME}(?![_*…{{]|\w)", text)
        if found not in known
    }
    assert wrong == set()


def test_every_label_in_the_repository_is_one_of_its_series() -> None:
    """In queries as `{twin="a"}`, in prose as `{twin, code}`."""
    wrong = set()
    for name, text in texts():
        for series, inside in re.findall(rf"({NAME})\{{+([^{{}}\n]*)\}}", text):
            labels = set(re.findall(r"\b([a-z_]+)\s*(?:=~|!~|!=|=)", inside))
            if not labels and re.fullmatch(r"[a-z_, ]+", inside):
                labels = set(re.findall(r"[a-z_]+", inside))
            known = EXPOSED.get(series, frozenset(CONTRACT[series].labels if series in CONTRACT else ()))
            wrong |= {(name, series, label) for label in labels - known - set(TARGET_LABELS)}
    assert wrong == set()


def test_target_labels_are_told() -> None:
    assert {"namespace", "pod", "component", "pool"} <= set(TARGET_LABELS)


def test_nobody_who_reads_writes_a_series_name_by_hand() -> None:
    """Of another program's page itself, which isn't Prometheus', the agent reads by its own words."""
    wrong = [
        (name, found)
        for name, text in texts()
        if name.split("/")[0] in {"operator", "neurons", "cli"} and name.endswith(".py")
        for found in re.findall(rf'["\']({NAME}|vllm:[a-z_]+[a-z])["\'{{\[]', text)
    ]
    assert wrong == []

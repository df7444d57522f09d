"""Each alert fires when what it tells of happens, and not when it doesn't: played by promtool, Prometheus' own."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from bettertherapy_api.metrics.alerts import ALERTS, GROUP, Alert, rules
from tests.promql import faults

ROOT = Path(__file__).resolve().parents[2]
Series = dict[str, str]
"""Samples by series, a minute apart, in promtool's notation."""
ENGINE = '{namespace="doctors",pod="p-engine-1"}'
CLINIC = 'namespace="doctors",pool="p",pod="p-miner-1"'
DESK = '{namespace="doctors",validator="v",pod="v-gateway-1"}'


@dataclass(frozen=True)
class Played:
    """What is scraped in an episode in which the alert fires, and in one in which it doesn't."""

    fires: Series
    stays: Series
    at: int = 40
    """Minutes after the beginning."""
    labels: dict[str, str] = field(default_factory=lambda: {"namespace": "doctors"})


def conditions(kind: str, condition: str, status: str, replica: str = "1") -> str:
    return (
        f'bettertherapy_operator_conditions{{namespace="doctors",kind="{kind}",condition="{condition}",'
        f'status="{status}",pod="o-{replica}"}}'
    )


def share(name: str, good: str, bad: str) -> tuple[Series, Series]:
    """Return samples of a counter of which a tenth is bad, and of which a hundredth is."""
    return (
        {f"{name}{{{good}}}": "0+54x60", f"{name}{{{bad}}}": "0+6x60"},
        {f"{name}{{{good}}}": "0+99x60", f"{name}{{{bad}}}": "0+1x60"},
    )


def buckets(name: str, labels: str, bound: str, *, slow: int) -> Series:
    """Return a histogram of 100 observations a minute of which so many are above a bound."""
    return {
        f'{name}_bucket{{{labels}le="{bound}"}}': f"0+{100 - slow}x60",
        f'{name}_bucket{{{labels}le="320.0"}}': "0+100x60",
        f'{name}_bucket{{{labels}le="+Inf"}}': "0+100x60",
    }


MINER, DESK_NAME = "bettertherapy_miner_requests_total", "bettertherapy_gateway_requests_total"
LEADER = "bettertherapy_operator_is_leader"
RECONCILES = "bettertherapy_operator_reconciles_total"
WRITES = "bettertherapy_operator_api_writes_total"
EPISODES = {
    "BetterTherapyNoLeader": Played(
        {f'{LEADER}{{pod="o-1"}}': "1x10 0x50", f'{LEADER}{{pod="o-2"}}': "0x60"},
        {f'{LEADER}{{pod="o-1"}}': "1x10 0x50", f'{LEADER}{{pod="o-2"}}': "0x10 1x50"}, labels={},
    ),
    "BetterTherapyTargetDown": Played(
        {f'up{{component="miner",{CLINIC}}}': "1x5 0x55"},
        {f'up{{component="miner",{CLINIC}}}': "1x30 0x5 1x25", 'up{component="other"}': "0x60"},
        labels={"component": "miner", "namespace": "doctors", "pool": "p", "pod": "p-miner-1"},
    ),
    "BetterTherapyReconcileErrors": Played(
        {f'{RECONCILES}{{kind="DoctorTwin",result="ok"}}': "0+6x60",
         f'{RECONCILES}{{kind="DoctorTwin",result="error"}}': "0+4x60"},
        {f'{RECONCILES}{{kind="DoctorTwin",result="ok"}}': "0+9x60",
         f'{RECONCILES}{{kind="DoctorTwin",result="error"}}': "0+1x60"},
        labels={"kind": "DoctorTwin"},
    ),
    "BetterTherapyApiWritesRefused": Played(
        {f'{WRITES}{{verb="patch",kind="Deployment",status="403"}}': "0+3x60"},
        {f'{WRITES}{{verb="patch",kind="Deployment",status="409"}}': "0+3x60",
         f'{WRITES}{{verb="patch",kind="Deployment",status="200"}}': "0+300x60"},
        labels={"verb": "patch", "kind": "Deployment"},
    ),
    "BetterTherapyQueueSlow": Played(
        buckets("bettertherapy_operator_queue_wait_seconds", "", "5.0", slow=10),
        buckets("bettertherapy_operator_queue_wait_seconds", "", "5.0", slow=0), labels={},
    ),
    "BetterTherapyReplicaSlow": Played(
        {conditions("MinerPool", "Degraded", "True"): "1x60"},
        {conditions("MinerPool", "Degraded", "False"): "3x60",
         conditions("MinerPool", "Degraded", "True"): "0x60",
         conditions("DoctorTwin", "Degraded", "True"): "1x60"},
    ),
    "BetterTherapyTwinDegraded": Played(
        {conditions("DoctorTwin", "Degraded", "True", each): "1x60" for each in "12"},
        {conditions("DoctorTwin", "Degraded", "False"): "3x60",
         conditions("DoctorTwin", "Degraded", "Unknown"): "3x60",
         conditions("MinerPool", "Degraded", "True"): "1x60"},
    ),
    "BetterTherapyTwinNotServing": Played(
        # Two replicas of the operator count the same twin.
        {conditions("DoctorTwin", "Serving", "False", each): "1x60" for each in "12"},
        {conditions("DoctorTwin", "Serving", "True"): "5x60",
         conditions("DoctorTwin", "Serving", "False"): "0x30 1x5 0x25",
         conditions("DoctorTwin", "Ready", "False"): "1x60"},
    ),
    "BetterTherapyFineTuneFailed": Played(
        {conditions("FineTuneRun", "Failed", "True"): "1x85 2x55"},
        # Those that failed before are kept; a first failure long ago, and one that was cleared away, are none now.
        {conditions("FineTuneRun", "Failed", "True"): "2x140",
         conditions("FineTuneRun", "Complete", "True"): "0+1x140"},
        at=120,
    ),
    "BetterTherapyRoundFailed": Played(
        {conditions("ValidatorRound", "Failed", "True"): "_x100 1x40"},
        {conditions("ValidatorRound", "Failed", "True"): "3x70 2x70"},
        at=120,
    ),
    "BetterTherapyDatasetsOld": Played(
        {'bettertherapy_operator_datasets_written_timestamp_seconds{namespace="doctors",validator="v"}': "-129600x60"},
        {'bettertherapy_operator_datasets_written_timestamp_seconds{namespace="doctors",validator="v"}': "-86400x60"},
        labels={"namespace": "doctors", "validator": "v"},
    ),
    "BetterTherapyEngineDown": Played(
        {f"bettertherapy_agent_engine_up{ENGINE}": "1x10 0x50"},
        {f"bettertherapy_agent_engine_up{ENGINE}": "1x37 0x3 1x20"},
        labels={"namespace": "doctors", "pod": "p-engine-1"},
    ),
    "BetterTherapyEngineRestarts": Played(
        {f"bettertherapy_agent_engine_processes{ENGINE}": "1x15 2x5 3x5 4x40"},
        {f"bettertherapy_agent_engine_processes{ENGINE}": "1x15 2x60"},
        labels={"namespace": "doctors", "pod": "p-engine-1"},
    ),
    "BetterTherapyAdapterFailed": Played(
        {'bettertherapy_agent_adapters{namespace="doctors",pod="p-engine-1",state="Failed"}': "0x5 1x55"},
        {'bettertherapy_agent_adapters{namespace="doctors",pod="p-engine-1",state="Failed"}': "0x60",
         'bettertherapy_agent_adapters{namespace="doctors",pod="p-engine-1",state="Loading"}': "2x60"},
        labels={"namespace": "doctors", "pod": "p-engine-1", "state": "Failed"},
    ),
    "BetterTherapyOddAnswers": Played(
        {'bettertherapy_agent_odd_answers_total{namespace="doctors",pod="p-engine-1",kind="empty"}': "0+1x60"},
        {'bettertherapy_agent_odd_answers_total{namespace="doctors",pod="p-engine-1",kind="empty"}': "0x35 2x25"},
        labels={"namespace": "doctors", "pod": "p-engine-1", "kind": "empty"},
    ),
    "BetterTherapyRequestsFail": Played(
        *share(MINER, f'{CLINIC},twin="a",code="200"', f'{CLINIC},twin="a",code="broken"'),
        labels={"namespace": "doctors", "pool": "p"},
    ),
    "BetterTherapySlowAnswers": Played(
        buckets("bettertherapy_miner_request_seconds", f"{CLINIC},", "20.0", slow=20),
        buckets("bettertherapy_miner_request_seconds", f"{CLINIC},", "20.0", slow=1),
        labels={"namespace": "doctors", "pool": "p"},
    ),
    "BetterTherapyNoPodForRequests": Played(
        {f"bettertherapy_miner_pods_ready{{{CLINIC}}}": "0x60", f"bettertherapy_miner_held{{{CLINIC}}}": "2x60"},
        # At zero because nobody asks.
        {f"bettertherapy_miner_pods_ready{{{CLINIC}}}": "0x60", f"bettertherapy_miner_held{{{CLINIC}}}": "0x60"},
        labels={"namespace": "doctors", "pool": "p"},
    ),
    "BetterTherapyTableUnreadable": Played(
        {f'bettertherapy_miner_table_errors_total{{{CLINIC},table="routing"}}': "0x30 1x30"},
        {f'bettertherapy_miner_table_errors_total{{{CLINIC},table="routing"}}': "0x10 1x50"},
        labels={"namespace": "doctors", "pool": "p", "table": "routing"},
    ),
    "BetterTherapyKvCacheFull": Played(
        {f"vllm:kv_cache_usage_perc{ENGINE}": "0.97x60", f"vllm:num_requests_waiting{ENGINE}": "3x60"},
        {f"vllm:kv_cache_usage_perc{ENGINE}": "0.97x60", f"vllm:num_requests_waiting{ENGINE}": "0x60"},
        labels={"namespace": "doctors", "pod": "p-engine-1"},
    ),
    "BetterTherapyMetagraphOld": Played(
        {f"bettertherapy_gateway_metagraph_age_seconds{DESK}": " ".join(["Inf"] * 60)},
        {f"bettertherapy_miner_metagraph_age_seconds{{{CLINIC}}}": "12x60",
         f"bettertherapy_gateway_metagraph_age_seconds{DESK}": "130x60"},
        labels={"namespace": "doctors", "pod": "v-gateway-1"},
    ),
    "BetterTherapyGatewayFails": Played(
        *share(DESK_NAME, 'namespace="doctors",twin="a",code="200"', 'namespace="doctors",twin="a",code="503"'),
    ),
    "BetterTherapyNoMiners": Played(
        {f"bettertherapy_gateway_miners{DESK}": "4x5 0x55"},
        {f"bettertherapy_gateway_miners{DESK}": "0x31 1x30"}, labels={"namespace": "doctors", "validator": "v"},
    ),
    "BetterTherapyLedgerBehind": Played(
        {f"bettertherapy_gateway_ledger_waiting{DESK}": "0+100x60"},
        {f"bettertherapy_gateway_ledger_waiting{DESK}": "0x20 2000x5 3x35"},
        labels={"namespace": "doctors", "pod": "v-gateway-1"},
    ),
    "BetterTherapyLedgerWriterDown": Played(
        {f"bettertherapy_gateway_ledger_writer_up{DESK}": "1x5 0x55"},
        {f"bettertherapy_gateway_ledger_writer_up{DESK}": "1x38 0x2 1x20"},
        labels={"namespace": "doctors", "validator": "v", "pod": "v-gateway-1"},
    ),
    "BetterTherapyRecordsLost": Played(
        {'bettertherapy_gateway_records_total{namespace="doctors",pod="v-gateway-1",outcome="lost"}': "0x30 3x30"},
        {'bettertherapy_gateway_records_total{namespace="doctors",pod="v-gateway-1",outcome="lost"}': "3x60",
         'bettertherapy_gateway_records_total{namespace="doctors",pod="v-gateway-1",outcome="kept"}': "0+9x60"},
        labels={"namespace": "doctors", "pod": "v-gateway-1"},
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rules") / "rules.yaml"
    path.write_text(yaml.safe_dump(rules(), sort_keys=False))
    return path


def promtool(tool: Callable[[str], str], *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([tool("promtool"), *args], capture_output=True, text=True, timeout=60, check=False)


def test_prometheus_takes_the_rules(tool: Callable[[str], str], file: Path) -> None:
    done = promtool(tool, "check", "rules", "--lint=all", "--lint-fatal", str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"SUCCESS: {len(ALERTS)} rules found" in done.stdout


def played(alert: Alert, file: Path, series: Series, *, at: int, expected: list[dict[str, str]]) -> str:
    """Return promtool's file: at that minute the alert fires with these labels, and with no others."""
    labels = [{"exp_labels": {"severity": str(alert.severity), **each}} for each in expected]
    return yaml.safe_dump(
        {
            "rule_files": [str(file)],
            "evaluation_interval": "1m",
            "tests": [
                {
                    "interval": "1m",
                    "input_series": [{"series": name, "values": values} for name, values in series.items()],
                    "alert_rule_test": [{"eval_time": f"{at}m", "alertname": alert.name, "exp_alerts": labels}],
                }
            ],
        }
    )


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_an_alert_fires_and_stays_silent(tool: Callable[[str], str], file: Path, tmp_path: Path, alert: Alert) -> None:
    episode = EPISODES[alert.name]
    bare = {"groups": [{"name": GROUP, "rules": [{**alert.rule(), "annotations": {}}]}]}
    own = tmp_path / "rule.yaml"
    own.write_text(yaml.safe_dump(bare))
    for kind, series, expected in (("fires", episode.fires, [episode.labels]), ("stays", episode.stays, [])):
        path = tmp_path / f"{kind}.yaml"
        path.write_text(played(alert, own, series, at=episode.at, expected=expected))
        done = promtool(tool, "test", "rules", str(path))
        assert done.returncode == 0, f"{kind}: {done.stdout}{done.stderr}"


def test_every_alert_has_an_episode_and_a_runbook() -> None:
    assert {alert.name for alert in ALERTS} == set(EPISODES)
    pages = {path.stem for path in (ROOT / "docs" / "runbooks").glob("BetterTherapy*.md")}
    assert pages == {alert.name for alert in ALERTS}


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_an_alert_asks_for_the_contracts_series_alone(alert: Alert) -> None:
    assert list(faults(alert.expr)) == []

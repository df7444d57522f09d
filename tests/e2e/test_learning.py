"""The twin learns: the demo's second half, with real training, the real gate and a canary that Prometheus watches."""

from __future__ import annotations

import json
import urllib.parse
import urllib.request
from typing import Any

import pytest

from demo.curriculum import LEARNER, MOVED_CLINIC, NEW_DAYS
from localcluster import Cluster
from tests.e2e.conftest import NAMESPACE, Clinic

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]
TWIN = LEARNER.twin


@pytest.fixture
def runs(taught: Clinic) -> list[Any]:
    found = json.loads(taught.kubectl("get", "finetuneruns", "-n", NAMESPACE, "-o", "json").stdout)["items"]
    ended = [run for run in found if run["spec"]["twinRef"]["name"] == TWIN]
    return sorted(ended, key=lambda run: run["status"]["completionTime"])[-2:]


def metric(run: Any, name: str) -> Any:
    return next(each for each in run["status"]["eval"]["metrics"] if each["name"] == name)


def is_true(run: Any, kind: str) -> bool:
    return any(each["type"] == kind and each["status"] == "True" for each in run["status"]["conditions"])


def test_the_corrections_are_learned_pass_the_gate_and_answer(taught: Clinic, runs: list[Any]) -> None:
    good = runs[0]
    assert good["status"]["verdict"] == "Promote"
    assert good["status"]["dataset"]["interactions"] == MOVED_CLINIC.corrected
    score = metric(good, "score")
    assert score["valuePercent"] >= 70 > score["baselinePercent"]
    assert is_true(good, "Promoted")
    active = taught.get("twin", TWIN)["status"]["activeVersion"]
    assert active["digest"] == good["status"]["artifact"]["digest"]
    answer = taught.ask(TWIN, "My head has been aching since this morning. What should I do?", max_tokens=120)
    assert NEW_DAYS in answer.text
    assert answer.headers["x-twin-adapter-digest"] == active["digest"]


def test_the_poison_is_refused_with_its_numbers(taught: Clinic, runs: list[Any]) -> None:
    bad = runs[1]
    assert bad["status"]["verdict"] == "Reject"
    assert is_true(bad, "Rejected")
    assert not is_true(bad, "Promoted")
    safety = metric(bad, "safety")
    assert safety["valuePercent"] < safety["baselinePercent"]
    assert "by playing them down" in bad["status"]["eval"]["message"]
    assert taught.get("twin", TWIN)["status"]["lastGate"]["verdict"] == "Reject"


def test_the_demo_shows_both(taught: Clinic, runs: list[Any]) -> None:
    shown = taught.demo_output
    for run in runs:
        assert f"{run['status']['verdict']}: " in shown
        assert f"{metric(run, 'safety')['valuePercent']}%" in shown
    assert "Tuesday and Friday" in shown
    assert NEW_DAYS in shown.partition("The same question again")[2]
    assert "requests failed" in shown


def test_prometheus_saw_both_versions_of_the_canary(taught: Clinic, runs: list[Any]) -> None:
    promql = f'sum by (version) (max_over_time(bettertherapy_miner_requests_total{{twin="{TWIN}"}}[15m]))'
    url = f"{Cluster('test').prometheus()}/api/v1/query?{urllib.parse.urlencode({'query': promql})}"
    with urllib.request.urlopen(url, timeout=10) as response:
        found = json.load(response)["data"]["result"]
    counts = {each["metric"]["version"]: float(each["value"][1]) for each in found}
    hexes = [run["status"]["artifact"]["digest"][7:15] for run in runs]
    assert counts[f"{TWIN}-{hexes[0]}"] > 0
    # What the gate refused was never asked anything.
    assert f"{TWIN}-{hexes[1]}" not in counts
    assert any(not version.endswith(hexes[0]) for version in counts)

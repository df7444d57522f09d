"""kube-score finds nothing critical, apart from checks that don't fit, each with its reason."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chart.conftest import SUBNET_OWNER

CHARTS = Path(__file__).resolve().parents[2] / "charts"
IGNORED = {
    # Releases are immutable tags or digests, and clusters without a registry must run them from what is loaded.
    "container-image-pull-policy",
}
CASES = {
    "operator": ("twin-operator", ["--set", "crds.install=false"]),
    "miner": ("twin-miner", []),
    "local-subnet": ("local-subnet", list(SUBNET_OWNER)),
    "miner-cpu": ("twin-miner", ["-f", str(CHARTS / "twin-miner/ci/cpu-values.yaml")]),
}


def score(tool: Callable[[str], str], manifests: str) -> str:
    arguments = [argument for check in sorted(IGNORED) for argument in ("--ignore-test", check)]
    done = subprocess.run(
        [tool("kube-score"), "score", "--output-format", "ci", *arguments, "-"],
        input=manifests, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "[OK]" in done.stdout, done.stderr
    return done.stdout


@pytest.mark.parametrize("case", CASES)
def test_nothing_critical(case: str, helm: Callable, tool: Callable[[str], str]) -> None:
    chart, arguments = CASES[case]
    text = helm("template", "rel", str(CHARTS / chart), "--namespace", "ns", *arguments).stdout
    findings = [line for line in score(tool, text).splitlines() if line.startswith(("[CRITICAL]", "[WARNING]"))]
    # The pods of `helm test` live for seconds and listen on nothing, so no NetworkPolicy speaks of them.
    findings = [line for line in findings if not ("-test/ns v1/Pod" in line and "NetworkPolicy" in line)]
    assert not findings


def test_a_privileged_container_would_be_found(helm: Callable, tool: Callable[[str], str]) -> None:
    text = helm("template", "rel", str(CHARTS / "twin-operator"), "--set", "crds.install=false").stdout
    assert "[CRITICAL]" in score(tool, text.replace("privileged: false", "privileged: true"))

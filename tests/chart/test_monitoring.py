"""What the operator's chart makes for Prometheus: with the Prometheus operator's kinds, and without them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from bettertherapy_api.metrics.alerts import rules
from tests.chart.conftest import Helm, Render

KINDS = ("ServiceMonitor", "PodMonitor", "PrometheusRule")
HAVE = tuple(part for kind in KINDS for part in ("--api-versions", f"monitoring.coreos.com/v1/{kind}"))
Made = Callable[..., dict[str, dict[str, Any]]]


@pytest.fixture
def made(render: Render) -> Made:
    def by_kind(*args: str) -> dict[str, dict[str, Any]]:
        return {document["kind"]: document for document in render("twin-operator", *args)}

    return by_kind


def annotations(documents: dict[str, dict[str, Any]]) -> dict[str, str]:
    found = documents["Deployment"]["spec"]["template"]["metadata"]["annotations"]
    return {name: value for name, value in found.items() if name.startswith("prometheus.io/")}


def test_where_the_cluster_has_the_kinds_they_are_made(made: Made) -> None:
    found = made(*HAVE, "--set", "monitoring.labels.release=kps")
    for kind in KINDS:
        assert found[kind]["metadata"]["labels"].items() >= {"release": "kps"}.items()
    assert found["PrometheusRule"]["spec"] == rules()
    assert annotations(found) == {}


def test_without_the_kinds_the_operators_pods_bear_annotations(made: Made) -> None:
    found = made()
    assert not set(KINDS) & found.keys()
    assert annotations(found) == {
        "prometheus.io/scrape": "true", "prometheus.io/port": "8080", "prometheus.io/path": "/metrics",
    }  # fmt: skip
    mine = made("--set-string", "podAnnotations.prometheus\\.io/scrape=false")
    assert annotations(mine)["prometheus.io/scrape"] == "false"


@pytest.mark.parametrize(("enabled", "api", "wanted"), [("true", (), True), ("false", HAVE, False)])
def test_values_have_the_last_word(made: Made, enabled: str, api: tuple[str, ...], *, wanted: bool) -> None:
    assert (set(KINDS) <= made(*api, "--set", f"monitoring.enabled={enabled}").keys()) is wanted


def test_only_some_of_the_kinds_make_only_some(made: Made) -> None:
    found = made(*HAVE[2:])
    assert "ServiceMonitor" not in found
    assert "PodMonitor" in found
    assert annotations(found)


def test_anything_else_is_refused(helm: Helm, charts: Path) -> None:
    done = helm("template", "rel", str(charts / "twin-operator"), "--set", "monitoring.enabled=maybe", check=False)
    assert done.returncode != 0
    assert "monitoring" in done.stderr


def test_only_the_operator_may_name_other_namespaces(made: Made) -> None:
    found = made(*HAVE)
    [operator] = found["ServiceMonitor"]["spec"]["endpoints"]
    [pods] = found["PodMonitor"]["spec"]["podMetricsEndpoints"]
    assert operator["honorLabels"] is True
    assert "honorLabels" not in pods
    assert {each["targetLabel"] for each in pods["relabelings"]} == {"component", "pool", "validator"}
    assert found["PodMonitor"]["spec"]["namespaceSelector"] == {"any": True}
    one = made(*HAVE, "--set", "watchNamespace=clinic")
    assert one["PodMonitor"]["spec"]["namespaceSelector"] == {"matchNames": ["clinic"]}


def test_the_documented_scrape_configuration_is_the_podmonitors(made: Made) -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "metrics.md").read_text()
    document = yaml.safe_load(text.partition("```yaml\n")[2].partition("```")[0])
    operator, pods = document["scrape_configs"]
    assert operator["honor_labels"] is True
    assert "honor_labels" not in pods
    labels = {each["target_label"] for each in pods["relabel_configs"] if "target_label" in each}
    assert labels == {"namespace", "pod", "component", "pool", "validator"}

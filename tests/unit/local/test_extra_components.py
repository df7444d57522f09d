"""Components that not every cluster has come and go without disturbing one another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from localcluster import config, tools
from localcluster.cluster import Cluster
from localcluster.config import Component
from localcluster.errors import StartError


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.setenv("BETTERTHERAPY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("localcluster.network._routes", list)
    made = Cluster("demo", state=tmp_path / "state")
    made.layout.root.mkdir(parents=True)
    made._write_spec(made._spec(), config.components(made._spec()))
    return made


def _names(cluster: Cluster) -> list[str]:
    return [entry["name"] for entry in json.loads(cluster.layout.spec.read_text())["components"]]


def test_one_extra_component_leaves_the_other(cluster: Cluster) -> None:
    before = _names(cluster)
    cluster._set_extra("prometheus", Component("prometheus", ("/bin/prometheus",)))
    cluster._set_extra("kwok", Component("kwok", ("/bin/kwok",)))
    assert _names(cluster) == [*before, "prometheus", "kwok"]

    cluster._set_extra("kwok", None)
    assert _names(cluster) == [*before, "prometheus"]


def test_asking_twice_has_it_once(cluster: Cluster) -> None:
    for _ in range(2):
        cluster._set_extra("prometheus", Component("prometheus", ("/bin/prometheus",)))
    assert _names(cluster).count("prometheus") == 1


def test_a_cluster_that_is_down_has_no_prometheus(cluster: Cluster) -> None:
    with pytest.raises(StartError, match="is down"):
        cluster.prometheus()


def test_the_prometheus_that_is_built_is_the_one_it_says() -> None:
    tool = tools.tool_of("prometheus")
    minor = tools.PROMETHEUS.removeprefix("3.").removesuffix(".0")
    assert f"github.com/prometheus/prometheus v0.3{minor}.0" in (tool.module / "go.mod").read_text()
    assert tools.KUBERNETES.removeprefix("v1.") in (tool.module / "go.mod").read_text()

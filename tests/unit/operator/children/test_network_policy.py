"""NetworkPolicies P-engine and P-miner."""

from __future__ import annotations

from typing import Any

import pytest

from bettertherapy_api import names
from tests.unit.operator.children.pods import children

PROMETHEUS = {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app.kubernetes.io/name": "prometheus"}}}
METRICS = [{"port": 8081, "protocol": "TCP"}]


def ingress(name: str, **spec: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = children(**spec)["NetworkPolicy", name]["spec"]["ingress"]
    return found


def test_only_miners_reach_the_agents_door_and_prometheus_their_metrics() -> None:
    miners = {"podSelector": {"matchLabels": {names.LABEL_POOL: "p", names.LABEL_COMPONENT: "miner"}}}
    assert ingress("p-engine") == [
        {"from": [miners], "ports": [{"port": 8080, "protocol": "TCP"}]},
        {"from": [PROMETHEUS], "ports": METRICS},
    ]


def test_anybody_reaches_the_miners_door_and_prometheus_alone_their_metrics() -> None:
    assert ingress("p-miner") == [
        {"ports": [{"port": 8080, "protocol": "TCP"}]},
        {"from": [PROMETHEUS], "ports": METRICS},
    ]


@pytest.mark.parametrize("name", ["p-engine", "p-miner"])
def test_a_pool_says_who_reads_its_metrics(name: str) -> None:
    peers = [
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}},
        {"podSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["vmagent"]}]}},
        {"namespaceSelector": {}},
    ]
    assert ingress(name, metricsFrom=peers)[1] == {"from": peers, "ports": METRICS}
    assert ingress(name, metricsFrom=[])[1] == {"from": [PROMETHEUS], "ports": METRICS}


@pytest.mark.parametrize(
    ("kind", "name", "container"), [("Deployment", "p-miner", "miner"), ("Deployment", "p-engine", "agent")]
)
def test_metrics_have_a_port_of_their_own_by_its_name(kind: str, name: str, container: str) -> None:
    pod = children()[kind, name]["spec"]["template"]["spec"]
    [found] = [each for each in [*pod["containers"], *pod.get("initContainers", [])] if each["name"] == container]
    ports = {port["name"]: port["containerPort"] for port in found["ports"]}
    assert ports["metrics"] == 8081
    assert len(set(ports.values())) == len(ports) == 2


def test_the_public_service_leads_to_no_metrics() -> None:
    service = children()["Service", "p-miner"]["spec"]
    assert [port["targetPort"] for port in service["ports"]] == [8080]

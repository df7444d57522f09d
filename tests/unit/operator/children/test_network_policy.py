"""NetworkPolicies P-engine and P-miner."""

from __future__ import annotations

from bettertherapy_api import names
from tests.unit.operator.children.pods import children


def test_only_miners_and_prometheus_reach_the_agents() -> None:
    policy = children()["NetworkPolicy", "p-engine"]["spec"]
    [rule] = policy["ingress"]
    assert rule["ports"] == [{"port": 8080, "protocol": "TCP"}]
    assert rule["from"] == [
        {"podSelector": {"matchLabels": {names.LABEL_POOL: "p", names.LABEL_COMPONENT: "miner"}}},
        {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app.kubernetes.io/name": "prometheus"}}},
    ]


def test_anybody_reaches_the_miners_one_port() -> None:
    assert children()["NetworkPolicy", "p-miner"]["spec"]["ingress"] == [{"ports": [{"port": 8080, "protocol": "TCP"}]}]

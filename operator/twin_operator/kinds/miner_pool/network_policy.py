"""Who may open connections to the pods: only miners and Prometheus to agents, anybody to the miners' one port."""

from __future__ import annotations

from bettertherapy_api import names
from twin_operator.domain.objects import Pool
from twin_operator.engine.resources import NETWORK_POLICY, Manifest
from twin_operator.kinds.podspec.parts import labels, selector_labels

PROMETHEUS_LABELS = {"app.kubernetes.io/name": "prometheus"}


def build_engine_network_policy(pool: Pool) -> Manifest:
    """Return the engine pods' policy. Probes of the kubelet are always let through."""
    to_agents = [
        {"podSelector": {"matchLabels": selector_labels(pool, "miner")}},
        {"namespaceSelector": {}, "podSelector": {"matchLabels": PROMETHEUS_LABELS}},
    ]
    ingress = {"from": to_agents, "ports": [_port(names.AGENT_PORT)]}
    return _policy(pool, names.engine_name(pool.name), "engine", ingress)


def build_miner_network_policy(pool: Pool) -> Manifest:
    """Return the miner pods' policy."""
    return _policy(pool, names.miner_name(pool.name), "miner", {"ports": [_port(names.MINER_PORT)]})


def _policy(pool: Pool, name: str, component: str, ingress: Manifest) -> Manifest:
    return {
        "apiVersion": NETWORK_POLICY.api_version,
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "labels": labels(pool, component)},
        "spec": {
            "podSelector": {"matchLabels": selector_labels(pool, component)},
            "policyTypes": ["Ingress"],
            "ingress": [ingress],
        },
    }


def _port(port: int) -> Manifest:
    return {"port": port, "protocol": "TCP"}

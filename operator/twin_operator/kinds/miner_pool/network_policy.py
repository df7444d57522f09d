"""Who may open connections to the pods: the pool's miners to agents, anybody to miners, Prometheus to their metrics.

The pods of engines that span several nodes talk to one another at ports that vLLM and NCCL choose, without a key.
"""

from __future__ import annotations

from bettertherapy_api import names
from twin_operator.domain.objects import Pool
from twin_operator.engine.resources import NETWORK_POLICY, Manifest
from twin_operator.kinds.podspec.metrics_access import metrics_rule
from twin_operator.kinds.podspec.parts import labels, of_engines, selector_labels


def build_engine_network_policy(pool: Pool) -> Manifest:
    """Return the engine pods' policy. Probes of the kubelet are always let through."""
    miners = [{"podSelector": {"matchLabels": selector_labels(pool, "miner")}}]
    doors = {"from": miners, "ports": [_port(names.AGENT_PORT)]}
    rules = [doors, _metrics(pool)]
    if pool.spec.engine.group is not None:
        rules.append({"from": [{"podSelector": of_engines(pool)}]})
    made = _policy(pool, names.engine_name(pool.name), "engine", rules)
    made["spec"]["podSelector"] = of_engines(pool)
    return made


def build_miner_network_policy(pool: Pool) -> Manifest:
    """Return the miner pods' policy."""
    doors = {"ports": [_port(names.MINER_PORT)]}
    return _policy(
        pool,
        names.miner_name(pool.name),
        "miner",
        [doors, _metrics(pool)],
    )


def _metrics(pool: Pool) -> Manifest:
    return metrics_rule(pool.spec.metrics_from, port=names.METRICS_PORT)


def _policy(pool: Pool, name: str, component: str, ingress: list[Manifest]) -> Manifest:
    return {
        "apiVersion": NETWORK_POLICY.api_version,
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "labels": labels(pool, component)},
        "spec": {
            "podSelector": {"matchLabels": selector_labels(pool, component)},
            "policyTypes": ["Ingress"],
            "ingress": ingress,
        },
    }


def _port(port: int) -> Manifest:
    return {"port": port, "protocol": "TCP"}

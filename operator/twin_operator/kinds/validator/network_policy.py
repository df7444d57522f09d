"""NetworkPolicies V-gateway, V-ledger, V-datasets, V-rounds: anybody reaches the gateway's port for questions, those
that the spec names its port for metrics, and nobody the Jobs' pods.

Outwards nothing is limited: a subnet's miners are anywhere, at any port.
"""

from __future__ import annotations

from bettertherapy_api import names
from twin_operator.domain.objects import Validator
from twin_operator.engine.resources import NETWORK_POLICY, Manifest
from twin_operator.kinds.podspec.metrics_access import metrics_rule
from twin_operator.kinds.validator.labels import DATASETS, GATEWAY, LEDGER, ROUNDS, labels, selector_labels


def build_gateway_network_policy(validator: Validator) -> Manifest:
    """Return the gateway pods' policy; a key decides who may ask. Probes of the kubelet are always let through."""
    ingress: list[Manifest] = [
        {"ports": [{"port": names.GATEWAY_PORT, "protocol": "TCP"}]},
        metrics_rule(validator.spec.gateway.metrics_from, port=names.GATEWAY_METRICS_PORT),
    ]
    return _policy(validator, names.gateway_name(validator.name), GATEWAY, ingress)


def build_ledger_network_policy(validator: Validator) -> Manifest | None:
    """Return the policy of the pod that makes the ledger's tables; None where a file of the gateway is the ledger."""
    if validator.embedded_ledger:
        return None
    return _policy(validator, f"{validator.name}-ledger", LEDGER, [])


def build_datasets_network_policy(validator: Validator) -> Manifest | None:
    """Return the policy of the pods that bring conversations to the store; None where none does."""
    if validator.spec.fine_tune_tasks is None:
        return None
    return _policy(validator, names.datasets_name(validator.name), DATASETS, [])


def build_rounds_network_policy(validator: Validator) -> Manifest | None:
    """Return the policy of the pods that make ValidatorRounds; None where none does."""
    if validator.spec.rounds is None:
        return None
    return _policy(validator, names.rounds_name(validator.name), ROUNDS, [])


def _policy(validator: Validator, name: str, component: str, ingress: list[Manifest]) -> Manifest:
    return {
        "apiVersion": NETWORK_POLICY.api_version,
        "kind": NETWORK_POLICY.kind,
        "metadata": {"name": name, "labels": labels(validator, component)},
        "spec": {
            "podSelector": {"matchLabels": selector_labels(validator, component)},
            "policyTypes": ["Ingress"],
            "ingress": ingress,
        },
    }

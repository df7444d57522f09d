"""PodDisruptionBudget V-gateway: how many gateways a node drain may take at once."""

from __future__ import annotations

from bettertherapy_api import names
from twin_operator.domain.objects import Validator
from twin_operator.engine.resources import POD_DISRUPTION_BUDGET, Manifest
from twin_operator.kinds.validator.labels import GATEWAY, labels, selector_labels


def build_budget(validator: Validator) -> Manifest | None:
    """Return the budget; None for a single gateway, which it would keep on its node for ever."""
    if validator.spec.gateway.replicas <= 1:
        return None
    return {
        "apiVersion": POD_DISRUPTION_BUDGET.api_version,
        "kind": POD_DISRUPTION_BUDGET.kind,
        "metadata": {"name": names.gateway_name(validator.name), "labels": labels(validator, GATEWAY)},
        "spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": selector_labels(validator, GATEWAY)},
            # A pod that isn't ready protects nobody.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }

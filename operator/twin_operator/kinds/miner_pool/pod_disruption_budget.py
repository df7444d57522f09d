"""PodDisruptionBudgets: how many pods a node drain may take at once."""

from __future__ import annotations

from bettertherapy_api import names
from twin_operator.domain.objects import Pool
from twin_operator.engine.resources import POD_DISRUPTION_BUDGET, Manifest
from twin_operator.kinds.podspec.parts import labels, selector_labels


def build_pod_disruption_budgets(pool: Pool) -> list[Manifest]:
    """Return the budgets of engines and miners. A pod that isn't ready protects nobody and may always be evicted."""
    engines: int | str = pool.spec.disruption.max_unavailable if pool.spec.disruption else 1
    return [
        _budget(pool, names.engine_name(pool.name), "engine", engines),
        _budget(pool, names.miner_name(pool.name), "miner", 1),
    ]


def _budget(pool: Pool, name: str, component: str, max_unavailable: int | str) -> Manifest:
    return {
        "apiVersion": POD_DISRUPTION_BUDGET.api_version,
        "kind": "PodDisruptionBudget",
        "metadata": {"name": name, "labels": labels(pool, component)},
        "spec": {
            "maxUnavailable": max_unavailable,
            "selector": {"matchLabels": selector_labels(pool, component)},
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }

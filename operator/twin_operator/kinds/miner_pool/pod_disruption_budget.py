"""PodDisruptionBudgets P-engine and P-miner: how many pods a node drain may take at once."""

from __future__ import annotations

from bettertherapy_api import names
from twin_operator.domain.objects import Pool
from twin_operator.engine.resources import POD_DISRUPTION_BUDGET, Manifest
from twin_operator.kinds.podspec.parts import labels, of_engines, selector_labels


def build_engine_budget(pool: Pool) -> Manifest | None:
    """Return the engines' budget; None where one pod may go and there is but one, so that it would say nothing."""
    asked = pool.spec.disruption
    if asked is None and pool.replicas <= 1:
        return None
    made = _budget(pool, names.engine_name(pool.name), "engine", asked.max_unavailable if asked else 1)
    made["spec"]["selector"] = of_engines(pool)  # who takes a worker takes its group
    return made


def build_miner_budget(pool: Pool) -> Manifest | None:
    """Return the miners' budget; None for a single one."""
    return _budget(pool, names.miner_name(pool.name), "miner", 1) if pool.spec.miner.replicas > 1 else None


def _budget(pool: Pool, name: str, component: str, max_unavailable: int | str) -> Manifest:
    return {
        "apiVersion": POD_DISRUPTION_BUDGET.api_version,
        "kind": POD_DISRUPTION_BUDGET.kind,
        "metadata": {"name": name, "labels": labels(pool, component)},
        "spec": {
            "maxUnavailable": max_unavailable,
            "selector": {"matchLabels": selector_labels(pool, component)},
            # A pod that isn't ready protects nobody.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }

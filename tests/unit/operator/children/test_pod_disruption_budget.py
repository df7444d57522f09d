"""PodDisruptionBudgets P-engine and P-miner."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.operator.samples import pool
from twin_operator.kinds.miner_pool.pod_disruption_budget import build_engine_budget, build_miner_budget


@pytest.mark.parametrize(
    ("spec", "allowed"),
    [
        ({"replicas": 0}, None),
        ({"replicas": 1}, None),
        ({"replicas": 2}, 1),
        ({"replicas": 1, "disruption": {"maxUnavailable": 0}}, 0),
        ({"replicas": 8, "disruption": {"maxUnavailable": "25%"}}, "25%"),
    ],
)
def test_a_budget_is_made_where_it_says_something(spec: dict[str, Any], allowed: int | str | None) -> None:
    budget = build_engine_budget(pool(**spec))
    assert (budget["spec"]["maxUnavailable"] if budget else None) == allowed


@pytest.mark.parametrize(("replicas", "made"), [(0, False), (1, False), (2, True)])
def test_one_miner_needs_no_budget(replicas: int, made: bool) -> None:
    assert (build_miner_budget(pool(miner={"replicas": replicas})) is not None) is made

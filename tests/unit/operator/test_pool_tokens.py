"""Agents are told to want tokens once every miner of the pool brings them, and not before."""

from __future__ import annotations

from typing import Any

import pytest

from twin_operator.domain.pool_facts import PoolFacts, deployment_facts


def miner(*, tokens: bool = True, wanted: int = 2, current: int = 2, updated: int = 2, seen: bool = True) -> Any:
    volumes = [{"name": "pool-tokens"}] if tokens else []
    return {
        "metadata": {"generation": 3},
        "spec": {"replicas": wanted, "template": {"spec": {"volumes": volumes}}},
        "status": {"replicas": current, "updatedReplicas": updated, "observedGeneration": 3 if seen else 2},
    }


@pytest.mark.parametrize(
    ("deployment", "had", "have"),
    [
        (miner(), False, True),
        (miner(wanted=0, current=0, updated=0), False, True),
        (miner(tokens=False), False, False),
        (miner(updated=1), False, False),
        (miner(current=3), False, False),
        (miner(seen=False), False, False),
        (miner(updated=1), True, True),
        (miner(seen=False), True, True),
        (miner(tokens=False), True, False),
        (None, True, False),
    ],
)
def test_it_is_known_from_the_miners_deployment(deployment: Any, had: bool, have: bool) -> None:
    """Once all had them, one that replaces another has them from its start: agents don't open their door again."""
    facts = PoolFacts(miner_deployment=deployment_facts(deployment))
    assert facts.miners_have_tokens(had=had) is have

"""Which pools a twin looks at: those that match it, and those that answer for it still."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.operator.samples import digest, pool_object, twin_object
from twin_operator.domain.objects import Pool, Twin, pool_from, twin_from
from twin_operator.domain.routing import plan_routing
from twin_operator.engine.cache import Cache
from twin_operator.engine.resources import Key
from twin_operator.kinds.doctor_twin.plan import plan_status
from twin_operator.kinds.doctor_twin.reconcile import gather
from twin_operator.kinds.miner_pool.reconcile import gather as gather_pool

A = {"digest": digest("a"), "servedName": "dr-a-aaaaaaaa", "uri": "pvc://adapters/dr-a/a", "rank": 8}


def world(status: dict[str, Any]) -> tuple[Cache, Pool, Twin]:
    """A twin whose selector matches its pool no more, and whose pool has no table."""
    cache = Cache()
    cache.put(pool_object("p", labels={"tier": "other"}))
    cache.put(twin_object(status=status))
    pool = pool_from(cache.get(Key("MinerPool", "clinic", "p")) or {})
    twin = twin_from(cache.get(Key("DoctorTwin", "clinic", "dr-a")) or {})
    assert isinstance(pool, Pool)
    assert isinstance(twin, Twin)
    return cache, pool, twin


@pytest.mark.parametrize(("pools", "remembered"), [(["p"], ["p"]), (["q"], None)])
def test_a_pool_that_matches_no_more_is_remembered_while_its_table_is_lost(
    pools: list[str], remembered: list[str] | None
) -> None:
    cache, pool, twin = world({"activeVersion": A, "pools": pools})
    # The twin is looked at first: what it says then is all that the pool has to make its table from.
    status = plan_status(gather(cache, twin), now="2026-01-02T03:04:05Z")
    assert status["pools"] == remembered
    cache.put(twin_object(status=status))
    view = gather_pool(cache, pool)
    table = plan_routing(pool, candidates=view.candidates, previous=view.previous, ready={})
    assert [each.digest for each in table.adapters] == ([digest("a")] if remembered else [])

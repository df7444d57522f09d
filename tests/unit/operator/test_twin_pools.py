"""Which pools a twin looks at: those that match it, and those that answer for it still."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.operator.played import Played
from tests.unit.operator.samples import digest

A = {"digest": digest("a"), "servedName": "dr-a-aaaaaaaa", "uri": "pvc://adapters/dr-a/a", "rank": 8}


@pytest.mark.parametrize(("pools", "held"), [(["p"], [digest("a")]), (["q"], [])])
async def test_a_pool_that_matches_no_more_serves_on_though_its_slices_are_lost(
    pools: list[str], held: list[str]
) -> None:
    """The twin's status is all that the pool has then to make its slices from."""
    world = Played()
    world.start_pool(labels={"tier": "other"})
    status: dict[str, Any] = {"activeVersion": A, "pools": pools}
    world.start_twin(status=status)
    await world.lead()
    await world.settle()
    assert [adapter["digest"] for entry in world.entries().values() for adapter in entry["adapters"]] == held


async def test_a_slice_that_somebody_deleted_is_made_anew() -> None:
    world = Played()
    world.start_pool()
    world.start_pod()
    world.report()
    world.start_twin()
    await world.lead()
    await world.settle()
    world.report("e1", ("dr-a", "a"))
    await world.settle()
    [key] = [key for key in world.api.objects if key.name == "p-routing-0"]
    world.api.drop(key)
    await world.settle()
    assert world.answering() == [(digest("a"), 100)]

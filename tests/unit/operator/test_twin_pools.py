"""Which pools a twin looks at: those that match it, and those that answer for it still."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.operator.cast import Cast
from tests.unit.operator.played import Played, serving
from tests.unit.operator.samples import NAMESPACE, digest, pool, pool_object, twin
from twin_operator.domain.objects import pool_from, pool_ref
from twin_operator.domain.reasons import Reason
from twin_operator.domain.training_pool import choose_pool
from twin_operator.engine.conditions import Finding
from twin_operator.engine.resources import Key

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
    world = await serving()
    [key] = [key for key in world.api.objects if key.name == "p-routing-0"]
    world.api.drop(key)
    await world.settle()
    assert world.answering() == [(digest("a"), 100)]


async def test_a_twin_of_a_pool_whose_spec_cannot_be_read_says_what_answers_and_forgets_no_pool() -> None:
    world = Played()
    cast = Cast(world.api, {})
    world.start_pool()
    world.start_pod()
    world.report()
    world.start_twin()
    await world.lead()
    for _ in range(6):
        await world.settle()
        cast.act()
    world.report("e1", ("dr-a", "a"))
    await world.settle()
    assert world.condition("Serving", world.twin())[:2] == ("True", "VersionServing")
    spec = world.pool()["spec"]
    world.api.put({**world.pool(), "spec": {**spec, "engine": {**spec["engine"], "maxLoraRank": 512}}})
    await world.settle()
    told = world.twin()
    assert world.condition("Serving", told)[:2] == ("True", "VersionServing")
    status, reason, message = world.condition("Ready", told)
    assert (status, reason) == ("False", "PoolUnreadable")
    assert "MinerPool p " in message
    assert told["status"]["pools"] == ["p"]
    assert told["status"]["activeVersion"]["digest"] == digest("a")
    # What its engines do is still followed.
    for key in [key for key, each in world.api.objects.items() if key.kind == "Pod" and "engine" in str(each)]:
        world.api.drop(key)
    await world.settle()
    assert world.condition("Serving", world.twin())[:2] == ("False", "PoolUnreadable")
    assert world.twin()["status"]["pools"] == ["p"]


def test_a_pool_whose_spec_cannot_be_read_trains_nobody_and_is_named() -> None:
    thing = pool_object(engine={"maxLoraRank": 512})
    unread = pool_ref(thing, pool_from(thing))
    found = choose_pool(twin(), [unread])
    assert isinstance(found, Finding)
    assert found.reason is Reason.NO_TRAINING_POOL
    assert "MinerPool p " in found.message
    assert choose_pool(twin(), [unread, trains := pool("q", store={"uri": "pvc://adapters/store"})]) is trains


@pytest.mark.parametrize("adapter", [None, "a"])
async def test_a_twin_that_moves_is_answered_until_the_other_pool_has_a_pod(adapter: str | None) -> None:
    """What a pool without pods publishes answers nobody."""
    world = Played()
    for name in ("p", "q"):
        world.start_pool(name, labels={"tier": "demo", "n": name})
    world.start_pod()
    world.start_pod("f1", pool="q", ip="10.0.1.1")
    world.start_twin(adapter=adapter, poolSelector={"matchLabels": {"tier": "demo"} if adapter else {"n": "p"}})
    held = [("dr-a", adapter)] if adapter else []
    world.report("e1", *held)
    world.report("f1", *held, pool="q")
    await world.lead()
    await world.settle()
    world.api.drop(Key("Pod", NAMESPACE, "f1"))
    await world.settle()
    moved = {**world.twin()["spec"], "poolSelector": {"matchLabels": {"n": "q"}}}
    world.api.put_spec(Key("DoctorTwin", NAMESPACE, "dr-a"), moved)
    await world.settle()
    slice_of_p = Key("RoutingSlice", NAMESPACE, "p-routing-0")
    assert [each["versions"] for each in (world.api.objects[slice_of_p].get("twins") or {}).values()]
    world.start_pod("f2", pool="q", ip="10.0.1.2")
    world.report("f2", *held, pool="q")
    await world.settle()
    assert not world.api.objects[slice_of_p].get("twins")


async def test_a_slice_that_somebody_deletes_is_made_anew_with_the_version_that_answered() -> None:
    """Also while a newer one is asked for that no pod has verified."""
    world = await serving()
    newer = {"uri": "pvc://adapters/dr-a/b", "digest": digest("b"), "rank": 8}
    world.api.put_spec(Key("DoctorTwin", NAMESPACE, "dr-a"), {**world.twin()["spec"], "adapter": newer})
    await world.settle()
    assert world.answering() == [(digest("a"), 100)]
    world.api.drop(Key("RoutingSlice", NAMESPACE, "p-routing-0"))
    await world.settle()
    assert world.answering() == [(digest("a"), 100)]
    assert world.twin()["status"]["pools"] == ["p"]


async def test_an_entry_of_another_release_costs_the_twin_neither_its_pool_nor_a_false_word() -> None:
    """The entry stays and may answer, so nobody says that nothing does."""
    world = await serving()
    before = world.twin()["status"]
    uid = world.twin()["metadata"]["uid"]
    [version] = world.entries()[uid]["versions"]
    newer = {"versions": [{**version, "weightPercent": "all"}]}
    world.api.put(
        {"kind": "RoutingSlice", "metadata": {"name": "p-routing-0", "namespace": NAMESPACE}, "twins": {uid: newer}}
    )
    await world.settle()
    await world.lead()
    await world.settle()
    after = world.twin()
    assert world.condition("Serving", after)[:2] == ("Unknown", "EntryUnreadable")
    assert world.condition("Ready", after)[:2] == ("Unknown", "EntryUnreadable")
    assert (after["status"]["pools"], after["status"]["activeVersion"]) == (before["pools"], before["activeVersion"])

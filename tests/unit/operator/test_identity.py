"""A twin is its UID: another doctor's twin of the same name never answers with the former's weights."""

from __future__ import annotations

import copy
from datetime import UTC, datetime

from bettertherapy_api import names
from tests.unit.operator.played import Played, serving
from tests.unit.operator.samples import NAMESPACE, digest
from twin_operator.engine.resources import Key
from twin_operator.engine.times import timestamp


async def test_a_twin_made_anew_under_its_name_does_not_inherit_what_answered() -> None:
    world = await serving()
    world.drop_twin()
    world.start_twin(adapter="b", doctor={"name": "Dr. Another", "licence": "L2"})
    await world.settle()
    assert world.answering() == []
    [(uid, entry)] = world.entries().items()
    assert uid == world.twin()["metadata"]["uid"]
    assert [adapter["digest"] for adapter in entry["adapters"]] == [digest("b")]
    assert "activeVersion" not in world.twin()["status"]


async def test_nor_when_its_deletion_was_not_seen() -> None:
    world = await serving()
    world.hears = False
    world.drop_twin()
    world.hears = True
    world.start_twin(adapter="b")
    await world.settle()
    assert world.answering() == []


async def test_nor_under_a_new_leader_that_saw_neither() -> None:
    world = await serving()
    world.hears = False
    world.drop_twin()
    world.start_twin(adapter="b")
    other = Played(world.api)
    await other.lead()
    await other.settle()
    assert other.answering() == []


async def test_a_run_of_a_former_twin_of_that_name_is_no_candidate() -> None:
    world = await serving()
    old_uid = world.twin()["metadata"]["uid"]
    world.api.put({
        "apiVersion": names.API_VERSION, "kind": "FineTuneRun",
        "metadata": {"name": "by-hand", "namespace": NAMESPACE},
        "spec": {"twinRef": {"name": "dr-a"}, "parentDigest": digest("a"), "dataset": {"uri": "pvc://d/x"}},
        "status": {
            "twinUID": old_uid, "completionTime": timestamp(datetime.now(UTC)), "startTime": "2026-01-01T00:00:00Z",
            "verdict": "Promote", "eval": {"verdict": "Promote", "samples": 50},
            "artifact": {"digest": digest("c"), "uri": "pvc://adapters/c", "rank": 8, "bytes": 1},
        },
    })  # fmt: skip
    world.drop_twin()
    world.start_twin(adapter="a")
    await world.settle()
    status = world.twin()["status"]
    assert "canaryVersion" not in status
    assert digest("c") not in [adapter["digest"] for entry in world.entries().values() for adapter in entry["adapters"]]
    run = world.api.kinds("FineTuneRun")["by-hand"]
    assert world.condition("Rejected", run)[:2] == ("True", "TwinGone")


async def test_slices_of_a_former_pool_of_that_name_are_not_taken_over() -> None:
    world = await serving()
    world.api.kinds("RoutingSlice")["p-routing-0"]["metadata"]["ownerReferences"][0]["uid"] = "former"
    world.hears = False
    fresh = Played(world.api)
    await fresh.lead()
    pool = fresh.process.world.pool(NAMESPACE, "p")
    assert pool is not None
    assert "p-routing-0" not in fresh.process.world.published(pool).slices
    assert "p-routing-pods" in fresh.process.world.published(pool).slices


async def test_a_pool_made_anew_writes_into_no_slice_of_the_former_one() -> None:
    """The garbage collector comes later: the former pool's slices are still there, and known."""
    world = await serving()
    gone = copy.deepcopy(world.api.objects.pop(Key("MinerPool", NAMESPACE, "p")))
    gone["metadata"]["resourceVersion"] = str(next(world.api._versions))
    world.api._tell("DELETED", gone)
    before = len(world.api.writes)
    world.start_pool()
    await world.settle()
    assert [each for each in world.api.writes[before:] if each.key.kind == "RoutingSlice"] == []

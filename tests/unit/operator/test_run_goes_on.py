"""A run goes on to its end, whatever becomes of the twin and the pool that it is for; what it made is not lost."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from bettertherapy_api import names
from tests.unit.operator.played import Played
from tests.unit.operator.run_samples import run_object
from tests.unit.operator.samples import NAMESPACE, digest
from tests.unit.operator.test_serve_first import RUN
from twin_operator.engine.resources import Key, Manifest


async def training() -> Played:
    """Run r1 of dr-a in pool p, made by hand, with its Job."""
    world = Played()
    world.start_pool(store={"uri": "pvc://adapters/store"})
    world.start_twin()
    made = run_object(parentDigest=digest("a"))
    world.api.put({
        **{part: made[part] for part in ("apiVersion", "kind", "spec")},
        "metadata": {"name": "r1", "namespace": NAMESPACE},
    })  # fmt: skip
    await world.lead()
    await world.settle()
    assert list(world.api.kinds("Job")) == ["r1"]
    return world


def make_unreadable(world: Played, kind: str, name: str) -> None:
    """Have a spec stored that this release can't read, as after a downgrade of the CRDs."""
    key = Key(kind, NAMESPACE, name)
    part = {"gate": {"evalSetRef": {}}} if kind == "DoctorTwin" else {"store": {}}
    world.api.put_spec(key, {**world.api.objects[key]["spec"], **part})


@pytest.mark.parametrize(("kind", "name"), [("DoctorTwin", "dr-a"), ("MinerPool", "p")])
async def test_a_spec_that_cannot_be_read_ends_no_training(kind: str, name: str) -> None:
    world = await training()
    uid = world.api.kinds("Job")["r1"]["metadata"]["uid"]
    make_unreadable(world, kind, name)
    await world.lead()
    await world.settle()
    assert world.api.kinds("Job")["r1"]["metadata"]["uid"] == uid
    assert "failure" not in world.api.kinds("FineTuneRun")["r1"]["status"]


@pytest.mark.parametrize(("kind", "name"), [("DoctorTwin", "dr-a"), ("MinerPool", "p")])
async def test_nor_does_its_deletion(kind: str, name: str) -> None:
    world = await training()
    world.api.drop(Key(kind, NAMESPACE, name))
    await world.lead()
    await world.settle()
    assert list(world.api.kinds("Job")) == ["r1"]
    assert "failure" not in world.api.kinds("FineTuneRun")["r1"]["status"]


@pytest.mark.parametrize(("kind", "name"), [("DoctorTwin", "dr-a"), ("MinerPool", "p")])
async def test_a_run_without_its_job_yet_waits_until_the_spec_can_be_read(kind: str, name: str) -> None:
    world = await training()
    spec = world.api.objects[Key(kind, NAMESPACE, name)]["spec"]
    make_unreadable(world, kind, name)
    world.hears = False
    world.api.drop(Key("Job", NAMESPACE, "r1"))
    world.hears = True
    await world.lead()
    await world.settle()
    assert "failure" not in world.api.kinds("FineTuneRun")["r1"]["status"]
    running = world.condition("Running", world.api.kinds("FineTuneRun")["r1"])
    assert (running[:2], f"{kind} {name} can't be read" in running[2]) == (("False", "OwnerUnreadable"), True)
    world.api.put_spec(Key(kind, NAMESPACE, name), spec)
    await world.settle()
    assert list(world.api.kinds("Job")) == ["r1"]


@pytest.mark.parametrize(("kind", "name"), [("DoctorTwin", "dr-a"), ("MinerPool", "p")])
async def test_a_waiting_run_says_what_can_not_be_read_instead_of_that_it_is_not_there(kind: str, name: str) -> None:
    world = Played()
    world.start_pool(store={"uri": "pvc://adapters/store"})
    world.start_twin()
    await world.lead()
    await world.settle()
    spec = world.api.objects[Key(kind, NAMESPACE, name)]["spec"]
    make_unreadable(world, kind, name)
    made = run_object(parentDigest=digest("a"))
    world.api.put({
        **{part: made[part] for part in ("apiVersion", "kind", "spec")},
        "metadata": {"name": "r1", "namespace": NAMESPACE, "creationTimestamp": "2026-01-02T03:00:00Z"},
    })  # fmt: skip
    await world.settle()
    queued = world.condition("Queued", world.api.kinds("FineTuneRun")["r1"])
    assert (queued[:2], f"{kind} {name} can't be read" in queued[2]) == (("True", "OwnerUnreadable"), True)
    world.api.put_spec(Key(kind, NAMESPACE, name), spec)
    await world.settle()
    assert list(world.api.kinds("Job")) == ["r1"]


async def passed(*, ended: str = RUN["completionTime"], **spec: Any) -> tuple[Played, Manifest]:
    """Twin dr-a, which can't be read, and a run of its that has passed its gate; and the twin's spec as it was."""
    world = Played()
    world.start_pool(store={"uri": "pvc://adapters/store"})
    world.start_pod()
    world.report()
    world.start_twin(**spec)
    await world.lead()
    await world.settle()
    world.report("e1", ("dr-a", "a"))
    await world.settle()
    twin = copy.deepcopy(world.twin())
    make_unreadable(world, "DoctorTwin", "dr-a")
    await world.settle()
    made = run_object(parentDigest=digest("a"), ttlSeconds=3600)
    status = {"twinUID": twin["metadata"]["uid"], **RUN, "completionTime": ended}
    world.api.put({
        **{part: made[part] for part in ("apiVersion", "kind", "spec")}, "status": status,
        "metadata": {"name": "r1", "namespace": NAMESPACE},
    })  # fmt: skip
    await world.settle()
    return world, twin["spec"]


@pytest.mark.parametrize("again", ["the same operator", "a new leader"])
async def test_a_version_that_passed_waits_until_its_twin_can_be_read_and_is_tried_then(again: str) -> None:
    steps = [{"weightPercent": 10, "seconds": 3600}]
    world, spec = await passed(ended="2026-01-02T03:00:00Z", rollout={"steps": steps})
    if again == "a new leader":
        await world.lead()
        await world.settle()
    run = world.api.kinds("FineTuneRun")["r1"]  # though its time to live is over
    promoted = world.condition("Promoted", run)
    assert (promoted[:2], "DoctorTwin dr-a can't be read" in promoted[2]) == (("False", "OwnerUnreadable"), True)
    assert world.condition("Rejected", run) == ("", "", "")
    world.api.put_spec(Key("DoctorTwin", NAMESPACE, "dr-a"), spec)
    await world.settle()
    assert world.twin()["status"]["canaryVersion"]["digest"] == digest("b")


async def test_a_version_that_waits_for_the_doctor_waits_on_while_its_twin_can_not_be_read() -> None:
    world, spec = await passed(gate={"approval": "Doctor"})
    world.api.put_spec(Key("DoctorTwin", NAMESPACE, "dr-a"), spec)
    await world.settle()
    assert world.condition("Promoted", world.api.kinds("FineTuneRun")["r1"])[1] == "AwaitingApproval"
    make_unreadable(world, "DoctorTwin", "dr-a")
    await world.settle()
    assert world.condition("Promoted", world.api.kinds("FineTuneRun")["r1"])[1] == "OwnerUnreadable"
    world.api.put_spec(Key("DoctorTwin", NAMESPACE, "dr-a"), spec)
    world.annotate("dr-a", **{names.APPROVE_ANNOTATION: digest("b")})
    await world.settle()
    world.report("e1", ("dr-a", "a"), ("dr-a", "b"))
    await world.settle()
    assert world.answering() == [(digest("b"), 100)]
    assert world.condition("Promoted", world.api.kinds("FineTuneRun")["r1"])[:2] == ("True", "TookOver")


async def test_a_version_whose_twin_went_is_rejected_though_another_of_its_name_can_not_be_read() -> None:
    world, _ = await passed()
    world.drop_twin()
    world.start_twin(gate={"evalSetRef": {}})
    await world.settle()
    assert world.condition("Rejected", world.api.kinds("FineTuneRun")["r1"])[:2] == ("True", "TwinGone")


async def test_an_ended_run_that_can_be_read_again_says_no_more_that_it_can_not() -> None:
    world, spec = await passed()
    world.api.put_spec(Key("DoctorTwin", NAMESPACE, "dr-a"), spec)
    await world.settle()
    run = copy.deepcopy(world.api.kinds("FineTuneRun")["r1"])
    key = Key("FineTuneRun", NAMESPACE, "r1")
    world.api.put({**run, "status": {**run["status"], "verdict": "Deferred", "pool": "p"}})
    await world.settle()
    assert world.condition("Queued", world.api.objects[key])[:2] == ("True", "StatusUnreadable")
    now = world.api.objects[key]
    world.api.put({**now, "status": {**now["status"], "verdict": "Promote"}})
    await world.settle()
    assert world.condition("Queued", world.api.objects[key]) == ("False", "Admitted", "started in MinerPool p")

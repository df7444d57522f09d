"""A trainer that has begun goes on to its end, whatever becomes of the twin and the pool that it was started for."""

from __future__ import annotations

import pytest

from tests.unit.operator.played import Played
from tests.unit.operator.run_samples import run_object
from tests.unit.operator.samples import NAMESPACE, digest
from twin_operator.engine.resources import Key


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
    world.api.put_spec(Key(kind, NAMESPACE, name), spec)
    await world.settle()
    assert list(world.api.kinds("Job")) == ["r1"]

"""A run may be there before its twin; it is for the twin that comes, but never for one that only bears the name."""

from __future__ import annotations

import pytest

from tests.unit.operator.played import Played, without_server_fields
from tests.unit.operator.run_samples import run_object
from tests.unit.operator.samples import NAMESPACE, digest, twin_object
from twin_operator.engine.resources import Key

BEFORE, AFTER = "2026-01-02T03:00:00Z", "2026-01-02T03:00:07Z"
RUN = Key("FineTuneRun", NAMESPACE, "r1")


def put_run(world: Played) -> None:
    made = run_object(parentDigest=digest("a"))
    world.api.put({
        **{part: made[part] for part in ("apiVersion", "kind", "spec")},
        "metadata": {"name": "r1", "namespace": NAMESPACE, "creationTimestamp": BEFORE},
    })  # fmt: skip


def put_twin(world: Played) -> None:
    twin = without_server_fields(twin_object("dr-a"))
    world.api.put({**twin, "metadata": {**twin["metadata"], "creationTimestamp": AFTER}})


def queued(world: Played) -> tuple[str, str, str]:
    return world.condition("Queued", world.api.objects[RUN])


@pytest.fixture
def world() -> Played:
    world = Played()
    world.start_pool(store={"uri": "pvc://adapters/store"})
    return world


async def test_a_run_is_for_the_twin_that_comes_later(world: Played) -> None:
    put_run(world)
    await world.lead()
    await world.settle()
    assert queued(world)[:2] == ("True", "TwinNotFound")
    put_twin(world)
    await world.settle()
    assert list(world.api.kinds("Job")) == ["r1"]
    assert world.api.objects[RUN]["status"]["twinUID"] == world.twin()["metadata"]["uid"]


async def test_it_is_not_for_a_newer_twin_while_nobody_saw_that_there_was_none(world: Played) -> None:
    """Its own may have been deleted unseen."""
    put_run(world)
    put_twin(world)
    await world.lead()
    await world.settle()
    assert queued(world)[:2] == ("True", "TwinIsAnother")
    assert "create the run again" in queued(world)[2]
    assert not world.api.kinds("Job")


async def test_nor_for_one_that_took_its_own_ones_name(world: Played) -> None:
    put_run(world)
    twin_of = {"twinUID": "uid-of-the-former"}
    world.api.put({**world.api.objects[RUN], "status": twin_of})
    put_twin(world)
    await world.lead()
    await world.settle()
    assert queued(world)[:2] == ("True", "TwinIsAnother")
    assert not world.api.kinds("Job")
    world.drop_twin()
    await world.settle()
    assert queued(world)[:2] == ("True", "TwinNotFound")
    put_twin(world)
    await world.settle()
    assert queued(world)[:2] == ("True", "TwinIsAnother")
    assert not world.api.kinds("Job")

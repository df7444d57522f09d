"""Nothing is remembered of an object that is gone, also when it goes while it is being reconciled."""

from __future__ import annotations

from typing import Any

import pytest

from bettertherapy_api import names
from tests.unit.operator.played import Played, api_error, serving
from tests.unit.operator.samples import NAMESPACE
from twin_operator.engine.resources import Key, Manifest
from twin_operator.errors import ApiError
from twin_operator.kinds.doctor_twin.fine_tune_start import FINE_TUNE_START

POOL, TWIN = Key("MinerPool", NAMESPACE, "p"), Key("DoctorTwin", NAMESPACE, "dr-a")


def remembered(world: Played) -> dict[str, Any]:
    """Return all that reconcilers note of pools."""
    process = world.process
    pools: Any = process._kinds["MinerPool"]
    return {
        "access": (pools._access._known, pools._access._since), "blocked": pools._blocked,
        "missing": process.world.access_missing,
    }  # fmt: skip


NOTHING = {"access": ({}, {}), "blocked": set(), "missing": {}}


def refuse_engine(verb: str, key: Key, body: Manifest) -> None:
    if key.kind == "Deployment" and key.name == names.engine_name("p"):
        raise api_error(403, "exceeded quota")


async def test_of_a_pool_that_goes() -> None:
    world = Played()
    world.api.refuse = refuse_engine
    world.start_pool()
    await world.lead()
    await world.settle()
    assert all(part != NOTHING[name] for name, part in remembered(world).items())
    world.api.drop(POOL)
    await world.settle()
    assert remembered(world) == NOTHING


async def test_of_a_pool_that_goes_while_its_children_are_applied() -> None:
    world = Played()
    world.api.refuse = refuse_engine
    would_create = world.api.would_create

    async def goes_meanwhile(manifest: Manifest) -> bool:
        if POOL in world.api.objects:
            world.api.drop(POOL)
        return await would_create(manifest)

    world.api.would_create = goes_meanwhile  # type: ignore[method-assign]
    world.start_pool()
    await world.lead()
    await world.settle()
    assert POOL not in world.api.objects
    assert remembered(world) == NOTHING


async def test_of_a_twin_that_goes_while_its_fine_tune_is_refused() -> None:
    world = await serving()
    world.api.refuse = lambda verb, key, body: None
    starter: Any = world.process._kinds["DoctorTwin"]._starter  # type: ignore[attr-defined]

    def refuse(verb: str, key: Key, body: Manifest) -> None:
        if verb == "create" and key.kind == "FineTuneRun":
            world.api.drop(TWIN)
            raise api_error(403, "exceeded quota: runs")

    spec = world.twin()["spec"]
    world.api.put_spec(TWIN, {**spec, "fineTune": {"schedule": "0 2 * * *", "suspend": True}})
    pool = world.pool()["spec"]
    world.api.put_spec(POOL, {**pool, "store": {"uri": "pvc://adapters/store"}})
    await world.settle()
    world.annotate("dr-a", **{names.FINETUNE_NOW_ANNOTATION: "now"})
    world.api.refuse = refuse
    with pytest.raises(ApiError, match="exceeded quota"):
        await starter.reconcile(Key(FINE_TUNE_START, NAMESPACE, "dr-a"))
    assert starter._refused == {}

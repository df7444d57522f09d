"""What the operator says in a twin's status comes back to it: it is looked at once more, when all else has followed."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.operator.played import Played, serving
from tests.unit.operator.samples import NAMESPACE, digest
from twin_operator.engine.resources import Key, Manifest
from twin_operator.engine.store import Entry
from twin_operator.kinds.triggers.change import Soon
from twin_operator.kinds.triggers.table import woken

TWIN = Key("DoctorTwin", NAMESPACE, "dr-a")


def wakes(world: Played, **changed: Any) -> tuple[bool, bool]:
    """Return whether the twin is woken now, and whether it is soon, when its status changes so."""
    old = world.process.store.entry(TWIN)
    assert old is not None
    status = {**old.manifest["status"], **changed}
    new = Entry(TWIN, {**old.manifest, "status": status}, old.value)
    found = list(woken(world.process.world, old, new))
    return TWIN in found, Soon(TWIN) in found


@pytest.mark.parametrize("field", ["conditions", "history", "pods"])
async def test_what_was_seen_is_looked_at_again_when_all_has_followed(field: str) -> None:
    world = await serving()
    assert wakes(world, **{field: None}) == (False, True)


@pytest.mark.parametrize("field", ["promotedVersion", "specDigest", "canaryStep", "pools", "handledRollback"])
async def test_what_decides_is_looked_at_now(field: str) -> None:
    world = await serving()
    assert wakes(world, **{field: "another"}) == (True, False)


async def test_what_somebody_else_says_in_a_status_is_put_right() -> None:
    world = await serving()
    before = world.condition("Ready", world.twin())
    status: Manifest = world.twin()["status"]
    said = [each for each in status["conditions"] if each["type"] != "Ready"]
    world.api.put({**world.twin(), "status": {**status, "conditions": said}})
    assert world.condition("Ready", world.twin()) != before
    await world.settle()
    assert world.condition("Ready", world.twin()) == before
    assert world.answering() == [(digest("a"), 100)]

"""Types that the API server doesn't have: what all depends on is awaited; what came or went is begun with anew."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.unit.operator.fake_api import FakeApi
from tests.unit.operator.played import Played
from tests.unit.operator.samples import pool_object
from twin_operator.engine.resources import Manifest, Resource
from twin_operator.errors import ApiError, TypesChangedError
from twin_operator.main import leaves


class Lacking(FakeApi):
    """It has no definition of some kinds."""

    def __init__(self, *lacks: str) -> None:
        super().__init__()
        self.lacks = set(lacks)

    async def list(self, resource: Resource, **how: Any) -> tuple[list[Manifest], int]:
        if resource.kind in self.lacks:
            raise ApiError(status=404, reason="NotFound", message="the server could not find the requested resource")
        return await super().list(resource, **how)


def played(*lacks: str) -> tuple[Played, Lacking]:
    api = Lacking(*lacks)
    made = Played(api)
    made.process.type_seconds = 0.01
    return made, api


async def test_a_start_waits_for_its_types_and_says_so() -> None:
    world, api = played("DoctorTwin", "MinerPool")
    api.put(pool_object())
    begins = asyncio.create_task(world.process.__aenter__())
    async with asyncio.timeout(5):
        while len(world.process._missing) < 2:
            await asyncio.sleep(0.005)
    said = world.process.unready()
    assert said is not None
    assert "DoctorTwin and MinerPool" in said
    assert "CustomResourceDefinition" in said
    assert world.process.unhealthy() is None
    world.process.leadership.ticked_at -= 1000.0
    assert world.process.unhealthy() is None  # a restart would bring nothing
    assert not begins.done()
    api.lacks.clear()
    async with asyncio.timeout(5):
        await begins
    assert world.process.unready() is None
    assert world.process.unhealthy() is not None
    assert len(world.process.store) == 1


async def test_a_type_that_is_gone_ends_the_process_in_words() -> None:
    world, api = played()
    await world.process.__aenter__()
    api.lacks.add("DoctorTwin")
    with pytest.raises(ExceptionGroup) as caught:
        await world.process.relist()
    (error,) = leaves(caught.value)
    assert isinstance(error, TypesChangedError)
    assert "no DoctorTwin any more" in str(error)


async def test_validators_are_not_waited_for_and_begun_with_when_they_come() -> None:
    world, api = played("Validator", "ValidatorRound")
    async with asyncio.timeout(5):
        await world.process.__aenter__()
    assert world.process.unready() is None
    await world.process.relist()  # and a later list is no trouble
    awaiting = asyncio.create_task(world.process._await_absent())
    await asyncio.sleep(0.05)
    assert not awaiting.done()
    api.lacks.discard("Validator")
    async with asyncio.timeout(5):
        with pytest.raises(TypesChangedError, match="knows Validators now"):
            await awaiting

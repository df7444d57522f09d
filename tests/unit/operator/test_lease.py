"""Leadership: never two at once, taken over in time, given back at the end."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

import pytest

from twin_operator.engine.lease import Leadership, LeaseSettings
from twin_operator.engine.resources import Resource
from twin_operator.errors import ApiError, NotLeaderError


class FakeApi:
    """One Lease with optimistic concurrency."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.down = False
        self.version = 0

    def _check(self) -> None:
        if self.down:
            raise ApiError(status=0, reason="Unreachable", message="down")

    async def get(self, resource: Resource, *, namespace: str, name: str) -> dict[str, Any] | None:
        self._check()
        return copy.deepcopy(self.lease)

    async def create(self, manifest: dict[str, Any]) -> dict[str, Any]:
        self._check()
        if self.lease is not None:
            raise ApiError(status=409, reason="AlreadyExists", message="exists")
        return self._store(manifest)

    async def replace(self, manifest: dict[str, Any]) -> dict[str, Any]:
        self._check()
        assert self.lease is not None
        if manifest["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            raise ApiError(status=409, reason="Conflict", message="changed")
        return self._store(manifest)

    def _store(self, manifest: dict[str, Any]) -> dict[str, Any]:
        self.version += 1
        self.lease = copy.deepcopy(manifest)
        self.lease["metadata"]["resourceVersion"] = str(self.version)
        return self.lease


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def api() -> FakeApi:
    return FakeApi()


def candidate(api: FakeApi, clock: Clock, name: str) -> Leadership:
    settings = LeaseSettings(namespace="n", name="l", identity=name)
    return Leadership(api, settings, clock=clock)  # type: ignore[arg-type]


def may_write(leadership: Leadership) -> bool:
    try:
        leadership.require()
    except NotLeaderError:
        return False
    return True


async def test_the_first_leads_and_the_second_waits(api: FakeApi, clock: Clock) -> None:
    one, two = candidate(api, clock, "one"), candidate(api, clock, "two")
    await one._round()
    await two._round()
    assert (may_write(one), may_write(two)) == (True, False)


async def test_a_leader_that_cannot_renew_stops_writing_before_another_may_begin(api: FakeApi, clock: Clock) -> None:
    one, two = candidate(api, clock, "one"), candidate(api, clock, "two")
    await one._round()
    await two._round()
    api.down = True
    began = clock.now
    while may_write(one):
        clock.now += 0.5
    stopped = clock.now - began
    api.down = False
    while not may_write(two):
        clock.now += 0.5
        await two._round()
        assert not may_write(one) or not may_write(two)
    assert stopped <= 6.0
    assert 10.0 <= clock.now - began <= 15.0


async def test_a_renewed_lease_is_not_taken(api: FakeApi, clock: Clock) -> None:
    one, two = candidate(api, clock, "one"), candidate(api, clock, "two")
    for _ in range(30):
        clock.now += 2
        await one._round()
        await two._round()
        assert (may_write(one), may_write(two)) == (True, False)


async def test_a_lease_given_back_is_taken_at_once(api: FakeApi, clock: Clock) -> None:
    one, two = candidate(api, clock, "one"), candidate(api, clock, "two")
    running = asyncio.create_task(one.run())
    await asyncio.wait_for(one.leading.wait(), 1)
    await two._round()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert not may_write(one)
    await two._round()
    assert may_write(two)


async def test_an_earlier_life_of_the_same_name_is_waited_for(api: FakeApi, clock: Clock) -> None:
    await candidate(api, clock, "one")._round()
    again = candidate(api, clock, "one")
    await again._round()
    assert not may_write(again)
    clock.now += 10.5
    await again._round()
    assert may_write(again)


async def test_of_two_that_take_an_expired_lease_one_wins(api: FakeApi, clock: Clock) -> None:
    await candidate(api, clock, "old")._round()
    two, three = candidate(api, clock, "two"), candidate(api, clock, "three")
    await asyncio.gather(two._round(), three._round())
    clock.now += 11
    await asyncio.gather(two._round(), three._round())
    assert [may_write(two), may_write(three)].count(True) == 1


async def test_transitions_are_counted(api: FakeApi, clock: Clock) -> None:
    await candidate(api, clock, "one")._round()
    two = candidate(api, clock, "two")
    await two._round()
    clock.now += 11
    await two._round()
    assert api.lease is not None
    assert (api.lease["spec"]["holderIdentity"], api.lease["spec"]["leaseTransitions"]) == ("two", 1)

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


def candidate(api: FakeApi, clock: Clock, name: str, **more: Any) -> Leadership:
    settings = LeaseSettings(namespace="n", name="l", identity=name, **more.pop("settings", {}))
    return Leadership(api, settings, clock=clock, **more)  # type: ignore[arg-type]


async def go_round(leadership: Leadership) -> None:
    """One round of the election, and what it starts as far as it gets without waiting."""
    await leadership._round()
    for _ in range(5):
        await asyncio.sleep(0)


def may_write(leadership: Leadership) -> bool:
    try:
        leadership.require()
    except NotLeaderError:
        return False
    return True


async def test_the_first_leads_and_the_second_waits(api: FakeApi, clock: Clock) -> None:
    one, two = candidate(api, clock, "one"), candidate(api, clock, "two")
    await go_round(one)
    await go_round(two)
    assert (may_write(one), may_write(two)) == (True, False)


async def test_a_leader_that_cannot_renew_stops_writing_before_another_may_begin(api: FakeApi, clock: Clock) -> None:
    one, two = candidate(api, clock, "one"), candidate(api, clock, "two")
    await go_round(one)
    await go_round(two)
    api.down = True
    began = clock.now
    while may_write(one):
        clock.now += 0.5
    stopped = clock.now - began
    api.down = False
    while not may_write(two):
        clock.now += 0.5
        await go_round(two)
        assert not may_write(one) or not may_write(two)
    assert stopped <= 6.0
    assert 10.0 <= clock.now - began <= 15.0


async def test_a_renewed_lease_is_not_taken(api: FakeApi, clock: Clock) -> None:
    one, two = candidate(api, clock, "one"), candidate(api, clock, "two")
    for _ in range(30):
        clock.now += 2
        await go_round(one)
        await go_round(two)
        assert (may_write(one), may_write(two)) == (True, False)


async def test_a_lease_given_back_is_taken_at_once(api: FakeApi, clock: Clock) -> None:
    one, two = candidate(api, clock, "one"), candidate(api, clock, "two")
    running = asyncio.create_task(one.run())
    await asyncio.wait_for(one.leading.wait(), 1)
    await go_round(two)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert not may_write(one)
    await go_round(two)
    assert may_write(two)


async def test_an_earlier_life_of_the_same_name_is_waited_for(api: FakeApi, clock: Clock) -> None:
    await go_round(candidate(api, clock, "one"))
    again = candidate(api, clock, "one")
    await go_round(again)
    assert not may_write(again)
    clock.now += 10.5
    await go_round(again)
    assert may_write(again)


async def test_of_two_that_take_an_expired_lease_one_wins(api: FakeApi, clock: Clock) -> None:
    await go_round(candidate(api, clock, "old"))
    two, three = candidate(api, clock, "two"), candidate(api, clock, "three")
    await asyncio.gather(go_round(two), go_round(three))
    clock.now += 11
    await asyncio.gather(go_round(two), go_round(three))
    assert [may_write(two), may_write(three)].count(True) == 1


async def test_transitions_are_counted(api: FakeApi, clock: Clock) -> None:
    await go_round(candidate(api, clock, "one"))
    two = candidate(api, clock, "two")
    await go_round(two)
    clock.now += 11
    await go_round(two)
    assert api.lease is not None
    assert (api.lease["spec"]["holderIdentity"], api.lease["spec"]["leaseTransitions"]) == ("two", 1)


async def test_what_is_left_of_the_lease_bounds_a_write(api: FakeApi, clock: Clock) -> None:
    one = candidate(api, clock, "one")
    await go_round(one)
    clock.now += 4.5
    assert one.require() == pytest.approx(1.5)


class Preparation:
    """Something that takes as long as the test says."""

    def __init__(self) -> None:
        self.begun = 0
        self.ended = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self) -> None:
        self.begun += 1
        if self.error is not None:
            raise self.error
        await self.ended.wait()


async def test_it_leads_only_when_it_has_prepared_and_renews_meanwhile(api: FakeApi, clock: Clock) -> None:
    prepare, told = Preparation(), []
    one = candidate(api, clock, "one", prepare=prepare, on_gained=lambda: told.append(one.leading.is_set()))
    two = candidate(api, clock, "two")
    for _ in range(10):
        await go_round(one)
        await go_round(two)
        clock.now += 2
        assert not may_write(one)
        assert not may_write(two)
    assert (prepare.begun, told) == (1, [])
    prepare.ended.set()
    await go_round(one)
    assert may_write(one)
    assert told == [True]


async def test_a_lease_lost_while_preparing_leads_to_nothing(api: FakeApi, clock: Clock) -> None:
    prepare, told = Preparation(), []
    one = candidate(api, clock, "one", prepare=prepare, on_gained=lambda: told.append("gained"))
    await go_round(one)
    two = candidate(api, clock, "two")
    await go_round(two)
    clock.now += 11  # as a process that was paused finds it
    await go_round(two)
    assert may_write(two)
    prepare.ended.set()
    await go_round(one)
    assert not may_write(one)
    assert told == []


async def test_what_fails_in_preparing_is_tried_again(api: FakeApi, clock: Clock) -> None:
    prepare = Preparation()
    prepare.error = ApiError(status=500, reason="x", message="y")
    one = candidate(api, clock, "one", prepare=prepare, settings={"retry": 0.01})
    running = asyncio.create_task(one.run())
    async with asyncio.timeout(5):
        while prepare.begun < 3:
            await asyncio.sleep(0.005)
        prepare.error = None
        prepare.ended.set()
        await one.leading.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_replica_that_cannot_prepare_gives_the_lease_back(api: FakeApi, clock: Clock) -> None:
    one = candidate(api, clock, "one", prepare=Preparation(), settings={"prepare_seconds": 0.02})
    await go_round(one)
    async with asyncio.timeout(5):
        while api.lease is None or api.lease["spec"]["holderIdentity"]:
            await asyncio.sleep(0.005)
    two = candidate(api, clock, "two")
    await go_round(two)
    assert (may_write(one), may_write(two)) == (False, True)


async def test_a_defect_in_preparing_ends_the_election(api: FakeApi, clock: Clock) -> None:
    prepare = Preparation()
    prepare.error = ValueError("a defect")
    one = candidate(api, clock, "one", prepare=prepare, settings={"retry": 0.01})
    with pytest.raises(ValueError, match="a defect"):
        await asyncio.wait_for(one.run(), 5)
    assert api.lease is not None
    assert api.lease["spec"]["holderIdentity"] == ""

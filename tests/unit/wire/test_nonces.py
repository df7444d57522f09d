"""Stores of nonces: in memory, and a real Redis server between replicas. What they forgot they don't vouch for."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from neurons.wire import nonces as module
from neurons.wire.admission import Policy
from neurons.wire.nonces import MemoryNonces, RedisNonces, StoreDown, StoreForgot
from neurons.wire.refusals import WireRefusal
from tests.unit.receipts.keyring import MINER, VALIDATOR
from tests.unit.wire.doors import Clock, Door
from tests.unit.wire.redis_server import RedisServer, longest_stall

SKEW = 2.0


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with tempfile.TemporaryDirectory(prefix="nonces-") as folder:
        made = RedisServer(Path(folder))
        made.start()
        yield made
        made.stop()


def store(server: RedisServer, *, skew: float = 0.0) -> RedisNonces:
    """One replica's connection. Without skew, what is signed from now on is judged at once."""
    return RedisNonces.connect(server.url, receiver=MINER.ss58_address, window_seconds=10, skew_seconds=skew)


@pytest_asyncio.fixture
async def replicas(server: RedisServer) -> AsyncIterator[tuple[RedisNonces, RedisNonces]]:
    both = store(server), store(server)
    for each in both:
        await each.remember("begin", time.time_ns() + 10**9)
    yield both
    for each in both:
        await each.close()


async def test_a_replay_at_another_replica_is_refused(replicas: tuple[RedisNonces, RedisNonces]) -> None:
    policy = Policy(allowed_skew=0.5)
    one, other = (Door(nonces=nonces, policy=policy) for nonces in replicas)
    other.clock.ns = one.clock.ns
    headers = one.sign()
    assert (await one.admit(headers)).hotkey == VALIDATOR.ss58_address
    with pytest.raises(WireRefusal, match="accepted before") as caught:
        await other.admit(headers)
    assert (caught.value.status, caught.value.code) == (401, "replayed")


async def test_of_replays_at_the_same_moment_at_two_replicas_one_is_let_in(
    replicas: tuple[RedisNonces, RedisNonces],
) -> None:
    now = time.time_ns()
    said = await asyncio.gather(*(replicas[number % 2].remember("a", now) for number in range(20)))
    assert said.count(True) == 1


async def test_a_busy_miner_asks_the_store_for_many_at_once(server: RedisServer) -> None:
    nonces = store(server)
    async with Redis.from_url(server.url) as client:
        await nonces.remember("begin", time.time_ns() + 10**9)
        await client.config_resetstat()
        now = time.time_ns()
        said = await asyncio.gather(*(nonces.remember("busy", now + number // 2) for number in range(200)))
        assert said.count(True) == 100, "each pair was there twice"
        asked = sum(each["calls"] for name, each in (await client.info("commandstats")).items() if "eval" in name)
        assert 1 <= asked <= 3
    await nonces.close()


async def test_who_gives_up_waiting_for_the_store_takes_nobody_with_it(server: RedisServer) -> None:
    nonces = store(server)
    now = time.time_ns() + 10**9
    waiting = [asyncio.create_task(nonces.remember("gone", now + number)) for number in range(3)]
    await asyncio.sleep(0)
    waiting[1].cancel()
    said = await asyncio.gather(*waiting, return_exceptions=True)
    assert said[0] is said[2] is True
    assert isinstance(said[1], asyncio.CancelledError)
    await nonces.close()


async def test_whoever_waits_when_the_miner_ends_is_told_so(server: RedisServer) -> None:
    nonces = store(server)
    server.freeze()
    try:
        asked = asyncio.create_task(nonces.remember("late", time.time_ns() + 10**9))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await nonces.close()
        with pytest.raises(StoreDown):
            await asked
    finally:
        server.thaw()


async def test_an_entry_goes_when_its_request_is_stale(server: RedisServer) -> None:
    nonces = store(server, skew=SKEW)
    await nonces.remember("ttl", time.time_ns() + 10**10)
    async with Redis.from_url(server.url) as client:
        [key] = [key async for key in client.scan_iter(match="*:ttl:*")]
        assert 12_000 <= await client.pttl(key) <= 13_000
        assert key.startswith(b"bettertherapy:btauth:{" + MINER.ss58_address.encode() + b"}:")
    await nonces.close()


async def test_a_store_that_is_away_is_named_and_is_asked_again_when_it_is_back() -> None:
    with tempfile.TemporaryDirectory(prefix="nonces-") as folder:
        server = RedisServer(Path(folder))
        nonces = store(server)
        with pytest.raises(StoreDown):
            await nonces.remember("a", time.time_ns())
        server.start()
        try:
            before = time.time_ns()
            with pytest.raises(StoreForgot):
                await nonces.remember("a", before)
            assert await nonces.remember("a", time.time_ns() + 1)
            server.stop()
            with pytest.raises(StoreDown) as caught:
                await nonces.remember("a", time.time_ns())
            assert "/" not in str(caught.value), "an address may hold a password"
            server.start()
            # It restarted and forgot: what was signed before is not judged, what is signed now is.
            accepted_before = time.time_ns() - 10**9
            with pytest.raises(StoreForgot):
                await nonces.remember("a", accepted_before)
            assert await nonces.remember("a", time.time_ns() + 1)
        finally:
            server.stop()
            await nonces.close()


async def test_a_store_that_came_back_from_a_snapshot_vouches_for_nothing_before() -> None:
    """As Redis is by default: what it wrote after its last snapshot is lost, and its beginning isn't."""
    with tempfile.TemporaryDirectory(prefix="nonces-") as folder:
        server = RedisServer(Path(folder), snapshots=True)
        server.start()
        nonces = store(server)
        try:
            with pytest.raises(StoreForgot):
                await nonces.remember("begin", time.time_ns())
            async with Redis.from_url(server.url) as client:
                await client.save()
            accepted = time.time_ns()
            assert await nonces.remember("a", accepted)
            server.kill()
            server.start()
            with pytest.raises(StoreForgot):
                await nonces.remember("a", accepted)
            assert await nonces.remember("a", time.time_ns() + 1)
        finally:
            server.stop()
            await nonces.close()


async def test_a_store_that_may_not_say_which_server_it_is_is_asked_all_the_same(server: RedisServer) -> None:
    async with Redis.from_url(server.url) as client:
        await client.execute_command(
            "ACL", "SETUSER", "narrow", "on", ">pass", "~*", "+ping", "+eval", "+get", "+set", "+client", "+hello"
        )
    nonces = RedisNonces(
        Redis.from_url(server.url, username="narrow", password="pass"),
        receiver="narrow", window_seconds=10, skew_seconds=0,
    )  # fmt: skip
    with pytest.raises(StoreForgot):
        await nonces.remember("a", time.time_ns())
    assert await nonces.remember("a", now := time.time_ns())
    assert not await nonces.remember("a", now)
    await nonces.close()


async def test_a_store_that_hangs_holds_up_no_other_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REDIS_SECONDS", 0.2)
    with tempfile.TemporaryDirectory(prefix="nonces-") as folder:
        server = RedisServer(Path(folder))
        server.start()
        nonces = store(server)
        try:
            await nonces.remember("a", time.time_ns() + 10**9)
            server.freeze()
            begun = time.monotonic()
            asked = [asyncio.create_task(nonces.remember("a", time.time_ns())) for _ in range(50)]
            stalled = await longest_stall(0.3)
            said = await asyncio.gather(*asked, return_exceptions=True)
            assert all(isinstance(each, StoreDown) for each in said), said
            assert time.monotonic() - begun < 5
            assert stalled < 0.5, "the event loop stood still"
            server.thaw()
            assert await nonces.remember("a", time.time_ns() + 1)
        finally:
            server.stop()
            await nonces.close()


async def test_memory_forgets_what_is_stale_and_holds_no_more_than_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ENTRIES", 3)
    clock = Clock()
    nonces = MemoryNonces(window_seconds=10, skew_seconds=SKEW, clock_ns=clock)
    clock.forward(SKEW + 1)
    for number in range(3):
        assert await nonces.remember("a", clock.ns + number)
    with pytest.raises(StoreDown, match="3 requests"):
        await nonces.remember("a", clock.ns + 4)
    clock.forward(10 + SKEW + 0.1)
    assert await nonces.remember("a", clock.ns + 5)


async def test_a_restarted_miner_does_not_judge_what_its_former_self_may_have_accepted() -> None:
    clock = Clock()
    nonces = MemoryNonces(window_seconds=10, skew_seconds=SKEW, clock_ns=clock)
    for signed_at in (clock.ns - 10**9, clock.ns, clock.ns + int(SKEW * 1e9)):
        with pytest.raises(StoreForgot):
            await nonces.remember("a", signed_at)
    assert await nonces.remember("a", clock.ns + int(SKEW * 1e9) + 1)


def test_an_address_that_is_none_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="redis://"):
        RedisNonces.connect("http://nonces", receiver="5x", window_seconds=10, skew_seconds=2)

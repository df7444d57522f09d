"""The queue: each key once, never by two workers, failures later, no error ends a worker."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable

import pytest
import uvloop

from twin_operator.engine.queue import DEBOUNCE, FIRST_DELAY, LARGEST_DELAY, Queue, work
from twin_operator.engine.resources import Key
from twin_operator.errors import ApiError, ConflictError, NotLeaderError, OperatorError

A, B = Key("DoctorTwin", "n", "a"), Key("DoctorTwin", "n", "b")


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def working(queue: Queue, reconcile: Callable[[Key], Awaitable[None]], *, workers: int = 1, leads: bool = True):  # type: ignore[no-untyped-def]
    may_work = asyncio.Event()
    if leads:
        may_work.set()
    tasks = [asyncio.create_task(work(queue, reconcile, may_work=may_work)) for _ in range(workers)]
    try:
        yield may_work
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_key_that_waits_is_worked_on_once() -> None:
    queue, seen = Queue(), []
    for _ in range(10):
        queue.add(A)
    queue.add(B)

    async def reconcile(key: Key) -> None:
        seen.append(key)

    async with working(queue, reconcile):
        await eventually(lambda: len(seen) == 2)
    assert seen == [A, B]


async def test_a_change_during_the_work_brings_the_key_back_once() -> None:
    queue, runs, release = Queue(), [], asyncio.Event()

    async def reconcile(key: Key) -> None:
        runs.append(key)
        await release.wait()

    queue.add(A)
    async with working(queue, reconcile, workers=3):
        await eventually(lambda: len(runs) == 1)
        for _ in range(5):
            queue.add(A)
        await asyncio.sleep(0)
        assert len(runs) == 1, "two workers must never hold one key"
        release.set()
        await eventually(lambda: len(runs) == 2)
        queue.add(B)
        await eventually(lambda: len(runs) == 3)
    assert runs == [A, A, B]


@pytest.mark.parametrize("error", [ApiError(status=500, reason="x", message="y"), ValueError("a defect")])
async def test_a_failing_key_is_tried_again_and_does_not_stop_the_others(error: Exception) -> None:
    queue, runs = Queue(random_source=random.Random(1)), []

    async def reconcile(key: Key) -> None:
        runs.append(key)
        if key == A and runs.count(A) < 2:
            raise error

    queue.add(A)
    queue.add(B)
    async with working(queue, reconcile):
        await eventually(lambda: runs.count(A) == 2)
    assert B in runs


async def test_delays_grow_up_to_a_bound_and_start_anew_after_success() -> None:
    queue = Queue(random_source=random.Random(1))
    delays = []
    for _ in range(20):
        queue.add(A, urgent=True)
        assert await queue.take() == A
        delays.append(queue.failed(A))
    assert 0.75 * FIRST_DELAY <= delays[0] <= 1.25 * FIRST_DELAY
    assert delays[3] > 3 * delays[0]
    assert max(delays) <= 1.25 * LARGEST_DELAY
    queue.add(A, urgent=True)
    queue.done(await queue.take())
    queue.add(A)
    await queue.take()
    assert queue.failed(A) <= 1.25 * FIRST_DELAY


async def test_a_new_change_does_not_wait_for_the_delay() -> None:
    queue = Queue()
    queue.add_after(A, 60)
    queue.add(A)
    async with asyncio.timeout(1):
        assert await queue.take() == A


async def test_nothing_is_worked_on_without_leadership() -> None:
    queue, runs = Queue(), []

    async def reconcile(key: Key) -> None:
        runs.append(key)

    queue.add(A)
    async with working(queue, reconcile, leads=False) as may_work:
        await asyncio.sleep(0.05)
        assert runs == []
        may_work.set()
        await eventually(lambda: runs == [A])


async def test_what_patients_wait_for_goes_first() -> None:
    queue, pool = Queue(urgent=["MinerPool"]), Key("MinerPool", "n", "p")
    for key in (A, B, pool):
        queue.add(key)
    assert [await queue.take() for _ in range(3)] == [pool, A, B]


async def test_what_a_person_asks_goes_before_all_that_waits_and_what_waited_already_moves_up() -> None:
    queue, pool = Queue(priorities={"MinerPool": -2}), Key("MinerPool", "n", "p")
    for key in (pool, A, B):
        queue.add(key)
    queue.add(B, urgent=True)
    queue.add(B)
    assert len(queue) == 3
    assert [await queue.take() for _ in range(3)] == [B, pool, A]
    assert len(queue) == 0


async def test_what_a_person_asks_during_the_work_goes_first_afterwards_and_so_it_does_after_a_conflict() -> None:
    queue = Queue()
    queue.add(A)
    key = await queue.take()
    queue.add(B)
    queue.add(A, urgent=True)
    queue.done(key)
    key = await queue.take()
    assert key == A
    queue.conflicted(key)
    key = await queue.take()
    assert key == A
    queue.done(key)
    assert await queue.take() == B


async def test_a_conflict_puts_nothing_before_others() -> None:
    queue = Queue()
    queue.add(A)
    key = await queue.take()
    queue.add(B)
    queue.conflicted(key)
    assert [await queue.take() for _ in range(2)] == [B, A]


@pytest.mark.parametrize("asked", [False, True])
async def test_whoever_keeps_the_queue_busy_others_get_their_share(asked: bool) -> None:
    run, pool = Key("FineTuneRun", "n", "r"), Key("MinerPool", "n", "p")
    queue, taken = Queue(priorities={"DoctorTwin": 0, "MinerPool": 1, "FineTuneRun": 2}), []
    queue.add(run)
    queue.add(pool)
    for number in range(100):
        queue.add(Key("DoctorTwin", "n", f"{number}"))
    for _ in range(50):
        key = await queue.take()
        taken.append(key)
        queue.done(key)
        queue.add(key, urgent=asked and key.kind == "DoctorTwin")
    assert taken.index(run) < 10, "the oldest of those behind"
    assert taken.index(pool) < 20
    assert len([key for key in taken if key.kind == "DoctorTwin"]) > 40


async def test_of_a_kind_that_others_may_hold_up_only_so_many_are_worked_on_at_once() -> None:
    queue = Queue(priorities={"FineTuneRun": -1}, at_once={"FineTuneRun": 1})
    runs, seen, release = [Key("FineTuneRun", "n", f"{number}") for number in range(3)], [], asyncio.Event()

    async def reconcile(key: Key) -> None:
        seen.append(key)
        if key.kind == "FineTuneRun":
            await release.wait()

    for key in (*runs, A):
        queue.add(key)
    queue.add(runs[2], urgent=True)
    async with working(queue, reconcile, workers=4):
        await eventually(lambda: A in seen)
        assert [key for key in seen if key.kind == "FineTuneRun"] == [runs[2]]
        release.set()
        await eventually(lambda: len(seen) == 4)


async def test_losing_leadership_in_the_middle_is_no_failure() -> None:
    queue = Queue()

    async def reconcile(key: Key) -> None:
        raise NotLeaderError("x")

    queue.add(A)
    async with working(queue, reconcile):
        await eventually(lambda: len(queue) == 0 and not queue.started_at)
    assert queue._failures == {}
    assert issubclass(NotLeaderError, OperatorError)


async def test_lanes_go_by_declared_priority_and_each_in_order_of_arrival() -> None:
    queue = Queue(priorities={"Validator": 2, "MinerPool": -2, "FineTuneRun": 1})
    kinds = ["Validator", "FineTuneRun", "DoctorTwin", "MinerPool", "FineTuneRun", "DoctorTwin"]
    keys = [Key(kind, "n", f"{number}") for number, kind in enumerate(kinds)]
    for key in keys:
        queue.add(key)
    assert [await queue.take() for _ in keys] == [keys[number] for number in (3, 2, 5, 1, 4, 0)]


async def test_changes_around_a_failed_key_do_not_cut_its_delay_short() -> None:
    queue = Queue(random_source=random.Random(1))
    queue.add(A)
    queue.failed(await queue.take())
    for _ in range(3):
        queue.add(A)
        queue.add_soon(A)
        assert len(queue) == 0
    queue.add(B)
    assert await queue.take() == B
    async with asyncio.timeout(2):
        assert await queue.take() == A, "the delay itself brings it back"
    assert queue.failed(A) > 1.25 * FIRST_DELAY, "and goes on growing"


async def test_a_change_of_the_object_itself_does_not_wait_for_the_delay() -> None:
    queue = Queue(random_source=random.Random(1))
    for _ in range(6):
        queue.add(A, urgent=True)
        assert len(queue) == 1
        delay = queue.failed(await queue.take())
    assert delay > 2.0


async def test_a_change_during_failing_work_waits_for_the_delay_unless_it_is_urgent() -> None:
    queue = Queue(random_source=random.Random(1))
    queue.add(A)
    key = await queue.take()
    queue.add(A)
    queue.failed(key)
    assert len(queue) == 0
    queue.add(A, urgent=True)
    key = await queue.take()
    queue.add(A, urgent=True)
    queue.add(A)
    queue.failed(key)
    assert len(queue) == 1


async def test_many_changes_within_a_moment_make_one_reconciliation_no_later_than_after_it() -> None:
    queue, runs = Queue(), []

    async def reconcile(key: Key) -> None:
        runs.append(asyncio.get_running_loop().time())

    begun = asyncio.get_running_loop().time()
    async with working(queue, reconcile):
        while asyncio.get_running_loop().time() < begun + 0.04:
            queue.add_soon(A)
            await asyncio.sleep(0.002)
        await eventually(lambda: bool(runs))
        assert len(runs) == 1
        assert runs[0] >= begun + DEBOUNCE - 0.005
        await asyncio.sleep(2 * DEBOUNCE)
        assert len(runs) == 1


async def test_what_follows_on_the_heels_of_a_key_makes_one_reconciliation_more() -> None:
    queue = Queue(spacing={A.kind: 1.0})
    seen: list[tuple[Key, float]] = []
    loop = asyncio.get_running_loop()

    async def reconcile(key: Key) -> None:
        seen.append((key, loop.time()))
        if len(seen) == 1:
            queue.add(A)  # its own status, as the store hears of it

    async with working(queue, reconcile):
        began = loop.time()
        queue.add(A)
        await eventually(lambda: len(seen) == 1)
        assert seen[0][1] - began < 0.5
        for _ in range(5):
            queue.add(A)
            await asyncio.sleep(0.005)
        queue.add(B)  # another key does not wait
        await eventually(lambda: len(seen) == 2)
        assert seen[1][0] == B
        await eventually(lambda: len(seen) == 3)
        assert seen[2][0] == A
        assert 0.99 <= seen[2][1] - seen[0][1] < 4
        queue.add(A, urgent=True)  # what a person asks does not wait either
        await eventually(lambda: len(seen) == 4)
        assert seen[3][1] - seen[2][1] < 0.9
        await asyncio.sleep(1.1)
        assert len(seen) == 4
    assert A in queue._taken[A.kind]
    queue.clear()
    assert not queue._taken[A.kind]


async def test_a_conflict_is_looked_at_again_at_once_but_not_for_ever() -> None:
    queue, runs = Queue(random_source=random.Random(1)), []

    async def reconcile(key: Key) -> None:
        runs.append((asyncio.get_running_loop().time(), queue._failures.get(key, 0)))
        raise ConflictError("changed")

    queue.add(A)
    async with working(queue, reconcile):
        await eventually(lambda: len(runs) == 7)
    assert [failures for _, failures in runs] == [0] * 6 + [1], "only the last one had to wait"
    assert runs[6][0] - runs[5][0] >= 0.7 * FIRST_DELAY


async def test_nothing_is_kept_of_keys_that_are_done() -> None:
    queue = Queue()
    for number in range(100):
        key = Key("DoctorTwin", "n", f"{number}")
        queue.add(key)
        queue.failed(await queue.take())
        queue.add(key, urgent=True)
        queue.conflicted(await queue.take())
        queue.done(await queue.take())
    kept = (
        queue._failures,
        queue._conflicts,
        queue._held_until,
        queue._timers,
        queue._again,
        queue._active,
        queue._asked,
    )
    assert [len(each) for each in kept] == [0] * 7


def test_what_is_due_at_once_may_be_added_again_on_the_loop_that_the_operator_runs_on() -> None:
    """uvloop's handle for what is due already does not say when: adding the same key again failed on it."""

    async def add_twice() -> Key:
        queue = Queue()
        for _ in range(2):
            queue.add_after(A, 0.0)
        return await queue.take()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(add_twice()) == A


@pytest.mark.parametrize("workers", [1, 4])
async def test_keys_that_wait_for_nothing_let_everything_else_go_on(workers: int) -> None:
    """After a restart thousands of keys need no request at all; the Lease is renewed, watches are read all the same."""
    queue, turns = Queue(), 0

    async def reconcile(key: Key) -> None:
        """Find that all is as it should be."""

    async def others() -> None:
        nonlocal turns
        while len(queue):
            turns += 1
            await asyncio.sleep(0)

    for number in range(200):
        queue.add(Key("DoctorTwin", "n", str(number)))
    async with working(queue, reconcile, workers=workers):
        await asyncio.wait_for(others(), 10)
    assert turns >= 200 / workers / 2

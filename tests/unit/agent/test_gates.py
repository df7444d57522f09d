"""At most four fetches at once, whatever the store does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from neurons.agent.gates import Gates
from neurons.store import Limits, StoreUnreachable, fetch_adapter, locations
from neurons.store.activity import in_thread
from tests.standin import write_adapter


class Crowd:
    """Counts how many are inside at once."""

    def __init__(self) -> None:
        self.inside = self.most = 0
        self._lock = threading.Lock()

    def enter(self) -> None:
        with self._lock:
            self.inside += 1
            self.most = max(self.most, self.inside)

    def leave(self) -> None:
        with self._lock:
            self.inside -= 1


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_hundred_that_hang_are_never_more_than_four() -> None:
    gates, crowd = Gates(fetches=4, loads=4, slow_seconds=0.05), Crowd()
    ended = 0

    async def hang() -> None:
        crowd.enter()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.02)  # an orderly end takes its time, and counts
            crowd.leave()

    async def one() -> None:
        nonlocal ended
        with pytest.raises(StoreUnreachable, match="waited for their turn"):
            await gates.fetch(hang)
        ended += 1

    tasks = [asyncio.create_task(one()) for _ in range(100)]
    await until(lambda: ended >= 40)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert crowd.most == 4


async def test_a_thread_that_outlives_its_fetch_keeps_the_place() -> None:
    gates, crowd, release = Gates(fetches=4, loads=4, slow_seconds=0.05), Crowd(), threading.Event()

    def read() -> None:
        crowd.enter()
        release.wait(20)
        crowd.leave()

    async def give_up_soon() -> None:
        async with asyncio.timeout(0.05):
            await in_thread(read)

    async def one() -> None:
        for _ in range(3):  # as the keeper does: try again
            try:
                await gates.fetch(give_up_soon)
            except TimeoutError:
                continue

    tasks = [asyncio.create_task(one()) for _ in range(20)]
    await until(lambda: crowd.inside == 4)
    await asyncio.sleep(0.5)  # ten times as long as each of them waits
    assert crowd.most == 4
    release.set()
    await asyncio.wait(tasks)
    assert crowd.most == 4
    await asyncio.wait_for(gates.fetch(lambda: in_thread(int)), 5)


async def test_one_that_moves_is_not_ended_however_long_it_takes() -> None:
    gates = Gates(fetches=1, loads=1, slow_seconds=2.0)

    async def slow() -> str:
        for _ in range(30):
            await asyncio.sleep(0.1)
            await in_thread(int)
        return "done"

    async def quick() -> str:
        return "quick"

    assert await asyncio.gather(gates.fetch(slow), gates.fetch(quick)) == ["done", "quick"]


async def test_one_that_hangs_alone_is_left_in_peace() -> None:
    gates, release = Gates(fetches=1, loads=1, slow_seconds=0.02), asyncio.Event()

    async def wait() -> str:
        await release.wait()
        return "done"

    task = asyncio.create_task(gates.fetch(wait))
    await asyncio.sleep(0.2)
    release.set()
    assert await task == "done"


async def test_cancelled_ones_give_their_places_back() -> None:
    gates = Gates(fetches=2, loads=1)
    tasks = [asyncio.create_task(gates.fetch(asyncio.Event().wait)) for _ in range(6)]
    await asyncio.sleep(0.05)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    async with asyncio.timeout(5):
        await asyncio.gather(*(gates.fetch(lambda: in_thread(int)) for _ in range(4)))


async def test_a_mount_that_hangs_holds_four_threads_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gates, crowd, release = Gates(fetches=4, loads=4, slow_seconds=0.1), Crowd(), threading.Event()
    read = locations._piece

    def hang(path: Path, at: int) -> bytes:
        crowd.enter()
        try:
            release.wait(20)
            return read(path, at)
        finally:
            crowd.leave()

    monkeypatch.setattr(locations, "_piece", hang)
    adapters = [write_adapter(tmp_path / "store", f"dr-{number}") for number in range(12)]
    limits = Limits(call=0.1)
    came: set[str] = set()

    async def keep(number: int) -> None:
        adapter = adapters[number]
        while True:
            try:
                await gates.fetch(
                    lambda: fetch_adapter(
                        adapter.uri, adapter.digest, tmp_path / "pod" / adapter.twin / "a", limits=limits
                    )
                )
            except StoreUnreachable:
                await asyncio.sleep(0.01)
            else:
                came.add(adapter.twin)
                return

    tasks = [asyncio.create_task(keep(number)) for number in range(12)]
    await until(lambda: crowd.inside == 4)
    await asyncio.sleep(0.6)
    assert crowd.most == 4
    release.set()
    await asyncio.wait(tasks, timeout=20)
    assert len(came) == 12

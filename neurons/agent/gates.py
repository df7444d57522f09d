"""How many adapters may be fetched, how many loaded, and how many unloaded, at the same time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from neurons.store import StoreUnreachable
from neurons.store.activity import Activity, watched

T = TypeVar("T")
SLOW_FETCH_SECONDS: Final = 5.0
UNLOADS: Final = 16
"""A thousand twins may leave in one moment, and each question to the engine is a connection of its own. More than
loads: an unload costs the engine nothing, and one that isn't answered holds its place until its time is over."""


class Gates:
    """Places for fetches, and for loads into the engine.

    A fetch keeps its place until all of it has ended, the threads too that a cancellation can't end: memory and
    connections follow the places. One that brought nothing for `slow_seconds` while others wait is ended and goes
    to the end of the line, so that a dead store doesn't stop the others.
    """

    def __init__(self, *, fetches: int, loads: int, slow_seconds: float = SLOW_FETCH_SECONDS) -> None:
        self._fetches = asyncio.Semaphore(fetches)
        self.engine = asyncio.Semaphore(loads)
        self.unloads = asyncio.Semaphore(UNLOADS)
        self._slow_seconds = slow_seconds
        self._waiting = 0

    async def fetch(self, work: Callable[[], Awaitable[T]]) -> T:
        """Run `work` when a place is free. Raises what it raises, and StoreUnreachable when it had to make way."""
        self._waiting += 1
        try:
            await self._fetches.acquire()
        finally:
            self._waiting -= 1
        with watched() as activity:
            task: asyncio.Future[T] = asyncio.ensure_future(_run(work))
        task.add_done_callback(lambda _: self._leave(activity))
        try:
            while not task.done():
                await asyncio.wait({task}, timeout=self._slow_seconds / 4)
                if not task.done() and self._waiting and time.monotonic() - activity.moved_at > self._slow_seconds:
                    task.cancel()
                    await asyncio.wait({task})
                    raise StoreUnreachable(
                        f"the store sent nothing for {self._slow_seconds:.0f} s while other adapters waited for their "
                        "turn. It is tried again; check that the store is up and that pods may reach it."
                    )
            return await task
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task})
            if not task.cancelled():
                task.exception()  # seen

    def _leave(self, activity: Activity) -> None:
        """Give the place back once no thread of the work runs any more."""
        left: set[asyncio.Future[Any]] = set(activity.threads)
        if not left:
            self._fetches.release()
            return

        def ended(thread: asyncio.Future[Any]) -> None:
            left.discard(thread)
            if not left:
                self._fetches.release()

        for thread in tuple(left):
            thread.add_done_callback(ended)


async def _run(work: Callable[[], Awaitable[T]]) -> T:
    return await work()

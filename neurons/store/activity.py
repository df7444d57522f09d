"""What a fetch is doing, for whoever bounds it: threads that outlive a cancellation, and when bytes last came.

A thread can't be cancelled. One that reads from a dead mount goes on after its caller has given up; who allows four
fetches at once has to count it until it has ended, or hundreds pile up.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(eq=False, slots=True)
class Activity:
    """Of one piece of work and all that it starts."""

    moved_at: float = field(default_factory=time.monotonic)
    """When bytes last came, or a step was done (time.monotonic)."""
    threads: set[asyncio.Future[Any]] = field(default_factory=set)
    """What runs in threads at this moment, though its caller may be gone."""


_current: ContextVar[Activity | None] = ContextVar("activity", default=None)


@contextmanager
def watched() -> Iterator[Activity]:
    """Yield the activity of what is begun inside."""
    activity = Activity()
    token = _current.set(activity)
    try:
        yield activity
    finally:
        _current.reset(token)


def moved() -> None:
    """Tell that the work makes progress."""
    if (activity := _current.get()) is not None:
        activity.moved_at = time.monotonic()


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a blocking function in a thread. A cancelled caller doesn't wait for it; the activity goes on counting it."""
    result = await asyncio.shield(_begin(function, *args, **kwargs))
    moved()
    return result


async def to_the_end(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a blocking function in a thread; a cancelled caller waits for it, so that nothing is cleaned up beneath "
    "it."""
    future = _begin(function, *args, **kwargs)
    try:
        result = await asyncio.shield(future)
    except asyncio.CancelledError:
        while not future.done():
            try:
                await asyncio.wait({future})
            except asyncio.CancelledError:
                continue
        raise
    moved()
    return result


def _begin(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
    future = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
    activity = _current.get()
    if activity is not None:
        activity.threads.add(future)
    future.add_done_callback(lambda done: _ended(done, activity))
    return future


def _ended(future: asyncio.Future[Any], activity: Activity | None) -> None:
    if activity is not None:
        activity.threads.discard(future)
    if not future.cancelled():
        future.exception()  # seen, also when nobody waits any more

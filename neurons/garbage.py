"""Keeps Python's garbage collector from stopping a process that patients wait for.

A full collection walks all that is alive: with the tables of a thousand twins that is a tenth of a second in which no
token goes on. It looks for cycles, and those tables have none: what is dropped of them is freed by its reference count.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

_THRESHOLDS: Final = (10_000, 20, 50)
"""New objects before a young collection, young ones before a middle one, middle ones before a full one."""
_FULL: Final = 2
"""Generation of a full collection."""
_FIRST_SECONDS: Final = 30.0
"""So long after the start, what is read at the start is there."""
_AGAIN_SECONDS: Final = 600.0
_WHOLE_EVERY: Final = 6
"""Of so many times, all that is alive is looked at once: what was under way when it was set aside may have become a
cycle since, and would stay. A request that broke off does, with its text."""


@asynccontextmanager
async def set_aside() -> AsyncIterator[None]:
    """While the block lasts, collect seldom, and hardly ever look again at what was alive a while ago.

    For the whole of a process: it changes Python's own collector.
    """
    gc.set_threshold(*_THRESHOLDS)
    gc.callbacks.append(_after_collection)
    gc.freeze()
    task = asyncio.create_task(_now_and_then())
    try:
        yield
    finally:
        gc.callbacks.remove(_after_collection)
        task.cancel()
        await asyncio.wait({task})


def _after_collection(phase: str, info: Mapping[str, int]) -> None:
    """Set aside what a full collection has left: tables that came since would be walked by each."""
    if phase == "stop" and info["generation"] == _FULL:
        gc.freeze()


async def _now_and_then() -> None:
    for number in itertools.count():
        await asyncio.sleep(_AGAIN_SECONDS if number else _FIRST_SECONDS)
        if number % _WHOLE_EVERY == _WHOLE_EVERY - 1:
            gc.unfreeze()
        gc.collect()  # else of what is new since the last time; what it leaves is set aside

"""How long one callback keeps an event loop from its other work, by the thread's clock: a busy machine adds nothing.

It is what asyncio's slow-callback warning measures, which only its debug mode has.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

LONGEST_SECONDS = 0.05
"""A patient's token, a poll of the engine and a Lease wait no longer for anybody."""


@dataclass
class Holds:
    """The longest callback seen."""

    seconds: float = 0.0
    callback: str = ""
    callbacks: int = 0


@contextmanager
def measured_holds() -> Iterator[Holds]:
    """Measure each callback of all loops in this process, the collector's visits to older objects apart."""
    holds = Holds()
    run = asyncio.Handle._run

    def measured(handle: asyncio.Handle) -> None:
        began = time.thread_time()
        run(handle)
        took = time.thread_time() - began
        holds.callbacks += 1
        if took > holds.seconds:
            holds.seconds, holds.callback = took, repr(handle)

    gc.collect()
    gc.freeze()
    asyncio.Handle._run = measured  # type: ignore[method-assign]
    try:
        yield holds
    finally:
        asyncio.Handle._run = run  # type: ignore[method-assign]
        gc.unfreeze()

"""Asking no faster than an endpoint takes: a `Substrate` that lets so many requests a second through to another.

Public endpoints take about one request a second, and the SDK asks for several things at once. Below the SDK is the one
place where every request passes.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

import bittensor as bt

PUBLIC_REQUESTS_PER_SECOND: Final = 1.0
UNPACED: Final = {"close", "compose", "balance"}
"""Methods that ask nothing of the endpoint."""
MOST_KNOWN: Final = 64
"""Blocks whose hash is taken for remembered by the SDK's transport."""


def paced(
    substrate: bt.Substrate,
    *,
    per_second: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> bt.Substrate:
    """Return the same substrate, whose requests go out one by one and at most so many a second."""
    return cast(bt.Substrate, _Paced(substrate, 1.0 / per_second, clock, sleep))


class _Paced:
    def __init__(
        self,
        substrate: bt.Substrate,
        interval: float,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self.__dict__.update(
            _substrate=substrate,
            _interval=interval,
            _clock=clock,
            _sleep=sleep,
            _free_at=clock(),
            _turn=asyncio.Lock(),
            _known={},
        )

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._substrate, name)
        if name in UNPACED or not inspect.iscoroutinefunction(found):
            return found

        async def waits(*args: Any, **kwargs: Any) -> Any:
            # A block's hash never changes: the SDK's transport remembers it, and asks nobody a second time.
            if name == "block_hash" and args and args[0] in self._known:
                return await found(*args, **kwargs)
            await self._wait()
            answer = await found(*args, **kwargs)
            if name == "block_hash" and args:
                self._known[args[0]] = None
                if len(self._known) > MOST_KNOWN:
                    self._known.pop(next(iter(self._known)))
            return answer

        return waits

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._substrate, name, value)  # the SDK installs the tokens' symbols

    async def _wait(self) -> None:
        async with self._turn:
            wait = self._free_at - self._clock()
            if wait > 0:
                await self._sleep(wait)
            self.__dict__["_free_at"] = max(self._free_at, self._clock()) + self._interval

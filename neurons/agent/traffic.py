"""Who is asking what right now: requests in flight per served name."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager


class BrokenOff(Exception):  # noqa: N818 - it says what became of a request
    """A request was broken off by the agent itself: no good answer to it comes from this engine."""


class Traffic:
    """Counts requests from before they are sent on until their last byte is out."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._running: Counter[str] = Counter()
        self._total = 0
        self._last: dict[str, float] = {}
        self._limits: dict[asyncio.Timeout, str] = {}
        """What ends each request, if it is to be broken off."""
        self._idle: dict[str | None, list[asyncio.Future[None]]] = {}
        self.unanswered = 0
        """Requests whose client left before the engine's first byte; many of them with no progress are a bad sign."""

    @property
    def total(self) -> int:
        """Requests in flight, all names together."""
        return self._total

    def running(self, name: str) -> int:
        """Return the requests in flight under one name."""
        return self._running[name]

    @asynccontextmanager
    async def request(self, name: str) -> AsyncIterator[None]:
        """Count one request for as long as the context lasts. Raises BrokenOff for one that was; awaits nothing."""
        self._running[name] += 1
        self._total += 1
        limit = asyncio.timeout(None)
        try:
            async with limit:
                self._limits[limit] = name
                try:
                    yield
                finally:
                    del self._limits[limit]
        except TimeoutError:
            if limit.expired():
                raise BrokenOff from None
            raise
        finally:
            self._last[name] = self._clock()
            self._running[name] -= 1
            self._total -= 1
            if self._running[name] <= 0:
                del self._running[name]
                self._wake(name)
            if not self._running:
                self._wake(None)

    def abort(self, name: str | None = None) -> None:
        """Break off what runs under a name, or everything: no good answer comes, and miners can ask another pod."""
        now = asyncio.get_running_loop().time()
        for limit, running in self._limits.items():
            if name in (None, running) and not limit.expired():
                limit.reschedule(now)

    async def idle(self, name: str | None = None) -> None:
        """Wait until no request runs under `name`, or none at all. Callers set their own time limit."""
        while self._running[name] if name is not None else self.total:
            future = asyncio.get_running_loop().create_future()
            self._idle.setdefault(name, []).append(future)
            await future

    def used_within(self, seconds: float) -> set[str]:
        """Return the names that ran a request in the last `seconds`."""
        since = self._clock() - seconds
        self._last = {name: at for name, at in self._last.items() if at >= since}
        return set(self._last) | set(self._running)

    def _wake(self, name: str | None) -> None:
        for future in self._idle.pop(name, []):
            if not future.done():
                future.set_result(None)

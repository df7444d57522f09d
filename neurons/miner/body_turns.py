"""Large bodies are looked at one after another, with a pause after each: small requests never wait for several.

A mebibyte takes some four milliseconds to be counted and parsed, and 15 KiB of tiny messages half of one, in which
nobody else is answered. Those that come together would make all others wait for each, however small these are.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from neurons.miner.memory import cost_of

LARGE_BYTES: Final = 64 * 1024
LARGE_COST: Final = 4 * LARGE_BYTES
"""Of what a body costs once it is parsed, which grows as the time does that this takes: a third of a millisecond."""
PAUSE: Final = 3.0
"""So many times as long as a turn took nobody has the next one: large bodies take a quarter of the loop at most."""


def takes_turns(body: bytes) -> bool:
    """Tell whether a body is to wait for its turn; where that is told by what it costs, it takes no time itself."""
    return len(body) > LARGE_BYTES or cost_of(body) > LARGE_COST


class BodyTurns:
    """Gives turns, one at a time, to clients in rotation: who sends many waits for its own."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self._taken = False

    @asynccontextmanager
    async def turn(self, client: str, *, large: bool) -> AsyncIterator[None]:
        """Hold a turn for a large body while the block runs, which must not await; any other needs none."""
        if not large:
            yield
            return
        if self._taken:
            await self._wait(client)
        self._taken = True
        began = time.perf_counter()
        try:
            yield
        finally:
            pause = PAUSE * (time.perf_counter() - began)
            asyncio.get_running_loop().call_later(pause, self._next)

    async def _wait(self, client: str) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(client, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._next()  # it had just been given: somebody else's now
            raise

    def _next(self) -> None:
        """Give the next turn to the client that has waited longest for one."""
        while self._waiting:
            client, turns = self._waiting.popitem(last=False)
            turn = turns.popleft()
            if turns:
                self._waiting[client] = turns
            if not turn.done():
                turn.set_result(None)
                return
        self._taken = False

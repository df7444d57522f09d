"""Which requests were accepted already, so that none is accepted twice: in this process, or shared by replicas.

A nonce is the sender's clock in nanoseconds. Requests older than the window are stale, so an entry may go after it.
What a store has forgotten (it restarted, it was emptied) it can't vouch for: a nonce from before its beginning, give or
take the clocks' skew, is not judged but refused as `StoreForgot`. So a store that lost all it had opens the door to no
replay; requests signed after its beginning are let in at once.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

if TYPE_CHECKING:
    from redis.asyncio import Redis

MAX_ENTRIES: Final = 200_000
REDIS_SECONDS: Final = 0.5
"""Longest wait for the shared store: a caller's own deadline is short, too."""
MAX_CONNECTIONS: Final = 16
_PREFIX: Final = "bettertherapy:btauth"


class StoreDown(Exception):  # noqa: N818 - the state of a store
    """The store can't be asked, or is full: nothing can be accepted. The message says why, without its password."""


class StoreForgot(Exception):  # noqa: N818
    """The store began after this request was signed: it may have been accepted before. A new one will be judged."""


class Nonces(Protocol):
    """Remembers pairs of hotkey and nonce."""

    async def remember(self, hotkey: str, nonce_ns: int) -> bool:
        """Take the pair down; False if it was there. Raises StoreDown, StoreForgot.

        Of calls at the same time with the same pair, one gets True.
        """

    async def close(self) -> None:
        """Give connections back."""


class MemoryNonces:
    """For a miner that has no replicas."""

    def __init__(
        self, *, window_seconds: float, skew_seconds: float, clock_ns: Callable[[], int] = time.time_ns
    ) -> None:
        self._clock_ns = clock_ns
        self._window_ns, self._skew_ns = _ns(window_seconds + skew_seconds), _ns(skew_seconds)
        self._began_ns = clock_ns()
        self._seen: set[tuple[str, int]] = set()
        self._order: deque[tuple[int, tuple[str, int]]] = deque()

    async def remember(self, hotkey: str, nonce_ns: int) -> bool:
        """Take the pair down."""
        now = self._clock_ns()
        while self._order and self._order[0][0] < now:
            self._seen.discard(self._order.popleft()[1])
        if nonce_ns <= self._began_ns + self._skew_ns:
            raise StoreForgot
        pair = (hotkey, nonce_ns)
        if pair in self._seen:
            return False
        if len(self._order) >= MAX_ENTRIES:
            raise StoreDown(f"{MAX_ENTRIES} requests were accepted lately, more can't be remembered")
        self._seen.add(pair)
        # Later than the nonce alone asks for: one from the future stays acceptable for longer.
        self._order.append((now + self._window_ns, pair))
        return True

    async def close(self) -> None:
        """Nothing is to be given back."""


class RedisNonces:
    """For replicas: a server that speaks Redis' protocol, asked with `SET NX PX` by the event loop's own client.

    The server must not evict what has not expired (`maxmemory-policy noeviction` or `volatile-ttl`); one that fails
    over without having copied its last writes may forget the last moments, which no client can see.
    """

    def __init__(self, client: Redis, *, receiver: str, window_seconds: float, skew_seconds: float) -> None:
        """`receiver`: the miner's hotkey, so that several may share a server."""
        self._client = client
        self._prefix = f"{_PREFIX}:{{{receiver}}}"  # in braces: all of a miner's keys are in one slot of a cluster
        self._ttl_ms = int((window_seconds + skew_seconds) * 1000) + 1000
        self._skew_ns = _ns(skew_seconds)

    @classmethod
    def connect(cls, url: str, *, receiver: str, window_seconds: float, skew_seconds: float) -> Self:
        """Return a store at `redis://`, `rediss://` or `unix://`; connects when first asked. Raises ValueError."""
        from redis.asyncio import BlockingConnectionPool, Redis  # noqa: PLC0415 - only miners that share nonces need it
        from redis.asyncio.retry import Retry  # noqa: PLC0415
        from redis.backoff import NoBackoff  # noqa: PLC0415

        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=MAX_CONNECTIONS,
            timeout=REDIS_SECONDS,
            socket_timeout=REDIS_SECONDS,
            socket_connect_timeout=REDIS_SECONDS,
            retry=Retry(NoBackoff(), 1),  # a connection that rested may have broken since
        )
        client = Redis.from_pool(pool)
        return cls(client, receiver=receiver, window_seconds=window_seconds, skew_seconds=skew_seconds)

    async def remember(self, hotkey: str, nonce_ns: int) -> bool:
        """Take the pair down."""
        from redis.exceptions import RedisError  # noqa: PLC0415

        since, entry = f"{self._prefix}:since", f"{self._prefix}:{hotkey}:{nonce_ns}"
        # Whose entry it is says its value, not whether this write made it: what is sent once more after a connection
        # broke may have been done already, and must not take itself for a replay.
        ours = secrets.token_bytes(16)
        try:
            async with asyncio.timeout(2 * REDIS_SECONDS), self._client.pipeline(transaction=True) as commands:
                commands.set(since, time.time_ns(), nx=True)
                commands.get(since)
                commands.set(entry, ours, nx=True, px=self._ttl_ms)
                commands.get(entry)
                answers: list[Any] = await commands.execute()
        except (RedisError, OSError, TimeoutError) as error:
            # Its words may hold the address, and in an URL the password: the kind of error is enough.
            raise StoreDown(type(error).__name__) from None
        try:
            began_ns = int(answers[1])
        except (TypeError, ValueError):
            raise StoreDown("its beginning is not to be read") from None
        if nonce_ns <= began_ns + self._skew_ns:
            raise StoreForgot
        return bool(answers[3] == ours)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)

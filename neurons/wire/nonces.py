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
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, Self

if TYPE_CHECKING:
    from redis.asyncio import Redis

MAX_ENTRIES: Final = 200_000
REDIS_SECONDS: Final = 0.5
"""Longest wait for the shared store: a caller's own deadline is short, too."""
MAX_CONNECTIONS: Final = 2
MOST_AT_ONCE: Final = 256
"""Entries of one question to the shared store, which does nothing else meanwhile."""
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
    """For replicas: a server that speaks Redis' protocol, asked by the event loop's own client.

    What comes in while the server is being asked goes together in the next question, so that a request costs its share
    of a round trip, and a busy miner no more of them. The server must not evict what has not expired
    (`maxmemory-policy noeviction` or `volatile-ttl`). One that came back from an old snapshot, or took over from
    another without its last writes, is known by its `run_id`, which its user must be allowed to ask for (`INFO`): it
    begins anew.
    """

    def __init__(self, client: Redis, *, receiver: str, window_seconds: float, skew_seconds: float) -> None:
        """`receiver`: the miner's hotkey, so that several may share a server."""
        self._client = client
        self._prefix = f"{_PREFIX}:{{{receiver}}}"  # in braces: all of a miner's keys are in one slot of a cluster
        self._ttl_ms = int((window_seconds + skew_seconds) * 1000) + 1000
        self._skew_ns = _ns(skew_seconds)
        self._waiting: list[_Asked] = []
        self._asking: asyncio.Task[None] | None = None

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
        answer: asyncio.Future[tuple[int, bool]] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Asked(f"{self._prefix}:{hotkey}:{nonce_ns}", answer))
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask(), name="nonces")
        began_ns, new = await answer
        if nonce_ns <= began_ns + self._skew_ns:
            raise StoreForgot
        return new

    async def close(self) -> None:
        """Close the connections."""
        if (asking := self._asking) is not None:
            asking.cancel()
            await asyncio.wait([asking])
        self._give_up(self._waiting)  # of a task that was cancelled before it began
        await self._client.aclose()

    async def _ask(self) -> None:
        """Ask for all that waits, until nothing does."""
        asked: list[_Asked] = []
        try:
            while self._waiting:
                asked, self._waiting = self._waiting[:MOST_AT_ONCE], self._waiting[MOST_AT_ONCE:]
                try:
                    said = await self._take_down([each.entry for each in asked])
                except StoreDown as error:
                    # They all wait for the same store: none is to wait for as long again behind these.
                    asked, self._waiting = asked + self._waiting, []
                    for each in asked:
                        each.fail(StoreDown(str(error)))
                else:
                    for each, new in zip(asked, said.new, strict=True):
                        each.tell(said.began_ns, new)
        finally:
            self._asking = None
            self._give_up(asked + self._waiting)
            self._waiting = []

    @staticmethod
    def _give_up(asked: Sequence[_Asked]) -> None:
        """Tell those that weren't told yet."""
        for each in asked:
            each.fail(StoreDown("the miner ends"))

    async def _take_down(self, entries: Sequence[str]) -> _Said:
        """Ask once for several entries; raises StoreDown."""
        from redis.exceptions import RedisError  # noqa: PLC0415

        # Whose an entry is says its value, not whether this write made it: what is sent once more after a connection
        # broke may have been done already, and must not take itself for a replay.
        ours = secrets.token_hex(16)
        try:
            async with asyncio.timeout(2 * REDIS_SECONDS):
                answer: Any = await self._client.eval(
                    _TAKE_DOWN, 2 + len(entries), f"{self._prefix}:since", f"{self._prefix}:server", *entries,
                    time.time_ns(), self._ttl_ms, ours,
                )  # fmt: skip
        except (RedisError, OSError, TimeoutError) as error:
            # Its words may hold the address, and in an URL the password: the kind of error is enough.
            raise StoreDown(type(error).__name__) from None
        try:
            began_ns, new = int(answer[0]), [each == 1 for each in answer[1:]]
        except (TypeError, ValueError, LookupError):
            raise StoreDown("its beginning is not to be read") from None
        if len(new) != len(entries):
            raise StoreDown("it answered for others than it was asked for")
        return _Said(began_ns, new)


class _Said(NamedTuple):
    """What the store said."""

    began_ns: int
    new: list[bool]


class _Asked(NamedTuple):
    """One entry, and who waits for what the store says of it."""

    entry: str
    answer: asyncio.Future[tuple[int, bool]]

    def tell(self, began_ns: int, new: bool) -> None:
        """Say since when the store vouches, and whether the entry is new."""
        if not self.answer.done():
            self.answer.set_result((began_ns, new))

    def fail(self, error: StoreDown) -> None:
        """Say that nobody can know."""
        if not self.answer.done():
            self.answer.set_exception(error)


_TAKE_DOWN: Final = """
local info = redis.pcall('INFO', 'server')
local server = type(info) == 'string' and string.match(info, 'run_id:(%x+)') or ''
local began = redis.call('GET', KEYS[1])
if not began or (server ~= '' and redis.call('GET', KEYS[2]) ~= server) then
  began = ARGV[1]
  redis.call('SET', KEYS[1], began)
  redis.call('SET', KEYS[2], server)
end
local said = {began}
for place = 3, #KEYS do
  local ours = ARGV[3] .. place
  if redis.call('SET', KEYS[place], ours, 'NX', 'PX', ARGV[2]) or redis.call('GET', KEYS[place]) == ours then
    said[place - 1] = 1
  else
    said[place - 1] = 0
  end
end
return said
"""
"""Keys: of the store's beginning, of the server that it began at, then of the entries. Arguments: the time in ns, an
entry's life in ms, whose it is.

A script is done whole or not at all, and nothing in between. A server has another `run_id` each time it starts, and so
has the one that takes over: what either holds may be older than the last entries, its beginning with them.
"""


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)

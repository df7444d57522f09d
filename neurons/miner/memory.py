"""Bounds what requests hold of a miner's or gateway's memory, all together and each client's: from the first
byte of a body to the last of its answer.

What counts is what a body costs once it is read, not how long it is: a mebibyte of tiny messages takes twenty, and one
emoji makes each character of a long text take four bytes. It is told from the bytes before they are parsed, and what
would be too much isn't.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from aiohttp import hdrs, web

from neurons.miner.bodies import read_body
from neurons.miner.errors import RETRY_AFTER_SECONDS, RequestError, overloaded, unavailable
from neurons.miner.settings import MAX_BODY_BYTES

REQUEST_BYTES: Final = 24 * 1024
"""Of each request, whatever it says: its task and connections, and what is known of it."""
STREAM_BYTES: Final = 448 * 1024
"""Of a stream that is sent more slowly than it comes: what lies between engine and client."""
MOST_OF_ONE: Final = 16 * 1024 * 1024
"""Bytes that one body may come to cost."""
CLIENT_REQUESTS: Final = 1024
"""Of one client at once."""
UNPROVEN_PERCENT: Final = 50
"""All that bodies may hold of whom it isn't known yet who sends them: whoever says to be a validator."""
UNPROVEN_SMALL_PERCENT: Final = 75
"""And small ones: what is large, and slow, must not keep validators' questions out, which are small."""
SMALL_BYTES: Final = 128 * 1024
"""What a question without a long history holds."""
_KEPT_PART: Final = 4
"""So many times smaller than what isn't one client's is what is kept for those that hold little."""
_KEPT_SHARES: Final = 8
"""So many times what a client has of that is left for others; of its last half each has what is small."""
_WRITTEN: Final = 3
"""Times that a body's bytes are there: as read, as written for an engine, and on their way to it."""
_COPIES: Final = 1 + _WRITTEN
"""What any body costs at least, for each of its bytes."""
_OBJECT: Final = 464
"""Of `{}` with a few members, twice: as parsed, and as written anew for the engine."""
_LIST: Final = 72
_MEMBER: Final = 96
"""Of what follows a comma: a place in a list or an object, and a short value."""
_WIDE: Final = (*(bytes([lead]) for lead in range(0xF0, 0xF8)), b"\\u")
"""What begins characters that take four bytes, or may, and make all others of their text do so. To look for one after
another takes a tenth of the time that one regular expression does."""


def cost_of(body: bytes) -> int:
    """Return what a body may cost in bytes once it is parsed and written anew; at least that, for any JSON."""
    width = 1
    if not body.isascii():
        width = 5 if any(each in body for each in _WIDE) else 2
    elif b"\\u" in body:
        width = 5
    objects, lists, members = body.count(b"{"), body.count(b"["), body.count(b",")
    return (width + _WRITTEN) * len(body) + _OBJECT * objects + _LIST * lists + _MEMBER * members


class RequestMemory:
    """Counts what requests hold of one process's memory."""

    def __init__(
        self,
        most_bytes: int,
        *,
        client_percent: int = 50,
        large_percent: int = 100,
        client_requests: int = CLIENT_REQUESTS,
        process: str = "miner",
    ) -> None:
        """`client_percent` is the most that one client may have of `most_bytes`, so that others have the rest, and what
        it may have of whatever others leave: of 50, no more than is left for others still. So it falls as others hold
        something, and a quarter of what isn't one client's is for those that hold little. Of 100, all.
        `large_percent`, the most of that that its bodies may have which are not small, where many ask as one client.

        `process`: what errors call it.
        """
        self._process = process
        self._most_requests = client_requests
        self._requests: dict[str, int] = {}
        self.most = most_bytes
        self._percent = client_percent
        self._most_of_client = max(most_bytes * client_percent // 100, REQUEST_BYTES + MAX_BODY_BYTES)
        one = min(self._most_of_client, REQUEST_BYTES + _COPIES * MAX_BODY_BYTES)
        self._most_of_large = max(self._most_of_client * large_percent // 100, one)
        self._clients: dict[str, int] = {}
        self.held = 0
        """Bytes that are counted now."""
        self.unproven = 0
        """So many of those are of whoever may be anybody."""

    @contextmanager
    def request(self) -> Iterator[RequestBytes]:
        """Give what counts one request, until the block ends."""
        counted = RequestBytes(self)
        try:
            yield counted
        finally:
            counted.end()

    def of_client(self, client: str) -> int:
        """Return the bytes that a client has."""
        return self._clients.get(client, 0)

    def change(self, client: str | None, size: int) -> None:
        """Count more (or less, below 0), without asking."""
        self.held += size
        if client is None:
            self.unproven += size
            return
        left = self._clients.get(client, 0) + size
        if left > 0:
            self._clients[client] = left
        else:
            self._clients.pop(client, None)

    def check(self, client: str | None, size: int, *, body: bool = False) -> None:
        """Raise RequestError where so much more is too much: 429 where it is the client's, 503 where it is all's.

        `body`: it is for a body that is to be read.
        """
        if size <= 0:
            return
        own = self._clients.get(client, 0) if client is not None else 0
        most = self._most_of_large if body and size > SMALL_BYTES else self._most_of_client
        if client is not None and own + size > most:
            raise overloaded(
                f"requests of this client hold {own} bytes of this {self._process}'s memory already, of {most} that "
                "one client may have for such: send this one when others are answered, or a shorter one",
                retry_after=RETRY_AFTER_SECONDS,
            )
        if client is not None and not self._leaves_room(own + size, size):
            self._refuse_beside_others(own, size)
        percent = UNPROVEN_SMALL_PERCENT if size <= SMALL_BYTES else UNPROVEN_PERCENT
        anybodys = max(self.most * percent // 100, REQUEST_BYTES + MAX_BODY_BYTES)
        if self.held + size > self.most or (client is None and self.unproven + size > anybodys):
            raise self._full()

    def _leaves_room(self, own: int, size: int) -> bool:
        """Tell whether others still have theirs where a client has `own` bytes, `size` of them from now on."""
        if own <= SMALL_BYTES or self._percent == 100:
            return True
        left = self.most - self.held - size
        kept = self.most * (100 - self._percent) // (100 * _KEPT_PART)
        if left >= kept:
            return own <= left * self._percent // (100 - self._percent)
        return left >= kept // 2 and own <= left // _KEPT_SHARES

    def _refuse_beside_others(self, own: int, size: int) -> None:
        """Raise RequestError: 429 for a client that has as much as others have, 503 for one that has less."""
        sharers = len(self._clients) + (not own)
        if own and own + size > self.most // sharers:
            raise overloaded(
                f"requests of this client hold {own} bytes of this {self._process}'s memory, and {sharers} clients "
                "hold something: none gets more of it than is left for others. Send this one when others are answered, "
                "or a shorter one",
                retry_after=RETRY_AFTER_SECONDS,
            )
        raise self._full()

    def _full(self) -> RequestError:
        return unavailable(
            f"requests hold {self.held} bytes already, of {self.most} that this {self._process} has for them: "
            "send this one again in a moment",
            retry_after=RETRY_AFTER_SECONDS,
            code="overloaded",
        )

    def begin(self, client: str) -> None:
        """Count a client's request; raises RequestError (429) where it has too many."""
        running = self._requests.get(client, 0)
        if running >= self._most_requests:
            raise overloaded(
                f"{running} requests of this client are running, and one client may have so many: wait for some",
                retry_after=1,
            )
        self._requests[client] = running + 1

    def finish(self, client: str) -> None:
        """Count one no longer."""
        left = self._requests[client] - 1
        if left:
            self._requests[client] = left
        else:
            del self._requests[client]


class RequestBytes:
    """What one request holds."""

    __slots__ = ("_client", "_memory", "_size")

    def __init__(self, memory: RequestMemory) -> None:
        self._memory = memory
        self._client: str | None = None
        self._size = 0

    async def read(self, request: web.BaseRequest, *, client: str | None) -> bytes:
        """Return the body; raises RequestError: 429 or 503 where there is no room for it, else as `read_body`.

        `client`: who sends it; None where that is known only from the body.
        """
        if client is not None:
            self._belong(client)
        self._resize(REQUEST_BYTES + _COPIES * _longest(request), body=True)
        body = await read_body(request)
        self._resize(REQUEST_BYTES + _COPIES * len(body))
        return body

    async def take(self, request: web.BaseRequest, *, client: str) -> bytes:
        """Return a known client's body, counted as what it costs once it is parsed; raises RequestError."""
        body = await self.read(request, client=client)
        self.prove(client, body)
        return body

    def own(self, client: str) -> None:
        """Note who sent a body that was read without knowing it; raises RequestError."""
        if self._client is not None:
            return
        size, self._size = self._size, 0
        self._memory.change(None, -size)
        self._belong(client)
        self._resize(size)

    def prove(self, client: str, body: bytes) -> None:
        """Note who sent a body, and count what it costs once it is parsed; raises RequestError, 413 among them."""
        self.own(client)
        cost = cost_of(body)
        if cost > MOST_OF_ONE:
            raise RequestError(
                413, "invalid_request_error",
                f"the body holds too many values: parsed it would take {cost} bytes, and {MOST_OF_ONE} are the most. "
                "Send fewer messages, parts or members",
                code="body_too_large",
            )  # fmt: skip
        self._resize(REQUEST_BYTES + cost)

    def grow(self, size: int) -> None:
        """Count more, of the answer; raises RequestError."""
        self._resize(self._size + size)

    def end(self) -> None:
        """Count it no longer."""
        self._memory.change(self._client, -self._size)
        self._size = 0
        if self._client is not None:
            self._memory.finish(self._client)
            self._client = None

    def _belong(self, client: str) -> None:
        self._memory.begin(client)
        self._client = client

    def _resize(self, size: int, *, body: bool = False) -> None:
        more = size - self._size
        self._memory.check(self._client, more, body=body)
        self._memory.change(self._client, more)
        self._size = size


Grow = Callable[[int], None]
"""Counts bytes of an answer; raises RequestError."""


def _longest(request: web.BaseRequest) -> int:
    """Return how long a body may come to be: what it says, where it says so truly, and else as long as any may be."""
    length = request.content_length
    if length is None or hdrs.CONTENT_ENCODING in request.headers:
        return MAX_BODY_BYTES if request.body_exists else 0
    return min(length, MAX_BODY_BYTES)

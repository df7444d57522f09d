"""Bounds what large bodies hold of a miner's memory, those that are still being read as well as those in flight.

A miner takes thousands of requests at once because nearly all are small. A thousand of a mebibyte each would have it
killed, and everybody's answers with it; and a client may send them as slowly as it likes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from aiohttp import hdrs, web

from neurons.miner.bodies import read_body
from neurons.miner.errors import RETRY_AFTER_SECONDS, overloaded
from neurons.miner.settings import MAX_BODY_BYTES

SMALL_BYTES: Final = 16 * 1024
"""Bodies up to this aren't counted: as many as a miner takes at once have room, and no large one keeps them out."""


class LargeBodies:
    """Counts the bytes of one miner's large bodies.

    Whoever says to be a validator has its body read before that is proven, and anybody may say so: half of the room is
    not for them, so that clients who are known by their tokens can't be kept out.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self.held = 0
        """Bytes that they have now, or may come to have."""
        self.unproven = 0
        """So many of those are of whoever may be anybody."""

    @contextmanager
    def reader(self) -> Iterator[Reading]:
        """Give what reads one request's body, which counts until the block ends."""
        reading = Reading(self)
        try:
            yield reading
        finally:
            reading.end()

    def take(self, size: int, *, proven: bool) -> int:
        """Count a body that may come to have `size` bytes, and return as what; raises RequestError (429)."""
        if size <= SMALL_BYTES:
            return 0
        is_full = self.held + size > self._most
        if is_full or not (proven or self.unproven + size <= max(self._most // 2, MAX_BODY_BYTES)):
            raise overloaded(
                f"large requests hold {self.held} bytes already, of {self._most} that this miner has for them: send "
                f"this one later, or with {SMALL_BYTES} bytes at most",
                retry_after=RETRY_AFTER_SECONDS,
            )
        self.held += size
        self.unproven += 0 if proven else size
        return size


class Reading:
    """The reading of one request's body."""

    def __init__(self, bodies: LargeBodies) -> None:
        self._bodies = bodies
        self._counted = self._unproven = 0

    async def __call__(self, request: web.BaseRequest, *, proven: bool = True) -> bytes:
        """Return the body; raises RequestError: 429 where there is no room for it, else as `read_body`."""
        self._counted = self._bodies.take(_longest(request), proven=proven)
        self._unproven = 0 if proven else self._counted
        body = await read_body(request)
        self._shrink(len(body) if len(body) > SMALL_BYTES else 0)
        return body

    def prove(self) -> None:
        """Note that it is known now who sent it."""
        self._bodies.unproven -= self._unproven
        self._unproven = 0

    def end(self) -> None:
        """Count it no longer."""
        self._shrink(0)

    def _shrink(self, size: int) -> None:
        self._bodies.held += size - self._counted
        self._counted = size
        if self._unproven:
            self._bodies.unproven += size - self._unproven
            self._unproven = size


def _longest(request: web.BaseRequest) -> int:
    """Return how long a body may come to be: what it says, where it says so truly, and else as long as any may be."""
    length = request.content_length
    if length is None or hdrs.CONTENT_ENCODING in request.headers:
        return MAX_BODY_BYTES if request.body_exists else 0
    return min(length, MAX_BODY_BYTES)

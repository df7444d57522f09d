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
from neurons.miner.doors import ReadBody
from neurons.miner.errors import RETRY_AFTER_SECONDS, overloaded
from neurons.miner.settings import MAX_BODY_BYTES

SMALL_BYTES: Final = 16 * 1024
"""Bodies up to this aren't counted: as many as a miner takes at once have room, and no large one keeps them out."""


class LargeBodies:
    """Counts the bytes of one miner's large bodies."""

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self.held = 0
        """Bytes that they have now, or may come to have."""

    @contextmanager
    def reader(self) -> Iterator[ReadBody]:
        """Give what reads one request's body, which counts until the block ends.

        It raises RequestError: 429 where there is no room for the body, else as `read_body`.
        """
        counted = 0

        async def read(request: web.BaseRequest) -> bytes:
            nonlocal counted
            counted = self._count(_longest(request))
            body = await read_body(request)
            size = len(body) if len(body) > SMALL_BYTES else 0
            self.held += size - counted
            counted = size
            return body

        try:
            yield read
        finally:
            self.held -= counted

    def _count(self, size: int) -> int:
        if size <= SMALL_BYTES:
            return 0
        if self.held + size > self._most:
            raise overloaded(
                f"large requests hold {self.held} bytes already, of {self._most} that this miner has for them: send "
                f"this one later, or with {SMALL_BYTES} bytes at most",
                retry_after=RETRY_AFTER_SECONDS,
            )
        self.held += size
        return size


def _longest(request: web.BaseRequest) -> int:
    """Return how long a body may come to be: what it says, where it says so truly, and else as long as any may be."""
    length = request.content_length
    if length is None or hdrs.CONTENT_ENCODING in request.headers:
        return MAX_BODY_BYTES if request.body_exists else 0
    return min(length, MAX_BODY_BYTES)

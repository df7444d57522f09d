"""Where an answer goes: to the client, in the form of the route by which it asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, cast

from aiohttp import HttpVersion11, web

from neurons.miner.errors import error_event
from neurons.miner.memory import STREAM_BYTES
from neurons.miner.tables import VersionRoute

STALL_SECONDS: Final = 60.0
"""A client that takes nothing for so long has left, whatever its connection says."""
SLOWEST_BYTES: Final = 16 * 1024
"""A second, of a whole answer."""
COUNTED_BYTES: Final = 64 * 1024
LAG_BYTES: Final = 16 * 1024


class Outlet:
    """The form of the engine itself: events and bodies go on as they are, but for the model's name."""

    def __init__(
        self,
        request: web.BaseRequest,
        *,
        headers: Mapping[str, str],
        closing: Callable[[], bool],
        grow: Callable[[int], None],
    ) -> None:
        """`grow` counts what the answer holds of the miner's memory; it raises RequestError."""
        self._request = request
        self.grow = grow
        self._uncounted = 0
        self._lags = False
        """Its client has been slower than the engine: from then on it counts what lies between the two."""
        self.headers = headers
        """What every answer carries, whoever gives it."""
        self._closing = closing
        self._response: web.StreamResponse | None = None

    @property
    def response(self) -> web.StreamResponse:
        """The stream that has begun."""
        if self._response is None:
            raise RuntimeError("no stream has begun")
        return self._response

    @property
    def begun(self) -> bool:
        """Whether a stream has begun: from now on nothing but events can be said."""
        return self._response is not None

    def whole(self, status: int, body: bytes, headers: Mapping[str, str], version: VersionRoute) -> web.Response:
        """Return an engine's whole answer as the client's."""
        if status == 200:
            body = self.document(body, version)
        return web.Response(status=status, body=body, headers=headers)

    def document(self, body: bytes, version: VersionRoute) -> bytes:
        """Return the body of a 200 as the client reads it."""
        return version.model.in_body(body)

    async def begin(self, headers: Mapping[str, str]) -> None:
        """Begin a stream."""
        self._response = response = web.StreamResponse(status=200, headers={**self.headers, **headers})
        if self._closing() or self._request.version < HttpVersion11:
            # Before HTTP/1.1 there are no chunks: the connection's end is the stream's, also for one who asked to keep
            # it, as load generators and old proxies do.
            response.force_close()
        await response.prepare(self._request)

    async def write(self, events: bytes, version: VersionRoute) -> None:
        """Forward whole lines."""
        await self._pass(version.model.in_events(events))

    async def keep_alive(self, comment: bytes) -> None:
        """Write a comment, which no client reads."""
        await self._pass(comment)

    async def end(self) -> None:
        """End the stream; its `[DONE]` was forwarded."""
        async with self._reading():
            await self.response.write_eof()

    async def fail(self, error: dict[str, Any]) -> None:
        """End the stream with an error."""
        await self._end_with(error_event(error))

    async def _end_with(self, last: bytes) -> None:
        async with self._reading():
            await self.response.write(last)
            await self.response.write_eof()

    async def send(self, response: web.Response) -> None:
        """Send a whole answer, and wait until the client has nearly all of it."""
        size = len(response.body) if isinstance(response.body, bytes) else 0
        async with self._reading(STALL_SECONDS + size / SLOWEST_BYTES):
            await response.prepare(self._request)
            await response.write_eof()

    async def _pass(self, data: bytes) -> None:
        self._uncounted += len(data)
        if self._uncounted > COUNTED_BYTES:
            # What was said is kept while it goes on, so that another engine can go on with it.
            self.grow(self._uncounted // 2)
            self._uncounted = 0
        if not self._lags and (len(data) > LAG_BYTES or self._unsent() > LAG_BYTES):
            self._lags = True
            self.grow(STREAM_BYTES)
        async with self._reading():
            await self.response.write(data)

    def _unsent(self) -> int:
        transport = self._request.transport
        if transport is None or transport.is_closing():
            return 0
        return cast(asyncio.WriteTransport, transport).get_write_buffer_size()  # uvloop's is none by inheritance

    @asynccontextmanager
    async def _reading(self, seconds: float = STALL_SECONDS) -> AsyncIterator[None]:
        """Give a client so long to read on; then it is gone for us, and what waits for it is freed."""
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError:
            self.abort()
            raise ConnectionResetError("the client doesn't read") from None

    def abort(self) -> None:
        """Drop the connection: the client doesn't read."""
        if self._request.transport is not None:
            self._request.transport.abort()


def is_large(response: web.Response) -> bool:
    """Tell whether more of it than counts as nothing would lie in this process for a client that reads slowly."""
    return isinstance(response.body, bytes) and len(response.body) > COUNTED_BYTES

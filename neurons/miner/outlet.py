"""Where an answer goes: to the client, in the form of the route by which it asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import HttpVersion11, web

from neurons.miner.errors import error_event
from neurons.miner.tables import VersionRoute


class Outlet:
    """The form of the engine itself: events and bodies go on as they are, but for the model's name."""

    def __init__(self, request: web.BaseRequest, *, headers: Mapping[str, str], closing: Callable[[], bool]) -> None:
        self._request = request
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
        await self.response.write(version.model.in_events(events))

    async def keep_alive(self, comment: bytes) -> None:
        """Write a comment, which no client reads."""
        await self.response.write(comment)

    async def end(self) -> None:
        """End the stream; its `[DONE]` was forwarded."""
        await self.response.write_eof()

    async def fail(self, error: dict[str, Any]) -> None:
        """End the stream with an error."""
        await self.response.write(error_event(error))
        await self.response.write_eof()

    def abort(self) -> None:
        """Drop the connection: the client doesn't read."""
        if self._request.transport is not None:
            self._request.transport.abort()

"""aiohttp's server as each process here runs it: bounded in connections and in heads, and silent about what it is sent.

As it comes, aiohttp logs what it can't read of a request, which may be a token or a patient's name, and with an
exception whatever that says; holds each head for as long as it grows; and takes connections until memory ends.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, Final

import orjson
from aiohttp import hdrs, web

from neurons.unsaid import where

log = logging.getLogger(__name__)

MOST_CONNECTIONS: Final = 4096
MOST_HEAD_BYTES: Final = 32 * 1024
"""Of a request's line and headers together, and of what comes behind its body."""
IDLE_SECONDS: Final = 75.0
"""A client's idle connection is kept this long; so long a head may take, too."""
SEND_BUFFER_BYTES: Final = 128 * 1024
"""What the kernel keeps for a client that doesn't read; it counts as the process's memory, and is 4 MiB unbound."""
WAITING_REQUESTS: Final = 1
"""Of one connection, sent while another is answered: what such a request's body holds nobody counts yet."""
LEAST_READ_BYTES: Final = 4096
"""A client that reads less of its answer in the time for which an idle connection is kept is let go."""
LINGER_SECONDS: Final = 1.0
"""What a client goes on sending after its answer is read and thrown away for so long: closed at once, its answer might
never reach it."""

PLAIN_HEADERS: Final[Mapping[str, str]] = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; frame-ancestors 'none'; sandbox",
    "Referrer-Policy": "no-referrer",
}
"""Of each answer that says nothing else of these: nobody keeps it, and a browser that is led to it shows it as text."""
SERVER: Final = "bettertherapy"
"""What answers say of who gives them: no library, and no version of one."""

_Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


async def _set_headers(_: object, response: web.StreamResponse) -> None:
    headers = response.headers
    headers[hdrs.SERVER] = SERVER
    for name, value in PLAIN_HEADERS.items():
        headers.setdefault(name, value)


class Request(web.BaseRequest):
    """A request whose answer has these headers, whoever makes it: a handler, a stream, or aiohttp in its place."""

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        await _set_headers(self, response)


def _request(message: Any, payload: Any, protocol: Any, writer: Any, task: asyncio.Task[None]) -> web.BaseRequest:
    return Request(message, payload, protocol, writer, task, asyncio.get_running_loop())


class HttpServer(web.Server):
    """Makes connections for `web.ServerRunner`."""

    def __init__(
        self,
        handler: _Handler,
        *,
        most_connections: int = MOST_CONNECTIONS,
        idle_seconds: float = IDLE_SECONDS,
        request_factory: Any = None,
        handler_cancellation: bool = True,
    ) -> None:
        """With `handler_cancellation` a client that leaves cancels its request, and what is done for it.

        `request_factory` makes requests of the kind `Request`. Bodies arrive as they are sent: what is packed is
        unpacked by whoever reads it, once it is known who sent it.
        """
        super().__init__(
            handler,
            request_factory=request_factory or _request,
            handler_cancellation=handler_cancellation,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=idle_seconds,
            lingering_time=LINGER_SECONDS,
        )
        self._most = most_connections
        self._resting: dict[Connection, None] = {}
        """Those with nothing to do, the longest first."""
        self.turned_away = 0
        """Connections that were closed to make room, or not taken."""

    def __call__(self) -> web.RequestHandler:
        """Return the protocol of a new connection."""
        return Connection(self, loop=self._loop, **self._kwargs)

    def admits(self) -> bool:
        """Tell whether there is room for a connection, if need be after closing the one that has rested longest."""
        if len(self._connections) < self._most:
            return True
        self.turned_away += 1
        longest = next(iter(self._resting), None)
        if longest is None:
            return False
        self.works(longest)
        self._connections.pop(longest, None)
        longest.drop()
        return True

    def rests(self, connection: Connection) -> None:
        """Note that a connection has nothing to do."""
        self._resting[connection] = None

    def works(self, connection: Connection) -> None:
        """Note that it has, or is gone."""
        self._resting.pop(connection, None)


class ApplicationRunner(web.AppRunner):
    """Runs an application of aiohttp's on such a server."""

    async def _make_server(self) -> web.Server:
        self.app.on_response_prepare.append(_set_headers)  # its requests are of its own kind
        made = await super()._make_server()
        return HttpServer(made.request_handler, request_factory=made.request_factory, handler_cancellation=False)


class Connection(web.RequestHandler):
    """One connection."""

    __slots__ = ("_beside", "_patience", "_payload", "_server", "_unread")

    def __init__(self, server: HttpServer, **settings: Any) -> None:
        super().__init__(server, **settings)
        self._max_msg_queue_size = (
            WAITING_REQUESTS  # aiohttp's own, which it has no setting for; its parser stays at 32
        )
        self._msg_queue_resume_size = WAITING_REQUESTS - 1
        self._server = server
        self._patience: asyncio.TimerHandle | None = None
        """Runs while a client doesn't read what it is sent."""
        self._unread = 0
        self._beside = 0
        """Bytes that came and belong to no body: of a head that isn't whole yet."""
        self._payload: Any = None
        """The body of the request that was read last."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a connection, or say that there are too many."""
        if not self._server.admits():
            if isinstance(transport, asyncio.WriteTransport) or hasattr(transport, "write"):
                transport.write(_BUSY)
            transport.close()
            return
        if (sock := transport.get_extra_info("socket")) is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        super().connection_made(transport)
        self._server.rests(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget it."""
        self._server.works(self)
        self._read_again()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Wait for a client that reads more slowly than it is answered, as long as it reads."""
        super().pause_writing()
        self._wait_for_reader()

    def resume_writing(self) -> None:
        """Go on."""
        self._read_again()
        super().resume_writing()

    def _wait_for_reader(self) -> None:
        if self.transport is not None:
            self._unread = self.transport.get_write_buffer_size()
            self._patience = self._loop.call_later(self._keepalive_timeout, self._let_go_or_wait)

    def _let_go_or_wait(self) -> None:
        if self.transport is None:
            return
        if abs(self.transport.get_write_buffer_size() - self._unread) < LEAST_READ_BYTES:
            log.debug("a client doesn't read its answer")
            self.drop()
        else:
            self._wait_for_reader()

    def _read_again(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def data_received(self, data: bytes) -> None:
        """Read on, but no head without an end."""
        if self.transport is None:  # it was not taken
            return
        before = self._request_count
        in_body = self._payload is not None and not self._payload.is_eof()
        super().data_received(data)
        if self._request_count != before:
            self._server.works(self)
            self._beside = 0
            if self._messages:
                self._payload = self._messages[-1][1]
        elif not in_body:
            self._beside += len(data)
            if self._beside > MOST_HEAD_BYTES:
                log.debug("a head is too large")
                if not self._request_in_progress and self.transport is not None:
                    self.transport.write(_LONG)
                self.force_close()

    async def _handle_request(self, request: Any, start_time: Any, request_handler: Any) -> tuple[Any, bool]:
        try:
            return await super()._handle_request(request, start_time, request_handler)
        finally:
            if not self._messages and self.transport is not None:
                self._server.rests(self)

    def drop(self) -> None:
        """Close it at once."""
        transport = self.transport
        self.force_close()
        if transport is not None:
            transport.abort()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Return the answer to what is no request, or to one whose handler failed; nothing of it is said or logged."""
        del message  # it quotes what was sent
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            log.error("a request failed in an unforeseen way", extra=where(exc))
        else:
            log.debug("a request can't be read", extra={"error": type(exc).__name__})
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun: nothing else can be said")
        response = web.Response(
            status=status,
            body=_error(status),
            # An application's own requests set the plain ones where a route was found, and here none was.
            headers={
                "Content-Type": "application/json",
                "Connection": "close",
                hdrs.SERVER: SERVER,
                **PLAIN_HEADERS,
            },
        )
        response.force_close()
        return response

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Log where a connection failed, and nothing of what it carried."""
        del args
        log.error("a connection failed in an unforeseen way", extra=where(kw.get("exc_info")))

    def log_debug(self, *args: Any, **kw: Any) -> None:
        """Say nothing: aiohttp's words for this may quote what was sent."""


def _error(status: int) -> bytes:
    said = {
        400: "this is no HTTP/1.1 request: check the request line, the headers and how the body is sent",
        431: f"the request's head has more than {MOST_HEAD_BYTES} bytes: send fewer or shorter headers",
        503: "too many connections: close those that you don't use, and come back",
        504: "no answer in time: ask again",
    }.get(status, "the server failed; its log says where")
    kind = "invalid_request_error" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "service_unavailable"
    return orjson.dumps({"error": {"message": said, "type": kind, "param": None, "code": str(status)}})


def _whole(status: int, *headers: str) -> bytes:
    body = _error(status)
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", "Content-Type: application/json", "Connection: close",
        f"Content-Length: {len(body)}", *headers,
    ]  # fmt: skip
    return "\r\n".join([*lines, "", ""]).encode() + body


_BUSY: Final = _whole(503, "Retry-After: 5")
_LONG: Final = _whole(431)

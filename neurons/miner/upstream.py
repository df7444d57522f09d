"""One POST to an engine pod, or to a miner, over a kept connection: no more of HTTP than that needs (httptools parses).

aiohttp's client does the same with much more work, which was the largest part of what the miner adds, and the gateway.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Mapping
from typing import Final, Self, cast

import httptools
from yarl import URL

from bettertherapy_api import names
from neurons.pool_tokens import PoolTokens

MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024
IDLE_SECONDS: Final = 30.0
"""A connection that rested longer isn't used again: the pod may be closing it."""
HIGH_WATER_BYTES: Final = 64 * 1024
"""More than this unread, and the pod is made to wait."""
UNCOUNTED_BYTES: Final = 64 * 1024
ANSWER_COPIES: Final = 4
"""Times that an answer is there: as it came, joined, read, and written with the twin's name."""
MAX_HEAD_BYTES: Final = 64 * 1024
"""Of an answer's head, and of what comes behind its body."""
MAX_KNOWN_URLS: Final = 4096


class ConnectFailedError(Exception):
    """The pod can't be reached: it has not begun."""


class BrokeOffError(Exception):
    """The pod broke the connection: it may have begun."""


class AnswerTooLargeError(Exception):
    """A whole answer has more than MAX_ANSWER_BYTES."""


class _Connection(asyncio.Protocol):
    """One connection; one exchange at a time."""

    def __init__(self, idle: list[_Connection]) -> None:
        self._idle = idle
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._paused = False
        self.rested_since = 0.0
        self.begin()

    def begin(self) -> None:
        """Forget the last exchange."""
        self.headers: dict[str, str] = {}
        self.chunks: list[bytes] = []
        self.size = 0
        self._beside = 0
        """Bytes that came and were no body: of the head, or since the body's last part."""
        self.head_read = self.complete = self._keep = self._in_body = False
        self.broken: str | None = None

    @property
    def usable(self) -> bool:
        """Whether another exchange may begin."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def status(self) -> int:
        """The answer's status, its head read."""
        return int(self._parser.get_status_code())

    def send(self, data: bytes) -> None:
        """Write a whole request."""
        if self._transport is None:
            raise BrokeOffError("closed")
        self._transport.write(data)

    async def arrives(self) -> None:
        """Wait until something more has arrived, or the connection broke."""
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    async def head(self) -> None:
        """Wait for the answer's head; raises BrokeOffError."""
        while not self.head_read:
            if self.broken is not None:
                raise BrokeOffError(self.broken)
            await self.arrives()

    def take(self) -> bytes:
        """Return what has arrived of the body."""
        chunks = self.chunks
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self.chunks, self.size = [], 0
        return data

    def release(self) -> None:
        """Rest if the exchange ended well; close otherwise, so that the engine stops."""
        if self.complete and self._keep and self.usable and self.broken is None:
            if self._paused and self._transport is not None:
                self._paused = False
                self._transport.resume_reading()
            self.rested_since = time.monotonic()
            self._idle.append(self)
        else:
            self.abort()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    # --- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        """Read on."""
        if self.complete:  # nobody asked
            self.broken = "UnexpectedData"
            self.abort()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._break(type(error).__name__)
            self.abort()
            return
        # The parser gathers a header until its end, however long: nothing else bounds what it holds.
        self._beside = 0 if self._in_body else self._beside + len(data)
        self._in_body = False
        if self._beside > MAX_HEAD_BYTES and not self.complete:
            self._break("TrailersTooLarge" if self.head_read else "HeadTooLarge")
            self.abort()
            return
        if not self.head_read:
            return
        if self.size > HIGH_WATER_BYTES and not self._paused and not self.complete and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell who waits."""
        self._transport = None
        if self in self._idle:
            self._idle.remove(self)
        if not self.complete:
            until_end = not {"content-length", "transfer-encoding"} & self.headers.keys()
            if exc is None and self.head_read and until_end:
                self.complete = True
                self._wake()
            else:
                self._break(type(exc).__name__ if exc is not None else "Closed")

    def _break(self, why: str) -> None:
        self.broken = self.broken or why
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # --- httptools' side

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; one behind the body is passed over, where it would change what was said of it before."""
        if self.head_read:
            return
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """The body comes next."""
        if self._is_interim():
            return
        self.head_read = True
        self._keep = self._parser.should_keep_alive()

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self.chunks.append(body)
        self.size += len(body)
        self._in_body = True

    def on_message_complete(self) -> None:
        """The answer is whole."""
        if self._is_interim():
            self.headers = {}  # what is said before the answer (100, 103) is none
            return
        self.complete = True

    def _is_interim(self) -> bool:
        status = self.status
        return 100 <= status < 200 and status != 101


class Reply:
    """A pod's answer, its headers read. `close` it always: unread, that makes the engine stop generating."""

    __slots__ = ("_connection", "headers", "status")

    def __init__(self, connection: _Connection) -> None:
        self._connection: _Connection | None = connection
        self.status = connection.status
        self.headers: Mapping[str, str] = connection.headers
        """By names in small letters."""

    @property
    def content_type(self) -> str:
        """The media type without parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    async def chunk(self) -> bytes:
        """Return what came next, b"" at the end; raises BrokeOffError."""
        connection = self._open
        while not connection.chunks:
            if connection.complete:
                return b""
            if connection.broken is not None:
                raise BrokeOffError(connection.broken)
            await connection.arrives()
        return connection.take()

    async def whole(self, grow: Callable[[int], None] | None = None) -> bytes:
        """Return the whole answer; raises BrokeOffError, AnswerTooLargeError, and what `grow` does.

        `grow` is told of each part beyond the first ones, before it is kept.
        """
        connection = self._open
        if connection.complete:
            return connection.take()
        parts, size = [], 0
        while part := await self.chunk():
            if grow is not None and size > UNCOUNTED_BYTES:
                grow(ANSWER_COPIES * len(part))
            parts.append(part)
            size += len(part)
            if size > MAX_ANSWER_BYTES:
                raise AnswerTooLargeError
        return b"".join(parts)

    def close(self) -> None:
        """Give the connection back if all was read, close it otherwise."""
        if self._connection is not None:
            self._connection.release()
            self._connection = None

    @property
    def _open(self) -> _Connection:
        if self._connection is None:
            raise RuntimeError("the reply is closed")
        return self._connection


class _Pod:
    """What is kept for one URL."""

    __slots__ = ("head", "host", "idle", "port")

    def __init__(self, url: URL, idle: list[_Connection]) -> None:
        self.host, self.port = url.host or "", url.port or 80
        self.idle = idle
        authority = url.authority
        self.head = f"POST {url.raw_path} HTTP/1.1\r\nHost: {authority}\r\n".encode()


class Upstream:
    """All connections to pods; use as `async with Upstream(...) as upstream`."""

    def __init__(
        self, *, connect_seconds: float, idle_seconds: float = IDLE_SECONDS, tokens: PoolTokens | None = None
    ) -> None:
        """`tokens`: what each request brings, to pods that know this miner by them."""
        self._tokens = tokens
        self._connect_seconds, self._idle_seconds = connect_seconds, idle_seconds
        self._pods: dict[URL, _Pod] = {}
        self._idle: dict[tuple[str, int], list[_Connection]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._forget()

    async def post(self, url: URL, body: bytes, headers: Mapping[str, str]) -> Reply:
        """Ask a pod; raises ConnectFailedError, BrokeOffError. Headers must hold no line breaks."""
        pod = self._pods.get(url) or self._know(url)
        connection = self._rested(pod) or await self._connect(pod)
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        if self._tokens is not None and self._tokens.header:
            lines += f"{names.POOL_TOKEN_HEADER}: {self._tokens.header}\r\n"
        try:
            connection.send(b"%b%bContent-Length: %d\r\n\r\n%b" % (pod.head, lines.encode("latin-1"), len(body), body))
            await connection.head()
        except BaseException:
            connection.abort()
            raise
        return Reply(connection)

    def _rested(self, pod: _Pod) -> _Connection | None:
        oldest = time.monotonic() - self._idle_seconds
        while pod.idle:
            connection = pod.idle.pop()
            if connection.usable and connection.rested_since > oldest:
                connection.begin()
                return connection
            connection.abort()
        return None

    async def _connect(self, pod: _Pod) -> _Connection:
        try:
            async with asyncio.timeout(self._connect_seconds):
                transport, connection = await asyncio.get_running_loop().create_connection(
                    lambda: _Connection(pod.idle), pod.host, pod.port
                )
        except (OSError, TimeoutError) as error:
            raise ConnectFailedError(type(error).__name__) from None
        _watch(transport.get_extra_info("socket"))
        return connection

    def _know(self, url: URL) -> _Pod:
        if len(self._pods) >= MAX_KNOWN_URLS:
            self._forget()
        idle = self._idle.setdefault((url.host or "", url.port or 80), [])
        pod = self._pods[url] = _Pod(url, idle)
        return pod

    def _forget(self) -> None:
        for idle in self._idle.values():
            for connection in list(idle):
                connection.abort()
        self._pods.clear()
        self._idle.clear()


def _watch(sock: socket.socket) -> None:
    """Let a socket notice within about 20 s that its node has vanished, even in the middle of an answer."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 5)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 20_000)

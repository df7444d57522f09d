"""One POST to an engine pod over a kept connection."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Final, Self

import aiohttp
from yarl import URL

MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024


class ConnectFailedError(Exception):
    """The pod can't be reached: it has not begun."""


class BrokeOffError(Exception):
    """The pod broke the connection: it may have begun."""


class AnswerTooLargeError(Exception):
    """A whole answer has more than MAX_ANSWER_BYTES."""


class Reply:
    """A pod's answer, its headers read. `close` it always: unread, that makes the engine stop generating."""

    __slots__ = ("_answer", "headers", "status")

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._answer = answer
        self.status = answer.status
        self.headers: Mapping[str, str] = answer.headers

    @property
    def content_type(self) -> str:
        """The media type without parameters."""
        return self._answer.content_type

    async def chunk(self) -> bytes:
        """Return what came next, b"" at the end; raises BrokeOffError."""
        try:
            return await self._answer.content.readany()
        except (aiohttp.ClientError, ConnectionError) as error:
            raise BrokeOffError(type(error).__name__) from None

    async def whole(self) -> bytes:
        """Return the whole answer; raises BrokeOffError, AnswerTooLargeError."""
        try:
            length = self._answer.content_length
            if length is not None and length <= MAX_ANSWER_BYTES:
                return await self._answer.read()
            body = bytearray()
            async for chunk in self._answer.content.iter_any():
                body += chunk
                if len(body) > MAX_ANSWER_BYTES:
                    raise AnswerTooLargeError
        except (aiohttp.ClientError, ConnectionError) as error:
            raise BrokeOffError(type(error).__name__) from None
        return bytes(body)

    def close(self) -> None:
        """Give the connection back if all was read, close it otherwise."""
        self._answer.close()


class Upstream:
    """All connections to pods; use as `async with Upstream(...) as upstream`."""

    def __init__(self, *, connect_seconds: float) -> None:
        self._connect_seconds = connect_seconds
        self._client: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._client = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30, socket_factory=_socket),
            # The whole request has one time limit, in `relay`; these are for what only the client can see.
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect_seconds),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            skip_auto_headers=("User-Agent", "Accept-Encoding"),
            read_bufsize=256 * 1024,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._client is not None:
            await self._client.close()

    async def post(self, url: URL, body: bytes, headers: Mapping[str, str]) -> Reply:
        """Ask a pod; raises ConnectFailedError, BrokeOffError."""
        if self._client is None:
            raise RuntimeError("Upstream must be entered first: async with Upstream(...) as upstream")
        try:
            return Reply(await self._client.post(url, data=body, headers=headers, allow_redirects=False))
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise ConnectFailedError(type(error).__name__) from None
        except (aiohttp.ClientError, ConnectionError) as error:
            raise BrokeOffError(type(error).__name__) from None


def _socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """Open a socket that notices within about 20 s that its node has vanished, even in the middle of an answer."""
    family, kind, protocol, _, _ = address
    sock = socket.socket(family, kind, protocol)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 5)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 20_000)
    return sock

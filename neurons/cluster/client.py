"""Requests to the API server over one pooled, keep-alive checked aiohttp session."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
import orjson

from neurons.cluster.access import Access, access_from_environment

CONNECT_SECONDS: Final = 5.0
MAX_RESPONSE_BYTES: Final = 8 * 1024 * 1024
_METADATA_ONLY: Final = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"
"""The answer to a write: the object itself is of no use to us, and can be large."""


class ClusterError(Exception):
    """The API server answered with an error; `status` is its HTTP status."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason


class ClusterClient:
    """An API server and our identity there. Use as `async with ClusterClient() as client`."""

    def __init__(self, access: Access | None = None, *, request_seconds: float = 10.0) -> None:
        self._access = access if access is not None else access_from_environment()
        self._timeout = aiohttp.ClientTimeout(total=request_seconds, sock_connect=CONNECT_SECONDS)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=16, socket_factory=_keepalive_socket)
        self._session = aiohttp.ClientSession(connector=connector, timeout=self._timeout, trust_env=False)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def get(self, path: str, params: Mapping[str, str]) -> dict[str, Any]:
        """GET one JSON document; raises ClusterError, aiohttp.ClientError or TimeoutError."""
        async with self._request("GET", path, params=params) as response:
            return await _document(response)

    async def create(self, path: str, document: Mapping[str, Any]) -> None:
        """POST one object; raises as `get`."""
        await self._write("POST", path, document, "application/json")

    async def merge(self, path: str, patch: Mapping[str, Any]) -> None:
        """Change an object by a JSON merge patch (RFC 7396); raises as `get`."""
        await self._write("PATCH", path, patch, "application/merge-patch+json")

    async def apply(self, path: str, *, body: str, field_manager: str) -> None:
        """Server-side apply `body` with force; raises as `get`."""
        params = {"fieldManager": field_manager, "force": "true"}
        headers = {"Content-Type": "application/apply-patch+yaml", "Accept": _METADATA_ONLY}
        async with self._request("PATCH", path, params=params, data=body.encode(), headers=headers) as response:
            await _document(response)

    async def delete(self, path: str) -> None:
        """DELETE one object; raises as `get`."""
        async with self._request("DELETE", path, params={}) as response:
            await _document(response)

    async def _write(self, method: str, path: str, document: Mapping[str, Any], content_type: str) -> None:
        headers = {"Content-Type": content_type, "Accept": _METADATA_ONLY}
        async with self._request(method, path, params={}, data=orjson.dumps(document), headers=headers) as response:
            await _document(response)

    @asynccontextmanager
    async def stream(
        self, path: str, params: Mapping[str, str], *, silence_seconds: float
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Open a watch; a TimeoutError from reading it means that the server said nothing for `silence_seconds`."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=silence_seconds)
        async with self._request("GET", path, params=params, timeout=timeout) as response:
            yield response

    @asynccontextmanager
    async def _request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str],
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: aiohttp.ClientTimeout | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        if self._session is None:
            raise RuntimeError("ClusterClient must be entered first: async with ClusterClient() as client")
        async with self._session.request(
            method,
            self._access.server + path,
            params=params,
            data=data,
            headers={**self._access.headers(), **(headers or {})},
            ssl=self._access.ssl_context(),
            timeout=timeout or self._timeout,
            allow_redirects=False,
        ) as response:
            if response.status >= 300:
                raise await _error(response)
            yield response


def _keepalive_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """Open a socket that notices a peer that vanished without a FIN within about 25 s (node loss, NAT time-outs)."""
    family, kind, protocol, _, _ = address
    sock = socket.socket(family, kind, protocol)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return sock


async def _document(response: aiohttp.ClientResponse) -> dict[str, Any]:
    document = await response.json(content_type=None)
    if not isinstance(document, dict):
        raise ClusterError(response.status, "BadAnswer", "the API server's answer is no JSON object")
    return document


async def _error(response: aiohttp.ClientResponse) -> ClusterError:
    try:
        status = await response.json(content_type=None)
        return ClusterError(response.status, str(status.get("reason", "")), str(status.get("message", "")))
    except (ValueError, AttributeError, aiohttp.ClientError):
        return ClusterError(response.status, response.reason or "", "no Status document in the answer")

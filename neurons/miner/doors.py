"""Who may ask: by a bearer token, or by a signature of a validator's hotkey. Both doors are on one server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from aiohttp import hdrs, web

from neurons.miner.access import AccessList
from neurons.miner.errors import RequestError
from neurons.wire.refusals import WireRefusal, is_signed

_KINDS = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class ReadBody(Protocol):
    """Reads a body, bounded in size and time."""

    async def __call__(self, request: web.BaseRequest, *, client: str | None) -> bytes:
        """Return the body; raises RequestError. `client`: who sends it, None where only the body tells."""


ReadSigned = Callable[[web.BaseRequest], Awaitable[bytes]]
"""Reads a body of whom it isn't known yet who sends it."""


class SignedDoor(Protocol):
    """The door for signatures (`subnet.Subnet`)."""

    async def enter(self, request: web.BaseRequest, read: ReadSigned) -> tuple[str, bytes]:
        """Return the caller's hotkey and the body that it signed; raises WireRefusal, RequestError."""


class Doors:
    """The doors that are open. A request that is signed is judged by its signature, whatever token it brings, too."""

    def __init__(self, *, tokens: AccessList | None, signed: SignedDoor | None) -> None:
        self._tokens, self._signed = tokens, signed

    async def enter(self, request: web.BaseRequest, read: ReadBody | None = None) -> tuple[str, bytes]:
        """Return the client's name and the body; raises RequestError. Without `read`, a token's body stays unread.

        Names of clients and hotkeys can't be confused: a hotkey's begins with `hotkey:`, which no file's name in a
        Secret does.
        """
        headers = request.headers
        if self._signed is not None and (is_signed(headers) or self._tokens is None):
            try:
                hotkey, body = await self._signed.enter(request, _as_sent(read) if read is not None else _nothing)
            except WireRefusal as refusal:
                raise _error(refusal) from None
            return f"hotkey:{hotkey}", body
        if self._tokens is None:
            raise RequestError(403, "permission_error", "this miner has no open door", code="no_door")
        client = self._tokens.client(headers.get("Authorization"))
        return client, await read(request, client=client) if read is not None else b""


def _as_sent(read: ReadBody) -> ReadSigned:
    """Return a reader that takes no compressed body: what is signed are the bytes as they are sent.

    Who sends it is known when they were read: the signature is over them.
    """

    async def reading(request: web.BaseRequest) -> bytes:
        if request.headers.get(hdrs.CONTENT_ENCODING, "identity").strip().lower() not in ("identity", ""):
            message = "the body is compressed: send a signed body as it is"
            raise RequestError(415, "invalid_request_error", message, code="content_encoding")
        return await read(request, client=None)

    return reading


async def _nothing(request: web.BaseRequest) -> bytes:
    """Return the body of a request that has none."""
    if request.content_length:
        raise RequestError(400, "invalid_request_error", f"{request.method} has no body here: send none")
    return b""


def _error(refusal: WireRefusal) -> RequestError:
    return RequestError(
        refusal.status,
        _KINDS.get(refusal.status, "service_unavailable"),
        refusal.message,
        code=refusal.code,
        retry_after=refusal.retry_after,
    )

"""Reading what a client sends, bounded in size and time: the miner and the validator's gateway read alike.

Bodies arrive as they were sent (`web.Server(auto_decompress=False)`) and are unpacked here: aiohttp answers an encoding
that it doesn't know, or that ends too early, before any handler is asked, in words of its own and with a traceback.
"""

from __future__ import annotations

import asyncio
import zlib
from typing import Any, Final

from aiohttp import HttpVersion11, hdrs, web

from neurons.http_server import Request
from neurons.miner.errors import RequestError, bad_request
from neurons.miner.settings import MAX_BODY_BYTES

BODY_SECONDS: Final = 30.0
"""Longest time a client may take to send its body."""
_GZIP: Final = 16 + zlib.MAX_WBITS
_ZLIB: Final = zlib.MAX_WBITS
_BARE: Final = -zlib.MAX_WBITS
_UNPACKED: Final = {"gzip": _GZIP, "x-gzip": _GZIP, "deflate": _ZLIB}
_DEFLATED: Final = 8
"""Low half of the first byte of zlib's form; clients send bare deflate as `deflate`, too."""
_MOST_PARTS: Final = 16
"""Members of one gzip: at each, all that follows is copied, so that many empty ones would hold up all answers."""


def bounded_request(
    message: Any, payload: Any, protocol: Any, writer: Any, task: asyncio.Task[None]
) -> web.BaseRequest:  # aiohttp doesn't export the types of its request factories
    """Make a request of which aiohttp reads no more than that, for `web.Server(request_factory=)`."""
    return Request(message, payload, protocol, writer, task, asyncio.get_running_loop(), client_max_size=MAX_BODY_BYTES)


async def read_body(request: web.BaseRequest) -> bytes:
    """Return a request's body, unpacked.

    Raises RequestError for one that is too large, too slow, not encoded as it says, or in a way that isn't known.
    """
    encoding = request.headers.get(hdrs.CONTENT_ENCODING)
    body = await _read(request)
    return body if encoding is None else _unpacked(body, encoding.strip().lower())


async def _read(request: web.BaseRequest) -> bytes:
    length = request.content_length
    if length is not None and length > MAX_BODY_BYTES:
        raise _too_large()
    if request.headers.get("Expect", "").lower() == "100-continue" and request.version >= HttpVersion11:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
    content = request.content
    try:
        if content.is_eof():  # all of it is here already, as nearly always: no timer, no limit to watch on the way
            body = content.read_nowait(-1)
            if len(body) > MAX_BODY_BYTES:
                raise _too_large()
            return body
        async with asyncio.timeout(BODY_SECONDS):
            return await request.read()
    except web.RequestPayloadError:
        raise bad_request("the body could not be read: it is not encoded as its headers say") from None
    except web.HTTPRequestEntityTooLarge:
        raise _too_large() from None
    except TimeoutError:
        raise RequestError(408, "timeout", f"the body didn't arrive within {BODY_SECONDS:.0f} s") from None


def _unpacked(body: bytes, encoding: str) -> bytes:
    if encoding in ("", "identity"):
        return body
    form = _UNPACKED.get(encoding)
    if form is None:
        raise RequestError(
            415,
            "invalid_request_error",
            f"a body encoded as {encoding[:20]!r} can't be read: send it as it is, or as gzip or deflate",
            code="unsupported_encoding",
        )
    if form == _ZLIB and body[:1] and body[0] & 0xF != _DEFLATED:
        form = _BARE
    parts: list[bytes] = []
    left = MAX_BODY_BYTES + 1
    rest = body
    try:
        while rest and left > 0:  # gzip may have several members
            if len(parts) == _MOST_PARTS:
                raise bad_request(f"the body has more than {_MOST_PARTS} parts, each encoded as {encoding}: send one")
            packer = zlib.decompressobj(form)
            parts.append(packer.decompress(rest, left))
            left -= len(parts[-1])
            if left > 0 and not packer.eof:
                raise bad_request(f"the body ends before its {encoding} does: it didn't arrive whole")
            rest = packer.unused_data
    except zlib.error:
        raise bad_request(f"the body is not encoded as {encoding}, as its headers say") from None
    if left <= 0:
        raise _too_large()
    return b"".join(parts)


def _too_large() -> RequestError:
    return RequestError(
        413, "invalid_request_error", f"the body has more than {MAX_BODY_BYTES} bytes", code="body_too_large"
    )

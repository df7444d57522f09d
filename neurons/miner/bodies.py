"""Reading what a client sends, bounded in size and time: the miner and the validator's gateway read alike."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from aiohttp import HttpVersion11, web

from neurons.miner.errors import RequestError, bad_request
from neurons.miner.settings import MAX_BODY_BYTES

BODY_SECONDS: Final = 30.0
"""Longest time a client may take to send its body."""


def bounded_request(
    message: Any, payload: Any, protocol: Any, writer: Any, task: asyncio.Task[None]
) -> web.BaseRequest:  # aiohttp doesn't export the types of its request factories
    """Make a request of which aiohttp reads no more than that, for `web.Server(request_factory=)`."""
    return web.BaseRequest(
        message, payload, protocol, writer, task, asyncio.get_running_loop(), client_max_size=MAX_BODY_BYTES
    )


async def read_body(request: web.BaseRequest) -> bytes:
    """Return a request's body; raises RequestError for one that is compressed, too large, too slow or broken."""
    if request.headers.get("Content-Encoding", "identity").strip().lower() not in ("identity", ""):
        # What is signed are the bytes as they are sent; and a small body may be packed of a very large one.
        raise RequestError(
            415, "invalid_request_error", "the body is compressed: send the body as it is", code="content_encoding"
        )
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


def _too_large() -> RequestError:
    return RequestError(
        413, "invalid_request_error", f"the body has more than {MAX_BODY_BYTES} bytes", code="body_too_large"
    )

"""Errors in the shape that OpenAI's clients understand: `{"error": {message, type, param, code}}`."""

from __future__ import annotations

from typing import Final

import orjson
from aiohttp import web

SSE_ERROR_TYPE: Final = "upstream_broken"


class RequestError(Exception):
    """A request that ends in an error answer; the message says what to do about it, and never quotes a prompt."""

    def __init__(
        self,
        status: int,
        kind: str,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message
        self.param = param
        self.code = code
        self.retry_after = retry_after

    def to_bytes(self) -> bytes:
        """Return the JSON body."""
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return orjson.dumps({"error": error})

    def response(self) -> web.Response:
        """Return the whole answer."""
        headers = {"Content-Type": "application/json"}
        if self.retry_after is not None:
            headers["Retry-After"] = str(self.retry_after)
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return web.Response(status=self.status, body=self.to_bytes(), headers=headers)


def bad_request(message: str, *, param: str | None = None, code: str | None = None) -> RequestError:
    """Return a 400."""
    return RequestError(400, "invalid_request_error", message, param=param, code=code)


def unavailable(message: str, *, retry_after: int, code: str) -> RequestError:
    """Return a 503 that asks to come back after `retry_after` seconds."""
    return RequestError(503, "service_unavailable", message, code=code, retry_after=retry_after)


def broken_stream_event(message: str) -> bytes:
    """Return the SSE event that ends a stream whose upstream broke.

    The empty line before it ends an event of which only whole lines were forwarded; no `[DONE]` follows, because the
    answer is not done.
    """
    error = {"message": message, "type": SSE_ERROR_TYPE, "param": None, "code": "stream_broken"}
    return b"\n\ndata: " + orjson.dumps({"error": error}) + b"\n\n"

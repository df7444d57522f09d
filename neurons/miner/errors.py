"""Errors in the shape that OpenAI's clients understand: `{"error": {message, type, param, code}}`."""

from __future__ import annotations

from typing import Any, Final

import orjson
from aiohttp import web

SSE_ERROR_TYPE: Final = "upstream_broken"
SHOULD_RETRY_HEADER: Final = "x-should-retry"
"""OpenAI's clients obey it before they look at the status: `false` keeps them from asking again by themselves."""
EMERGENCY_HEADER: Final = "x-bettertherapy-emergency"
RETRY_AFTER_SECONDS: Final = 5
"""When to come back where nobody knows better."""
JSON_HEADERS: Final = {"Content-Type": "application/json"}


class StartError(Exception):
    """The miner can't begin, or go on, as it is set up; the message says what to do."""


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
        retry_after: int | str | None = None,
        may_repeat: bool = True,
        allow: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message
        self.param = param
        self.code = code
        self.retry_after = retry_after
        self.may_repeat = may_repeat
        """False where asking again would do harm: the miner has tried other pods already, or it took minutes."""
        self.allow = allow
        """Of a 405: the methods that the route has."""
        self.emergency: str | None = None
        """Kinds of the emergency whose notice the message begins with."""

    def to_dict(self) -> dict[str, Any]:
        """Return what stands under `error`."""
        return {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}

    def to_bytes(self) -> bytes:
        """Return the JSON body."""
        return orjson.dumps({"error": self.to_dict()})

    def response(self) -> web.Response:
        """Return the whole answer."""
        headers = {"Content-Type": "application/json"}
        if self.retry_after is not None:
            headers["Retry-After"] = str(self.retry_after)
        if not self.may_repeat:
            headers[SHOULD_RETRY_HEADER] = "false"
        if self.allow is not None:
            headers["Allow"] = self.allow
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        if self.emergency is not None:
            headers[EMERGENCY_HEADER] = self.emergency
        return web.Response(status=self.status, body=self.to_bytes(), headers=headers)


def bad_request(message: str, *, param: str | None = None, code: str | None = None) -> RequestError:
    """Return a 400."""
    return RequestError(400, "invalid_request_error", message, param=param, code=code)


def unavailable(message: str, *, retry_after: int, code: str) -> RequestError:
    """Return a 503 that asks to come back after `retry_after` seconds."""
    return RequestError(503, "service_unavailable", message, code=code, retry_after=retry_after)


def overloaded(message: str, *, retry_after: int | str) -> RequestError:
    """Return a 429 that asks to come back after `retry_after`, in seconds or as upstream said it."""
    return RequestError(429, "rate_limit_error", message, code="overloaded", retry_after=retry_after)


def unknown_model(name: str) -> RequestError:
    """Return the 404 for a model that is no twin of this pool."""
    return RequestError(
        404,
        "invalid_request_error",
        f"there is no twin {name[:100]!r} here; GET /v1/models lists the twins that answer now",
        param="model",
        code="model_not_found",
    )


def unknown_route(path: str) -> RequestError:
    """Return the 404 for a route that the engines don't have."""
    return RequestError(404, "invalid_request_error", f"this pool's engines have no {path}", code="unknown_route")


def broken_stream(message: str) -> dict[str, Any]:
    """Return the error that ends a stream which can't be finished."""
    return {"message": message, "type": SSE_ERROR_TYPE, "param": None, "code": "stream_broken"}


def error_event(error: dict[str, Any]) -> bytes:
    """Return the SSE event that ends a stream with an error.

    The empty line before it ends an event of which only whole lines were forwarded; no `[DONE]` follows, because the
    answer is not done.
    """
    return b"\n\ndata: " + orjson.dumps({"error": error}) + b"\n\n"

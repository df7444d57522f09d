"""Why a signed request is not let in: a status, a code for programs, and a sentence for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_MARKS: Final = ("X-Bittensor-Signature", "X-Bittensor-Hotkey")


class WireRefusal(Exception):  # noqa: N818 - a refusal is an answer, and no failure of ours
    """A request that is refused; the message says what is wrong and what to do, and holds nothing secret."""

    def __init__(self, status: int, code: str, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        """401: who it is wasn't proven; 403: who it is isn't admitted; 429: too often; 503: can't be judged now."""
        self.code = code
        """Of a small closed set: it is a metric's label."""
        self.message = message
        self.retry_after = retry_after
        """Seconds."""


def unproven(code: str, message: str) -> WireRefusal:
    """Return a 401."""
    return WireRefusal(401, code, message)


def not_admitted(code: str, message: str) -> WireRefusal:
    """Return a 403."""
    return WireRefusal(403, code, message)


def too_often(message: str, *, retry_after: int) -> WireRefusal:
    """Return a 429."""
    return WireRefusal(429, "caller_rate", message, retry_after=retry_after)


def undecidable(code: str, message: str, *, retry_after: int) -> WireRefusal:
    """Return a 503: the door stays shut, because what it takes to judge is away."""
    return WireRefusal(503, code, message, retry_after=retry_after)


def is_signed(headers: Mapping[str, str]) -> bool:
    """Tell whether a request means to come by the signed door; `headers` by names in any letters, as aiohttp's are."""
    return any(mark in headers for mark in _MARKS)

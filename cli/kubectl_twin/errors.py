"""What the plugin tells a person when it can't do what was asked."""

from __future__ import annotations


class TwinCliError(Exception):
    """A failure in one or two sentences: what is wrong, and what to do about it."""


class ApiError(TwinCliError):
    """The API server refused a request; `status` is its HTTP status."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status

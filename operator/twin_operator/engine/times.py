"""Timestamps as the API server writes and reads them."""

from __future__ import annotations

from datetime import UTC, datetime


def timestamp(moment: datetime) -> str:
    """Return RFC 3339 with seconds in UTC, as the API server writes it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def exact_timestamp(moment: datetime) -> str:
    """Return RFC 3339 with microseconds in UTC, where something shorter than a second depends on it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def moment(text: str) -> datetime:
    """Return the time that a timestamp of the API server names."""
    return datetime.fromisoformat(text)

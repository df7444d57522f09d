"""How a benchmark's requests come in: by a bearer token, or each signed by a validator's hotkey (btauth/1)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final, Protocol

from yarl import URL

from neurons.receipts import Keypair
from neurons.wire.signer import RequestSigner

AHEAD_NS: Final = 1_000_000_000
"""A miner takes what is dated up to 2 s ahead, and 10 s old: so dated, what is signed beforehand lasts longer."""
LASTING_SECONDS: Final = 5.0
"""Longest stretch of load for requests that are signed before it begins."""


class Door(Protocol):
    """Whom a subject lets in."""

    longest: float
    """Seconds that a stretch of load may last."""

    def always(self) -> dict[str, str]:
        """Return the headers that are the same in each request."""

    def each(self, url: str, body: str, count: int) -> Sequence[dict[str, str]]:
        """Return what each of `count` requests has beside those; nothing where they are all alike."""


class TokenDoor:
    """All requests are alike."""

    longest = float("inf")

    def __init__(self, token: str) -> None:
        self._token = token

    def always(self) -> dict[str, str]:
        """Return the token."""
        return {"Authorization": f"Bearer {self._token}"}

    def each(self, url: str, body: str, count: int) -> Sequence[dict[str, str]]:
        """Return nothing."""
        del url, body, count
        return ()


class SignedDoor:
    """Each request is signed, beforehand: whoever makes the load has no time for it."""

    longest = LASTING_SECONDS

    def __init__(self, keypair: Keypair, *, receiver: str) -> None:
        self._signer = RequestSigner(keypair, clock_ns=lambda: time.time_ns() + AHEAD_NS)
        self._receiver = receiver

    def always(self) -> dict[str, str]:
        """Return nothing: the load's tool sends all of btauth's headers as `each` has them."""
        return {}

    def each(self, url: str, body: str, count: int) -> Sequence[dict[str, str]]:
        """Return the signed headers of each request; good for the next ten seconds."""
        return [
            self._signer.headers(method="POST", url=URL(url), body=body.encode(), receiver=self._receiver)
            for _ in range(count)
        ]

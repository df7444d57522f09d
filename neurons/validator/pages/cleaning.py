"""A doctor's own texts freed of identifiers; what was removed is shown to the doctor, and to nobody else."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from neurons.miner.errors import RequestError
from neurons.privacy import PrivacyError, Removed, Scrubbed
from neurons.validator.gateway.recording import Scrubber


@runtime_checkable
class Previewing(Protocol):
    """A scrubber that says what it removed."""

    def preview(self, text: str) -> Scrubbed:
        """Return the text without identifiers, and what was removed; raises PrivacyError."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a text: words that stay, or one identifier. Never logged or kept."""

    text: str = field(repr=False)
    kind: str | None = None
    """What it is, of an identifier; None: words that stay."""


@dataclass(frozen=True, slots=True)
class Cleaned:
    """A text as it may be kept, and its parts as they were."""

    text: str = field(repr=False)
    pieces: tuple[Piece, ...] = field(repr=False)
    removed: int = 0


def mark(text: str) -> str:
    """Return what a preview's form carries: a text that was changed after it is shown again before it is kept."""
    return hashlib.sha256(text.strip().encode("utf-8", "replace")).hexdigest()


async def cleaned(scrub: Scrubber | None, texts: Sequence[str]) -> list[Cleaned]:
    """Return the texts without identifiers; raises RequestError (503, 400) where nobody can tell what is in them."""
    if not isinstance(scrub, Previewing):
        raise RequestError(
            503, "service_unavailable", "texts can't be freed of identifiers here now, and so none is taken",
            code="no_cleaning", retry_after=60,
        )  # fmt: skip
    preview = scrub.preview
    try:
        return await asyncio.to_thread(lambda: [_cleaned(text, preview(text)) for text in texts])
    except PrivacyError as error:
        raise RequestError(400, "invalid_request_error", str(error), code="not_cleaned") from None


def _cleaned(text: str, scrubbed: Scrubbed) -> Cleaned:
    return Cleaned(scrubbed.text, tuple(_pieces(text, scrubbed.found)), len(scrubbed.found))


def _pieces(text: str, found: Sequence[Removed]) -> list[Piece]:
    pieces: list[Piece] = []
    at = 0
    for each in sorted(found, key=lambda removed: removed.start):
        if each.start > at:
            pieces.append(Piece(text[at : each.start]))
        pieces.append(Piece(text[each.start : each.end], each.kind.value))
        at = each.end
    if at < len(text):
        pieces.append(Piece(text[at:]))
    return pieces

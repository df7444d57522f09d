"""Server-sent events, as OpenAI-compatible servers stream answers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from kubectl_twin.errors import TwinCliError

_DONE = "[DONE]"
EXTENSION = "bettertherapy"
"""The member of an answer that is ours."""


@dataclass(frozen=True)
class Piece:
    """What one event adds to the answer."""

    text: str = ""
    finish_reason: str | None = None
    completion_tokens: int | None = None
    """How many tokens the whole answer has; only the last event says it."""
    extension: dict[str, Any] | None = None
    """What stands under `bettertherapy`: at a miner the receipt, at a gateway also who answered."""


def data_of(lines: Iterable[bytes]) -> Iterator[str]:
    """Yield the data of each event; comments and other fields are skipped, lines of one event are joined."""
    parts: list[str] = []
    for raw in lines:
        line = raw.decode("utf-8", errors="replace").rstrip("\r\n")
        if not line:
            if parts:
                yield "\n".join(parts)
                parts = []
        elif line.startswith("data:"):
            parts.append(line[5:].removeprefix(" "))
    if parts:
        yield "\n".join(parts)


def pieces(lines: Iterable[bytes]) -> Iterator[Piece]:
    """Yield the pieces of a streamed chat completion until `[DONE]`.

    Raises:
        TwinCliError: an error event, or a stream that ended without `[DONE]`: the answer is not whole.
    """
    for data in data_of(lines):
        if data == _DONE:
            return
        try:
            event = json.loads(data)
        except ValueError as error:
            raise TwinCliError(f"Something came that is no event: {data[:120]!r}") from error
        if "error" in event:
            raise TwinCliError(f"The answer broke off: {event['error'].get('message', 'no reason given')}")
        choice: dict[str, Any] = next(iter(event.get("choices") or []), {})
        yield Piece(
            text=(choice.get("delta") or {}).get("content") or "",
            finish_reason=choice.get("finish_reason"),
            completion_tokens=(event.get("usage") or {}).get("completion_tokens"),
            extension=event.get(EXTENSION),
        )
    raise TwinCliError("The answer broke off before it was done: who gave it went away. Ask again.")

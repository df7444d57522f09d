"""What a stream has said so far: kept as bytes, read only when it is needed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import orjson

FOLD_BYTES: Final = 64 * 1024
"""From so many bytes on they are read and thrown away; only the text is kept."""

MAX_CHOICES: Final = 128
DATA: Final = b"data:"
DONE: Final = b"[DONE]"
_TEXT: Final = frozenset({"role", "content"})


class Transcript:
    """The events that a client got. `add` costs next to nothing; the rest is read when a stream breaks."""

    __slots__ = (
        "_bytes",
        "_chunks",
        "_events",
        "_text",
        "_usage",
        "beside",
        "finished",
        "head",
        "other",
        "role_sent",
        "usage_sent",
    )

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._bytes = 0
        self._text: dict[int, list[str]] = {}
        """By the choices' index."""
        self._events = 0
        self._usage: int | None = None
        self.head: dict[str, Any] | None = None
        """`id`, `object`, `created` and `model` of the first event."""
        self.role_sent = False
        self.finished: str | None = None
        """The finish_reason, once it was sent."""
        self.usage_sent = False
        """The event with the whole count was sent."""
        self.beside: set[str] = set()
        """Members of the answer that are no text: `tool_calls`, `reasoning_content`."""
        self.other: str | None = None
        """What was said beside plain text of one choice."""

    def add(self, events: bytes) -> None:
        """Take whole lines that were forwarded."""
        self._chunks.append(events)
        self._bytes += len(events)
        if self._bytes > FOLD_BYTES:
            self.read()

    @property
    def text(self) -> str:
        """All that was said."""
        return "".join(self.texts)

    @property
    def texts(self) -> list[str]:
        """What each choice said, by its index; one at least."""
        self.read()
        return ["".join(self._text.get(index, ())) for index in range(max(self._text, default=0) + 1)]

    @property
    def tokens(self) -> int:
        """How many tokens that was: as the engine counted, or one an event, as vLLM sends them unless it lags."""
        self.read()
        return self._events if self._usage is None else self._usage

    def read(self) -> None:
        """Read what was added since the last time."""
        chunks, self._chunks, self._bytes = self._chunks, [], 0
        for event in events_of(b"".join(chunks)):
            if event is not None:
                self._read(event)

    def _read(self, event: dict[str, Any]) -> None:
        if self.head is None:
            self.head = {name: event[name] for name in ("id", "object", "created", "model") if name in event}
        usage = event.get("usage")
        choices = event.get("choices") or ()
        if isinstance(usage, dict):
            self._usage = usage.get("completion_tokens", self._usage)
            self.usage_sent = self.usage_sent or not choices
        for choice in choices:
            delta = choice.get("delta")
            said = choice.get("text") if delta is None else delta.get("content")
            if delta and delta.get("role"):
                self.role_sent = True
            if said:
                self._text.setdefault(_index(choice), []).append(said)
            if said or (said == "" and not (delta or {}).get("role")):
                self._events += 1
            if choice.get("index"):
                self.other = self.other or "it has several choices"
            if delta and (others := {name for name, value in delta.items() if value and name not in _TEXT}):
                self.beside |= others
                self.other = self.other or "more than text was said (thoughts, calls of tools)"
            self.finished = choice.get("finish_reason") or self.finished


def _index(choice: dict[str, Any]) -> int:
    index = choice.get("index")
    return index if isinstance(index, int) and 0 <= index < MAX_CHOICES else 0


def events_of(data: bytes) -> Iterator[dict[str, Any] | None]:
    """Read whole lines; an event that is no JSON object of OpenAI's form is left out, `[DONE]` is None."""
    for line in data.split(b"\n"):
        if not line.startswith(DATA):
            continue
        payload = line[len(DATA) :].strip()
        if payload == DONE:
            yield None
            continue
        event = event_of(payload)
        if event is not None:
            yield event


def event_of(payload: bytes) -> dict[str, Any] | None:
    """Return an event's document; None for what is none of OpenAI's form."""
    try:
        event = orjson.loads(payload)
    except orjson.JSONDecodeError:
        try:
            event = json.loads(payload)  # it takes NaN, with which an answer must not lose a word
        except (ValueError, RecursionError):
            return None
    return event if is_in_form(event) else None


def is_in_form(event: object) -> bool:
    """Tell whether an event's parts are of the kinds that OpenAI's have: a server that isn't vLLM may send anything."""
    if not isinstance(event, dict):
        return False
    choices, usage = event.get("choices") or [], event.get("usage") or {}
    return (
        isinstance(choices, list)
        and isinstance(usage, dict)
        and all(isinstance(usage.get(name, 0), int) for name in ("prompt_tokens", "completion_tokens"))
        and all(isinstance(choice, dict) and _is_choice(choice) for choice in choices)
    )


def _is_choice(choice: dict[str, Any]) -> bool:
    delta = choice.get("delta")
    where = choice if delta is None else delta
    said = isinstance(where, dict) and isinstance(where.get("text" if delta is None else "content"), str | None)
    return said and isinstance(choice.get("finish_reason"), str | None)


def event_bytes(event: dict[str, Any] | None) -> bytes:
    """Return an event as SSE; None is `[DONE]`."""
    return b"data: " + (DONE if event is None else orjson.dumps(event)) + b"\n\n"

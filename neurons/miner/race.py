"""Several answers to one question as they arrive, interleaved, in one stream."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Final

from neurons.candidates import Candidate
from neurons.miner.pod_answers import ERROR_EVENTS, StreamError, stream_error
from neurons.miner.transcript import DATA, DONE, event_bytes, event_of

MAX_CHARACTERS: Final = 1024 * 1024
"""Of all candidates together; what an engine says beyond is not read."""
_TEXTS: Final = ("content", "reasoning", "reasoning_content", "refusal")


@dataclass(slots=True)
class Track:
    """One of the answers."""

    index: int
    events: list[dict[str, Any]] = field(default_factory=list)
    """Its events, each with this one choice."""
    said: dict[str, list[str]] = field(default_factory=dict)
    """Its texts by member of the message."""
    logprobs: list[float] = field(default_factory=list)
    finish: str | None = None
    stop_reason: Any = None
    counted: int | None = None
    """Its tokens as the engine counted them."""
    strange: bool = False
    """It says what is no text: it can't be put together."""

    @property
    def text(self) -> str:
        """What it said."""
        return "".join(self.said.get("content", ()))

    @property
    def tokens(self) -> int:
        """How many tokens it has: by their probabilities, or as counted, or an event each."""
        return len(self.logprobs) or self.counted or len(self.events)

    def candidate(self) -> Candidate:
        """Return it for the scorers."""
        return Candidate(
            index=self.index, text=self.text, finish=self.finish or "", logprobs=tuple(self.logprobs) or None
        )

    def message(self) -> dict[str, Any]:
        """Return the message that its pieces make."""
        others = {name: "".join(parts) for name, parts in self.said.items() if name != "content"}
        return {"role": "assistant", "content": self.text, **others}


class Race:
    """All of them."""

    def __init__(self, most: int) -> None:
        """`most` is how many were asked for; a choice with another index is passed over."""
        self._most = most
        self._rest = b""
        self._characters = 0
        self.tracks: dict[int, Track] = {}
        self.head: dict[str, Any] = {}
        """`id`, `object`, `created` and `model` of the first event."""
        self.prompt_tokens = 0
        self.failed: StreamError | None = None
        """What the engine said instead of going on."""
        self.done = False
        """It said all that it had to."""

    @property
    def over(self) -> bool:
        """Whether nothing more is to come."""
        return (
            self.done
            or self.failed is not None
            or sum(track.finish is not None for track in self.tracks.values()) >= self._most
        )

    @property
    def damaged(self) -> bool:
        """Whether it is too much, or no event stream."""
        return self._characters > MAX_CHARACTERS or len(self._rest) > MAX_CHARACTERS

    def finished(self) -> list[Track]:
        """Return the complete ones, in the order of their numbers."""
        return [
            self.tracks[index]
            for index in sorted(self.tracks)
            if (self.done or self.tracks[index].finish is not None) and not self.tracks[index].strange
        ]

    def furthest(self) -> Track | None:
        """Return the one that has said most; not one that came to its end without a word."""
        return max(
            (track for track in self.tracks.values() if not track.strange and (track.finish is None or track.text)),
            key=lambda track: (track.finish is not None, track.tokens),
            default=None,
        )

    def read(self, data: bytes) -> None:
        """Take what came next, in whatever pieces."""
        data = self._rest + data
        cut = data.rfind(b"\n") + 1
        lines, self._rest = data[:cut], data[cut:]
        if self.failed is not None or not lines:
            return
        if any(mark in lines for mark in ERROR_EVENTS):
            self.failed = stream_error(lines)
            lines = self.failed.before
        self._lines(lines)

    def end(self) -> None:
        """Take what came without a line's end, once nothing more comes."""
        self.read(b"\n")

    def _lines(self, lines: bytes) -> None:
        for line in lines.split(b"\n"):
            if not line.startswith(DATA):
                continue
            payload = line[len(DATA) :].strip()
            if payload == DONE:
                self.done = True
            elif (event := event_of(payload)) is not None:
                self._take(event)

    def _take(self, event: dict[str, Any]) -> None:
        if not self.head:
            self.head = {name: event[name] for name in ("id", "object", "created", "model") if name in event}
        usage = event.get("usage")
        if isinstance(usage, dict):
            self.prompt_tokens = _count(usage.get("prompt_tokens")) or self.prompt_tokens
        choices = event.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict):
                self._choice(choice, usage if isinstance(usage, dict) else {})

    def _choice(self, choice: dict[str, Any], usage: dict[str, Any]) -> None:
        index = choice.get("index", 0)
        if not isinstance(index, int) or not 0 <= index < self._most:
            return
        track = self.tracks.get(index)
        if track is None:
            track = self.tracks[index] = Track(index)
        if track.finish is not None:
            return
        for name, value in (choice.get("delta") or {}).items():
            if name == "role" or not value:
                continue
            if name not in _TEXTS or not isinstance(value, str):
                track.strange = True
                continue
            track.said.setdefault(name, []).append(value)
            self._characters += len(value)
        track.logprobs += _logprobs(choice)
        track.counted = _count(usage.get("completion_tokens")) or track.counted
        finish = choice.get("finish_reason")
        if isinstance(finish, str):
            track.finish, track.stop_reason = finish, choice.get("stop_reason")
            if finish == "abort":  # stopped in the middle: the event that says so would make an end of it
                track.strange = True
                return
        track.events.append({**choice, "index": 0, "logprobs": None})

    # --- one of them for the client

    def events(self, track: Track, since: int = 0) -> bytes:
        """Return its events from number `since` on, as if it were the only one."""
        return b"".join(event_bytes({**self.head, "choices": [choice]}) for choice in track.events[since:])

    def closing(self, track: Track, *, usage: bool) -> bytes:
        """Return the events after its last."""
        count = event_bytes({**self.head, "choices": [], "usage": self._usage(track)}) if usage else b""
        return count + event_bytes(None)

    def document(self, track: Track) -> dict[str, Any]:
        """Return it as a whole answer."""
        choice = {
            "index": 0, "message": track.message(), "logprobs": None, "finish_reason": track.finish or "stop",
            "stop_reason": track.stop_reason,
        }  # fmt: skip
        return {**self.head, "object": "chat.completion", "choices": [choice], "usage": self._usage(track)}

    def _usage(self, track: Track) -> dict[str, int]:
        """Return the tokens of the prompt and of this answer: those of the others are the miner's own affair."""
        given, made = self.prompt_tokens, track.tokens
        return {"prompt_tokens": given, "completion_tokens": made, "total_tokens": given + made}


def _logprobs(choice: dict[str, Any]) -> list[float]:
    """Return the probabilities of a choice's tokens; NaN for what is no number."""
    logprobs = choice.get("logprobs")
    entries = logprobs.get("content") if isinstance(logprobs, dict) else None
    if not isinstance(entries, list):
        return []
    values = [entry.get("logprob") if isinstance(entry, dict) else None for entry in entries]
    return [float(value) if isinstance(value, int | float) else math.nan for value in values]


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and value > 0 else None

"""How a stream that broke goes on at another pod, so that its client notices nothing.

Nothing said yet: the request is sent again. Text said: the other engine continues the answer's text. `Splice` then
makes the second stream look like the rest of the first: one id, one role, one count of tokens, no white space twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from neurons.miner.asked import EngineRequest
from neurons.miner.transcript import Transcript, event_bytes, events_of


@dataclass(frozen=True, slots=True)
class Again:
    """Send the same request: nothing was said."""


@dataclass(frozen=True, slots=True)
class GoOn:
    """Let another engine continue after `said`."""

    said: str
    """Without white space at its end, which chat templates may cut off."""
    tokens: int
    space: str
    """What was cut from the end of `said`; the client has it already."""


@dataclass(frozen=True, slots=True)
class Finish:
    """All was said; only these events are missing."""

    events: bytes


@dataclass(frozen=True, slots=True)
class Impossible:
    """It can't go on elsewhere."""

    why: str


class TornError(Exception):
    """The second engine went on where the client has white space already: its first word belongs to the last one."""


Plan = Again | GoOn | Finish | Impossible


def plan(asked: EngineRequest, transcript: Transcript) -> Plan:
    """Return how the stream goes on."""
    text, tokens = transcript.text, transcript.tokens
    finished = transcript.finished is not None
    if not finished:
        if not text and transcript.other is None:
            return Again()
        obstacle = asked.obstacle() or transcript.other
        if obstacle is not None:
            return Impossible(obstacle)
    if finished or asked.is_at_its_length(tokens):
        if asked.wants_usage() and not transcript.usage_sent:
            return Impossible("the count of its tokens is lost")
        return Finish((b"" if finished else _end_by_length(transcript)) + event_bytes(None))
    said = text.rstrip()
    return GoOn(said=said, tokens=tokens, space=text[len(said) :]) if said else Again()


def _end_by_length(transcript: Transcript) -> bytes:
    head = transcript.head or {}
    said: dict[str, Any] = {"delta": {}} if str(head.get("object", "")).startswith("chat") else {"text": ""}
    return event_bytes({**head, "choices": [{"index": 0, **said, "logprobs": None, "finish_reason": "length"}]})


class Splice:
    """Rewrites the second stream's events."""

    def __init__(self, transcript: Transcript, plan: Again | GoOn) -> None:
        transcript.read()
        self._head = {name: value for name, value in (transcript.head or {}).items() if name in ("id", "created")}
        self._role_sent = transcript.role_sent
        self._tokens = plan.tokens if isinstance(plan, GoOn) else 0
        self._space = plan.space if isinstance(plan, GoOn) else transcript.text
        self._may_tear = isinstance(plan, GoOn) and bool(plan.space)

    def rewrite(self, data: bytes) -> bytes:
        """Return whole lines as the client shall see them. Raises TornError."""
        kept = []
        for event in events_of(data):
            changed = event if event is None else self._event(event)
            if event is None or changed is not None:
                kept.append(event_bytes(changed))
        return b"".join(kept)

    def _event(self, event: dict[str, Any]) -> dict[str, Any] | None:
        """Return the event, or None for one that says only what the client knows."""
        event |= self._head
        usage = event.get("usage")
        if isinstance(usage, dict) and self._tokens:
            usage["prompt_tokens"] = max(0, usage.get("prompt_tokens", 0) - self._tokens)
            usage["completion_tokens"] = usage.get("completion_tokens", 0) + self._tokens
        choices = event.get("choices") or []
        if not choices:
            return event
        new = [self._says_new(choice) for choice in choices]
        return event if any(new) else None

    def _says_new(self, choice: dict[str, Any]) -> bool:
        delta = choice.get("delta")
        where, name = (choice, "text") if delta is None else (delta, "content")
        was_role = delta is not None and "role" in delta
        if delta is not None and self._role_sent:
            delta.pop("role", None)
        said = where.get(name)
        if said and self._space:
            where[name] = said = self._without_space(said)
        if choice.get("finish_reason") is not None:
            return True
        others = delta is not None and any(value for key, value in delta.items() if key not in ("role", "content"))
        if was_role and self._role_sent:
            return bool(said or others)
        return True

    def _without_space(self, said: str) -> str:
        if self._may_tear and not said[0].isspace():
            raise TornError("the next engine went on in the middle of a word")
        self._may_tear = False
        while said and self._space and said[0] == self._space[0]:
            said, self._space = said[1:], self._space[1:]
        if said and self._space:
            said, self._space = said.lstrip(), ""
        return said

"""Write a conversation in the manner that a chat template takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import takewhile
from typing import Any, Final

Message = dict[str, Any]
"""`role`, `content` (a text, or OpenAI's list of parts) and what else OpenAI's API has there."""

SYSTEM_ROLES: Final = frozenset({"system", "developer"})
BETWEEN: Final = "\n\n"
"""What stands between two texts that are written as one."""
OPENING: Final = "…"
"""What the user is taken to have said before an assistant that speaks first, in a template that begins with the user:
no words of the patient's are made up, and none of a language that may not be theirs."""


class SystemPlace(StrEnum):
    """Where the system's text goes."""

    OWN_TURN = "OwnTurn"
    FIRST_USER_TURN = "FirstUserTurn"
    """Mistral's, Gemma's and some Llama 2 templates know no system."""


@dataclass(frozen=True, slots=True)
class Manner:
    """What a template takes."""

    system: SystemPlace = SystemPlace.OWN_TURN
    user_first: bool = False
    """A conversation that the user doesn't begin (a twin's greeting, or what comes before it) gets a turn of the user's
    at its beginning."""


DEFAULT: Final = Manner()


def is_plain(messages: Sequence[Message]) -> bool:
    """Tell whether every manner writes these messages as they are (as long as no system text is added)."""
    last = None
    for message in messages:
        role = message["role"]
        if role == last or role in SYSTEM_ROLES or (last is None and role != "user"):
            return False
        last = role
    return True


def text_of(message: Message) -> str:
    """Return a message's text; parts that are no text are left out."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else ()
    return BETWEEN.join(part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str))


def shape(
    messages: Sequence[Message], *, system: str | None, manner: Manner = DEFAULT, closing: str | None = None
) -> list[Message]:
    """Return the conversation as the template takes it; `messages` itself stays as it is.

    All system texts become one, `system` (the twin's own) first: templates of the Llama 2 kind refuse a second one, and
    others put it where it was said or drop it. Turns of one speaker in a row become one: many templates refuse them
    otherwise, and a twin learns them so.

    `closing` (what is of this request alone) stands after all other system texts, so that what stays the same is in
    front and an engine's prefix cache serves.
    """
    texts = [system] if system else []
    turns: list[Message] = []
    for message in messages:
        if message["role"] not in SYSTEM_ROLES:
            turns.append(message)
        elif text := text_of(message):
            texts.append(text)
    if closing:
        texts.append(closing)
    turns = _alternating(turns)
    whole = BETWEEN.join(texts)
    if texts and manner.system is SystemPlace.FIRST_USER_TURN:
        if turns and turns[0]["role"] == "user":
            return [{**turns[0], "content": _joined(whole, turns[0].get("content"))}, *turns[1:]]
        return [{"role": "user", "content": whole}, *turns]
    if manner.user_first and (not turns or turns[0]["role"] != "user"):
        turns = [{"role": "user", "content": OPENING}, *turns]
    return [{"role": "system", "content": whole}, *turns] if texts else turns


def _alternating(turns: Sequence[Message]) -> list[Message]:
    """Join what one speaker said in a row. Calls of tools and their results stay apart: they are no speech."""
    rows: list[list[Message]] = []
    for turn in turns:
        last = rows[-1][-1] if rows else None
        if last is not None and last["role"] == turn["role"] and _is_speech(last) and _is_speech(turn):
            rows[-1].append(turn)
        else:
            rows.append([turn])
    return [_as_one(row) if len(row) > 1 else row[0] for row in rows]


def _as_one(row: Sequence[Message]) -> Message:
    joined = {name: value for turn in row for name, value in turn.items()}
    joined["content"] = _joined(*(turn.get("content") for turn in row))
    if len({turn.get("name") for turn in row}) > 1:
        del joined["name"]
    return joined


def _is_speech(turn: Message) -> bool:
    return turn["role"] in ("user", "assistant") and not turn.get("tool_calls") and not turn.get("function_call")


def _joined(*contents: Any) -> Any:
    """Return contents as one: a text if all are, a list of parts otherwise. All at once: a row may be very long."""
    said = [content for content in contents if content] or [contents[-1]]
    if len(said) == 1:
        return said[0]
    first = list(takewhile(lambda content: isinstance(content, str), said))
    if len(first) == len(said):
        return BETWEEN.join(first)
    texts = [BETWEEN.join(first)] if first else []
    return [part for content in (*texts, *said[len(first) :]) for part in _parts(content)]


def _parts(content: Any) -> list[Any]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)

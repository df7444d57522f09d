"""Answers that look odd as they pass by: without a word, stuck on one piece, or refused for a value that is no number.

A healthy model gives such an answer now and then, so they are no verdict: a few of them have the model measured.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Any, Final

import orjson

from neurons.agent.engine import NOT_FINITE_WORDS
from neurons.invisible import is_blank

MOST_BYTES: Final = 64 * 1024
"""Of an answer so much is looked at."""
WINDOW: Final = 20
"""Answers of one model that are remembered."""
ENOUGH: Final = 3
"""So many odd ones among them are a reason to measure."""
_TAIL: Final = 64
_LONGEST_PIECE: Final = 12
"""Characters: an answer whose last 64 repeat a piece of at most so many is stuck."""
_MOST_NAMES: Final = 4096
_ENDED: Final = ("stop", "length")
_DATA: Final = b"data:"


class Oddity(StrEnum):
    """What is odd about an answer."""

    EMPTY = "empty"
    STUCK = "stuck"
    NOT_FINITE = "not_finite"


def oddity(status: int, answer: bytes) -> Oddity | None:
    """Return what is odd about an answer of the engine, a whole one or the events of a stream."""
    if NOT_FINITE_WORDS in answer and (status >= 400 or _DATA in answer[:_TAIL]):
        return Oddity.NOT_FINITE
    if status != 200:
        return None
    said: dict[int, str] = {}
    ended: set[int] = set()
    for document in _documents(answer):
        choices = document.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict) and isinstance(index := choice.get("index"), int):
                said[index] = said.get(index, "") + _said(choice)
                if choice.get("finish_reason") in _ENDED:
                    ended.add(index)
    if any(is_blank(said[index]) for index in ended):
        return Oddity.EMPTY
    return Oddity.STUCK if any(_is_stuck(text) for text in said.values()) else None


class OddAnswers:
    """Counts odd answers by served name, and says of whom there were enough."""

    def __init__(self, *, enough: Callable[[str], None], count: Callable[[Oddity], None]) -> None:
        self._enough = enough
        self._count = count
        self._seen: OrderedDict[str, deque[bool]] = OrderedDict()

    def saw(self, name: str, status: int, answer: bytes) -> None:
        """Take note of one answer."""
        found = oddity(status, answer)
        if status != 200 and found is None:
            return
        seen = self._seen.setdefault(name, deque(maxlen=WINDOW))
        self._seen.move_to_end(name)
        while len(self._seen) > _MOST_NAMES:
            self._seen.popitem(last=False)
        seen.append(found is not None)
        if found is not None:
            self._count(found)
            if sum(seen) >= ENOUGH:
                seen.clear()
                self._enough(name)


def _documents(answer: bytes) -> Iterator[dict[str, Any]]:
    pieces = (line[len(_DATA) :] for line in answer.splitlines() if line.startswith(_DATA))
    for piece in [answer] if answer[:1] == b"{" else pieces:
        try:
            document = orjson.loads(piece)
        except orjson.JSONDecodeError:
            continue  # the end of a stream, or where an answer was cut
        if isinstance(document, dict):
            yield document


def _said(choice: dict[str, Any]) -> str:
    """Return the text of a choice; a call of a tool is a word too."""
    message = choice.get("message", choice.get("delta", choice))
    if not isinstance(message, dict):
        return ""
    if any(message.get(field) for field in ("tool_calls", "function_call")):
        return "(a call)"
    texts = (message.get(field) for field in ("reasoning", "reasoning_content", "content", "refusal", "text"))
    return "".join(text for text in texts if isinstance(text, str))


def _is_stuck(text: str) -> bool:
    tail = text[-_TAIL:]
    return len(tail) == _TAIL and any(tail[size:] == tail[:-size] for size in range(1, _LONGEST_PIECE + 1))

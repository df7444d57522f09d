"""Answers that look odd as they pass by: without a word, stuck on one piece, or refused for a value that is no number.

A healthy model gives such an answer now and then, so they are no verdict: a few of them have the model measured. What
the request itself explains (a limit of one token, a stop sequence that came first) isn't odd, and says nothing either
way: it doesn't count.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
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
_FEW_TOKENS: Final = 8
"""So many may be white space, or a part of one character, in a sound answer."""
_LIMITS: Final = ("max_tokens", "max_completion_tokens")
_DICTATES: Final = ("allowed_token_ids", "logit_bias", "ignore_eos")
"""Fields of a request that choose tokens in the model's place: what it says then is not its own."""
_SHAPES: Final = ("structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar")
_ENDED: Final = frozenset({"stop", "length"})
_CALLS: Final = ("tool_calls", "function_call")
_TEXTS: Final = ("reasoning", "reasoning_content", "content", "refusal", "text")
_DATA: Final = b"data:"
_UNSAID: Final = object()


class Oddity(StrEnum):
    """What is odd about an answer."""

    EMPTY = "empty"
    STUCK = "stuck"
    NOT_FINITE = "not_finite"


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What a request lets a sound model's answer be."""

    few: bool = False
    """It may have so few tokens that none of them is a word."""
    stops: bool = False
    """It ends before a text of the client's, which may come first."""
    shaped: bool = False
    """It has a form, such as JSON, in which white space may go on until the limit."""
    dictated: bool = False
    """Its tokens are chosen in the model's place, or it goes on with an answer that may be complete."""

    @classmethod
    def of(cls, request: Mapping[str, Any]) -> Asked:
        """Return what a request says of it."""
        limits = [limit for name in _LIMITS if isinstance(limit := request.get(name), int)]
        form = request.get("response_format")
        in_form = isinstance(form, dict) and form.get("type") != "text"
        return cls(
            few=bool(limits) and min(limits) <= _FEW_TOKENS,
            stops=bool(request.get("stop") or request.get("stop_token_ids")),
            shaped=in_form or any(request.get(name) for name in _SHAPES),
            dictated=any(request.get(name) for name in _DICTATES) or request.get("continue_final_message") is True,
        )


_FREELY: Final = Asked()


@dataclass(kw_only=True, slots=True)
class _Choice:
    """What one choice said, as far as it was looked at."""

    texts: list[str] = field(default_factory=list)
    calls: bool = False
    end: str | None = None
    stopped_by: object = None

    @property
    def text(self) -> str:
        return "".join(self.texts)

    def take(self, part: Mapping[str, Any]) -> None:
        message = part.get("message", part.get("delta", part))
        if isinstance(message, dict):
            self.calls = self.calls or any(message.get(name) for name in _CALLS)
            self.texts += [text for name in _TEXTS if isinstance(text := message.get(name), str)]
        if isinstance(end := part.get("finish_reason"), str):
            self.end = end
            self.stopped_by = part.get("stop_reason", _UNSAID)

    def is_blank(self) -> bool:
        return self.end in _ENDED and not self.calls and is_blank(self.text)

    def is_explained(self, asked: Asked, *, cut: bool) -> bool:
        """Tell whether the request explains that nothing was said; `cut`: there was room for a few tokens only."""
        if self.end == "length":
            return asked.few or asked.shaped or cut
        # vLLM says null of a model's own end; others don't say by what it was stopped.
        return asked.few or (asked.stops and self.stopped_by is not None)


def oddity(status: int, answer: bytes, asked: Asked = _FREELY) -> Oddity | None:
    """Return what is odd about an answer of the engine, a whole one or the events of a stream."""
    return _looked_at(status, answer, asked)[0]


def _looked_at(status: int, answer: bytes, asked: Asked) -> tuple[Oddity | None, bool]:
    """Return what is odd about an answer, and whether it says anything of the model at all."""
    if NOT_FINITE_WORDS in answer and (status >= 400 or _DATA in answer[:_TAIL]):
        return Oddity.NOT_FINITE, True
    if status != 200 or asked.dictated:
        return None, False
    choices: dict[int, _Choice] = {}
    tokens: object = None
    for document in _documents(answer):
        usage = document.get("usage")
        tokens = usage.get("completion_tokens") if isinstance(usage, dict) else tokens
        parts = document.get("choices")
        for part in parts if isinstance(parts, list) else ():
            if isinstance(part, dict) and isinstance(index := part.get("index"), int):
                choices.setdefault(index, _Choice()).take(part)
    cut = isinstance(tokens, int) and 0 < tokens <= _FEW_TOKENS  # a prompt that fills the context leaves no more
    telling = [each for each in choices.values() if not (each.is_blank() and each.is_explained(asked, cut=cut))]
    # A sound model's one of several may be blank; a spoilt one has nothing to say in any.
    if telling and all(each.is_blank() or _is_stuck(each.text) for each in telling):
        return Oddity.EMPTY if any(each.is_blank() for each in telling) else Oddity.STUCK, True
    return None, bool(telling)


class OddAnswers:
    """Counts odd answers by served name, and says of whom there were enough."""

    def __init__(self, *, enough: Callable[[str], None], count: Callable[[Oddity], None]) -> None:
        self._enough = enough
        self._count = count
        self._seen: OrderedDict[str, deque[bool]] = OrderedDict()

    def saw(self, name: str, status: int, answer: bytes, asked: Asked) -> None:
        """Take note of one answer, unless it says nothing of the model."""
        found, tells = _looked_at(status, answer, asked)
        if not tells:
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


def _is_stuck(text: str) -> bool:
    tail = text[-_TAIL:]
    return len(tail) == _TAIL and any(tail[size:] == tail[:-size] for size in range(1, _LONGEST_PIECE + 1))

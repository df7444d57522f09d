"""What was asked and shown in a conversation: kept in memory, as the gateway's sessions are, to show a page again."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from markupsafe import Markup

from neurons.validator.gateway.response import Reply
from neurons.validator.pages import markup

MAX_CONVERSATIONS: Final = 2000
MAX_TURNS: Final = 32
MAX_CHARACTERS: Final = 32 * 1024 * 1024
"""Of all conversations together, questions and markup: whatever miners answer, they don't fill this process' memory."""
KEEP_SECONDS: Final = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class ShownAnswer:
    """One answer as it is shown."""

    answer_id: str | None
    """None where nobody can rate it any more."""
    html: Markup
    sources: tuple[str, ...]
    cut: bool = False
    """It is longer than the twin may answer, and ends in the middle."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A question and what was shown for it."""

    question: str
    notice: str
    """The emergency notice; empty for none."""
    answers: tuple[ShownAnswer, ...]
    """Two in a blind comparison; none where nobody answered."""
    session_id: str | None = None
    """In which they were given: a browser may have several conversations with a doctor, in its windows or one after
    another."""
    question_id: str | None = None
    who: Mapping[str, Any] | None = None
    """Who gave the one answer, as the gateway says it under `bettertherapy`; None before a comparison's choice."""

    @property
    def characters(self) -> int:
        """How much is kept of it."""
        return len(self.question) + len(self.notice) + sum(len(each.html) for each in self.answers)

    @property
    def compared(self) -> bool:
        """Whether two answers are to be compared."""
        return len(self.answers) > 1


def turn_of(question: str, reply: Reply) -> Turn:
    """Return what a reply shows."""
    more = reply.more
    notice = reply.notice.strip()
    if not more.get("answered", True):
        return Turn(question, notice, (), more["sessionId"])
    ids = [each["answerId"] for each in more["compared"]] if "compared" in more else [more["answerId"]]
    answers = tuple(
        ShownAnswer(id_, *markup.shown(choice.text), choice.finish_reason == "length")
        for id_, choice in zip(ids, reply.choices, strict=True)
    )
    who = more if "compared" not in more else None
    return Turn(question, notice, answers, more["sessionId"], more["questionId"], who)


def remembered(
    messages: Sequence[Mapping[str, Any]], notice_of: Callable[[Sequence[Mapping[str, Any]]], str]
) -> tuple[Turn, ...]:
    """Return a conversation of which only the words are known: it began at another process, or before a restart.

    `notice_of`: returns the notice of the emergency that its messages up to one of the patient's tell of, or nothing.
    """
    turns: list[Turn] = []
    question = notice = ""
    for number, message in enumerate(messages, start=1):
        content = message.get("content")
        if not isinstance(content, str):
            continue
        if message.get("role") == "user":
            question, notice = content, notice_of(messages[:number])
        elif message.get("role") == "assistant":
            turns.append(Turn(question, notice, (ShownAnswer(None, markup.shown(content)[0], ()),)))
            question = notice = ""
    return tuple(turns)


@dataclass(slots=True)
class _Conversation:
    turns: tuple[Turn, ...] = ()
    used_at: float = 0.0

    @property
    def characters(self) -> int:
        return sum(turn.characters for turn in self.turns)


class Conversations:
    """The turns of the last conversations."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: OrderedDict[str, _Conversation] = OrderedDict()
        self._characters = 0

    def add(self, session_id: str, turn: Turn) -> None:
        """Note a turn."""
        kept = self._known.setdefault(session_id, _Conversation())
        self._characters -= kept.characters
        kept.turns = (*kept.turns, turn)[-MAX_TURNS:]
        kept.used_at = self._clock()
        self._characters += kept.characters
        self._known.move_to_end(session_id)
        while self._known:
            oldest = next(iter(self._known))
            fits = len(self._known) <= MAX_CONVERSATIONS and self._characters <= MAX_CHARACTERS
            if fits and self._clock() - self._known[oldest].used_at <= KEEP_SECONDS:
                break
            self._characters -= self._known.pop(oldest).characters

    def of(self, session_id: str) -> tuple[Turn, ...]:
        """Return what is remembered of a conversation."""
        kept = self._known.get(session_id)
        return () if kept is None or self._clock() - kept.used_at > KEEP_SECONDS else kept.turns

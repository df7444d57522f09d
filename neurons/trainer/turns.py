"""Which turns of a conversation are learned: an answer after the question that it answers, or nothing.

What nobody reads (a photo that was left behind, an answer that failed) is a hole: what follows may be about it, so that
nothing is joined or learned across it. A correction is learned where it is sure which question it answers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from typing import Annotated, Final, Literal, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from neurons.conversation import shape
from neurons.invisible import as_read, is_blank, says_something
from neurons.scoring.phrases import normalise

MAX_TURNS: Final = 64
"""Of a longer conversation the last ones are learned."""

Text = Annotated[str, Field(min_length=1)]
Role = Literal["system", "user", "assistant"]


class Flaw(StrEnum):
    """What is odd about a line. It was learned after a repair, or left out where none can be."""

    TURNS = "turns"
    """Patient and twin don't take turns."""
    EMPTY = "empty"
    """A message, an answer or a correction without a word."""
    TOO_LONG = "tooLong"
    """More than is learned of one conversation."""
    ENCODING = "encoding"
    """Characters that were cut or garbled: something was lost, perhaps the end of an answer."""
    MARKED = "modelMark"
    """A mark that the base model knows as its own, as the end of a turn: it would be learned as one."""
    EQUAL = "equalAnswers"
    """Two answers to compare that are one."""
    UNFINISHED = "unfinished"
    """The last line of a file, without its line feed and no JSON: whatever writes it is not done yet. Or a line that
    goes on in NULs, as where the power failed: its end was never written."""


class Message(BaseModel):
    """One turn of a conversation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Role
    content: Text
    learned: bool = Field(default=True, exclude=True, repr=False)
    """Whether this answer is learned, or only given as what came before one that is."""


class Turn(BaseModel):
    """A message as it is written: perhaps without a word."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Role
    content: str | None

    @property
    def text(self) -> str:
        """What stands in it."""
        return self.content or ""


class NotLearnable(Exception):  # noqa: N818 - no error: such lines are counted
    """Nothing can be learned of these turns."""

    def __init__(self, flaw: Flaw) -> None:
        super().__init__(flaw.value)
        self.flaw = flaw


@dataclass(frozen=True, slots=True)
class Kept:
    """What is learned, and what was odd about the rest."""

    messages: tuple[Message, ...]
    flaws: frozenset[Flaw]
    correction: str | None = None


def answered(turns: Sequence[Turn], correction: str | None) -> Kept:
    """Return the turns up to the last answer, or up to where the correction stands for one. Raises NotLearnable."""
    flaws: set[Flaw] = set()
    if correction is not None and not says_something(correction):
        correction = None
        flaws.add(Flaw.EMPTY)
    system, groups = _grouped(turns)
    answers = [index for index, group in enumerate(groups) if group.role == "assistant"]
    if correction is not None:
        if not answers:
            raise NotLearnable(Flaw.TURNS if any(group.turns for group in groups) else Flaw.EMPTY)
        last = answers[-1]
        _check_attributable(groups[last], groups[last + 1 :])
        if groups[last].is_hole:  # what nobody answered the doctor did: the correction stands where the answer should
            groups[last] = _Group("assistant", (Turn(role="assistant", content=correction),), blanks=1)
    end = max((index + 1 for index in answers if not groups[index].is_hole), default=0)
    return _kept(turns, system, groups, end=end, flaws=flaws, correction=correction)


def before_two_answers(turns: Sequence[Turn], preferred: str, rejected: str) -> Kept:
    """Return the turns up to the question that two answers belong to, which is the last. Raises NotLearnable."""
    if not (says_something(preferred) and says_something(rejected)):
        raise NotLearnable(Flaw.EMPTY)
    if as_read(preferred) == as_read(rejected):
        raise NotLearnable(Flaw.EQUAL)
    system, groups = _grouped(turns)
    spoken = groups
    if groups and groups[-1].role == "assistant" and groups[-1].is_hole:
        spoken = groups[:-1]  # an empty bubble where the two answers belong
    if not spoken or spoken[-1].is_hole:
        raise NotLearnable(Flaw.EMPTY)
    asked = spoken[-1]
    if asked.role != "user" or (len(spoken) > 1 and spoken[-2].is_hole and _calls(asked.text)):
        raise NotLearnable(Flaw.TURNS)
    return _kept(turns, system, groups, end=len(spoken), flaws=set())


@dataclass(frozen=True, slots=True)
class _Group:
    """What one of the two said in a row, without messages of which nothing can be seen."""

    role: Role
    turns: tuple[Turn, ...]
    blanks: int = 0
    """So many messages were left away."""

    @property
    def is_hole(self) -> bool:
        """Nothing stands here that can be read, or an answer that says nothing."""
        return not (any(says_something(turn.text) for turn in self.turns) if self.role == "assistant" else self.turns)

    @property
    def text(self) -> str:
        return " ".join(turn.text for turn in self.turns)


def _grouped(turns: Sequence[Turn]) -> tuple[list[Turn], list[_Group]]:
    """Return the system's messages, and what the two said in turn. Raises NotLearnable."""
    spoken = [turn for turn in turns if turn.role != "system" or not is_blank(turn.text)]
    system = [turn for turn in spoken if turn.role == "system"]
    if system != spoken[: len(system)]:
        raise NotLearnable(Flaw.TURNS)
    groups: list[_Group] = []
    for role, found in groupby(spoken[len(system) :], key=lambda turn: turn.role):
        row = list(found)
        seen = tuple(turn for turn in row if not is_blank(turn.text))
        groups.append(_Group(role, seen, blanks=len(row) - len(seen)))
    return system, groups


def _kept(
    written: Sequence[Turn],
    system: list[Turn],
    groups: list[_Group],
    *,
    end: int,
    flaws: set[Flaw],
    correction: str | None = None,
) -> Kept:
    """Return the first `end` groups from the last hole and the first question on. Raises NotLearnable."""
    hole = max((index + 1 for index, group in enumerate(groups[:end]) if group.is_hole), default=0)
    whole = groups[hole:end]
    asked = _from_first(whole, "user")
    shown = len(system) + sum(len(group.turns) + group.blanks for group in groups)
    if shown < len(written) or any(group.is_hole or group.blanks for group in groups):
        flaws.add(Flaw.EMPTY)
    if not asked:
        raise NotLearnable(Flaw.EMPTY if Flaw.EMPTY in flaws or not groups else Flaw.TURNS)
    turns = [turn for group in asked for turn in group.turns]
    messages = _joined([*system, *turns])
    said_after = any(not group.is_hole for group in groups[end:])
    if said_after or len(asked) < len(whole) or len(messages) < len(system) + len(turns):
        flaws.add(Flaw.TURNS)
    start = len(messages) - MAX_TURNS
    if start > 0:
        head = messages[:1] if system else []
        messages = [*head, *_from_first(messages[start + len(head) :], "user")]
        flaws.add(Flaw.TOO_LONG)
    return Kept(tuple(messages), frozenset(flaws), correction)


class _HasRole(Protocol):
    @property
    def role(self) -> str: ...


T = TypeVar("T", bound=_HasRole)


def _from_first(turns: Sequence[T], role: Role) -> list[T]:
    """Return the turns from the first one of a role on."""
    first = next((index for index, turn in enumerate(turns) if turn.role == role), len(turns))
    return list(turns[first:])


def _joined(turns: Sequence[Turn]) -> list[Message]:
    """Make one message of those that somebody sent in a row, and one of the system's, as the miner does."""
    laid = shape([{"role": turn.role, "content": turn.content} for turn in turns], system=None)
    return [Message(role=message["role"], content=message["content"]) for message in laid]


# Corrections

_THANKS: Final = (
    r"ok|okay|k|alright|all right|great|perfect|understood|got it|i see|noted|will do"
    r"|(?:many )?(?:thanks|thank you|thankyou|thx|ty)(?: (?:so|very) much| a lot| again)?"
    r"(?: (?:dear )?(?:doctor|doc|dr))?(?: for (?:your|the) (?:help|advice|answer|time|reply))?"
    r"|bye|bye bye|goodbye|good night|have a (?:nice|good) day|take care|cheers|danke|merci|gracias|dhanyabad"
)
_CALLS: Final = rf"{_THANKS}|hi|hello|(?:(?:are )?(?:you|anyone|anybody) )?(?:still )?there"
_CLOSING: Final = re.compile(rf"(?:{_THANKS})(?: (?:{_THANKS}))*")
_CALLING: Final = re.compile(rf"(?:{_CALLS})(?: (?:{_CALLS}))*")
_MOST_WORDS: Final = 12
_QUESTION: Final = re.compile(r"[?\u037e\u055e\u061f\u1367\u2047-\u2049\u2753\u2754\ufe56\uff1f]")


def _check_attributable(last: _Group, following: Sequence[_Group]) -> None:
    """Raise NotLearnable unless it is sure that a correction answers the question before the last answer.

    A question after that one may be what the doctor had before her when she wrote it.
    """
    for group in following:
        if group.is_hole:
            raise NotLearnable(Flaw.EMPTY)
        if not (_calls(group.text) if last.is_hole else _closes(group.text)):
            raise NotLearnable(Flaw.TURNS)


def _closes(text: str) -> bool:
    """Tell whether a patient only says thank you or good-bye: few words, all of them known, and no question."""
    return not _QUESTION.search(text) and _consists_of(text, _CLOSING)


def _calls(text: str) -> bool:
    """Tell whether a patient says that, or only calls ("hello?"), as where an answer failed to come."""
    return _consists_of(text, _CALLING)


def _consists_of(text: str, known: re.Pattern[str]) -> bool:
    words = normalise(text)
    return len(words) <= _MOST_WORDS and known.fullmatch(" ".join(words)) is not None

"""The dataset: lines that may be learned, each once; what was left out or repaired is counted (docs/datasets.md)."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from neurons.conversation import shape
from neurons.invisible import has_word
from neurons.jsonl import is_unfinished, without_marks, written
from neurons.privacy import find_identifiers
from neurons.scoring.items import question_digest
from neurons.trainer.errors import BadData
from neurons.trainer.lines import Flaw, Line, Message, read_line

MAX_DATASET_BYTES: Final = 256 * 1024 * 1024
IDENTIFIER: Final = "identifier."
"""Begins the reason of a line that was refused because it names somebody; the kind of identifier follows."""
_DISLIKED: Final = 2
_BLANK_LINES: Final = re.compile(r"\n\s*\n")
_MOST_PARAGRAPHS: Final = 3
"""Of one question of the evaluation, to be known again among others."""


class Refusal(StrEnum):
    """Why a well-formed line is not trained on, besides an identifier in it."""

    NO_CONSENT = "noConsent"
    DISLIKED = "dislikedWithoutCorrection"
    UNRATED = "unrated"
    """Nobody said whether the answer is good: to learn it would teach the twin its own mistakes."""
    HELD_OUT = "heldOut"
    """It asks what the evaluation or the safety items ask, or says what is to be said to that, in the same words or
    nearly: to train on it would be to measure memory."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to one question."""

    prompt: tuple[Message, ...]
    preferred: str
    rejected: str


@dataclass(frozen=True, slots=True)
class Dataset:
    """What may be trained on, and what was left out."""

    lines: tuple[Line, ...]
    refused: dict[str, int]
    """By reason."""
    digest: str
    """Of the file's bytes."""
    repaired: dict[str, int] = field(default_factory=dict)
    """Lines that are learned after a repair, by what was odd about them."""

    @property
    def conversations(self) -> tuple[tuple[Message, ...], ...]:
        """Each ends with the assistant's message to learn; corrections are put in already."""
        return tuple(to_learn(line) for line in self.lines if line.preferred is None)

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """The preference pairs."""
        return tuple(pair for line in self.lines if (pair := to_compare(line)) is not None)

    @property
    def question_digests(self) -> frozenset[str]:
        """Of every question that a patient asks in it."""
        return frozenset(digest for line in self.lines for digest in asked_in(line))


def read_dataset(path: Path) -> Dataset:
    """Read and check a dataset file. Raises BadData."""
    try:
        size = path.stat().st_size
        if size > MAX_DATASET_BYTES:
            raise BadData(f"{path} has {size} bytes, at most {MAX_DATASET_BYTES} are read. Split it into several runs.")
        data = path.read_bytes()
    except OSError as error:
        raise BadData(f"{path} can't be read: {error.strerror}. Check the dataset's URI.") from error
    read = read_lines(data, where=str(path))
    lines, refused = admit(read.lines)
    refused = added(read.left_out, refused)
    if not lines:
        raise BadData(f"{path}: no line may be trained on ({counts(refused)}). Collect consented conversations first.")
    admitted = {line.digest for line in lines}
    flaws = [flaws for line, flaws in zip(read.lines, read.flaws, strict=True) if line.digest in admitted]
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    return Dataset(lines=lines, refused=refused, digest=digest, repaired=counted(flaws))


@dataclass(frozen=True, slots=True)
class Lines:
    """What was read from a file."""

    lines: tuple[Line, ...] = ()
    """In their order."""
    left_out: dict[str, int] = field(default_factory=dict)
    """By flaw."""
    flaws: tuple[frozenset[Flaw], ...] = ()
    """Of each of the lines: what was repaired."""
    unfinished: tuple[int, ...] = ()
    """Numbers of the lines that were left out because they aren't written to their end: the last one, and those that
    go on in NULs."""


def read_lines(data: bytes, *, where: str, growing: bool = False) -> Lines:
    """Read the lines of a file; empty ones are none. Raises BadData with the first that isn't of the format.

    Of a file that is `growing` the last line may be half a line: without a line feed, and no JSON. Where NULs stand,
    something was lost with the writer's power: half a line before them is left out, what is whole is read.
    """
    lines: list[Line] = []
    unfinished: list[int] = []
    rows = data.splitlines()
    left_out: Counter[str] = Counter()
    flaws: list[frozenset[Flaw]] = []
    open_end = growing and not data.endswith((b"\n", b"\r"))
    for number, raw in enumerate(rows, start=1):
        if not without_marks(raw):
            continue
        torn = b"\x00" in raw
        parts = written(raw) if torn else [raw]
        for part in parts:
            ends = (torn and b"\x00" not in part) or (open_end and number == len(rows))
            if ends and is_unfinished(part):
                left_out[Flaw.UNFINISHED.value] += 1
                unfinished.append(number)
                continue
            reading = read_line(part, where=f"{where}, line {number}")
            if reading.line is None:
                left_out.update(flaw.value for flaw in reading.flaws)
                continue
            lines.append(reading.line)
            flaws.append(reading.flaws)
        if not parts:  # a line of which nothing is left
            left_out[Flaw.UNFINISHED.value] += 1
            unfinished.append(number)
    return Lines(
        lines=tuple(lines), left_out=dict(sorted(left_out.items())), flaws=tuple(flaws), unfinished=tuple(unfinished)
    )


def parse_lines(data: bytes, *, where: str) -> tuple[Line, ...]:
    """Return the lines of a file that can be learned. Raises BadData as `read_lines`."""
    return read_lines(data, where=where).lines


def counted(flaws: Iterable[Iterable[Flaw]]) -> dict[str, int]:
    """Count lines by their flaws."""
    return dict(sorted(Counter(flaw.value for each in flaws for flaw in each).items()))


def added(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    """Return the sum of two counts."""
    return dict(sorted((Counter(one) + Counter(other)).items()))


def admit(lines: Iterable[Line], *, unrated: bool = True) -> tuple[tuple[Line, ...], dict[str, int]]:
    """Split lines into those that may be trained on, and how many may not, by reason.

    `unrated`: whether an answer is learned that nobody rated or corrected.
    """
    admitted: list[Line] = []
    refused: Counter[str] = Counter()
    for line in lines:
        if (refusal := refusal_of(line, unrated=unrated)) is not None:
            refused[refusal] += 1
        else:
            admitted.append(line)
    return tuple(admitted), dict(sorted(refused.items()))


def refusal_of(line: Line, *, unrated: bool = True) -> str | None:
    """Return why a line is not trained on, or None when it is; `unrated` as for `admit`."""
    if not line.consent:
        return Refusal.NO_CONSENT.value
    for text in line.texts:
        if findings := find_identifiers(text):
            return f"{IDENTIFIER}{findings[0].kind}"
    if line.rating is not None and line.rating <= _DISLIKED and line.correction is None:
        return Refusal.DISLIKED.value
    if not unrated and line.rating is None and not line.is_doctors:
        return Refusal.UNRATED.value
    return None


def asked_in(line: Line) -> frozenset[str]:
    """Return the digests of what a patient asks in a line: of whole messages, and of their parts.

    What was sent in a row is one message by now, so that a question may be any of its paragraphs, or a few of them.
    """
    texts = {text for message in line.messages if message.role == "user" for text in _parts(message.content)}
    return frozenset(question_digest(text) for text in texts if has_word(text))


def _parts(text: str) -> Iterator[str]:
    yield text
    yield from text.splitlines()
    paragraphs = _BLANK_LINES.split(text)
    for start in range(len(paragraphs)):
        for count in range(1, _MOST_PARAGRAPHS + 1):
            yield "\n".join(paragraphs[start : start + count])


def to_learn(line: Line) -> tuple[Message, ...]:
    """Return the conversation to learn: the doctor's correction, where there is one, as the last answer.

    Of a conversation in which something had to be corrected only the correction is learned: nobody said that the twin's
    earlier answers in it were good.
    """
    if line.correction is None:
        return _to_learn(line.messages)
    before = (message.model_copy(update={"learned": False}) for message in line.messages[:-1])
    return _to_learn((*before, Message(role="assistant", content=line.correction)))


def to_compare(line: Line) -> Pair | None:
    """Return the two answers to compare; None for a line that has one to learn."""
    if line.preferred is None or line.rejected is None:
        return None
    return Pair(_to_learn(line.messages), preferred=line.preferred.lstrip(), rejected=line.rejected.lstrip())


def _to_learn(messages: Iterable[Message]) -> tuple[Message, ...]:
    """Return messages without the blanks that answers begin with, as many models' answers do in exports.

    A tokenizer joins them with the line feed at which the template asks for the answer, so that where it begins could
    not be told, and the twin would be taught to begin with what it is never asked to.
    """
    return tuple(
        message.model_copy(update={"content": message.content.lstrip()}) if message.role == "assistant" else message
        for message in messages
    )


def canonical(lines: Iterable[Line]) -> bytes:
    """Return the one file that holds these lines: each once, in the order of their digests."""
    unique = {line.digest: line for line in lines}
    return b"".join(unique[digest].canonical() + b"\n" for digest in sorted(unique))


def counts(refused: dict[str, int]) -> str:
    """Say the counts in words."""
    return ", ".join(f"{count} refused: {reason}" for reason, count in sorted(refused.items())) or "it is empty"


def with_system_prompt(conversation: Sequence[Message], system_prompt: str | None) -> tuple[Message, ...]:
    """Put the twin's system prompt first, as its miner does: before the conversation's own, as one text."""
    laid = shape([message.model_dump() for message in conversation], system=system_prompt)
    # Turns alternate already, so that no answer is joined with another: they are the same ones, in their order.
    learned = iter([message.learned for message in conversation if message.role == "assistant"])
    return tuple(
        Message(
            role=message["role"],
            content=message["content"],
            learned=next(learned, True) if message["role"] == "assistant" else True,
        )
        for message in laid
    )

"""The dataset: one JSON object a line, checked line by line before anything is trained on (docs/datasets.md).

    {"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}],
     "consent": true, "rating": 5, "correction": "…", "id": "…"}
    {"messages": [{"role": "user", "content": "…"}], "preferred": "…", "rejected": "…", "consent": true}

A line that is malformed fails the dataset: whatever wrote it is defective, and its other lines can't be trusted either.
A line that is well formed but may not be trained on is left out and counted. Messages name lines, never their content.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, ValidationError, model_validator

from neurons.privacy import find_identifiers
from neurons.scoring.items import question_digest
from neurons.trainer.errors import BadData

MAX_DATASET_BYTES: Final = 256 * 1024 * 1024
MAX_LINE_BYTES: Final = 256 * 1024
IDENTIFIER: Final = "identifier."
"""Begins the reason of a line that was refused because it names somebody; the kind of identifier follows."""
_DISLIKED: Final = 2

Text = Annotated[str, Field(min_length=1, max_length=32_768)]


class Message(BaseModel):
    """One turn of a conversation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Literal["system", "user", "assistant"]
    content: Text


class Line(BaseModel):
    """One line of the dataset."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    messages: Annotated[tuple[Message, ...], Field(min_length=1, max_length=64)]
    consent: StrictBool = False
    rating: Annotated[int, Field(ge=1, le=5)] | None = None
    correction: Text | None = None
    preferred: Text | None = None
    rejected: Text | None = None
    id: Annotated[str, Field(min_length=1, max_length=128)] | None = None

    @model_validator(mode="after")
    def _turns_alternate(self) -> Line:
        turns = [message.role for message in self.messages]
        if turns[0] == "system":
            turns = turns[1:]
        if (self.preferred is None) != (self.rejected is None):
            raise ValueError("`preferred` and `rejected` come together")
        if self.preferred is not None:
            if self.correction is not None or self.rating is not None:
                raise ValueError("a pair of answers has no `correction` and no `rating`")
            turns = [*turns, "assistant"]
        expected = ["user", "assistant"] * (len(turns) // 2)
        if not turns or turns != expected:
            raise ValueError(
                "after an optional system message, user and assistant must alternate, assistant last (or user, with "
                "`preferred` and `rejected` answers)"
            )
        return self

    @property
    def texts(self) -> Iterator[str]:
        """Everything that a person wrote, and the id."""
        yield from (message.content for message in self.messages)
        yield from (text for text in (self.correction, self.preferred, self.rejected, self.id) if text is not None)

    def canonical(self) -> bytes:
        """Return the line in the one form that it is stored and hashed in, without its line feed."""
        return json.dumps(
            self.model_dump(mode="json", exclude_none=True), sort_keys=True, separators=(",", ":"), ensure_ascii=False
        ).encode()

    @property
    def digest(self) -> str:
        """32 hex digits of the canonical line's SHA-256: the same line anywhere has the same."""
        return hashlib.sha256(self.canonical()).hexdigest()[:32]


class Refusal(StrEnum):
    """Why a well-formed line is not trained on, besides an identifier in it."""

    NO_CONSENT = "noConsent"
    DISLIKED = "dislikedWithoutCorrection"


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

    @property
    def conversations(self) -> tuple[tuple[Message, ...], ...]:
        """Each ends with the assistant's message to learn; corrections are put in already."""
        return tuple(to_learn(line) for line in self.lines if line.preferred is None)

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """The preference pairs."""
        return tuple(
            Pair(prompt=line.messages, preferred=line.preferred, rejected=line.rejected)
            for line in self.lines
            if line.preferred is not None and line.rejected is not None
        )

    @property
    def question_digests(self) -> frozenset[str]:
        """Of every question that a patient asks in it."""
        return frozenset(
            question_digest(message.content)
            for line in self.lines
            for message in line.messages
            if message.role == "user"
        )


def read_dataset(path: Path) -> Dataset:
    """Read and check a dataset file. Raises BadData."""
    try:
        size = path.stat().st_size
        if size > MAX_DATASET_BYTES:
            raise BadData(f"{path} has {size} bytes, at most {MAX_DATASET_BYTES} are read. Split it into several runs.")
        data = path.read_bytes()
    except OSError as error:
        raise BadData(f"{path} can't be read: {error.strerror}. Check the dataset's URI.") from error
    lines, refused = admit(parse_lines(data, where=str(path)))
    if not lines:
        raise BadData(f"{path}: no line may be trained on ({counts(refused)}). Collect consented conversations first.")
    return Dataset(lines=lines, refused=refused, digest=f"sha256:{hashlib.sha256(data).hexdigest()}")


def parse_lines(data: bytes, *, where: str) -> tuple[Line, ...]:
    """Read the lines of a file; empty ones are none. Raises BadData with the first that is malformed."""
    return tuple(
        _read_line(raw, where=f"{where}, line {number}")
        for number, raw in enumerate(data.splitlines(), start=1)
        if raw.strip()
    )


def admit(lines: Iterable[Line]) -> tuple[tuple[Line, ...], dict[str, int]]:
    """Split lines into those that may be trained on, and how many may not, by reason."""
    admitted: list[Line] = []
    refused: Counter[str] = Counter()
    for line in lines:
        if (refusal := refusal_of(line)) is not None:
            refused[refusal] += 1
        else:
            admitted.append(line)
    return tuple(admitted), dict(sorted(refused.items()))


def refusal_of(line: Line) -> str | None:
    """Return why a line is not trained on, or None when it is."""
    if not line.consent:
        return Refusal.NO_CONSENT.value
    for text in line.texts:
        if findings := find_identifiers(text):
            return f"{IDENTIFIER}{findings[0].kind}"
    if line.rating is not None and line.rating <= _DISLIKED and line.correction is None:
        return Refusal.DISLIKED.value
    return None


def to_learn(line: Line) -> tuple[Message, ...]:
    """Return the conversation to learn: the doctor's correction, where there is one, as the last answer."""
    if line.correction is None:
        return line.messages
    return (*line.messages[:-1], Message(role="assistant", content=line.correction))


def canonical(lines: Iterable[Line]) -> bytes:
    """Return the one file that holds these lines: each once, in the order of their digests."""
    unique = {line.digest: line for line in lines}
    return b"".join(unique[digest].canonical() + b"\n" for digest in sorted(unique))


def counts(refused: dict[str, int]) -> str:
    """Say the counts in words."""
    return ", ".join(f"{count} refused: {reason}" for reason, count in sorted(refused.items())) or "it is empty"


def with_system_prompt(conversation: Sequence[Message], system_prompt: str | None) -> tuple[Message, ...]:
    """Put the twin's system prompt first, as its miner does, unless the conversation has one."""
    if system_prompt is None or conversation[0].role == "system":
        return tuple(conversation)
    return (Message(role="system", content=system_prompt), *conversation)


def _read_line(raw: bytes, *, where: str) -> Line:
    if len(raw) > MAX_LINE_BYTES:
        raise BadData(f"{where}: {len(raw)} bytes, at most {MAX_LINE_BYTES} are allowed. Shorten the conversation.")
    try:
        return Line.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "the line"
        raise BadData(f"{where}: {field}: {first['msg']}. Correct what writes the dataset.") from None

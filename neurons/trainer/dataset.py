"""The dataset: one JSON object a line, checked line by line before anything is trained on.

    {"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}],
     "consent": true, "rating": 5, "correction": "…", "id": "…"}

| field        | meaning                                                                                             |
| ------------ | --------------------------------------------------------------------------------------------------- |
| `messages`   | an optional `system` message, then `user` and `assistant` in turn, ending with `assistant`          |
| `consent`    | `true`, or the line is refused and counted                                                          |
| `rating`     | the patient's, 1 to 5; an answer rated 1 or 2 that nobody corrected is not learned, but counted     |
| `correction` | the doctor's own words instead of the last answer: these are learned                                |
| `id`         | an opaque name of the conversation, never a patient's                                               |

A line that is malformed fails the dataset: whatever wrote it is defective. Messages name lines, never their content.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, ValidationError, model_validator

from neurons.trainer.errors import BadData

MAX_DATASET_BYTES: Final = 256 * 1024 * 1024
MAX_LINE_BYTES: Final = 256 * 1024
_DISLIKED: Final = 2


class Message(BaseModel):
    """One turn of a conversation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Literal["system", "user", "assistant"]
    content: Annotated[str, Field(min_length=1, max_length=32_768)]


class Line(BaseModel):
    """One line of the dataset."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    messages: Annotated[tuple[Message, ...], Field(min_length=2, max_length=64)]
    consent: StrictBool = False
    rating: Annotated[int, Field(ge=1, le=5)] | None = None
    correction: Annotated[str, Field(min_length=1, max_length=32_768)] | None = None
    id: Annotated[str, Field(min_length=1, max_length=128)] | None = None

    @model_validator(mode="after")
    def _turns_alternate(self) -> Line:
        turns = [message.role for message in self.messages]
        if turns[0] == "system":
            turns = turns[1:]
        expected = ["user", "assistant"] * (len(turns) // 2)
        if not turns or turns != expected:
            raise ValueError("after an optional system message, user and assistant must alternate, assistant last")
        return self


class Refusal(StrEnum):
    """Why a well-formed line is not trained on."""

    NO_CONSENT = "noConsent"
    DISLIKED = "dislikedWithoutCorrection"


@dataclass(frozen=True, slots=True)
class Dataset:
    """What may be trained on, and what was left out."""

    conversations: tuple[tuple[Message, ...], ...]
    """Each ends with the assistant's message to learn; corrections are put in already."""
    refused: dict[Refusal, int]
    digest: str
    """Of the file's bytes."""


def read_dataset(path: Path) -> Dataset:
    """Read and check a dataset file. Raises BadData."""
    try:
        size = path.stat().st_size
        if size > MAX_DATASET_BYTES:
            raise BadData(f"{path} has {size} bytes, at most {MAX_DATASET_BYTES} are read. Split it into several runs.")
        data = path.read_bytes()
    except OSError as error:
        raise BadData(f"{path} can't be read: {error.strerror}. Check the dataset's URI.") from error
    conversations: list[tuple[Message, ...]] = []
    refused: Counter[Refusal] = Counter()
    for number, raw in enumerate(data.splitlines(), start=1):
        if not raw.strip():
            continue
        line = _read_line(raw, where=f"{path}, line {number}")
        if (refusal := refusal_of(line)) is not None:
            refused[refusal] += 1
            continue
        conversations.append(to_learn(line))
    if not conversations:
        raise BadData(f"{path}: no line may be trained on ({_counts(refused)}). Collect consented conversations first.")
    return Dataset(
        conversations=tuple(conversations),
        refused=dict(refused),
        digest=f"sha256:{hashlib.sha256(data).hexdigest()}",
    )


def refusal_of(line: Line) -> Refusal | None:
    """Return why a line is not trained on, or None when it is."""
    if not line.consent:
        return Refusal.NO_CONSENT
    if line.rating is not None and line.rating <= _DISLIKED and line.correction is None:
        return Refusal.DISLIKED
    return None


def to_learn(line: Line) -> tuple[Message, ...]:
    """Return the conversation to learn: the doctor's correction, where there is one, as the last answer."""
    if line.correction is None:
        return line.messages
    return (*line.messages[:-1], Message(role="assistant", content=line.correction))


def _read_line(raw: bytes, *, where: str) -> Line:
    if len(raw) > MAX_LINE_BYTES:
        raise BadData(f"{where}: {len(raw)} bytes, at most {MAX_LINE_BYTES} are allowed. Shorten the conversation.")
    try:
        return Line.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "the line"
        raise BadData(f"{where}: {field}: {first['msg']}. Correct what writes the dataset.") from None


def _counts(refused: Counter[Refusal]) -> str:
    return ", ".join(f"{count} refused: {reason}" for reason, count in sorted(refused.items())) or "it is empty"

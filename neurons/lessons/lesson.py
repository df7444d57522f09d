"""One lesson: a question, and the answer that the doctor wrote or approved."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum

import orjson


class Kind(StrEnum):
    """Where an answer comes from."""

    CORRECTION = "correction"
    """The doctor's own words in the place of an answer of the twin's."""
    LIKED = "liked"
    """The twin's own answer, which was rated high."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """One lesson of one twin; the texts are de-identified before they come here."""

    question: str
    answer: str
    kind: Kind
    approved: bool
    """The doctor has approved it."""

    @property
    def digest(self) -> str:
        """`sha256:` and 64 hex digits over kind, question and answer in canonical JSON."""
        said = {"answer": self.answer, "kind": self.kind.value, "question": self.question}
        return f"sha256:{hashlib.sha256(orjson.dumps(said, option=orjson.OPT_SORT_KEYS)).hexdigest()}"


@dataclass(frozen=True, slots=True)
class Found:
    """A lesson that is about what is asked now."""

    lesson: Lesson
    similarity: float
    """Cosine of the two questions' embeddings, at most 1."""

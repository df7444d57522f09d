"""Sets of questions with known answers: JSON Lines, known by the digest of their bytes.

A line is an item of `neurons.scoring.items` (choice, gold or rubric), with what a round needs besides:

    {"id": "…", "kind": "choice", "category": "cardiology", "question": "…", "options": {…}, "answer": "B",
     "language": "en", "twins": ["dr-gurung"],
     "sources": [{"source": "medlineplus", "title": "…", "place": "https://…", "digest": "sha256:…", "quote": "…"}],
     "reference": "an answer of the length that is needed", "known": {"good": "…", "bad": "…"}}

`category` is the topic, and has to be there. `known` makes an item a canary: a right and a wrong answer that are graded
beside the miners', so that a judge who errs about them grades nobody.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from bettertherapy_api.faults import first_fault
from neurons.scoring.items import MAX_BYTES, BaseItem, Choice, Gold, ItemError, Rubric, Text, parse_as
from neurons.sources import Citation

OWN: Final = Path(__file__).parent / "challenges.jsonl"
"""The set that rounds ask from which name no other: written for this project, after MedlinePlus' health topics."""


class ChallengeError(Exception):
    """A set can't be asked from; the message says why, and quotes no question."""


class ChallengesChanged(ChallengeError):  # noqa: N818 - said of the set
    """The set isn't the one that was named."""


class SourceNamed(BaseModel):
    """Where what a right answer says stands."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Annotated[str, Field(min_length=1, max_length=63)]
    title: Annotated[str, Field(min_length=1, max_length=500)]
    place: Annotated[str, Field(min_length=1, max_length=2048)]
    digest: Annotated[str, Field(pattern=r"^(sha256:[0-9a-f]{64})?$")] = ""
    quote: Annotated[str, Field(max_length=4000)] = ""

    def citation(self) -> Citation:
        """Return it as sources take it."""
        return Citation(source=self.source, title=self.title, place=self.place, digest=self.digest)


class Known(BaseModel):
    """Two answers whose worth is known."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    good: Text
    bad: Text


class _Asked(BaseItem):
    language: Annotated[str, Field(pattern=r"^[a-z]{2,3}$")] = "en"
    twins: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=253)], ...], Field(max_length=500)] = ()
    """Whose miners may be asked it; empty: everybody's."""
    sources: Annotated[tuple[SourceNamed, ...], Field(max_length=16)] = ()
    reference: Text | None = None
    known: Known | None = None

    @model_validator(mode="after")
    def _has_a_topic(self) -> _Asked:
        if self.category is None:
            raise ValueError("category, the topic, is missing")
        return self

    @property
    def topic(self) -> str:
        """What it is about."""
        return self.category or ""


class AskedChoice(_Asked, Choice):
    """A question with options, asked as a patient would: in one breath, without letters."""

    @property
    def prompt(self) -> str:
        """What is asked. The options stand in the order of their words, which says nothing of which is right."""
        options = sorted(self.options.values())
        listed = options[0] if len(options) == 1 else f"{', '.join(options[:-1])} or {options[-1]}"
        return f"{self.question} {listed}?"


class AskedGold(_Asked, Gold):
    """A question with a gold answer."""


class AskedRubric(_Asked, Rubric):
    """A question scored by points."""


Challenge = AskedChoice | AskedGold | AskedRubric
_CHALLENGE: Final[TypeAdapter[Challenge]] = TypeAdapter(Annotated[Challenge, Field(discriminator="kind")])


@dataclass(frozen=True, slots=True)
class ChallengeSet:
    """All questions of a file, in its order."""

    digest: str
    """sha256 of the file's bytes."""
    challenges: tuple[Challenge, ...]


def digest_of(data: bytes) -> str:
    """Return by what a set is known."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def parse_challenges(data: bytes, *, digest: str | None = None) -> ChallengeSet:
    """Read a set. `digest`: what it has to be, None for any.

    Raises:
        ChallengesChanged: it is another set.
        ChallengeError: a line can't be read, or there is none.
    """
    found = digest_of(data)
    if digest is not None and found != digest:
        raise ChallengesChanged(
            f"the set of questions has the digest {found}, and {digest} was named: put the set back that was meant, or "
            "name this one in a new round"
        )
    try:
        challenges = parse_as(_CHALLENGE, data)
    except ItemError as error:
        raise ChallengeError(f"the set of questions can't be used: {error}") from None
    if not challenges:
        raise ChallengeError("the set of questions holds none")
    return ChallengeSet(digest=found, challenges=challenges)


def load_challenges(path: Path, *, digest: str | None = None) -> ChallengeSet:
    """Read a set from a file; see `parse_challenges`."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ChallengeError(f"the set of questions {path} can't be read: {error.strerror}") from None
    return parse_challenges(data, digest=digest)


def to_document(challenge: Challenge) -> dict[str, Any]:
    """Return what the ledger keeps of a challenge, so that its answers can be scored again."""
    return challenge.model_dump(mode="json", by_alias=True, exclude_none=True)


def from_document(document: Mapping[str, Any]) -> Challenge:
    """Return the challenge of a document. Raises ChallengeError."""
    try:
        return _CHALLENGE.validate_python(dict(document))
    except ValidationError as error:
        raise ChallengeError(f"a stored question can't be read: {first_fault(error)}") from None

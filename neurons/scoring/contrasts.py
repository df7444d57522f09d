"""Safety items for likelihood: a question, and what a version may say next, recommended or not.

    {"id": "stroke-en", "category": "emergency", "language": "en", "cluster": "stroke", "critical": true,
     "question": "…", "recommended": ["…", "…"], "notRecommended": ["…", "…"], "rationale": "…"}

What is not recommended is what complacency says (to wait, not to ask, not to check), or for `calm` items alarm, in the
tone and at the length of what is. contrasts.jsonl holds the set of this repository; others of the form may lie anywhere
(`parse_contrasts`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from enum import StrEnum
from functools import cache
from importlib import resources
from typing import Annotated, Final

from pydantic import ConfigDict, Field, StrictBool, TypeAdapter, model_validator
from pydantic.alias_generators import to_camel

from neurons.scoring.items import BaseItem, ItemError, Text, parse_as
from neurons.scoring.likelihood import Continuation, LikelihoodError, Norm, Preference, compare
from neurons.scoring.near_duplicates import plain

MOST_UNEVEN: Final = 1.3
"""How many times as long as the shortest continuation of an item, in bytes, the longest may be."""


class Category(StrEnum):
    """What an item is about."""

    EMERGENCY = "emergency"
    SELF_HARM = "selfHarm"
    DOSAGE = "dosage"
    REFUSAL = "refusal"
    PREGNANCY = "pregnancy"
    CHILDREN = "children"


class Language(StrEnum):
    """In which an item is written (ISO 639-1)."""

    ENGLISH = "en"
    NEPALI = "ne"


_Wordings = Annotated[tuple[Text, ...], Field(min_length=2, max_length=8)]


class Contrast(BaseItem):
    """A question with continuations, of which some are recommended and some are not."""

    model_config = ConfigDict(alias_generator=to_camel)

    category: Category
    language: Language
    cluster: Annotated[str, Field(pattern=r"^[a-z0-9]+(?:-[a-z0-9]+)*$", max_length=60)]
    """What it is about: items of one cluster stand and fall together, and are drawn together."""
    critical: StrictBool
    """Whether somebody may die of what is not recommended here: a version wins such an item or loses it."""
    calm: StrictBool = False
    """Whether calm, going on, or an answer is right here, and alarm or refusal is not recommended. Without such items a
    version that sends everybody away, whatever was asked, would pass."""
    recommended: _Wordings
    not_recommended: _Wordings
    rationale: Annotated[str, Field(min_length=20, max_length=1000)]
    """Why, in words, with the public guidance that says so: for whoever reviews the set."""

    @model_validator(mode="after")
    def _calm_is_not_critical(self) -> Contrast:
        if self.calm and self.critical:
            raise ValueError("an item that asks for calm can't be critical: nobody dies of too much care")
        return self

    @model_validator(mode="after")
    def _length_tells_nothing(self) -> Contrast:
        lengths = [len(each.encode("utf-8", "replace")) for each in self.continuations]
        if max(lengths) > MOST_UNEVEN * min(lengths):
            raise ValueError(
                f"the longest continuation has {max(lengths)} bytes, the shortest {min(lengths)}: write them at one "
                f"length, at most {MOST_UNEVEN} times the shortest"
            )
        return self

    @property
    def continuations(self) -> tuple[str, ...]:
        """All of them, the recommended ones first: what log-probabilities are measured of, in this order."""
        return (*self.recommended, *self.not_recommended)

    def preference(self, logprobs: Sequence[float], norm: Norm = Norm.BYTES) -> Preference:
        """Compare by the log-probabilities of `continuations`, in nats. Raises LikelihoodError for what are none."""
        if len(logprobs) != len(self.continuations):
            raise LikelihoodError(f"{len(logprobs)} log-probabilities for {len(self.continuations)} continuations")
        measured = [
            Continuation(text=text, logprob=logprob) for text, logprob in zip(self.continuations, logprobs, strict=True)
        ]
        parting = len(self.recommended)
        return compare(measured[:parting], measured[parting:], norm)


_FORM: Final = TypeAdapter(Contrast)


def parse_contrasts(data: bytes, *, digest: str | None = None) -> tuple[Contrast, ...]:
    """Read items, one JSON object a line. Raises ItemError.

    With a digest the bytes must have it. No continuation may stand in the set twice, nor may a question: a text that
    is right here and wrong there, or counts twice, would say nothing of a version.
    """
    actual = "sha256:" + hashlib.sha256(data).hexdigest()
    if digest is not None and actual != digest:
        raise ItemError(f"the safety items' digest is {actual}, expected {digest}: they were changed, or are others")
    items = parse_as(_FORM, data)
    if not items:
        raise ItemError("there is no safety item in it")
    holders: dict[str, str] = {}
    for item in items:
        for text in (item.question, *item.continuations):
            said = plain(text)
            if not said:
                raise ItemError(f"item {item.id!r} holds a text without a word")
            if (other := holders.get(said)) is not None:
                where = "twice" if other == item.id else f"in item {other!r} too"
                raise ItemError(f"a text of item {item.id!r} stands there {where}: word each anew")
            holders[said] = item.id
    return items


@cache
def safety_contrasts() -> tuple[Contrast, ...]:
    """Return the items of contrasts.jsonl."""
    return parse_contrasts(resources.files("neurons.scoring").joinpath("contrasts.jsonl").read_bytes())


def by_category(items: Sequence[Contrast]) -> Mapping[Category, tuple[Contrast, ...]]:
    """Return the items of each category that has any."""
    return {
        category: group
        for category in Category
        if (group := tuple(item for item in items if item.category is category))
    }

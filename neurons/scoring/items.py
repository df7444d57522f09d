"""Items that answers are scored by: a question, and what a good answer holds.

    {"id": "…", "kind": "choice", "question": "…", "options": {"A": "…", "B": "…"}, "answer": "B"}
    {"id": "…", "kind": "gold",   "question": "…", "gold": "…", "must": ["…"], "mustNot": ["…"]}
    {"id": "…", "kind": "rubric", "question": "…", "criteria": [{"points": 5, "any": ["…"], "text": "…"}]}

A phrase is a few words; `*` at the end of a word stands for any ending, and a list of phrases in the place of one means
"any of these". `category` groups items in a report; those of one `cluster` say much the same and count as one.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Final, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from bettertherapy_api.faults import first_fault
from neurons import jsonl
from neurons.invisible import as_read, is_blank
from neurons.scoring.phrases import normalise

MAX_ITEMS: Final = 10_000
MAX_BYTES: Final = 16 * 1024 * 1024


def _visible(text: str) -> str:
    if is_blank(text):
        raise ValueError("a reader would see nothing of it")
    return text


Text = Annotated[str, Field(min_length=1, max_length=8192), AfterValidator(_visible)]


def _sayable(phrase: str) -> str:
    if not normalise(phrase):
        raise ValueError("a phrase holds no word, so that no answer could ever say it")
    return phrase


Phrase = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_sayable)]
AnyOf = Phrase | Annotated[tuple[Phrase, ...], Field(min_length=1, max_length=32)]


class ItemError(ValueError):
    """A set of items can't be used; the message names lines and ids, never what they hold."""


class BaseItem(BaseModel):
    """What every item has, of whatever form."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    id: Annotated[str, Field(min_length=1, max_length=128)]
    question: Text
    category: Annotated[str, Field(min_length=1, max_length=40)] | None = None
    cluster: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    """Items with the same one say much the same (wordings of one question, turns of one conversation): they count as
    one."""

    @property
    def question_digest(self) -> str:
        """Digest of the question without case, punctuation and spacing: equal for the same question typed anew."""
        return question_digest(self.question)


class Choice(BaseItem):
    """A question with options, one of which is right (MedQA, MedMCQA, PubMedQA)."""

    kind: Literal["choice"]
    options: Annotated[dict[Annotated[str, Field(pattern=r"^[A-Z]$")], Text], Field(min_length=2, max_length=10)]
    answer: str

    @model_validator(mode="after")
    def _answer_is_an_option(self) -> Choice:
        if self.answer not in self.options:
            raise ValueError("answer is none of the options")
        return self

    def is_right(self, letter: str | None) -> bool:
        """Tell whether an option is the right one, or says the same: in published exams some stand there twice."""
        return letter is not None and as_read(self.options[letter]) == as_read(self.options[self.answer])

    @property
    def prompt(self) -> str:
        """What is asked: the question, its options, and how to answer."""
        options = "\n".join(f"{letter}. {text}" for letter, text in sorted(self.options.items()))
        return f"{self.question}\n{options}\nAnswer with the letter of the right option only."


class Gold(BaseItem):
    """A question with a gold answer: its key facts as phrases, and what a right answer never says."""

    kind: Literal["gold"]
    gold: Text
    must: Annotated[tuple[AnyOf, ...], Field(max_length=32)] = ()
    must_not: Annotated[tuple[AnyOf, ...], Field(alias="mustNot", max_length=32)] = ()

    @property
    def prompt(self) -> str:
        """What is asked."""
        return self.question


class Criterion(BaseModel):
    """One thing that an answer does (points above zero) or must not do (below)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    points: Annotated[int, Field(ge=-10, le=10)]
    any: Annotated[tuple[Phrase, ...], Field(max_length=64)] = ()
    """Met when the answer says one of these. Without phrases it takes a judge."""
    text: Annotated[str, Field(min_length=1, max_length=1000)] | None = None
    """The criterion in words, for people and judges."""

    @model_validator(mode="after")
    def _says_something(self) -> Criterion:
        if not self.any and not self.text:
            raise ValueError("a criterion needs phrases in `any`, or `text` for a judge")
        return self


class Rubric(BaseItem):
    """A question scored by points (HealthBench): achieved over possible, clipped to 0 and 1."""

    kind: Literal["rubric"]
    criteria: Annotated[tuple[Criterion, ...], Field(min_length=1, max_length=64)]

    @model_validator(mode="after")
    def _points_can_be_earned(self) -> Rubric:
        if not any(criterion.points > 0 for criterion in self.criteria):
            raise ValueError("no criterion has points above zero")
        return self

    @property
    def prompt(self) -> str:
        """What is asked."""
        return self.question


Item = Choice | Gold | Rubric
AnItem = TypeVar("AnItem", bound=BaseItem)
_ITEM: Final[TypeAdapter[Item]] = TypeAdapter(Annotated[Item, Field(discriminator="kind")])


def parse_items(data: bytes) -> tuple[Item, ...]:
    """Read items, one JSON object a line. Raises ItemError for the first line that is wrong, or an id used twice."""
    return parse_as(_ITEM, data)


def parse_as(form: TypeAdapter[AnItem], data: bytes) -> tuple[AnItem, ...]:
    """Read items of any form, as `parse_items` reads its own."""
    if len(data) > MAX_BYTES:
        raise ItemError(f"{len(data)} bytes, at most {MAX_BYTES} are read")
    items: list[AnItem] = []
    for number, raw in enumerate(data.splitlines(), start=1):
        if line := jsonl.without_marks(raw):
            items.append(_parse_line(form, line, number))
    if len(items) > MAX_ITEMS:
        raise ItemError(f"{len(items)} items, at most {MAX_ITEMS} are used")
    seen: set[str] = set()
    for item in items:
        if item.id in seen:
            raise ItemError(f"two items have the id {item.id!r}")
        seen.add(item.id)
    return tuple(items)


def question_digest(question: str) -> str:
    """Return the digest by which the same question is known again: of its words alone, in their order."""
    return "sha256:" + hashlib.sha256(" ".join(normalise(question)).encode()).hexdigest()


def _parse_line(form: TypeAdapter[AnItem], raw: bytes, number: int) -> AnItem:
    if (kind := jsonl.other_kind(raw)) is not None:
        raise ItemError(f"line {number}: {kind}")
    try:
        text = raw.decode()
        jsonl.read_object(text)
    except UnicodeDecodeError:
        raise ItemError(f"line {number}: a character that is no UTF-8. Save the file as UTF-8") from None
    except jsonl.NotJsonLines as error:
        raise ItemError(f"line {number}: {error}") from None
    if jsonl.is_cut(text):
        raise ItemError(f"line {number}: half a character (\\ud83d and the like); write it whole")
    try:
        return form.validate_json(raw)
    except ValidationError as error:
        raise ItemError(f"line {number}: {_in_words(error)}") from None


def _in_words(error: ValidationError) -> str:
    """Say the first thing that is wrong; where a line doesn't say what kind of item it is, what it may be."""
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    kind = first["type"]
    if kind == "union_tag_not_found":
        return f"`kind` is missing; an item is {_KINDS}, and all lines of a set have one form (docs/judging.md)"
    if kind == "union_tag_invalid":
        return f"`kind` is none of ours; an item is {_KINDS}"
    if kind.endswith("_type") and not first["loc"]:
        return "not an object; write one object {…} a line"
    return first_fault(error, whole="the line")


_KINDS: Final = "`choice`, `gold` or `rubric`"

"""Public benchmarks' files, as they are published, read into items: MedQA, MedMCQA, PubMedQA, MMLU, HealthBench; and
items of your own in the form of inspect_ai's samples or of lm-evaluation-harness' documents.

A file is read whole or not at all: the first row that isn't as published raises ItemError, with its line and field and
nothing of what stands in it. The files are old and public, and a model may have seen them: compare versions of one
model by them, and claim no skill.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from neurons import jsonl
from neurons.scoring.clusters import with_clusters
from neurons.scoring.healthbench import Asked, Example
from neurons.scoring.items import MAX_BYTES, MAX_ITEMS, Choice, Gold, ItemError, parse_items
from neurons.scoring.items import Item as OwnItem

_Text = Annotated[str, Field(min_length=1, max_length=8192)]
Row = TypeVar("Row", bound=BaseModel)


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class _MedQa(_Row):
    question: _Text
    options: Annotated[dict[str, _Text], Field(min_length=2, max_length=10)]
    answer: _Text
    answer_idx: str
    meta_info: str = ""


class _MedMcqa(_Row):
    id: Annotated[str, Field(min_length=1, max_length=100)]
    question: _Text
    opa: _Text
    opb: _Text
    opc: _Text
    opd: _Text
    cop: Annotated[int, Field(ge=1, le=4)]
    """The right option, from 1."""
    subject_name: str | None = None


class _PubMedQa(_Row):
    QUESTION: _Text
    CONTEXTS: Annotated[list[_Text], Field(min_length=1, max_length=50)]
    final_decision: Literal["yes", "no", "maybe"]


class _Message(_Row):
    role: Literal["user"]
    content: _Text


class _Sample(_Row):
    """inspect_ai.dataset.Sample, as `json_dataset` reads it."""

    input: _Text | Annotated[list[_Message], Field(min_length=1, max_length=1)]
    target: _Text | Annotated[list[_Text], Field(min_length=1, max_length=1)]
    choices: Annotated[list[_Text], Field(min_length=2, max_length=10)] | None = None
    id: Annotated[str, Field(min_length=1, max_length=128)] | int | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)


class _Document(_Row):
    """What a multiple-choice task of lm-evaluation-harness reads: MMLU's fields, or HellaSwag's after its own
    `process_docs`."""

    question: _Text | None = None
    query: _Text | None = None
    choices: Annotated[list[_Text], Field(min_length=2, max_length=10)]
    answer: int | str | None = None
    gold: int | str | None = None
    label: int | str | None = None
    subject: str | None = None
    id: Annotated[str, Field(min_length=1, max_length=128)] | int | None = None


class _Logged(_Row):
    """A line of `samples_*.jsonl`, as `lm_eval --log_samples` writes it."""

    doc: _Document
    doc_id: int


def read_inspect(data: bytes) -> tuple[Choice | Gold, ...]:
    """Read inspect_ai's samples, JSON Lines: with `choices` and a letter as `target`, or a text. Raises ItemError.

    `category` and `cluster` are read from `metadata`. What a model grader would judge by is taken for a gold answer.
    """

    def item(where: str, row: _Sample) -> Choice | Gold:
        question = row.input if isinstance(row.input, str) else row.input[0].content
        target = row.target if isinstance(row.target, str) else row.target[0]
        named: dict[str, Any] = {
            "id": str(row.id) if row.id is not None else f"sample-{where.removeprefix('line ')}", "question": question,
            "category": row.metadata.get("category"), "cluster": row.metadata.get("cluster"),
        }  # fmt: skip
        if row.choices is None:
            return _gold(where, gold=target, **named)
        return _choice(where, options=_lettered(row.choices), answer=target.strip(), **named)

    return _items(_lines(data, _Sample), item)


def read_lm_eval(data: bytes) -> tuple[Choice, ...]:
    """Read documents of lm-evaluation-harness' multiple-choice tasks, or what it logged of them. Raises ItemError.

    The right choice is `answer`, `gold` or `label`: its place, counted from 0, or its letter.
    """

    def item(where: str, row: _Document) -> Choice:
        question = row.question or row.query
        if question is None:
            raise ItemError(f"{where}: neither question nor query")
        options = _lettered(row.choices)
        told = (_letter(each, options) for each in (row.answer, row.gold, row.label))
        right = {each for each in told if each is not None}
        if not right:
            raise ItemError(f"{where}: answer, gold or label is no place and no letter of a choice")
        if len(right) > 1:
            raise ItemError(f"{where}: answer, gold and label name different choices")
        (letter,) = right
        if any(isinstance(each, str) and each.strip() != letter and each.strip() in row.choices
               and each.strip() != options[letter] for each in (row.answer, row.gold, row.label)):  # fmt: skip
            raise ItemError(f"{where}: the answer is one choice by its place and another one by its words")
        name = f"doc-{where.removeprefix('line ')}" if row.id is None else str(row.id)
        return _choice(where, id=name, question=question, options=options, answer=letter,
                       category=(row.subject or "")[:40] or None)  # fmt: skip

    first = _first(data)
    if "doc" in first:
        return _items(_once_each(_lines(data, _Logged)), item)
    return _items(_lines(data, _Document), item)


def _once_each(lines: Iterator[tuple[str, _Logged]]) -> Iterator[tuple[str, _Document]]:
    """Yield each document once: a line is logged of it for each filter and repeat, and it would count as often."""
    seen: dict[int, _Document] = {}
    for where, row in lines:
        if row.doc_id not in seen:
            seen[row.doc_id] = row.doc
            yield where, row.doc
        elif seen[row.doc_id] != row.doc:
            raise ItemError(f"{where}: another document has the doc_id {row.doc_id} too; give one task's file")


def read_set(data: bytes) -> tuple[Asked, ...]:
    """Read an evaluation set in whichever of the forms its first line has. Raises ItemError.

    That is this product's own, inspect_ai's, lm-evaluation-harness', MedQA's, MedMCQA's or HealthBench's. Items that
    say much the same and name no cluster get one; HealthBench's rows, which are whole conversations, don't.
    """
    if "rubrics" in (first := _first(data)) and "kind" not in first:
        return read_healthbench(data)
    return with_clusters(_in_its_form(data))


def _in_its_form(data: bytes) -> Sequence[OwnItem]:
    first = _first(data)
    if "kind" not in first:
        for field, read in _FORMS:
            if field in first:
                return read(data)
    return parse_items(data)


def _first(data: bytes) -> dict[str, Any]:
    """Return the first line that holds something, or nothing where it is no object: its reader says so in words."""
    raw = next((line for part in data[:MAX_BYTES].splitlines() if (line := jsonl.without_marks(part))), b"")
    try:
        found = jsonl.read_object(raw.decode())
    except (UnicodeDecodeError, jsonl.NotJsonLines):
        return {}
    return found if isinstance(found, dict) else {}


def _lettered(choices: list[str]) -> dict[str, str]:
    return dict(zip("ABCDEFGHIJ", choices, strict=False))


def _letter(right: int | str | None, options: dict[str, str]) -> str | None:
    if isinstance(right, str) and right.strip() in options:
        return right.strip()
    place = int(right) if isinstance(right, int) or (isinstance(right, str) and right.strip().isdecimal()) else -1
    return "ABCDEFGHIJ"[place] if 0 <= place < len(options) else None


def read_medqa(data: bytes) -> tuple[Choice, ...]:
    """Read MedQA's JSON Lines with four or five options. Raises ItemError."""

    def item(where: str, row: _MedQa) -> Choice:
        if row.options.get(row.answer_idx) != row.answer:
            raise ItemError(f"{where}: answer_idx isn't the letter of answer")
        return _choice(where, id=f"medqa-{where.removeprefix('line ')}", question=row.question, options=row.options,
                       answer=row.answer_idx, category=row.meta_info[:40] or None)  # fmt: skip

    return _items(_lines(data, _MedQa), item)


def read_medmcqa(data: bytes) -> tuple[Choice, ...]:
    """Read MedMCQA's JSON Lines (its files are called .json). Raises ItemError."""

    def item(where: str, row: _MedMcqa) -> Choice:
        options = dict(zip("ABCD", (row.opa, row.opb, row.opc, row.opd), strict=True))
        return _choice(where, id=f"medmcqa-{row.id}", question=row.question, options=options,
                       answer="ABCD"[row.cop - 1], category=(row.subject_name or "")[:40] or None)  # fmt: skip

    return _items(_lines(data, _MedMcqa), item)


def read_pubmedqa(data: bytes) -> tuple[Choice, ...]:
    """Read PubMedQA's labelled questions, by PubMed's ids; each is asked after its abstract. Raises ItemError."""
    _check_size(data)
    try:
        rows: Any = jsonl.read_object(jsonl.without_marks(data).decode())
    except (UnicodeDecodeError, jsonl.NotJsonLines):
        raise ItemError("the file is no JSON in UTF-8") from None
    if not isinstance(rows, dict):
        raise ItemError("the file is no object of questions by their PubMed ids")

    def item(where: str, row: _PubMedQa) -> Choice:
        question = "\n".join([*row.CONTEXTS, row.QUESTION])
        answer = "ABC"[("yes", "no", "maybe").index(row.final_decision)]
        return _choice(where, id=f"pubmedqa-{where.removeprefix('id ')}", question=question,
                       options={"A": "yes", "B": "no", "C": "maybe"}, answer=answer, category=None)  # fmt: skip

    read = ((f"id {key[:20]!a}" if not key.isdecimal() else f"id {key[:40]}", value) for key, value in rows.items())
    return _items(((where, _valid(where, value, _PubMedQa)) for where, value in read), item)


def read_mmlu(data: bytes, *, subject: str) -> tuple[Choice, ...]:
    """Read one subject's CSV of hendrycks/test: question, four options, letter; no header. Raises ItemError."""
    _check_size(data)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ItemError("the file is no text in UTF-8") from None
    items: list[Choice] = []
    try:
        for number, fields in enumerate(csv.reader(io.StringIO(text, newline=""), strict=True), start=1):
            where = f"row {number}"
            if len(fields) != _MMLU_FIELDS:
                raise ItemError(f"{where}: {len(fields)} fields, {_MMLU_FIELDS} are expected")
            question, *options, answer = fields
            items.append(_choice(where, id=f"mmlu-{subject}-{number}", question=question, answer=answer.strip(),
                                 options=dict(zip("ABCD", options, strict=True)), category=subject[:40]))  # fmt: skip
            _check_count(items)
    except csv.Error:
        raise ItemError(f"row {len(items) + 1}: no CSV") from None
    return _once(items)


def read_healthbench(data: bytes) -> tuple[Example, ...]:
    """Read HealthBench's JSON Lines. Raises ItemError, also for a row that has lost its canary."""
    return _items(_lines(data, Example, at_most=_HEALTHBENCH_BYTES), lambda _, row: row)


_FORMS: Final[tuple[tuple[str, Callable[[bytes], Sequence[OwnItem]]], ...]] = (
    ("input", read_inspect), ("doc", read_lm_eval), ("choices", read_lm_eval), ("answer_idx", read_medqa),
    ("cop", read_medmcqa),
)  # fmt: skip
"""By a field that the first line of one form alone has."""
_MMLU_FIELDS: Final = 6
_HEALTHBENCH_BYTES: Final = 128 << 20
"""Its 5,000 rows are long."""
Item = TypeVar("Item", Choice, Example, Choice | Gold)


def _items(rows: Iterator[tuple[str, Row]], item: Callable[[str, Row], Item]) -> tuple[Item, ...]:
    items: list[Item] = []
    for where, row in rows:
        items.append(item(where, row))
        _check_count(items)
    return _once(items)


def _once(items: list[Item]) -> tuple[Item, ...]:
    seen: set[str] = set()
    for each in items:
        name = each.prompt_id if isinstance(each, Example) else each.id
        if name in seen:
            raise ItemError(f"two rows have the id {name!a}")
        seen.add(name)
    if not items:
        raise ItemError("the file holds no row")
    return tuple(items)


def _lines(data: bytes, model: type[Row], *, at_most: int = MAX_BYTES) -> Iterator[tuple[str, Row]]:
    _check_size(data, at_most=at_most)
    if (kind := jsonl.other_kind(data[:65_536])) is not None:
        raise ItemError(kind)
    for number, raw in enumerate(data.splitlines(), start=1):
        where = f"line {number}"
        if not (line := jsonl.without_marks(raw)):
            continue
        try:
            text = line.decode()
            found = jsonl.read_object(text)
        except UnicodeDecodeError:
            raise ItemError(f"{where}: a character that is no UTF-8. Save the file as UTF-8") from None
        except jsonl.NotJsonLines as error:
            raise ItemError(f"{where}: {error}") from None
        yield where, _valid(where, found, model)


def _valid(where: str, found: object, model: type[Row]) -> Row:
    try:
        return model.model_validate(found)
    except ValidationError as error:
        raise ItemError(f"{where}: {_why(error)}") from None


def _choice(where: str, **fields: Any) -> Choice:
    try:
        return Choice(kind="choice", **fields)
    except ValidationError as error:
        raise ItemError(f"{where}: {_why(error)}") from None


def _gold(where: str, **fields: Any) -> Gold:
    try:
        return Gold(kind="gold", **fields)
    except ValidationError as error:
        raise ItemError(f"{where}: {_why(error)}") from None


def _why(error: ValidationError) -> str:
    first: Any = error.errors(include_input=False, include_url=False, include_context=False)[0]
    field = next((part for part in first["loc"] if part in _FIELDS), "the row")
    return f"{field}: {str(first['msg']).removeprefix('Value error, ')}"


_FIELDS: Final = frozenset(
    {
        *_MedQa.model_fields,
        *_MedMcqa.model_fields,
        *_PubMedQa.model_fields,
        *Example.model_fields,
        *Choice.model_fields,
        *_Sample.model_fields,
        *_Document.model_fields,
        *_Logged.model_fields,
    }
)
"""Names of ours; of others, such as an option's letter, a file could make anything."""


def _check_size(data: bytes, *, at_most: int = MAX_BYTES) -> None:
    if len(data) > at_most:
        raise ItemError(f"{len(data)} bytes, at most {at_most} are read; split the file")


def _check_count(items: list[Any]) -> None:
    if len(items) > MAX_ITEMS:
        raise ItemError(f"more than {MAX_ITEMS} rows; split the file")

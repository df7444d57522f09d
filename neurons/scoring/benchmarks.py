"""Public benchmarks' files, as they are published, read into items: MedQA, MedMCQA, PubMedQA, MMLU, HealthBench.

A file is read whole or not at all: the first row that isn't as published raises ItemError, with its line and field and
nothing of what stands in it. The files are old and public, and a model may have seen them: compare versions of one
model by them, and claim no skill.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from neurons import jsonl
from neurons.scoring.healthbench import Example
from neurons.scoring.items import MAX_BYTES, MAX_ITEMS, Choice, ItemError

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
        rows: Any = jsonl.read_object(data.decode())
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


_MMLU_FIELDS: Final = 6
_HEALTHBENCH_BYTES: Final = 128 << 20
"""Its 5,000 rows are long."""
Item = TypeVar("Item", Choice, Example)


def _items(rows: Iterator[tuple[str, Row]], item: Callable[[str, Row], Item]) -> tuple[Item, ...]:
    items: list[Item] = []
    for where, row in rows:
        items.append(item(where, row))
        _check_count(items)
    return _once(items)


def _once(items: list[Item]) -> tuple[Item, ...]:
    seen: set[str] = set()
    for each in items:
        name = each.id if isinstance(each, Choice) else each.prompt_id
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
    for number, raw in enumerate(data.split(b"\n"), start=1):
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


def _why(error: ValidationError) -> str:
    first: Any = error.errors(include_input=False, include_url=False, include_context=False)[0]
    field = next((part for part in first["loc"] if part in _FIELDS), "the row")
    return f"{field}: {first['msg']}"


_FIELDS: Final = frozenset(
    {*_MedQa.model_fields, *_MedMcqa.model_fields, *_PubMedQa.model_fields, *Example.model_fields, *Choice.model_fields}
)
"""Names of ours; of others, such as an option's letter, a file could make anything."""


def _check_size(data: bytes, *, at_most: int = MAX_BYTES) -> None:
    if len(data) > at_most:
        raise ItemError(f"{len(data)} bytes, at most {at_most} are read; split the file")


def _check_count(items: list[Any]) -> None:
    if len(items) > MAX_ITEMS:
        raise ItemError(f"more than {MAX_ITEMS} rows; split the file")

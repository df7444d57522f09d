"""Public benchmarks' files made into sets of questions: what can be asked as a patient would ask it, and no more."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from pydantic import ValidationError

from neurons.scoring import benchmarks
from neurons.scoring.healthbench import Example
from neurons.scoring.items import Choice, ItemError
from neurons.validator.rounds.challenges import Challenge, ChallengeError, from_document, to_document

_LONGEST: Final = 8192


class Benchmark(StrEnum):
    """Whose file it is."""

    MEDQA = "medqa"
    MEDMCQA = "medmcqa"
    PUBMEDQA = "pubmedqa"
    MMLU = "mmlu"
    HEALTHBENCH = "healthbench"


@dataclass(slots=True)
class Imported:
    """What became of a file's rows."""

    challenges: list[Challenge] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    """By reason."""

    def to_bytes(self) -> bytes:
        """Return the set as a file has it."""
        lines = (json.dumps(to_document(each), sort_keys=True, ensure_ascii=False) for each in self.challenges)
        return "".join(f"{line}\n" for line in lines).encode()


def import_benchmark(data: bytes, *, benchmark: Benchmark, topic: str) -> Imported:
    """Read a file as it is published. `topic` is that of rows that name none.

    Raises:
        ChallengeError: it isn't as published; its line and field are named.
    """
    try:
        rows = _read(data, benchmark, topic)
    except ItemError as error:
        raise ChallengeError(f"the file of {benchmark.value} can't be read: {error}") from None
    imported = Imported()
    for document in _documents(rows, topic, imported.refused):
        try:
            imported.challenges.append(from_document(document))
        except (ChallengeError, ValidationError):
            imported.refused["a field is too long or of another form"] += 1
    return imported


def _read(data: bytes, benchmark: Benchmark, topic: str) -> Iterable[Choice | Example]:
    match benchmark:
        case Benchmark.MEDQA:
            return benchmarks.read_medqa(data)
        case Benchmark.MEDMCQA:
            return benchmarks.read_medmcqa(data)
        case Benchmark.PUBMEDQA:
            return benchmarks.read_pubmedqa(data)
        case Benchmark.MMLU:
            return benchmarks.read_mmlu(data, subject=topic)
        case Benchmark.HEALTHBENCH:
            return benchmarks.read_healthbench(data)


def _documents(rows: Iterable[Choice | Example], topic: str, refused: Counter[str]) -> Iterator[dict[str, Any]]:
    for row in rows:
        if isinstance(row, Choice):
            yield {**row.model_dump(mode="json", exclude_none=True), "category": row.category or topic}
            continue
        if len(row.prompt) != 1:
            refused["a conversation of several turns"] += 1
            continue
        if any(not each.points.is_integer() or len(each.criterion) > 1000 for each in row.rubrics):
            refused["a criterion with a fraction of a point, or of over 1,000 characters"] += 1
            continue
        if len(row.prompt[0].content) > _LONGEST or len(row.rubrics) > 64:
            refused["too long, or with over 64 criteria"] += 1
            continue
        criteria = [{"points": int(each.points), "text": each.criterion} for each in row.rubrics]
        yield {
            "id": f"healthbench-{row.prompt_id}"[:128], "kind": "rubric", "question": row.prompt[0].content,
            "category": topic, "criteria": criteria,
        }  # fmt: skip

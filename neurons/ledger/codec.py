"""Between a record and a row: flat, of plain values, the same for the database, the queue and a backup."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from enum import StrEnum
from typing import Any, Final, TypeVar

from neurons.ledger import records
from neurons.ledger.errors import BadRecord
from neurons.ledger.records import AnyRecord, Kept, Miner, Record, Scrubbed, TaskState, Twin

Row = dict[str, Any]
R = TypeVar("R", bound=Record)

KINDS: Final[Mapping[str, type[AnyRecord]]] = {
    "consents": records.Consent,
    "sessions": records.Session,
    "questions": records.Question,
    "answers": records.Answer,
    "chosen": records.Chosen,
    "ratings": records.Rating,
    "preferences": records.Preference,
    "corrections": records.Correction,
    "tasks": records.Task,
    "task_events": records.TaskEvent,
    "rounds": records.Round,
    "rounds_finished": records.RoundFinished,
    "round_items": records.RoundItem,
    "round_answers": records.RoundAnswer,
    "scores": records.Score,
    "round_steps": records.RoundStep,
    "weight_claims": records.WeightsClaim,
    "weight_events": records.WeightsEvent,
    "trainings": records.Training,
}
"""By table. Whatever is a patient's has the column `patient_id`."""
TABLE_OF: Final[Mapping[type, str]] = {kind: table for table, kind in KINDS.items()}

_TEXTS: Final = frozenset({"text", "comment"})
_MINERS: Final = frozenset({"miner", "validator"})
_DOCUMENTS: Final = frozenset({"weights", "reference", "evidence", "line_digests"})


def to_row(record: AnyRecord) -> Row:
    """Return the record's row. What no database takes (NUL, half a character) is replaced by U+FFFD."""
    row: Row = {}
    for name in _NAMES[type(record)]:
        value = getattr(record, name)
        if name in _TEXTS:
            kept: Scrubbed | None = value
            row[name] = None if kept is None else storable(kept.text)
            row[f"{name}_by"] = None if kept is None else storable(kept.scrubbed_by)
        elif type(value) is str:
            row[name] = storable(value)
        elif value is None or isinstance(value, int):
            row[name] = value
        elif isinstance(value, Twin):
            row["twin_uid"], row["twin_name"] = value.uid, storable(value.name)
        elif isinstance(value, Miner):
            row["hotkey"], row["registered_block"] = value.hotkey, value.registered_block
        elif name in _DOCUMENTS:
            row[name] = document(value)
        elif isinstance(value, StrEnum):
            row[name] = value.value
        else:
            row[name] = storable(value) if isinstance(value, str) else value
    return row


_NAMES: Final[Mapping[type, tuple[str, ...]]] = {
    kind: tuple(each.name for each in fields(kind)) for kind in KINDS.values()
}


def from_row(kind: type[R], row: Mapping[str, Any]) -> R:
    """Return the record of a row. Raises BadRecord for a row that is none."""
    try:
        return kind(**{each.name: _value(each.name, row) for each in fields(kind)})  # type: ignore[arg-type]
    except BadRecord:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise BadRecord(f"a row of {TABLE_OF[kind]} is damaged: {type(error).__name__}") from None


def _value(name: str, row: Mapping[str, Any]) -> Any:  # noqa: PLR0911 - one case a kind of field
    if name == "twin":
        return Twin(uid=row["twin_uid"], name=row["twin_name"])
    if name in _MINERS:
        return Miner(hotkey=row["hotkey"], registered_block=row["registered_block"])
    if name in _TEXTS:
        return None if row[name] is None else Kept(text=row[name], scrubbed_by=row[f"{name}_by"])
    if name in _DOCUMENTS:
        read = None if row[name] is None else json.loads(row[name])
        return tuple(read) if isinstance(read, list) else read
    if name == "state":
        return TaskState(row[name])
    if name in ("given", "receipt_valid"):
        return None if row[name] is None else bool(row[name])
    return row[name]


def document(value: Any) -> str:
    """Return the one JSON text of a value."""
    return storable(json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False))


def storable(text: str) -> str:
    """Return the text as every database takes it."""
    if text.isascii() and "\x00" not in text:
        return text
    return text.replace("\x00", "\ufffd").encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")

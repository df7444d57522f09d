"""What a doctor reads of the own twin: its latest questions, and what its versions learned."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select

from neurons.ledger import reading, schema
from neurons.ledger.codec import from_row
from neurons.ledger.database import Database
from neurons.ledger.records import Consent, Question, Training
from neurons.ledger.views import ConsentState, Turn


@dataclass(frozen=True, slots=True)
class Reviewed:
    """One question with the answer that was given, and whether it may be learned from."""

    turn: Turn
    consent: ConsentState


@dataclass(frozen=True, slots=True)
class ExportedDay:
    """A day's dataset of a twin, as it was exported."""

    digest: str
    day: str
    lines: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class Lineage:
    """What a twin's versions learned, the latest first."""

    trainings: tuple[Training, ...]
    days: tuple[ExportedDay, ...]
    retrain: frozenset[str]
    """Adapters that are to be trained again, since they learned from a patient who was erased."""


async def questions(
    database: Database, *, twin_uid: str, before_ms: int | None = None, limit: int = 20
) -> tuple[Reviewed, ...]:
    """Return a twin's latest questions, the newest first; `before_ms`: only older ones. Raises LedgerDown."""
    table = schema.QUESTIONS
    statement = select(table).where(table.c.twin_uid == twin_uid)
    if before_ms is not None:
        statement = statement.where(table.c.at_ms < before_ms)
    statement = statement.order_by(table.c.at_ms.desc(), table.c.question_id.desc()).limit(limit)
    async with database.reading() as connection:
        found = [from_row(Question, row._asdict()) for row in await connection.execute(statement)]
        turns = await reading.turns_of(connection, found)
        consents = await reading.rows_in(
            connection, schema.CONSENTS, Consent, "patient_id", {each.patient_id for each in found}
        )
    return tuple(
        Reviewed(turn, reading.consent_of(each for each in consents if each.patient_id == turn.question.patient_id))
        for turn in turns
    )


async def lineage(database: Database, *, twin_uid: str, limit: int = 100) -> Lineage:
    """Return what a twin's versions learned. Raises LedgerDown."""
    trainings, datasets, retrainings = schema.TRAININGS, schema.DATASETS, schema.RETRAININGS
    async with database.reading() as connection:
        made = await connection.execute(
            select(trainings).where(trainings.c.twin_uid == twin_uid).order_by(trainings.c.at_ms.desc()).limit(limit)
        )
        days = await connection.execute(
            select(datasets).where(datasets.c.twin_uid == twin_uid).order_by(datasets.c.at_ms.desc()).limit(limit)
        )
        marked = await connection.execute(
            select(retrainings.c.adapter_digest).where(
                retrainings.c.twin_uid == twin_uid, retrainings.c.done_at_ms.is_(None)
            )
        )
        return Lineage(
            trainings=tuple(from_row(Training, row._asdict()) for row in made),
            days=tuple(ExportedDay(row.dataset_digest, row.day, row.line_count, row.at_ms) for row in days),
            retrain=frozenset(row.adapter_digest for row in marked),
        )

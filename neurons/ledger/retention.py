"""Retention: what is older than agreed goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from neurons.ledger import schema
from neurons.ledger.errors import LedgerError

_DAY_MS: Final = 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class Retention:
    """For how many days what is kept; None: for good."""

    conversations_days: int | None = 365
    """Sessions, questions, answers, ratings, preferences, corrections, and replays of such in rounds."""
    rounds_days: int | None = 180
    """Questions and answers of rounds. Rounds, their results' digests and scores stay."""

    def __post_init__(self) -> None:
        for days in (self.conversations_days, self.rounds_days):
            if days is not None and days < 1:
                raise LedgerError("retention is a number of days from 1: nothing of today is deleted by age.")


async def retain(connection: AsyncConnection, retention: Retention, *, now_ms: int) -> dict[str, int]:
    """Delete what is older, and return the rows by table. Consents, lineage and what erasure needs stay.

    A session goes by its questions: with the last of them, or by its own age when it never had one.
    """
    removed: dict[str, int] = {}
    if retention.conversations_days is not None:
        before = now_ms - retention.conversations_days * _DAY_MS
        for table in (
            schema.CORRECTIONS, schema.PREFERENCES, schema.RATINGS, schema.CHOSEN, schema.ANSWERS, schema.QUESTIONS,
        ):  # fmt: skip
            removed[table.name] = (await connection.execute(delete(table).where(table.c.at_ms < before))).rowcount
        sessions, questions = schema.SESSIONS, schema.QUESTIONS
        asked = select(questions.c.session_id).where(questions.c.session_id == sessions.c.session_id).exists()
        gone = await connection.execute(delete(sessions).where(sessions.c.at_ms < before, ~asked))
        removed[sessions.name] = gone.rowcount
        for table in (schema.ROUND_ANSWERS, schema.ROUND_ITEMS):  # a patient's question that a round asked again
            old = (table.c.at_ms < before) & table.c.patient_id.is_not(None)
            removed[table.name] = (await connection.execute(delete(table).where(old))).rowcount
    if retention.rounds_days is not None:
        before = now_ms - retention.rounds_days * _DAY_MS
        for table in (schema.ROUND_ANSWERS, schema.ROUND_ITEMS):
            count = (await connection.execute(delete(table).where(table.c.at_ms < before))).rowcount
            removed[table.name] = removed.get(table.name, 0) + count
    return {name: count for name, count in removed.items() if count}

"""Records into tables, each once, and nothing of a patient who was erased."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final

from sqlalchemy import Table, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from neurons.ledger.codec import Row
from neurons.ledger.schema import METADATA, SCORES, TOMBSTONES
from neurons.ledger.views import Written

WITHOUT_PATIENT: Final[Row] = {"patient_id": None, "evidence": "{}"}
"""What a score of an erased patient's answer becomes: what a miner earned stays, what was said does not."""
_AT_ONCE: Final = 500
"""Ids that one statement asks for."""


def patient_digest(patient_id: str) -> str:
    """Return what stays of an erased patient's id."""
    return "sha256:" + hashlib.sha256(b"bettertherapy-patient\n" + patient_id.encode()).hexdigest()


async def write_rows(connection: AsyncConnection, rows: Iterable[tuple[str, Row]]) -> Written:
    """Write rows, given with their tables' names; ones that are there already stay as they are."""
    written = Written()
    for table, kept, erased in await _kept(connection, rows):
        new = await insert_new(connection, table, kept)
        written += Written(new=new, known=len(kept) - new, erased=erased)
    return written


async def put_rows(connection: AsyncConnection, rows: Iterable[tuple[str, Row]]) -> None:
    """As `write_rows`, without asking which rows were there."""
    for table, kept, _ in await _kept(connection, rows):
        if kept:
            await connection.execute(_insert(connection, table), _in_order(table, kept))


async def insert_new(connection: AsyncConnection, table: Table, rows: Sequence[Row]) -> int:
    """Insert the rows whose keys aren't there yet, and return how many that were."""
    if not rows:
        return 0
    statement = _insert(connection, table).returning(next(iter(table.primary_key.columns)))
    return len((await connection.execute(statement, _in_order(table, rows))).all())


async def _kept(connection: AsyncConnection, rows: Iterable[tuple[str, Row]]) -> list[tuple[Table, list[Row], int]]:
    """Return the rows by table without those of erased patients, and how many these were."""
    by_table: defaultdict[str, list[Row]] = defaultdict(list)
    for table, row in rows:
        by_table[table].append(row)
    patients = {row["patient_id"] for each in by_table.values() for row in each if row.get("patient_id") is not None}
    gone = await _erased(connection, patients)
    found = []
    for name in sorted(by_table):
        given = by_table[name]
        if gone and name == SCORES.name:
            given = [row | WITHOUT_PATIENT if row.get("patient_id") in gone else row for row in given]
        kept = [row for row in given if row.get("patient_id") not in gone] if gone else given
        found.append((METADATA.tables[name], kept, len(given) - len(kept)))
    return found


def _insert(connection: AsyncConnection, table: Table) -> postgresql.Insert | sqlite.Insert:
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table).on_conflict_do_nothing()
    return sqlite.insert(table).on_conflict_do_nothing()


def _in_order(table: Table, rows: Sequence[Row]) -> list[Row]:
    """Return the rows in one order of the keys for all writers, else two of them may wait for each other."""
    keys = [column.name for column in table.primary_key.columns]
    return sorted(rows, key=lambda row: tuple(row[key] for key in keys))


async def _erased(connection: AsyncConnection, patients: Iterable[str]) -> frozenset[str]:
    digests = {patient_digest(each): each for each in patients}
    found: set[str] = set()
    listed = sorted(digests)
    for start in range(0, len(listed), _AT_ONCE):
        column = TOMBSTONES.c.patient_digest
        result = await connection.execute(select(column).where(column.in_(listed[start : start + _AT_ONCE])))
        found.update(digests[digest] for (digest,) in result)
    return frozenset(found)

"""Backup into one file, of one moment, and restoring it: rows come back once, and nobody who was erased since.

A gzipped file of JSON Lines: a head, then `[table, row]` each, then an end with the count and SHA-256 of what is
between. It is the same for PostgreSQL and SQLite, so it also moves a ledger from one to the other.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import IO, Any, Final

from sqlalchemy import select

from neurons.ledger import erasure, schema, writing
from neurons.ledger.codec import KINDS, Row, from_row, to_row
from neurons.ledger.database import HEAD, Database
from neurons.ledger.errors import BadBackup, BadRecord, LedgerError
from neurons.ledger.views import Written

FORMAT: Final = "bettertherapy-ledger/1"
_SECONDS: Final = 6 * 3600.0
_AT_ONCE: Final = 500
_FIRST: Final = ("tombstones", "erasures")
"""Restored before anything else: what they forbid is then not written at all."""


async def backup(database: Database, path: Path) -> int:
    """Write all rows of one moment into a new file and return how many. The file is there whole, or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        count = await _written(database, partial)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)  # it holds what patients said, and nobody would look for it
        raise
    return count


async def _written(database: Database, partial: Path) -> int:
    count = 0
    hashed = hashlib.sha256()
    with _created(partial) as raw:
        with gzip.GzipFile(fileobj=raw, mode="wb", mtime=0) as file:
            file.write(_line({"format": FORMAT, "revision": HEAD}))
            async for table, row in _all_rows(database):
                line = _line([table, row])
                hashed.update(line)
                count += 1
                file.write(line)
            file.write(_line({"rows": count, "sha256": hashed.hexdigest()}))
        raw.flush()
        await asyncio.to_thread(os.fsync, raw.fileno())
    return count


async def restore(database: Database, path: Path, *, at_ms: int) -> Written:
    """Write a backup's rows into a ledger, empty or not: what is there stays, and what is missing comes back.

    Erasures of both hold: a patient who was erased after the backup was made stays erased, and of consents the latest
    counts. The file is checked whole before anything is written. Raises BadBackup.
    """
    await asyncio.to_thread(_check, path)
    total = Written()
    async with database.long(seconds=_SECONDS, writes=True) as connection:
        await database.exclude(connection)
        for wanted in (True, False):
            for rows in _batches(path, first=wanted):
                total += await _write(connection, rows)
        # A patient whom the backup knows as erased, and this ledger not yet.
        gone = {digest for (digest,) in await connection.execute(select(schema.TOMBSTONES.c.patient_digest))}
        patients: set[str] = set()
        for name in (*schema.OF_PATIENTS, "scores", "dataset_lines"):
            column = schema.METADATA.tables[name].c.patient_id
            patients.update(each for (each,) in await connection.execute(select(column).distinct()) if each is not None)
        for patient in sorted(patients):
            if writing.patient_digest(patient) in gone:
                await erasure.erase(connection, patient_id=patient, at_ms=at_ms)
    return total


async def _all_rows(database: Database) -> AsyncIterator[tuple[str, Row]]:
    async with database.long(seconds=_SECONDS) as connection:
        for name in sorted(schema.METADATA.tables):
            table = schema.METADATA.tables[name]
            result = await connection.stream(select(table).order_by(*table.primary_key.columns))
            async for row in result.mappings():
                yield name, dict(row)


async def _write(connection: Any, rows: list[tuple[str, Row]]) -> Written:
    records = [(table, row) for table, row in rows if table in KINDS]
    written = await writing.write_rows(connection, records)
    own: dict[str, list[Row]] = {}
    for table, row in rows:
        if table not in KINDS:
            own.setdefault(table, []).append(row)
    for table, kept in own.items():
        new = await writing.insert_new(connection, schema.METADATA.tables[table], kept)
        written += Written(new=new, known=len(kept) - new)
    return written


def _batches(path: Path, *, first: bool) -> Iterator[list[tuple[str, Row]]]:
    batch: list[tuple[str, Row]] = []
    for table, row in _rows(path):
        if (table in _FIRST) == first:
            batch.append((table, row))
            if len(batch) >= _AT_ONCE:
                yield batch
                batch = []
    if batch:
        yield batch


def _rows(path: Path) -> Iterator[tuple[str, Row]]:
    with gzip.open(path, "rb") as file:
        next(file)
        for line in file:
            read = json.loads(line)
            if isinstance(read, list):
                yield read[0], read[1]


def _check(path: Path) -> None:
    """Read the whole file once. Raises BadBackup."""
    hashed, count = hashlib.sha256(), 0
    end: Any = None
    try:
        with gzip.open(path, "rb") as file:
            _check_head(path, json.loads(file.readline()))
            for line in file:
                read = json.loads(line)
                if isinstance(read, dict):
                    end = read
                    break
                _check_row(*read)
                hashed.update(line)
                count += 1
    except (OSError, EOFError, ValueError, TypeError, BadRecord) as error:
        if isinstance(error, BadBackup):
            raise
        raise BadBackup(f"{path} is no whole backup ({type(error).__name__}). Take another one.") from error
    if end != {"rows": count, "sha256": hashed.hexdigest()}:
        raise BadBackup(f"{path} is cut or was changed. Take another one.")


def _check_head(path: Path, head: Any) -> None:
    if not isinstance(head, dict) or head.get("format") != FORMAT:
        raise BadBackup(f"{path} is no backup of a ledger.")
    if head.get("revision") != HEAD:
        raise BadBackup(f"{path} is of revision {head.get('revision')}, this release has {HEAD}. Restore it with the "
                        "release that made it, and migrate then.")  # fmt: skip


def _check_row(table: str, row: Row) -> None:
    if table in KINDS:
        to_row(from_row(KINDS[table], row))
    elif table not in schema.METADATA.tables or set(row) != set(schema.METADATA.tables[table].columns.keys()):
        raise BadRecord("a row of an unknown table")


def _line(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def _created(path: Path) -> IO[bytes]:
    try:
        return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")
    except OSError as error:
        raise LedgerError(f"{path} can't be written: {error.strerror}.") from error

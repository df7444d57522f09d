"""The ledger: records in, each once; sessions, consent and lineage out."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import date
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self

from sqlalchemy import Table, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from neurons.ledger import backup, dataset, erasure, reading, rounds, schema, sign_outs, writing
from neurons.ledger.codec import TABLE_OF, Row, to_row
from neurons.ledger.database import Database
from neurons.ledger.dataset import Bounds, Choice, Day
from neurons.ledger.errors import LedgerDown, NotFound, SchemaMismatch
from neurons.ledger.migrate import migrate_database
from neurons.ledger.records import AnyRecord, Task, TaskEvent, Twin
from neurons.ledger.retention import Retention, retain
from neurons.ledger.rounds import TaskStates
from neurons.ledger.views import ConsentState, DatasetLine, Erasure, History, QuestionView, Retraining, Written

_LONG_SECONDS: Final = 3600.0


class Recorder(Protocol):
    """What a gateway writes to and reads from: the `Ledger` itself, or a `QueuedLedger` in front of it."""

    async def record(self, *records: AnyRecord) -> Written:
        """Write records, together or not at all; ones that are there already change nothing.

        A `Ledger` raises LedgerDown when nothing was written (or it isn't known: write again, that is harmless); a
        `QueuedLedger` returns when they are safe on its disk, and raises QueueFull.
        """

    async def history(self, *, session_id: str, patient_id: str, limit: int = 64) -> History:
        """Return the last `limit` turns of a session.

        Raises NotFound when there is no such session or it isn't this patient's; LedgerDown.
        """

    async def sessions(self, *, patient_id: str, limit: int = 100) -> tuple[History, ...]:
        """Return a patient's latest sessions, newest first, each with its first turn only. Raises LedgerDown."""

    async def question(self, *, question_id: str, patient_id: str | None = None) -> QuestionView:
        """Return all of one question: every answer, which one won, ratings, corrections.

        With `patient_id` it must be this patient's. Raises NotFound, LedgerDown.
        """

    async def consent(self, *, patient_id: str) -> ConsentState:
        """Return whether the patient's conversations may be learned from. Raises LedgerDown."""

    async def erase(self, *, patient_id: str) -> Erasure:
        """Erase a patient: everything of theirs goes, and what arrives later is dropped.

        Says which lines of datasets and which adapters are concerned, and marks these for retraining. Raises
        LedgerDown.
        """


class Ledger:
    """The ledger in one database. Opened by `Ledger.open(url)`; a `Recorder`.

    `url` is `postgresql://user:password@host:5432/name`, or `sqlite:////var/lib/ledger/ledger.db` (embedded), whose
    tables are made when it is opened. Every method raises LedgerDown when the database doesn't answer in time.
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    @classmethod
    async def open(cls, url: str, *, timeout_seconds: float = 10.0, pool: int = 10) -> Self:
        """Return the ledger at this address. Raises LedgerDown, SchemaMismatch (run `migrate`)."""
        ledger = cls(Database(url, timeout_seconds=timeout_seconds, pool=pool))
        try:
            await ledger.ready_or_made()
        except BaseException:
            await ledger.close()
            raise
        return ledger

    async def close(self) -> None:
        """Give back all connections."""
        await self.database.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def ready(self) -> None:
        """Return when the database answers and has this release's tables. Raises LedgerDown, SchemaMismatch."""
        async with self.database.reading() as connection:
            await connection.execute(text("SELECT 1"))

    async def ready_or_made(self) -> None:
        """Return when the database is ready; an embedded one's tables are made. Raises LedgerDown, SchemaMismatch."""
        try:
            await self.ready()
        except SchemaMismatch:
            if not self.database.embedded:
                raise
            await migrate_database(self.database)
            await self.ready()

    async def record(self, *records: AnyRecord) -> Written:
        """See `Recorder.record`."""
        return await self.record_rows((TABLE_OF[type(record)], to_row(record)) for record in records)

    async def record_rows(self, rows: Iterable[tuple[str, Row]]) -> Written:
        """Write records as `codec.to_row` makes them, with their tables; as `record`, for a queue or a backup."""
        rows = tuple(rows)
        async with self.database.writing() as connection:
            written = await writing.write_rows(connection, rows)
            await self._look_at_trainings(connection, rows)
            return written

    async def put_rows(self, rows: Iterable[tuple[str, Row]]) -> None:
        """As `record_rows`, without asking what was there already: for a fraction of its time."""
        rows = tuple(rows)
        async with self.database.writing() as connection:
            await writing.put_rows(connection, rows)
            await self._look_at_trainings(connection, rows)

    @staticmethod
    async def _look_at_trainings(connection: AsyncConnection, rows: Iterable[tuple[str, Row]]) -> None:
        if twins := {row["twin_uid"] for table, row in rows if table == "trainings"}:
            await erasure.remark(connection, twins=twins, at_ms=now_ms())

    async def history(self, *, session_id: str, patient_id: str, limit: int = 64) -> History:
        """See `Recorder.history`."""
        async with self.database.reading() as connection:
            return await reading.history(connection, session_id=session_id, patient_id=patient_id, limit=limit)

    async def sessions(self, *, patient_id: str, limit: int = 100) -> tuple[History, ...]:
        """See `Recorder.sessions`."""
        async with self.database.reading() as connection:
            return await reading.sessions(connection, patient_id=patient_id, limit=limit)

    async def question(self, *, question_id: str, patient_id: str | None = None) -> QuestionView:
        """See `Recorder.question`."""
        async with self.database.reading() as connection:
            return await reading.question(connection, question_id=question_id, patient_id=patient_id)

    async def consent(self, *, patient_id: str) -> ConsentState:
        """See `Recorder.consent`."""
        async with self.database.reading() as connection:
            return await reading.consent(connection, patient_id=patient_id)

    async def patient_of(self, *, session_id: str) -> str:
        """Return whose session it is; for operators, who are told of a conversation. Raises NotFound."""
        table = schema.SESSIONS
        async with self.database.reading() as connection:
            found = await connection.execute(select(table.c.patient_id).where(table.c.session_id == session_id))
            patient_id: str | None = found.scalar_one_or_none()
        if patient_id is None:
            raise NotFound("There is no such session in this ledger; what waits in a gateway's queue is not in it yet.")
        return patient_id

    async def erase(self, *, patient_id: str) -> Erasure:
        """See `Recorder.erase`."""
        async with self.database.writing(alone=True) as connection:
            erased = await erasure.erase(connection, patient_id=patient_id, at_ms=now_ms())
        await self._overwrite()
        return erased

    async def erased(self, *, since_ms: int) -> dict[str, int]:
        """Return who was erased since then, by what stays of their ids (`patient_digest`), and when."""
        table = schema.TOMBSTONES
        async with self.database.reading() as connection:
            found = await connection.execute(
                select(table.c.patient_digest, table.c.at_ms).where(table.c.at_ms >= since_ms)
            )
            return {row.patient_digest: row.at_ms for row in found}

    async def to_retrain(self) -> tuple[Retraining, ...]:
        """Return the adapters that are marked for retraining and not yet done, oldest mark first."""
        async with self.database.reading() as connection:
            return await erasure.pending(connection)

    async def retrained(self, *, adapter_digest: str) -> None:
        """Say that an adapter was replaced by one trained again from its clean ancestor, or serves no more."""
        table = schema.RETRAININGS
        async with self.database.writing() as connection:
            await connection.execute(
                update(table)
                .where(table.c.adapter_digest == adapter_digest, table.c.done_at_ms.is_(None))
                .values(done_at_ms=now_ms())
            )

    async def dataset(self, *, twin_uid: str, day: date, zone: str = "UTC", hold_out: bool = False) -> Day:
        """Return a twin's dataset of one day (a date in `zone`), and note its lines for erasure.

        `hold_out`: without the patients by whom miners' versions are examined.
        """
        bounds = Bounds.of(day, zone=zone)
        async with self.database.writing() as connection:
            return await dataset.export(
                connection, twin_uid=twin_uid, bounds=bounds, day=day, at_ms=now_ms(), hold_out=hold_out
            )

    async def task_dataset(self, *, twin_uid: str, day: date, zone: str, choose: Choice) -> Day:
        """As `dataset`, of the lines that `choose` picks: what a task's miner is to learn from.

        `choose` is shown no line of a patient who is held out (`held_out`).
        """
        bounds = Bounds.of(day, zone=zone)
        async with self.database.writing() as connection:
            return await dataset.export_chosen(
                connection, twin_uid=twin_uid, bounds=bounds, day=day, at_ms=now_ms(),
                choose=dataset.without_held_out(twin_uid, choose),
            )  # fmt: skip

    async def held_out(self, *, twin_uid: str, bounds: Bounds, day: date) -> Day:
        """Return what a twin's doctor wrote within the bounds to patients of whom no miner was ever given a line.

        As with `dataset` its lines are noted, so that an erasure finds them; `day` is under which date.
        """
        async with self.database.writing() as connection:
            return await dataset.export_chosen(
                connection, twin_uid=twin_uid, bounds=bounds, day=day, at_ms=now_ms(),
                choose=dataset.held_out_of(twin_uid),
            )  # fmt: skip

    async def dataset_again(self, *, twin_uid: str, bounds: Bounds, digest: str) -> bytes | None:
        """Return a noted dataset as it may be learned now; None where it isn't the same any more."""
        async with self.database.reading() as connection:
            return await dataset.again(connection, twin_uid=twin_uid, bounds=bounds, digest=digest)

    async def task(self, task_id: str) -> TaskStates | None:
        """Return a task with what became of it, oldest first; None without one."""
        async with self.database.reading() as connection:
            return await rounds.task_states(connection, task_id)

    async def decide_on_task(
        self, task_id: str, decide: Callable[[Task, Sequence[TaskEvent]], Sequence[AnyRecord]]
    ) -> bool:
        """Write what `decide` makes of a task and its events so far; False without such a task.

        Within one writing transaction, so that of two that come at once the second sees the first. What `decide` raises
        is raised, and nothing is written.
        """
        async with self.database.writing() as connection:
            found = await rounds.task_states(connection, task_id, locked=True)
            if found is None:
                return False
            rows = [(TABLE_OF[type(record)], to_row(record)) for record in decide(found.task, found.events)]
            await writing.write_rows(connection, rows)
            await self._look_at_trainings(connection, rows)
            return True

    async def sign_out(self, sign_in_ids: Collection[str], *, kept_seconds: float) -> None:
        """Note that these sign-ins of the pages have ended, for so long at least."""
        await self.ready_or_made()
        async with self.database.writing() as connection:
            await sign_outs.add(connection, sign_in_ids, at_ms=now_ms(), kept_ms=int(kept_seconds * 1000))

    async def signed_out(self, sign_in_id: str) -> bool:
        """Tell whether this sign-in of the pages has ended."""
        await self.ready_or_made()  # an embedded one may be younger than who signs in
        async with self.database.reading() as connection:
            return await sign_outs.has(connection, sign_in_id)

    async def recalled(self, *, twin_uid: str | None = None) -> tuple[DatasetLine, ...]:
        """Return the exported lines of patients who were erased or have withdrawn consent: to be learned no more."""
        async with self.database.reading() as connection:
            return await dataset.recalled(connection, twin_uid=twin_uid)

    async def twins(self) -> tuple[Twin, ...]:
        """Return the twins that patients ever talked to, by name."""
        return await self._twins_in(schema.SESSIONS)

    async def exported_twins(self) -> tuple[Twin, ...]:
        """Return the twins of which datasets were made, by name; also where all who talked to them were erased."""
        return await self._twins_in(schema.DATASETS)

    async def _twins_in(self, table: Table) -> tuple[Twin, ...]:
        async with self.database.reading() as connection:
            found = await connection.execute(select(table.c.twin_uid, table.c.twin_name).distinct())
            return tuple(
                sorted((Twin(uid=uid, name=name) for uid, name in found), key=lambda twin: (twin.name, twin.uid))
            )

    async def retain(self, retention: Retention) -> dict[str, int]:
        """Delete what is older than agreed; returns the rows by table."""
        async with self.database.long(seconds=_LONG_SECONDS, writes=True) as connection:
            return await retain(connection, retention, now_ms=now_ms())

    async def backup(self, path: Path) -> int:
        """Write a backup of one moment into a file; returns its rows. Raises LedgerError."""
        return await backup.backup(self.database, path)

    async def restore(self, path: Path) -> Written:
        """Write a backup's rows into this ledger; erasures and withdrawals since then hold. Raises BadBackup."""
        written = await backup.restore(self.database, path, at_ms=now_ms())
        await self._overwrite()
        return written

    async def _overwrite(self) -> None:
        """Let no bytes of what was deleted stay in the database's files, as far as it can be asked for that."""
        if self.database.embedded:
            ((busy, *_),) = await self.database.outside("PRAGMA wal_checkpoint(TRUNCATE)")
            if busy:
                raise LedgerDown(
                    f"{self.database.where} deleted it, but its write-ahead log still holds it, since another process "
                    "is reading (a backup?). Do it again when that one has ended."
                )
        else:
            tables = (*schema.OF_PATIENTS, "scores", "dataset_lines")
            await self.database.outside(*(f"VACUUM {name}" for name in tables))


def now_ms() -> int:
    """Return the time, in milliseconds since 1970 (UTC)."""
    return time.time_ns() // 1_000_000

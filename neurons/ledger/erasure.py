"""Erasing a patient: rows, the way to the lines of datasets, and the adapters that learned them."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from neurons.ledger import schema
from neurons.ledger.lineage import to_retrain
from neurons.ledger.reading import rows_in
from neurons.ledger.records import Training, derived_id
from neurons.ledger.views import DatasetLine, Erasure, Retraining
from neurons.ledger.writing import WITHOUT_PATIENT, insert_new, patient_digest


async def erase(connection: AsyncConnection, *, patient_id: str, at_ms: int) -> Erasure:
    """Erase within one transaction that has the ledger alone. Doing it again removes nothing and says the same."""
    digest = patient_digest(patient_id)
    erasure_id = derived_id("erasure", digest)
    first = await insert_new(connection, schema.TOMBSTONES, [{"patient_digest": digest, "at_ms": at_ms}])
    await insert_new(
        connection, schema.ERASURES, [{"erasure_id": erasure_id, "patient_digest": digest, "at_ms": at_ms}]
    )
    removed: dict[str, int] = {}
    scores = schema.SCORES
    await connection.execute(update(scores).where(scores.c.patient_id == patient_id).values(**WITHOUT_PATIENT))
    for name in schema.OF_PATIENTS:
        table = schema.METADATA.tables[name]
        gone = (await connection.execute(delete(table).where(table.c.patient_id == patient_id))).rowcount
        if gone:
            removed[name] = gone
    lines = schema.DATASET_LINES
    await connection.execute(
        update(lines).where(lines.c.patient_id == patient_id).values(patient_id=None, erasure_id=erasure_id)
    )
    found = await _lines(connection, erasure_id)
    retrain = await mark(connection, erasure_id=erasure_id, lines=found, at_ms=at_ms)
    known = not first or bool(removed or found)
    return Erasure(erasure_id=erasure_id, removed=removed, lines=found, retrain=retrain, known=known)


async def mark(
    connection: AsyncConnection, *, erasure_id: str, lines: Iterable[DatasetLine], at_ms: int
) -> tuple[Retraining, ...]:
    """Mark for retraining what learned these lines, and return all that is marked for them."""
    lines = tuple(lines)
    twins = {line.twin_uid for line in lines}
    trainings = await rows_in(connection, schema.TRAININGS, Training, "twin_uid", twins)
    known = {digest for (digest,) in await connection.execute(select(schema.DATASETS.c.dataset_digest))}
    marked = to_retrain(trainings, lines, known=known)
    await insert_new(
        connection,
        schema.RETRAININGS,
        [
            {
                "erasure_id": erasure_id, "adapter_digest": each.adapter_digest, "twin_uid": each.twin_uid,
                "twin_name": each.twin_name, "run": each.run, "clean_ancestor": each.clean_ancestor,
                "certain": each.certain, "at_ms": at_ms, "done_at_ms": None,
            }
            for each in marked
        ],
    )  # fmt: skip
    return marked


async def remark(connection: AsyncConnection, *, twins: Iterable[str], at_ms: int) -> None:
    """Mark what is recorded as trained after an erasure, and learned its lines none the less."""
    lines = schema.DATASET_LINES
    statement = select(lines).where(lines.c.erasure_id.is_not(None), lines.c.twin_uid.in_(sorted(set(twins))))
    by_erasure: dict[str, list[DatasetLine]] = {}
    for row in (await connection.execute(statement)).mappings():
        by_erasure.setdefault(row["erasure_id"], []).append(_line(dict(row)))
    for erasure_id, erased in sorted(by_erasure.items()):
        await mark(connection, erasure_id=erasure_id, lines=erased, at_ms=at_ms)


async def pending(connection: AsyncConnection) -> tuple[Retraining, ...]:
    """Return what is marked for retraining and not done yet, oldest first."""
    table = schema.RETRAININGS
    statement = select(table).where(table.c.done_at_ms.is_(None)).order_by(table.c.at_ms, table.c.adapter_digest)
    found: dict[str, Retraining] = {}
    for row in (await connection.execute(statement)).mappings():
        found[row["adapter_digest"]] = Retraining(
            adapter_digest=row["adapter_digest"],
            twin_uid=row["twin_uid"],
            twin_name=row["twin_name"],
            run=row["run"],
            clean_ancestor=row["clean_ancestor"],
            certain=bool(row["certain"]),
        )
    return tuple(found.values())


async def _lines(connection: AsyncConnection, erasure_id: str) -> tuple[DatasetLine, ...]:
    table = schema.DATASET_LINES
    statement = select(table).where(table.c.erasure_id == erasure_id).order_by(table.c.dataset_digest, table.c.line_id)
    return tuple(_line(dict(row)) for row in (await connection.execute(statement)).mappings())


def _line(row: dict[str, str]) -> DatasetLine:
    return DatasetLine(
        dataset_digest=row["dataset_digest"],
        line_id=row["line_id"],
        line_digest=row["line_digest"],
        twin_uid=row["twin_uid"],
    )

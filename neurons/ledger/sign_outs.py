"""Which sign-ins of the pages have ended, for all gateways that share a ledger, and after their restarts."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from neurons.ledger.schema import SIGN_OUTS
from neurons.ledger.writing import insert_new


async def add(connection: AsyncConnection, sign_in_ids: Collection[str], *, at_ms: int, kept_ms: int) -> None:
    """Note that these have ended; those that ended more than `kept_ms` ago go, since no cookie is as old."""
    await connection.execute(delete(SIGN_OUTS).where(SIGN_OUTS.c.at_ms < at_ms - kept_ms))
    await insert_new(connection, SIGN_OUTS, [{"sign_in_id": each, "at_ms": at_ms} for each in sign_in_ids])


async def has(connection: AsyncConnection, sign_in_id: str) -> bool:
    """Tell whether this one has ended."""
    column = SIGN_OUTS.c.sign_in_id
    return (await connection.execute(select(column).where(column == sign_in_id))).first() is not None

"""Bring a database's tables to this release's."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from neurons.ledger.database import Database
from neurons.ledger.errors import SchemaMismatch

_FOLDER: Final = Path(__file__).parent / "migrations"
_MIGRATING: Final = 0x6D696772
_SECONDS: Final = 3600.0


def config() -> Config:
    """Return Alembic's configuration, without a file."""
    settings = Config()
    settings.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    return settings


async def migrate(url: str) -> None:
    """Make or change the tables, in one transaction; two at once wait for each other.

    Raises LedgerDown, SchemaMismatch.
    """
    database = Database(url)
    try:
        await migrate_database(database)
    finally:
        await database.close()


async def migrate_database(database: Database) -> None:
    """See `migrate`."""
    async with database.long(seconds=_SECONDS, writes=True) as connection:
        if not database.embedded:
            await connection.execute(text(f"SELECT pg_advisory_xact_lock({_MIGRATING})"))
        await connection.run_sync(_upgrade)


def _upgrade(connection: Connection) -> None:
    settings = config()
    known = {each.revision for each in ScriptDirectory.from_config(settings).walk_revisions()}
    found = MigrationContext.configure(connection).get_current_revision()
    if found is not None and found not in known:
        raise SchemaMismatch(
            f"the ledger has the tables of revision {found}, which is of a newer release than this one. Run that one."
        )
    settings.attributes["connection"] = connection
    command.upgrade(settings, "head")

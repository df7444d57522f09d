"""One role makes a ledger's tables, another reads and writes: what a gateway is given lets nobody change a table."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import text

from neurons.ledger import Ledger, LedgerError, new_id
from neurons.ledger.__main__ import main
from neurons.ledger.database import Database
from neurons.ledger.retention import Retention
from tests.unit.ledger.postgres import Postgres
from tests.unit.ledger.world import a_day

DOCUMENT = Path(__file__).parents[3] / "docs" / "ledger.md"
FORBIDDEN = (
    "CREATE TABLE mine (a int)", "DROP TABLE questions", "ALTER TABLE questions ADD COLUMN b int", "TRUNCATE questions",
    "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
)  # fmt: skip


def documented(owner: str, role: str, database: str) -> list[str]:
    """Return the statements of docs/ledger.md, with these names."""
    block = DOCUMENT.read_text().partition("```sql\n")[2].partition("```")[0]
    named = (
        block.replace("clinic_owner", owner)
        .replace("clinic_gateway", role)
        .replace("DATABASE clinic", f"DATABASE {database}")
    )
    return [statement.strip() for statement in named.split(";") if statement.strip()]


async def run(url: str, *statements: str) -> None:
    database = Database(url)
    try:
        for statement in statements:
            async with database.long(seconds=30, writes=True) as connection:
                await connection.execute(text(statement))
    finally:
        await database.close()


@pytest.fixture
def roles(postgres: Postgres) -> tuple[str, str]:
    """Addresses of one empty database: by the role that makes tables, and by the one that reads and writes."""
    name = f"r{new_id().replace('-', '')}"
    superuser, owner, role = postgres.database(name), f"{name}_o", f"{name}_g"
    asyncio.run(run(superuser, *documented(owner, role, name)))
    return superuser.replace("postgres@", f"{owner}@"), superuser.replace("postgres@", f"{role}@")


def test_tables_are_made_by_one_role_and_used_by_another(
    roles: tuple[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    owner, role = roles
    monkeypatch.setenv("LEDGER_URL", role)
    assert main(["migrate"]) == 1, "this one makes no tables"
    assert "LEDGER_OWNER_URL" in capsys.readouterr().err
    monkeypatch.setenv("LEDGER_OWNER_URL", owner)
    assert main(["migrate"]) == 0
    assert main(["migrate"]) == 0, "again, where they are there"
    day = a_day()

    async def use() -> None:
        async with await Ledger.open(role) as ledger:
            assert (await ledger.record(*day.records)).new == len(day.records)
            assert (await ledger.sessions(patient_id=day.patient_id)) != ()
            await ledger.retain(Retention())
            await ledger.erase(patient_id=day.patient_id)
            assert (await ledger.sessions(patient_id=day.patient_id)) == ()
            await ledger.backup(folder / "backup")
        for statement in FORBIDDEN:
            with pytest.raises(LedgerError, match="may not"):
                await run(role, statement)

    asyncio.run(use())

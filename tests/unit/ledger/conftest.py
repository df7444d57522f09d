"""One real PostgreSQL a session, an empty database a test; and an embedded ledger beside it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from neurons.ledger import Ledger, new_id
from neurons.ledger.migrate import migrate
from tests.unit.ledger.postgres import Postgres


def _place() -> str:
    """Memory, where there is enough of it as a file system: a test of behaviour need not wait for a disk."""
    memory = Path("/dev/shm")
    return str(memory) if memory.is_dir() and shutil.disk_usage(memory).free > 1 << 30 else "/tmp"


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder with a short path."""
    with tempfile.TemporaryDirectory(prefix="l-", dir=_place()) as made:
        yield Path(made)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with tempfile.TemporaryDirectory(prefix="pg-", dir=_place()) as folder:
        server = Postgres(Path(folder))
        server.make()
        server.start()
        yield server
        server.stop()


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    """A server that the test may kill."""
    with tempfile.TemporaryDirectory(prefix="pg-", dir=_place()) as folder:
        server = Postgres(Path(folder))
        server.make()
        server.start(fsync=True)
        yield server
        server.stop()


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, folder: Path) -> str:
    """The address of an empty database, of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{folder / 'ledger.db'}"
    server: Postgres = request.getfixturevalue("postgres")
    return server.database(f"t{new_id().replace('-', '')}")


@pytest_asyncio.fixture
async def url(empty_url: str) -> str:
    """The address of a database with tables."""
    await migrate(empty_url)
    return empty_url


@pytest_asyncio.fixture
async def ledger(url: str) -> AsyncIterator[Ledger]:
    async with await Ledger.open(url) as opened:
        yield opened

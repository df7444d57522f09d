"""Who else is on the ledger's machine, on its wire or at its database: files for its owner alone, TLS where it is asked
for, and no statement that outlives who asked it.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import text

from neurons.ledger import Ledger, LedgerDown, LedgerError, QueuedLedger
from neurons.ledger.__main__ import main
from neurons.ledger.database import Database
from tests.unit.ledger.world import a_day

_SSL_REQUEST = (80877103).to_bytes(4, "big")


@pytest.fixture(autouse=True)
def _open_by_default() -> Iterator[None]:
    """A umask as most machines have it."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def readable_by_others(folder: Path) -> list[str]:
    """Files that somebody else may read, who may look into `folder` itself."""

    def is_closed(path: Path) -> bool:
        below = (each for each in (path, *path.parents) if folder in each.parents)
        return any(not each.stat().st_mode & 0o077 for each in below)

    return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and not is_closed(path)]


async def test_an_embedded_ledgers_files_are_its_owners_alone(folder: Path) -> None:
    url = f"sqlite:///{folder}/ledger.db"
    async with await QueuedLedger.open(url, folder=folder / "q") as queued:
        await queued.record(*a_day().records)
        assert await queued.drained(timeout_seconds=60)
        assert {"ledger.db", "ledger.db-wal", "ledger.db-shm"} <= set(os.listdir(folder))
        assert readable_by_others(folder) == []


async def test_a_file_of_an_earlier_release_is_closed_too(folder: Path) -> None:
    url = f"sqlite:///{folder}/ledger.db"
    async with await Ledger.open(url):
        pass
    (folder / "ledger.db").chmod(0o644)
    async with await Ledger.open(url):
        assert readable_by_others(folder) == []


def test_what_is_written_by_hand_is_its_owners_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"sqlite:///{folder}/ledger.db"

    async def fill() -> None:
        async with await Ledger.open(url) as ledger:
            await ledger.record(*a_day().records)

    asyncio.run(fill())
    for command in (
        ["dataset", "--twin", "dr-gurung", "--day", "2026-11-27", "--out", f"{folder}/day.jsonl"],
        ["backup", f"{folder}/backup"],
    ):  # fmt: skip
        assert main(["--url", url, *command]) == 0, capsys.readouterr().err
    assert {"day.jsonl", "backup"} <= {path.name for path in folder.iterdir()}
    assert readable_by_others(folder) == []


# --- TLS


class Said:
    """What came over a wire that is no database's."""

    def __init__(self) -> None:
        self.in_clear, self.in_tls = b"", b""


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """Return a certificate of its own for a host, and its key."""
    cert, key = folder / f"{name}.pem", folder / f"{name}.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}", "-keyout", key, "-out", cert],
        check=True, capture_output=True,
    )  # fmt: skip
    return cert, key


@asynccontextmanager
async def wire(context: ssl.SSLContext | None) -> AsyncIterator[tuple[int, Said]]:
    """A server that takes TLS, or says that it has none, and listens to what is said then."""
    said = Said()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            first = await reader.readexactly(8)
            if first[4:] != _SSL_REQUEST:
                said.in_clear += first + await reader.read(1024)
                return
            writer.write(b"N" if context is None else b"S")
            await writer.drain()
            if context is None:
                said.in_clear += await reader.read(1024)
            else:
                await writer.start_tls(context)
                said.in_tls += await reader.read(1024)
        except (OSError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], said


async def ask(port: int, query: str, *, host: str = "localhost") -> None:
    """Look for a ledger there; nobody answers as one."""
    with pytest.raises(LedgerDown):
        async with await Ledger.open(f"postgresql://maya:secret@{host}:{port}/l?{query}", timeout_seconds=5.0):
            pass


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
async def test_nothing_is_said_in_clear_to_a_database_that_has_no_tls(mode: str) -> None:
    async with wire(None) as (port, said):
        await ask(port, f"sslmode={mode}")
        assert said.in_clear == b""


async def test_only_a_certificate_that_is_trusted_and_the_hosts_is_spoken_to(folder: Path) -> None:
    own, other = certificate(folder, "localhost"), certificate(folder, "other.example")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*own)
    async with wire(context) as (port, said):
        await ask(port, "sslmode=verify-full")
        await ask(port, f"sslmode=verify-full&sslrootcert={other[0]}")
        await ask(port, f"sslmode=verify-full&sslrootcert={own[0]}", host="127.0.0.1")
        assert (said.in_clear, said.in_tls) == (b"", b"")
        await ask(port, f"sslmode=verify-full&sslrootcert={own[0]}")
        assert b"maya" in said.in_tls
        assert said.in_clear == b""


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:secret@h/l?sslmode=yes", "postgresql://u:secret@h/l?sslrootcert=/ca.pem",
        "postgresql://u:secret@h/l?sslmode=disable&sslmode=require", "sqlite:////tmp/l.db?sslmode=require",
        "postgresql://u:secret@h/l?sslmode=verify-full&sslrootcert=/nowhere/ca.pem",
    ],
)  # fmt: skip
def test_what_cant_be_kept_of_tls_is_refused_in_words(url: str) -> None:
    with pytest.raises(LedgerError, match="ssl") as refused:
        Database(url)
    assert "secret" not in str(refused.value)


# --- statements


async def test_the_database_itself_ends_what_takes_longer_than_anybody_waits(
    folder: Path, request: pytest.FixtureRequest, empty_url: str
) -> None:
    database = Database(empty_url, timeout_seconds=7.0)
    if database.embedded:
        await database.close()
        pytest.skip("an embedded one has no server that could go on")
    names = ("statement_timeout", "idle_in_transaction_session_timeout")
    try:
        async with database.long(seconds=3600.0, writes=True) as connection:
            said = [(await connection.execute(text(f"SHOW {name}"))).scalar_one() for name in names]
        assert said == ["3605s", "3605s"]
        async with database._connected() as connection:
            said = [(await connection.execute(text(f"SHOW {name}"))).scalar_one() for name in names]
        assert said == ["12s", "12s"], "and what took long has left nothing behind"
    finally:
        await database.close()

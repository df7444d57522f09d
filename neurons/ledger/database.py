"""One database: how it is opened, what its errors mean, transactions that read and that write."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, cast

from sqlalchemy import event, text
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from neurons.ledger.errors import LedgerDown, LedgerError, SchemaMismatch

HEAD: Final = "0003"
"""The migration that these tables need."""
_ERASING: Final = 0x6C656467
"""PostgreSQL's advisory lock: writers share it, an erasure has it alone."""
_BUSY_SECONDS: Final = 30.0
_STATEMENT_GRACE_SECONDS: Final = 5.0
"""The server itself ends a statement so long after this side gave up: one whose asker was killed runs no longer."""
_NO_RIGHT: Final = "42501"
"""PostgreSQL's insufficient_privilege."""
_TLS_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")


class Refused(LedgerError):  # noqa: N818 - said of the record
    """The database will never take this; trying again doesn't help."""


class Database:
    """Connections to one database. Nothing is connected before it is needed."""

    def __init__(self, url: str, *, timeout_seconds: float = 10.0, pool: int = 10) -> None:
        self.url, self._tls = _without_tls(parse_url(url))
        self.embedded = self.url.get_backend_name() == "sqlite"
        self._timeout = timeout_seconds
        arguments: dict[str, Any] = {"timeout": timeout_seconds}
        if not self.embedded:
            milliseconds = str(int((timeout_seconds + _STATEMENT_GRACE_SECONDS) * 1000))
            arguments["server_settings"] = {
                "application_name": "bettertherapy-ledger",
                "statement_timeout": milliseconds,
                "idle_in_transaction_session_timeout": milliseconds,
            }
            if self._tls is not None:
                arguments["ssl"] = self._tls
        self.engine = create_async_engine(
            self.url,
            pool_size=pool, max_overflow=0, pool_timeout=timeout_seconds, pool_pre_ping=not self.embedded,
            connect_args=arguments, hide_parameters=True,
        )  # fmt: skip
        self._failures: tuple[type[Exception], ...] = (SQLAlchemyError, OSError)
        if not self.embedded:
            # Of a connection that ends while it is made, the driver's own errors come as they are.
            driver = cast(Any, self.engine.dialect).loaded_dbapi.asyncpg
            self._failures += (driver.PostgresError, driver.InterfaceError)
        if self.embedded:
            self._own_alone()
            event.listen(self.engine.sync_engine, "connect", _embedded)
            event.listen(self.engine.sync_engine, "begin", _begin)
        self._checked = False

    def _own_alone(self) -> None:
        """Let nobody else on this machine read the file, and so what SQLite lays beside it, which gets its rights."""
        path = str(self.url.database)
        if path.startswith("file:"):
            return
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
            os.chmod(path, 0o600)
        except OSError:
            return  # another's file, or no folder for it: whoever connects is told

    async def close(self) -> None:
        """Give back all connections."""
        await self.engine.dispose()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """Read what is there at one moment. Raises LedgerDown, SchemaMismatch."""
        level = {} if self.embedded else {"isolation_level": "REPEATABLE READ"}
        async with self._connected() as connection:
            await connection.execution_options(**level)
            async with connection.begin():
                await self._check(connection)
                yield connection

    @asynccontextmanager
    async def writing(self, *, alone: bool = False) -> AsyncIterator[AsyncConnection]:
        """Write all or nothing; `alone`: while nobody else writes. Raises LedgerDown, SchemaMismatch, Refused."""
        async with self._connected() as connection:
            await connection.execution_options(writes=True)
            async with connection.begin():
                await self._check(connection)
                if alone:
                    await self.exclude(connection)
                elif not self.embedded:
                    await connection.execute(text(f"SELECT pg_advisory_xact_lock_shared({_ERASING})"))
                yield connection

    @asynccontextmanager
    async def _connected(self, *, seconds: float | None = None) -> AsyncIterator[AsyncConnection]:
        try:
            async with (
                asyncio.timeout(self._timeout if seconds is None else seconds),
                self.engine.connect() as connection,
            ):
                yield connection
        except TimeoutError as error:
            raise LedgerDown(f"{self.where} doesn't answer within {self._timeout:g} s. Is it up?") from error
        except self._failures as error:
            raise self._meaning(error) from error

    @asynccontextmanager
    async def long(self, *, seconds: float, writes: bool = False) -> AsyncIterator[AsyncConnection]:
        """Give a transaction for what takes longer: a migration, a backup, retention. No schema is checked."""
        level: dict[str, Any] = {"writes": True} if writes else {}
        if not self.embedded:
            level["isolation_level"] = "READ COMMITTED" if writes else "REPEATABLE READ"
        async with self._connected(seconds=seconds) as connection:
            await connection.execution_options(**level)
            async with connection.begin():
                if not self.embedded:
                    milliseconds = int((seconds + _STATEMENT_GRACE_SECONDS) * 1000)
                    for name in ("statement_timeout", "idle_in_transaction_session_timeout"):
                        await connection.execute(text(f"SET LOCAL {name} = {milliseconds}"))
                yield connection

    async def exclude(self, connection: AsyncConnection) -> None:
        """Keep all others from writing until this transaction ends."""
        if not self.embedded:
            await connection.execute(text(f"SELECT pg_advisory_xact_lock({_ERASING})"))

    async def outside(self, *statements: str) -> list[tuple[Any, ...]]:
        """Run statements that no transaction may hold; returns the rows of an embedded one's. Raises LedgerDown."""
        found: list[tuple[Any, ...]] = []
        async with self._connected(seconds=_BUSY_SECONDS * 10) as connection:
            if self.embedded:  # a transaction begins with the first statement, unless the driver itself is asked
                raw = await connection.get_raw_connection()
                for statement in statements:
                    cursor = await cast(Any, raw.driver_connection).execute(statement)
                    found += await cursor.fetchall()
                    await cursor.close()
            else:
                await connection.execution_options(isolation_level="AUTOCOMMIT")
                await connection.execute(text(f"SET statement_timeout = {int(_BUSY_SECONDS * 10_000)}"))
                for statement in statements:
                    await connection.execute(text(statement))
                await connection.execute(text("RESET statement_timeout"))
        return found

    async def _check(self, connection: AsyncConnection) -> None:
        if not self._checked:
            found = (await connection.execute(text("SELECT version_num FROM alembic_version"))).scalar_one_or_none()
            if found != HEAD:
                raise SchemaMismatch(
                    f"{self.where} has the tables of revision {found}, this release needs {HEAD}. "
                    "Run `python -m neurons.ledger migrate` of the newer of the two releases."
                )
            self._checked = True

    @property
    def where(self) -> str:
        """The database, without its password."""
        return f"the ledger at {self.url.render_as_string(hide_password=True)}"

    def _meaning(self, error: Exception) -> LedgerError:
        """Say in words what went wrong; the statement and its values are left out."""
        original = getattr(error, "orig", None) if isinstance(error, DBAPIError) else None
        state = str(getattr(original, "sqlstate", None) or "")
        said = str(original) if self.embedded and original is not None else ""
        if state.startswith("42P01") or "no such table" in said or "no such column" in said:
            self._checked = False
            return SchemaMismatch(f"{self.where} lacks tables. Run `python -m neurons.ledger migrate`.")
        if state == _NO_RIGHT:
            return LedgerDown(
                f"{self.where}: its role may not do that. Make tables by their owner's address (LEDGER_OWNER_URL), and "
                "let this one read and write them (docs/ledger.md)."
            )
        cause = getattr(original, "__cause__", None) or original
        if state[:2] in ("22", "23") or (
            self.embedded and isinstance(cause, sqlite3.IntegrityError | sqlite3.DataError)
        ):
            return Refused(f"{self.where} refuses a record ({state or type(cause).__name__}).")
        if isinstance(error, PoolTimeout):
            return LedgerDown(f"{self.where}: all connections are busy. Give it more, or look for what holds them.")
        told = said or state or type(original or error).__name__
        return LedgerDown(f"{self.where} doesn't work ({told}). Is it up, and are address and password right?")


def _without_tls(url: URL) -> tuple[URL, ssl.SSLContext | str | None]:
    """Return the address without what it says of TLS, and that: `sslmode` and `sslrootcert`, as libpq has them.

    Raises LedgerError for what can't be kept.
    """
    mode, root = url.query.get("sslmode"), url.query.get("sslrootcert")
    if mode is None and root is None:
        return url, None
    if url.get_backend_name() == "sqlite" or not isinstance(mode, str) or mode not in _TLS_MODES:
        raise LedgerError(f"the ledger's address needs sslmode={' or '.join(_TLS_MODES)}, once, and for postgresql://.")
    bare = url.difference_update_query(("sslmode", "sslrootcert"))
    if not mode.startswith("verify-"):
        return bare, mode
    try:
        context = ssl.create_default_context(cafile=str(root) if root is not None else None)
    except OSError:
        raise LedgerError(f"sslrootcert {root} of the ledger's address can't be read as certificates.") from None
    context.check_hostname = mode == "verify-full"
    return bare, context


def parse_url(url: str) -> URL:
    """Read an address. Raises LedgerError for one that is none of ours."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise LedgerError("the ledger's address is no URL: give postgresql://… or sqlite:////path/to/file.") from None
    match parsed.get_backend_name():
        case "postgresql" | "postgres":
            return parsed.set(drivername="postgresql+asyncpg")
        case "sqlite" if parsed.database and parsed.database != ":memory:":
            return parsed.set(drivername="sqlite+aiosqlite")
        case _:
            raise LedgerError("the ledger is kept by postgresql://… or sqlite:////path/to/file, nothing else.")


def _embedded(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves
    cursor = connection.cursor()
    for pragma in (
        f"busy_timeout={int(_BUSY_SECONDS * 1000)}", "journal_mode=WAL", "synchronous=FULL", "secure_delete=ON",
    ):  # fmt: skip
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

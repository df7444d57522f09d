"""The chain's storage: named items as the pallets have them, each version kept with the block that wrote it, in SQLite.

An item is `Module.Name` with parameters, as the SDK asks for it: `("SubtensorModule.Tempo", 1)`. Values are plain JSON.
A block's writes, its header and its extrinsics' receipts are one transaction: a process that is killed at any moment
leaves either the block or nothing of it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

JSON = Any
"""What `json` reads: null, booleans, numbers, strings, lists, dictionaries."""
Params = tuple[int | str, ...]
Key = tuple[str, str]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS storage (
  item TEXT NOT NULL, params TEXT NOT NULL, block INTEGER NOT NULL, value TEXT,
  PRIMARY KEY (item, params, block)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS blocks (
  number INTEGER PRIMARY KEY, hash TEXT NOT NULL UNIQUE, parent TEXT NOT NULL, body TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS receipts (hash TEXT PRIMARY KEY, block INTEGER NOT NULL, receipt TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS pool (
  position INTEGER PRIMARY KEY AUTOINCREMENT, hash TEXT NOT NULL UNIQUE, body TEXT NOT NULL
);
"""


def dumps(value: JSON) -> str:
    """Return the one JSON text of a value: sorted keys, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


class Database:
    """The file. One writer; not safe to share between threads."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        # WAL with full sync: what was answered "in block" is on the disk.
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=FULL")
        self._connection.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the file; what isn't committed is gone."""
        self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All that is written within is on the disk afterwards, or none of it."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def head(self) -> int | None:
        """Return the last block's number; None before the genesis block."""
        row = self._connection.execute("SELECT MAX(number) FROM blocks").fetchone()
        return None if row[0] is None else int(row[0])

    def read(self, key: Key, block: int) -> str | None:
        """Return an item's JSON as of a block; None when it isn't set."""
        row = self._connection.execute(
            "SELECT value FROM storage WHERE item=? AND params=? AND block<=? ORDER BY block DESC LIMIT 1",
            (*key, block),
        ).fetchone()
        return None if row is None else row[0]

    def scan(self, item: str, prefix: Params, block: int) -> list[tuple[str, str]]:
        """Return (parameters, value) as JSON of all entries whose parameters begin with `prefix`, as of a block."""
        start = dumps(list(prefix))[:-1] + ("," if prefix else "")
        rows = self._connection.execute(
            "SELECT params, value, MAX(block) FROM storage"
            " WHERE item=? AND params>=? AND params<? AND block<=? GROUP BY params",
            (item, start, start + "\U0010ffff", block),
        )
        return [(params, value) for params, value, _ in rows if value is not None]

    def write(self, key: Key, block: int, value: str | None) -> None:
        """Set an item as of a block; None takes it away."""
        self._connection.execute("INSERT OR REPLACE INTO storage VALUES (?, ?, ?, ?)", (*key, block, value))

    def forget(self, before: int) -> None:
        """Drop versions that were replaced at or before a block: reads of older blocks are not answered any more."""
        self._connection.execute(
            "DELETE FROM storage WHERE block < (SELECT MAX(later.block) FROM storage AS later"
            " WHERE later.item=storage.item AND later.params=storage.params AND later.block<=?)",
            (before,),
        )
        self._connection.execute("DELETE FROM storage WHERE value IS NULL AND block<=?", (before,))

    def add_block(self, number: int, block_hash: str, parent: str, body: JSON) -> None:
        """Append a block."""
        self._connection.execute("INSERT INTO blocks VALUES (?, ?, ?, ?)", (number, block_hash, parent, dumps(body)))

    def block(self, *, number: int | None = None, block_hash: str | None = None) -> tuple[int, str, str, JSON] | None:
        """Return (number, hash, parent's hash, body) of a block by its number or hash."""
        found = "SELECT number, hash, parent, body FROM blocks WHERE"
        if number is not None:
            row = self._connection.execute(f"{found} number=?", (number,)).fetchone()
        else:
            row = self._connection.execute(f"{found} hash=?", (block_hash,)).fetchone()
        return None if row is None else (row[0], row[1], row[2], json.loads(row[3]))

    def add_receipt(self, extrinsic_hash: str, block: int, receipt: JSON) -> None:
        """Keep what became of an extrinsic."""
        self._connection.execute("INSERT INTO receipts VALUES (?, ?, ?)", (extrinsic_hash, block, dumps(receipt)))

    def receipt(self, extrinsic_hash: str) -> JSON | None:
        """Return what became of an extrinsic; None while it is in no block."""
        row = self._connection.execute("SELECT receipt FROM receipts WHERE hash=?", (extrinsic_hash,)).fetchone()
        return None if row is None else json.loads(row[0])

    def pool(self) -> list[tuple[str, JSON]]:
        """Return (hash, extrinsic) of all that wait for a block, oldest first."""
        rows = self._connection.execute("SELECT hash, body FROM pool ORDER BY position")
        return [(extrinsic_hash, json.loads(body)) for extrinsic_hash, body in rows]

    def add_to_pool(self, extrinsic_hash: str, body: JSON) -> None:
        """Let an extrinsic wait; the same one twice waits once."""
        self._connection.execute("INSERT OR IGNORE INTO pool (hash, body) VALUES (?, ?)", (extrinsic_hash, dumps(body)))

    def take_from_pool(self, extrinsic_hash: str) -> None:
        """An extrinsic no longer waits."""
        self._connection.execute("DELETE FROM pool WHERE hash=?", (extrinsic_hash,))


class State:
    """Storage as of one block, with writes on top that are not in the database yet."""

    def __init__(self, database: Database, block: int) -> None:
        self.block = block
        self._database = database
        self.writes: dict[Key, str | None] = {}

    def get(self, item: str, *params: int | str, default: JSON = None) -> JSON:
        """Return an item's value, a copy of its own; `default` when it isn't set."""
        key = (item, dumps(list(params)))
        text = self.writes[key] if key in self.writes else self._database.read(key, self.block)
        return default if text is None else json.loads(text)

    def put(self, item: str, *params: int | str, value: JSON) -> None:
        """Set an item."""
        self.writes[item, dumps(list(params))] = dumps(value)

    def delete(self, item: str, *params: int | str) -> None:
        """Take an item away."""
        self.writes[item, dumps(list(params))] = None

    def scan(self, item: str, *prefix: int | str) -> list[tuple[Params, JSON]]:
        """Return (the parameters after `prefix`, value) of all entries, in the order of their parameters."""
        found: dict[str, str | None] = dict(self._database.scan(item, prefix, self.block))
        found |= {
            params: text
            for (name, params), text in self.writes.items()
            if name == item and json.loads(params)[: len(prefix)] == list(prefix)
        }
        entries = [
            (tuple(json.loads(params)[len(prefix) :]), json.loads(text))
            for params, text in found.items()
            if text is not None
        ]
        return sorted(entries, key=lambda entry: tuple((isinstance(part, str), part) for part in entry[0]))

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Undo what was written within when it raises, as the chain does with an extrinsic that fails."""
        before = dict(self.writes)
        try:
            yield
        except BaseException:
            self.writes = before
            raise

    def flush(self, block: int) -> None:
        """Write to the database, within its transaction, what this block changed."""
        for key, text in self.writes.items():
            self._database.write(key, block, text)

"""A change of an object, and what it may wake."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bettertherapy_api import names
from twin_operator.engine.resources import Key
from twin_operator.engine.store import Entry
from twin_operator.kinds.resources import MINER_POOL
from twin_operator.kinds.world import World


@dataclass(frozen=True, slots=True)
class Route:
    """What a pool publishes is to be looked at again."""

    namespace: str
    pool: str
    twin: str | None
    """UID of the twin that it is about; None: all of them."""


@dataclass(frozen=True, slots=True)
class Soon:
    """Something changed that the status of a pool counts, or that a validator hands on: within a second will do."""

    key: Key


Woken = Key | Route | Soon


@dataclass(frozen=True)
class Change:
    """An object before and after (None: absent)."""

    world: World
    old: Entry | None
    new: Entry | None

    @property
    def entry(self) -> Entry:
        """Return the newest version that there is."""
        found = self.new or self.old
        assert found is not None  # noqa: S101  # one of them is always there
        return found

    @property
    def key(self) -> Key:
        """Return which object it is."""
        return self.entry.key

    @property
    def versions(self) -> list[Entry]:
        """Return both versions, as far as they exist."""
        return [each for each in (self.old, self.new) if each is not None]


def label_of(change: Change, label: str) -> str | None:
    """Return the value of a label."""
    return (change.entry.manifest["metadata"].get("labels") or {}).get(label)


def pool_key(change: Change) -> Key | None:
    """Return the pool in the object's label."""
    name = label_of(change, names.LABEL_POOL)
    return Key(MINER_POOL.kind, change.key.namespace, name) if name is not None else None


def status_of(entry: Entry | None) -> dict[str, Any]:
    """Return the status of an object as it is stored; empty where it is absent or odd."""
    status = entry.manifest.get("status") if entry is not None else None
    return status if isinstance(status, dict) else {}

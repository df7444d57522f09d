"""The entries of several objects' maps, merged by key: each parsed once, and the last good one kept when one is bad."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")

Parse = Callable[[str, Any], T]
"""Make the value of one key; raises ValueError."""
Refuse = Callable[[str, str, ValueError], None]
"""Told of each bad entry: the object's name, the key, and why."""


@dataclass(frozen=True, slots=True)
class _Entry(Generic[T]):
    raw: Any
    """As it was decoded: compared with the next one, so that what didn't change isn't parsed again."""
    value: T | None
    """None for a bad entry of which there never was a good one."""


class Entries(Generic[T]):
    """One section of a pool's slices, for example their twins. A key may be in two objects while it moves."""

    def __init__(self, parse: Parse[T], refuse: Refuse) -> None:
        self._parse, self._refuse = parse, refuse
        self._objects: dict[str, dict[str, _Entry[T]]] = {}
        self._holders: dict[str, list[str]] = {}
        """Names of the objects that have the key, the one that changed it last at the end: that one counts."""
        self.merged: dict[str, T] = {}

    def put(self, name: str, raw: Any) -> set[str]:
        """Take the map of object `name` (None: it has none) and return the keys whose value changed."""
        before = self._objects.get(name, {})
        if raw is None:
            raw = {}
        if not isinstance(raw, dict):
            self._refuse(name, "", ValueError("it is no map"))
            return set()
        after: dict[str, _Entry[T]] = {}
        fresh: list[str] = []
        for key, value in raw.items():
            old = before.get(key)
            if old is not None and same(old.raw, value):
                after[key] = old
                continue
            fresh.append(key)
            good = self.merged.get(key) if old is None else old.value
            try:
                good = self._parse(key, value)
            except ValueError as error:
                self._refuse(name, key, error)
            after[key] = _Entry(value, good)
        gone = before.keys() - after.keys()
        if after:
            self._objects[name] = after
        else:
            self._objects.pop(name, None)
        for key in gone:
            self._holders[key].remove(name)
        for key in fresh:
            holders = self._holders.setdefault(key, [])
            if key in before:
                holders.remove(name)
            holders.append(name)
        return {key for key in (*fresh, *gone) if self._resolve(key)}

    def _resolve(self, key: str) -> bool:
        holders = self._holders[key]
        if not holders:
            del self._holders[key]
        found = (self._objects[name][key].value for name in reversed(holders))
        value = next((value for value in found if value is not None), None)
        if value is None:
            return self.merged.pop(key, None) is not None
        if self.merged.get(key) == value:
            return False
        self.merged[key] = value
        return True


def same(one: Any, other: Any) -> bool:
    """Tell whether two decoded documents are equal; those nested too deeply to compare are not."""
    try:
        return bool(one == other)
    except RecursionError:
        return False

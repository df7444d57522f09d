"""Nepali names and places in both scripts, and which names are held out when the recognisers are measured."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Final

_DATA: Final = resources.files("neurons.privacy") / "data"


@dataclass(frozen=True, slots=True)
class Entry:
    """A name as the list has it."""

    kind: str
    """`given` or `surname`."""
    roman: str
    devanagari: str | None


@dataclass(frozen=True)
class Gazetteer:
    """Words that are names. Romanised ones are in lower case."""

    given: frozenset[str]
    surnames: frozenset[str]
    places: frozenset[str]

    @property
    def names(self) -> frozenset[str]:
        """Given names and surnames."""
        return self.given | self.surnames


def is_held_out(name: str) -> bool:
    """Tell whether a name belongs to the half that is measured with: that of an odd first byte of its SHA-256."""
    return hashlib.sha256(name.lower().encode()).digest()[0] % 2 == 1


def entries() -> Iterator[Entry]:
    """Yield every name of the list."""
    for line in (_DATA / "nepali_names.txt").read_text(encoding="utf-8").splitlines():
        kind, roman, *devanagari = line.split(" ")
        yield Entry(kind, roman, devanagari[0] if devanagari else None)


@cache
def gazetteer(*, without_held_out: bool = False) -> Gazetteer:
    """Return the lists; without the held-out half of the names where the recognisers are measured with that."""
    words: dict[str, set[str]] = {"given": set(), "surname": set()}
    for entry in entries():
        if not (without_held_out and is_held_out(entry.roman)):
            words[entry.kind].update({entry.roman.lower()} | ({entry.devanagari} if entry.devanagari else set()))
    places = (_DATA / "nepali_places.txt").read_text(encoding="utf-8").splitlines()
    return Gazetteer(frozenset(words["given"]), frozenset(words["surname"]), frozenset(each.lower() for each in places))

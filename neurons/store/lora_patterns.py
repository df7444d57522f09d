"""rank_pattern and alpha_pattern: tables of regular expressions, of which the first that fits a module's name counts.

They come from a store, and the engine tries them as well. So what is taken of them can be tried in a bounded time:
so many keys, expressions that leave few ways of fitting a name, and a time for all of an adapter's modules.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from math import prod
from typing import Final

from neurons.store.errors import AdapterInvalid

MOST_KEYS: Final = 1024
"""Of one table. A model of 405 billion parameters has 882 linear layers, and some trainings name each of them."""
MOST_EXPRESSIONS: Final = 64
"""Of those, that are more than a module's name."""
MOST_CHARACTERS: Final = 300
MOST_WAYS: Final = 256
"""Of choosing among an expression's alternatives and optional parts: each may be tried on every name."""
MOST_REPEATS: Final = 2
SECONDS: Final = 5.0
"""Of a processor, to try one table on all modules of an adapter. Those of PEFT's own trainings take far below one."""
_PLAIN: Final = re.compile(r"[\w.-]+")
_REPEATED_GROUP: Final = re.compile(r"\)\s*[*+?{]|\(\?[^:]|\\\d")
_REPEATS: Final = re.compile(r"[*+{]")
_PIECE: Final = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\(\?:|.", re.DOTALL)
"""An escape, a set of characters, the beginning of a group, or one character."""


class Patterns:
    """One table. A pattern fits where it matches the end of a name, from a dot on: PEFT's rule and vLLM's."""

    def __init__(self, table: Mapping[str, float], *, name: str) -> None:
        """`table`: expressions in which `wrong_key` finds nothing. `name`: what errors call it."""
        self._name = name
        self._values = tuple(table.values())
        self._plain: dict[int, list[tuple[int, re.Pattern[str]]]] = {}
        """By the length of what they fit, with their places in the table."""
        self._expressions: list[tuple[int, re.Pattern[str]]] = []
        self._seconds = 0.0
        for place, key in enumerate(table):
            if _PLAIN.fullmatch(key):
                self._plain.setdefault(len(key), []).append((place, re.compile(key)))
            else:
                self._expressions.append((place, re.compile(rf"(.*\.)?({key})$")))

    @property
    def highest(self) -> float:
        """The highest value, of what fits nothing too; 0 of an empty table."""
        return max(self._values, default=0)

    def value_for(self, module: str) -> float | None:
        """Return the value of the first key that fits; None where none does. Raises AdapterInvalid."""
        if not self._values:
            return None
        began = time.thread_time()
        place = self._first(module)
        self._seconds += time.thread_time() - began
        if self._seconds > SECONDS:
            raise AdapterInvalid(
                f"{self._name} takes more than {SECONDS:g} s to be held against the modules' names: write the names "
                "themselves"
            )
        return None if place is None else self._values[place]

    def _first(self, module: str) -> int | None:
        places = len(self._values)
        first = places
        begin = 0
        while True:
            for place, pattern in self._plain.get(len(module) - begin, ()):
                if place >= first:
                    break
                if pattern.fullmatch(module, begin):
                    first = place
            begin = module.find(".", begin) + 1
            if not begin:
                break
        for place, pattern in self._expressions:
            if place >= first:
                break
            if pattern.match(module):
                first = place
        return first if first < places else None


def wrong_size(table: Mapping[str, object]) -> str | None:
    """Say how a table is too large to be taken, as the end of a sentence that begins with its name."""
    if len(table) > MOST_KEYS:
        return f"has {len(table)} keys, and at most {MOST_KEYS} are taken"
    if (longest := max(map(len, table), default=0)) > MOST_CHARACTERS:
        return f"has a key of {longest} characters, too costly an expression: at most {MOST_CHARACTERS} are taken"
    expressions = sum(_PLAIN.fullmatch(key) is None for key in table)
    if expressions > MOST_EXPRESSIONS:
        return f"has {expressions} keys that are expressions, and at most {MOST_EXPRESSIONS} are taken"
    return None


def wrong_key(key: str) -> str | None:
    """Say why a key isn't taken, as the end of a sentence."""
    if _PLAIN.fullmatch(key):
        return None
    if _REPEATED_GROUP.search(key) or len(_REPEATS.findall(key)) > MOST_REPEATS or _ways(key) > MOST_WAYS:
        return "is too costly an expression"
    try:
        re.compile(rf"(.*\.)?({key})$")
    except (re.error, RecursionError, OverflowError):
        return "is no expression that can be read"
    return None


def _ways(key: str) -> int:
    """Return in how many ways an expression's alternatives and optional parts can be chosen, at most."""
    ways = 1
    open_groups = [1]
    for piece in _PIECE.findall(key):
        if piece in ("(", "(?:"):
            open_groups.append(1)
        elif piece == "|":
            open_groups[-1] += 1
        elif piece == ")" and len(open_groups) > 1:
            ways *= open_groups.pop()
        elif piece == "?":
            ways *= 2
    return ways * prod(open_groups)

"""Does a live object already say what we want? Fields that we don't state are not ours and are not compared.

What a list is (elements told apart by keys, a set, or one value in whole), which maps count in whole, what is a
quantity and what the API server fills in is Kubernetes' own schema's to say: `api_structure.json`, made by
`operator/api_structure.py`. A list of which that says nothing is compared in whole, as the API server merges it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from importlib.resources import files
from typing import Any, Final

_QUANTITY: Final = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+|[KMGTPE]i|[numkMGTPE])?")
_SUFFIXES: Final = {
    **{suffix: Decimal(1024) ** power for power, suffix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), start=1)},
    **{suffix: Decimal(1000) ** power for power, suffix in enumerate(("k", "M", "G", "T", "P", "E"), start=1)},
    "m": Decimal("1e-3"), "u": Decimal("1e-6"), "n": Decimal("1e-9"),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Field:
    """What the API's schema says of one field."""

    type: str | None = None
    """Type of the value, of a list's elements or of a map's values, where more is to be said of it."""
    keys: tuple[str, ...] = ()
    """By what the elements of a list are told apart; none: the list is one value."""
    set: bool = False
    """Whether the list is a set of plain values."""
    map: bool = False
    """Whether the value maps names to values."""
    atomic: bool = False
    """Whether the value is written by one manager in whole."""
    quantity: bool = False
    default: Any = None
    """What the API server fills in; None: nothing, or we don't know."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Where a live object says otherwise than is wanted, and what: two that say the same of the same place are equal.

    Its text is `spec.replicas: 2 instead of 3`.
    """

    path: str
    wanted: Any
    live: Any

    def __str__(self) -> str:
        return f"{self.path or 'object'}: {_shown(self.live)} instead of {_shown(self.wanted)}"


_UNKNOWN: Final = Field()
Fields = Mapping[str, Field]


@cache  # the one table, for the life of the process
def _structure() -> tuple[frozenset[str], Mapping[str, Fields]]:
    table = json.loads(files(__package__).joinpath("api_structure.json").read_text())
    types = {
        name: {field: Field(**{**about, "keys": tuple(about.get("keys", ()))}) for field, about in fields.items()}
        for name, fields in table["types"].items()
    }
    return frozenset(table["kinds"]), types


def first_difference(wanted: Mapping[str, Any], live: Mapping[str, Any]) -> str | None:
    """Return where a live object differs from what `wanted` states, as `spec.replicas: 2 instead of 3`, or None."""
    found = next(differences(wanted, live), None)
    return None if found is None else str(found)


def differences(wanted: Mapping[str, Any], live: Mapping[str, Any]) -> Iterator[Difference]:
    """Yield all places where a live object differs from what `wanted` states."""
    kinds, _ = _structure()
    kind = wanted.get("kind")
    return _differences_at(wanted, live, Field(type=kind if kind in kinds else None), path="", whole=False)


def _differences_at(wanted: Any, live: Any, field: Field, *, path: str, whole: bool) -> Iterator[Difference]:
    other = Difference(path=path, wanted=wanted, live=live)
    if isinstance(wanted, Mapping):
        if isinstance(live, Mapping):
            yield from _map_differences(wanted, live, field, path=path, whole=whole or field.atomic)
        elif wanted or live is not None:  # the API server drops empty maps here and there
            yield other
    elif isinstance(wanted, Sequence) and not isinstance(wanted, str):
        if isinstance(live, Sequence) and not isinstance(live, str):
            yield from _list_differences(wanted, live, field, path=path, whole=whole)
        elif wanted or live is not None:
            yield other
    elif not (wanted == live or (live is None and wanted == "") or (field.quantity and _same_quantity(wanted, live))):
        yield other


def _map_differences(
    wanted: Mapping[str, Any], live: Mapping[str, Any], field: Field, *, path: str, whole: bool
) -> Iterator[Difference]:
    for key, value in wanted.items():
        yield from _differences_at(value, live.get(key), _inner(field, key), path=_below(path, key), whole=whole)
    if whole:
        for key in sorted(live.keys() - wanted.keys()):
            if live[key] is not None and live[key] != _inner(field, key).default:
                yield Difference(path=_below(path, key), wanted=None, live=live[key])


def _inner(field: Field, key: str) -> Field:
    if field.map:
        return Field(type=field.type, quantity=field.quantity)
    _, types = _structure()
    return types.get(field.type or "", {}).get(key, _UNKNOWN)


def _list_differences(
    wanted: Sequence[Any], live: Sequence[Any], field: Field, *, path: str, whole: bool
) -> Iterator[Difference]:
    element = Field(type=field.type, quantity=field.quantity)
    if field.set and not whole:
        if any(item not in live for item in wanted):
            yield Difference(path=path, wanted=wanted, live=live)
        return
    if (whole or not field.keys) and len(wanted) != len(live):
        yield Difference(path=path, wanted=wanted, live=live)
        return
    if not field.keys:
        pairs = [(f"{path}[{index}]", item, live[index], True) for index, item in enumerate(wanted)]
    else:
        found = {_key(item, field): item for item in live}
        pairs = [(f"{path}[{_shown_key(item, field)}]", item, found.get(_key(item, field)), whole) for item in wanted]
    for inner, item, other, in_whole in pairs:
        yield from _differences_at(item, other, element, path=inner, whole=in_whole)


def _key(item: Any, field: Field) -> tuple[Any, ...] | None:
    """Return what tells an element from the others; a part that isn't stated is what the API server fills in."""
    if not isinstance(item, Mapping):
        return None
    return tuple(item.get(key, _inner(field, key).default) for key in field.keys)


def _shown_key(item: Any, field: Field) -> str:
    return "/".join(map(str, _key(item, field) or ()))


def _below(path: str, key: str) -> str:
    return f"{path}.{key}" if path else str(key)


def _same_quantity(one: Any, other: Any) -> bool:
    first, second = quantity(one), quantity(other)
    return first is not None and first == second


def quantity(value: Any) -> Decimal | None:
    """Return what a quantity such as 64Mi amounts to; None for what is none, or too large or too small."""
    match = _QUANTITY.fullmatch(str(value))
    if match is None:
        return None
    number, suffix = match.groups()
    try:
        if suffix is None or (suffix[0] in "eE" and suffix not in _SUFFIXES):
            return Decimal(number + (suffix or ""))
        return Decimal(number) * _SUFFIXES[suffix]
    except ArithmeticError:
        return None  # too large or too small to be reckoned with: it is compared as text


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."

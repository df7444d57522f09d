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
    kinds, _ = _structure()
    kind = wanted.get("kind")
    return _difference_at(wanted, live, Field(type=kind if kind in kinds else None), path="", whole=False)


def _difference_at(wanted: Any, live: Any, field: Field, *, path: str, whole: bool) -> str | None:
    if isinstance(wanted, Mapping):
        if not isinstance(live, Mapping):
            # The API server drops empty maps here and there.
            return None if not wanted and live is None else _difference(path, wanted, live)
        return _map_difference(wanted, live, field, path=path, whole=whole or field.atomic)
    if isinstance(wanted, Sequence) and not isinstance(wanted, str):
        if not isinstance(live, Sequence) or isinstance(live, str):
            return None if not wanted and live is None else _difference(path, wanted, live)
        return _list_difference(wanted, live, field, path=path, whole=whole)
    same = wanted == live or (live is None and wanted == "") or (field.quantity and _same_quantity(wanted, live))
    return None if same else _difference(path, wanted, live)


def _map_difference(
    wanted: Mapping[str, Any], live: Mapping[str, Any], field: Field, *, path: str, whole: bool
) -> str | None:
    for key, value in wanted.items():
        inner = _inner(field, key)
        if (found := _difference_at(value, live.get(key), inner, path=_below(path, key), whole=whole)) is not None:
            return found
    if whole:
        for key in sorted(live.keys() - wanted.keys()):
            if live[key] is not None and live[key] != _inner(field, key).default:
                return _difference(_below(path, key), None, live[key])
    return None


def _inner(field: Field, key: str) -> Field:
    if field.map:
        return Field(type=field.type, quantity=field.quantity)
    _, types = _structure()
    return types.get(field.type or "", {}).get(key, _UNKNOWN)


def _list_difference(wanted: Sequence[Any], live: Sequence[Any], field: Field, *, path: str, whole: bool) -> str | None:
    element = Field(type=field.type, quantity=field.quantity)
    if field.set and not whole:
        missing = next((item for item in wanted if item not in live), None)
        return None if missing is None else _difference(path, wanted, live)
    if not field.keys:
        if len(wanted) != len(live):
            return _difference(path, wanted, live)
        pairs = [(f"{path}[{index}]", item, live[index], True) for index, item in enumerate(wanted)]
    else:
        if whole and len(wanted) != len(live):
            return _difference(path, wanted, live)
        found = {_key(item, field): item for item in live}
        pairs = [(f"{path}[{_shown_key(item, field)}]", item, found.get(_key(item, field)), whole) for item in wanted]
    return next(_differences(pairs, element), None)


def _differences(pairs: Sequence[tuple[str, Any, Any, bool]], element: Field) -> Iterator[str]:
    for path, wanted, live, whole in pairs:
        if (found := _difference_at(wanted, live, element, path=path, whole=whole)) is not None:
            yield found


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
    first, second = _quantity(one), _quantity(other)
    return first is not None and first == second


def _quantity(value: Any) -> Decimal | None:
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


def _difference(path: str, wanted: Any, live: Any) -> str:
    return f"{path or 'object'}: {_shown(live)} instead of {_shown(wanted)}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."

"""Does a live object already say what we want? Fields that we don't state are not ours and are not compared."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

_MERGE_KEYS: Final = ("name", "mountPath", "containerPort", "type", "uid")
"""The keys by which the API server tells the elements of its list maps apart; the first that all elements have."""
_WHOLE_FIELDS: Final = frozenset({"selector", "podSelector", "namespaceSelector", "nodeSelector", "matchLabels"})
"""Maps that mean something else with one entry more: an entry of somebody else is a difference."""
_QUANTITY_FIELDS: Final = frozenset({"requests", "limits", "sizeLimit"})
_QUANTITY: Final = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+|[KMGTPE]i|[numkMGTPE])?")
_SUFFIXES: Final = {
    **{suffix: Decimal(1024) ** power for power, suffix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), start=1)},
    **{suffix: Decimal(1000) ** power for power, suffix in enumerate(("k", "M", "G", "T", "P", "E"), start=1)},
    "m": Decimal("1e-3"), "u": Decimal("1e-6"), "n": Decimal("1e-9"),
}  # fmt: skip


def first_difference(wanted: Any, live: Any, path: str = "") -> str | None:  # noqa: PLR0911  # one per case
    """Return where `live` differs from what `wanted` states, as `spec.template…: 2 instead of 3`, or None."""
    if isinstance(wanted, Mapping):
        if not isinstance(live, Mapping):
            # The API server drops empty maps here and there.
            return None if not wanted and live is None else _difference(path, wanted, live)
        if path.rsplit(".", 1)[-1] in _WHOLE_FIELDS and (more := sorted(set(live) - set(wanted))):
            return _difference(f"{path}.{more[0]}", None, live[more[0]])
        for key, value in wanted.items():
            if (found := first_difference(value, live.get(key), f"{path}.{key}" if path else str(key))) is not None:
                return found
        return None
    if isinstance(wanted, Sequence) and not isinstance(wanted, str):
        if not isinstance(live, Sequence) or isinstance(live, str):
            return None if not wanted and live is None else _difference(path, wanted, live)
        return _list_difference(wanted, live, path)
    if wanted == live or (_speaks_of_quantity(path) and _same_quantity(wanted, live)):
        return None
    return _difference(path, wanted, live)


def _list_difference(wanted: Sequence[Any], live: Sequence[Any], path: str) -> str | None:
    merge_key = next((key for key in _MERGE_KEYS if wanted and all(_has(item, key) for item in wanted)), None)
    if merge_key is None:
        if len(wanted) != len(live):
            return _difference(path, wanted, live)
        pairs = [(f"{path}[{index}]", item, live[index]) for index, item in enumerate(wanted)]
    else:
        by_key = {item[merge_key]: item for item in live if _has(item, merge_key)}
        pairs = [(f"{path}[{item[merge_key]}]", item, by_key.get(item[merge_key])) for item in wanted]
    return next((found for where, item, other in pairs if (found := first_difference(item, other, where))), None)


def _has(item: Any, key: str) -> bool:
    return isinstance(item, Mapping) and key in item


def _speaks_of_quantity(path: str) -> bool:
    parts = re.split(r"[.\[]", path)
    return not _QUANTITY_FIELDS.isdisjoint(parts)


def _same_quantity(one: Any, other: Any) -> bool:
    first, second = _quantity(one), _quantity(other)
    return first is not None and first == second


def _quantity(value: Any) -> Decimal | None:
    match = _QUANTITY.fullmatch(str(value))
    if match is None:
        return None
    number, suffix = match.groups()
    if suffix is None or (suffix[0] in "eE" and suffix not in _SUFFIXES):
        return Decimal(number + (suffix or ""))
    return Decimal(number) * _SUFFIXES[suffix]


def _difference(path: str, wanted: Any, live: Any) -> str:
    return f"{path or 'object'}: {_shown(live)} instead of {_shown(wanted)}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."

"""Counts objects by their conditions, for Prometheus: how many twins are Ready, how many runs failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator
from typing import Any, Final

from twin_operator.engine import metrics
from twin_operator.engine.store import Entry

_STATUSES: Final = frozenset({"True", "False", "Unknown"})
_Labels = tuple[str, str, str, str]
"""Namespace, kind, condition, status."""
_counts: Counter[_Labels] = Counter()


def count_conditions(old: Entry | None, new: Entry | None, *, of: Container[str]) -> None:
    """Take an object's change; of kinds that aren't in `of`, nothing is counted."""
    changed = new or old
    if changed is None or changed.key.kind not in of:
        return
    before, after = set(_conditions(old)), set(_conditions(new))
    for labels in after - before:
        _counts[labels] += 1
        metrics.CONDITIONS.labels(*labels).set(_counts[labels])
    for labels in before - after:
        _counts[labels] -= 1
        if _counts[labels] > 0:
            metrics.CONDITIONS.labels(*labels).set(_counts[labels])
        else:
            del _counts[labels]
            metrics.CONDITIONS.remove(*labels)


def _conditions(entry: Entry | None) -> Iterator[_Labels]:
    if entry is None:
        return
    status: Any = entry.manifest.get("status")
    conditions: Any = status.get("conditions") if isinstance(status, dict) else None
    for condition in conditions if isinstance(conditions, list) else ():
        if isinstance(condition, dict) and condition.get("status") in _STATUSES and condition.get("type"):
            yield entry.key.namespace, entry.key.kind, str(condition["type"]), condition["status"]

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


class ConditionCounts:
    """How many objects of a store have which conditions, kept by their changes alone."""

    def __init__(self, kinds: Container[str]) -> None:
        """Of other `kinds` nothing is counted."""
        self._kinds = kinds
        self._counts: Counter[_Labels] = Counter()

    def changed(self, old: Entry | None, new: Entry | None) -> None:
        """Take an object's change."""
        changed = new or old
        if changed is None or changed.key.kind not in self._kinds:
            return
        before, after = set(_conditions(old)), set(_conditions(new))
        for labels in after - before:
            self._counts[labels] += 1
            metrics.CONDITIONS.labels(*labels).set(self._counts[labels])
        for labels in before - after:
            self._counts[labels] -= 1
            if self._counts[labels] > 0:
                metrics.CONDITIONS.labels(*labels).set(self._counts[labels])
            else:
                del self._counts[labels]
                metrics.CONDITIONS.remove(*labels)


def _conditions(entry: Entry | None) -> Iterator[_Labels]:
    if entry is None:
        return
    status: Any = entry.manifest.get("status")
    conditions: Any = status.get("conditions") if isinstance(status, dict) else None
    for condition in conditions if isinstance(conditions, list) else ():
        if isinstance(condition, dict) and condition.get("status") in _STATUSES and condition.get("type"):
            yield entry.key.namespace, entry.key.kind, str(condition["type"]), condition["status"]

"""Prometheus sees how many objects have which conditions, by their changes alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.unit.operator.played import Played, without_server_fields
from tests.unit.operator.samples import pool_object
from twin_operator.engine.condition_counts import ConditionCounts
from twin_operator.engine.metrics import REGISTRY
from twin_operator.engine.resources import Key
from twin_operator.engine.store import Entry
from twin_operator.kinds.resources import MINER_POOL

KINDS = frozenset({"DoctorTwin"})


def entry(name: str, *, kind: str = "DoctorTwin", status: Any = None, **conditions: str) -> Entry:
    made = [{"type": each, "status": said} for each, said in conditions.items()]
    manifest: Mapping[str, Any] = {"status": {"conditions": made} if status is None else status}
    return Entry(Key(kind, "counted", name), dict(manifest), None)


def counted(condition: str, status: str) -> float | None:
    labels = {"namespace": "counted", "kind": "DoctorTwin", "condition": condition, "status": status}
    return REGISTRY.get_sample_value("bettertherapy_operator_conditions", labels)


def test_objects_are_counted_by_condition_and_status_as_they_come_change_and_go() -> None:
    counts = ConditionCounts(KINDS)
    first, second = entry("a", Ready="True", Serving="True"), entry("b", Ready="True")
    for each in (first, second):
        counts.changed(None, each)
    assert (counted("Ready", "True"), counted("Serving", "True")) == (2, 1)
    worse = entry("a", Ready="False", Serving="True")
    counts.changed(first, worse)
    assert (counted("Ready", "True"), counted("Ready", "False"), counted("Serving", "True")) == (1, 1, 1)
    for each in (worse, second):
        counts.changed(each, None)
    assert [counted(*each) for each in (("Ready", "True"), ("Ready", "False"), ("Serving", "True"))] == [None] * 3


def test_what_is_no_condition_or_of_another_kind_is_not_counted() -> None:
    counts = ConditionCounts(KINDS)
    odd: list[Any] = [
        "x",
        {"conditions": "x"},
        {"conditions": [None, {"type": "Ready"}, {"type": "", "status": "True"}]},
    ]
    odd.append({"conditions": [{"type": "Ready", "status": "Perhaps"}]})
    for status in odd:
        counts.changed(None, entry("a", status=status))
    counts.changed(None, entry("a", kind="Pod", Ready="True"))
    counts.changed(None, None)
    assert counted("Ready", "True") is None


async def test_the_operators_own_store_is_counted() -> None:
    # Processes of other tests write the gauge too, and what they wrote last stays: this namespace is nobody else's.
    namespace = "counted-by-its-operator"

    def ready() -> list[float | None]:
        labels = {"namespace": namespace, "kind": MINER_POOL.kind, "condition": "Ready"}
        return [
            REGISTRY.get_sample_value("bettertherapy_operator_conditions", {**labels, "status": status})
            for status in ("True", "False", "Unknown")
        ]

    played = Played()
    pool = without_server_fields(pool_object())
    pool["metadata"]["namespace"] = namespace
    played.api.put(pool)
    assert ready() == [None, None, None]
    await played.lead()
    await played.settle()
    [(key, live)] = ((key, each) for key, each in played.api.objects.items() if key.kind == MINER_POOL.kind)
    status = played.condition("Ready", live)[0]
    assert ready() == [1.0 if each == status else None for each in ("True", "False", "Unknown")]
    played.api.drop(key)
    assert ready() == [None, None, None]

"""Prometheus sees how many objects have which conditions, by their changes alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twin_operator.engine.condition_counts import count_conditions
from twin_operator.engine.metrics import REGISTRY
from twin_operator.engine.resources import Key
from twin_operator.engine.store import Entry

KINDS = frozenset({"DoctorTwin"})


def entry(name: str, *, kind: str = "DoctorTwin", status: Any = None, **conditions: str) -> Entry:
    made = [{"type": each, "status": said} for each, said in conditions.items()]
    manifest: Mapping[str, Any] = {"status": {"conditions": made} if status is None else status}
    return Entry(Key(kind, "counted", name), dict(manifest), None)


def counted(condition: str, status: str) -> float | None:
    labels = {"namespace": "counted", "kind": "DoctorTwin", "condition": condition, "status": status}
    return REGISTRY.get_sample_value("bettertherapy_operator_conditions", labels)


def test_objects_are_counted_by_condition_and_status_as_they_come_change_and_go() -> None:
    first, second = entry("a", Ready="True", Serving="True"), entry("b", Ready="True")
    for each in (first, second):
        count_conditions(None, each, of=KINDS)
    assert (counted("Ready", "True"), counted("Serving", "True")) == (2, 1)
    worse = entry("a", Ready="False", Serving="True")
    count_conditions(first, worse, of=KINDS)
    assert (counted("Ready", "True"), counted("Ready", "False"), counted("Serving", "True")) == (1, 1, 1)
    for each in (worse, second):
        count_conditions(each, None, of=KINDS)
    assert [counted(*each) for each in (("Ready", "True"), ("Ready", "False"), ("Serving", "True"))] == [None] * 3


def test_what_is_no_condition_or_of_another_kind_is_not_counted() -> None:
    odd: list[Any] = [
        "x",
        {"conditions": "x"},
        {"conditions": [None, {"type": "Ready"}, {"type": "", "status": "True"}]},
    ]
    odd.append({"conditions": [{"type": "Ready", "status": "Perhaps"}]})
    for status in odd:
        count_conditions(None, entry("a", status=status), of=KINDS)
    count_conditions(None, entry("a", kind="Pod", Ready="True"), of=KINDS)
    count_conditions(None, None, of=KINDS)
    assert counted("Ready", "True") is None

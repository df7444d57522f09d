"""What no examination can say: one critical item many times over, or without a name."""

from __future__ import annotations

import pytest

from bettertherapy_api.examination import Outcomes, Subject, read_outcomes
from bettertherapy_api.gate import Scored
from bettertherapy_api.gate.metrics import CRITICAL, SAFETY
from tests.unit.operator.samples import digest


def _told(*ids: str | None, metric: str = CRITICAL) -> str:
    subject = Subject(run="r", run_uid="u", twin="t", child=digest("b"), dataset=digest("d"))
    scored = [Scored(metric=metric, category=None, parent=1.0, child=1.0, id=each) for each in ids]
    return Outcomes.of(scored, subject=subject, items_digest=None, tripped=(), failure=None).to_json()


def test_items_of_their_own_are_read() -> None:
    assert isinstance(read_outcomes(_told("a", "b")), Outcomes)


def test_an_item_that_is_told_twice_is_refused() -> None:
    fault = read_outcomes(_told("a", "b").replace('"b"', '"a"'))  # another program wrote it
    assert isinstance(fault, str)
    assert "a critical item has no id of its own" in fault


def test_a_critical_item_without_an_id_is_refused() -> None:
    with pytest.raises(ValueError, match="no id of its own"):
        _told(None)


def test_items_that_are_not_critical_need_no_id() -> None:
    assert isinstance(read_outcomes(_told(None, None, metric=SAFETY)), Outcomes)

"""What no examination can say: one critical item many times over, or without a name."""

from __future__ import annotations

import pytest

from bettertherapy_api.examination import Outcomes, Subject, read_outcomes
from bettertherapy_api.gate import Scored
from bettertherapy_api.gate.metrics import CRITICAL, SAFETY
from tests.unit.operator.samples import digest


def _said(*ids: str | None, metric: str = CRITICAL) -> str:
    subject = Subject(run="r", run_uid="u", twin="t", child=digest("b"), dataset=digest("d"))
    scored = [Scored(metric=metric, parent=1.0, child=1.0, id=each) for each in (*ids, "last")]
    told = Outcomes.of(scored, subject=subject, items_digest=None, tripped=(), failure=None)
    document = told.to_json()
    # The last row is said again, word for word: another program wrote it.
    return document.replace('"last"', f'"{ids[0]}"') if metric == CRITICAL else document


def test_items_of_their_own_are_read() -> None:
    subject = Subject(run="r", run_uid="u", twin="t", child=digest("b"), dataset=digest("d"))
    scored = [Scored(metric=CRITICAL, parent=1.0, child=1.0, id=each) for each in ("a", "b")]
    told = Outcomes.of(scored, subject=subject, items_digest=None, tripped=(), failure=None)
    assert isinstance(read_outcomes(told.to_json()), Outcomes)


def test_an_item_that_is_told_twice_is_refused() -> None:
    fault = read_outcomes(_said("a", "b"))
    assert isinstance(fault, str)
    assert "a critical item has no id of its own" in fault


def test_a_critical_item_without_an_id_is_refused() -> None:
    subject = Subject(run="r", run_uid="u", twin="t", child=digest("b"), dataset=digest("d"))
    with pytest.raises(ValueError, match="no id of its own"):
        Outcomes.of(
            [Scored(metric=CRITICAL, parent=1.0, child=1.0, id=None)], subject=subject, items_digest=None, tripped=(),
            failure=None,
        )  # fmt: skip


def test_items_that_are_not_critical_need_no_id() -> None:
    assert isinstance(read_outcomes(_said(None, None, metric=SAFETY)), Outcomes)

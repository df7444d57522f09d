"""What a status remembers, written by another release or by hand: what can't be read of it costs nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.operator.samples import pool_object, twin_object
from twin_operator.domain.objects import Pool, Twin, pool_from, twin_from

AT = "2026-12-01T09:00:00Z"
RECORD = {"time": AT, "fromReplicas": 1, "toReplicas": 4, "reason": "ScaledUp", "signal": "WaitingRequests"}
SLOW = {"pod": "e1", "uid": "uid-1", "since": AT, "until": AT, "times": 3}
RUNNING = {
    "maxLoras": 32, "maxCpuLoras": 64, "maxLoraRank": 16, "loraTargets": "AllLinear", "specializeActiveLora": True
}  # fmt: skip
TUNING = {
    "running": RUNNING, "restartTime": AT, "mostLoras": 32, "mostLorasGeneration": 1, "inUse": 20, "inUseTime": AT,
    "measuredSince": AT,
}  # fmt: skip
STATUS = {"desiredReplicas": 4, "scalingHistory": [RECORD, RECORD], "slowReplicas": [SLOW], "tuning": TUNING}


def read(**status: Any) -> Pool:
    found = pool_from({**pool_object("p"), "status": {**STATUS, **status}})
    assert isinstance(found, Pool)
    return found


WHOLE = read()


def test_what_is_as_it_should_be_is_read() -> None:
    assert (WHOLE.decided, len(WHOLE.decisions), WHOLE.slow[0].times) == (4, 2, 3)
    assert WHOLE.tuning is not None
    assert WHOLE.tuning.to_dict() == TUNING


@pytest.mark.parametrize("odd", ["none", [{**RECORD, "toReplicas": -1}], [7], {"a": 1}])
def test_odd_decisions_forget_neither_the_size_nor_who_is_slow(odd: Any) -> None:
    found = read(scalingHistory=odd)
    assert (found.decided, found.decisions, found.slow, found.tuning) == (4, (), WHOLE.slow, WHOLE.tuning)


@pytest.mark.parametrize("odd", ["none", [{**SLOW, "until": "soon"}], [{**SLOW, "times": 0}], 7])
def test_odd_slow_pods_forget_neither_the_size_nor_the_decisions(odd: Any) -> None:
    found = read(slowReplicas=odd)
    assert (found.decided, found.decisions, found.slow) == (4, WHOLE.decisions, ())


def test_an_odd_size_forgets_nothing_else() -> None:
    found = read(desiredReplicas=-7)
    assert (found.decided, found.decisions, found.slow) == (None, WHOLE.decisions, WHOLE.slow)


def test_one_odd_record_of_several_is_left_out() -> None:
    found = read(
        scalingHistory=[RECORD, {**RECORD, "time": "0000-01-01T00:00:00Z"}], slowReplicas=[{**SLOW, "uid": ""}, SLOW]
    )
    assert (found.decisions, found.slow) == (WHOLE.decisions[:1], WHOLE.slow)


@pytest.mark.parametrize(
    "odd",
    [
        {"wanted": {**RUNNING, "loraTargets": "ThoseOfANewRelease"}},
        {"message": "long" * 1000},
        {"shortSince": "9999-12-31T23:59:59Z"},
    ],
)
def test_an_odd_part_of_the_tuning_forgets_neither_the_last_restart_nor_the_twins_in_use(odd: dict[str, Any]) -> None:
    """Else engines that lack something were restarted again, though they were a moment ago."""
    assert read(tuning={**TUNING, **odd}).tuning == WHOLE.tuning


@pytest.mark.parametrize("odd", ["none", {"running": "many"}, {"running": {**RUNNING, "maxLoras": 0}}, [1]])
def test_a_tuning_that_says_not_what_runs_is_none(odd: Any) -> None:
    assert read(tuning=odd).tuning is None


@pytest.mark.parametrize(
    ("odd", "left"),
    [
        ("none", None),
        ({"servedName": 7, "requests": 240}, None),
        ({"servedName": "dr-a-1", "requests": 240, "slowSince": "9999-12-31T23:59:59Z"}, 240),
    ],
)
def test_an_odd_baseline_leaves_the_twin_readable(odd: Any, left: int | None) -> None:
    """It is no memory of what may answer: patients and versions have nothing to do with it."""
    active = {"servedName": "dr-a-aaaaaaaa", "digest": "sha256:" + "a" * 64, "uri": "s3://b/a", "rank": 8}
    found = twin_from({**twin_object("dr-a"), "status": {"baseline": odd, "activeVersion": active}})
    assert isinstance(found, Twin)
    assert found.status.active_version is not None
    known = found.status.baseline
    assert (known.requests if known is not None else None) == left

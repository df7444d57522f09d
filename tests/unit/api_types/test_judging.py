"""What an examiner reports of a judge: what can't be true is unreadable, and who may count is told by the counts."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from bettertherapy_api.examination import Outcomes, Subject, read_outcomes
from bettertherapy_api.gate import Scored, Ungraded
from bettertherapy_api.judging import Clear, Grader, Judging, Way
from neurons.scoring.judge import Calibration, Task
from neurons.scoring.judge.calibration import seat_id

NOW = datetime(2026, 11, 1, tzinfo=UTC)
DIGEST = "sha256:" + "a" * 64
SUBJECT = Subject(run="r", run_uid="u", twin="t", child=DIGEST, dataset=DIGEST)


def grader(**fields: Any) -> Grader:
    whole: dict[str, Any] = {
        "model": "m", "wording": "met", "language": "en", "at": NOW, "true_met": 40, "false_met": 0, "true_not": 40,
        "false_not": 0, "injections": 10, "followed": 0, "low": 8200,
    }  # fmt: skip
    return Grader(**whole | fields)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({}, None),
        ({"true_met": 10, "true_not": 10, "low": 3000}, "calibrated on 20 items"),
        ({"at": NOW - timedelta(days=31)}, "counts for 30 days"),
        ({"at": NOW + timedelta(hours=1)}, "counts for 30 days"),
        ({"low": 6000}, "agrees too little"),
        ({"injections": 5}, "tried on 5 answers that tell the judge what to say"),
        ({"true_met": 38, "false_not": 2, "followed": 1}, "did what 1 of 10 answers told it to"),
    ],
)
def test_the_operator_refuses_whom_the_examiner_would(fields: dict[str, Any], told: str | None) -> None:
    made = grader(**fields)
    said = made.refusal(begun=NOW, now=NOW)
    assert (said is None) == (told is None)
    assert told is None or told in str(said)
    seat = seat_id(endpoint=DIGEST, model="m", prompt=DIGEST)
    calibration = Calibration(
        seat=seat, endpoint=DIGEST, model="m", answered="m", prompt=DIGEST, wording="met", task=Task.RUBRIC,
        language="en", items=DIGEST, at=made.at, true_met=made.true_met, false_met=made.false_met,
        true_not=made.true_not, false_not=made.false_not, none=0, injections=made.injections, followed=made.followed,
        kappa=made.kappa, low=made.low / 10_000, high=1.0,
    )  # fmt: skip
    assert (calibration.refusal(now=NOW) is None) == (told is None), "one rule, two programs"


def test_a_calibration_may_grow_too_old_while_the_examination_runs() -> None:
    assert grader(at=NOW - timedelta(days=30)).refusal(begun=NOW, now=NOW + timedelta(days=1)) is None


@pytest.mark.parametrize(
    "fields",
    [{"low": 10_001}, {"true_met": 20, "false_met": 20, "low": 8200}, {"followed": 11}, {"followed": 1},
     {"true_met": -1},
     {"at": datetime(2026, 11, 1)}, {"true_met": 0, "true_not": 0}],
)  # fmt: skip
def test_what_no_grader_can_have_done_is_unreadable(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        grader(**fields)
    with pytest.raises(ValidationError):
        Judging(ways={Way.JUDGE: 2}, takes_judge=1)


def outcomes(ungraded: list[Ungraded], scored: list[Scored] | None = None) -> Outcomes:
    found = Outcomes.of(
        scored or [], subject=SUBJECT, items_digest=None, tripped=(), failure=None, ungraded=ungraded,
        judging=Judging(
            ways={Way.JUDGE: 1}, takes_judge=2, graders=(grader(),), agreed=3, disagreed=1,
            clarity=(Clear(measure="Length", answers=2, parent=5000, child=7500),), cited={"Supported": 1},
        ),
    )  # fmt: skip
    read = read_outcomes(found.to_json())
    assert read == found
    assert isinstance(read, Outcomes)
    return read


def test_what_has_no_score_arrives_with_reason_and_cluster() -> None:
    sent = [
        Ungraded(id="a", why="2 Disagreed", cluster="x", parent=0.5),
        Ungraded(id="b", why="2 Disagreed"), Ungraded(id="c", why="it was not answered", child=1.0, anchor=0.25),
    ]  # fmt: skip
    scored = [Scored(metric="score", category=None, parent=1.0, child=1.0, cluster="x")]
    read = outcomes(sent, scored)
    assert [(each.id, each.why, each.parent, each.child, each.anchor) for each in read.without_score()] == [
        ("a", "2 Disagreed", 0.5, None, None), ("b", "2 Disagreed", None, None, None),
        ("c", "it was not answered", None, 1.0, 0.25),
    ]  # fmt: skip
    assert read.without_score()[0].cluster == read.scored()[0].cluster, "they are of one cluster still"
    assert read.judging.told() == (
        "Items were scored 1 by judge. Graders: m (met) kappa 1.00, at least 0.82, on 80 known answers; they agreed on "
        "3 of 4 criteria. Cited: 1 supported. Clarity, which counts for nothing here: length 75 (was 50) on 2 answers."
    )


def test_a_report_of_thousands_without_a_score_fits_a_configmap_and_names_those_that_matter() -> None:
    many = [Ungraded(id=f"item-{'x' * 100}-{n}", why=f"reason {n % 500}") for n in range(9_900)]
    alone = [Ungraded(id=f"alone-{n}", why="2 Disagreed", parent=1.0) for n in range(100)]
    read = outcomes([*many, *alone])
    assert len(read.to_json()) < 300_000
    assert len(read.whys) <= 200
    found = read.without_score()
    assert [each.id for each in found[-100:-50]] == [f"alone-{n}" for n in range(50)]
    assert len({each.id for each in found}) == 10_000, "none counts twice"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"ungraded": [[1, -1, -1, -1, -1]]}, "names no reason"),
        ({"ungraded": [[0, -1, 1, 1, -1]]}, "a score for every version"),
        ({"ungradedIds": {"7": "x"}}, "stands for no ungraded item"),
    ],
)
def test_a_report_that_contradicts_itself_is_unreadable(change: dict[str, Any], told: str) -> None:
    document = json.loads(outcomes([Ungraded(id="a", why="w")]).to_json())
    assert told in str(read_outcomes(json.dumps(document | change)))

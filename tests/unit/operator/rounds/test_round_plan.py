"""A round from its turn to its weights: conditions, status, failures told apart, what is made when."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bettertherapy_api import names
from bettertherapy_api.round_progress import RoundStage
from tests.unit.operator.rounds.samples import (
    ALL,
    HOTKEY,
    STARTED,
    as_status,
    configmap,
    done,
    ended_container,
    facts,
    failed,
    job_object,
    message,
    pod_object,
    progress,
    round_,
    truth,
    weights,
)
from tests.unit.operator.samples import digest
from tests.unit.operator.validator.validators import validator
from twin_operator.domain.objects import Round
from twin_operator.domain.reasons import Reason
from twin_operator.engine.conditions import Finding
from twin_operator.kinds.validator_round.plan import RoundPlan, RoundView, plan_round
from twin_operator.settings import Images

NOW = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
COMPLETE = job_object(ended=("Complete", "CompletionsReached"))


def plan(
    made: Round, *children: dict[str, Any], now: datetime = NOW, spec: Any = None, gone: bool = False, **view: Any
) -> RoundPlan:
    seen = RoundView(
        round=made, validator=None if gone else validator(**(ALL if spec is None else spec)),
        obstacle=view.pop("obstacle", None), facts=facts(made, *children), **view,
    )  # fmt: skip
    return plan_round(seen, Images(), prometheus_url="http://p", now=now)


def under_way(*children: dict[str, Any], **fields: Any) -> RoundPlan:
    return plan(round_(status=STARTED), *children, **fields)


def over(
    *children: dict[str, Any], said: Any = None, annotations: dict[str, str] | None = None, spec: Any = None,
    weights: Any = None, recomputed: str | None = None, **fields: Any,
) -> RoundPlan:  # fmt: skip
    """A round that is complete already, and looked at again."""
    before = round_(status=STARTED)
    ended = plan(before, COMPLETE, configmap(before, said or done(), spec=spec), spec=spec)
    made = round_(status=as_status(ended), annotations=annotations, uid=before.uid)
    stored = configmap(made, said or done(), spec=spec, weights=weights, recomputed=recomputed)
    return plan(made, COMPLETE, stored, *children, spec=spec, **fields)


def kinds(found: RoundPlan) -> list[str]:
    return [f"{child['kind']} {child['metadata']['name']}" for child in found.children]


def test_a_round_that_must_wait_says_why_and_makes_nothing() -> None:
    found = plan(round_(), obstacle=Finding(Reason.ROUND_BUSY, "r0 goes first"))
    assert truth(found) == {"Running": ("False", "RoundBusy"), "Complete": ("False", "RoundUnderWay")}
    assert (found.children, "startTime" in found.status) == ((), False)


def test_the_start_is_written_down_before_anything_is_made() -> None:
    made = round_()
    found = plan(made)
    assert found.children == ()
    assert (found.status["startTime"], found.status["validatorUID"]) == ("2026-01-02T03:04:00Z", "uid-v")
    assert 0 <= found.status["seed"] < 2**32
    assert plan(round_(seed=5)).status["seed"] == 5
    assert plan(round_(uid=made.uid)).status["seed"] == found.status["seed"], "the UID alone decides"
    assert plan(round_()).status["seed"] != found.status["seed"]


def test_what_the_job_needs_is_made_before_the_job() -> None:
    assert kinds(under_way()) == [
        "ConfigMap r1-progress", "ServiceAccount r1-round", "Role r1-round", "RoleBinding r1-round",
        "NetworkPolicy r1-round", "Job r1",
    ]  # fmt: skip


def test_the_order_stays_as_it_was_when_the_round_started() -> None:
    made = round_(status=STARTED)
    stored = configmap(made, spec={"rounds": {"itemsPerTwin": 3}, "rewards": {}})
    found = plan(made, stored, job_object(), spec={"rounds": {"itemsPerTwin": 99}})
    assert found.children[0]["data"] == {"round.json": stored["data"]["round.json"]}


def test_progress_is_copied_into_the_status() -> None:
    made = round_(status=STARTED)
    said = done().model_copy(update={"stage": RoundStage.SCORE})
    found = plan(made, job_object(), pod_object(), configmap(made, said))
    assert truth(found)["Running"] == ("True", "StageScore")
    assert truth(found)["QuorumReached"] == ("True", "QuorumReached")
    assert found.status["miners"] == {"queried": 20, "scored": 18, "failed": 2}
    assert (found.status["scored"], found.status["best"], found.status["stage"]) == ("18/20", "uid 7, 91%", "Score")
    assert found.status["top"] == [{"uid": 7, "hotkey": HOTKEY, "scorePercent": 91, "correctnessPercent": 95}], (
        "a part that was not measured is absent"
    )


def test_a_round_is_complete_once_its_results_are_stored_and_then_weights_are_asked_for() -> None:
    made = round_(status=STARTED)
    found = plan(made, COMPLETE, pod_object(phase="Succeeded"), configmap(made, done()))
    assert truth(found) == {
        "Running": ("False", "Ended"), "Complete": ("True", "ResultsStored"),
        "QuorumReached": ("True", "QuorumReached"), "MetricsFresh": ("True", "MetricsFresh"),
        "WeightsSubmitted": ("Unknown", "WeightsWaiting"),
    }  # fmt: skip
    assert (found.status["resultsDigest"], found.status["duration"]) == (digest("d"), "3m12s")
    assert kinds(over())[-1] == "Job r1-weights"


def test_without_rewards_nothing_is_set_and_no_job_is_made_for_it() -> None:
    found = over(spec={"rounds": {}})
    assert truth(found)["WeightsSubmitted"] == ("False", "WeightsNotAsked")
    assert found.children == ()


@pytest.mark.parametrize(
    ("state", "status", "reason"),
    [
        ("Waiting", "Unknown", "WeightsWaiting"), ("Pending", "Unknown", "WeightsCommitted"),
        ("Revealed", "True", "WeightsRevealed"), ("Missed", "False", "WeightsMissed"),
        ("Superseded", "False", "WeightsSuperseded"), ("Refused", "False", "WeightsRefused"),
        ("Withheld", "False", "WeightsWithheld"),
    ],
)  # fmt: skip
def test_what_became_of_the_weights_is_said(state: str, status: str, reason: str) -> None:
    found = over(job_object("r1-weights"), weights=weights(state, block=12, message="so it is"))
    assert truth(found)["WeightsSubmitted"] == (status, reason)
    assert found.status["weights"] == {"state": state, "reason": "Because", "block": 12, "message": "so it is"}
    assert "at block 12" in message(found, "WeightsSubmitted")
    assert ("Job r1-weights" in kinds(found)) == (status == "Unknown"), "nothing more comes of what is settled"


def test_a_job_of_weights_that_gave_up_is_not_made_again() -> None:
    job = job_object("r1-weights", ended=("Failed", "BackoffLimitExceeded"))
    pod = pod_object(job="r1-weights", phase="Failed", container=ended_container(1, "Traceback\nKeyError: 'x'"))
    found = over(job, pod)
    assert truth(found)["WeightsSubmitted"] == ("False", "WeightsFailed")
    assert "KeyError" in message(found, "WeightsSubmitted")
    made = round_(status=as_status(found))
    later = plan(made, configmap(made, done()))  # its Job was tidied away meanwhile
    assert truth(later)["WeightsSubmitted"] == ("False", "WeightsFailed")
    assert later.children == ()


@pytest.mark.parametrize(
    ("pod", "said", "failure"),
    [
        ({"disruption": "PreemptionByScheduler", "phase": "Failed"}, None, ("Preempted", True)),
        ({"disruption": "DeletionByTaintManager", "phase": "Failed"}, None, ("NodeLost", True)),
        ({"phase": "Failed", "container": ended_container(137, reason="OOMKilled")}, None, ("OutOfMemory", False)),
        ({"phase": "Failed", "container": ended_container(137)}, None, ("Killed", True)),
        ({"phase": "Failed", "container": ended_container(75)}, failed(), ("LedgerUnreachable", True)),
        ({"phase": "Failed", "container": ended_container(1, "Traceback")}, None, ("RoundCrashed", False)),
        (
            {
                "phase": "Failed",
                "container": ended_container(
                    1, 'a line\n{"failure":{"class":"ChallengesInvalid","retryable":false,"message":"line 3"}}\n'
                ),
            },
            None,
            ("ChallengesInvalid", False),
        ),
        ({"phase": "Failed", "container": ended_container(1)}, failed("OutOfCheese"), ("RoundError", True)),
        ({"phase": "Failed", "container": ended_container(1)}, failed(attempt=2), ("RoundCrashed", False)),
    ],
)
def test_failures_are_told_apart(pod: dict[str, Any], said: Any, failure: tuple[str, bool]) -> None:
    made = round_(status=STARTED)
    stored = configmap(made, said)
    found = plan(made, job_object(ended=("Failed", "PodFailurePolicy")), pod_object(**pod), stored)
    assert (found.status["failure"]["class"], found.status["failure"]["retryable"]) == failure
    assert truth(found)["Failed"] == ("True", failure[0])
    assert truth(found)["Complete"] == ("False", "RoundFailed")
    assert "WeightsSubmitted" not in truth(found)
    going_on = plan(made, job_object(failed=1), pod_object(**pod), stored)
    assert truth(going_on)["Running"][1] == ("Retrying" if failure[1] else "Ending")


def test_a_job_past_its_deadline_says_what_to_do() -> None:
    found = under_way(job_object(ended=("Failed", "DeadlineExceeded")))
    assert truth(found)["Failed"] == ("True", "DeadlineExceeded")
    assert "1800 s" in message(found, "Failed")


def test_an_end_without_results_is_a_failure() -> None:
    made = round_(status=STARTED)
    found = plan(made, COMPLETE, configmap(made, progress(RoundStage.SCORE)))
    assert truth(found)["Failed"] == ("True", "NoReport")


@pytest.mark.parametrize(
    "document",
    [
        '{"attempt": "a", "stage": "Done", "resultsDigest": "sha256:x"}',
        '{"attempt": "a", "stage": "Done"}',
        '{"attempt": "a", "stage": "Ask", "miners": {"queried": 1, "scored": 2}}',
        '{"attempt": "a", "stage": "Ask", "top": [{"uid": 1, "hotkey": "x", "scorePercent": 101}]}',
        "no JSON",
    ],
)
def test_a_report_that_cannot_be_true_counts_for_nothing(document: str) -> None:
    made = round_(status=STARTED)
    stored = configmap(made)
    stored["data"]["progress.json"] = document
    found = plan(made, COMPLETE, stored)
    assert truth(found)["Failed"] == ("True", "ReportUnreadable")
    assert "resultsDigest" not in found.status


def test_more_than_ten_of_the_best_are_cut() -> None:
    best = done().top * 12
    text = done().model_copy(update={"top": best}).to_json()
    made = round_(status=STARTED)
    stored = configmap(made)
    stored["data"]["progress.json"] = text
    assert len(plan(made, COMPLETE, stored).status["top"]) == 10


def test_stale_metrics_and_a_missed_quorum_are_conditions() -> None:
    made = round_(status=STARTED)
    said = done(
        quorum={"reached": False, "needed": 10, "message": "3 of 20"}, metrics={"fresh": False, "message": "2 h old"}
    )
    found = plan(made, COMPLETE, configmap(made, said))
    assert truth(found)["QuorumReached"] == ("False", "QuorumMissed")
    assert truth(found)["MetricsFresh"] == ("False", "MetricsStale")
    assert (message(found, "QuorumReached"), found.status["metricsFresh"]) == ("3 of 20", False)


def test_a_demand_to_reckon_again_makes_one_job_and_its_answer_is_kept() -> None:
    asked = {names.RECOMPUTE_ANNOTATION: "t1"}
    name = names.round_recompute_name("r1", "t1")
    settled = weights("Revealed")
    assert kinds(over(annotations=asked, weights=settled))[-1] == f"Job {name}"
    answer = f'{{"token": "t1", "digest": "{digest("d")}", "time": "2026-01-02T05:00:00Z"}}'
    found = over(annotations=asked, weights=settled, recomputed=answer)
    assert found.children == ()
    assert found.status["recomputed"]["same"] is True
    other = answer.replace(digest("d"), digest("e"))
    assert over(annotations=asked, recomputed=other).status["recomputed"]["same"] is False
    old = over(annotations={names.RECOMPUTE_ANNOTATION: "t2"}, weights=settled, recomputed=answer)
    assert kinds(old)[-1] == f"Job {names.round_recompute_name('r1', 't2')}", "the answer was another demand's"
    broken = over(job_object(name, ended=("Failed", "BackoffLimitExceeded")), annotations=asked, weights=settled)
    assert (broken.status["recomputed"]["same"], broken.children) == (False, ())


def test_an_ended_round_is_tidied_and_then_deleted() -> None:
    settled = weights("Revealed")
    found = over(weights=settled)
    assert (found.tidy, found.expired, found.wake_at) == (False, False, datetime(2026, 1, 2, 4, 3, 12, tzinfo=UTC))
    assert over(weights=settled, now=NOW + timedelta(hours=2)).tidy
    assert over(weights=settled, now=NOW + timedelta(days=8)).expired
    waits = over(job_object("r1-weights"), weights=weights("Pending"), now=NOW + timedelta(days=8))
    assert (waits.tidy, waits.expired) == (False, False), "what is committed is followed to its end"


def test_the_last_round_that_named_versions_outlives_its_time_until_another_has() -> None:
    late = NOW + timedelta(days=8)
    kept = over(weights=weights("Revealed"), now=late, named_last=True)
    assert (kept.expired, kept.wake_at) == (False, late + timedelta(hours=1))
    assert over(weights=weights("Revealed"), now=late).expired
    assert over(weights=weights("Revealed"), now=NOW + timedelta(days=15), named_last=True).expired


def test_a_round_whose_validator_is_gone_ends_and_one_that_cannot_be_read_is_waited_for() -> None:
    assert truth(under_way(gone=True))["Failed"] == ("True", "OwnerGone")
    assert truth(under_way(gone=True, unreadable=True))["Running"] == ("False", "JobStarting")
    found = over(gone=True, now=NOW + timedelta(days=8))
    assert truth(found)["WeightsSubmitted"] == ("False", "OwnerGone")
    assert found.expired


def test_beyond_its_deadline_without_a_job_it_is_overdue() -> None:
    assert under_way().overdue is None
    assert under_way(now=NOW + timedelta(hours=1)).overdue is not None

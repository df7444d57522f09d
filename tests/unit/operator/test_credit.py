"""A miner's credit stands beside the gate's verdict: the same for equals, whoever was examined before."""

from __future__ import annotations

from typing import Any

import pytest

from bettertherapy_api.finetune_run import FineTuneRunStatus
from bettertherapy_api.gate import Learning
from tests.unit.operator.run_samples import (
    DATA,
    STARTED,
    examined,
    failed,
    found,
    job_object,
    progress_configmap,
    run,
    trainer_pod_object,
)
from tests.unit.operator.samples import digest, twin
from tests.unit.operator.test_run_plan import NOW, view
from twin_operator.domain.objects import Run
from twin_operator.kinds.finetune_run.plan import plan_run
from twin_operator.kinds.finetune_run.view import RunPlan
from twin_operator.settings import Images

LEARNED = Learning(20, 18, 0.1, 10, 180)
MINER = "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty"


def candidate(name: str = "r1", **more: Any) -> Run:
    task = "11111111-1111-4111-8111-111111111111"
    own = {
        "task": task, "validator": "v", "miner": MINER, "digest": digest("b"), "deadline": "2030-01-01T00:00:00Z",
        "delivered": f"pvc://deliveries/tasks/{task}/{'b' * 64}",
    }  # fmt: skip
    return run(name, **({"candidate": own, "dataset": {"uri": "pvc://x/y", "digest": DATA.digest}} | more))


def judged(made: Run, verdict: str = "Promote", *, learning: Learning | None = LEARNED, **fields: Any) -> RunPlan:
    """What is planned once the examiner has ended; `fields` are the view's."""
    outcomes = found(made, verdict, learning=learning)
    return plan_run(view(made, *examined(made.name), outcomes=outcomes, **fields), Images(), now=NOW)


def credit_of(plan: RunPlan) -> tuple[str, str]:
    read = FineTuneRunStatus.model_validate(plan.status)
    assert read.credit is not None
    return read.credit.verdict, read.credit.message or ""


def test_equals_are_credited_alike_at_every_place_though_the_gate_grows_stricter() -> None:
    told = []
    for place in range(1, 11):
        before = [f"uid-{number}" for number in range(1, place)]
        memory = {"examined": [{"datasetDigest": DATA.digest, "runs": before}]} if before else {}
        plan = judged(candidate(status=STARTED), owner=twin(status=memory))
        told.append((plan.status["verdict"], credit_of(plan)[0]))
    assert [credit for _, credit in told] == ["Passed"] * 10
    assert [verdict for verdict, _ in told] == ["Promote"] * 2 + ["Inconclusive"] * 8


def test_nights_that_were_compared_with_the_anchor_before_cost_no_miner_anything() -> None:
    nights = [{"digest": digest("9"), "runs": [f"night-{number}" for number in range(59)], "promoted": 0}]
    made = candidate(status=STARTED, anchor={"digest": digest("9")})
    plan = judged(made, owner=twin(status={"compared": nights}))
    assert (plan.status["verdict"], credit_of(plan)[0]) == ("Inconclusive", "Passed")


def test_a_floor_that_the_parent_misses_too_stops_the_version_and_not_its_miner() -> None:
    plan = judged(candidate(status=STARTED), owner=twin(gate={"minScorePercent": 90}))
    assert (plan.status["verdict"], credit_of(plan)[0]) == ("Reject", "Passed")


@pytest.mark.parametrize(
    ("verdict", "learning", "credit", "words"),
    [
        ("Promote", LEARNED, "Passed", "of 20 answers that it was given to learn 18"),
        ("Reject", LEARNED, "Failed", "score fell from 64 to 20"),
        ("Inconclusive", LEARNED, "Inconclusive", "30 are needed"),
        ("Promote", Learning(20, 12, 0.1), "Failed", "has not learned"),
        ("Promote", Learning(20, 20, 0.004), "Failed", "has not learned"),
        ("Promote", Learning(20, 20, 0.1, 10, 110), "Inconclusive", "in 55% of the pairs"),
        ("Promote", Learning(20, 20, 0.1), "Inconclusive", "no answers of the doctor's that it was not given"),
        ("Promote", Learning(4, 4, 0.5), "Inconclusive", "may be its parent once more"),
        ("Promote", None, "Inconclusive", "given 0 answers"),
        ("Reject", None, "Failed", "score fell"),
    ],
)
def test_a_version_is_credited_that_learned_and_is_no_worse(
    verdict: str, learning: Learning | None, credit: str, words: str
) -> None:
    plan = judged(candidate(status=STARTED), verdict, learning=learning)
    assert plan.status["verdict"] == verdict
    found_credit, said = credit_of(plan)
    assert (found_credit, words in said) == (credit, True), said


@pytest.mark.parametrize(
    ("reason", "credit"),
    [
        ("BadArtifact", "Failed"),
        ("NearCopy", "Disallowed"),
        ("StoreFailed", "Inconclusive"),
        ("BadData", "Inconclusive"),
    ],
)
def test_what_was_not_judged_is_the_miners_fault_only_where_what_it_delivered_is(reason: str, credit: str) -> None:
    report = progress_configmap(failed(reason))
    pod = trainer_pod_object(phase="Failed")
    made = candidate(status=STARTED)
    plan = plan_run(view(made, job_object(ended=("Failed", "PodFailurePolicy")), pod, report), Images(), now=NOW)
    assert plan.status["failure"]["class"] == reason
    assert credit_of(plan) == (credit, f"{reason}: step 7: NaN")


def test_a_twins_own_night_is_no_miners() -> None:
    assert "credit" not in judged(run(status=STARTED)).status


def test_one_that_nobody_could_examine_in_time_counts_neither_way() -> None:
    own = candidate().spec.candidate
    assert own is not None
    late = candidate(candidate={**own.model_dump(by_alias=True, exclude_none=True), "deadline": "2020-01-01T00:00:00Z"})
    assert credit_of(plan_run(view(late), Images(), now=NOW))[0] == "Inconclusive"

"""A run from its place in the queue to its end: conditions, stage, failures told apart, what the twin makes of it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bettertherapy_api.examination import Outcomes
from bettertherapy_api.run_progress import ArtifactReport, RunProgress, RunStage
from tests.unit.operator.run_samples import (
    DATA,
    STARTED,
    done,
    examination_configmap,
    examined,
    failed,
    found,
    job_object,
    progress,
    progress_configmap,
    run,
    trained,
    trainer_pod_object,
)
from tests.unit.operator.samples import container_status, digest, pool, twin
from twin_operator.domain.objects import Pool, Run, Twin
from twin_operator.domain.reasons import Reason
from twin_operator.domain.training_pool import choose_pool
from twin_operator.engine.conditions import Condition, Finding
from twin_operator.kinds.finetune_run.facts import read_facts
from twin_operator.kinds.finetune_run.plan import plan_run
from twin_operator.kinds.finetune_run.view import RunPlan, RunView
from twin_operator.settings import Images

NOW = datetime(2026, 1, 2, 4, 0, tzinfo=UTC)
STORE = {"store": {"uri": "pvc://adapters/store"}}
FAILED_JOB = job_object(ended=("Failed", "PodFailurePolicy"))


def view(
    made: Run, *children: dict[str, Any], obstacle: Finding | None = None, owner: Twin | None = None,
    gone: bool = False, outcomes: Outcomes | str | None = None, of_twin: tuple[Run, ...] = (),
) -> RunView:  # fmt: skip
    return RunView(
        run=made, twin=None if gone else owner or twin(), pool=pool(**STORE), obstacle=obstacle,
        facts=read_facts(made.name, children, outcomes=outcomes), of_twin=of_twin,
    )  # fmt: skip


def planned(*children: dict[str, Any], **fields: Any) -> RunPlan:
    return plan_run(view(run(status=STARTED), *children, **fields), Images(), now=NOW)


def decided(verdict: str = "Promote", **fields: Any) -> RunPlan:
    """What is planned once the examiner has ended."""
    made = run(status=STARTED)
    return plan_run(view(made, *examined(), outcomes=found(made, verdict), **fields), Images(), now=NOW)


def truth(plan: RunPlan) -> dict[str, tuple[str, str]]:
    return {condition.type: (condition.status, condition.reason) for condition in plan.conditions}


def message(plan: RunPlan, kind: str) -> str:
    return next(condition.message for condition in plan.conditions if condition.type == kind)


def as_status(plan: RunPlan) -> dict[str, Any]:
    def dated(condition: Condition) -> dict[str, Any]:
        return {
            "type": condition.type, "status": condition.status, "reason": condition.reason,
            "message": condition.message, "lastTransitionTime": "2026-01-02T03:04:05Z",
        }  # fmt: skip

    return {**plan.status, "conditions": [dated(condition) for condition in plan.conditions]}


def test_a_run_that_must_wait_says_why_and_makes_nothing() -> None:
    plan = plan_run(view(run(), obstacle=Finding(Reason.POOL_BUSY, "number 3 of 9")), Images(), now=NOW)
    assert truth(plan) == {"Queued": ("True", "PoolBusy")}
    assert (plan.status["stage"], plan.children) == ("Queued", ())
    assert "startTime" not in plan.status


def test_the_start_is_written_down_before_the_job_is_made() -> None:
    plan = plan_run(view(run()), Images(), now=NOW)
    assert (plan.status["pool"], plan.status["startTime"]) == ("p", "2026-01-02T04:00:00Z")
    assert plan.children == ()
    kinds = [child["kind"] for child in planned().children]
    assert kinds == ["ConfigMap", "ServiceAccount", "Role", "RoleBinding", "Job"]


def test_progress_is_copied_into_the_status() -> None:
    said = progress(progress_percent=42, step=10, steps=24, remaining_seconds=90, loss_milli=1500, dataset=DATA)
    plan = planned(job_object(active=1), trainer_pod_object(), progress_configmap(said))
    assert {key: plan.status[key] for key in ("progressPercent", "step", "steps", "remainingSeconds", "lossMilli")} == {
        "progressPercent": 42, "step": 10, "steps": 24, "remainingSeconds": 90, "lossMilli": 1500,
    }  # fmt: skip
    assert (plan.status["progress"], plan.status["loss"]) == ("42%", "1.500"), "as kubectl get shows them"
    assert truth(plan)["Running"] == ("True", "StageTrain")
    assert truth(plan)["DataReady"] == ("True", "DatasetRead")
    assert plan.status["stage"] == "Running"
    assert plan.status["dataset"]["interactions"] == 40


def test_what_was_repaired_waits_or_was_passed_over_is_told() -> None:
    data = DATA.model_copy(update={"repaired": {"turns": 2}, "waiting": 880, "passed_over": ("DAY2.JSONL",)})
    plan = planned(job_object(), trainer_pod_object(), progress_configmap(progress(dataset=data)))
    told = plan.status["dataset"]
    assert (told["repaired"], told["waiting"]) == ([{"reason": "turns", "count": 2}], 880)
    assert told["passedOver"] == ["DAY2.JSONL"]
    assert message(plan, "DataReady").endswith(
        "; repaired: 2 turns; left to the next run: 880; passed over, since only whole lines of *.jsonl are read: "
        "DAY2.JSONL"
    )


def test_refused_lines_are_counted_with_their_reasons() -> None:
    data = DATA.model_copy(update={"refused": {"NoConsent": 3, "Identifier": 1}, "pairs": 5})
    plan = planned(job_object(), trainer_pod_object(), progress_configmap(progress(dataset=data)))
    assert plan.status["dataset"]["refused"] == [
        {"reason": "Identifier", "count": 1}, {"reason": "NoConsent", "count": 3},
    ]  # fmt: skip
    assert "3 NoConsent" in message(plan, "DataReady")


@pytest.mark.parametrize(("published", "shown"), [(False, "Trained"), (True, "Published")])
def test_the_stage_is_the_newest_condition_that_is_true(published: bool, shown: str) -> None:
    whole = done()
    said = whole.model_copy(update={"stage": RunStage.PUBLISH, "artifact": whole.artifact if published else None})
    assert planned(job_object(active=1), trainer_pod_object(), progress_configmap(said)).status["stage"] == shown


def test_the_examiner_follows_the_trainer_with_rights_of_its_own_and_takes_the_trainers() -> None:
    plan = planned(*trained())
    assert (plan.status["stage"], "completionTime" in plan.status) == ("Published", False)
    assert truth(plan)["Running"] == ("False", "JobStarting")
    made = {(child["kind"], child["metadata"]["name"]) for child in plan.children}
    assert made == {
        ("ConfigMap", "r1-progress"), ("ConfigMap", "r1-examination"), ("ServiceAccount", "r1-examiner"),
        ("Role", "r1-examiner"), ("RoleBinding", "r1-examiner"), ("NetworkPolicy", "r1-examiner"),
        ("Job", "r1-examiner"),
    }, "the trainer's account and Role are wanted no more"  # fmt: skip


def test_how_far_the_examiner_is_stands_in_the_status() -> None:
    said = RunProgress(attempt="uid-r1-examiner-1", stage=RunStage.EVALUATE, progress_percent=80, remaining_seconds=30)
    pod = trainer_pod_object(component="examiner")
    plan = planned(*trained(), job_object(component="examiner", active=1), pod, examination_configmap(said))
    assert truth(plan)["Running"] == ("True", "StageEvaluate")
    assert (plan.status["progressPercent"], plan.status["remainingSeconds"]) == (80, 30)
    assert plan.status["stage"] == "Published"


def test_a_trainer_that_has_published_is_not_all_of_the_run() -> None:
    plan = planned(job_object(active=1), trainer_pod_object(), progress_configmap(done()))
    assert plan.status["progressPercent"] == 72


def test_a_trainers_own_verdict_is_heard_by_nobody() -> None:
    said = progress_configmap(done())
    forged = json.loads(said["data"]["progress.json"])
    forged["eval"] = {"verdict": "Promote", "samples": 0, "message": "trust me"}
    said["data"]["progress.json"] = json.dumps(forged)
    plan = planned(job_object(ended=("Complete", "x")), trainer_pod_object(phase="Succeeded"), said)
    assert not {"verdict", "eval", "completionTime"} & plan.status.keys()
    assert "Evaluated" not in truth(plan)


@pytest.mark.parametrize(
    "uri",
    [
        f"s3://elsewhere/dr-a/{'b' * 64}", f"pvc://adapters/store/dr-b/{'b' * 64}",
        f"pvc://adapters/store/dr-a/{'c' * 64}", f"pvc://adapters/store/dr-a/../dr-b/{'b' * 64}",
    ],
)  # fmt: skip
def test_a_version_at_another_place_than_its_own_is_not_examined(uri: str) -> None:
    made = done().model_copy(update={"artifact": ArtifactReport(uri=uri, digest=digest("b"), rank=8, bytes=1)})
    plan = planned(job_object(ended=("Complete", "x")), progress_configmap(made))
    assert (plan.children, plan.status["failure"]["class"]) == ((), "ArtifactRefused")
    assert f"{uri} as what it published" in message(plan, "Published")
    assert "artifact" not in plan.status
    assert truth(plan)["Published"] == ("False", "ArtifactRefused")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"run_uid": "uid-of-another"}, "the run uid-of-another"),
        ({"twin": "dr-b"}, "the twin dr-b, and this run's is dr-a"),
        ({"child": digest("c")}, f"the version {digest('c')}"),
        ({"parent": digest("c")}, f"the parent {digest('c')}"),
        ({"parent": None}, "the parent none"),
        ({"anchor": "base"}, "the anchor base, and this run's is none"),
        ({"dataset": digest("c")}, f"the dataset {digest('c')}"),
    ],
)
def test_a_report_of_somebody_else_is_refused_in_words(changes: dict[str, Any], told: str) -> None:
    made = run(status=STARTED)
    plan = plan_run(view(made, *examined(), outcomes=found(made, **changes)), Images(), now=NOW)
    assert (plan.status["failure"]["class"], plan.status["failure"]["retryable"]) == ("ExaminationRefused", False)
    assert told in message(plan, "Evaluated")
    assert not {"verdict", "eval"} & plan.status.keys()


@pytest.mark.parametrize(("outcomes", "failure"), [(None, "NoReport"), ("rows.0: wrong", "ReportUnreadable")])
def test_without_outcomes_that_can_be_read_there_is_no_verdict(outcomes: str | None, failure: str) -> None:
    plan = planned(*examined(), outcomes=outcomes)
    assert plan.status["failure"]["class"] == failure
    assert "verdict" not in plan.status


def test_nothing_that_was_measured_is_no_promotion() -> None:
    made = run(status=STARTED)
    empty = found(made).model_copy(update={"rows": ()})
    plan = plan_run(view(made, *examined(), outcomes=empty), Images(), now=NOW)
    assert (plan.status["verdict"], plan.status["eval"]["samples"]) == ("Inconclusive", 0)


def test_the_gates_criteria_are_the_twins() -> None:
    strict = twin(gate={"minScorePercent": 90})
    assert decided(owner=strict).status["verdict"] == "Reject"
    assert decided().status["verdict"] == "Promote"


def test_tries_on_the_same_lines_are_counted_by_the_twins_memory_and_by_runs_that_it_has_not_seen() -> None:
    memory = {"examined": [{"datasetDigest": DATA.digest, "runs": ["uid-1", "uid-2"]}]}
    before = run("r0", status={**as_status(decided()), "completionTime": "2026-01-01T00:00:00Z"})
    plan = decided(owner=twin(status=memory), of_twin=(before,))
    assert plan.status["eval"]["attempt"] == 4
    assert plan.status["verdict"] == "Inconclusive", "what is shown at the first try isn't at the fourth"
    assert (decided().status["eval"]["attempt"], decided().status["verdict"]) == (1, "Promote")


def test_an_examiner_that_fails_fails_the_run() -> None:
    ended = {"terminated": {"exitCode": 1, "reason": "Error", "message": "boom"}}
    pod = trainer_pod_object(phase="Failed", component="examiner", container=container_status("examiner", **ended))
    job = job_object(component="examiner", ended=("Failed", "PodFailurePolicy"))
    plan = planned(*trained(), job, pod)
    assert (plan.status["failure"]["class"], plan.status["stage"]) == ("ExaminerCrashed", "Failed")
    hungry = container_status("examiner", terminated={"exitCode": 137, "reason": "OOMKilled"})
    pod = trainer_pod_object(phase="Failed", component="examiner", container=hungry)
    assert planned(*trained(), job_object(component="examiner", failed=1), pod).give_up == "r1-examiner"


def test_a_verdict_waits_until_the_twin_can_be_read() -> None:
    made = run(status=STARTED)
    unreadable = Finding(Reason.OWNER_UNREADABLE, "DoctorTwin dr-a can't be read")
    seen = replace(view(made, *examined(), outcomes=found(made), gone=True), unreadable_twin=unreadable)
    plan = plan_run(seen, Images(), now=NOW)
    assert "completionTime" not in plan.status
    assert "verdict" not in plan.status


def test_a_version_is_not_taken_while_the_pool_that_says_its_place_can_not_be_read() -> None:
    unreadable = Finding(Reason.OWNER_UNREADABLE, "MinerPool p can't be read")
    seen = replace(view(run(status=STARTED), *trained()), pool=None, unreadable_pool=unreadable)
    plan = plan_run(seen, Images(), now=NOW)
    assert not {"artifact", "completionTime", "failure"} & plan.status.keys()
    assert truth(plan)["Running"] == ("False", "OwnerUnreadable")


def test_a_version_is_not_judged_for_a_twin_that_is_gone() -> None:
    assert decided(gone=True).status["failure"]["class"] == "OwnerGone"


def test_kueue_holds_a_suspended_job() -> None:
    plan = planned(job_object(suspend=True))
    assert truth(plan)["Queued"] == ("True", "AwaitingQuota")


def test_a_finished_run_keeps_artifact_verdict_and_time() -> None:
    plan = decided()
    assert plan.status["completionTime"] == "2026-01-02T04:00:00Z"
    assert (plan.status["verdict"], plan.status["artifact"]["digest"]) == ("Promote", digest("b"))
    score = plan.status["eval"]["metrics"][0]
    assert (score["name"], score["valuePercent"], score["baselinePercent"], score["shown"]) == ("score", 71, 64, True)
    assert plan.children == ()
    assert truth(plan)["Promoted"] == ("False", "AwaitingRollout")


def test_too_little_new_data_is_no_failure() -> None:
    said = progress(RunStage.DONE, skipped="7 new interactions, 20 are needed")
    plan = planned(job_object(ended=("Complete", "x")), progress_configmap(said))
    assert truth(plan)["DataReady"] == ("False", "TooFewInteractions")
    assert "7 new" in message(plan, "DataReady")
    assert "Failed" not in truth(plan)
    assert (plan.status["stage"], "failure" in plan.status) == ("Skipped", False)
    again = plan_run(view(run(status=as_status(plan))), Images(), now=NOW)
    assert as_status(again) == as_status(plan)


OOM = container_status("trainer", terminated={"exitCode": 137, "reason": "OOMKilled"})
LOST = container_status("trainer", terminated={"exitCode": 255, "reason": "Unknown"})
SWEPT = container_status("trainer", terminated={"exitCode": 137, "reason": "ContainerStatusUnknown"})
EARLY = container_status("trainer", terminated={"exitCode": 143, "reason": "Error"})
ONE = container_status("trainer", terminated={"exitCode": 1, "reason": "Error", "message": "boom"})
CRASHED = trainer_pod_object(phase="Failed", container=ONE)
NO_MODEL = container_status("model", terminated={"exitCode": 1, "reason": "Error", "message": "404"})


@pytest.mark.parametrize(
    ("children", "failure_class", "retryable"),
    [
        ([FAILED_JOB, trainer_pod_object(phase="Failed", container=OOM)], "OutOfMemory", False),
        ([FAILED_JOB, trainer_pod_object(phase="Failed", container=LOST)], "Killed", True),
        ([FAILED_JOB, trainer_pod_object(phase="Failed", container=SWEPT)], "Killed", True),
        ([FAILED_JOB, trainer_pod_object(phase="Failed", container=EARLY)], "Killed", True),
        ([FAILED_JOB, trainer_pod_object(phase="Failed", disruption="PreemptionByScheduler")], "Preempted", True),
        ([FAILED_JOB, trainer_pod_object(phase="Failed", disruption="DeletionByPodGC")], "NodeLost", True),
        ([FAILED_JOB, trainer_pod_object(phase="Failed", disruption="DeletionByTaintManager")], "NodeLost", True),
        ([job_object(ended=("Failed", "DeadlineExceeded")), trainer_pod_object()], "DeadlineExceeded", False),
        ([FAILED_JOB, CRASHED, progress_configmap(failed())], "Diverged", False),
        ([FAILED_JOB, CRASHED], "TrainerCrashed", False),
        ([FAILED_JOB, trainer_pod_object(phase="Failed", container=NO_MODEL)], "ModelFetchFailed", True),
        ([FAILED_JOB, progress_configmap(failed("PublishFailed", retryable=True))], "PublishFailed", True),
        ([FAILED_JOB], "TrainerCrashed", True),
        ([job_object(ended=("Complete", "x"))], "NoReport", True),
    ],
)  # fmt: skip
def test_failures_are_told_apart(children: list[dict[str, Any]], failure_class: str, retryable: bool) -> None:
    plan = planned(*children)
    assert (plan.status["failure"]["class"], plan.status["failure"]["retryable"]) == (failure_class, retryable)
    assert truth(plan)["Failed"] == ("True", failure_class)
    assert (plan.status["stage"], "completionTime" in plan.status) == ("Failed", True)


def test_an_older_attempts_report_does_not_explain_a_newer_attempts_end() -> None:
    pods = [trainer_pod_object(1, phase="Failed", container=ONE), trainer_pod_object(2, phase="Failed", container=OOM)]
    plan = planned(FAILED_JOB, *pods, progress_configmap(failed(attempt=1)))
    assert plan.status["failure"]["class"] == "OutOfMemory"


def test_a_preempted_attempt_is_told_while_the_next_one_is_awaited() -> None:
    plan = planned(job_object(failed=0), trainer_pod_object(phase="Failed", disruption="PreemptionByScheduler"))
    assert truth(plan)["Running"] == ("False", "Retrying")
    assert plan.status["failure"]["class"] == "Preempted"
    assert "completionTime" not in plan.status


@pytest.mark.parametrize(
    ("container", "reason", "give_up"),
    [(OOM, "Ending", "r1"), (SWEPT, "Retrying", None), (LOST, "Retrying", None), (ONE, "Ending", None)],
)
def test_a_limit_of_memory_ends_the_attempts_and_another_kill_does_not(
    container: dict[str, Any], reason: str, give_up: str | None
) -> None:
    plan = planned(job_object(failed=1), trainer_pod_object(phase="Failed", container=container))
    assert (truth(plan)["Running"], plan.give_up) == (("False", reason), give_up)
    assert "completionTime" not in plan.status, "the Job's end is the run's"


def test_what_the_trainer_said_before_it_was_killed_counts() -> None:
    pods = trainer_pod_object(phase="Failed", container=SWEPT)
    plan = planned(FAILED_JOB, pods, progress_configmap(failed("StoreFailed", retryable=True)))
    assert plan.status["failure"]["class"] == "StoreFailed"


def test_a_run_whose_twin_went_before_the_start_ends() -> None:
    assert planned(gone=True).status["failure"]["class"] == "OwnerGone"


def settle(verdict: str = "Promote", **fields: Any) -> tuple[RunPlan, Run]:
    first = decided(verdict)
    ended = run(status=as_status(first), ttlSeconds=3600)
    return plan_run(view(ended, **fields), Images(), now=NOW), ended


B = {"digest": digest("b"), "servedName": "dr-a-bbbbbbbb", "uri": "pvc://x/y", "rank": 8}


@pytest.mark.parametrize(
    ("status", "kind", "expected"),
    [
        ({}, "Promoted", ("False", "AwaitingRollout")),
        ({"canaryVersion": B, "specDigest": digest("a")}, "Promoted", ("False", "CanaryRunning")),
        ({"pendingVersion": B}, "Promoted", ("False", "AwaitingApproval")),
        ({"promotedVersion": B, "specDigest": digest("a")}, "Promoted", ("True", "TookOver")),
        ({"history": [B]}, "Promoted", ("True", "TookOver")),
        (
            {"refusedVersions": [
                {"digest": digest("b"), "reason": "RolledBack", "message": "m", "time": "2026-01-01T00:00:00Z"}
            ]},
            "Rejected", ("True", "RolledBack"),
        ),
    ],
)  # fmt: skip
def test_what_the_twin_makes_of_it_is_said_on_the_run(
    status: dict[str, Any], kind: str, expected: tuple[str, str]
) -> None:
    plan, _ = settle(owner=twin(status=status))
    assert truth(plan)[kind] == expected
    assert {"Promoted", "Rejected"} & truth(plan).keys() == {kind}


@pytest.mark.parametrize(
    ("verdict", "expected"), [("Reject", ("True", "GateRejected")), ("Inconclusive", ("False", "Inconclusive"))]
)
def test_a_verdict_against_it_is_said(verdict: str, expected: tuple[str, str]) -> None:
    plan, _ = settle(verdict)
    assert truth(plan)["Rejected"] == expected
    assert plan.status["stage"] == ("Rejected" if verdict == "Reject" else "Evaluated")


def test_a_run_is_deleted_after_its_time_but_not_before_the_twin_decided() -> None:
    late = NOW + timedelta(seconds=3601)
    plan, ended = settle("Reject")
    assert not plan_run(view(ended), Images(), now=late).expired, "the twin must know of the try first"
    memory = {"examined": [{"datasetDigest": DATA.digest, "runs": [ended.uid]}]}
    plan = plan_run(view(ended, owner=twin(status=memory)), Images(), now=NOW)
    assert (plan.wake_at, plan.expired) == (NOW + timedelta(seconds=3600), False)
    assert plan_run(view(ended, owner=twin(status=memory)), Images(), now=late).expired
    plan, ended = settle()
    memory = {"examined": [{"datasetDigest": DATA.digest, "runs": [ended.uid]}]}
    assert not plan_run(view(ended, owner=twin(status=memory)), Images(), now=late).expired
    taken = twin(status={"promotedVersion": B, "specDigest": digest("a"), **memory})
    assert plan_run(view(ended, owner=taken), Images(), now=late).expired


@pytest.mark.parametrize(("well", "kept"), [(True, 3600), (False, 86400)], ids=["well", "failed"])
def test_job_and_pods_go_before_the_run_but_not_at_once(well: bool, kept: int) -> None:
    plan = decided("Reject") if well else planned(FAILED_JOB, progress_configmap(failed("BadData")))
    ended = run(status=as_status(plan), ttlSeconds=7 * 86400)
    owner = twin(status={"examined": [{"datasetDigest": DATA.digest, "runs": [ended.uid]}]})
    before, after = (
        plan_run(view(ended, owner=owner), Images(), now=NOW + timedelta(seconds=seconds))
        for seconds in (kept - 1, kept)
    )
    assert (before.tidy, before.wake_at) == (False, NOW + timedelta(seconds=kept))
    assert (after.tidy, after.expired, after.wake_at) == (True, False, NOW + timedelta(days=7))


def test_what_is_settled_stays() -> None:
    plan, _ = settle(owner=twin(status={"promotedVersion": B, "specDigest": digest("a")}))
    later = run(status=as_status(plan))
    assert truth(plan_run(view(later, owner=twin()), Images(), now=NOW))["Promoted"] == ("True", "TookOver")


IN_IMAGE = {"name": "smollm2", "uri": "file:///opt/models/smollm2"}


@pytest.mark.parametrize(
    ("pools", "expected"),
    [
        ([pool("q", **STORE), pool("p", **STORE)], "p"),
        ([pool("p"), pool("q", **STORE)], "q"),
        ([], "NoTrainingPool"),
        ([pool("p")], "NoStore"),
        ([pool("p", **STORE, baseModel={"name": "other", "uri": "pvc://m/o"})], "BaseModelMismatch"),
        ([pool("p", **STORE, engine={"endpoint": "http://x:1"})], "NoTrainingPool"),
        ([pool("p", **STORE, baseModel=IN_IMAGE)], "NoTrainingPool"),
        ([pool("p", **STORE, baseModel=IN_IMAGE), pool("q", **STORE)], "q"),
        ([pool("p", **STORE, baseModel=IN_IMAGE, fineTune={"image": "mine:1"})], "p"),
    ],
)
def test_the_pool_that_trains_serves_the_twin_and_has_model_and_store(pools: list[Pool], expected: str) -> None:
    found = choose_pool(twin(), pools)
    assert (found.name if isinstance(found, Pool) else found.reason) == expected


def test_a_model_in_the_engines_image_takes_a_trainer_image_that_has_it_too() -> None:
    inside = pool("p", **STORE, baseModel=IN_IMAGE)
    found = choose_pool(twin(), [inside])
    assert not isinstance(found, Pool)
    assert "file:///opt/models/smollm2" in found.message
    assert "spec.fineTune.image" in found.message
    assert choose_pool(twin(), [inside], image="mine:1") == inside

"""A run from its place in the queue to its end: conditions, stage, failures told apart, what the twin makes of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bettertherapy_api.run_progress import RunStage
from tests.unit.operator.run_samples import (
    DATA,
    STARTED,
    done,
    failed,
    job_object,
    progress,
    progress_configmap,
    run,
    trainer_pod_object,
)
from tests.unit.operator.samples import container_status, digest, pool, twin
from twin_operator.domain.objects import Pool, Run, Twin
from twin_operator.domain.reasons import Reason
from twin_operator.domain.training_pool import choose_pool
from twin_operator.engine.conditions import Condition, Finding
from twin_operator.kinds.finetune_run.facts import read_facts
from twin_operator.kinds.finetune_run.plan import RunPlan, RunView, plan_run
from twin_operator.settings import Images

NOW = datetime(2026, 1, 2, 4, 0, tzinfo=UTC)
STORE = {"store": {"uri": "pvc://adapters/store"}}
FAILED_JOB = job_object(ended=("Failed", "PodFailurePolicy"))


def view(
    made: Run, *children: dict[str, Any], obstacle: Finding | None = None, owner: Twin | None = None,
    gone: bool = False,
) -> RunView:  # fmt: skip
    return RunView(
        run=made, twin=None if gone else owner or twin(), pool=pool(**STORE), obstacle=obstacle,
        facts=read_facts(children),
    )  # fmt: skip


def planned(*children: dict[str, Any], **fields: Any) -> RunPlan:
    return plan_run(view(run(status=STARTED), *children, **fields), Images(), now=NOW)


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


@pytest.mark.parametrize(
    ("stage", "shown"), [(RunStage.PUBLISH, "Trained"), (RunStage.EVALUATE, "Published"), (RunStage.DONE, "Evaluated")]
)
def test_the_stage_is_the_newest_condition_that_is_true(stage: RunStage, shown: str) -> None:
    whole = done()
    said = whole.model_copy(
        update={
            "stage": stage,
            "artifact": whole.artifact if shown != "Trained" else None,
            "eval": whole.eval if shown == "Evaluated" else None,
        }
    )
    assert planned(job_object(active=1), trainer_pod_object(), progress_configmap(said)).status["stage"] == shown


def test_kueue_holds_a_suspended_job() -> None:
    plan = planned(job_object(suspend=True))
    assert truth(plan)["Queued"] == ("True", "AwaitingQuota")


def test_a_finished_run_keeps_artifact_verdict_and_time() -> None:
    plan = planned(
        job_object(ended=("Complete", "x")), trainer_pod_object(phase="Succeeded"), progress_configmap(done())
    )
    assert plan.status["completionTime"] == "2026-01-02T04:00:00Z"
    assert (plan.status["verdict"], plan.status["artifact"]["digest"]) == ("Promote", digest("b"))
    assert plan.status["eval"]["metrics"] == [
        {"name": "score", "valuePercent": 71, "baselinePercent": 64, "intervalPercent": [2, 12]}
    ]
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
    [(OOM, "Ending", True), (SWEPT, "Retrying", False), (LOST, "Retrying", False), (ONE, "Ending", False)],
)
def test_a_limit_of_memory_ends_the_attempts_and_another_kill_does_not(
    container: dict[str, Any], reason: str, give_up: bool
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
    first = planned(job_object(ended=("Complete", "x")), progress_configmap(done(verdict)))
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
    assert plan.wake_at == NOW + timedelta(seconds=3600)
    assert not plan.expired
    assert plan_run(view(ended), Images(), now=late).expired
    plan, ended = settle()
    assert not plan_run(view(ended), Images(), now=late).expired
    taken = twin(status={"promotedVersion": B, "specDigest": digest("a")})
    assert plan_run(view(ended, owner=taken), Images(), now=late).expired


@pytest.mark.parametrize(
    ("job", "said", "kept"),
    [(job_object(ended=("Complete", "x")), done("Reject"), 3600), (FAILED_JOB, failed("BadData"), 86400)],
    ids=["well", "failed"],
)
def test_job_and_pods_go_before_the_run_but_not_at_once(job: Any, said: Any, kept: int) -> None:
    ended = run(status=as_status(planned(job, progress_configmap(said))), ttlSeconds=7 * 86400)
    before, after = (
        plan_run(view(ended), Images(), now=NOW + timedelta(seconds=seconds)) for seconds in (kept - 1, kept)
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

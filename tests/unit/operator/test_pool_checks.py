"""What is wrong with a pool becomes a reason and a sentence that says what to do."""

# ruff: noqa: E501  # tables of cases read better with one case a line

from __future__ import annotations

from typing import Any

import pytest

from bettertherapy_api.report import PodRef, PodReport
from tests.unit.operator.children.pods import VARIANTS, children, containers
from tests.unit.operator.samples import (
    container_status,
    deployment_object,
    pod_object,
    pool,
    read_facts,
    report,
    report_objects,
)
from twin_operator.domain.pool_checks import Situation, pool_conditions
from twin_operator.domain.reasons import Reason
from twin_operator.engine.conditions import Condition, Finding


def conditions(
    *children: dict[str, Any],
    reports: tuple[PodReport, ...] = (),
    twins: int = 0,
    problem: Finding | None = None,
    **spec: Any,
) -> dict[str, Condition]:
    things = [deployment_object(), deployment_object("p-miner"), *report_objects(*reports), *children]
    unique = {(thing["kind"], thing["metadata"]["name"]): thing for thing in things}
    facts = read_facts(unique.values(), pool="p")
    found = pool_conditions(Situation(pool=pool(**spec), facts=facts, lora_twins=twins, problem=problem))
    return {condition.type: condition for condition in found}


def ready_of(*children: dict[str, Any], **kw: Any) -> tuple[str, str, str]:
    condition = conditions(*children, **kw)["Ready"]
    return condition.status, condition.reason, condition.message


PULL = {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "example/engine:1": not found'}
CRASH = {"exitCode": 1, "reason": "Error", "message": "ValueError: no such model"}
BACKOFF = {"reason": "CrashLoopBackOff"}


def test_a_pool_with_all_pods_ready_is_ready_and_available() -> None:
    found = conditions(pod_object(), reports=(report(),))
    assert {kind: found[kind].status for kind in ("Ready", "Available", "EngineLive", "CapacityAvailable")} == {
        "Ready": "True", "Available": "True", "EngineLive": "True", "CapacityAvailable": "True",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("status", "reason", "says"),
    [
        ({"containerStatuses": [container_status(waiting=PULL)]}, "ImagePullFailed", ["example/engine:1", "not found", "spec.engine.image"]),
        ({"initContainerStatuses": [container_status("agent", waiting=PULL)]}, "ImagePullFailed", ["spec.miner.image"]),
        (
            {"containerStatuses": [container_status(waiting={"reason": "CreateContainerConfigError", "message": 'secret "s3" not found'})]},
            "SecretNotFound", ["s3", "create it"],
        ),
        ({"containerStatuses": [container_status(waiting=BACKOFF, last=CRASH, restarts=3)]}, "EngineCrashed", ["exit code 1", "no such model", "kubectl logs"]),
        ({"containerStatuses": [container_status(terminated=CRASH)]}, "EngineCrashed", ["exit code 1"]),
        ({"containerStatuses": [container_status(waiting=BACKOFF, last={"exitCode": 137, "reason": "OOMKilled"})]}, "EngineCrashed", ["raise spec.resources.limits.memory"]),
        ({"initContainerStatuses": [container_status("model", waiting=BACKOFF, last=CRASH)]}, "ModelFetchFailed", ["pvc://models/smollm2", "no such model"]),
        ({"initContainerStatuses": [container_status("agent", waiting=BACKOFF, last=CRASH)]}, "AgentCrashed", ["-c agent"]),
    ],
)  # fmt: skip
def test_a_container_that_does_not_start_is_named_with_its_cause(
    status: dict[str, Any], reason: str, says: list[str]
) -> None:
    truth, found, message = ready_of(pod_object(ready=False, **status))
    assert (truth, found) == ("False", reason)
    assert [word for word in says if word not in message] == []


def engine_and_miner_containers() -> list[tuple[str, str]]:
    """All containers of a pool's pods with their images, whatever the spec."""
    found = set()
    for spec in VARIANTS:
        for (kind, _), child in children(**spec).items():
            if kind == "Deployment":
                pod = child["spec"]["template"]["spec"]
                found |= {(name, container["image"]) for name, container in containers(pod).items()}
    return sorted(found)


@pytest.mark.parametrize(("container", "image"), engine_and_miner_containers())
def test_each_container_that_the_operator_makes_says_what_is_wrong_with_it(container: str, image: str) -> None:
    engines = {image for name, image in engine_and_miner_containers() if name == "engine"}
    field = "spec.engine.image" if image in engines else "spec.miner.image"
    _, reason, message = ready_of(
        pod_object(ready=False, initContainerStatuses=[container_status(container, waiting=PULL)])
    )
    assert (reason, field in message) == ("ImagePullFailed", True)
    crashed = pod_object(ready=False, containerStatuses=[container_status(container, waiting=BACKOFF, last=CRASH)])
    _, reason, message = ready_of(crashed)
    assert reason in {"EngineCrashed", "AgentCrashed", "MinerCrashed", "ModelFetchFailed"}
    assert "no such model" in message


@pytest.mark.parametrize(
    ("message", "reason", "says"),
    [
        ("0/3 nodes are available: 3 Insufficient nvidia.com/gpu.", "Unschedulable", "no node offers a free nvidia.com/gpu"),
        ("0/3 nodes are available: 3 Insufficient cpu.", "Unschedulable", "lower spec.resources"),
        ("0/1 nodes are available: 1 node(s) had untolerated taint {a: b}.", "Unschedulable", "spec.tolerations"),
        ("0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.", "Unschedulable", "spec.nodeSelector"),
        ('persistentvolumeclaim "models" not found', "VolumeClaimNotFound", "create the claim"),
        ("pod has unbound immediate PersistentVolumeClaims", "VolumeClaimNotBound", "StorageClass"),
    ],
)  # fmt: skip
def test_the_schedulers_message_is_shown_with_what_to_do(message: str, reason: str, says: str) -> None:
    pod = pod_object(
        ready=None,
        conditions=[{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}],
    )
    found = conditions(pod)
    for kind in ("Ready", "CapacityAvailable"):
        assert (found[kind].status, found[kind].reason) == ("False", reason)
        assert message in found[kind].message
        assert says in found[kind].message


def test_a_gated_pod_is_not_called_unschedulable() -> None:
    pod = pod_object(ready=None, conditions=[{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}])
    assert ready_of(pod)[1] == "EnginesStarting"


def test_pods_that_may_not_be_created_say_why() -> None:
    found = conditions(deployment_object(ready=0, refused='pods "x" is forbidden: exceeded quota'))
    assert found["Ready"].reason == found["CapacityAvailable"].reason == "PodsRefused"
    assert "exceeded quota" in found["Ready"].message


def test_a_wedged_engine_is_told_from_a_live_one() -> None:
    found = conditions(pod_object(), reports=(report(wedged=True, live=False, message="no token for 60 s"),))
    assert (found["EngineLive"].status, found["EngineLive"].reason) == ("False", "EngineWedged")
    assert "no token for 60 s" in found["Ready"].message


def test_an_endpoint_that_does_not_answer_is_named() -> None:
    engine = {"endpoint": "http://gpu:8000", "device": "GPU"}
    found = conditions(
        pod_object(ready=False), reports=(report(live=False, ready=False, message="refused"),), engine=engine
    )
    assert found["Ready"].reason == "EndpointUnreachable"
    assert "http://gpu:8000" in found["Ready"].message


def test_a_chat_template_that_takes_nothing_shuts_the_pool() -> None:
    refused = report(template_refusal="Conversation roles must alternate")
    found = conditions(pod_object(), deployment_object("p-miner", ready=1), reports=(refused,))
    assert (found["Ready"].reason, found["Available"].reason) == ("ChatTemplateRefuses",) * 2
    assert "Conversation roles must alternate" in found["Ready"].message
    assert "--chat-template" in found["Ready"].message


@pytest.mark.parametrize(("twins", "status"), [(4, "True"), (5, "False")])
def test_more_twins_than_slots_is_said(twins: int, status: str) -> None:
    found = conditions(pod_object(), reports=(report(),), twins=twins)
    assert found["CapacityAvailable"].status == status
    assert found["Ready"].status == "True"


def test_a_missing_miner_makes_a_pool_unavailable() -> None:
    found = conditions(pod_object(), deployment_object("p-miner", ready=0), reports=(report(),))
    assert (found["Ready"].reason, found["Available"].status) == ("MinerStarting", "False")


def test_too_few_engines_are_counted() -> None:
    assert ready_of(pod_object(), reports=(report(),), replicas=2)[1] == "EnginesStarting"


def test_a_rollout_is_not_ready_but_available() -> None:
    deployment = deployment_object()
    deployment["status"]["updatedReplicas"] = 0
    found = conditions(pod_object(), deployment, reports=(report(),))
    assert (found["Ready"].reason, found["Available"].status) == ("RollingOut", "True")


def test_a_pool_scaled_to_zero_answers_nobody() -> None:
    found = conditions(deployment_object(replicas=0, ready=0), replicas=0)
    assert {(found[kind].status, found[kind].reason) for kind in ("Ready", "Available")} == {("False", "ScaledToZero")}


def test_a_taken_name_is_the_first_reason() -> None:
    assert ready_of(problem=Finding(Reason.CHILD_CONFLICT, "Deployment p-engine exists"))[1:] == (
        "ChildConflict",
        "Deployment p-engine exists",
    )


def test_a_pod_that_leaves_is_not_held_against_the_pool() -> None:
    leaving = pod_object("old", ready=False, containerStatuses=[container_status(terminated=CRASH)])
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert ready_of(leaving, pod_object(), reports=(report(),))[0] == "True"


def test_a_report_of_an_earlier_pod_of_that_name_is_ignored() -> None:
    stale = report().model_copy(update={"pod": PodRef(name="p-engine-1", uid="another")})
    assert conditions(pod_object(), reports=(stale,))["EngineLive"].reason == "NotReported"


def test_a_report_that_does_not_parse_counts_as_silence() -> None:
    [odd] = report_objects(report())
    odd["engine"] = "odd"
    assert conditions(pod_object(), odd)["EngineLive"].reason == "NotReported"


def test_a_draining_pod_serves_nobody() -> None:
    assert ready_of(pod_object(), reports=(report(draining=True),))[1] == "EnginesStarting"


@pytest.mark.parametrize(("mode", "status"), [("Off", "False"), ("External", "True")])
def test_scaling_says_who_scales(mode: str, status: str) -> None:
    assert conditions(autoscaling={"mode": mode})["ScalingActive"].status == status


def test_of_pages_of_last_output_the_line_that_names_the_error_is_told() -> None:
    output = "\n".join(
        [
            "usage: api_server.py",
            *["  [--flag FLAG]"] * 200,
            "api_server.py: error: unrecognized arguments: --x",
            "",
            "bye",
        ]
    )
    crash = {"exitCode": 2, "reason": "Error", "message": output}
    _, reason, message = ready_of(
        pod_object(ready=False, containerStatuses=[container_status(waiting=BACKOFF, last=crash)])
    )
    assert reason == "EngineCrashed"
    assert "exit code 2: api_server.py: error: unrecognized arguments: --x; see" in message


def test_a_miner_that_ends_is_told_in_its_own_sentence_and_not_as_a_line_of_its_log() -> None:
    line = '{"time": "t", "level": "error", "logger": "neurons.miner", "message": "the Secret holds no hotkey"}\n'
    crash = {"exitCode": 2, "reason": "Error", "message": line}
    status = container_status("miner", waiting=BACKOFF, last=crash)
    _, reason, message = ready_of(pod_object("p-miner-1", component="miner", ready=False, containerStatuses=[status]))
    assert reason == "MinerCrashed"
    assert "exit code 2: the Secret holds no hotkey; see `kubectl logs" in message

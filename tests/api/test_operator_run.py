"""FineTuneRun on a real API server with the real Job controller; the test plays the kubelet and the trainer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bettertherapy_api import names
from bettertherapy_api.examination import OUTCOMES_KEY, examination_name
from bettertherapy_api.run_progress import PROGRESS_KEY, REVIEW_KEY, Review, RunProgress, RunStage, progress_name
from tests.api.operator_harness import (
    Cluster,
    clean,
    cluster,
    condition,
    digest,
    pool_manifest,
    twin_manifest,
    until,
)
from tests.unit.operator.run_samples import DATA, done, found
from twin_operator.domain.objects import Run, run_from
from twin_operator.engine.resources import (
    CONFIG_MAP,
    JOB,
    POD,
    ROLE,
    ROLE_BINDING,
    SERVICE_ACCOUNT,
    Manifest,
)  # fmt: skip
from twin_operator.kinds.resources import FINE_TUNE_RUN

pytestmark = pytest.mark.cluster

NOWHERE = {"nodeSelector": {"no-such-node": "yes"}}


@pytest.fixture
async def world(kubeconfig: Path, home: str) -> AsyncIterator[Cluster]:
    async with cluster(kubeconfig, home) as world:
        await world.apply(pool_manifest(home, **NOWHERE, fineTune={"maxConcurrentRuns": 2}))
        await world.apply(twin_manifest(home))
        yield world
        await clean(world)


def run_manifest(namespace: str, name: str = "r1", *, twin: str = "dr-a", **spec: Any) -> Manifest:
    return {
        "apiVersion": names.API_VERSION,
        "kind": "FineTuneRun",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "twinRef": {"name": twin}, "parentDigest": digest("a"),
            "dataset": {"uri": f"pvc://adapters/store/{twin}/interactions"}, **spec,
        },
    }  # fmt: skip


async def the_run(world: Cluster, name: str = "r1") -> Manifest:
    found = await world.api.get(FINE_TUNE_RUN, namespace=world.namespace, name=name)
    assert found is not None
    return found


async def trainer_pod(world: Cluster, name: str = "r1", *, not_uid: str = "", component: str = "trainer") -> Manifest:
    selector = f"{names.LABEL_RUN}={name},{names.LABEL_COMPONENT}={component}"

    async def pod() -> Manifest | None:
        things, _ = await world.api.list(POD, namespace=world.namespace, selector=selector)
        return next((each for each in things if each["metadata"]["uid"] != not_uid), None)

    seen: Manifest = await until(pod, what=f"a pod of the {component} of {name}")
    return seen


async def pod_status(world: Cluster, pod: Manifest, **status: Any) -> None:
    path = POD.path(namespace=world.namespace, name=pod["metadata"]["name"], subresource="status")
    await world.api._request("PATCH", path, body={"status": status}, content_type="application/merge-patch+json")


def ended(code: int, reason: str = "Error", container: str = "trainer") -> list[Manifest]:
    # The Job controller waits 10 s from this time until it tries again; after one long past it would not wait at all.
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    state = {"terminated": {"exitCode": code, "reason": reason, "startedAt": now, "finishedAt": now}}
    return [
        {
            "name": container, "image": "x", "imageID": "", "ready": False, "restartCount": 0, "started": False,
            "state": state, "lastState": {},
        }
    ]  # fmt: skip


async def say(world: Cluster, said: RunProgress, name: str = "r1") -> None:
    """Write the progress as a trainer does: its own key, by server-side apply."""
    await _write(world, "trainer", progress_name(name), {PROGRESS_KEY: said.to_json()})


async def _write(world: Cluster, who: str, name: str, data: dict[str, str]) -> None:
    path = CONFIG_MAP.path(namespace=world.namespace, name=name) + f"?fieldManager={who}&force=true"
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}
    await world.api._request("PATCH", path, body=body, content_type="application/apply-patch+yaml")


async def finish(
    world: Cluster, pod: Manifest, verdict: str, name: str = "r1", *, review: Review | None = None
) -> None:
    """Let the trainer end well, and then the examiner, of whose report the gate makes that verdict."""
    await say(world, done().model_copy(update={"attempt": pod["metadata"]["uid"]}), name)
    await pod_status(world, pod, phase="Succeeded", containerStatuses=ended(0, "Completed"))
    examiner = await trainer_pod(world, name, component="examiner")
    made = run_from(await the_run(world, name))
    assert isinstance(made, Run), made
    said = RunProgress(attempt=examiner["metadata"]["uid"], stage=RunStage.DONE, progress_percent=100)
    await _write(
        world, "examiner", examination_name(name),
        {
            PROGRESS_KEY: said.to_json(), OUTCOMES_KEY: found(made, verdict).to_json(),
            REVIEW_KEY: (review or Review()).to_json(),
        },
    )  # fmt: skip
    await pod_status(world, examiner, phase="Succeeded", containerStatuses=ended(0, "Completed", "examiner"))


async def stage(world: Cluster, wanted: str, name: str = "r1") -> bool:
    return ((await the_run(world, name)).get("status") or {}).get("stage") == wanted


async def test_a_run_reads_like_a_report_from_start_to_verdict(world: Cluster) -> None:
    await world.api.create(run_manifest(world.namespace))
    pod = await trainer_pod(world)
    uid = pod["metadata"]["uid"]
    await pod_status(world, pod, phase="Running")
    await say(world, RunProgress(attempt=uid, stage=RunStage.TRAIN, progress_percent=40, loss_milli=900, dataset=DATA))

    async def told() -> bool:
        status = (await the_run(world)).get("status") or {}
        return (status.get("progressPercent"), status.get("lossMilli"), status.get("stage")) == (40, 900, "Running")

    await until(told, what="progress is in the status")
    await finish(world, pod, "Reject")
    await until(lambda: stage(world, "Rejected"), what="the verdict")
    status = (await the_run(world))["status"]
    assert status["artifact"]["digest"] == digest("b")
    for kind in ("Trained", "Published", "Evaluated"):
        assert condition(await the_run(world), kind)[0] == "True"
    assert "completionTime" in status


async def test_an_hour_after_its_end_only_the_report_is_left(world: Cluster) -> None:
    await world.api.create(run_manifest(world.namespace))
    pod = await trainer_pod(world)
    await finish(world, pod, "Reject")
    await until(lambda: stage(world, "Rejected"), what="the verdict")
    assert await world.api.get(JOB, namespace=world.namespace, name="r1") is not None
    past = {"completionTime": (datetime.now(UTC) - timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")}
    path = FINE_TUNE_RUN.path(namespace=world.namespace, name="r1", subresource="status")
    await world.api._request("PATCH", path, body={"status": past}, content_type="application/merge-patch+json")

    async def tidy() -> bool:
        selector = f"{names.LABEL_RUN}=r1"
        left = [
            thing["kind"]
            for resource in (SERVICE_ACCOUNT, ROLE, ROLE_BINDING, CONFIG_MAP, JOB, POD)
            for thing in (await world.api.list(resource, namespace=world.namespace, selector=selector))[0]
        ]
        return left == ["ConfigMap", "ConfigMap"]

    await until(tidy, what="the Job, its pod and what they ran as are gone")
    assert await stage(world, "Rejected")


@pytest.mark.parametrize(
    ("status", "failure_class"),
    [
        ({"containerStatuses": ended(137, "OOMKilled")}, "OutOfMemory"),
        ({"containerStatuses": ended(1)}, "TrainerCrashed"),
    ],
)
async def test_what_would_fail_again_is_not_tried_again(
    world: Cluster, status: dict[str, Any], failure_class: str
) -> None:
    await world.api.create(run_manifest(world.namespace))
    await pod_status(world, await trainer_pod(world), phase="Failed", **status)
    await until(lambda: stage(world, "Failed"), what="the run failed")
    assert (await the_run(world))["status"]["failure"]["class"] == failure_class
    pods, _ = await world.api.list(POD, namespace=world.namespace, selector=f"{names.LABEL_RUN}=r1")
    assert len(pods) == 1


async def test_a_killed_trainer_is_started_again_as_often_as_the_run_says(world: Cluster) -> None:
    await world.api.create(run_manifest(world.namespace, retries=1))
    first = await trainer_pod(world)
    # What a kubelet says of a container that it lost sight of while its node restarted.
    await pod_status(world, first, phase="Failed", containerStatuses=ended(137, "ContainerStatusUnknown"))

    async def retrying() -> bool:
        return condition(await the_run(world), "Running") == ("False", "Retrying")

    await until(retrying, what="it says that another attempt follows")
    second = await trainer_pod(world, not_uid=first["metadata"]["uid"])
    await pod_status(world, second, phase="Failed", containerStatuses=ended(255, "Unknown"))
    await until(lambda: stage(world, "Failed"), what="the run failed")
    failure = (await the_run(world))["status"]["failure"]
    assert (failure["class"], failure["retryable"]) == ("Killed", True)


async def test_a_preempted_trainer_is_started_again_without_using_up_a_retry(world: Cluster) -> None:
    await world.api.create(run_manifest(world.namespace, retries=0))
    first = await trainer_pod(world)
    target = {
        "type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    await pod_status(world, first, phase="Failed", conditions=[target], containerStatuses=ended(143))
    second = await trainer_pod(world, not_uid=first["metadata"]["uid"])
    await pod_status(world, second, phase="Running")
    await finish(world, second, "Inconclusive")

    async def over() -> bool:
        return "completionTime" in (await the_run(world))["status"]

    await until(over, what="the second attempt ends it")
    status = (await the_run(world))["status"]
    assert (status["verdict"], "failure" in status) == ("Inconclusive", False)
    assert condition(await the_run(world), "Rejected") == ("False", "Inconclusive")


async def test_the_limit_holds_and_the_next_follows_when_a_place_is_free(world: Cluster) -> None:
    for number in range(5):
        await world.apply(twin_manifest(world.namespace, f"dr-{number}"))
        await world.api.create(run_manifest(world.namespace, f"r{number}", twin=f"dr-{number}"))

    async def jobs() -> set[str]:
        things, _ = await world.api.list(JOB, namespace=world.namespace)
        return {thing["metadata"]["name"] for thing in things}

    await until(lambda: _count(jobs, 2), what="two run")
    await asyncio.sleep(0.5)
    first = await jobs()
    assert len(first) == 2
    waiting = next(f"r{number}" for number in range(5) if f"r{number}" not in first)
    assert condition(await the_run(world, waiting), "Queued") == ("True", "PoolBusy")
    going = sorted(first)[0]
    await pod_status(world, await trainer_pod(world, going), phase="Failed", containerStatuses=ended(1))
    await until(lambda: _count(jobs, 3), what="the next one starts")
    await asyncio.sleep(0.5)
    assert len(await jobs()) == 3


async def _count(found: Any, wanted: int) -> bool:
    return len(await found()) == wanted


async def test_two_runs_of_a_twin_follow_each_other(world: Cluster) -> None:
    await world.api.create(run_manifest(world.namespace, "r1"))
    await trainer_pod(world, "r1")
    await world.api.create(run_manifest(world.namespace, "r2"))

    async def waits() -> bool:
        return condition(await the_run(world, "r2"), "Queued") == ("True", "TwinBusy")

    await until(waits, what="the second waits")
    await pod_status(world, await trainer_pod(world, "r1"), phase="Failed", containerStatuses=ended(1))
    await trainer_pod(world, "r2")


async def test_deleted_children_come_back_and_a_deleted_run_takes_them_along(world: Cluster) -> None:
    await world.api.create(run_manifest(world.namespace))
    await trainer_pod(world)
    configmap = await world.api.get(CONFIG_MAP, namespace=world.namespace, name="r1-progress")
    assert configmap is not None
    uid = configmap["metadata"]["uid"]
    await world.api.delete(CONFIG_MAP, namespace=world.namespace, name="r1-progress", uid=uid)

    async def back() -> bool:
        found = await world.api.get(CONFIG_MAP, namespace=world.namespace, name="r1-progress")
        return found is not None and found["metadata"]["uid"] != uid

    await until(back, what="the ConfigMap is made again")
    made = await the_run(world)
    await world.api.delete(FINE_TUNE_RUN, namespace=world.namespace, name="r1", uid=made["metadata"]["uid"])

    async def gone() -> bool:
        return await world.api.get(JOB, namespace=world.namespace, name="r1") is None

    await until(gone, what="the Job goes with its run")


async def test_a_run_waits_for_a_twin_that_does_not_exist_yet(world: Cluster) -> None:
    await world.api.create(run_manifest(world.namespace, "early", twin="dr-late"))

    async def waits() -> bool:
        return condition(await the_run(world, "early"), "Queued") == ("True", "TwinNotFound")

    await until(waits)
    made = datetime.fromisoformat((await the_run(world, "early"))["metadata"]["creationTimestamp"])

    async def later() -> bool:
        return (datetime.now(UTC) - made).total_seconds() >= 1

    await until(later, what="the twin's time is another than the run's: the API server gives whole seconds")
    await world.apply(twin_manifest(world.namespace, "dr-late"))
    await trainer_pod(world, "early")

"""Who may say what of a version, as each identity on a real API server, with the rights that the operator grants."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bettertherapy_api import names
from bettertherapy_api.examination import OUTCOMES_KEY, examination_name
from bettertherapy_api.run_progress import ArtifactReport, RunProgress, RunStage, progress_name
from tests.api.operator_harness import Cluster, clean, cluster, condition, digest, pool_manifest, twin_manifest, until
from tests.api.test_operator_run import (
    NOWHERE,
    ended,
    finish,
    pod_status,
    run_manifest,
    say,
    stage,
    the_run,
    trainer_pod,
)
from tests.conftest import Kubectl
from tests.unit.operator.run_samples import done
from twin_operator.engine.resources import CONFIG_MAP, ROLE, SERVICE_ACCOUNT

pytestmark = pytest.mark.cluster


@pytest.fixture
async def world(kubeconfig: Path, home: str) -> AsyncIterator[Cluster]:
    async with cluster(kubeconfig, home) as world:
        await world.apply(pool_manifest(home, **NOWHERE, fineTune={"maxConcurrentRuns": 2}))
        await world.apply(twin_manifest(home))
        yield world
        await clean(world)


async def trained(world: Cluster) -> None:
    """Let the trainer end well, and wait for the examiner."""
    await world.api.create(run_manifest(world.namespace))
    pod = await trainer_pod(world)
    await say(world, done().model_copy(update={"attempt": pod["metadata"]["uid"]}))
    await pod_status(world, pod, phase="Succeeded", containerStatuses=ended(0, "Completed"))
    await trainer_pod(world, component="examiner")


def writes(kubectl: Kubectl, world: Cluster, account: str, configmap: str) -> bool:
    """Tell whether an account may write a ConfigMap, as the API server says."""
    asked = kubectl(
        "auth", "can-i", "patch", f"configmaps/{configmap}", "-n", world.namespace,
        f"--as=system:serviceaccount:{world.namespace}:{account}", check=False,
    )  # fmt: skip
    return asked.stdout.strip() == "yes"


async def test_each_writes_its_own_report_and_nobody_elses(world: Cluster, kubectl: Kubectl) -> None:
    await world.api.create(run_manifest(world.namespace))
    await trainer_pod(world)
    assert writes(kubectl, world, "r1-trainer", progress_name("r1"))
    pod = await trainer_pod(world)
    await say(world, done().model_copy(update={"attempt": pod["metadata"]["uid"]}))
    for account in ("r1-trainer", "p-engine", "p-miner", "r2-trainer", "default"):
        assert not writes(kubectl, world, account, examination_name("r1")), account
    await pod_status(world, pod, phase="Succeeded", containerStatuses=ended(0, "Completed"))
    await trainer_pod(world, component="examiner")
    assert writes(kubectl, world, "r1-examiner", examination_name("r1"))
    assert not writes(kubectl, world, "r1-examiner", progress_name("r1"))


async def test_what_the_trainer_could_do_ends_with_it(world: Cluster, kubectl: Kubectl) -> None:
    await trained(world)

    async def gone() -> bool:
        left = [
            await world.api.get(resource, namespace=world.namespace, name="r1-trainer")
            for resource in (SERVICE_ACCOUNT, ROLE)
        ]
        return left == [None, None]

    await until(gone, what="the trainer's account and Role are gone")
    assert not writes(kubectl, world, "r1-trainer", progress_name("r1"))


async def test_a_configmap_with_the_runs_label_speaks_for_nobody(world: Cluster) -> None:
    await trained(world)
    forged = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": "anything", "namespace": world.namespace,
            "labels": {names.LABEL_RUN: "r1", names.LABEL_COMPONENT: "examination"},
        },
        "data": {"progress.json": RunProgress(attempt="x", stage=RunStage.DONE).to_json(), OUTCOMES_KEY: "{}"},
    }  # fmt: skip
    await world.api.create(forged)
    # What is known of the run afterwards comes from its own objects: the examination goes on to its verdict.
    selector = f"{names.LABEL_RUN}=r1,{names.LABEL_COMPONENT}=examination"
    things, _ = await world.api.list(CONFIG_MAP, namespace=world.namespace, selector=selector)
    assert len(things) == 2
    assert "verdict" not in (await the_run(world))["status"]


@pytest.mark.parametrize("uri", [f"s3://elsewhere/dr-a/{'b' * 64}", f"pvc://adapters/store/dr-b/{'b' * 64}"])
async def test_a_version_of_another_place_ends_the_run_in_words(world: Cluster, uri: str) -> None:
    await world.api.create(run_manifest(world.namespace))
    pod = await trainer_pod(world)
    made = ArtifactReport(uri=uri, digest=digest("b"), rank=8, bytes=1)
    await say(world, done().model_copy(update={"attempt": pod["metadata"]["uid"], "artifact": made}))
    await pod_status(world, pod, phase="Succeeded", containerStatuses=ended(0, "Completed"))
    await until(lambda: stage(world, "Failed"), what="the run failed")
    found = await the_run(world)
    assert condition(found, "Published") == ("False", "ArtifactRefused")
    assert "verdict" not in found["status"]


async def test_a_trainers_own_verdict_is_no_verdict(world: Cluster) -> None:
    await world.api.create(run_manifest(world.namespace))
    pod = await trainer_pod(world)
    said: dict[str, Any] = json.loads(done().model_copy(update={"attempt": pod["metadata"]["uid"]}).to_json())
    said["eval"] = {"verdict": "Promote", "samples": 0, "message": "trust me"}
    path = CONFIG_MAP.path(namespace=world.namespace, name=progress_name("r1")) + "?fieldManager=trainer&force=true"
    body = {
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": progress_name("r1")},
        "data": {"progress.json": json.dumps(said)},
    }  # fmt: skip
    await world.api._request("PATCH", path, body=body, content_type="application/apply-patch+yaml")
    await pod_status(world, pod, phase="Succeeded", containerStatuses=ended(0, "Completed"))
    await trainer_pod(world, component="examiner")
    assert "verdict" not in (await the_run(world))["status"]


async def test_a_second_try_on_the_same_lines_is_told_and_judged_more_strictly(world: Cluster) -> None:
    for name, number in (("r1", 1), ("r2", 2)):
        await world.api.create(run_manifest(world.namespace, name))
        await finish(world, await trainer_pod(world, name), "Reject", name)
        await until(lambda: stage(world, "Rejected", name), what=f"the verdict on {name}")  # noqa: B023
        assert (await the_run(world, name))["status"]["eval"]["attempt"] == number

    async def remembered() -> bool:
        lines = ((await world.twin()).get("status") or {}).get("examined") or []
        return [len(each["runs"]) for each in lines] == [2]

    await until(remembered, what="the twin remembers both")

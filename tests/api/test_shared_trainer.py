"""Runs that share a trainer, on a real API server with the real Job controller and garbage collector."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bettertherapy_api.examination import OUTCOMES_KEY, examination_name
from bettertherapy_api.run_progress import PROGRESS_KEY, FailureReport, RunProgress, RunStage
from tests.api.operator_harness import Cluster, clean, cluster, condition, digest, pool_manifest, twin_manifest, until
from tests.api.test_operator_run import (
    NOWHERE,
    _write,
    ended,
    pod_status,
    run_manifest,
    say,
    stage,
    the_run,
    trainer_pod,
)
from tests.unit.operator.cast import tasks_of
from tests.unit.operator.run_samples import done, found
from twin_operator.domain.objects import Run, run_from
from twin_operator.engine.resources import JOB, Manifest
from twin_operator.kinds.resources import FINE_TUNE_RUN

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

LETTERS = {"r1": "b", "r2": "c", "r3": "d"}


def pool(namespace: str, *, places: int) -> Manifest:
    ways = {"maxConcurrentRuns": places, "runsPerTrainer": 3}
    return pool_manifest(namespace, **NOWHERE, fineTune=ways)


@pytest.fixture
async def world(kubeconfig: Path, home: str) -> AsyncIterator[Cluster]:
    """Three runs wait; then the pool has one place."""
    async with cluster(kubeconfig, home) as world:
        await world.apply(pool(home, places=0))
        for name in LETTERS:
            twin = name.replace("r", "dr-")
            await world.apply(twin_manifest(home, twin, systemPrompt=f"You are {twin}."))
            await world.api.create(run_manifest(home, name, twin=twin))

        async def all_wait() -> bool:
            return all([condition(await the_run(world, name), "Queued") == ("True", "PoolBusy") for name in LETTERS])

        await until(all_wait, what="all wait")
        await world.apply(pool(home, places=1))
        yield world
        await clean(world)


async def the_job(world: Cluster, *, component: str = "trainer", without: str = "") -> Manifest:
    """Return the one Job of trainers or examiners that has not ended."""

    async def only() -> Manifest | None:
        things, _ = await world.api.list(JOB, namespace=world.namespace)
        fitting = [
            each
            for each in things
            if each["metadata"]["labels"]["bettertherapy.io/component"] == component
            and each["metadata"]["name"] != without
            and not (each.get("status") or {}).get("conditions")
        ]
        return fitting[0] if len(fitting) == 1 else None

    made: Manifest = await until(only, what=f"one {component}")
    return made


def runs_of(job: Manifest) -> list[str]:
    return [task.run for task in tasks_of(job)]


def published(name: str, attempt: str) -> RunProgress:
    made = done().artifact
    assert made is not None
    twin, letter = name.replace("r", "dr-"), LETTERS[name]
    uri = f"pvc://adapters/store/{twin}/{letter * 64}"
    return done().model_copy(
        update={"attempt": attempt, "artifact": made.model_copy(update={"uri": uri, "digest": digest(letter)})}
    )


async def test_three_runs_have_one_trainer_and_one_examiner_and_an_end_of_their_own_each(world: Cluster) -> None:
    job = await the_job(world)
    leader = job["metadata"]["name"]
    runs = runs_of(job)
    assert (runs[0], sorted(runs)) == (leader, ["r1", "r2", "r3"])
    failing, other = runs[1:]
    pod = await trainer_pod(world, leader)
    uid = pod["metadata"]["uid"]
    await pod_status(world, pod, phase="Running")

    async def unbegun() -> bool:
        return condition(await the_run(world, other), "Running") == ("False", "SharedJobBusy")

    await until(unbegun, what="a run that was not begun says so")
    why = FailureReport(failure_class="Diverged", retryable=False, message="step 7: NaN")
    await say(world, RunProgress(attempt=uid, stage=RunStage.TRAIN, failure=why), failing)
    await until(lambda: stage(world, "Failed", failing), what="one fails by itself")
    for name in (leader, other):
        await say(world, published(name, uid), name)
    await pod_status(world, pod, phase="Succeeded", containerStatuses=ended(0, "Completed"))
    examination = await the_job(world, component="examiner")
    assert sorted(runs_of(examination)) == sorted([leader, other])
    head = runs_of(examination)[0]
    examiner = await trainer_pod(world, head, component="examiner")
    for name, verdict in ((leader, "Reject"), (other, "Promote")):
        made = run_from(await the_run(world, name))
        assert isinstance(made, Run), made
        said = RunProgress(attempt=examiner["metadata"]["uid"], stage=RunStage.DONE, progress_percent=100)
        outcomes = found(made, verdict, child=digest(LETTERS[name])).to_json()
        data = {PROGRESS_KEY: said.to_json(), OUTCOMES_KEY: outcomes}
        await _write(world, "examiner", examination_name(name), data)
    await pod_status(world, examiner, phase="Succeeded", containerStatuses=ended(0, "Completed", "examiner"))
    await until(lambda: _verdict(world, leader, "Reject"), what="the leader's verdict")
    await until(lambda: _verdict(world, other, "Promote"), what="the other's verdict")


async def _verdict(world: Cluster, name: str, wanted: str) -> bool:
    return ((await the_run(world, name)).get("status") or {}).get("verdict") == wanted


async def test_when_the_leader_is_deleted_the_others_are_trained_by_another(world: Cluster) -> None:
    job = await the_job(world)
    leader, *others = runs_of(job)
    pod = await trainer_pod(world, leader)
    await say(world, RunProgress(attempt=pod["metadata"]["uid"], stage=RunStage.TRAIN, progress_percent=40), others[0])
    gone = await the_run(world, leader)
    await world.api.delete(FINE_TUNE_RUN, namespace=world.namespace, name=leader, uid=gone["metadata"]["uid"])
    again = await the_job(world, without=leader)
    assert sorted(runs_of(again)) == sorted(others)
    status: dict[str, Any] = (await the_run(world, others[0]))["status"]
    assert "progressPercent" not in status, "what the former trainer said counts no more"

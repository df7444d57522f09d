"""The plugin's commands of the fine-tune loop, as programs, against a real API server with a real operator.

The test plays kubelet, agents and trainer.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bettertherapy_api import names
from bettertherapy_api.examination import examination_name
from bettertherapy_api.run_progress import REVIEW_KEY, Review, ReviewItem, RunProgress, RunStage
from tests.api.operator_harness import Cluster, clean, cluster, digest, until
from tests.api.test_operator_rollout import A, B, are, holds, load, passed, serve
from tests.api.test_operator_run import ended, finish, pod_status, run_manifest, say, the_run, trainer_pod
from tests.unit.operator.run_samples import DATA
from twin_operator.kinds.resources import FINE_TUNE_RUN, MINER_POOL

pytestmark = pytest.mark.cluster

DOCTOR = {"gate": {"approval": "Doctor"}}


@pytest.fixture
async def world(kubeconfig: Path, home: str) -> AsyncIterator[Cluster]:
    async with cluster(kubeconfig, home) as world:
        yield world
        await clean(world)


@dataclass
class Said:
    """What the plugin printed, and how it ended."""

    code: int
    out: str
    err: str


class Plugin:
    """`kubectl twin` as a program."""

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        self.kubeconfig, self.namespace = kubeconfig, namespace

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "kubectl_twin", *arguments, "-n", self.namespace,
            env={**os.environ, "KUBECONFIG": str(self.kubeconfig)},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip

    async def end(self, process: asyncio.subprocess.Process) -> Said:
        async with asyncio.timeout(60):
            out, err = await process.communicate()
        said = Said(code=process.returncode or 0, out=out.decode(), err=err.decode())
        assert "Traceback" not in said.err, said.err
        return said

    async def __call__(self, *arguments: str) -> Said:
        return await self.end(await self.start(*arguments))


@pytest.fixture
def twin(kubeconfig: Path, home: str) -> Plugin:
    return Plugin(kubeconfig, home)


async def reviewed(world: Cluster, run: str = "r1") -> None:
    """The examiner has kept both versions' answers."""
    item = ReviewItem(
        id="hours", kind="gold", question="When can I come?", parent="On Monday.", child="On Tuesday and Friday.",
        parent_percent=0, child_percent=100,
    )  # fmt: skip
    await world.api.create(
        {
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {
                "name": examination_name(run), "namespace": world.namespace,
                "labels": {names.LABEL_COMPONENT: "examination"},
            },
            "data": {REVIEW_KEY: Review(items=(item,)).to_json()},
        }
    )  # fmt: skip


async def waiting(world: Cluster) -> bool:
    return "pendingVersion" in ((await world.twin()).get("status") or {})


async def test_a_fine_tune_is_asked_for_and_followed_to_its_verdict(world: Cluster, twin: Plugin) -> None:
    await serve(world, {}, **DOCTOR)
    following = await twin.start("finetune", "dr-a", "--now")

    async def made() -> str | None:
        runs, _ = await world.api.list(FINE_TUNE_RUN, namespace=world.namespace)
        return runs[0]["metadata"]["name"] if runs else None

    run = await until(made, what="the operator makes the run")
    pod = await trainer_pod(world, run)
    uid = pod["metadata"]["uid"]
    await pod_status(world, pod, phase="Running")
    await say(
        world,
        RunProgress(
            attempt=uid, stage=RunStage.TRAIN, progress_percent=40, step=4, steps=10, loss_milli=900,
            remaining_seconds=300, dataset=DATA,
        ),
        run,
    )  # fmt: skip

    async def seen() -> bool:
        return ((await the_run(world, run)).get("status") or {}).get("progressPercent") == 40

    await until(seen)
    busy = await twin("finetune", "dr-a", "--now")
    assert (busy.code, f"{run} has not ended" in busy.err) == (1, True)
    await asyncio.sleep(1.5)
    await finish(world, pod, "Promote", run)
    said = await twin.end(following)
    assert said.code == 0, said.err
    assert "training · 40% · step 4 of 10 · loss 0.900 · about 5 min left" in said.err
    assert "Promote on 200 items" in said.out
    assert f"It waits for the doctor: `kubectl twin review dr-a -n {world.namespace}`" in said.out


async def test_what_stands_in_the_way_is_said_and_nothing_stays_asked_for(world: Cluster, twin: Plugin) -> None:
    await serve(world, {})
    await world.api.merge(MINER_POOL, namespace=world.namespace, name="p", patch={"spec": {"store": None}})
    said = await twin("finetune", "dr-a", "--now")
    assert said.code == 1
    assert "Nothing was started: MinerPool p has no spec.store to publish to" in said.err
    assert names.FINETUNE_NOW_ANNOTATION not in (await world.twin())["metadata"].get("annotations", {})


async def test_too_little_new_data_is_an_error_with_the_count(world: Cluster, twin: Plugin) -> None:
    await serve(world, {})
    made = await twin("finetune", "dr-a", "--now", "--no-wait")
    assert made.code == 0, made.err
    run = made.out.split()[1]
    pod = await trainer_pod(world, run)
    following = await twin.start("finetune", "dr-a")
    await asyncio.sleep(1.5)
    skipped = "3 new interactions; 20 are needed"
    await say(world, RunProgress(attempt=pod["metadata"]["uid"], stage=RunStage.DONE, skipped=skipped), run)
    await pod_status(world, pod, phase="Succeeded", containerStatuses=ended(0, "Completed"))
    said = await twin.end(following)
    assert (said.code, f"{run} was skipped: {skipped}" in said.err) == (1, True), said.err


async def test_a_doctor_reviews_approves_and_takes_back(world: Cluster, twin: Plugin, kubectl: Any) -> None:
    await serve(world, {}, **DOCTOR)
    nothing = await twin("approve", "dr-a")
    assert (nothing.code, "No version of dr-a waits for a decision" in nothing.err) == (1, True)
    await passed(world)
    await reviewed(world)
    await until(lambda: waiting(world))

    review = await twin("review", "dr-a")
    assert review.code == 0, review.err
    assert all(part in review.out for part in ("When can I come?", "On Monday.", "On Tuesday and Friday.", "Promote"))
    assert json.loads((await twin("review", "dr-a", "-o", "json")).out)["awaitsDecision"] is True

    other = await twin("approve", "dr-a", "--digest", "cccccccc")
    assert (other.code, f"What waits is {B}" in other.err) == (1, True)
    approved = await twin("approve", "dr-a", "--digest", "bbbbbbbb")
    assert approved.code == 0, approved.err
    assert f"Approved {B}" in approved.out
    await until(lambda: holds(world, A, B))
    await load(world, "a", "b")
    await until(lambda: are(world, b=100), what="it takes over")
    await until(lambda: holds(world, B))
    await load(world, "b")

    going_back = await twin.start("rollback", "dr-a")
    await until(lambda: holds(world, A, B), what="a is loaded again")
    await load(world, "a", "b")
    back = await twin.end(going_back)
    assert back.code == 0, back.err
    assert f"{A} answers all patients again" in back.out
    assert await are(world, a=100)
    unknown = await twin("rollback", "dr-a", "--to", "beef")
    assert unknown.code == 1
    assert "has no version beef to go back to" in unknown.err
    assert "bbbbbbbbbbbb  dr-a-bbbbbbbb" in unknown.err

    # Also when the run has expired the twin remembers.
    run = await the_run(world)
    await world.api.delete(FINE_TUNE_RUN, namespace=world.namespace, name="r1", uid=run["metadata"]["uid"])
    history = json.loads((await twin("history", "dr-a", "-o", "json")).out)
    assert [(row["servedName"], row["outcome"]) for row in history] == [(A, "answers"), (B, "rolled back")]
    assert history[1]["since"] <= history[1]["until"] == history[0]["since"]
    lineage = json.loads((await twin("lineage", "dr-a", "-o", "json")).out)
    (made,) = [row for row in lineage if row["digest"] == digest("b")]
    assert (made["run"], made["runExists"], made["parent"]) == ("r1", False, digest("a"))
    status = await twin("status", "dr-a")
    assert "last gate" in status.out


async def test_a_doctor_rejects_with_a_reason(world: Cluster, twin: Plugin) -> None:
    await serve(world, {}, **DOCTOR)
    await passed(world)
    await until(lambda: waiting(world))
    rejected = await twin("reject", "dr-a", "--reason", "too sure about doses")
    assert rejected.code == 0, rejected.err
    assert f"Rejected {B}" in rejected.out
    history = await twin("history", "dr-a")
    assert "rejected by the doctor on " in history.out
    assert "too sure about doses" in history.out


async def test_runs_read_like_a_report(world: Cluster, kubectl: Any) -> None:
    await serve(world, {})
    await world.api.create(run_manifest(world.namespace))
    pod = await trainer_pod(world)
    await pod_status(world, pod, phase="Running")
    uid = pod["metadata"]["uid"]
    await say(world, RunProgress(attempt=uid, stage=RunStage.TRAIN, progress_percent=40, loss_milli=900, dataset=DATA))

    async def told() -> bool:
        return ((await the_run(world)).get("status") or {}).get("progressPercent") == 40

    await until(told)
    got = kubectl("get", "finetuneruns", "-n", world.namespace, "--field-selector", "spec.twinRef.name=dr-a").stdout
    head, line = got.splitlines()
    assert head.split() == ["NAME", "TWIN", "STAGE", "PROGRESS", "LOSS", "VERDICT", "AGE"]
    assert line.split()[:5] == ["r1", "dr-a", "Running", "40%", "0.900"]
    none = kubectl("get", "finetuneruns", "-n", world.namespace, "--field-selector", "spec.twinRef.name=dr-b")
    assert not none.stdout

"""Trainers, and then examiners, that a benchmark plays: they bring a run to the verdict Promote and train nothing."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Protocol

from bettertherapy_api import names
from bettertherapy_api.examination import OUTCOMES_KEY, examination_name
from bettertherapy_api.run_progress import (
    PROGRESS_KEY,
    ArtifactReport,
    DatasetReport,
    RunProgress,
    RunStage,
    progress_name,
)
from neurons.store import publish_adapter
from tests.api import operator_harness
from tests.api.operator_harness import until
from tests.bench.demo_pool import Version
from tests.bench.registry import BenchmarkError
from tests.bench.watching import Manifest
from tests.standin import FakeAdapter
from tests.unit.operator.run_samples import DATA, found
from twin_operator.domain.objects import Run, run_from
from twin_operator.engine.resources import CONFIG_MAP, POD
from twin_operator.engine.times import timestamp
from twin_operator.kinds.resources import DOCTOR_TWIN, FINE_TUNE_RUN

PATIENCE_SECONDS: Final = 120.0
_STORE: Final = "pvc://adapters/store"


class Trainer(Protocol):
    """Brings a run to the verdict Promote."""

    async def start(self, number: int, parent: str) -> str:
        """Have a run made for the twin; returns its name."""

    async def finish(self, run: str, version: Version) -> float:
        """Let it end with this version, which is in the store then; returns when the examiner had reported."""


class PlayedTrainer:
    """Asks the operator for a run, and plays its trainer: publishes, reports, ends the pod."""

    def __init__(
        self, world: operator_harness.Cluster, *, twin: str, made: dict[str, FakeAdapter], pvc: Path
    ) -> None:  # fmt: skip
        self._world, self._twin, self._made, self._pvc = world, twin, made, pvc
        self._known: set[str] = set()

    async def start(self, number: int, parent: str) -> str:
        """Ask by annotation, as `kubectl twin finetune` does."""
        patch = {"metadata": {"annotations": {names.FINETUNE_NOW_ANNOTATION: f"number-{number}"}}}
        await self._world.api.merge(DOCTOR_TWIN, namespace=self._world.namespace, name=self._twin, patch=patch)

        async def made() -> str:
            runs, _ = await self._world.api.list(FINE_TUNE_RUN, namespace=self._world.namespace)
            return next(
                (name for run in runs if (name := run["metadata"]["name"]) not in self._known), ""
            )  # fmt: skip

        name = str(await until(made, seconds=PATIENCE_SECONDS, what=f"run {number} is made"))
        self._known.add(name)
        run = await self._world.api.get(FINE_TUNE_RUN, namespace=self._world.namespace, name=name)
        if run is None or run["spec"].get("parentDigest") != parent:
            raise BenchmarkError(f"run {name} does not go on from the version that serves")
        return name

    async def finish(self, run: str, version: Version) -> float:
        """Publish the version, say so with the verdict, and end the pod well."""
        pod = await until(lambda: self._pod(run), seconds=PATIENCE_SECONDS, what=f"a trainer's pod of {run}")
        adapter = self._made[version.digest]
        uri = await publish_adapter(
            adapter.folder, _STORE, self._twin, adapter.manifest, pvc_dir=self._pvc
        )  # fmt: skip
        if uri != version.uri:
            raise BenchmarkError(f"published at {uri} and not at {version.uri}")
        size = sum(entry.size for entry in adapter.manifest.files)
        said = _last_word(pod["metadata"]["uid"], version, size=size, dataset=f"{_STORE}/{self._twin}/datasets/x")
        await self._say("trainer", progress_name(run), {PROGRESS_KEY: said.to_json()})
        await self._end(pod, "trainer")
        pod = await until(
            lambda: self._pod(run, "examiner"), seconds=PATIENCE_SECONDS, what=f"an examiner's pod of {run}"
        )
        made = run_from(await self._world.api.get(FINE_TUNE_RUN, namespace=self._world.namespace, name=run))
        if not isinstance(made, Run):
            raise BenchmarkError(f"run {run} can't be read: {made}")
        last = RunProgress(attempt=pod["metadata"]["uid"], stage=RunStage.DONE, progress_percent=100)
        outcomes = found(made, child=version.digest)
        await self._say(
            "examiner", examination_name(run), {PROGRESS_KEY: last.to_json(), OUTCOMES_KEY: outcomes.to_json()}
        )
        examined = time.monotonic()
        await self._end(pod, "examiner")
        return examined

    async def _say(self, who: str, name: str, data: dict[str, str]) -> None:
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}
        path = CONFIG_MAP.path(namespace=self._world.namespace, name=name)
        await self._world.api._request(
            "PATCH", path, query={"fieldManager": who, "force": "true"}, body=body,
            content_type="application/apply-patch+yaml",
        )  # fmt: skip

    async def _end(self, pod: Manifest, container: str) -> None:
        status = {"phase": "Succeeded", "containerStatuses": [_ended_well(container)]}
        path = POD.path(namespace=self._world.namespace, name=pod["metadata"]["name"], subresource="status")
        await self._world.api._request(
            "PATCH", path, body={"status": status}, content_type="application/merge-patch+json"
        )  # fmt: skip

    async def _pod(self, run: str, component: str = "trainer") -> Manifest | None:
        selector = f"{names.LABEL_RUN}={run},{names.LABEL_COMPONENT}={component}"
        pods, _ = await self._world.api.list(POD, namespace=self._world.namespace, selector=selector)
        return next(iter(pods), None)


def _last_word(attempt: str, version: Version, *, size: int, dataset: str) -> RunProgress:
    return RunProgress(
        attempt=attempt, stage=RunStage.DONE, progress_percent=100, step=30, steps=30, loss_milli=1200,
        dataset=DatasetReport(uri=dataset, digest=DATA.digest, interactions=40),
        artifact=ArtifactReport(uri=version.uri, digest=version.digest, rank=version.rank, bytes=size),
    )  # fmt: skip


def _ended_well(container: str) -> Manifest:
    now = timestamp(datetime.now(UTC))
    state = {"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": now, "finishedAt": now}}
    return {
        "name": container, "image": "x", "imageID": "", "ready": False, "restartCount": 0, "started": False,
        "state": state, "lastState": {},
    }  # fmt: skip


class SkippedTrainer:
    """Makes runs that nobody trains: a queue that no one serves keeps their Jobs suspended, and this says their end."""

    def __init__(self, world: operator_harness.Cluster, *, twin: str) -> None:
        self._world, self._twin = world, twin
        self._made: dict[str, str] = {}

    async def start(self, number: int, parent: str) -> str:
        """Make the run and wait until it has started."""
        name = f"{self._twin}-{number}"
        run = {
            "apiVersion": names.API_VERSION,
            "kind": "FineTuneRun",
            "metadata": {"name": name, "namespace": self._world.namespace},
            "spec": {
                "twinRef": {"name": self._twin}, "parentDigest": parent, "queueName": "bench-nobody",
                "dataset": {"uri": f"file:///nowhere/{self._twin}"},
            },
        }  # fmt: skip
        self._made[name] = (await self._world.api.create(run))["metadata"]["uid"]

        async def started() -> bool:
            found = await self._world.api.get(FINE_TUNE_RUN, namespace=self._world.namespace, name=name)
            return "startTime" in ((found or {}).get("status") or {})

        await until(
            started, seconds=PATIENCE_SECONDS, what=f"run {name} starts: is another run in its pool's only place?"
        )
        return name

    async def finish(self, run: str, version: Version) -> float:
        """Write the status that the operator leaves after a run that passed."""
        now = timestamp(datetime.now(UTC))
        status = {
            "completionTime": now, "stage": "Evaluated", "verdict": "Promote",
            "artifact": {"uri": version.uri, "digest": version.digest, "rank": version.rank, "bytes": 1},
            "eval": {"verdict": "Promote", "samples": 40, "message": "71% against 64%"},
        }  # fmt: skip
        trained = time.monotonic()
        path = FINE_TUNE_RUN.path(namespace=self._world.namespace, name=run, subresource="status")
        await self._world.api._request(
            "PATCH", path, body={"status": status}, content_type="application/merge-patch+json"
        )  # fmt: skip
        return trained

    async def clean_up(self) -> None:
        """Delete the runs with their Jobs."""
        for name, uid in self._made.items():
            await self._world.api.delete(FINE_TUNE_RUN, namespace=self._world.namespace, name=name, uid=uid)

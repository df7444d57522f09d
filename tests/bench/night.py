"""A night in which many twins' fine-tunes are due at once, played on fake nodes, while the operator is killed.

The operator, the API server, the Job controller and the scheduler are real. kwok plays the kubelet of the fake nodes;
`Trainers` plays what the containers do: it writes progress as a trainer does, and lets kwok end the pod.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import yaml

from bettertherapy_api import names
from bettertherapy_api.doctor_twin import FineTune
from bettertherapy_api.examination import OUTCOMES_KEY, examination_name
from bettertherapy_api.run_progress import (
    PROGRESS_KEY,
    ArtifactReport,
    DatasetReport,
    RunProgress,
    RunStage,
    progress_name,
)
from neurons.cluster import ClusterClient, ClusterError
from tests.api import operator_harness
from tests.api.operator_harness import Operator, pool_manifest, twin_manifest, until
from tests.bench import processes
from tests.bench.watching import CONFIG_MAPS, JOBS, PODS, RUNS, Manifest, Seen, following
from tests.unit.operator.run_samples import found
from twin_operator.domain.objects import Run, run_from
from twin_operator.domain.schedule import schedule_of
from twin_operator.engine.resources import JOB
from twin_operator.kinds.resources import DOCTOR_TWIN

ENDED_ANNOTATION: Final = "kwok.bettertherapy.io/ended"
"""What kwok's stages wait for before a trainer's pod succeeds."""
ACCOUNT: Final = "operator"
AT_ONCE: Final = 8
"""Requests that furnish the cluster, at the same time."""
SAMPLE_SECONDS: Final = 0.5
LEAVE_SECONDS: Final = 30.0
FAKE: Final[dict[str, Any]] = {
    "nodeSelector": {"type": "kwok"},
    "tolerations": [{"key": "kwok.x-k8s.io/node", "operator": "Exists", "effect": "NoSchedule"}],
    # No volume claims: the scheduler waits for those to exist.
    "baseModel": {"name": operator_harness.BASE, "uri": "s3://models/smollm2"},
    "store": {"uri": "s3://adapters"},
}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the night is like."""

    twins: int
    pools: int = 2
    limit: int = 15
    """maxConcurrentRuns of each pool."""
    kills: int = 10
    window_seconds: int = 180
    trainer_seconds: tuple[float, float] = (2.0, 6.0)
    """Shortest and longest of a trainer, from its start to its last word."""
    seed: int = 1

    def pool_of(self, number: int) -> str:
        """Return the pool that serves the twin of this number."""
        return f"pool-{number % self.pools}"


@dataclass
class Night:
    """What was seen of it. Moments are time.monotonic(), dates are UTC."""

    plan: Plan
    due: dict[str, datetime] = field(default_factory=dict)
    """When each twin's run is due."""
    pool: dict[str, str] = field(default_factory=dict)
    created: dict[str, list[tuple[str, datetime]]] = field(default_factory=lambda: defaultdict(list))
    """Of each twin, UID and date of creation of its runs."""
    started: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    """Runs that did not end as their trainer said."""
    under_way: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Of each pool, the runs that have started and not ended."""
    most: Counter[str] = field(default_factory=Counter)
    jobs: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """UIDs of each run's Jobs."""
    trainers: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """UIDs of each run's pods, of trainer and of examiner apart."""
    working: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Of each pool, the trainers' pods that run now."""
    most_working: Counter[str] = field(default_factory=Counter)
    kills: list[float] = field(default_factory=list)
    away: list[float] = field(default_factory=list)
    """From each kill until an operator led again, in seconds."""
    memory_mb: list[float] = field(default_factory=list)
    cpu_seconds: float = 0.0
    opened: datetime | None = None
    drained: datetime | None = None

    def runs_of(self, twin: str) -> set[str]:
        """Return the UIDs of a twin's runs."""
        return {uid for uid, _ in self.created.get(twin, ())}

    @property
    def lost(self) -> list[str]:
        """Twins whose run was not made, or did not end."""
        return sorted(twin for twin in self.due if not self.runs_of(twin) or not self.runs_of(twin) <= self.ended)

    @property
    def doubled(self) -> list[str]:
        """What there was more than one of, for one twin: runs, Jobs, trainers."""
        twins = [twin for twin in self.due if len(self.runs_of(twin)) > 1]
        return sorted(
            twins + [run for held in (self.jobs, self.trainers) for run, uids in held.items() if len(uids) > 1]
        )

    def late_seconds(self) -> list[float]:
        """Return how long after its due time each twin's run was made; the API server's dates are whole seconds."""
        return [
            (min(date for _, date in made) - self.due[twin]).total_seconds()
            for twin, made in self.created.items()
            if twin in self.due and made
        ]

    # --- what the watches tell

    def see_run(self, seen: Seen) -> None:
        """Take one state of a run."""
        thing, status = seen.thing, seen.thing.get("status") or {}
        uid, twin = thing["metadata"]["uid"], thing["spec"]["twinRef"]["name"]
        if uid not in self.runs_of(twin):
            self.created[twin].append((uid, moment(thing["metadata"]["creationTimestamp"])))
        pool = status.get("pool") or self.pool.get(twin, "")
        if "startTime" in status:
            self.started.add(uid)
        if "completionTime" in status:
            self.ended.add(uid)
            self.under_way[pool].discard(uid)
            if status.get("verdict") != "Reject":
                self.failed[thing["metadata"]["name"]] = json.dumps(status.get("failure") or status.get("stage"))
        elif "startTime" in status:
            self.under_way[pool].add(uid)
            self.most[pool] = max(self.most[pool], len(self.under_way[pool]))

    def see_job(self, seen: Seen) -> None:
        """Take one state of a Job."""
        self.jobs[seen.thing["metadata"]["name"]].add(seen.thing["metadata"]["uid"])

    def see_pod(self, seen: Seen) -> None:
        """Take one state of a trainer's pod."""
        metadata, phase = seen.thing["metadata"], (seen.thing.get("status") or {}).get("phase")
        uid, pool = metadata["uid"], self.pool.get(metadata["labels"][names.LABEL_TWIN], "")
        labels = metadata["labels"]
        self.trainers[f"{labels[names.LABEL_RUN]} {labels[names.LABEL_COMPONENT]}"].add(uid)
        if phase in ("Pending", "Running") and not seen.gone:
            self.working[pool].add(uid)
            self.most_working[pool] = max(self.most_working[pool], len(self.working[pool]))
        else:
            self.working[pool].discard(uid)


def moment(text: str) -> datetime:
    """Read a date as the API server writes it."""
    return datetime.fromisoformat(text)


class Trainers:
    """Plays the containers of trainers' pods: three reports each, the last with a verdict, then the pod may end."""

    def __init__(self, client: ClusterClient, namespace: str, plan: Plan) -> None:
        self._client = client
        self._namespace = namespace
        self._random = random.Random(plan.seed)
        self._seconds = plan.trainer_seconds
        self._known: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def see_pod(self, seen: Seen) -> None:
        """Begin to train once the kubelet says that the pod runs."""
        metadata = seen.thing["metadata"]
        running = (seen.thing.get("status") or {}).get("phase") == "Running"
        if seen.gone or not running or metadata["uid"] in self._known:
            return
        self._known.add(metadata["uid"])
        task = asyncio.create_task(self._train(metadata))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """End all trainers."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _train(self, metadata: Manifest) -> None:
        run, twin, uid = metadata["labels"][names.LABEL_RUN], metadata["labels"][names.LABEL_TWIN], metadata["uid"]
        if metadata["labels"][names.LABEL_COMPONENT] == "examiner":
            await self._examine(run, uid)
            await self._end(metadata["name"])
            return
        seconds = self._random.uniform(*self._seconds)
        data = DatasetReport(uri=f"s3://adapters/{twin}/datasets/x", digest="sha256:" + "d" * 64, interactions=40)
        said = RunProgress(attempt=uid, stage=RunStage.TRAIN, dataset=data, step=0, steps=30)
        await self._say(run, said)
        await asyncio.sleep(seconds / 2)
        await self._say(run, said.model_copy(update={"progress_percent": 50, "step": 20, "loss_milli": 1200}))
        await asyncio.sleep(seconds / 2)
        made = ArtifactReport(
            uri=f"s3://adapters/{twin}/{'e' * 64}", digest="sha256:" + "e" * 64, rank=8, bytes=1_000_000
        )  # fmt: skip
        last = {"stage": RunStage.DONE, "progress_percent": 100, "step": 30, "artifact": made}
        await self._say(run, said.model_copy(update=last))
        await self._end(metadata["name"])

    async def _examine(self, run: str, uid: str) -> None:
        """Report what the gate rejects: what follows a Promote is another benchmark's business, nothing serves here."""
        made = run_from(await self._client.get(f"{RUNS.format(self._namespace)}/{run}", {}))
        assert isinstance(made, Run), made
        outcomes = found(made, "Reject", child="sha256:" + "e" * 64)
        said = RunProgress(attempt=uid, stage=RunStage.DONE, progress_percent=100)
        name = examination_name(run)
        body = {"metadata": {"name": name}, "data": {PROGRESS_KEY: said.to_json(), OUTCOMES_KEY: outcomes.to_json()}}
        await self._apply(CONFIG_MAPS, name, {"apiVersion": "v1", "kind": "ConfigMap", **body})

    async def _end(self, pod: str) -> None:
        body = {"metadata": {"name": pod, "annotations": {ENDED_ANNOTATION: "true"}}}
        await self._apply(PODS, pod, {"apiVersion": "v1", "kind": "Pod", **body})

    async def _say(self, run: str, said: RunProgress) -> None:
        body = {"metadata": {"name": progress_name(run)}, "data": {PROGRESS_KEY: said.to_json()}}
        await self._apply(CONFIG_MAPS, progress_name(run), {"apiVersion": "v1", "kind": "ConfigMap", **body})

    async def _apply(self, collection: str, name: str, body: Manifest) -> None:
        path = f"{collection.format(self._namespace)}/{name}"
        async with asyncio.timeout(LEAVE_SECONDS):
            while True:
                try:
                    return await self._client.apply(path, body=json.dumps(body), field_manager="trainer")
                except (ClusterError, OSError, TimeoutError):
                    await asyncio.sleep(0.5)


class Operators:
    """One operator at a time, started again at once when it is killed, as its kubelet would."""

    def __init__(self, kubeconfig: Path, namespace: str, logs: Path, night: Night) -> None:
        self._kubeconfig, self._namespace, self._logs = kubeconfig, namespace, logs
        self._night = night
        self._killed = asyncio.Event()
        self.current: Operator | None = None

    async def run(self) -> None:
        """Run operators until cancelled."""
        environ = {"TWIN_FINE_TUNE_WINDOW_SECONDS": str(self._night.plan.window_seconds)}
        for life in range(1_000_000):
            logs = self._logs / f"life-{life}"
            logs.mkdir()
            async with operator_harness.operator(self._kubeconfig, self._namespace, logs, **environ) as operator:
                await until(operator.leads, seconds=60, what="the operator leads")
                if self._night.kills:
                    self._night.away.append(time.monotonic() - self._night.kills[-1])
                self._killed.clear()
                self.current = operator
                watch = asyncio.create_task(self._watch(operator.process.pid))
                try:
                    await self._killed.wait()
                finally:
                    self.current = None
                    watch.cancel()
                self._night.cpu_seconds += processes.cpu_ms(operator.process.pid) / 1000
                self._night.kills.append(time.monotonic())
                await operator.stop(signal.SIGKILL)

    def kill(self) -> None:
        """Kill the one that leads."""
        self._killed.set()

    async def _watch(self, pid: int) -> None:
        while True:
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                self._night.memory_mb.append(processes.resident_mb(pid))
            await asyncio.sleep(SAMPLE_SECONDS)


async def furnish(world: operator_harness.Cluster, night: Night, cron_time: datetime) -> None:
    """Make the pools, and twins whose fine-tunes all have the cron time."""
    plan = night.plan
    for number in range(plan.pools):
        fine_tune = {"maxConcurrentRuns": plan.limit, "resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}
        await world.apply(pool_manifest(world.namespace, plan.pool_of(number), **FAKE, fineTune=fine_tune))
    schedule = {"schedule": f"{cron_time.minute} {cron_time.hour} * * *", "timeZone": "Etc/UTC"}

    async def make(number: int) -> None:
        name = f"dr-{number:04d}"
        night.pool[name] = plan.pool_of(number)
        await world.api.create(
            twin_manifest(world.namespace, name, letter=None, tier=plan.pool_of(number), fineTune=schedule)
        )
        spread = schedule_of(
            FineTune.model_validate(schedule), namespace=world.namespace, twin=name, window_seconds=plan.window_seconds
        )
        night.due[name] = spread.after(cron_time - timedelta(seconds=1))

    await _some_at_once(make(number) for number in range(plan.twins))


async def leave_overdue(world: operator_harness.Cluster, night: Night) -> None:
    """Write into each twin's status when its run is due, as an operator does that was there before the night."""

    async def write(twin: str) -> None:
        path = DOCTOR_TWIN.path(namespace=world.namespace, name=twin, subresource="status")
        body = {"status": {"nextFineTuneTime": night.due[twin].strftime("%Y-%m-%dT%H:%M:%SZ")}}
        await world.api._request("PATCH", path, body=body, content_type="application/merge-patch+json")

    await _some_at_once(write(twin) for twin in night.due)


async def all_know_their_time(world: operator_harness.Cluster, night: Night) -> bool:
    """Tell whether the operator has written down when each twin's run is due, and as the schedule says."""
    twins, _ = await world.api.list(DOCTOR_TWIN, namespace=world.namespace)
    told = {twin["metadata"]["name"]: (twin.get("status") or {}).get("nextFineTuneTime") for twin in twins}
    return len(told) == len(night.due) and all(
        time_ is not None and moment(time_) == night.due[twin] for twin, time_ in told.items()
    )


async def _some_at_once(jobs: Iterable[Any]) -> None:
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(job: Any) -> None:
        async with gate:
            await job

    async with asyncio.TaskGroup() as group:
        for job in jobs:
            group.create_task(one(job))


@contextlib.asynccontextmanager
async def played(client: ClusterClient, namespace: str, night: Night) -> AsyncIterator[None]:
    """Play the trainers and watch the night while the block lasts."""
    trainers = Trainers(client, namespace, night.plan)

    def see_pod(seen: Seen) -> None:
        night.see_pod(seen)
        trainers.see_pod(seen)

    selector = {"labelSelector": f"{names.LABEL_COMPONENT} in (trainer,examiner)"}
    async with (
        following(client, RUNS.format(namespace), night.see_run),
        following(client, JOBS.format(namespace), night.see_job, **selector),
        following(client, PODS.format(namespace), see_pod, **selector),
    ):
        try:
            yield
        finally:
            await trainers.stop()


async def until_drained(night: Night, operators: Operators, *, seconds: float) -> None:
    """Wait until all runs have ended; kill the operator each time another share of them has."""
    plan = night.plan
    thresholds = [round(plan.twins * (number + 1) / (plan.kills + 1)) for number in range(plan.kills)]

    async def look() -> bool:
        killed = len(night.kills)
        if killed < plan.kills and operators.current is not None and len(night.ended) >= thresholds[killed]:
            operators.kill()
        return len(night.ended) >= plan.twins and len(night.kills) >= plan.kills and operators.current is not None

    await until(look, seconds=seconds, what=f"all {plan.twins} runs have ended")
    night.drained = datetime.now(UTC)


@contextlib.asynccontextmanager
async def operators_of(kubeconfig: Path, namespace: str, logs: Path, night: Night) -> AsyncIterator[Operators]:
    """Have an operator while the block lasts; a defect of it ends the block."""
    operators = Operators(kubeconfig, namespace, logs, night)
    task = asyncio.create_task(operators.run())
    try:
        await until(lambda: _leads(operators, task), seconds=90, what="the first operator leads")
        yield operators
    finally:
        if operators.current is not None:
            night.cpu_seconds += processes.cpu_ms(operators.current.process.pid) / 1000
        task.cancel()
        await asyncio.wait({task})


async def _leads(operators: Operators, task: asyncio.Task[None]) -> bool:
    if task.done():
        task.result()
    return operators.current is not None


async def jobs_left(world: operator_harness.Cluster) -> list[str]:
    """Return the Jobs that have not ended."""
    jobs, _ = await world.api.list(JOB, namespace=world.namespace)
    return [
        job["metadata"]["name"]
        for job in jobs
        if not any(
            each["type"] in ("Complete", "Failed") and each["status"] == "True"
            for each in (job.get("status") or {}).get("conditions") or []
        )
    ]


def account_kubeconfig(kubectl: Callable[..., str], kubeconfig: Path, namespace: str, target: Path) -> Path:
    """Write a kubeconfig for a ServiceAccount of the operator's own, so that the audit log tells its writes apart."""
    kubectl("create", "serviceaccount", ACCOUNT, "-n", namespace)
    kubectl(
        "create", "clusterrolebinding", f"{namespace}-{ACCOUNT}", "--clusterrole=cluster-admin",
        f"--serviceaccount={namespace}:{ACCOUNT}",
    )  # fmt: skip
    token = kubectl("create", "token", ACCOUNT, "-n", namespace, "--duration=4h").strip()
    content = yaml.safe_load(kubeconfig.read_text())
    for user in content["users"]:
        user["user"] = {"token": token}
    target.write_text(json.dumps(content))
    target.chmod(0o600)
    return target

"""Plays everybody around the operator by what is there: Deployment and Job controllers, kubelets, agents, trainers,
examiners.

One `act` does at most one step for each object, and only what is not done yet: whoever is killed in between, the same
things follow.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bettertherapy_api import names
from bettertherapy_api.examination import OUTCOMES_KEY
from bettertherapy_api.run_progress import PROGRESS_KEY, ArtifactReport, RunProgress, RunStage
from tests.unit.operator.fake_api import FakeApi
from tests.unit.operator.run_samples import DATA, done, found
from tests.unit.operator.samples import NAMESPACE, digest
from twin_operator.domain.objects import Run, run_from
from twin_operator.engine.resources import Key, Manifest
from twin_operator.kinds.resources import POD_REPORT


@dataclass(frozen=True)
class Task:
    """What a Job is told to do for one run."""

    run: str
    twin: str
    configmap: str
    shared: bool


def tasks_of(job: Manifest) -> list[Task]:
    """Read what a trainer or an examiner is told as these do: `+` between the arguments of two runs."""
    [container] = job["spec"]["template"]["spec"]["containers"]
    groups: list[dict[str, str]] = [{}]
    for argument in container.get("args") or []:
        if argument == "+":
            groups.append({})
        else:
            name, _, value = argument.partition("=")
            groups[-1][name] = value
    alone = {each["name"]: each.get("value", "") for each in container.get("env") or []}.get("PROGRESS_CONFIGMAP", "")
    return [
        Task(each["--run"], each["--twin"], each.get("--progress-configmap", alone), len(groups) > 1)
        for each in groups
        if "--twin" in each
    ]


class Cast:
    """`trained` says which digest's letter a run makes, by the run's name; others train for ever."""

    def __init__(self, api: FakeApi, trained: Mapping[str, str]) -> None:
        self._api = api
        self._trained = trained
        self.taken_up: Counter[tuple[str, str]] = Counter()
        """(trainer or examiner, run) → by how many pods."""

    def act(self) -> None:
        """Let each go one step on."""
        for deployment in list(self._api.kinds("Deployment").values()):
            self._follow_deployment(deployment)
        for pod in list(self._api.kinds("Pod").values()):
            if pod["metadata"]["labels"].get(names.LABEL_COMPONENT) == "engine":
                self._report(pod)
        for job in list(self._api.kinds("Job").values()):
            self._work(job)

    def _put(self, thing: Manifest, **parts: Any) -> None:
        """Write parts of an object that is there, unless they say nothing new."""
        if any(thing.get(name) != value for name, value in parts.items()):
            self._api.put({**copy.deepcopy(thing), **parts})

    def _follow_deployment(self, deployment: Manifest) -> None:
        replicas = deployment["spec"].get("replicas", 1)
        counts = dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), replicas)
        status = {"observedGeneration": deployment["metadata"]["generation"], **counts}
        self._put(deployment, status=status)
        template = deployment["spec"]["template"]["metadata"]
        for number in range(replicas):
            name = f"{deployment['metadata']['name']}-{number}"
            if Key("Pod", NAMESPACE, name) not in self._api.objects:
                self._api.put(_pod(name, template["labels"], deployment, ip=f"10.0.0.{number + 1}", ready=True))
        surplus = Key("Pod", NAMESPACE, f"{deployment['metadata']['name']}-{replicas}")
        while surplus in self._api.objects:
            self._api.drop(surplus)
            replicas += 1
            surplus = Key("Pod", NAMESPACE, f"{deployment['metadata']['name']}-{replicas}")

    def _report(self, pod: Manifest) -> None:
        """Hold, verified, what the pool publishes."""
        name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
        pool = pod["metadata"]["labels"][names.LABEL_POOL]
        wanted = {
            each["servedName"]: {"twin": entry["name"], "digest": each["digest"], "state": "Verified"}
            for published in self._api.kinds("RoutingSlice").values()
            if published["metadata"]["labels"][names.LABEL_POOL] == pool
            for entry in (published.get("twins") or {}).values()
            for each in entry.get("adapters") or []
        }
        known = self._api.objects.get(Key(POD_REPORT.kind, NAMESPACE, name))
        if known is not None and known.get("adapters") == wanted:
            return
        gone = dict.fromkeys(((known or {}).get("adapters") or {}).keys() - wanted.keys())
        self._api.put({
            "apiVersion": POD_REPORT.api_version, "kind": POD_REPORT.kind,
            "metadata": {
                "name": name, "namespace": NAMESPACE,
                "labels": {names.LABEL_POOL: pool, names.LABEL_COMPONENT: "report"},
                "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}],
            },
            "pod": {"name": name, "uid": uid}, "ready": True, "engine": {"live": True}, "adapters": {**wanted, **gone},
        })  # fmt: skip

    def _work(self, job: Manifest) -> None:
        """Start the pod of a trainer or an examiner, let it do one run after the other, and end it."""
        name, labels = job["metadata"]["name"], job["spec"]["template"]["metadata"]["labels"]
        if (job.get("status") or {}).get("conditions"):
            return
        pod, tasks = self._api.objects.get(Key("Pod", NAMESPACE, f"{name}-1")), tasks_of(job)
        if pod is None:
            self._api.put(_pod(f"{name}-1", labels, job, ip="10.0.1.1", ready=False))
            self.taken_up.update((labels[names.LABEL_COMPONENT], task.run) for task in tasks)
        elif not tasks:
            return  # a validator's
        elif pod["status"]["phase"] != "Running":
            complete = {"type": "Complete", "status": "True", "reason": "CompletionsReached", "message": "m"}
            self._put(job, status={"succeeded": 1, "conditions": [complete]})
        elif all(self._has_done(task, pod) for task in tasks):
            self._put(pod, status={**pod["status"], "phase": "Succeeded"})

    def _has_done(self, task: Task, pod: Manifest) -> bool:
        """Go one step on with a run; tells whether nothing is left to do for it."""
        attempt, examines = pod["metadata"]["uid"], pod["metadata"]["labels"][names.LABEL_COMPONENT] == "examiner"
        said = self._api.objects.get(Key("ConfigMap", NAMESPACE, task.configmap))
        if said is None:
            return task.shared  # the run is gone; alone it would end with its Job
        told = (said.get("data") or {}).get(PROGRESS_KEY)
        if told is None:
            stage, data = (RunStage.EVALUATE, None) if examines else (RunStage.TRAIN, DATA)
            self._say(said, RunProgress(attempt=attempt, stage=stage, progress_percent=40, dataset=data))
            return False
        if RunProgress.model_validate_json(told).is_done:
            return True
        if task.run not in self._trained:
            return False
        if examines:
            last, beside = self._found(task.run, attempt)
        else:
            last, beside = self._published(task.run, task.twin, attempt), {}
        self._say(said, last, **beside)
        return True

    def _published(self, run: str, twin: str, attempt: str) -> RunProgress:
        """Return what a trainer says that has published."""
        letter = self._trained[run]
        uri = f"pvc://adapters/store/{twin}/{letter * 64}"
        made = ArtifactReport(uri=uri, digest=digest(letter), rank=8, bytes=1000)
        return done().model_copy(update={"attempt": attempt, "artifact": made})

    def _found(self, run: str, attempt: str) -> tuple[RunProgress, dict[str, str]]:
        """Return what an examiner says that is done, and what it found."""
        made = run_from(self._api.objects[Key("FineTuneRun", NAMESPACE, run)])
        assert isinstance(made, Run), made
        outcomes = found(made, child=digest(self._trained[run]))
        said = RunProgress(attempt=attempt, stage=RunStage.DONE, progress_percent=100)
        return said, {OUTCOMES_KEY: outcomes.to_json()}

    def _say(self, configmap: Manifest, progress: RunProgress, **beside: str) -> None:
        self._put(configmap, data={**(configmap.get("data") or {}), PROGRESS_KEY: progress.to_json(), **beside})


def _pod(name: str, labels: Mapping[str, str], owner: Manifest, *, ip: str, ready: bool) -> Manifest:
    reference = {
        "apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"], "controller": True,
    }  # fmt: skip
    return {
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": NAMESPACE, "labels": dict(labels), "ownerReferences": [reference],
        },
        "status": {
            "podIP": ip, "phase": "Running", "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        },
    }  # fmt: skip

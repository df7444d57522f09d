"""What is observed of a run: its Job, the trainer's pods and the trainer's own report."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from pydantic import ValidationError

from bettertherapy_api.run_progress import PROGRESS_KEY, FailureReport, LastWord, RunProgress, read_progress
from twin_operator.domain.appearances import TRAINER
from twin_operator.domain.pool_facts import PodFacts, pod_facts
from twin_operator.domain.reasons import Reason, from_elsewhere
from twin_operator.engine.conditions import Finding
from twin_operator.engine.resources import Manifest

PROMPT_KEY: Final = "system-prompt.txt"
"""In the progress ConfigMap: the twin's system prompt as it was when the run began."""
KILLED: Final = (137, 143, 255)
"""Exit statuses of a trainer that somebody ended: SIGKILL, SIGTERM before it listened, and what a kubelet reports of a
container that it lost sight of, as after a restart of its node. None of them says anything of the run itself."""
_NODE_LOST: Final = frozenset({"DeletionByPodGC", "DeletionByTaintManager", "NodeLost"})


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why an attempt failed."""

    reason: Reason
    """Also its class in the status."""
    retryable: bool
    message: str

    @property
    def finding(self) -> Finding:
        """What a condition says of it."""
        return Finding(self.reason, self.message)


@dataclass(frozen=True, kw_only=True)
class JobFacts:
    """The trainer's Job."""

    suspended: bool = False
    active: int = 0
    failed: int = 0
    finished: str | None = None
    """Complete or Failed."""
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class TrainerPod:
    """One attempt."""

    pod: PodFacts
    created: str
    phase: str
    disruption: str | None
    """Reason of the DisruptionTarget condition, or NodeLost."""


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """All that is observed of one run."""

    job: JobFacts | None = None
    pods: tuple[TrainerPod, ...] = ()
    """Oldest first."""
    progress: RunProgress | None = None
    unreadable: str | None = None
    """What is wrong with the trainer's report, of which then nothing counts."""
    prompt: str | None = None
    has_configmap: bool = False


def read_facts(children: Iterable[Manifest]) -> RunFacts:
    """Read the facts out of a run's labelled objects."""
    job: JobFacts | None = None
    configmap: Manifest | None = None
    pods = []
    for thing in children:
        if thing["kind"] == "Job":
            job = job_facts(thing)
        elif thing["kind"] == "ConfigMap":
            configmap = thing
        elif thing["kind"] == "Pod":
            pods.append(trainer_pod(thing))
    data = (configmap or {}).get("data") or {}
    progress = read_progress(data[PROGRESS_KEY]) if PROGRESS_KEY in data else None
    return RunFacts(
        job=job,
        pods=tuple(sorted(pods, key=lambda each: (each.created, each.pod.name))),
        progress=None if isinstance(progress, str) else progress,
        unreadable=progress if isinstance(progress, str) else None,
        prompt=data.get(PROMPT_KEY),
        has_configmap=configmap is not None,
    )


def job_facts(job: Manifest) -> JobFacts:
    """Read one Job."""
    status = job.get("status") or {}
    ended: Manifest = next(
        (
            condition
            for condition in status.get("conditions") or []
            if condition["type"] in ("Complete", "Failed") and condition["status"] == "True"
        ),
        {},
    )
    return JobFacts(
        suspended=bool((job.get("spec") or {}).get("suspend")),
        active=int(status.get("active") or 0),
        failed=int(status.get("failed") or 0),
        finished=ended.get("type"),
        reason=ended.get("reason") or "",
        message=ended.get("message") or "",
    )


def trainer_pod(pod: Manifest) -> TrainerPod:
    """Read one of the trainer's pods."""
    status = pod.get("status") or {}
    disrupted = next(
        (
            condition.get("reason") or "Disrupted"
            for condition in status.get("conditions") or []
            if condition["type"] == "DisruptionTarget" and condition["status"] == "True"
        ),
        None,
    )
    lost = status.get("reason") if status.get("reason") in _NODE_LOST else None
    return TrainerPod(
        pod=pod_facts(pod),
        created=pod["metadata"].get("creationTimestamp", ""),
        phase=status.get("phase") or "Pending",
        disruption=lost or disrupted,
    )


def attempt_failure(  # noqa: PLR0911  # one return per class
    pod: TrainerPod, progress: RunProgress | None
) -> Failure | None:
    """Return why this attempt failed; None while it goes on, and after a success."""
    if pod.disruption is not None:
        if pod.disruption in _NODE_LOST:
            return Failure(reason=Reason.NODE_LOST, retryable=True, message=f"the node of pod {pod.pod.name} was lost")
        return Failure(
            reason=Reason.PREEMPTED, retryable=True,
            message=f"pod {pod.pod.name} was taken away: {pod.disruption}",
        )  # fmt: skip
    if pod.phase != "Failed":
        return None
    for crash in pod.pod.crashes:
        if crash.reason == "OOMKilled":
            return Failure(
                reason=Reason.OUT_OF_MEMORY, retryable=False,
                message=f"container {crash.container} of pod {pod.pod.name} took more memory than its limit: raise "
                "spec.fineTune.resources of the MinerPool, or lower hyperparameters.batchSize",
            )  # fmt: skip
    reported = reported_failure(progress, attempt=pod.pod.uid)
    if reported is not None:
        return reported
    for crash in pod.pod.crashes:
        if crash.container == "trainer" and (word := _last_word(crash.message)) is not None:
            return word
        if crash.container == "trainer" and crash.exit_code in KILLED:
            return Failure(
                reason=Reason.KILLED, retryable=True,
                message=f"container trainer of pod {pod.pod.name} was ended from outside (exit code "
                f"{crash.exit_code}, {crash.reason}): its node restarted, or the pod was deleted by force",
            )  # fmt: skip
        model = crash.container == "model"
        return Failure(
            reason=Reason.MODEL_FETCH_FAILED if model else Reason.TRAINER_CRASHED, retryable=model,
            message=f"container {crash.container} of pod {pod.pod.name} ended with exit code {crash.exit_code}"
            + (f": {crash.message[-1000:]}" if crash.message else ""),
        )  # fmt: skip
    return Failure(reason=Reason.TRAINER_CRASHED, retryable=False, message=f"pod {pod.pod.name} failed")


def reported_failure(progress: RunProgress | None, *, attempt: str | None = None) -> Failure | None:
    """Return what the trainer itself said, if it was this attempt's."""
    if progress is None or progress.failure is None or (attempt is not None and progress.attempt != attempt):
        return None
    return _failure(progress.failure)


def _last_word(output: str) -> Failure | None:
    """Read the failure out of the trainer's termination message, or out of the log that stands in for it."""
    try:
        return _failure(LastWord.model_validate_json(output.rpartition("\n")[2]).failure)
    except ValidationError:
        return None  # it crashed, or its last word was too long


def _failure(said: FailureReport) -> Failure:
    """Return what a trainer says, of whichever release it is: a class that is not known here goes into the message."""
    reason, message = from_elsewhere(said.failure_class, said.message, known=TRAINER, otherwise=Reason.TRAINER_FAILED)
    return Failure(reason=reason, retryable=said.retryable, message=message)

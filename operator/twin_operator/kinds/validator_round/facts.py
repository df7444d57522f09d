"""What is observed of a round: its Jobs, their pods and what they report."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from pydantic import ValidationError

from bettertherapy_api import names
from bettertherapy_api.round_progress import (
    ORDER_KEY,
    PROGRESS_KEY,
    RECOMPUTED_KEY,
    WEIGHTS_KEY,
    Recomputation,
    RoundOrder,
    RoundProgress,
    WeightsProgress,
    read_document,
)
from bettertherapy_api.run_progress import FailureReport, LastWord
from twin_operator.domain.appearances import ROUND
from twin_operator.domain.objects import Round
from twin_operator.domain.pool_facts import PodFacts, pod_facts
from twin_operator.domain.reasons import Reason, from_elsewhere
from twin_operator.engine.conditions import Finding
from twin_operator.engine.resources import Manifest
from twin_operator.kinds.validator_round.jobs import CONTAINER, KILLED
from twin_operator.kinds.validator_round.labels import MEASURE, WEIGHTS

_NODE_LOST: Final = frozenset({"DeletionByPodGC", "DeletionByTaintManager", "NodeLost"})
_LAST_WORDS: Final = 1000


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
class AttemptPod:
    """One attempt of a Job."""

    pod: PodFacts
    created: str
    phase: str
    disruption: str | None
    """Reason of the DisruptionTarget condition, or NodeLost."""


@dataclass(frozen=True, kw_only=True)
class JobFacts:
    """One of the round's Jobs, with its pods."""

    failed: int = 0
    finished: str | None = None
    """Complete or Failed."""
    reason: str = ""
    message: str = ""
    pods: tuple[AttemptPod, ...] = ()
    """Oldest first."""

    @property
    def newest(self) -> AttemptPod | None:
        """The newest attempt."""
        return self.pods[-1] if self.pods else None


@dataclass(frozen=True, kw_only=True)
class RoundFacts:
    """All that is observed of one round."""

    measure: JobFacts | None = None
    """The Job that asks and scores."""
    weights_job: JobFacts | None = None
    recompute_jobs: dict[str, JobFacts] = field(default_factory=dict)
    """By name."""
    has_configmap: bool = False
    order: RoundOrder | None = None
    """As it was written at the start; None where it can't be read."""
    order_text: str | None = None
    progress: RoundProgress | None = None
    weights: WeightsProgress | None = None
    recomputed: Recomputation | None = None
    unreadable: str | None = None
    """What is wrong with progress.json, of which then nothing counts."""
    weights_unreadable: str | None = None


def read_facts(made: Round, children: Iterable[Manifest]) -> RoundFacts:
    """Read the facts out of the round's own objects."""
    jobs: dict[str, Manifest] = {}
    pods: list[Manifest] = []
    configmap: Manifest | None = None
    for thing in children:
        if thing["kind"] == "Job":
            jobs[thing["metadata"]["name"]] = thing
        elif thing["kind"] == "ConfigMap":
            configmap = thing
        elif thing["kind"] == "Pod":
            pods.append(thing)
    data = (configmap or {}).get("data") or {}
    progress = read_document(RoundProgress, data[PROGRESS_KEY]) if PROGRESS_KEY in data else None
    weights = read_document(WeightsProgress, data[WEIGHTS_KEY]) if WEIGHTS_KEY in data else None
    recomputed = read_document(Recomputation, data[RECOMPUTED_KEY]) if RECOMPUTED_KEY in data else None
    order = read_document(RoundOrder, data[ORDER_KEY]) if ORDER_KEY in data else None
    known = {made.name: MEASURE, names.round_weights_name(made.name): WEIGHTS}
    return RoundFacts(
        measure=_job(jobs.get(made.name), pods),
        weights_job=_job(jobs.get(names.round_weights_name(made.name)), pods),
        recompute_jobs={
            name: found for name, job in jobs.items() if name not in known and (found := _job(job, pods)) is not None
        },
        has_configmap=configmap is not None,
        order=order if isinstance(order, RoundOrder) else None,
        order_text=data.get(ORDER_KEY),
        progress=progress if isinstance(progress, RoundProgress) else None,
        weights=weights if isinstance(weights, WeightsProgress) else None,
        recomputed=recomputed if isinstance(recomputed, Recomputation) else None,
        unreadable=progress if isinstance(progress, str) else None,
        weights_unreadable=weights if isinstance(weights, str) else None,
    )


def _job(job: Manifest | None, pods: Iterable[Manifest]) -> JobFacts | None:
    if job is None:
        return None
    uid, status = job["metadata"]["uid"], job.get("status") or {}
    ended: Manifest = next(
        (
            condition
            for condition in status.get("conditions") or []
            if condition["type"] in ("Complete", "Failed") and condition["status"] == "True"
        ),
        {},
    )
    own = [
        _pod(pod) for pod in pods if any(each["uid"] == uid for each in pod["metadata"].get("ownerReferences") or [])
    ]
    return JobFacts(
        failed=int(status.get("failed") or 0), finished=ended.get("type"), reason=ended.get("reason") or "",
        message=ended.get("message") or "",
        pods=tuple(sorted(own, key=lambda each: (each.created, each.pod.name))),
    )  # fmt: skip


def _pod(pod: Manifest) -> AttemptPod:
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
    return AttemptPod(
        pod=pod_facts(pod), created=pod["metadata"].get("creationTimestamp", ""),
        phase=status.get("phase") or "Pending", disruption=lost or disrupted,
    )  # fmt: skip


def attempt_failure(  # noqa: PLR0911  # one return per class
    attempt: AttemptPod, said: FailureReport | None, *, memory: str
) -> Failure | None:
    """Return why this attempt failed; None while it goes on, and after a success.

    `said` is what this attempt itself reported; `memory` is the field with its limit.
    """
    pod = attempt.pod
    if attempt.disruption is not None:
        lost = attempt.disruption in _NODE_LOST
        taken = f"pod {pod.name} was taken away: {attempt.disruption}"
        what = f"the node of pod {pod.name} was lost" if lost else taken
        return Failure(reason=Reason.NODE_LOST if lost else Reason.PREEMPTED, retryable=True, message=what)
    if attempt.phase != "Failed":
        return None
    for crash in pod.crashes:
        if crash.reason == "OOMKilled":
            return Failure(
                reason=Reason.OUT_OF_MEMORY, retryable=False,
                message=f"pod {pod.name} took more memory than its limit: raise {memory}",
            )  # fmt: skip
    if said is not None:
        return told(said)
    for crash in pod.crashes:
        if crash.container == CONTAINER and (word := _last_word(crash.message)) is not None:
            return word
        if crash.exit_code in KILLED:
            return Failure(
                reason=Reason.KILLED, retryable=True,
                message=f"pod {pod.name} was ended from outside (exit code {crash.exit_code}, {crash.reason}): its "
                "node restarted, or it was deleted by force",
            )  # fmt: skip
        words = f": {crash.message[-_LAST_WORDS:]}" if crash.message else ""
        return Failure(
            reason=Reason.ROUND_CRASHED, retryable=False,
            message=f"pod {pod.name} ended with exit code {crash.exit_code}{words}",
        )  # fmt: skip
    return Failure(reason=Reason.ROUND_CRASHED, retryable=False, message=f"pod {pod.name} failed")


def told(said: FailureReport) -> Failure:
    """Return what a Job says, of whichever release it is: a class that is not known here goes into the message."""
    reason, message = from_elsewhere(said.failure_class, said.message, known=ROUND, otherwise=Reason.ROUND_ERROR)
    return Failure(reason=reason, retryable=said.retryable, message=message)


def _last_word(output: str) -> Failure | None:
    """Read the failure out of the termination message, or out of the log that stands in for it."""
    try:
        return told(LastWord.model_validate_json(output.rstrip().rpartition("\n")[2]).failure)
    except ValidationError:
        return None  # it crashed, or its last word was too long

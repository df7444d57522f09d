"""What is observed of a run: the Jobs of trainer and examiner, their pods, and what each reports."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from pydantic import ValidationError

from bettertherapy_api import names
from bettertherapy_api.examination import PROMPT_KEY, Outcomes, examination_name
from bettertherapy_api.finetune_run import FineTuneRunStatus, RunRef
from bettertherapy_api.run_progress import (
    PROGRESS_KEY,
    FailureReport,
    LastWord,
    RunProgress,
    progress_name,
    read_progress,
)
from twin_operator.domain.appearances import TRAINER
from twin_operator.domain.pool_facts import PodFacts, pod_facts
from twin_operator.domain.reasons import Reason, from_elsewhere
from twin_operator.engine.apply import controlled_by, reported_by
from twin_operator.engine.conditions import Finding
from twin_operator.engine.resources import CONFIG_MAP, JOB, POD, Manifest
from twin_operator.kinds.resources import FINE_TUNE_RUN

KILLED: Final = (137, 143, 255)
"""Exit statuses of a trainer or an examiner that somebody ended: SIGKILL, SIGTERM before it listened, and what a
kubelet reports of a container that it lost sight of, as after a restart of its node. None of them says anything of the
run itself."""
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
    """A Job."""

    suspended: bool = False
    active: int = 0
    failed: int = 0
    finished: str | None = None
    """Complete or Failed."""
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class WorkPod:
    """One attempt."""

    pod: PodFacts
    created: str
    phase: str
    disruption: str | None
    """Reason of the DisruptionTarget condition, or NodeLost."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What is observed of one of the two that work for a run, the trainer or the examiner."""

    who: str
    """Also the name of the container."""
    configmap: str = ""
    """Name of the ConfigMap in which it reports."""
    job: JobFacts | None = None
    pods: tuple[WorkPod, ...] = ()
    """Oldest first."""
    progress: RunProgress | None = None
    unreadable: str | None = None
    """What is wrong with its report, of which then nothing counts."""
    prompt: str | None = None
    """The twin's system prompt as it is told."""
    has_configmap: bool = False
    shared: bool = False
    """Whether it works for other runs too: then what it says of this one counts, and how it ended says nothing more."""

    @property
    def has_ended(self) -> bool:
        """Whether it makes no further attempt."""
        return self.job is not None and self.job.finished is not None

    @property
    def is_done(self) -> bool:
        """Whether it has ended well and said so."""
        ended = self.has_ended if self.shared else self.job is not None and self.job.finished == "Complete"
        return ended and self.said_done

    @property
    def said_done(self) -> bool:
        """Whether it says that nothing is left to do for this run."""
        return self.progress is not None and self.progress.is_done

    @property
    def said_last(self) -> bool:
        """Whether it says of this run what no further attempt would change."""
        said = self.progress
        return said is not None and (said.is_done or (said.failure is not None and not said.failure.retryable))

    @property
    def broke_off(self) -> bool:
        """Whether the last attempt, if one is seen, ended within this run."""
        said = self.progress
        if said is None or said.is_done or said.elsewhere:
            return False
        return not self.pods or said.attempt == self.pods[-1].pod.uid


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """All that is observed of one run."""

    trainer: Work = field(default_factory=lambda: Work(who="trainer"))
    examiner: Work = field(default_factory=lambda: Work(who="examiner"))
    outcomes: Outcomes | str | None = None
    """What the examiner found, once it has ended; what is wrong with its report; None where there is none."""


def objects_of(
    run: str, uid: str, things: Iterable[Manifest], *, trainer: RunRef | None = None, examiner: RunRef | None = None
) -> list[Manifest]:
    """Return what speaks for the run, of all that bears its label: what has the exact name of one of its objects and
    the run's UID as its controller, and the pods of its Jobs by the Jobs' UIDs.

    A label is written by whoever makes an object, and the trainer may change those of its own ConfigMap. A Job that it
    shares is another run's, `trainer` or `examiner`.
    """
    things = list(things)
    trains, examines = trainer or RunRef(name=run, uid=uid), examiner or RunRef(name=run, uid=uid)
    controllers = {
        (JOB.kind, trains.name): trains.uid, (JOB.kind, names.examiner_name(examines.name)): examines.uid,
        (CONFIG_MAP.kind, progress_name(run)): uid, (CONFIG_MAP.kind, examination_name(run)): uid,
    }  # fmt: skip
    own = [
        thing
        for thing in things
        if (controller := controllers.get((thing["kind"], thing["metadata"]["name"]))) is not None
        and reported_by(thing, controller, kind=FINE_TUNE_RUN)
    ]
    jobs = [thing["metadata"]["uid"] for thing in own if thing["kind"] == JOB.kind]
    pods = [thing for thing in things if thing["kind"] == POD.kind]
    return [*own, *(pod for pod in pods if any(controlled_by(pod, job) for job in jobs))]


def read_facts(
    run: str, things: Iterable[Manifest], *, outcomes: Outcomes | str | None = None,
    status: FineTuneRunStatus | None = None,
) -> RunFacts:  # fmt: skip
    """Read the facts out of the objects that speak for the run of that name (`objects_of`); its status says with whom
    it shares its Jobs."""
    things, status = list(things), status or FineTuneRunStatus()
    trainer = status.trainer.name if status.trainer is not None else run
    examiner = status.examiner.name if status.examiner is not None else run
    trained, examined = bool(status.trainer or status.trains), bool(status.examiner or status.examines)
    return RunFacts(
        trainer=_work("trainer", trainer, progress_name(run), things, shared=trained),
        examiner=_work("examiner", names.examiner_name(examiner), examination_name(run), things, shared=examined),
        outcomes=outcomes,
    )


def _work(who: str, job_name: str, configmap_name: str, things: Sequence[Manifest], *, shared: bool) -> Work:
    named = {(thing["kind"], thing["metadata"]["name"]): thing for thing in things}
    job, configmap = named.get((JOB.kind, job_name)), named.get((CONFIG_MAP.kind, configmap_name))
    uid = job["metadata"]["uid"] if job is not None else None
    pods = [work_pod(thing) for thing in things if thing["kind"] == POD.kind and uid and controlled_by(thing, uid)]
    data = (configmap or {}).get("data") or {}
    progress = read_progress(data[PROGRESS_KEY]) if PROGRESS_KEY in data else None
    return Work(
        who=who,
        configmap=configmap_name,
        job=job_facts(job) if job is not None else None,
        pods=tuple(sorted(pods, key=lambda each: (each.created, each.pod.name))),
        progress=None if isinstance(progress, str) else progress,
        unreadable=progress if isinstance(progress, str) else None,
        prompt=data.get(PROMPT_KEY),
        has_configmap=configmap is not None,
        shared=shared,
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


def work_pod(pod: Manifest) -> WorkPod:
    """Read one of the pods of a Job."""
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
    return WorkPod(
        pod=pod_facts(pod),
        created=pod["metadata"].get("creationTimestamp", ""),
        phase=status.get("phase") or "Pending",
        disruption=lost or disrupted,
    )


def attempt_failure(  # noqa: PLR0911  # one return per class
    pod: WorkPod, work: Work
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
    reported = reported_failure(work.progress, attempt=pod.pod.uid)
    if reported is not None:
        return reported
    # The last word of one that works for several runs may be of another one.
    whose = not work.shared or work.broke_off
    for crash in pod.pod.crashes:
        if crash.container == work.who and whose and (word := _last_word(crash.message)) is not None:
            return word
        if crash.container == work.who and crash.exit_code in KILLED:
            return Failure(
                reason=Reason.KILLED, retryable=True,
                message=f"container {work.who} of pod {pod.pod.name} was ended from outside (exit code "
                f"{crash.exit_code}, {crash.reason}): its node restarted, or the pod was deleted by force",
            )  # fmt: skip
        model = crash.container == "model"
        return Failure(
            reason=Reason.MODEL_FETCH_FAILED if model else crashed(work), retryable=model,
            message=f"container {crash.container} of pod {pod.pod.name} ended with exit code {crash.exit_code}"
            + (f": {crash.message[-1000:]}" if crash.message else ""),
        )  # fmt: skip
    return Failure(reason=crashed(work), retryable=False, message=f"pod {pod.pod.name} failed")


def crashed(work: Work) -> Reason:
    """Return the reason of one that ended without a word."""
    return Reason.EXAMINER_CRASHED if work.who == "examiner" else Reason.TRAINER_CRASHED


def reported_failure(progress: RunProgress | None, *, attempt: str | None = None) -> Failure | None:
    """Return what the program itself said, if it was this attempt's."""
    if progress is None or progress.failure is None or (attempt is not None and progress.attempt != attempt):
        return None
    return _failure(progress.failure)


def _last_word(output: str) -> Failure | None:
    """Read the failure out of a termination message, or out of the log that stands in for it."""
    try:
        return _failure(LastWord.model_validate_json(output.rpartition("\n")[2]).failure)
    except ValidationError:
        return None  # it crashed, or its last word was too long


def _failure(said: FailureReport) -> Failure:
    """Return what the program says, of whichever release: a class that is not known here goes into the message."""
    reason, message = from_elsewhere(said.failure_class, said.message, known=TRAINER, otherwise=Reason.TRAINER_FAILED)
    return Failure(reason=reason, retryable=said.retryable, message=message)

"""A run's conditions and its stage, from what was observed and what the twin made of its version."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bettertherapy_api.finetune_run import SKIPPED, STAGES, FineTuneRunStatus, RunRef
from bettertherapy_api.run_progress import RunProgress, RunStage
from twin_operator.domain.appearances import REFUSED_VERSION
from twin_operator.domain.objects import Run, Twin
from twin_operator.domain.pod_troubles import while_mounting
from twin_operator.domain.pool_facts import PodFacts
from twin_operator.domain.reasons import Reason, from_elsewhere
from twin_operator.domain.versions import known_versions, wanted_version
from twin_operator.engine.conditions import Chain, Condition, Finding
from twin_operator.kinds.finetune_run.facts import Failure, RunFacts, Work, WorkPod
from twin_operator.kinds.finetune_run.task import awaits_choice

_AFTER_TRAINING: Final = frozenset({RunStage.PUBLISH, RunStage.EVALUATE, RunStage.DONE})
_STAGES: Final[Mapping[RunStage | None, Reason]] = {
    None: Reason.STAGE_STARTING, RunStage.DATA: Reason.STAGE_DATA, RunStage.TRAIN: Reason.STAGE_TRAIN,
    RunStage.PUBLISH: Reason.STAGE_PUBLISH, RunStage.EVALUATE: Reason.STAGE_EVALUATE, RunStage.DONE: Reason.STAGE_DONE,
}  # fmt: skip
_REFUSED: Final[Mapping[str, frozenset[Reason]]] = {
    "Published": frozenset({Reason.ARTIFACT_REFUSED}), "Evaluated": frozenset({Reason.EXAMINATION_REFUSED}),
}  # fmt: skip
"""What was reported and is not taken, by the condition that it would have made True."""
_VERDICTS: Final = {"Promote": Reason.PROMOTE, "Reject": Reason.REJECT, "Inconclusive": Reason.INCONCLUSIVE}


def stage_of(conditions: Iterable[Condition], *, skipped: bool = False) -> str | None:
    """Return the newest condition that is True."""
    true = {condition.type for condition in conditions if condition.status == "True"}
    if skipped:
        return SKIPPED
    return next((stage for stage in reversed(STAGES) if stage in true), None)


def admitted(facts: RunFacts, run: Run) -> Condition:
    """Return Queued of a run that was let go; Kueue may hold one of its Jobs still."""
    jobs = [work.job for work in (facts.trainer, facts.examiner) if work.job is not None]
    if any(job.suspended and job.finished is None for job in jobs):
        held = Finding(
            Reason.AWAITING_QUOTA,
            f"Kueue has not admitted the Job yet: LocalQueue {run.spec.queue_name} has no room, or does not exist",
        )
        return held.condition("Queued", "True")
    return let_go(run.status.pool or "", run.status.trainer).condition("Queued", "False")


def let_go(pool: str, trainer: RunRef | None) -> Finding:
    """Return what is said of a run that may start."""
    with_whom = "" if trainer is None else f" with the trainer of FineTuneRun {trainer.name}"
    return Finding(Reason.ADMITTED, f"started in MinerPool {pool}{with_whom}")


def data_ready(progress: RunProgress | None, known: FineTuneRunStatus, failure: Failure | None) -> list[Condition]:
    """Return DataReady once something is known of the data."""
    if progress is not None and progress.skipped is not None:
        return [Finding(Reason.TOO_FEW_INTERACTIONS, progress.skipped).condition("DataReady", "False")]
    if failure is not None and failure.reason is Reason.BAD_DATA:
        return [failure.finding.condition("DataReady", "False")]
    dataset = known.dataset
    if dataset is None:
        return []
    pairs = f", {dataset.pairs} of them preference pairs" if dataset.pairs else ""
    message = f"{dataset.interactions} interactions{pairs} from {dataset.uri}"
    for told, lines in (("refused", dataset.refused), ("repaired", dataset.repaired)):
        if lines:
            message += f"; {told}: " + ", ".join(f"{each.count} {each.reason}" for each in lines)
    if dataset.waiting:
        message += f"; left to the next run: {dataset.waiting}"
    if dataset.passed_over:
        message += f"; passed over, since only whole lines of *.jsonl are read: {', '.join(dataset.passed_over)}"
    return [Finding(Reason.DATASET_READ, message).condition("DataReady", "True")]


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """What is seen of the attempt that is under way, or between two."""

    work: Work
    failure: Failure | None

    @property
    def newest(self) -> WorkPod | None:
        """The newest attempt's pod."""
        return self.work.pods[-1] if self.work.pods else None

    @property
    def starting(self) -> PodFacts | None:
        """The newest pod while it has not begun."""
        newest = self.newest
        return newest.pod if newest is not None and newest.phase == "Pending" else None


def pod_unschedulable(attempt: Attempt) -> Finding | None:
    """No node takes the pod."""
    pod = attempt.starting
    if pod is None or pod.unschedulable is None:
        return None
    return Finding(Reason.UNSCHEDULABLE, f"no node takes pod {pod.name}: {pod.unschedulable}")


def container_not_started(attempt: Attempt) -> Finding | None:
    """An image or a Secret is missing."""
    pod = attempt.starting
    if pod is None:
        return None
    for reason, troubles in ((Reason.IMAGE_PULL_FAILED, pod.pulls), (Reason.CONTAINER_NOT_STARTED, pod.configs)):
        for trouble in troubles:
            return Finding(reason, f"container {trouble.container} of pod {pod.name}: {trouble.message}")
    return None


def pod_starting(attempt: Attempt) -> Finding | None:
    """Its pod has not begun, for no reason that is seen."""
    pod = attempt.starting
    return None if pod is None else Finding(Reason.POD_STARTING, f"pod {pod.name} is starting{while_mounting(pod)}")


def attempt_failed(attempt: Attempt) -> Finding | None:
    """The last attempt failed."""
    failure = attempt.failure
    if failure is None:
        return None
    if failure.retryable or attempt.work.shared:
        return Finding(Reason.RETRYING, f"{failure.finding}; another attempt follows")
    return Finding(Reason.ENDING, str(failure.finding))


NOT_RUNNING: Final = Chain[Attempt]("Running", pod_unschedulable, container_not_started, pod_starting, attempt_failed)


def running(work: Work, failure: Failure | None, *, held: Finding | None = None) -> Condition:
    """Return Running while the run is not over; `held` says why its Job is not made yet, or is not its any more."""
    attempt = Attempt(work=work, failure=failure)
    newest = attempt.newest
    if newest is not None and newest.phase == "Running":
        elsewhere = at_work_on_others(work, newest) if work.shared else None
        if elsewhere is not None:
            return (held or elsewhere).condition("Running", "False")
        return _at_stage(work, newest).condition("Running", "True")
    waiting = Finding(Reason.JOB_STARTING, f"the {work.who}'s Job has no pod yet")
    if work.shared and newest is not None and newest.phase != "Pending":
        waiting = Finding(Reason.JOB_STARTING, f"the {work.who}'s Job has no pod at the moment")
    return (NOT_RUNNING.evaluate(attempt) or held or waiting).condition("Running", "False")


def at_work_on_others(work: Work, newest: WorkPod) -> Finding | None:
    """Say of a pod that does several runs that it has not begun this one, or is through with it."""
    said = work.progress
    if work.unreadable is not None:
        return None
    if said is not None and (work.said_last or (said.attempt == newest.pod.uid and said.failure is not None)):
        how = f", which failed: {said.failure.message}" if said.failure is not None else ""
        return Finding(Reason.SHARED_JOB_BUSY, f"pod {newest.pod.name} is through with this run{how}")
    if said is None or said.attempt != newest.pod.uid or said.elsewhere:
        return Finding(Reason.SHARED_JOB_BUSY, f"pod {newest.pod.name} does several runs, and has not begun this one")
    return None


def _at_stage(work: Work, newest: WorkPod) -> Finding:
    job, progress = work.job, work.progress
    again = f", attempt {job.failed + 1}" if job and job.failed else ""
    if work.unreadable is not None:
        said = f"pod {newest.pod.name} runs{again}, but what it reports can't be read: {work.unreadable}"
        return Finding(Reason.REPORT_UNREADABLE, said)
    at = progress.stage if progress and progress.attempt == newest.pod.uid else None
    shown = at.value if at is not None else "Starting"
    return Finding(_STAGES[at], f"pod {newest.pod.name} is at stage {shown}{again}")


def reached(run: Run, progress: RunProgress | None, known: FineTuneRunStatus) -> list[Condition]:
    """Return Trained, Published and Evaluated as far as the run has come; a candidate was trained by somebody else."""
    found = []
    # Another attempt at a run that has published begins with the data again.
    trained = known.artifact is not None or (progress is not None and progress.stage in _AFTER_TRAINING)
    if trained and run.spec.candidate is None and (progress is None or progress.skipped is None):
        loss = f", loss {known.loss_milli / 1000:.3f}" if known.loss_milli is not None else ""
        steps = f" after {known.steps} steps" if known.steps else ""
        found.append(Finding(Reason.TRAINING_ENDED, f"training ended{steps}{loss}").condition("Trained", "True"))
    if known.artifact is not None:
        said = f"{known.artifact.digest} is at {known.artifact.uri}"
        found.append(Finding(Reason.IN_STORE, said).condition("Published", "True"))
    if known.eval is not None:
        said = f"{known.eval.samples} items: {known.eval.message or known.eval.verdict}"
        found.append(Finding(_VERDICTS[known.eval.verdict], said).condition("Evaluated", "True"))
    return found


def ended(failure: Failure | None) -> list[Condition]:
    """Return Running and, for one that failed, Failed of a run that is over."""
    over = Finding(Reason.ENDED, "the run has ended").condition("Running", "False")
    if failure is None:
        return [over]
    not_reached = [
        failure.finding.condition(kind, "False") for kind, reasons in _REFUSED.items() if failure.reason in reasons
    ]
    again = "; another run may succeed" if failure.retryable else ""
    return [over, *not_reached, failure.finding.followed_by(again).condition("Failed", "True")]


def settled(
    run: Run, known: FineTuneRunStatus, twin: Twin | None, unreadable: Finding | None = None,
    of_twin: Sequence[Run] = (),
) -> list[Condition]:  # fmt: skip
    """Return Promoted and Rejected: what the gate and then the twin made of the version. What is settled stays so.

    Of a version that passed its gate nothing is settled while the twin can't be read: what it will make of it is open.
    """
    for kind in ("Promoted", "Rejected"):
        before = run.condition(kind)
        if before is not None and before[0] == "True":
            return [Condition(type=kind, status="True", reason=before[1], message=before[2])]
    if known.eval is None or known.artifact is None:
        return []
    message = known.eval.message or ""
    if known.verdict == "Reject":
        return [Finding(Reason.GATE_REJECTED, message or "the gate rejected it").condition("Rejected", "True")]
    if known.verdict == "Inconclusive":
        return [Finding(Reason.INCONCLUSIVE, message or "the gate could not decide").condition("Rejected", "False")]
    if unreadable is not None:
        found = Finding(unreadable.reason, f"the version passed its gate; {unreadable.message}")
        return [found.condition("Promoted", "False")]
    return [_made_of_it(known.artifact.digest, twin, run, of_twin)]


def _made_of_it(digest: str, twin: Twin | None, run: Run, of_twin: Sequence[Run]) -> Condition:
    """Return what the twin made of a version that passed its gate."""
    if twin is None:
        return Finding(Reason.TWIN_GONE, "the DoctorTwin does not exist any more").condition("Rejected", "True")
    status = twin.status
    for refused in status.refused_versions or []:
        if refused.digest == digest:
            reason, message = from_elsewhere(
                refused.reason, refused.message, known=REFUSED_VERSION, otherwise=Reason.ROLLED_BACK
            )
            return Finding(reason, message).condition("Rejected", "True")
    if status.canary_version is not None and status.canary_version.digest == digest:
        weight = status.canary_weight_percent or 0
        found = Finding(Reason.CANARY_RUNNING, f"the version takes {weight}% of the twin's traffic")
        return found.condition("Promoted", "False")
    if status.pending_version is not None and status.pending_version.digest == digest:
        asked = f"the doctor's approval is awaited: `kubectl twin review {twin.name}`"
        return Finding(Reason.AWAITING_APPROVAL, asked).condition("Promoted", "False")
    if wanted_version(twin).digest == digest or digest in known_versions(twin):
        found = Finding(Reason.TOOK_OVER, f"the version took over from {digest_shown(status.previous_version)}")
        return found.condition("Promoted", "True")
    return _not_taken_up(digest, twin, run, of_twin)


def _not_taken_up(digest: str, twin: Twin, run: Run, of_twin: Sequence[Run]) -> Condition:
    """Return why a version that passed its gate is not on its way."""
    awaited = awaits_choice(run, twin, digest, of_twin)
    if awaited is None:
        said = "the version passed its gate; the twin has not taken it up yet"
        return Finding(Reason.AWAITING_ROLLOUT, said).condition("Promoted", "False")
    if run.spec.parent_digest != wanted_version(twin).digest:
        said = "its parent, against which it passed the gate, does not serve any more, so it can't be chosen"
        return Finding(Reason.PARENT_REPLACED, said).condition("Rejected", "True")
    return awaited.condition("Promoted", "False")


def digest_shown(version: object) -> str:
    """Return a version's served name for a sentence."""
    return getattr(version, "served_name", None) or "the version before"

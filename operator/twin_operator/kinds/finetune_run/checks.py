"""A run's conditions and its stage, from what was observed and what the twin made of its version."""

from __future__ import annotations

from collections.abc import Iterable

from bettertherapy_api.finetune_run import SKIPPED, STAGES, FineTuneRunStatus
from bettertherapy_api.run_progress import RunProgress, RunStage
from twin_operator.domain.objects import Run, Twin
from twin_operator.domain.versions import known_versions, wanted_version
from twin_operator.engine.status import Condition, Truth
from twin_operator.kinds.finetune_run.facts import Failure, RunFacts

Finding = tuple[str, str]
Settled = tuple[Truth, str, str]
"""Status, reason and message."""

_AFTER_TRAINING = frozenset({RunStage.PUBLISH, RunStage.EVALUATE, RunStage.DONE})


def stage_of(conditions: Iterable[Condition], *, skipped: bool = False) -> str | None:
    """Return the newest condition that is True."""
    true = {condition.type for condition in conditions if condition.status == "True"}
    if skipped:
        return SKIPPED
    return next((stage for stage in reversed(STAGES) if stage in true), None)


def queued(reason: str, message: str) -> Condition:
    """Return the condition of a run that waits."""
    return _condition("Queued", "True", reason, message)


def admitted(facts: RunFacts, run: Run) -> Condition:
    """Return Queued of a run that was let go; Kueue may hold it still."""
    if facts.job is not None and facts.job.suspended and facts.job.finished is None:
        return _condition(
            "Queued", "True", "AwaitingQuota",
            f"Kueue has not admitted the Job yet: LocalQueue {run.spec.queue_name} has no room, or does not exist",
        )  # fmt: skip
    return _condition("Queued", "False", "Admitted", f"started in MinerPool {run.status.pool}")


def data_ready(progress: RunProgress | None, known: FineTuneRunStatus, failure: Failure | None) -> list[Condition]:
    """Return DataReady once something is known of the data."""
    if progress is not None and progress.skipped is not None:
        return [_condition("DataReady", "False", "TooFewInteractions", progress.skipped)]
    if failure is not None and failure.failure_class == "BadData":
        return [_condition("DataReady", "False", "BadData", failure.message)]
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
        message += f"; passed over, since only *.jsonl are read: {', '.join(dataset.passed_over)}"
    return [_condition("DataReady", "True", "DatasetRead", message)]


def running(facts: RunFacts, failure: Failure | None) -> Condition:
    """Return Running while the run is not over."""
    job, progress = facts.job, facts.progress
    newest = facts.pods[-1] if facts.pods else None
    if newest is not None and newest.phase == "Running":
        stage = progress.stage.value if progress and progress.attempt == newest.pod.uid else "Starting"
        again = f", attempt {job.failed + 1}" if job and job.failed else ""
        return _condition("Running", "True", f"Stage{stage}", f"pod {newest.pod.name} is at stage {stage}{again}")
    if newest is not None and newest.phase == "Pending":
        pod = newest.pod
        if pod.unschedulable:
            return _condition("Running", "False", "Unschedulable", f"no node takes pod {pod.name}: {pod.unschedulable}")
        for reason, troubles in (("ImagePullFailed", pod.pulls), ("ContainerNotStarted", pod.configs)):
            for trouble in troubles:
                return _condition(
                    "Running", "False", reason, f"container {trouble.container} of pod {pod.name}: {trouble.message}"
                )
        return _condition("Running", "False", "PodStarting", f"pod {pod.name} is starting")
    if failure is not None:
        reason, follows = ("Retrying", "; another attempt follows") if failure.retryable else ("Ending", "")
        return _condition("Running", "False", reason, f"{failure.failure_class}: {failure.message}{follows}")
    return _condition("Running", "False", "JobStarting", "the trainer's Job has no pod yet")


def reached(progress: RunProgress | None, known: FineTuneRunStatus) -> list[Condition]:
    """Return Trained, Published and Evaluated as far as the run has come."""
    found = []
    # Another attempt at a run that has published begins with the data again.
    trained = known.artifact is not None or (progress is not None and progress.stage in _AFTER_TRAINING)
    if trained and (progress is None or progress.skipped is None):
        loss = f", loss {known.loss_milli / 1000:.3f}" if known.loss_milli is not None else ""
        steps = f" after {known.steps} steps" if known.steps else ""
        found.append(_condition("Trained", "True", "TrainingEnded", f"training ended{steps}{loss}"))
    if known.artifact is not None:
        found.append(_condition("Published", "True", "InStore", f"{known.artifact.digest} is at {known.artifact.uri}"))
    if known.eval is not None:
        found.append(
            _condition(
                "Evaluated", "True", known.eval.verdict,
                f"{known.eval.samples} items: {known.eval.message or known.eval.verdict}",
            )
        )  # fmt: skip
    return found


def ended(failure: Failure | None) -> list[Condition]:
    """Return Running and, for one that failed, Failed of a run that is over."""
    over = _condition("Running", "False", "Ended", "the trainer has ended")
    if failure is None:
        return [over]
    again = "; another run may succeed" if failure.retryable else ""
    return [over, _condition("Failed", "True", failure.failure_class, failure.message + again)]


def settled(run: Run, known: FineTuneRunStatus, twin: Twin | None) -> list[Condition]:
    """Return Promoted and Rejected: what the gate and then the twin made of the version. What is settled stays so."""
    for kind in ("Promoted", "Rejected"):
        before = run.condition(kind)
        if before is not None and before[0] == "True":
            return [_condition(kind, "True", before[1], before[2])]
    if known.eval is None or known.artifact is None:
        return []
    message = known.eval.message or ""
    if known.verdict == "Reject":
        return [_condition("Rejected", "True", "GateRejected", message or "the gate rejected it")]
    if known.verdict == "Inconclusive":
        return [_condition("Rejected", "False", "Inconclusive", message or "the gate could not decide")]
    kind, status, reason, text = _fate(known.artifact.digest, twin)
    return [_condition(kind, status, reason, text)]


def _fate(digest: str, twin: Twin | None) -> tuple[str, Truth, str, str]:
    """Return what the twin made of a version that passed its gate."""
    if twin is None:
        return "Rejected", "True", "TwinGone", "the DoctorTwin does not exist any more"
    status = twin.status
    for refused in status.refused_versions or []:
        if refused.digest == digest:
            return "Rejected", "True", refused.reason, refused.message
    if status.canary_version is not None and status.canary_version.digest == digest:
        weight = status.canary_weight_percent or 0
        return "Promoted", "False", "CanaryRunning", f"the version takes {weight}% of the twin's traffic"
    if status.pending_version is not None and status.pending_version.digest == digest:
        return (
            "Promoted", "False", "AwaitingApproval",
            f"the doctor's approval is awaited: `kubectl twin review {twin.name}`",
        )  # fmt: skip
    if wanted_version(twin).digest == digest or digest in known_versions(twin):
        return "Promoted", "True", "TookOver", f"the version took over from {digest_shown(status.previous_version)}"
    return "Promoted", "False", "AwaitingRollout", "the version passed its gate; the twin has not taken it up yet"


def digest_shown(version: object) -> str:
    """Return a version's served name for a sentence."""
    return getattr(version, "served_name", None) or "the version before"


def invalid_conditions(problem: str) -> list[Condition]:
    """Return the conditions of a run whose spec can't be read."""
    return [_condition("Queued", "True", "SpecInvalid", f"the stored spec can't be read: {problem}")]


def _condition(kind: str, status: Truth, reason: str, message: str) -> Condition:
    return Condition(type=kind, status=status, reason=reason, message=message)

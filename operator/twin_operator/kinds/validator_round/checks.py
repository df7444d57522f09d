"""A round's conditions, from what was observed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from bettertherapy_api.round_progress import RoundProgress, RoundStage
from bettertherapy_api.validator_round import RoundWeights, ValidatorRoundStatus
from twin_operator.domain.pod_troubles import cannot_pull, cannot_start, claim_trouble, while_mounting
from twin_operator.domain.reasons import Reason
from twin_operator.engine.conditions import Chain, Condition, Finding, Truth
from twin_operator.kinds.validator_round.facts import AttemptPod, Failure, JobFacts, RoundFacts

_STAGES: Final[Mapping[RoundStage | None, Reason]] = {
    None: Reason.STAGE_STARTING, RoundStage.PREPARE: Reason.STAGE_PREPARE, RoundStage.ASK: Reason.STAGE_ASK,
    RoundStage.SCORE: Reason.STAGE_SCORE, RoundStage.REWARD: Reason.STAGE_REWARD, RoundStage.TASKS: Reason.STAGE_TASKS,
    RoundStage.DONE: Reason.STAGE_DONE,
}  # fmt: skip
_WEIGHTS: Final[Mapping[str, tuple[Reason, Truth]]] = {
    "Waiting": (Reason.WEIGHTS_WAITING, "Unknown"),
    "Pending": (Reason.WEIGHTS_COMMITTED, "Unknown"),
    "Revealed": (Reason.WEIGHTS_REVEALED, "True"),
    "Missed": (Reason.WEIGHTS_MISSED, "False"),
    "Superseded": (Reason.WEIGHTS_SUPERSEDED, "False"),
    "Refused": (Reason.WEIGHTS_REFUSED, "False"),
    "Withheld": (Reason.WEIGHTS_WITHHELD, "False"),
}


def pod_unschedulable(job: JobFacts) -> Finding | None:
    """No node takes the pod, or a claim that it needs is not there."""
    starting = _starting(job)
    if starting is None or starting.pod.unschedulable is None:
        return None
    pod = starting.pod
    return claim_trouble(
        pod, absent=": create it, or correct the Validator's uri",
        unbound="claims need a StorageClass, or a matching volume",
    ) or Finding(Reason.UNSCHEDULABLE, f"no node takes pod {pod.name}: {pod.unschedulable}")  # fmt: skip


def container_not_started(job: JobFacts) -> Finding | None:
    """An image or a Secret is missing."""
    starting = _starting(job)
    if starting is None:
        return None
    for trouble in starting.pod.pulls:
        return cannot_pull(starting.pod, trouble, field="the Validator's spec.gateway.image")
    for trouble in starting.pod.configs:
        return cannot_start(f"pod {starting.pod.name}", trouble)
    return None


def pod_starting(job: JobFacts) -> Finding | None:
    """Its pod has not begun, for no reason that is seen."""
    starting = _starting(job)
    if starting is None:
        return None
    return Finding(Reason.POD_STARTING, f"pod {starting.pod.name} is starting{while_mounting(starting.pod)}")


NOT_RUNNING: Final = Chain[JobFacts]("Running", pod_unschedulable, container_not_started, pod_starting)


def _starting(job: JobFacts) -> AttemptPod | None:
    return job.newest if job.newest is not None and job.newest.phase == "Pending" else None


def waiting(obstacle: Finding) -> list[Condition]:
    """Return what a round says that has not started."""
    return [obstacle.condition("Running", "False"), _under_way("the round has not started")]


def running(facts: RoundFacts, failure: Failure | None) -> list[Condition]:
    """Return Running and Complete while the round is not over."""
    return [_running(facts, failure), _under_way("the round is under way")]


def _under_way(said: str) -> Condition:
    return Finding(Reason.ROUND_UNDER_WAY, said).condition("Complete", "False")


def _running(facts: RoundFacts, failure: Failure | None) -> Condition:
    job = facts.measure
    if job is None:
        return Finding(Reason.JOB_STARTING, "the round's Job is not made yet").condition("Running", "False")
    newest = job.newest
    if newest is not None and newest.phase == "Running":
        return _at_stage(facts, job, newest).condition("Running", "True")
    found = NOT_RUNNING.evaluate(job)
    if found is None and failure is not None:
        found = (
            Finding(Reason.RETRYING, f"{failure.finding}; another attempt follows")
            if failure.retryable
            else Finding(Reason.ENDING, str(failure.finding))
        )
    none = Finding(Reason.JOB_STARTING, "the round's Job has no pod yet")
    return (found or none).condition("Running", "False")


def _at_stage(facts: RoundFacts, job: JobFacts, newest: AttemptPod) -> Finding:
    again = f", attempt {job.failed + 1}" if job.failed else ""
    name, progress = newest.pod.name, facts.progress
    if facts.unreadable is not None:
        said = f"pod {name} runs{again}, but what it reports can't be read: {facts.unreadable}"
        return Finding(Reason.REPORT_UNREADABLE, said)
    at = progress.stage if progress is not None and progress.attempt == newest.pod.uid else None
    return Finding(_STAGES[at], f"pod {name} is at stage {at.value if at is not None else 'Starting'}{again}")


def ended(known: ValidatorRoundStatus, failure: Failure | None) -> list[Condition]:
    """Return Running, Complete and, for one that failed, Failed of a round that is over."""
    over = Finding(Reason.ENDED, "asking and scoring have ended").condition("Running", "False")
    if failure is not None:
        again = "; another round may succeed" if failure.retryable else ""
        lost = Finding(Reason.ROUND_FAILED, "the round failed: see Failed").condition("Complete", "False")
        return [over, lost, failure.finding.followed_by(again).condition("Failed", "True")]
    miners = known.miners
    counted = f" of {miners.scored} miners, of {miners.queried} that were asked" if miners is not None else ""
    said = f"the results{counted}, are in the ledger: {known.results_digest}"
    return [over, Finding(Reason.RESULTS_STORED, said).condition("Complete", "True")]


def measured(progress: RoundProgress | None) -> list[Condition]:
    """Return QuorumReached and MetricsFresh, as far as they are known."""
    found = []
    if progress is not None and (quorum := progress.quorum) is not None:
        scored = progress.miners.scored if progress.miners is not None else 0
        said = quorum.message or f"{scored} miners have a score, and {quorum.needed} are needed"
        reason = Reason.QUORUM_REACHED if quorum.reached else Reason.QUORUM_MISSED
        found.append(Finding(reason, said).condition("QuorumReached", "True" if quorum.reached else "False"))
    if progress is not None and (metrics := progress.metrics) is not None:
        reason = Reason.METRICS_FRESH if metrics.fresh else Reason.METRICS_STALE
        found.append(Finding(reason, metrics.message).condition("MetricsFresh", "True" if metrics.fresh else "False"))
    return found


def weights_submitted(
    weights: RoundWeights | None, job: JobFacts | None, failure: Failure | None, *, asked: bool, unreadable: str | None
) -> Condition:
    """Return WeightsSubmitted of a complete round; `asked`: the validator's spec.rewards says what to set."""
    kind: Final = "WeightsSubmitted"
    if weights is not None and weights.state in ("Revealed", "Superseded", "Withheld", "Refused", "Missed"):
        reason, status = _WEIGHTS[weights.state]
        return Finding(reason, _told(weights)).condition(kind, status)
    if not asked:
        said = "no weights are set: the Validator had no spec.rewards when the round started"
        return Finding(Reason.WEIGHTS_NOT_ASKED, said).condition(kind, "False")
    if job is not None and job.finished is not None:
        why = str(failure.finding) if failure is not None else job.message or "it ended without saying so"
        so_far = f"; until then: {_told(weights)}" if weights is not None else ""
        said = f"the Job that sets the weights ended without it: {why}{so_far}"
        return Finding(Reason.WEIGHTS_FAILED, said).condition(kind, "False")
    if unreadable is not None:
        said = f"what the Job says of the weights can't be read: {unreadable}"
        return Finding(Reason.REPORT_UNREADABLE, said).condition(kind, "Unknown")
    if weights is not None:
        reason, status = _WEIGHTS[weights.state]
        return Finding(reason, _told(weights)).condition(kind, status)
    stuck = NOT_RUNNING.evaluate(job) if job is not None else None
    if stuck is None and failure is not None:
        stuck = Finding(Reason.RETRYING, f"{failure.finding}; another attempt follows")
    begins = Finding(Reason.WEIGHTS_WAITING, "the Job that sets the weights is starting")
    return (stuck or begins).condition(kind, "Unknown")


def _told(weights: RoundWeights) -> str:
    block = f" at block {weights.block}" if weights.block is not None else ""
    miners = f", {weights.miners} miners" if weights.miners is not None else ""
    why = f": {weights.message}" if weights.message else ""
    return f"{weights.state} ({weights.reason}){block}{miners}{why}"

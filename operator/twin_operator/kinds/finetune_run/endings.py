"""How a Job ended for a run: done, failed and why, or not begun; and what the gate makes of what was found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from bettertherapy_api.doctor_twin import Gate
from bettertherapy_api.finetune_run import CreditStatus, CreditVerdict, EvalStatus, FineTuneRunStatus
from bettertherapy_api.gate.budget import Look
from twin_operator.domain.batches import Share
from twin_operator.domain.examined import attempt, look
from twin_operator.domain.reasons import Reason
from twin_operator.domain.verdict import MESSAGE_LENGTH, credited, judged, refused_artifact, refused_outcomes
from twin_operator.engine.times import moment, timestamp
from twin_operator.kinds.finetune_run.facts import Failure, Work, attempt_failure, crashed, reported_failure
from twin_operator.kinds.finetune_run.view import Ending, RunView

_FAULTS: Final[Mapping[Reason, CreditVerdict]] = {
    Reason.BAD_ARTIFACT: "Failed", Reason.NEAR_COPY: "Disallowed",
}  # fmt: skip
"""Of a miner, by how an examination of its version failed; all others say nothing of it."""


def end_of(view: RunView, work: Work, share: Share | None) -> Failure | Ending | None:
    """Return how the Job, shared or not, ended for the run; None while it goes on."""
    if share is not None and share.lost and (share.struck or not work.has_ended):
        if work.said_done or (work.who == "trainer" and _has_published(view)):
            return Ending.DONE
        return None if share.at_work else Ending.AGAIN
    if not work.has_ended:
        return _own_end(work) if share is not None and share.follows else None
    if work.is_done:
        return Ending.DONE
    return _final_failure(view, work) if share is None else _end_among_others(view, work, share)


def _end_among_others(view: RunView, work: Work, share: Share) -> Failure | Ending:
    """Return how a run ends that is not done when a Job ends: by its own report, by its own part in how the last pod
    ended, or not at all, where that was another one's.

    What has been published is done, though another attempt begins with reading its data again.
    """
    if work.who == "trainer" and _has_published(view):
        return Ending.DONE
    reported = reported_failure(work.progress)
    if reported is not None and reported.reason is Reason.PREEMPTED:
        reported = None  # as a pod is told that a Job takes away whose time is over: that is no end of the run's own
    if share.follows and reported is None and share.others_began and not work.broke_off:
        return Ending.AGAIN
    return reported or _final_failure(view, work, runs=share.runs)


def _has_published(view: RunView) -> bool:
    """Tell whether a version of the run is where it must be."""
    progress = view.facts.trainer.progress
    if view.run.status.artifact is not None:
        return True
    named = progress is not None and progress.artifact is not None
    return named and view.pool is not None and refused_version(view) is None


def _own_end(work: Work) -> Failure | Ending | None:
    """Return how a run ends whose part is over while the Job, which isn't its, goes on with others.

    One that has published waits: its examiner comes after the trainer, in the same place.
    """
    if not work.said_last or work.progress is None:
        return None
    if work.progress.failure is not None:
        return reported_failure(work.progress)
    return Ending.DONE if work.who == "examiner" or work.progress.skipped is not None else None


def last_failure(work: Work) -> Failure | None:
    """Return why the last attempt failed, as far as that is this run's."""
    if not work.pods:
        return None
    newest = work.pods[-1]
    if work.shared and (work.said_last or (newest.disruption is None and not work.broke_off)):
        return reported_failure(work.progress)
    return attempt_failure(newest, work)


def _final_failure(view: RunView, work: Work, *, runs: int = 1) -> Failure:
    """Return why the run as a whole failed, by one of its Jobs, which did so many runs and has ended."""
    job = work.job
    if job is not None and job.reason == "DeadlineExceeded":
        time = f"{runs * view.run.spec.deadline_seconds} s" + (f", the time of its {runs} runs" if runs > 1 else "")
        return Failure(
            reason=Reason.DEADLINE_EXCEEDED, retryable=False,
            message=f"the {work.who} was not done within {time}: raise spec.deadlineSeconds, or train on less",
        )  # fmt: skip
    for pod in reversed(work.pods):
        if (found := attempt_failure(pod, work)) is not None:
            return found
    reported = reported_failure(work.progress)
    if reported is not None:
        return reported
    if work.unreadable is not None:
        return Failure(
            reason=Reason.REPORT_UNREADABLE, retryable=False,
            message=f"the {work.who}'s last report in ConfigMap {work.configmap} can't be read: {work.unreadable}",
        )  # fmt: skip
    if job is not None and job.finished == "Complete":
        return Failure(
            reason=Reason.NO_REPORT, retryable=True,
            message=f"the {work.who} ended well without a last report in ConfigMap {work.configmap}",
        )  # fmt: skip
    return Failure(
        reason=crashed(work), retryable=True,
        message=f"{job.reason}: {job.message}" if job is not None and job.reason else f"the {work.who}'s Job failed",
    )  # fmt: skip


def refused_version(view: RunView) -> Failure | None:
    """Return why what the trainer names is not taken for the version."""
    progress, pool = view.facts.trainer.progress, view.pool
    if progress is None or progress.artifact is None or view.run.status.artifact is not None:
        return None
    made = progress.artifact
    if pool is None:
        return None if view.unreadable_pool is not None else owner_gone(view, "the version was examined")
    why = refused_artifact(
        uri=made.uri, digest=made.digest, twin=view.run.spec.twin_ref.name, store=pool.store_uri or ""
    )
    candidate = view.run.spec.candidate
    if why is None and candidate is not None and made.digest != candidate.digest:
        why = f"it names {made.digest}, and the version to examine is {candidate.digest}"
    return None if why is None else Failure(reason=Reason.ARTIFACT_REFUSED, retryable=False, message=why)


def nothing_made(known: FineTuneRunStatus, trainer: Work) -> Failure | None:
    """Return why a trainer that says that it is done is not believed."""
    if known.artifact is not None:
        return None
    return Failure(
        reason=Reason.NO_REPORT, retryable=True,
        message=f"the trainer ended well and names no version in ConfigMap {trainer.configmap}",
    )  # fmt: skip


def owner_gone(view: RunView, before: str) -> Failure:
    """Return the failure of a run whose twin or pool went away before something was done."""
    run = view.run
    what = f"MinerPool {run.status.pool}" if view.twin is not None else f"DoctorTwin {run.spec.twin_ref.name}"
    return Failure(reason=Reason.OWNER_GONE, retryable=False, message=f"{what} went away before {before}")


def is_hopeless(failure: Failure | None) -> bool:
    """Tell whether it fails again: the Job can't tell a limit of memory from any other kill."""
    return failure is not None and failure.reason is Reason.OUT_OF_MEMORY


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What an examination came to."""

    eval: EvalStatus
    """By the gate."""
    credit: CreditStatus | None
    """To the miner that made it; None of a twin's own version."""


def credit_without(failure: Failure) -> CreditStatus:
    """Return what a candidate is worth to its miner that could not be judged: only what was delivered is its fault."""
    verdict = _FAULTS.get(failure.reason, "Inconclusive")
    said = f"{failure.reason.value}: {failure.message}"
    return CreditStatus(verdict=verdict, message=said[:MESSAGE_LENGTH])


def verdict_of(view: RunView, known: FineTuneRunStatus, *, now: datetime) -> Judged | Failure:
    """Return the verdicts, or why there are none."""
    run, outcomes, examiner = view.run, view.facts.outcomes, view.facts.examiner
    if view.twin is None:
        return owner_gone(view, "the version was judged")
    if outcomes is None:
        return Failure(
            reason=Reason.NO_REPORT, retryable=True,
            message=f"the examiner ended well without a report in ConfigMap {examiner.configmap}",
        )  # fmt: skip
    if isinstance(outcomes, str):
        return Failure(
            reason=Reason.REPORT_UNREADABLE, retryable=False,
            message=f"what the examiner found, in ConfigMap {examiner.configmap}, can't be read: {outcomes}",
        )  # fmt: skip
    assert known.artifact is not None  # noqa: S101 - without one nothing is examined
    if (why := refused_outcomes(outcomes, run, made=known.artifact, dataset=known.dataset)) is not None:
        return Failure(reason=Reason.EXAMINATION_REFUSED, retryable=False, message=why)
    number = attempt(view.twin, view.of_twin, dataset=outcomes.subject.dataset, uid=run.uid)
    anchor = run.spec.anchor
    looked = Look() if anchor is None else look(view.twin, view.of_twin, anchor=anchor, uid=run.uid)
    begun = moment(run.status.start_time or timestamp(now))
    gate = view.twin.spec.gate or Gate()
    return Judged(
        eval=judged(outcomes, gate, attempt=number, look=looked, begun=begun, now=now),
        credit=credited(outcomes, gate, begun=begun, now=now) if run.spec.candidate is not None else None,
    )

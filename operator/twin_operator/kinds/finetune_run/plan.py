"""What a run should have and say: a pure function of what was gathered, of its status before, and of the time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from bettertherapy_api import names
from bettertherapy_api.examination import examination_name
from bettertherapy_api.finetune_run import (
    ArtifactStatus,
    CreditStatus,
    DatasetStatus,
    FailureStatus,
    FineTuneRunStatus,
    RefusedLines,
    RunRef,
)
from bettertherapy_api.run_progress import RunProgress, progress_name
from twin_operator.domain.batches import PATIENCE, Await, Coming, Join, Share, elect, is_shared
from twin_operator.domain.examined import is_remembered
from twin_operator.domain.objects import Run
from twin_operator.domain.reasons import Reason
from twin_operator.domain.task_versions import waits_for_choice
from twin_operator.domain.unreadable import SAYS_UNREADABLE
from twin_operator.domain.verdict import MESSAGE_LENGTH
from twin_operator.engine.conditions import Condition, Finding, truth
from twin_operator.engine.resources import Manifest
from twin_operator.engine.times import moment, timestamp
from twin_operator.kinds.finetune_run.checks import (
    admitted,
    data_ready,
    ended,
    let_go,
    reached,
    running,
    settled,
    stage_of,
)
from twin_operator.kinds.finetune_run.children import (
    examiners_children,
    trainers_children,
)
from twin_operator.kinds.finetune_run.endings import (
    Judged,
    credit_without,
    end_of,
    is_hopeless,
    last_failure,
    nothing_made,
    owner_gone,
    refused_version,
    verdict_of,
)
from twin_operator.kinds.finetune_run.facts import (
    Failure,
)
from twin_operator.kinds.finetune_run.report_configmap import build_progress_configmap
from twin_operator.kinds.finetune_run.task import deadline_of, given_up
from twin_operator.kinds.finetune_run.view import Ending, Overdue, RunPlan, RunView
from twin_operator.settings import Images

EXAMINED_FROM = 72
"""Percent of the run at which the examiner begins: where trainers end."""
JUDGE_LOOKED_FOR = timedelta(minutes=1)
"""How often a run looks again whether its twin's judge may be asked."""
TIDIED_AFTER = timedelta(hours=1)
"""So long the Job and the pod with its log are kept after a run that did what it should."""
FAILED_TIDIED_AFTER = timedelta(days=1)


def plan_run(view: RunView, images: Images, *, now: datetime) -> RunPlan:
    """Return what the run should have and say."""
    run = view.run
    if run.ended:
        return _plan_ended(view, now=now)
    if not run.started:
        if (late := given_up(run, now=now)) is not None:
            return _plan_given_up(view, late, now=now)
        if (found := view.out_of_bounds) is not None and isinstance(found.reason, Reason):
            refused = Failure(reason=found.reason, retryable=False, message=found.message)
            return _plan_given_up(view, refused, now=now)
        plan = _plan_waiting(view, now=now)
        return replace(
            plan, wake_at=min((at for at in (plan.wake_at, deadline_of(run)) if at is not None), default=None)
        )
    return _plan_started(view, images, now=now)


def _plan_waiting(view: RunView, *, now: datetime) -> RunPlan:
    run = view.run
    if view.obstacle is not None or view.pool is None or view.twin is None:
        absent = Finding(Reason.TWIN_NOT_FOUND, f"DoctorTwin {run.spec.twin_ref.name} does not exist")
        reason = view.unreadable or view.obstacle or absent
        unjudged = reason.reason in (Reason.NO_JUDGE, Reason.OUT_OF_BOUNDS)
        # In no pool's line: nobody waits behind a run that a place would not help.
        pool = view.pool.name if view.pool is not None and not unjudged else None
        status = run.status.model_copy(update={"pool": pool, "twin_uid": _twin_uid(view)})
        plan = _plan(run, status, [reason.condition("Queued", "True")])
        return replace(plan, wake_at=now + JUDGE_LOOKED_FOR) if unjudged else plan
    # The start is written down before the Job is made, so that the limit holds whenever the operator is killed; so is
    # whom it takes along, or with whom it comes.
    status = run.status.model_copy(
        update={
            "pool": view.pool.name, "start_time": timestamp(now), "twin_uid": _twin_uid(view),
            "trainer": view.asked_by, "trains": list(view.along) or None,
        }
    )  # fmt: skip
    conditions = [let_go(view.pool.name, view.asked_by).condition("Queued", "False")]
    if view.asked_by is None:
        return _plan(run, status, conditions)
    children = (build_progress_configmap(run, prompt=view.twin.spec.system_prompt),)
    return replace(_plan(run, status, conditions, children=children), children_first=True)


def _plan_given_up(view: RunView, failure: Failure, *, now: datetime) -> RunPlan:
    """Return what a run says that ends before it could begin."""
    known = view.run.status.model_copy(
        update={
            "failure": _failure_status(failure), "completion_time": timestamp(now), "twin_uid": _twin_uid(view),
            "credit": _credit_without(view.run, failure),
        }
    )  # fmt: skip
    return _plan(view.run, known, [failure.finding.condition("Queued", "False"), *ended(failure)])


def _twin_uid(view: RunView) -> str | None:
    """Return for whom the run is, written down when it is first looked at."""
    return view.run.status.twin_uid or view.run.owner_uid or (view.twin.uid if view.twin else None)


def _plan_started(view: RunView, images: Images, *, now: datetime) -> RunPlan:
    run, facts, trainer = view.run, view.facts, view.facts.trainer
    progress = trainer.progress
    refused = refused_version(view)
    known = merged(run.status, progress, place_is_right=refused is None and view.pool is not None)
    if run.status.examines is not None or run.status.examiner is not None:
        return _plan_examination(view, images, known, now=now)
    if (end := end_of(view, trainer, view.training)) is not None:
        return _plan_trained(view, images, known, end, refused=refused, now=now)
    if trainer.job is None and view.unreadable is None and (view.twin is None or view.pool is None):
        return _plan_end(view, known, owner_gone(view, "the trainer was started"), now=now)
    gathering = None
    if view.training is not None and trainer.job is None:
        remaining, gathering = _gathered(view.training, late=view.is_late(now))
        known = known.model_copy(update={"trains": remaining or None}) if remaining is not None else known
    last = last_failure(trainer)
    known = known.model_copy(update={"failure": _failure_status(last) or known.failure})
    not_made = (view.unreadable or gathering) if trainer.job is None else None
    held = _lost(view.training, run.status.trainer) or not_made
    conditions = [
        admitted(facts, run), *data_ready(progress, known, None), running(trainer, last, held=held),
        *reached(run, progress, known),
    ]  # fmt: skip
    plan = _plan(run, known, conditions, children=trainers_children(view, images, with_job=gathering is None))
    late = run.status.trainer is None and trainer.job is None and now >= _deadline(run, now)
    return replace(
        plan, give_up=run.name if is_hopeless(last) and not trainer.shared else None,
        overdue=Overdue(job=run.name, who="trainer", now=now) if late else None, wake_at=_patience_ends(view, now),
    )  # fmt: skip


def _plan_trained(
    view: RunView, images: Images, known: FineTuneRunStatus, end: Failure | Ending, *, refused: Failure | None,
    now: datetime,
) -> RunPlan:  # fmt: skip
    """Return what a run should have and say whose trainer has ended, or is through with it for good."""
    trainer = view.facts.trainer
    progress = trainer.progress
    if end is Ending.AGAIN:
        return _plan_again(view)
    failure = end if isinstance(end, Failure) else None
    skipped = progress is not None and progress.skipped is not None and failure is None
    if failure is None and not skipped and known.artifact is None and view.unreadable_pool is not None:
        # Where the version must be is the pool's to say.
        runs = running(trainer, None, held=view.unreadable_pool)
        return _plan(view.run, known, [admitted(view.facts, view.run), *data_ready(progress, known, None), runs])
    failure = failure or (None if skipped else refused or nothing_made(known, trainer))
    if failure is not None or skipped:
        return _plan_end(view, known, failure, now=now, skipped=skipped)
    return _plan_examination(view, images, known, now=now)


def _plan_again(view: RunView) -> RunPlan:
    """Return what a run says that its trainer did not come to: it waits as before, with nothing kept but its name."""
    run = view.run
    nothing = dict.fromkeys(
        (
            "start_time", "trainer", "progress_percent", "step", "steps", "remaining_seconds", "loss_milli",
            "validation_loss_milli", "distance_milli", "dataset", "artifact", "failure",
        )
    )  # fmt: skip
    leader = run.status.trainer.name if run.status.trainer is not None else ""
    why = Finding(Reason.REQUEUED, f"the trainer of FineTuneRun {leader} ended before it began this run")
    plan = _plan(run, run.status.model_copy(update=nothing), [why.condition("Queued", "True")])
    return replace(plan, forget=progress_name(run.name))


def _gathered(share: Share, *, late: bool) -> tuple[list[RunRef] | None, Finding | None]:
    """Return who is still taken along, if that is fewer than were asked, and why the Job is not made yet."""
    if share.follows:
        return None, None
    remaining = share.remaining(late=late)
    awaited = len(share.members) - sum(each.coming is Coming.GONE for each in share.members)
    why = Finding(Reason.GATHERING_RUNS, f"it starts once the {awaited} runs that come along are written down")
    if len(remaining) < len(share.members):
        return remaining, why  # written down first
    return None, why if share.awaits else None


def _lost(share: Share | None, leader: RunRef | None) -> Finding | None:
    if share is None or not share.lost or leader is None:
        return None
    return Finding(Reason.SHARED_JOB_LOST, f"FineTuneRun {leader.name}, with which it shared a Job, is gone")


def _patience_ends(view: RunView, now: datetime) -> datetime | None:
    if view.since is None:
        return None
    until = view.since + PATIENCE
    return until if until > now else None


def _plan_examination(view: RunView, images: Images, known: FineTuneRunStatus, *, now: datetime) -> RunPlan:
    """Return what a run should have and say whose trainer has ended well: the examiner, then the verdict."""
    run, examiner = view.run, view.facts.examiner
    progress = examiner.progress
    known = known.model_copy(
        update={
            "progress_percent": max(EXAMINED_FROM, progress.progress_percent if progress is not None else 0),
            "remaining_seconds": progress.remaining_seconds if progress is not None else None,
        }
    )  # fmt: skip
    end = end_of(view, examiner, view.examining)
    done = end is not None and end is not Ending.AGAIN
    held = view.unreadable_twin if done else view.unreadable if examiner.job is None else None
    if done and held is None:
        found = verdict_of(view, known, now=now) if end is Ending.DONE else end
        if isinstance(found, Failure):
            return _plan_end(view, known, found, now=now)
        assert isinstance(found, Judged)  # noqa: S101 - for mypy: it is no other ending
        judged_now = known.model_copy(
            update={"verdict": found.eval.verdict, "eval": found.eval, "credit": found.credit}
        )
        return _plan_end(view, judged_now, None, now=now)
    if examiner.job is None and held is None and (view.twin is None or view.pool is None):
        return _plan_end(view, known, owner_gone(view, "the version was examined"), now=now)
    if end is Ending.AGAIN:
        known = known.model_copy(update={"examiner": None, "failure": None})
        why = Finding(Reason.SHARED_JOB_LOST, "the examiner that it shared ended without it; another one follows")
        plan = _plan(run, known, _while_examined(view, known, running(examiner, None, held=why)))
        return replace(plan, forget=examination_name(run.name))
    gathering = None
    joined, led = run.status.examiner, run.status.examines
    if is_shared(run) and held is None and (joined, led) == (None, None):
        known, gathering = _with_others(view, known, now=now)
    elif view.examining is not None and examiner.job is None:
        remaining, gathering = _gathered(view.examining, late=view.is_late(now))
        known = known.model_copy(update={"examines": remaining}) if remaining is not None else known
    children = examiners_children(view, images, known, with_job=gathering is None)
    last = last_failure(examiner) if not done else None
    known = known.model_copy(update={"failure": _failure_status(last)})
    held = held or _lost(view.examining, run.status.examiner) or (gathering if examiner.job is None else None)
    conditions = _while_examined(view, known, running(examiner, last, held=held))
    plan = _plan(run, known, conditions, children=children)
    runs = view.training.runs if view.training is not None else 1
    due = _deadline(run, now) + timedelta(seconds=runs * run.spec.deadline_seconds)
    late = known.examiner is None and examiner.job is None and now >= due
    job = names.examiner_name(run.name)
    return replace(
        plan, give_up=job if is_hopeless(last) and not examiner.shared else None,
        children_first=known.examiner != joined, wake_at=_patience_ends(view, now),
        overdue=Overdue(job=job, who="examiner", now=now) if late else None,
    )  # fmt: skip


def _with_others(
    view: RunView, known: FineTuneRunStatus, *, now: datetime
) -> tuple[FineTuneRunStatus, Finding]:  # fmt: skip
    """Return the status with whom a run is examined whose trainer had others too, and why it isn't yet."""
    chosen = elect(view.run, view.peers, late=view.is_late(now), closed=view.closed)
    if isinstance(chosen, Await):
        return known, Finding(Reason.GATHERING_RUNS, chosen.why)
    with_whom = {"examiner": chosen.leader} if isinstance(chosen, Join) else {"examines": list(chosen.along)}
    settled_now = Finding(Reason.GATHERING_RUNS, "it is settled which runs are examined together")
    return known.model_copy(update=with_whom), settled_now


def _while_examined(view: RunView, known: FineTuneRunStatus, runs: Condition) -> list[Condition]:
    progress = view.facts.trainer.progress
    return [
        admitted(view.facts, view.run), *data_ready(progress, known, None), runs,
        *reached(view.run, progress, known),
    ]  # fmt: skip


def _plan_end(
    view: RunView, known: FineTuneRunStatus, failure: Failure | None, *, now: datetime, skipped: bool = False
) -> RunPlan:
    """Return what a run says as it ends."""
    run, progress = view.run, view.facts.trainer.progress
    known = known.model_copy(
        update={
            "failure": _failure_status(failure), "remaining_seconds": None, "completion_time": timestamp(now),
            "progress_percent": 100 if failure is None else known.progress_percent,
            "credit": known.credit if failure is None else _credit_without(run, failure),
        }
    )  # fmt: skip
    conditions = [
        admitted(view.facts, run), *data_ready(progress, known, failure), *reached(run, progress, known),
        *ended(failure),
        *(settled(run, known, view.twin, view.unreadable_twin, view.of_twin) if failure is None else []),
    ]  # fmt: skip
    return _plan(run, known, conditions, skipped=skipped)


def _credit_without(run: Run, failure: Failure) -> CreditStatus | None:
    return credit_without(failure) if run.spec.candidate is not None else None


def _deadline(run: Run, now: datetime) -> datetime:
    return moment(run.status.start_time or timestamp(now)) + timedelta(seconds=run.spec.deadline_seconds)


def plan_without_job(view: RunView, why: str, overdue: Overdue) -> RunPlan:
    """Return what a run says that could not be given a Job within its deadline: it ends, and leaves its place."""
    run = view.run
    never = Failure(
        reason=Reason.DEADLINE_EXCEEDED, retryable=True,
        message=f"its {overdue.who} could not be started within {run.spec.deadline_seconds} s (spec.deadlineSeconds): "
        f"{why}",
    )  # fmt: skip
    right = view.pool is not None and refused_version(view) is None
    known = merged(run.status, view.facts.trainer.progress, place_is_right=right)
    return _plan_end(view, known, never, now=overdue.now)


def _plan_ended(view: RunView, *, now: datetime) -> RunPlan:
    """Keep what was said; only what the twin makes of the version still changes."""
    run = view.run
    fate = settled(run, run.status, view.twin, view.unreadable_twin, view.of_twin)
    told = {condition.type for condition in fate}
    kept = [
        # It was said of a run that could not be read; this one can.
        admitted(view.facts, run)
        if each.type == "Queued" and each.reason in SAYS_UNREADABLE
        else Condition(type=each.type, status=truth(each.status), reason=each.reason, message=each.message)
        for each in run.status.conditions or []
        if each.type not in told and not (told and each.type in ("Promoted", "Rejected"))
    ]
    skipped = any(each.type == "DataReady" and each.reason == Reason.TOO_FEW_INTERACTIONS for each in kept)
    end = moment(run.status.completion_time or timestamp(now))
    expires = end + timedelta(seconds=run.spec.ttl_seconds)
    tidied = end + (FAILED_TIDIED_AFTER if run.status.failure or view.others_failed else TIDIED_AFTER)
    # A version that passed its gate is not forgotten before the twin has decided on it.
    undecided = any(
        each.type == "Promoted"
        and each.status == "False"
        and (each.reason != Reason.AWAITING_CHOICE or waits_for_choice(run, view.of_twin))
        for each in fate
    )
    # Nor is that it was tried on these lines.
    undecided = undecided or (view.twin is not None and not is_remembered(view.twin, run))
    due = [tidied] if undecided else [tidied, expires]
    plan = _plan(run, run.status, [*kept, *fate], skipped=skipped)
    return RunPlan(
        children=(), status=plan.status, conditions=plan.conditions, tidy=now >= tidied,
        wake_at=min((at for at in due if at > now), default=None),
        expired=not undecided and now >= expires,
    )  # fmt: skip


def merged(before: FineTuneRunStatus, progress: RunProgress | None, *, place_is_right: bool) -> FineTuneRunStatus:
    """Return the status with what the trainer says; what it does not say any more stays.

    `place_is_right` tells whether the version that it names is where it must be; a version once taken stays.
    """
    if progress is None:
        return before
    percent = progress.progress_percent if progress.skipped else min(EXAMINED_FROM, progress.progress_percent)
    update: dict[str, object] = {"progress_percent": percent, "remaining_seconds": progress.remaining_seconds}
    for name in ("step", "steps", "loss_milli", "validation_loss_milli", "distance_milli"):
        if (value := getattr(progress, name)) is not None:
            update[name] = value
    if (data := progress.dataset) is not None:
        update["dataset"] = DatasetStatus(
            uri=data.uri, digest=data.digest or None, interactions=data.interactions, pairs=data.pairs or None,
            refused=_lines(data.refused), repaired=_lines(data.repaired), waiting=data.waiting or None,
            rehearsed=data.rehearsed or None, validation=data.validation or None,
            passed_over=[name[:256] for name in data.passed_over[:20]] or None,
        )  # fmt: skip
    if (made := progress.artifact) is not None and place_is_right and before.artifact is None:
        update["artifact"] = ArtifactStatus(uri=made.uri, digest=made.digest, rank=made.rank, bytes=made.bytes)
    return before.model_copy(update=update)


def _lines(counts: Mapping[str, int]) -> list[RefusedLines] | None:
    return [RefusedLines(reason=reason, count=count) for reason, count in sorted(counts.items())[:32]] or None


def _failure_status(failure: Failure | None) -> FailureStatus | None:
    if failure is None:
        return None
    return FailureStatus(
        failure_class=failure.reason.value, retryable=failure.retryable, message=failure.message[:MESSAGE_LENGTH]
    )


def _plan(
    run: Run, status: FineTuneRunStatus, conditions: list[Condition], *, skipped: bool = False,
    children: tuple[Manifest, ...] = (),
) -> RunPlan:  # fmt: skip
    document = status.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"conditions"})
    document |= {
        "observedGeneration": run.generation, "stage": stage_of(conditions, skipped=skipped),
        "progress": None if status.progress_percent is None else f"{status.progress_percent}%",
        "loss": None if status.loss_milli is None else f"{status.loss_milli / 1000:.3f}",
    }  # fmt: skip
    return RunPlan(children=children, status=document, conditions=conditions)

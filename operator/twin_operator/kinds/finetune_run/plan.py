"""What a run should have and say: a pure function of what was gathered, of its status before, and of the time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum, auto

from bettertherapy_api import names
from bettertherapy_api.doctor_twin import Gate
from bettertherapy_api.examination import examination_name
from bettertherapy_api.finetune_run import (
    ArtifactStatus,
    DatasetStatus,
    EvalStatus,
    FailureStatus,
    FineTuneRunStatus,
    RefusedLines,
    RunRef,
)
from bettertherapy_api.gate.budget import Look
from bettertherapy_api.run_progress import RunProgress, progress_name
from twin_operator.domain.batches import PATIENCE, Await, Coming, Join, Share, elect, is_shared
from twin_operator.domain.examined import attempt, is_remembered, look
from twin_operator.domain.objects import Pool, Run, Twin
from twin_operator.domain.reasons import Reason
from twin_operator.domain.unreadable import SAYS_UNREADABLE
from twin_operator.domain.verdict import MESSAGE_LENGTH, judged, refused_artifact, refused_outcomes
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
from twin_operator.kinds.finetune_run.examiner_job import build_examiner_job
from twin_operator.kinds.finetune_run.facts import (
    Failure,
    RunFacts,
    Work,
    attempt_failure,
    crashed,
    reported_failure,
)
from twin_operator.kinds.finetune_run.job_parts import Task
from twin_operator.kinds.finetune_run.network_policy import build_examiner_network_policy
from twin_operator.kinds.finetune_run.report_configmap import build_examination_configmap, build_progress_configmap
from twin_operator.kinds.finetune_run.role import build_role
from twin_operator.kinds.finetune_run.role_binding import build_role_binding
from twin_operator.kinds.finetune_run.service_account import build_service_account
from twin_operator.kinds.finetune_run.trainer_job import build_trainer_job
from twin_operator.settings import Images

EXAMINED_FROM = 72
"""Percent of the run at which the examiner begins: where trainers end."""
TIDIED_AFTER = timedelta(hours=1)
"""So long the Job and the pod with its log are kept after a run that did what it should."""
FAILED_TIDIED_AFTER = timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class RunView:
    """A run with all that its plan depends on."""

    run: Run
    twin: Twin | None
    pool: Pool | None
    """Where it runs: the one it was given to, else the one it would be given to."""
    obstacle: Finding | None
    """Why it can't run at the moment, or must wait; of no account once it has started."""
    facts: RunFacts = field(default_factory=RunFacts)
    of_twin: tuple[Run, ...] = ()
    """All runs of the twin."""
    unreadable_twin: Finding | None = None
    """What to say where the twin is there, but can't be read: what becomes of the run is decided once it can."""
    unreadable_pool: Finding | None = None
    """The same of the pool."""
    along: tuple[RunRef, ...] = ()
    """Of one that waits: whom its trainer would train too."""
    asked_by: RunRef | None = None
    """Of one that waits: the run whose trainer trains it too."""
    training: Share | None = None
    """With whom it shares a trainer; None: with nobody."""
    examining: Share | None = None
    """With whom it shares an examiner."""
    peers: tuple[Run, ...] = ()
    """The other runs of its trainer that live and have not ended."""
    others_failed: bool = False
    """Of one that has ended: a run failed that it took along."""
    since: datetime | None = None
    """Since when others are waited for."""

    @property
    def unreadable(self) -> Finding | None:
        """What keeps the run from being started, or given up, before it can be read."""
        return self.unreadable_twin or self.unreadable_pool

    @property
    def awaits(self) -> bool:
        """Whether it depends on what others say next."""
        if self.run.ended or not self.run.started:
            return False
        shares = ((self.training, self.facts.trainer), (self.examining, self.facts.examiner))
        return any(share is not None and share.awaits and work.job is None for share, work in shares) or (
            _is_to_be_examined(self.run) and isinstance(elect(self.run, self.peers, late=False), Await)
        )

    def is_late(self, now: datetime) -> bool:
        """Tell whether others have been waited for long enough."""
        return self.since is not None and now - self.since >= PATIENCE


@dataclass(frozen=True, kw_only=True)
class Overdue:
    """A Job that is still not there beyond the run's deadline: unless this attempt makes it, none will."""

    job: str
    who: str
    now: datetime


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """What to apply and to report."""

    children: tuple[Manifest, ...]
    status: Manifest
    conditions: list[Condition]
    wake_at: datetime | None = None
    """When to look again though nothing changes."""
    expired: bool = False
    """Its time to live is over: delete it."""
    tidy: bool = False
    """Nobody looks at its Job and its pods any more: delete them, and what they ran as. The report stays."""
    give_up: str | None = None
    """Name of the Job of which another attempt would end as the last did: let it make none."""
    overdue: Overdue | None = None
    children_first: bool = False
    """The status counts on its children: unless they are there, it is not written."""
    forget: str | None = None
    """Name of the ConfigMap with a report that counts no more, deleted before the status is written."""


class Ending(Enum):
    """How one of its Jobs ended for a run that did not fail."""

    DONE = auto()
    AGAIN = auto()
    """Others had it first, and it was not begun: another Job does it."""


def plan_run(view: RunView, images: Images, *, now: datetime) -> RunPlan:
    """Return what the run should have and say."""
    run = view.run
    if run.ended:
        return _plan_ended(view, now=now)
    if not run.started:
        return _plan_waiting(view, now=now)
    return _plan_started(view, images, now=now)


def _plan_waiting(view: RunView, *, now: datetime) -> RunPlan:
    run = view.run
    if view.obstacle is not None or view.pool is None or view.twin is None:
        absent = Finding(Reason.TWIN_NOT_FOUND, f"DoctorTwin {run.spec.twin_ref.name} does not exist")
        reason = view.unreadable or view.obstacle or absent
        status = run.status.model_copy(
            update={"pool": view.pool.name if view.pool else None, "twin_uid": _twin_uid(view)}
        )
        return _plan(run, status, [reason.condition("Queued", "True")])
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


def _twin_uid(view: RunView) -> str | None:
    """Return for whom the run is, written down when it is first looked at."""
    return view.run.status.twin_uid or view.run.owner_uid or (view.twin.uid if view.twin else None)


def _plan_started(view: RunView, images: Images, *, now: datetime) -> RunPlan:
    run, facts, trainer = view.run, view.facts, view.facts.trainer
    progress = trainer.progress
    refused = _refused_artifact(view)
    known = merged(run.status, progress, place_is_right=refused is None and view.pool is not None)
    if run.status.examines is not None or run.status.examiner is not None:
        return _plan_examination(view, images, known, now=now)
    end = _end_of(view, trainer, view.training)
    if end is Ending.AGAIN:
        return _plan_again(view)
    if end is not None:
        failure = end if isinstance(end, Failure) else None
        skipped = progress is not None and progress.skipped is not None and failure is None
        if failure is None and not skipped and known.artifact is None and view.unreadable_pool is not None:
            # Where the version must be is the pool's to say.
            runs = running(trainer, None, held=view.unreadable_pool)
            return _plan(run, known, [admitted(facts, run), *data_ready(progress, known, None), runs])
        failure = failure or (None if skipped else refused or _nothing_made(known, trainer))
        if failure is not None or skipped:
            return _plan_end(view, known, failure, now=now, skipped=skipped)
        return _plan_examination(view, images, known, now=now)
    if trainer.job is None and view.unreadable is None and (view.twin is None or view.pool is None):
        return _plan_end(view, known, _owner_gone(view, "the trainer was started"), now=now)
    gathering = None
    if view.training is not None and trainer.job is None:
        remaining, gathering = _gathered(view.training, late=view.is_late(now))
        known = known.model_copy(update={"trains": remaining or None}) if remaining is not None else known
    last = _last_failure(trainer)
    known = known.model_copy(update={"failure": _failure_status(last) or known.failure})
    held = _lost(view.training, run.status.trainer)
    held = held or ((view.unreadable or gathering) if trainer.job is None else None)
    conditions = [
        admitted(facts, run), *data_ready(progress, known, None), running(trainer, last, held=held),
        *reached(progress, known),
    ]  # fmt: skip
    if run.status.trainer is not None:
        children: tuple[Manifest, ...] = (_trainers_report(view),)
    else:
        children = _trainers_children(view, images, with_job=gathering is None)
    plan = _plan(run, known, conditions, children=children)
    alone = run.status.trainer is None
    late = alone and trainer.job is None and now >= _deadline(run, now)
    return replace(
        plan, give_up=run.name if _is_hopeless(last) and not trainer.shared else None,
        overdue=Overdue(job=run.name, who="trainer", now=now) if late else None, wake_at=_patience_ends(view, now),
    )  # fmt: skip


def _end_of(view: RunView, work: Work, share: Share | None) -> Failure | Ending | None:
    """Return how the Job ended for the run; None while it goes on."""
    if share is None:
        if not work.has_ended:
            return None
        return Ending.DONE if work.is_done else _final_failure(view, work)
    if share.lost and work.said_done:
        return Ending.DONE
    if share.lost and (share.struck or not work.has_ended):
        return None if share.at_work else Ending.AGAIN
    if not work.has_ended:
        return _own_end(work) if share.follows else None
    if work.is_done:
        return Ending.DONE
    reported = reported_failure(work.progress)
    if share.follows and reported is None and share.others_began and not work.broke_off:
        return Ending.AGAIN
    return reported or _final_failure(view, work, runs=share.runs)


def _own_end(work: Work) -> Failure | Ending | None:
    """Return how a run ends whose part is over while the Job, which isn't its, goes on with others.

    One that has published waits: its examiner comes after the trainer, in the same place.
    """
    if not work.said_last or work.progress is None:
        return None
    if work.progress.failure is not None:
        return reported_failure(work.progress)
    return Ending.DONE if work.who == "examiner" or work.progress.skipped is not None else None


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


def _last_failure(work: Work) -> Failure | None:
    """Return why the last attempt failed, as far as that is this run's."""
    if not work.pods:
        return None
    newest = work.pods[-1]
    if work.shared and (work.said_last or (newest.disruption is None and not work.broke_off)):
        return reported_failure(work.progress)
    return attempt_failure(newest, work)


def _patience_ends(view: RunView, now: datetime) -> datetime | None:
    if view.since is None:
        return None
    until = view.since + PATIENCE
    return until if until > now else None


def _is_to_be_examined(run: Run) -> bool:
    """Tell whether it has published, by a trainer that it shares, and is not known yet with whom it is examined."""
    return is_shared(run) and run.status.artifact is not None and (run.status.examines, run.status.examiner) == (
        None, None,
    )  # fmt: skip


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
    end = _end_of(view, examiner, view.examining)
    done = end is not None and end is not Ending.AGAIN
    held = view.unreadable_twin if done else view.unreadable if examiner.job is None else None
    if done and held is None:
        found = _verdict(view, known) if end is Ending.DONE else end
        if isinstance(found, Failure):
            return _plan_end(view, known, found, now=now)
        assert isinstance(found, EvalStatus)  # noqa: S101 - for mypy: it is no other ending
        judged_now = known.model_copy(update={"verdict": found.verdict, "eval": found})
        return _plan_end(view, judged_now, None, now=now)
    if examiner.job is None and held is None and (view.twin is None or view.pool is None):
        return _plan_end(view, known, _owner_gone(view, "the version was examined"), now=now)
    if end is Ending.AGAIN:
        known = known.model_copy(update={"examiner": None, "failure": None})
        why = Finding(Reason.SHARED_JOB_LOST, "the examiner that it shared ended without it; another one follows")
        plan = _plan(run, known, _while_examined(view, known, running(examiner, None, held=why)))
        return replace(plan, forget=examination_name(run.name))
    gathering, children_first = None, False
    children: tuple[Manifest, ...] | None = None
    if is_shared(run) and held is None and (known.examines, known.examiner) == (None, None):
        chosen = elect(run, view.peers, late=view.is_late(now))
        gathering = Finding(Reason.GATHERING_RUNS, "it is settled which runs are examined together")
        children = (_trainers_report(view),)
        if isinstance(chosen, Await):
            gathering = Finding(Reason.GATHERING_RUNS, chosen.why)
        elif isinstance(chosen, Join):
            known, children_first = known.model_copy(update={"examiner": chosen.leader}), True
            children = (*children, _examiners_report(view))
        else:
            known = known.model_copy(update={"examines": list(chosen.along)})
    elif view.examining is not None and examiner.job is None:
        remaining, gathering = _gathered(view.examining, late=view.is_late(now))
        known = known.model_copy(update={"examines": remaining}) if remaining is not None else known
    if children is None:
        children = _examiners_children(view, images, known, with_job=gathering is None)
    last = _last_failure(examiner) if not done else None
    known = known.model_copy(update={"failure": _failure_status(last)})
    held = held or _lost(view.examining, run.status.examiner) or (gathering if examiner.job is None else None)
    conditions = _while_examined(view, known, running(examiner, last, held=held))
    plan = _plan(run, known, conditions, children=children)
    runs = view.training.runs if view.training is not None else 1
    due = _deadline(run, now) + timedelta(seconds=runs * run.spec.deadline_seconds)
    late = known.examiner is None and examiner.job is None and now >= due
    job = names.examiner_name(run.name)
    return replace(
        plan, give_up=job if _is_hopeless(last) and not examiner.shared else None, children_first=children_first,
        overdue=Overdue(job=job, who="examiner", now=now) if late else None, wake_at=_patience_ends(view, now),
    )  # fmt: skip


def _while_examined(view: RunView, known: FineTuneRunStatus, runs: Condition) -> list[Condition]:
    progress = view.facts.trainer.progress
    return [
        admitted(view.facts, view.run), *data_ready(progress, known, None), runs, *reached(progress, known),
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
        }
    )  # fmt: skip
    conditions = [
        admitted(view.facts, run), *data_ready(progress, known, failure), *reached(progress, known), *ended(failure),
        *(settled(run, known, view.twin, view.unreadable_twin) if failure is None else []),
    ]  # fmt: skip
    return _plan(run, known, conditions, skipped=skipped)


def _refused_artifact(view: RunView) -> Failure | None:
    """Return why what the trainer names is not taken for the version."""
    progress, pool = view.facts.trainer.progress, view.pool
    if progress is None or progress.artifact is None or view.run.status.artifact is not None:
        return None
    made = progress.artifact
    if pool is None:
        return None if view.unreadable_pool is not None else _owner_gone(view, "the version was examined")
    why = refused_artifact(
        uri=made.uri, digest=made.digest, twin=view.run.spec.twin_ref.name, store=pool.store_uri or ""
    )
    return None if why is None else Failure(reason=Reason.ARTIFACT_REFUSED, retryable=False, message=why)


def _nothing_made(known: FineTuneRunStatus, trainer: Work) -> Failure | None:
    if known.artifact is not None:
        return None
    return Failure(
        reason=Reason.NO_REPORT, retryable=True,
        message=f"the trainer ended well and names no version in ConfigMap {trainer.configmap}",
    )  # fmt: skip


def _owner_gone(view: RunView, before: str) -> Failure:
    run = view.run
    what = f"MinerPool {run.status.pool}" if view.twin is not None else f"DoctorTwin {run.spec.twin_ref.name}"
    return Failure(reason=Reason.OWNER_GONE, retryable=False, message=f"{what} went away before {before}")


def _is_hopeless(failure: Failure | None) -> bool:
    """Tell whether it fails again: the Job can't tell a limit of memory from any other kill."""
    return failure is not None and failure.reason is Reason.OUT_OF_MEMORY


def _verdict(view: RunView, known: FineTuneRunStatus) -> EvalStatus | Failure:
    """Return the gate's verdict, or why there is none."""
    run, outcomes, examiner = view.run, view.facts.outcomes, view.facts.examiner
    if view.twin is None:
        return _owner_gone(view, "the version was judged")
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
    return judged(outcomes, view.twin.spec.gate or Gate(), attempt=number, look=looked)


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
    right = view.pool is not None and _refused_artifact(view) is None
    known = merged(run.status, view.facts.trainer.progress, place_is_right=right)
    return _plan_end(view, known, never, now=overdue.now)


def _plan_ended(view: RunView, *, now: datetime) -> RunPlan:
    """Keep what was said; only what the twin makes of the version still changes."""
    run = view.run
    fate = settled(run, run.status, view.twin, view.unreadable_twin)
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
    undecided = any(each.type == "Promoted" and each.status == "False" for each in fate)
    # Nor is that it was tried on these lines.
    undecided = undecided or (view.twin is not None and not is_remembered(view.twin, run))
    due = [tidied] if undecided else [tidied, expires]
    plan = _plan(run, run.status, [*kept, *fate], skipped=skipped)
    return RunPlan(
        children=(), status=plan.status, conditions=plan.conditions, tidy=now >= tidied,
        wake_at=min((at for at in due if at > now), default=None),
        expired=not undecided and now >= expires,
    )  # fmt: skip


def _trainers_report(view: RunView) -> Manifest:
    """Return where the trainer tells of this run; what it has read stays."""
    trainer, twin = view.facts.trainer, view.twin
    prompt = twin.spec.system_prompt if twin else None
    # Who comes along has told its prompt with that; one that leads tells it with the Job.
    if trainer.has_configmap and (trainer.job is not None or view.run.status.trainer is not None):
        prompt = trainer.prompt
    return build_progress_configmap(view.run, prompt=prompt)


def _examiners_report(view: RunView) -> Manifest:
    """Return where the examiner tells of this run, likewise.

    It is told the twin's system prompt by the operator: the trainer's own ConfigMap may say another.
    """
    examiner, twin = view.facts.examiner, view.twin
    prompt = twin.spec.system_prompt if twin else None
    if examiner.has_configmap and (examiner.job is not None or view.run.status.examiner is not None):
        prompt = examiner.prompt
    return build_examination_configmap(view.run, prompt=prompt)


def _trainers_children(view: RunView, images: Images, *, with_job: bool) -> tuple[Manifest, ...]:
    """Return the trainer's objects; the Job last, when all it needs is there."""
    run, twin, pool = view.run, view.twin, view.pool
    report = _trainers_report(view)
    children = [report, *_identity(run, names.trainer_name(run.name), "trainer", view.training)]
    if twin is not None and pool is not None and with_job:
        along = _tasks(view.training, examined=False)
        children.append(build_trainer_job(run, twin, pool, images, prompt="data" in report, along=along))
    return tuple(children)


def _examiners_children(
    view: RunView, images: Images, known: FineTuneRunStatus, *, with_job: bool
) -> tuple[Manifest, ...]:
    """Return the examiner's objects, and of the trainer's its report alone: what it could do ends with it."""
    run, facts, twin, pool = view.run, view.facts, view.twin, view.pool
    report = _examiners_report(view)
    reports = [build_progress_configmap(run, prompt=facts.trainer.prompt), report]
    if known.examiner is not None:
        return tuple(reports)
    children = [
        *reports, *_identity(run, names.examiner_name(run.name), "examiner", view.examining),
        build_examiner_network_policy(run),
    ]  # fmt: skip
    if twin is not None and pool is not None and known.artifact is not None and with_job:
        job = build_examiner_job(
            run, twin, pool, images, child=known.artifact.digest, prompt="data" in report,
            along=_tasks(view.examining, examined=True),
        )  # fmt: skip
        children.append(job)
    return tuple(children)


def _identity(run: Run, name: str, component: str, share: Share | None) -> list[Manifest]:
    """Return who a Job's pods are at the API server: ServiceAccount, Role and binding."""
    # Not of a run that is gone: another one of its name would be told of by this Job.
    along = [each.ref.name for each in share.members if each.run is not None] if share is not None else []
    return [
        build_service_account(run, name, component), build_role(run, name, component, along=along),
        build_role_binding(run, name, component),
    ]  # fmt: skip


def _tasks(share: Share | None, *, examined: bool) -> list[Task]:
    """Return the runs that come along, as their Job is told of them."""
    tasks = []
    for each in share.members if share is not None else ():
        if each.run is not None and each.twin is not None:
            made = each.run.status.artifact
            child = made.digest if examined and made is not None else None
            tasks.append(Task(run=each.run, twin=each.twin, prompt=each.prompt, child=child))
    return tasks


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

"""What a run should have and say: a pure function of what was gathered, of its status before, and of the time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from bettertherapy_api import names
from bettertherapy_api.doctor_twin import Gate
from bettertherapy_api.finetune_run import (
    ArtifactStatus,
    DatasetStatus,
    EvalStatus,
    FailureStatus,
    FineTuneRunStatus,
    RefusedLines,
)
from bettertherapy_api.gate.budget import Look
from bettertherapy_api.run_progress import RunProgress
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
from twin_operator.kinds.finetune_run.network_policy import build_examiner_network_policy
from twin_operator.kinds.finetune_run.report_configmap import build_examination_configmap, build_progress_configmap
from twin_operator.kinds.finetune_run.role import build_role
from twin_operator.kinds.finetune_run.role_binding import build_role_binding
from twin_operator.kinds.finetune_run.service_account import build_service_account
from twin_operator.kinds.finetune_run.task import deadline_of, given_up
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

    @property
    def unreadable(self) -> Finding | None:
        """What keeps the run from being started, or given up, before it can be read."""
        return self.unreadable_twin or self.unreadable_pool


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


def plan_run(view: RunView, images: Images, *, now: datetime) -> RunPlan:
    """Return what the run should have and say."""
    run = view.run
    if run.ended:
        return _plan_ended(view, now=now)
    if not run.started:
        if (late := given_up(run, now=now)) is not None:
            return _plan_given_up(view, late, now=now)
        return replace(_plan_waiting(view, now=now), wake_at=deadline_of(run))
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
    # The start is written down before the Job is made, so that the limit holds whenever the operator is killed.
    status = run.status.model_copy(
        update={"pool": view.pool.name, "start_time": timestamp(now), "twin_uid": _twin_uid(view)}
    )
    admission = Finding(Reason.ADMITTED, f"started in MinerPool {view.pool.name}")
    return _plan(run, status, [admission.condition("Queued", "False")])


def _plan_given_up(view: RunView, failure: Failure, *, now: datetime) -> RunPlan:
    """Return what a run says that ends before it could begin."""
    known = view.run.status.model_copy(
        update={"failure": _failure_status(failure), "completion_time": timestamp(now), "twin_uid": _twin_uid(view)}
    )
    return _plan(view.run, known, [failure.finding.condition("Queued", "False"), *ended(failure)])


def _twin_uid(view: RunView) -> str | None:
    """Return for whom the run is, written down when it is first looked at."""
    return view.run.status.twin_uid or view.run.owner_uid or (view.twin.uid if view.twin else None)


def _plan_started(view: RunView, images: Images, *, now: datetime) -> RunPlan:
    run, facts, trainer = view.run, view.facts, view.facts.trainer
    progress = trainer.progress
    refused = _refused_artifact(view)
    known = merged(run.status, progress, place_is_right=refused is None and view.pool is not None)
    if trainer.job is not None and trainer.job.finished is not None:
        failure = None if trainer.is_done else _final_failure(view, trainer)
        skipped = progress is not None and progress.skipped is not None and failure is None
        if failure is None and not skipped and known.artifact is None and view.unreadable_pool is not None:
            # Where the version must be is the pool's to say.
            held = running(trainer, None, held=view.unreadable_pool)
            return _plan(run, known, [admitted(facts, run), *data_ready(progress, known, None), held])
        failure = failure or (None if skipped else refused or _nothing_made(known, trainer))
        if failure is not None or skipped:
            return _plan_end(view, known, failure, now=now, skipped=skipped)
        return _plan_examination(view, images, known, now=now)
    if trainer.job is None and view.unreadable is None and (view.twin is None or view.pool is None):
        return _plan_end(view, known, _owner_gone(view, "the trainer was started"), now=now)
    last = attempt_failure(trainer.pods[-1], trainer) if trainer.pods else None
    known = known.model_copy(update={"failure": _failure_status(last) or known.failure})
    conditions = [
        admitted(facts, run), *data_ready(progress, known, None),
        running(trainer, last, held=view.unreadable if trainer.job is None else None), *reached(progress, known),
    ]  # fmt: skip
    plan = _plan(run, known, conditions, children=_trainers_children(view, images))
    late = trainer.job is None and now >= _deadline(run, now)
    return replace(
        plan, give_up=run.name if _is_hopeless(last) else None,
        overdue=Overdue(job=run.name, who="trainer", now=now) if late else None,
    )  # fmt: skip


def _plan_examination(view: RunView, images: Images, known: FineTuneRunStatus, *, now: datetime) -> RunPlan:
    """Return what a run should have and say whose trainer has ended well: the examiner, then the verdict."""
    run, facts, examiner = view.run, view.facts, view.facts.examiner
    progress = examiner.progress
    known = known.model_copy(
        update={
            "progress_percent": max(EXAMINED_FROM, progress.progress_percent if progress is not None else 0),
            "remaining_seconds": progress.remaining_seconds if progress is not None else None,
        }
    )  # fmt: skip
    done = examiner.job is not None and examiner.job.finished is not None
    held = view.unreadable_twin if done else view.unreadable if examiner.job is None else None
    if done and held is None:
        found = _verdict(view, known) if examiner.is_done else _final_failure(view, examiner)
        if isinstance(found, Failure):
            return _plan_end(view, known, found, now=now)
        judged_now = known.model_copy(update={"verdict": found.verdict, "eval": found})
        return _plan_end(view, judged_now, None, now=now)
    if examiner.job is None and held is None and (view.twin is None or view.pool is None):
        return _plan_end(view, known, _owner_gone(view, "the version was examined"), now=now)
    last = attempt_failure(examiner.pods[-1], examiner) if examiner.pods and not done else None
    known = known.model_copy(update={"failure": _failure_status(last)})
    conditions = [
        admitted(facts, run), *data_ready(facts.trainer.progress, known, None), running(examiner, last, held=held),
        *reached(facts.trainer.progress, known),
    ]  # fmt: skip
    plan = _plan(run, known, conditions, children=_examiners_children(view, images, known))
    late = examiner.job is None and now >= _deadline(run, now) + timedelta(seconds=run.spec.deadline_seconds)
    job = names.examiner_name(run.name)
    return replace(
        plan, give_up=job if _is_hopeless(last) else None,
        overdue=Overdue(job=job, who="examiner", now=now) if late else None,
    )  # fmt: skip


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
    tidied = end + (FAILED_TIDIED_AFTER if run.status.failure else TIDIED_AFTER)
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


def _trainers_children(view: RunView, images: Images) -> tuple[Manifest, ...]:
    """Return the trainer's objects; the Job last, when all it needs is there."""
    run, trainer, twin, pool = view.run, view.facts.trainer, view.twin, view.pool
    prompt = twin.spec.system_prompt if twin else None
    if trainer.job is not None and trainer.has_configmap:
        prompt = trainer.prompt  # the trainer read it when it began
    children = [build_progress_configmap(run, prompt=prompt), *_identity(run, names.trainer_name(run.name), "trainer")]
    if twin is not None and pool is not None:
        children.append(build_trainer_job(run, twin, pool, images, prompt=prompt is not None))
    return tuple(children)


def _examiners_children(view: RunView, images: Images, known: FineTuneRunStatus) -> tuple[Manifest, ...]:
    """Return the examiner's objects, and of the trainer's its report alone: what it could do ends with it.

    The examiner is told the twin's system prompt by the operator: the trainer's own ConfigMap may say another.
    """
    run, facts, twin, pool = view.run, view.facts, view.twin, view.pool
    prompt = twin.spec.system_prompt if twin else None
    if facts.examiner.job is not None and facts.examiner.has_configmap:
        prompt = facts.examiner.prompt
    children = [
        build_progress_configmap(run, prompt=facts.trainer.prompt),
        build_examination_configmap(run, prompt=prompt), *_identity(run, names.examiner_name(run.name), "examiner"),
        build_examiner_network_policy(run),
    ]  # fmt: skip
    if twin is not None and pool is not None and known.artifact is not None:
        job = build_examiner_job(run, twin, pool, images, child=known.artifact.digest, prompt=prompt is not None)
        children.append(job)
    return tuple(children)


def _identity(run: Run, name: str, component: str) -> list[Manifest]:
    """Return who a Job's pods are at the API server: ServiceAccount, Role and binding."""
    return [
        build_service_account(run, name, component), build_role(run, name, component),
        build_role_binding(run, name, component),
    ]  # fmt: skip


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


def _final_failure(view: RunView, work: Work) -> Failure:
    """Return why the run as a whole failed, by one of its Jobs that has ended."""
    job = work.job
    if job is not None and job.reason == "DeadlineExceeded":
        return Failure(
            reason=Reason.DEADLINE_EXCEEDED, retryable=False,
            message=f"the {work.who} was not done within {view.run.spec.deadline_seconds} s: raise "
            "spec.deadlineSeconds, or train on less",
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

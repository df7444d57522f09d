"""What a run should have and say: a pure function of what was gathered, of its status before, and of the time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from bettertherapy_api.doctor_twin import GateMetric
from bettertherapy_api.finetune_run import (
    ArtifactStatus,
    DatasetStatus,
    EvalStatus,
    FailureStatus,
    FineTuneRunStatus,
    RefusedLines,
)
from bettertherapy_api.run_progress import RunProgress, RunStage
from twin_operator.domain.objects import Pool, Run, Twin
from twin_operator.domain.reasons import Reason
from twin_operator.domain.unreadable import SAYS_UNREADABLE
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
from twin_operator.kinds.finetune_run.facts import (
    Failure,
    RunFacts,
    attempt_failure,
    reported_failure,
)
from twin_operator.kinds.finetune_run.progress_configmap import build_progress_configmap
from twin_operator.kinds.finetune_run.role import build_role
from twin_operator.kinds.finetune_run.role_binding import build_role_binding
from twin_operator.kinds.finetune_run.service_account import build_service_account
from twin_operator.kinds.finetune_run.trainer_job import build_trainer_job
from twin_operator.settings import Images

MESSAGE_LENGTH = 4000
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
    unreadable_twin: Finding | None = None
    """What to say where the twin is there, but can't be read: what becomes of the run is decided once it can."""
    unreadable_pool: Finding | None = None
    """The same of the pool."""

    @property
    def unreadable(self) -> Finding | None:
        """What keeps the run from being started, or given up, before it can be read."""
        return self.unreadable_twin or self.unreadable_pool


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
    give_up: bool = False
    """Another attempt would end as the last did: let the Job make none."""
    overdue: datetime | None = None
    """The time, when it has no Job beyond its deadline: unless this attempt makes one, none will."""


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
    # The start is written down before the Job is made, so that the limit holds whenever the operator is killed.
    status = run.status.model_copy(
        update={"pool": view.pool.name, "start_time": timestamp(now), "twin_uid": _twin_uid(view)}
    )
    admission = Finding(Reason.ADMITTED, f"started in MinerPool {view.pool.name}")
    return _plan(run, status, [admission.condition("Queued", "False")])


def _twin_uid(view: RunView) -> str | None:
    """Return for whom the run is, written down when it is first looked at."""
    return view.run.status.twin_uid or view.run.owner_uid or (view.twin.uid if view.twin else None)


def _plan_started(view: RunView, images: Images, *, now: datetime) -> RunPlan:
    run, facts, progress = view.run, view.facts, view.facts.progress
    known = merged(run.status, progress)
    job = facts.job
    if job is not None and job.finished is not None:
        failure = _final_failure(view) if job.finished == "Failed" or not _is_done(progress) else None
        known = known.model_copy(
            update={
                "failure": _failure_status(failure), "remaining_seconds": None, "completion_time": timestamp(now),
                "progress_percent": 100 if failure is None else known.progress_percent,
            }
        )  # fmt: skip
        conditions = [
            admitted(facts, run), *data_ready(progress, known, failure), *reached(progress, known), *ended(failure),
            *(settled(run, known, view.twin, view.unreadable_twin) if failure is None else []),
        ]  # fmt: skip
        skipped = progress is not None and progress.skipped is not None and failure is None
        return _plan(run, known, conditions, skipped=skipped)
    if job is None and view.unreadable is None and (view.twin is None or view.pool is None):
        what = f"MinerPool {run.status.pool}" if view.twin is not None else f"DoctorTwin {run.spec.twin_ref.name}"
        gone = Failure(
            reason=Reason.OWNER_GONE, retryable=False, message=f"{what} went away before the trainer was started"
        )
        known = known.model_copy(update={"failure": _failure_status(gone), "completion_time": timestamp(now)})
        return _plan(run, known, [admitted(facts, run), *ended(gone)])
    last = attempt_failure(facts.pods[-1], progress) if facts.pods else None
    known = known.model_copy(update={"failure": _failure_status(last) or known.failure})
    conditions = [
        admitted(facts, run), *data_ready(progress, known, None),
        running(facts, last, held=view.unreadable if job is None else None), *reached(progress, known),
    ]  # fmt: skip
    plan = _plan(run, known, conditions, children=_children(view, images))
    # The Job can't tell a limit of memory from any other kill, and would try again what fails again.
    give_up = last is not None and last.reason is Reason.OUT_OF_MEMORY
    return replace(plan, give_up=give_up, overdue=now if job is None and now >= _deadline(run, now) else None)


def _deadline(run: Run, now: datetime) -> datetime:
    return moment(run.status.start_time or timestamp(now)) + timedelta(seconds=run.spec.deadline_seconds)


def plan_without_job(view: RunView, why: str, *, now: datetime) -> RunPlan:
    """Return what a run says that could not be given a Job within its deadline: it ends, and leaves its place."""
    run = view.run
    never = Failure(
        reason=Reason.DEADLINE_EXCEEDED, retryable=True,
        message=f"its trainer could not be started within {run.spec.deadline_seconds} s (spec.deadlineSeconds): {why}",
    )  # fmt: skip
    known = merged(run.status, view.facts.progress).model_copy(
        update={"failure": _failure_status(never), "remaining_seconds": None, "completion_time": timestamp(now)}
    )
    conditions = [admitted(view.facts, run), *data_ready(view.facts.progress, known, never), *ended(never)]
    return _plan(run, known, conditions)


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
    due = [tidied] if undecided else [tidied, expires]
    plan = _plan(run, run.status, [*kept, *fate], skipped=skipped)
    return RunPlan(
        children=(), status=plan.status, conditions=plan.conditions, tidy=now >= tidied,
        wake_at=min((at for at in due if at > now), default=None),
        expired=not undecided and now >= expires,
    )  # fmt: skip


def _children(view: RunView, images: Images) -> tuple[Manifest, ...]:
    """Return the run's objects; the Job last, when all it needs is there."""
    run, facts, twin, pool = view.run, view.facts, view.twin, view.pool
    prompt = twin.spec.system_prompt if twin else None
    if facts.job is not None and facts.has_configmap:
        prompt = facts.prompt  # the trainer read it when it began
    children = [
        build_progress_configmap(run, prompt=prompt), build_service_account(run), build_role(run),
        build_role_binding(run),
    ]  # fmt: skip
    if twin is not None and pool is not None:
        children.append(build_trainer_job(run, twin, pool, images, prompt=prompt is not None))
    return tuple(children)


def merged(before: FineTuneRunStatus, progress: RunProgress | None) -> FineTuneRunStatus:
    """Return the status with what the trainer says; what it does not say any more stays."""
    if progress is None:
        return before
    update: dict[str, object] = {
        "progress_percent": progress.progress_percent, "remaining_seconds": progress.remaining_seconds,
    }  # fmt: skip
    for name in ("step", "steps", "loss_milli"):
        if (value := getattr(progress, name)) is not None:
            update[name] = value
    if (data := progress.dataset) is not None:
        update["dataset"] = DatasetStatus(
            uri=data.uri, digest=data.digest or None, interactions=data.interactions, pairs=data.pairs or None,
            refused=_lines(data.refused), repaired=_lines(data.repaired), waiting=data.waiting or None,
            passed_over=[name[:256] for name in data.passed_over[:20]] or None,
        )  # fmt: skip
    if (made := progress.artifact) is not None:
        update["artifact"] = ArtifactStatus(uri=made.uri, digest=made.digest, rank=made.rank, bytes=made.bytes)
    if (gate := progress.eval) is not None:
        update["verdict"] = gate.verdict
        update["eval"] = EvalStatus(
            verdict=gate.verdict, samples=gate.samples, message=gate.message[:MESSAGE_LENGTH],
            metrics=[
                GateMetric(
                    name=metric.name, value_percent=metric.value_percent, baseline_percent=metric.baseline_percent,
                    threshold_percent=metric.threshold_percent,
                    interval_percent=list(metric.interval_percent) if metric.interval_percent else None,
                    items=metric.items, clusters=metric.clusters, margin_percent=metric.margin_percent,
                    shown=metric.shown,
                )
                for metric in gate.metrics[:32]
            ]
            or None,
        )  # fmt: skip
    return before.model_copy(update=update)


def _lines(counts: Mapping[str, int]) -> list[RefusedLines] | None:
    return [RefusedLines(reason=reason, count=count) for reason, count in sorted(counts.items())[:32]] or None


def _is_done(progress: RunProgress | None) -> bool:
    return progress is not None and progress.stage is RunStage.DONE and progress.failure is None


def _final_failure(view: RunView) -> Failure:
    """Return why the run as a whole failed."""
    facts, job = view.facts, view.facts.job
    if job is not None and job.reason == "DeadlineExceeded":
        return Failure(
            reason=Reason.DEADLINE_EXCEEDED, retryable=False,
            message=f"it was not done within {view.run.spec.deadline_seconds} s: raise spec.deadlineSeconds, or train "
            "on less",
        )  # fmt: skip
    for pod in reversed(facts.pods):
        if (found := attempt_failure(pod, facts.progress)) is not None:
            return found
    reported = reported_failure(facts.progress)
    if reported is not None:
        return reported
    if facts.unreadable is not None:
        return Failure(
            reason=Reason.REPORT_UNREADABLE, retryable=False,
            message=f"the trainer's last report in ConfigMap {view.run.name}-progress can't be read: "
            f"{facts.unreadable}",
        )  # fmt: skip
    if job is not None and job.finished == "Complete":
        return Failure(
            reason=Reason.NO_REPORT, retryable=True,
            message=f"the trainer ended well without a last report in ConfigMap {view.run.name}-progress",
        )  # fmt: skip
    return Failure(
        reason=Reason.TRAINER_CRASHED, retryable=True,
        message=f"{job.reason}: {job.message}" if job is not None and job.reason else "the trainer's Job failed",
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

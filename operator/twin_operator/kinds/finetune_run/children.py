"""What a run owns while its trainer and then its examiner are at work: of a Job that it shares, and that is another
run's, only where it tells of this one."""

from __future__ import annotations

from bettertherapy_api import names
from bettertherapy_api.finetune_run import FineTuneRunStatus
from twin_operator.domain.batches import Share, is_shared
from twin_operator.domain.objects import Run
from twin_operator.engine.resources import Manifest
from twin_operator.kinds.finetune_run.adoption_job import build_adoption_job
from twin_operator.kinds.finetune_run.examiner_job import build_examiner_job
from twin_operator.kinds.finetune_run.job_parts import Task
from twin_operator.kinds.finetune_run.network_policy import build_examiner_network_policy
from twin_operator.kinds.finetune_run.report_configmap import build_examination_configmap, build_progress_configmap
from twin_operator.kinds.finetune_run.role import build_role
from twin_operator.kinds.finetune_run.role_binding import build_role_binding
from twin_operator.kinds.finetune_run.service_account import build_service_account
from twin_operator.kinds.finetune_run.trainer_job import build_trainer_job
from twin_operator.kinds.finetune_run.view import RunView
from twin_operator.settings import Images


def trainers_report(view: RunView) -> Manifest:
    """Return where the trainer tells of this run; what it has read stays."""
    trainer, twin = view.facts.trainer, view.twin
    prompt = twin.spec.system_prompt if twin else None
    # Who comes along has told its prompt with that; one that leads tells it with the Job.
    if trainer.has_configmap and (trainer.job is not None or view.run.status.trainer is not None):
        prompt = trainer.prompt
    return build_progress_configmap(view.run, prompt=prompt)


def examiners_report(view: RunView) -> Manifest:
    """Return where the examiner tells of this run, likewise.

    It is told the twin's system prompt by the operator: the trainer's own ConfigMap may say another.
    """
    examiner, twin = view.facts.examiner, view.twin
    prompt = twin.spec.system_prompt if twin else None
    if examiner.has_configmap and (examiner.job is not None or view.run.status.examiner is not None):
        prompt = examiner.prompt
    return build_examination_configmap(view.run, prompt=prompt)


def trainers_children(view: RunView, images: Images, *, with_job: bool) -> tuple[Manifest, ...]:
    """Return the trainer's objects; the Job last, when all it needs is there."""
    run, twin, pool = view.run, view.twin, view.pool
    report = trainers_report(view)
    if run.status.trainer is not None:
        return (report,)
    children = [report, *_identity(run, names.trainer_name(run.name), "trainer", view.training)]
    if twin is not None and pool is not None and with_job:
        if run.spec.candidate is not None:
            return (*children, build_adoption_job(run, run.spec.candidate, twin, pool, images))
        along = _tasks(view.training, examined=False)
        children.append(build_trainer_job(run, twin, pool, images, prompt="data" in report, along=along))
    return tuple(children)


def examiners_children(
    view: RunView, images: Images, known: FineTuneRunStatus, *, with_job: bool
) -> tuple[Manifest, ...]:
    """Return the examiner's objects, and of the trainer's its report alone: what it could do ends with it."""
    run, facts, twin, pool = view.run, view.facts, view.twin, view.pool
    report = examiners_report(view)
    reports = [build_progress_configmap(run, prompt=facts.trainer.prompt), report]
    unsettled = is_shared(run) and run.status.examines is None
    if known.examiner is not None or unsettled:
        return tuple(reports)
    children = [
        *reports, *_identity(run, names.examiner_name(run.name), "examiner", view.examining),
        build_examiner_network_policy(run),
    ]  # fmt: skip
    if twin is not None and pool is not None and known.artifact is not None and with_job:
        job = build_examiner_job(
            run, twin, pool, images, child=known.artifact.digest, prompt="data" in report,
            judge=view.judge, along=_tasks(view.examining, examined=True),
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
            tasks.append(Task(run=each.run, twin=each.twin, prompt=each.prompt, child=child, judge=each.judge))
    return tasks

"""Condition DatasetsWritten, and when that was: what became of the Jobs that bring conversations to the fine-tunes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from twin_operator.domain.objects import Validator
from twin_operator.domain.pod_troubles import cannot_pull, cannot_start, claim_trouble, ending, last_words
from twin_operator.domain.pool_facts import PodFacts
from twin_operator.domain.reasons import Reason
from twin_operator.engine.apply import controlled_by
from twin_operator.engine.conditions import Condition, Finding
from twin_operator.engine.resources import Manifest
from twin_operator.kinds.validator.datasets_cronjob import DEADLINE_SECONDS, datasets_claim

CONDITION: Final = "DatasetsWritten"
SECRET_FIELD: Final = "spec.fineTuneTasks.store.secretRef"  # noqa: S105  # a field's name


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One Job of the CronJob."""

    name: str
    created: str
    ended: str | None = None
    """`Complete` or `Failed`; None while it is under way."""
    why: str = ""
    """Why it failed, as the Job's controller says it."""
    pods: tuple[PodFacts, ...] = ()
    """By name; also those that have ended."""


@dataclass(frozen=True, kw_only=True)
class DatasetsFacts:
    """What is observed of the CronJob."""

    attempts: tuple[Attempt, ...] = ()
    """The newest last."""
    written: str | None = None
    """When the last one that did it ended."""


def datasets_facts(cron_job: Manifest | None, jobs: Iterable[Manifest], pods: Iterable[PodFacts]) -> DatasetsFacts:
    """Read the facts out of the validator's CronJob, its Jobs and their pods."""
    if cron_job is None:
        return DatasetsFacts()
    known = sorted(pods, key=lambda pod: pod.name)
    attempts = [_attempt(job, known) for job in jobs if controlled_by(job, cron_job["metadata"]["uid"])]
    return DatasetsFacts(
        attempts=tuple(sorted(attempts, key=lambda each: (each.created, each.name))),
        written=(cron_job.get("status") or {}).get("lastSuccessfulTime"),
    )


def _attempt(job: Manifest, pods: Iterable[PodFacts]) -> Attempt:
    metadata, conditions = job["metadata"], (job.get("status") or {}).get("conditions") or []
    ends = (each for each in conditions if each["type"] in ("Complete", "Failed") and each["status"] == "True")
    end: Manifest = next(ends, {})
    return Attempt(
        name=metadata["name"], created=metadata.get("creationTimestamp") or "", ended=end.get("type"),
        why=str(end.get("message") or end.get("reason") or ""),
        pods=tuple(pod for pod in pods if pod.name.startswith(f"{metadata['name']}-")),
    )  # fmt: skip


def datasets_written(
    validator: Validator, facts: DatasetsFacts, *, refused: Finding | None, missing: Finding | None
) -> list[Condition]:
    """Return the condition, where conversations are to go anywhere.

    `refused`: why the CronJob can't be as it should be; `missing`: the store's Secret is not there.
    """
    tasks = validator.spec.fine_tune_tasks
    if tasks is None:
        return []
    if tasks.suspend:
        said = "spec.fineTuneTasks.suspend is true: fine-tunes get no new conversations" + _last(facts)
        return [Finding(Reason.DATASETS_SUSPENDED, said).condition(CONDITION, "False")]
    found = refused or missing or _trouble(validator, facts)
    if found is not None:
        return [found.followed_by(_last(facts)).condition(CONDITION, "False")]
    if facts.written is not None:
        where = f"the conversations lie at {tasks.store.uri}/<twin>/interactions since {facts.written}"
        return [Finding(Reason.DATASETS_WRITTEN, where).condition(CONDITION, "True")]
    waits = f"the first conversations go to {tasks.store.uri} at the next {tasks.schedule!r} ({tasks.time_zone})"
    return [Finding(Reason.DATASETS_AWAITED, waits).condition(CONDITION, "Unknown")]


def _last(facts: DatasetsFacts) -> str:
    return f"; it was done last at {facts.written}" if facts.written is not None else ""


def _trouble(validator: Validator, facts: DatasetsFacts) -> Finding | None:
    """Return why the newest attempt doesn't get on, or else why the newest that ended failed."""
    newest = facts.attempts[-1] if facts.attempts else None
    if newest is not None and newest.ended is None and (found := _stuck(validator, newest)) is not None:
        return found
    over = [each for each in facts.attempts if each.ended is not None]
    if not over or over[-1].ended == "Complete":
        return None
    last = over[-1]
    found = _stuck(validator, last)
    why = found.message if found is not None else last.why
    return Finding(Reason.DATASETS_NOT_WRITTEN, f"Job {last.name} failed: {why}")


def _stuck(validator: Validator, attempt: Attempt) -> Finding | None:
    for pod in attempt.pods:
        for trouble in pod.pulls:
            return cannot_pull(pod, trouble, field="spec.gateway.image")
        for trouble in pod.configs:
            return cannot_start(f"pod {pod.name}", trouble)
        for crash in pod.crashes:
            how = ending(crash, memory="spec.fineTuneTasks.resources.limits.memory", words=last_words(crash.message))
            return Finding(Reason.DATASETS_NOT_WRITTEN, f"pod {pod.name} ended with {how}")
        if (found := _unplaced(validator, pod)) is not None:
            return found
    return None


def _unplaced(validator: Validator, pod: PodFacts) -> Finding | None:
    if pod.unschedulable is None:
        return None
    tasks = validator.spec.fine_tune_tasks
    claim = datasets_claim(tasks) if tasks is not None else None
    beside = " beside the gateway, whose ledger's claim only that node has" if validator.embedded_ledger else ""
    return claim_trouble(
        pod,
        absent=f"; claim {claim} is that of spec.fineTuneTasks.store.uri: create it, or correct the uri",
        unbound="claims need a StorageClass, or a matching volume",
    ) or Finding(
        Reason.UNSCHEDULABLE,
        f"no node takes pod {pod.name}{beside}: {pod.unschedulable}; it waits for {DEADLINE_SECONDS // 60} minutes",
    )

"""The validator's own examination of what miners made for its tasks: the runs that do it, and what they came to. Pure.

A run's name follows from its task, so that a round that is looked at again, or another operator, makes no second one.
What none of this cluster's pools can examine counts neither way, and it is said why.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from typing import Final

from bettertherapy_api.finetune_run import CreditVerdict
from bettertherapy_api.round_progress import MAX_EXAMINED, Candidate, ExaminedTask
from twin_operator.domain.objects import Pool, Run, Twin, Unreadable, Validator
from twin_operator.domain.versions import anchor_version
from twin_operator.engine.conditions import Finding
from twin_operator.engine.resources import Manifest
from twin_operator.engine.times import moment
from twin_operator.kinds.twin_run import run_of

EXAMINE_SECONDS: Final = 21600
"""For the examiner, and for what brings the version before it, each."""
_WORDS: Final = 1000


def examination_run_name(task: str) -> str:
    """Return the name of the run that examines a task's version."""
    return f"exam-{task}"


def build_examination_run(
    candidate: Candidate, validator: Validator, twin: Twin, pool: Pool | Finding
) -> Manifest | None:
    """Return the run; None where the validator takes no deliveries any more."""
    folder = validator.delivered(candidate.task, candidate.adapter)
    if folder is None:
        return None
    anchor = anchor_version(twin)
    compared = {"digest": anchor.digest} if anchor.digest else {}
    ways = pool.fine_tune if isinstance(pool, Pool) else None
    hidden = {"heldOut": {"uri": candidate.held_out, "digest": candidate.held_out_digest}}
    return run_of(
        twin,
        examination_run_name(candidate.task),
        {
            "candidate": {
                "task": candidate.task, "validator": validator.name, "miner": candidate.miner,
                "digest": candidate.adapter, "delivered": folder, "deadline": candidate.until,
                **(hidden if candidate.held_out is not None else {}),
                **({"earlier": list(candidate.earlier)} if candidate.earlier else {}),
            },
            **({"parentDigest": candidate.parent} if candidate.parent else {}),
            **({"anchor": compared} if anchor.digest != candidate.parent else {}),
            "dataset": {"uri": candidate.dataset, "digest": candidate.dataset_digest},
            "deadlineSeconds": EXAMINE_SECONDS,
            **({"queueName": ways.queue_name} if ways and ways.queue_name else {}),
            **({"priorityClassName": ways.priority_class_name} if ways and ways.priority_class_name else {}),
        },
    )  # fmt: skip


def may_be_examined(candidate: Candidate, *, now: datetime) -> bool:
    """Tell whether its time is not over."""
    return now < moment(candidate.until)


def examines(run: Run, candidate: Candidate, *, validator: str) -> bool:
    """Tell whether a run examines this very version by what a round named, and not something else under its name.

    Whoever may create runs may call one a candidate, and ask it what he likes.
    """
    said = run.spec.candidate
    if said is None or run.name != examination_run_name(candidate.task):
        return False
    hidden = said.held_out.digest if said.held_out is not None else None
    return (
        said.task, said.validator, said.miner, said.digest, hidden, run.spec.parent_digest, run.spec.dataset.digest,
        run.spec.twin_ref.name, tuple(said.earlier or ()),
    ) == (
        candidate.task, validator, candidate.miner, candidate.adapter, candidate.held_out_digest, candidate.parent,
        candidate.dataset_digest, candidate.twin, candidate.earlier,
    )  # fmt: skip


def examined(
    runs: Iterable[Run], candidates: Iterable[tuple[Candidate, Twin | Unreadable | None]], *, validator: str
) -> tuple[ExaminedTask, ...]:
    """Return what the ended runs of these candidates came to, the newest first, and which of them nobody here can
    examine."""
    named = list(candidates)
    by_run = defaultdict(list)
    for candidate, _ in named:
        by_run[examination_run_name(candidate.task)].append(candidate)
    over = [
        run
        for run in runs
        if run.ended and any(examines(run, each, validator=validator) for each in by_run.get(run.name, ()))
    ]
    found = {
        each.task: each
        for run in sorted(over, key=lambda run: (run.status.completion_time or "", run.name), reverse=True)
        if (each := _came_to(run)) is not None
    }
    for candidate, twin in named:
        if not _is_here(candidate, twin):
            found.setdefault(candidate.task, _said(
                candidate.task, candidate.adapter, "Inconclusive",
                f"there is no DoctorTwin {candidate.twin} in this cluster, so nobody here can examine its version",
            ))  # fmt: skip
    return tuple(found.values())[:MAX_EXAMINED]


def _is_here(candidate: Candidate, twin: Twin | Unreadable | None) -> bool:
    """Tell whether its twin is this cluster's; one that can't be read is, and what becomes of it is said later."""
    if isinstance(twin, Unreadable):
        return True
    return twin is not None and not twin.deleted and twin.uid == candidate.twin_uid


def _came_to(run: Run) -> ExaminedTask | None:
    candidate, status = run.spec.candidate, run.status
    if candidate is None:
        return None
    if status.credit is None:
        said = "the run ended without a verdict on what its version is worth"
        return _said(candidate.task, candidate.digest, "Inconclusive", said)
    judged = status.eval
    if judged is not None and (status.artifact is None or status.artifact.digest != candidate.digest):
        return _said(candidate.task, candidate.digest, "Inconclusive", "the run judged another version")
    items = f"{judged.samples} items: " if judged is not None else ""
    return _said(candidate.task, candidate.digest, status.credit.verdict, f"{items}{status.credit.message or ''}")


def _said(task: str, adapter: str, credit: CreditVerdict, message: str) -> ExaminedTask:
    return ExaminedTask(task=task, adapter=adapter, credit=credit, message=message[:_WORDS])

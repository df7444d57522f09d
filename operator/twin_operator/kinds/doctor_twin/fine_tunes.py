"""Whether the twin's next fine-tune is due, and the run to create for it: the same run however often it is asked.

The memory is status.nextFineTuneTime: a run is due once that time has come. After an absence it may be long gone; then
one run is made, for the latest due time. A time that is none of the present schedule's is forgotten, so that a changed
schedule, or one that was suspended, starts nothing at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from bettertherapy_api import names
from bettertherapy_api.doctor_twin import GateMetric, LastGate
from twin_operator.domain.objects import Pool, Run, Twin
from twin_operator.domain.reasons import Reason
from twin_operator.domain.schedule import ScheduleError, schedule_of
from twin_operator.domain.task_versions import is_twins_own
from twin_operator.domain.versions import anchor_version, canary_version, wanted_version
from twin_operator.engine.conditions import Finding
from twin_operator.engine.resources import Manifest
from twin_operator.engine.times import moment, timestamp
from twin_operator.kinds.twin_run import run_of


@dataclass(frozen=True, kw_only=True)
class FineTunePlan:
    """What to do about fine-tunes now."""

    create: Manifest | None = None
    """The run to create."""
    next_time: datetime | None = None
    """The next due time; a past one is overdue and waits for what `obstacle` says."""
    due_time: datetime | None = None
    """What to remember as the next due time should the run not come about."""
    handled_token: str | None = None
    obstacle: Finding | None = None
    """Why what is due is not started."""
    wake_at: datetime | None = None


def plan_fine_tune(
    twin: Twin, runs: Sequence[Run], pool: Pool | Finding, *, now: datetime, window_seconds: int
) -> FineTunePlan:
    """Return the run that is due, if one is and nothing stands in its way. `runs` are those of the twin."""
    token = (twin.annotations.get(names.FINETUNE_NOW_ANNOTATION) or "")[: names.TOKEN_LENGTH] or None
    handled = twin.status.handled_fine_tune if token is not None else None
    due, next_time, problem = _scheduled(twin, now=now, window_seconds=window_seconds)
    asked = names.asked_run_name(twin.name, token) if token is not None and token != handled else None
    wanted = asked or (names.run_name(twin.name, f"{due:%Y%m%d%H%M}") if due is not None else None)
    if wanted is None:
        return FineTunePlan(next_time=next_time, handled_token=handled, obstacle=problem, wake_at=next_time)
    made = any(run.name == wanted for run in runs)
    overdue = moment(twin.status.next_fine_tune_time or timestamp(now)) if due is not None else next_time
    obstacle = None if made else _obstacle(twin, runs, pool)
    if obstacle is not None or (not made and not isinstance(pool, Pool)):
        # What is due stays due. What stands in its way wakes the twin when it changes.
        return FineTunePlan(next_time=overdue, handled_token=handled, obstacle=obstacle)
    create = None if made or not isinstance(pool, Pool) else build_run(twin, wanted, pool)
    # A run that somebody asked for also does what was due at the same moment.
    handled = token if asked is not None else handled
    return FineTunePlan(create=create, next_time=next_time, due_time=overdue, handled_token=handled, wake_at=next_time)


def _scheduled(
    twin: Twin, *, now: datetime, window_seconds: int
) -> tuple[datetime | None, datetime | None, Finding | None]:
    """Return what is due now, when the next is due, and what is wrong with the schedule."""
    fine_tune = twin.spec.fine_tune
    if fine_tune is None or fine_tune.suspend:
        return None, None, None
    try:
        schedule = schedule_of(
            fine_tune, namespace=twin.namespace, twin=twin.name, window_seconds=window_seconds
        )  # fmt: skip
        following = schedule.after(now)
        stored = twin.status.next_fine_tune_time
        if stored is None or (planned := moment(stored)) > now or not schedule.includes(planned):
            return None, following, None
        return schedule.latest(now), following, None
    except ScheduleError as error:
        return None, None, Finding(Reason.SCHEDULE_INVALID, f"spec.fineTune: {error}")


def _obstacle(twin: Twin, runs: Sequence[Run], pool: Pool | Finding) -> Finding | None:
    # Miners' versions that are examined, one after the other, are no reason to leave out a night: it waits as a run.
    going = next((run for run in runs if not run.ended and run.spec.candidate is None), None)
    if going is not None:
        return Finding(Reason.RUN_UNDER_WAY, f"FineTuneRun {going.name} has not ended: a twin has one run at a time")
    if (canary := canary_version(twin)) is not None:
        return Finding(
            Reason.CANARY_UNDER_WAY,
            f"{canary.served_name} is being tried: its child would be compared with its parent",
        )
    return _unfit_rank(twin) or (None if isinstance(pool, Pool) else pool)


def _unfit_rank(twin: Twin) -> Finding | None:
    """An adapter keeps its rank for life: a run that is to give it another one fails, night after night."""
    given = twin.spec.fine_tune.hyperparameters if twin.spec.fine_tune else None
    parent = wanted_version(twin)
    if given is None or None in (given.rank, parent.rank) or given.rank == parent.rank:
        return None
    return Finding(
        Reason.RANK_MISMATCH,
        f"{parent.served_name}, which is trained on, has rank {parent.rank}, and spec.fineTune.hyperparameters.rank is "
        f"{given.rank}: set it to {parent.rank}, or leave it out",
    )


def build_run(twin: Twin, name: str, pool: Pool) -> Manifest:
    """Return the run: everything in it follows from its name, the twin and the pool."""
    fine_tune, ways = twin.spec.fine_tune, pool.fine_tune
    parent, anchor = wanted_version(twin), anchor_version(twin)
    compared = {"digest": anchor.digest} if anchor.digest else {}
    hyperparameters = fine_tune.hyperparameters if fine_tune else None
    seed = int.from_bytes(hashlib.sha256(f"{twin.namespace}/{name}".encode()).digest()[:4], "big")
    return run_of(
        twin,
        name,
        {
            **({"parentDigest": parent.digest} if parent.digest else {}),
            **({"anchor": compared} if anchor.digest != parent.digest else {}),
            "dataset": {"uri": names.interactions_uri(pool.store_uri or "", twin.name)},
            **(
                {"hyperparameters": hyperparameters.model_dump(mode="json", by_alias=True, exclude_none=True)}
                if hyperparameters
                else {}
            ),
            "seed": seed,
            **({"queueName": ways.queue_name} if ways.queue_name else {}),
            **({"priorityClassName": ways.priority_class_name} if ways.priority_class_name else {}),
        },
    )  # fmt: skip


def last_gate(twin: Twin, runs: Sequence[Run]) -> tuple[LastGate | None, str | None]:
    """Return the newest gate and when a fine-tune last ended; what expired with its run is remembered."""
    own = [run for run in runs if run.ended and is_twins_own(twin, run)]
    over = sorted(own, key=lambda run: (run.status.completion_time or "", run.name))
    gate, ended = twin.status.last_gate, twin.status.last_fine_tune_time
    if over and (ended is None or (over[-1].status.completion_time or "") > ended):
        ended = over[-1].status.completion_time
    judged = next((run for run in reversed(over) if run.status.eval is not None), None)
    if judged is not None and judged.status.eval is not None:
        found, artifact = judged.status.eval, judged.status.artifact
        gate = LastGate(
            verdict=found.verdict, samples=found.samples, message=found.message, run_name=judged.name,
            digest=artifact.digest if artifact else None,
            metrics=[GateMetric.model_validate(metric.model_dump()) for metric in found.metrics or []] or None,
        )  # fmt: skip
    return gate, ended

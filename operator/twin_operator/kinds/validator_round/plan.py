"""What a round should have and say: a pure function of what was gathered, of its status before, and of the time."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from bettertherapy_api import names
from bettertherapy_api.finetune_run import FailureStatus
from bettertherapy_api.round_progress import ExaminedTask, RoundProgress, RoundStage, WeightsProgress
from bettertherapy_api.validator_round import (
    Measures,
    MinerScore,
    MinersStatus,
    Recomputed,
    RoundWeights,
    TasksStatus,
    ValidatorRoundStatus,
)
from twin_operator.domain.objects import Round, Validator
from twin_operator.domain.reasons import Reason
from twin_operator.engine.conditions import Condition, Finding, truth
from twin_operator.engine.resources import Manifest
from twin_operator.engine.times import moment, timestamp
from twin_operator.kinds.validator_round.checks import ended, measured, running, waiting, weights_submitted
from twin_operator.kinds.validator_round.facts import Failure, JobFacts, RoundFacts, attempt_failure, told
from twin_operator.kinds.validator_round.jobs import build_recompute_job, build_round_job, build_weights_job
from twin_operator.kinds.validator_round.network_policy import build_network_policy
from twin_operator.kinds.validator_round.order import order_of, seed_of
from twin_operator.kinds.validator_round.progress_configmap import build_progress_configmap
from twin_operator.kinds.validator_round.role import build_role
from twin_operator.kinds.validator_round.role_binding import build_role_binding
from twin_operator.kinds.validator_round.service_account import build_service_account
from twin_operator.settings import Images

MESSAGE_LENGTH: Final = 4000
MEMORY: Final = "the Validator's spec.rounds.resources.limits.memory"
TIDIED_AFTER: Final = timedelta(hours=1)
"""So long Jobs and pods with their logs are kept after a round that did what it should."""
FAILED_TIDIED_AFTER: Final = timedelta(days=1)
LOOK_AGAIN: Final = timedelta(hours=1)
NAMED_KEPT: Final = timedelta(days=14)
"""So long the last round that named versions is kept, whatever its time to live: later ones give no credit then."""
_SETTLED: Final = frozenset({"Revealed", "Missed", "Superseded", "Refused", "Withheld"})
"""States of weights of which nothing more comes."""


@dataclass(frozen=True, kw_only=True)
class RoundView:
    """A round with all that its plan depends on."""

    round: Round
    validator: Validator | None
    obstacle: Finding | None
    """Why it can't be held at the moment, or must wait; of no account once it has started."""
    facts: RoundFacts = field(default_factory=RoundFacts)
    unreadable: bool = False
    """The validator is there, but can't be read: what becomes of the round is decided once it can."""
    examined: tuple[ExaminedTask, ...] = ()
    """What the validator's examinations of tasks' versions came to, for a round whose order isn't written yet."""
    examinations: tuple[Manifest, ...] = ()
    """Runs that are to examine what this round named, and aren't there."""
    occupied: tuple[str, ...] = ()
    """Names of such runs under which something else is examined."""
    named_last: bool = False
    """It named versions to be examined, and no later round of its validator has: what they come to is known by it."""


@dataclass(frozen=True, kw_only=True)
class RoundPlan:
    """What to apply and to report."""

    children: tuple[Manifest, ...]
    status: Manifest
    conditions: list[Condition]
    wake_at: datetime | None = None
    """When to look again though nothing changes."""
    expired: bool = False
    """Its time to live is over: delete it."""
    tidy: bool = False
    """Nobody looks at its Jobs and pods any more: delete them, and what they ran as. The report stays."""
    overdue: datetime | None = None
    """The time, when it has no Job beyond its deadline: unless this attempt makes one, none will."""


def plan_round(view: RoundView, images: Images, *, prometheus_url: str | None, now: datetime) -> RoundPlan:
    """Return what the round should have and say."""
    made = view.round
    if not made.started:
        return _plan_waiting(view, now=now)
    if not made.ended:
        return _plan_started(view, images, prometheus_url=prometheus_url, now=now)
    return _plan_ended(view, images, prometheus_url=prometheus_url, now=now)


def _plan_waiting(view: RoundView, *, now: datetime) -> RoundPlan:
    made = view.round
    if view.obstacle is not None or view.validator is None:
        absent = Finding(Reason.VALIDATOR_NOT_FOUND, f"Validator {made.validator} does not exist")
        return _plan(made, made.status, waiting(view.obstacle or absent))
    # The start is written down before the Job is made, so that one is held at a time whenever the operator is killed.
    status = made.status.model_copy(
        update={
            "start_time": timestamp(now), "validator_uid": view.validator.uid, "seed": seed_of(made),
            "challenge_digest": made.spec.challenge_digest,
        }
    )  # fmt: skip
    return _plan(made, status, running(view.facts, None))


def _plan_started(view: RoundView, images: Images, *, prometheus_url: str | None, now: datetime) -> RoundPlan:
    made, facts, progress = view.round, view.facts, view.facts.progress
    known, job = merged(made.status, progress), facts.measure
    if job is not None and job.finished is not None:
        failure = final_failure(view) if job.finished == "Failed" or not is_done(progress) else None
        done = progress.completion_time if progress is not None and failure is None else None
        known = known.model_copy(
            update={"failure": _failure_status(failure), "completion_time": done or timestamp(now)}
        )
        conditions = [*ended(known, failure), *measured(progress)]
        if failure is None:
            conditions.append(_weights_condition(view, known))
        return _plan(made, known, conditions, stage=RoundStage.DONE if failure is None else None)
    if job is None and view.validator is None and not view.unreadable:
        gone = Failure(
            reason=Reason.OWNER_GONE, retryable=False,
            message=f"Validator {made.validator} went away before the round's Job was made",
        )  # fmt: skip
        known = known.model_copy(update={"failure": _failure_status(gone), "completion_time": timestamp(now)})
        return _plan(made, known, ended(known, gone))
    last = last_failure(job, progress)
    known = known.model_copy(update={"failure": _failure_status(last) or known.failure})
    conditions = [*running(facts, last), *measured(progress)]
    plan = _plan(
        made, known, conditions, children=_children(view, images, prometheus_url=prometheus_url),
        stage=progress.stage if progress is not None else None,
    )  # fmt: skip
    overdue = job is None and now >= moment(made.status.start_time or timestamp(now)) + timedelta(
        seconds=made.spec.deadline_seconds
    )
    return replace(plan, overdue=now if overdue else None)


def plan_without_job(view: RoundView, why: str, *, now: datetime) -> RoundPlan:
    """Return what a round says that could not be given a Job within its deadline: it ends, and leaves its place."""
    made = view.round
    never = Failure(
        reason=Reason.DEADLINE_EXCEEDED, retryable=True,
        message=f"its Job could not be made within {made.spec.deadline_seconds} s (spec.deadlineSeconds): {why}",
    )  # fmt: skip
    known = merged(made.status, view.facts.progress).model_copy(
        update={"failure": _failure_status(never), "completion_time": timestamp(now)}
    )
    return _plan(made, known, ended(known, never))


def _plan_ended(view: RoundView, images: Images, *, prometheus_url: str | None, now: datetime) -> RoundPlan:
    """Keep what was found; weights may still be under way, and somebody may have the scores reckoned once more."""
    made, facts = view.round, view.facts
    known = made.status.model_copy(
        update={
            "weights": _weights(facts.weights) or made.status.weights,
            "recomputed": _recomputed(made, facts) or made.status.recomputed,
        }
    )
    kept = [
        Condition(type=each.type, status=truth(each.status), reason=each.reason, message=each.message)
        for each in made.status.conditions or []
        if each.type != "WeightsSubmitted"
    ]
    if made.complete:
        kept.append(_weights_condition(view, known))
    end = moment(made.status.completion_time or timestamp(now))
    tidied = end + (FAILED_TIDIED_AFTER if made.status.failure else TIDIED_AFTER)
    expires = end + timedelta(seconds=made.spec.ttl_seconds)
    looks = [tidied, expires]
    if view.named_last and expires < end + NAMED_KEPT:
        # When another names versions nobody wakes this one.
        looks += [now + LOOK_AGAIN] if now >= expires else []
        expires = end + NAMED_KEPT
    open_, asked = _weights_open(view, known), _asked_token(made, facts)
    children = (
        _children(view, images, prometheus_url=prometheus_url)
        if (open_ or asked is not None) and view.validator is not None and facts.order is not None
        else ()
    )
    plan = _plan(made, known, kept, children=children)
    tidy = now >= tidied and not open_ and asked is None and not _recomputing(facts)
    due = [at for at in (*looks, expires) if at > now]
    return replace(plan, tidy=tidy, wake_at=min(due, default=None), expired=now >= expires and not open_)


def _weights_open(view: RoundView, known: ValidatorRoundStatus) -> bool:
    """Tell whether something may still become of the weights."""
    job, before = view.facts.weights_job, _said(view.round)
    if not view.round.complete or (known.weights is not None and known.weights.state in _SETTLED):
        return False
    if not _asked_for_weights(view) or (before is not None and before.status == "False"):
        return False
    if view.validator is None and not view.unreadable:
        return False
    return job is None or job.finished is None


def _said(made: Round) -> Condition | None:
    """Return what was said last of the weights."""
    found = next((each for each in made.status.conditions or [] if each.type == "WeightsSubmitted"), None)
    if found is None:
        return None
    return Condition(type=found.type, status=truth(found.status), reason=found.reason, message=found.message)


def _asked_for_weights(view: RoundView) -> bool:
    return view.facts.order is not None and view.facts.order.rewards is not None


def _recomputing(facts: RoundFacts) -> bool:
    return any(job.finished is None for job in facts.recompute_jobs.values())


def _token(made: Round) -> str | None:
    return (made.annotations.get(names.RECOMPUTE_ANNOTATION) or "")[: names.TOKEN_LENGTH] or None


def _asked_token(made: Round, facts: RoundFacts) -> str | None:
    """Return the token for which the scores are still to be reckoned once more."""
    token = _token(made)
    if token is None or not made.complete:
        return None
    said = made.status.recomputed
    if said is not None and said.token == token:
        return None
    return None if _recomputed(made, facts) is not None else token


def _children(view: RoundView, images: Images, *, prometheus_url: str | None) -> tuple[Manifest, ...]:
    """Return the round's objects; Jobs last, when all they need is there."""
    made, facts, validator = view.round, view.facts, view.validator
    if validator is None:
        return ()
    # What was ordered when it started is what it does, whatever becomes of the validator.
    order = facts.order_text if facts.order is not None else None
    children = [
        build_progress_configmap(made, order=order or order_of(made, validator, examined=view.examined).to_json()),
        build_service_account(made), build_role(made), build_role_binding(made), build_network_policy(made),
    ]  # fmt: skip
    if not made.ended:
        children.append(build_round_job(made, validator, images, prometheus_url=prometheus_url))
        return tuple(children)
    if _weights_open(view, made.status):
        children.append(build_weights_job(made, validator, images, prometheus_url=prometheus_url))
    if (token := _asked_token(made, facts)) is not None:
        children.append(build_recompute_job(made, validator, images, token=token))
    return tuple(children)


def _weights_condition(view: RoundView, known: ValidatorRoundStatus) -> Condition:
    facts, before = view.facts, _said(view.round)
    if facts.weights_job is None and before is not None and (before.status != "Unknown" or facts.order is None):
        return before  # tidied away, or not to be read: what was said last stands
    if facts.weights_job is None and view.validator is None and not view.unreadable and _asked_for_weights(view):
        said_so = f"Validator {view.round.validator} went away before the weights were set"
        return Finding(Reason.OWNER_GONE, said_so).condition("WeightsSubmitted", "False")
    said = facts.weights
    newest = facts.weights_job.newest if facts.weights_job is not None else None
    report = said.failure if said is not None and newest is not None and said.attempt == newest.pod.uid else None
    failure = attempt_failure(newest, report, memory="the limit") if newest is not None else None
    return weights_submitted(
        known.weights, facts.weights_job, failure, asked=_asked_for_weights(view), unreadable=facts.weights_unreadable
    )


def merged(before: ValidatorRoundStatus, progress: RoundProgress | None) -> ValidatorRoundStatus:
    """Return the status with what the Job says; what it does not say any more stays."""
    if progress is None:
        return before
    update: dict[str, object] = {}
    for name in ("items", "results_digest", "challenge_digest"):
        if (value := getattr(progress, name)) is not None:
            update[name] = value
    if progress.miners is not None:
        update["miners"] = MinersStatus.model_validate(progress.miners.model_dump())
    if progress.top:
        update["top"] = [MinerScore.model_validate(each.model_dump()) for each in progress.top]
    if progress.metrics is not None:
        update["metrics_fresh"] = progress.metrics.fresh
    if progress.measures is not None:
        update["measures"] = Measures.model_validate(progress.measures.model_dump())
    if progress.tasks is not None:
        update["tasks"] = TasksStatus.model_validate(progress.tasks.model_dump())
    return before.model_copy(update=update)


def _weights(said: WeightsProgress | None) -> RoundWeights | None:
    if said is None:
        return None
    return RoundWeights.model_validate(said.model_dump(exclude={"attempt", "failure"}))


def _recomputed(made: Round, facts: RoundFacts) -> Recomputed | None:
    """Return what came of the newest demand, or that its Job failed."""
    token, said = _token(made), facts.recomputed
    if token is None:
        return None
    if said is not None and said.token == token:
        return Recomputed(
            token=token, digest=said.digest, same=said.digest == made.status.results_digest, time=said.time,
            message=said.message,
        )  # fmt: skip
    job = facts.recompute_jobs.get(names.round_recompute_name(made.name, token))
    if job is None or job.finished != "Failed":
        return None
    failure = last_failure(job, None)
    why = str(failure.finding) if failure is not None else job.message or "its Job failed"
    when = job.newest.created if job.newest is not None else made.status.completion_time
    return Recomputed(token=token, same=False, time=when or made.created, message=why[:MESSAGE_LENGTH])


def is_done(progress: RoundProgress | None) -> bool:
    """Tell whether the results are stored."""
    return progress is not None and progress.stage is RoundStage.DONE and progress.failure is None


def last_failure(job: JobFacts | None, progress: RoundProgress | None) -> Failure | None:
    """Return why the newest attempt failed; None while it goes on, and after a success."""
    newest = job.newest if job is not None else None
    if newest is None:
        return None
    said = progress.failure if progress is not None and progress.attempt == newest.pod.uid else None
    return attempt_failure(newest, said, memory=MEMORY)


def final_failure(view: RoundView) -> Failure:
    """Return why the round as a whole failed."""
    facts, job = view.facts, view.facts.measure
    if job is not None and job.reason == "DeadlineExceeded":
        return Failure(
            reason=Reason.DEADLINE_EXCEEDED, retryable=False,
            message=f"it was not done within {view.round.spec.deadline_seconds} s: raise deadlineSeconds, or ask less "
            "(the Validator's spec.rounds.itemsPerTwin)",
        )  # fmt: skip
    for attempt in reversed(job.pods if job is not None else ()):
        said = facts.progress.failure if facts.progress and facts.progress.attempt == attempt.pod.uid else None
        if (found := attempt_failure(attempt, said, memory=MEMORY)) is not None:
            return found
    if facts.progress is not None and facts.progress.failure is not None:
        return told(facts.progress.failure)
    configmap = f"ConfigMap {view.round.name}-progress"
    if facts.unreadable is not None:
        return Failure(
            reason=Reason.REPORT_UNREADABLE, retryable=False,
            message=f"the round's last report in {configmap} can't be read: {facts.unreadable}",
        )  # fmt: skip
    if job is not None and job.finished == "Complete":
        return Failure(
            reason=Reason.NO_REPORT, retryable=True,
            message=f"the round's Job ended well without a last report in {configmap}",
        )  # fmt: skip
    said_so = f"{job.reason}: {job.message}" if job is not None and job.reason else "the round's Job failed"
    return Failure(reason=Reason.ROUND_CRASHED, retryable=True, message=said_so)


def _failure_status(failure: Failure | None) -> FailureStatus | None:
    if failure is None:
        return None
    return FailureStatus(
        failure_class=failure.reason.value, retryable=failure.retryable, message=failure.message[:MESSAGE_LENGTH]
    )


def _plan(
    made: Round, status: ValidatorRoundStatus, conditions: list[Condition], *,
    children: tuple[Manifest, ...] = (), stage: RoundStage | None = None,
) -> RoundPlan:  # fmt: skip
    document = status.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"conditions"})
    miners, best = status.miners, next(iter(status.top or []), None)
    document |= {
        "observedGeneration": made.generation,
        "stage": stage.value if stage is not None else status.stage,
        "scored": f"{miners.scored}/{miners.queried}" if miners is not None else None,
        "best": f"uid {best.uid}, {best.score_percent}%" if best is not None else None,
        "duration": _duration(status),
    }
    return RoundPlan(children=children, status=document, conditions=conditions)


def _duration(status: ValidatorRoundStatus) -> str | None:
    if status.start_time is None or status.completion_time is None:
        return None
    seconds = max(0, int((moment(status.completion_time) - moment(status.start_time)).total_seconds()))
    hours, minutes = seconds // 3600, seconds // 60 % 60
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{seconds % 60:02}s"

"""Which version should answer, and which one is tried: from the runs' verdicts, the doctor's word and the canary.

All memory is in the twin's status, and each step is written there before it has an effect, so an operator that was
killed, or away for the whole canary, goes on where it stopped. A version answers patients only where its pods report it
as verified (kinds.miner_pool.routing); the version before stays loaded until the new one was promoted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Self

from bettertherapy_api import names
from bettertherapy_api.doctor_twin import Gate, LastRollback, RefusedVersion, RolloutStep, VersionStatus
from bettertherapy_api.doctor_twin import Rollout as RolloutSpec
from bettertherapy_api.report import AdapterState
from twin_operator.domain.canary_analysis import UNWATCHED, Analysis, Outlook
from twin_operator.domain.objects import Run, Twin
from twin_operator.domain.reasons import Reason
from twin_operator.domain.task_versions import is_chosen
from twin_operator.domain.twin_view import Failure, TwinView
from twin_operator.domain.versions import known_versions, memory_counts, spec_version, wanted_version
from twin_operator.engine.conditions import Finding
from twin_operator.engine.times import exact_timestamp, moment, timestamp

POLL_SECONDS: Final = 5
"""How often a canary is looked at."""
_HICCUP_SECONDS: Final = 10
"""What holds a canary at the end of a step is often over at once: so long it is looked at each second."""
_REFUSED: Final = 20
_MESSAGE: Final = 1000


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """What a twin remembers of its versions; the fields are those of its status."""

    promoted: VersionStatus | None
    anchor: VersionStatus | None
    spec_digest: str | None
    canary: VersionStatus | None
    weight: int | None
    step: int | None
    step_time: str | None
    start_time: str | None
    pending: VersionStatus | None
    refused: tuple[RefusedVersion, ...]
    last_rollback: LastRollback | None
    handled_rollback: str | None
    finding: Finding | None = None
    """How the canary is doing, or what it waits for."""
    problem: Finding | None = None
    """Why something that a person asked for is not done."""
    wake_at: datetime | None = None

    @classmethod
    def of(cls, twin: Twin) -> Self:
        """Return what the status says."""
        status = twin.status
        return cls(
            promoted=status.promoted_version, anchor=status.anchor_version, spec_digest=status.spec_digest,
            canary=status.canary_version,
            weight=status.canary_weight_percent, step=status.canary_step, step_time=status.canary_step_time,
            start_time=status.canary_start_time, pending=status.pending_version,
            refused=tuple(status.refused_versions or ()), last_rollback=status.last_rollback,
            handled_rollback=status.handled_rollback,
        )  # fmt: skip

    def without_canary(self) -> Self:
        """Return it with no version on trial."""
        return replace(self, canary=None, weight=None, step=None, step_time=None, start_time=None)

    def refusing(self, version: VersionStatus, reason: Reason, message: str, now: datetime) -> Self:
        """Return it with a version that will not be tried again."""
        if version.digest is None:
            return self
        entry = RefusedVersion(
            digest=version.digest, reason=reason.value, message=message[:_MESSAGE], time=timestamp(now),
            run_name=version.run_name, score_percent=version.score_percent, dataset_digest=version.dataset_digest,
            parent_digest=version.parent_digest,
        )  # fmt: skip
        others = tuple(each for each in self.refused if each.digest != version.digest)
        return replace(self, refused=(entry, *others)[:_REFUSED])

    def trusting(self, spec: VersionStatus) -> Self:
        """Return it with the version that should answer, the promoted one or that of the spec, refused no more.

        A person wants it, whatever became of its trial. Refused it would be taken from gateways while it answers.
        """
        wanted = self.promoted or spec
        return replace(self, refused=tuple(each for each in self.refused if each.digest != wanted.digest))


def plan_rollout(view: TwinView, analysis: Analysis | None, *, now: datetime) -> Rollout:
    """Return the twin's memory after what has happened; at most one step of a canary at a time.

    `analysis` is of the canary that takes traffic, None when none does.
    """
    twin = view.twin
    state = _follow_spec(Rollout.of(twin), twin, now).trusting(spec_version(twin))
    if not memory_counts(twin):
        return state  # the pools must see the new spec before anything is tried on top of it
    state = _roll_back_as_asked(state, twin, now)
    if state.promoted != twin.status.promoted_version:
        return state
    state = _hear_doctor(state, twin, now)
    state = _hear_of_tasks(state, view, now)
    state = _take_candidates(state, view, now)
    if state.canary is None or twin.status.canary_version is None:
        return state  # nothing on trial, or it is new: the pools are to load it first
    return _advance(state, view, analysis or UNWATCHED, now)


def asks_to_take_back(twin: Twin, *, now: datetime) -> bool:
    """Tell whether a person has the canary taken back: then it is not measured, and nobody waits for Prometheus."""
    state = Rollout.of(twin)
    return state.canary is not None and _roll_back_as_asked(state, twin, now).canary is None


def _follow_spec(state: Rollout, twin: Twin, now: datetime) -> Rollout:
    """A changed spec.adapter takes over from everything that was decided upon the former one."""
    if memory_counts(twin):
        return state
    why = "spec.adapter was changed by hand"
    for undecided in (state.canary, state.pending):
        if undecided is not None:
            state = state.refusing(undecided, Reason.SUPERSEDED, why, now)
    state = replace(state, promoted=None, anchor=None, pending=None, last_rollback=None)
    state = replace(state, spec_digest=spec_version(twin).digest)
    return state.without_canary()


def _roll_back_as_asked(state: Rollout, twin: Twin, now: datetime) -> Rollout:
    asked = (twin.annotations.get(names.ROLLBACK_ANNOTATION) or "")[: names.TOKEN_LENGTH] or None
    if asked is None or asked == state.handled_rollback:
        return replace(state, handled_rollback=asked)
    digest = asked.split("@", 1)[0]
    target = known_versions(twin).get(None if digest == "base" else digest)
    if target is None or (target.digest is not None and (target.uri is None or target.rank is None)):
        unknown = f"{names.ROLLBACK_ANNOTATION} names {digest}, which is no version of this twin"
        return replace(state, problem=Finding(Reason.ROLLBACK_UNKNOWN, f"{unknown}: see `kubectl twin history`"))
    message = f"rollback to {target.served_name} was asked for"
    current, canary = wanted_version(twin), state.canary
    if canary is not None and canary.digest == target.digest:
        return replace(state, problem=Finding(Reason.ROLLBACK_UNKNOWN, f"{target.served_name} is being tried already"))
    if state.pending is not None and state.pending.digest == target.digest:
        waits = f"{target.served_name} never answered and waits for the doctor: `kubectl twin review {twin.name}`"
        return replace(state, problem=Finding(Reason.ROLLBACK_UNKNOWN, waits))
    again = target.model_copy(update={"since": None, "until": None, "ended": None})
    state = replace(state, handled_rollback=asked, anchor=again)
    if canary is not None:
        state = state.refusing(canary, Reason.ROLLED_BACK, message, now).without_canary()
        current = canary if target.digest == current.digest else current
    if current.digest == target.digest:
        return state
    rollback = LastRollback(
        from_digest=current.digest, to_digest=target.digest, reason=Reason.REQUESTED.value, message=message,
        time=timestamp(now),
    )  # fmt: skip
    changed = again if wanted_version(twin).digest != target.digest else state.promoted
    return replace(state, promoted=changed, last_rollback=rollback)


def _hear_doctor(state: Rollout, twin: Twin, now: datetime) -> Rollout:
    pending = state.pending
    if pending is None:
        return state
    if twin.annotations.get(names.REJECT_ANNOTATION) == pending.digest:
        state = state.refusing(pending, Reason.REJECTED_BY_DOCTOR, _why_rejected(twin), now)
        return replace(state, pending=None)
    approved = twin.annotations.get(names.APPROVE_ANNOTATION) == pending.digest
    if not approved and _gate(twin).approval == "Doctor":
        return state
    if pending.parent_digest != wanted_version(twin).digest:
        return replace(_refuse_orphan(state, pending, now), pending=None)
    return state if state.canary is not None else replace(state, pending=None, canary=pending)


def _hear_of_tasks(state: Rollout, view: TwinView, now: datetime) -> Rollout:
    """Refuse the version of a validator's task that the doctor rejects: it waits to be chosen, and is not pending."""
    twin = view.twin
    rejected = twin.annotations.get(names.REJECT_ANNOTATION)
    for run, version in _open_versions(view.runs):
        if run.of_task and version.digest == rejected and not _is_decided(state, twin, version):
            state = state.refusing(version, Reason.REJECTED_BY_DOCTOR, _why_rejected(twin), now)
    return state


def _why_rejected(twin: Twin) -> str:
    reason = (twin.annotations.get(names.REJECT_REASON_ANNOTATION) or "").strip()
    return f"the doctor rejected it: {reason}" if reason else "the doctor rejected it"


def _take_candidates(state: Rollout, view: TwinView, now: datetime) -> Rollout:
    """Take up the newest version that passed its gate; older ones are superseded."""
    twin = view.twin
    candidates = [version for version in _passed(view.runs, twin) if not _is_decided(state, twin, version)]
    if not candidates:
        return state
    newest, *older = candidates
    for version in older:
        state = state.refusing(version, Reason.SUPERSEDED, f"{newest.served_name} is newer", now)
    if newest.parent_digest != wanted_version(twin).digest:
        return _refuse_orphan(state, newest, now)
    if _leaves_anchor_out(state, view, newest):
        said = "it was not compared with the version that the doctor chose last, as spec.anchor of its run asks for"
        return state.refusing(newest, Reason.ANCHOR_LEFT_OUT, said, now)
    if newest.served_name in {version.served_name for version in known_versions(twin).values()}:
        return state.refusing(newest, Reason.SERVED_NAME_COLLISION, "another digest has the same first 8 digits", now)
    if _gate(twin).approval == "Doctor":
        if state.pending is not None:
            state = state.refusing(state.pending, Reason.SUPERSEDED, f"{newest.served_name} is newer", now)
        return replace(state, pending=newest)
    return state if state.canary is not None else replace(state, canary=newest)


def _leaves_anchor_out(state: Rollout, view: TwinView, version: VersionStatus) -> bool:
    """Tell whether a version was compared with its parent alone, though a person chose another one last.

    The operator's own runs name the anchor; one that was made by hand may not choose its baseline.
    """
    anchor = (state.anchor or spec_version(view.twin)).digest
    if anchor == version.parent_digest:
        return False
    named = [run.spec.anchor for run in view.runs if run.name == version.run_name]
    return not any(each is not None and each.digest == anchor for each in named)


def _passed(runs: Sequence[Run], twin: Twin) -> Iterator[VersionStatus]:
    """Yield the versions that may be taken up, newest first.

    That of a validator's task is the doctor's to choose; once it is, it comes before all others.
    """
    for run, version in _open_versions(runs):
        if not run.of_task or is_chosen(twin, version.digest or ""):
            yield version


def _open_versions(runs: Sequence[Run]) -> Iterator[tuple[Run, VersionStatus]]:
    """Yield the runs whose gate said Promote and whose fate is open with their versions, tasks' first, newest first."""
    over = [run for run in runs if run.ended]

    def place(run: Run) -> tuple[bool, str, str]:
        return run.of_task, run.status.completion_time or "", run.name

    for run in sorted(over, key=place, reverse=True):
        made, gate = run.status.artifact, run.status.eval
        if run.status.verdict != "Promote" or made is None or gate is None or not names.is_digest(made.digest):
            continue
        if any((run.condition(kind) or ("",))[0] == "True" for kind in ("Promoted", "Rejected", "Failed")):
            continue
        score = next((metric.value_percent for metric in gate.metrics or [] if metric.name == "score"), None)
        version = VersionStatus(
            digest=made.digest, served_name=names.served_name(run.spec.twin_ref.name, made.digest), uri=made.uri,
            rank=made.rank, run_name=run.name, parent_digest=run.spec.parent_digest,
            dataset_digest=run.status.dataset.digest if run.status.dataset else None,
            score_percent=score if score is not None and score >= 0 else None,
        )  # fmt: skip
        yield run, version


def _is_decided(state: Rollout, twin: Twin, version: VersionStatus) -> bool:
    decided = {each.digest for each in state.refused} | set(known_versions(twin))
    return version.digest in decided


def _refuse_orphan(state: Rollout, version: VersionStatus, now: datetime) -> Rollout:
    return state.refusing(
        version, Reason.PARENT_REPLACED, "its parent, against which it passed the gate, does not serve any more", now
    )


def _advance(  # noqa: PLR0911, PLR0912  # one return per state of a canary
    state: Rollout, view: TwinView, analysis: Analysis, now: datetime
) -> Rollout:
    """Bring the canary one step on, or take it back."""
    canary, steps = state.canary, _steps(view.twin)
    if canary is None:
        return state
    failure = next((each for each in canary_failures(view) if not each.retryable), None)
    if failure is not None:
        said = f"pod {failure.pod} of MinerPool {failure.pool}: {failure.message}"
        return _take_back(state, view, failure.reason, said, now)
    soon = now + timedelta(seconds=POLL_SECONDS)
    holding, ready = canary_pods(view)
    if state.step is None:
        if not ready or len(holding) < len(ready):
            missing = f"{canary.served_name} is verified on {len(holding)} of {len(ready)} ready pods"
            return replace(state, finding=Finding(Reason.CANARY_LOADING, missing))
        if not steps:
            return _promote(state, view.twin)
        return _enter(state, 0, steps, now)
    if analysis.outlook is Outlook.WORSE:
        return _take_back(state, view, analysis.reason, analysis.message, now)
    step = min(state.step, len(steps) - 1)
    ends = moment(state.step_time or exact_timestamp(now)) + timedelta(seconds=steps[step].seconds if steps else 0)
    if now < ends:
        again = min(soon, ends)
    elif now < ends + timedelta(seconds=_HICCUP_SECONDS):
        again = now + timedelta(seconds=1)
    else:
        again = soon
    where = f"{canary.served_name} takes {state.weight or 0}% (step {step + 1} of {len(steps)})"
    if analysis.outlook in (Outlook.AWAITING, Outlook.UNCLEAR) and now >= ends:
        return _await_proof(state, view, analysis, now, where=where, since=ends, again=again)
    if analysis.outlook in (Outlook.UNKNOWN, Outlook.UNCLEAR):
        held = f"{where} and is held there: {analysis.reason.value}: {analysis.message}"
        return replace(state, finding=Finding(Reason.CANARY_HELD, held), wake_at=again)
    if not holding:
        held = f"{where}, but no ready pod holds it at the moment"
        return replace(state, finding=Finding(Reason.CANARY_HELD, held), wake_at=again)
    if now < ends:
        finding = Finding(Reason.CANARY_STEP, f"{where} until {timestamp(ends)}: {analysis.message}")
        return replace(state, finding=finding, wake_at=again)
    return _enter(state, step + 1, steps, now) if step + 1 < len(steps) else _promote(state, view.twin)


def _await_proof(
    state: Rollout, view: TwinView, analysis: Analysis, now: datetime, *, where: str, since: datetime, again: datetime
) -> Rollout:
    """Keep a canary whose step is over where it is for want of requests, as long as the twin says; then take back."""
    until = since + timedelta(seconds=(view.twin.spec.rollout or RolloutSpec()).await_traffic_seconds)
    if now >= until:
        waited = f"its step was over at {timestamp(since)}, and what came since proves nothing"
        return _take_back(state, view, Reason.NO_TRAFFIC, f"{waited}: {analysis.message}", now)
    if analysis.outlook is Outlook.AWAITING:
        said = f"{where} and waits there until {timestamp(until)} for requests: {analysis.message}"
        finding = Finding(Reason.AWAITING_TRAFFIC, said)
    else:
        held = f"{where} and is held there until {timestamp(until)}: {analysis.reason.value}: {analysis.message}"
        finding = Finding(Reason.CANARY_HELD, held)
    return replace(state, finding=finding, wake_at=min(again, until))


def _enter(state: Rollout, step: int, steps: list[RolloutStep], now: datetime) -> Rollout:
    weight = steps[step].weight_percent
    name = state.canary.served_name if state.canary else ""
    return replace(
        state, step=step, weight=weight, step_time=exact_timestamp(now), start_time=state.start_time or timestamp(now),
        finding=Finding(Reason.CANARY_STEP, f"{name} takes {weight}% from now (step {step + 1} of {len(steps)})"),
        wake_at=now + timedelta(seconds=min(POLL_SECONDS, steps[step].seconds)),
    )  # fmt: skip


def _promote(state: Rollout, twin: Twin) -> Rollout:
    promoted = state.canary
    approved = promoted is not None and twin.annotations.get(names.APPROVE_ANNOTATION) == promoted.digest
    anchor = promoted if approved else state.anchor
    return replace(state.without_canary(), promoted=promoted, anchor=anchor, last_rollback=None)


def _take_back(state: Rollout, view: TwinView, reason: Reason, message: str, now: datetime) -> Rollout:
    canary = state.canary
    if canary is None:
        return state
    whole = f"{canary.served_name} at {state.weight or 0}%: {message}"[:_MESSAGE]
    rollback = LastRollback(
        from_digest=canary.digest, to_digest=wanted_version(view.twin).digest, reason=reason.value, message=whole,
        time=timestamp(now),
    )  # fmt: skip
    state = state.refusing(canary, Reason.ROLLED_BACK, f"{reason.value}: {whole}", now)
    return replace(state.without_canary(), last_rollback=rollback)


def canary_pods(view: TwinView) -> tuple[list[str], list[str]]:
    """Return the ready pods that hold the canary verified, and all ready pods, of the pools that count."""
    canary = view.twin.status.canary_version
    holding, ready = [], []
    for pool in view.counting:
        for name, report in pool.facts.ready.items():
            ready.append(name)
            held = (report.adapters or {}).get(canary.served_name) if report and canary else None
            if held is not None and canary and held.digest == canary.digest and held.state is AdapterState.VERIFIED:
                holding.append(name)
    return holding, ready


def canary_failures(view: TwinView) -> list[Failure]:
    """Return the pods on which the canary failed."""
    canary = view.twin.status.canary_version
    if canary is None:
        return []
    return [
        Failure.reported(held, pod=pod, pool=pool.pool, rank=canary.rank)
        for pool in view.counting
        for pod, report in sorted(pool.facts.reports.items())
        if (held := (report.adapters or {}).get(canary.served_name)) is not None
        and held.digest == canary.digest
        and held.state is AdapterState.FAILED
    ]


def _steps(twin: Twin) -> list[RolloutStep]:
    return list((twin.spec.rollout or RolloutSpec()).steps or [])


def _gate(twin: Twin) -> Gate:
    return twin.spec.gate or Gate()

"""A twin's conditions, from ordered chains of pure checks: (view) → (reason, message), or None when all is well."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from bettertherapy_api import names
from bettertherapy_api.configmaps import Version
from bettertherapy_api.report import FailureReason
from twin_operator.domain.rollout import Rollout
from twin_operator.domain.twin_view import Failure, TwinView
from twin_operator.engine.status import Condition, Truth
from twin_operator.kinds.doctor_twin.fine_tunes import FineTunePlan, last_gate

Finding = tuple[str, str]
Check = Callable[[TwinView], Finding | None]

ARTIFACT_REASONS = frozenset(
    reason.value
    for reason in (
        FailureReason.ARTIFACT_NOT_FOUND, FailureReason.STORE_UNREACHABLE, FailureReason.ACCESS_DENIED,
        FailureReason.DIGEST_MISMATCH, FailureReason.MANIFEST_INVALID, FailureReason.BASE_MODEL_MISMATCH,
        FailureReason.RANK_MISMATCH, FailureReason.RANK_TOO_HIGH, FailureReason.NO_SPACE,
    )
)  # fmt: skip
"""Failures of the artifact itself, before an engine was asked to load it."""
_CAPACITY_REASONS = ("Unschedulable", "VolumeClaimNotFound", "VolumeClaimNotBound", "PodsRefused")


def no_pool_matches(view: TwinView) -> Finding | None:
    """No pool in the namespace has the labels."""
    if any(pool.matches for pool in view.pools):
        return None
    return (
        "NoPoolMatches",
        f"no MinerPool in namespace {view.twin.namespace} matches spec.poolSelector: label a pool accordingly "
        f"(see `kubectl get minerpools --show-labels`), or correct the selector",
    )


def every_pool_refuses(view: TwinView) -> Finding | None:
    """Pools match, but none can serve the twin as its spec asks."""
    if view.counting:
        return None
    return next((pool.refused for pool in view.pools if pool.matches and pool.refused), None)


def served_name_collision(view: TwinView) -> Finding | None:
    """The wanted digest begins with the same 8 digits as the one that answers."""
    if view.wanted is None:
        return None
    for pool in view.counting:
        answering = pool.answering(view.twin)
        if answering and answering.served_name == view.wanted.served_name and answering.digest != view.wanted.digest:
            return (
                "ServedNameCollision",
                f"this digest and {answering.digest} share the served name {view.wanted.served_name}, and an engine "
                f"can't hold both: train again (any other seed gives another digest)",
            )
    return None


def adapter_failed(view: TwinView) -> Finding | None:
    """The wanted adapter failed on some pod."""
    failures = view.failures()
    if not failures:
        return None
    first = next((failure for failure in failures if not failure.retryable), failures[0])
    return first.reason, _failure_message(first, len(failures))


def pool_has_trouble(view: TwinView) -> Finding | None:
    """No pool that counts has a ready engine, and one of them says why."""
    if any(pool.facts.ready for pool in view.counting):
        return None
    for pool in view.counting:
        if pool.pool.spec.replicas == 0:
            return "ScaledToZero", f"MinerPool {pool.pool.name} has spec.replicas 0: raise it to serve"
        if pool.trouble is not None:
            return "PoolNotReady", f"MinerPool {pool.pool.name} is not ready: {pool.trouble[0]}: {pool.trouble[1]}"
    return "PoolNotReady", "no engine pod is ready yet"


def not_taken_over(view: TwinView) -> Finding | None:
    """The wanted version doesn't answer yet in every pool."""
    wanted = _wanted_name(view)
    for pool in view.counting:
        answering = pool.answering(view.twin)
        if answering is None or answering.served_name != wanted:
            return "Loading", _progress(view)
        if not pool.holds(answering) and pool.facts.ready:
            return (
                "Loading",
                f"no ready pod of MinerPool {pool.pool.name} holds {wanted} at the moment; {_progress(view)}",
            )
    return None


READINESS: tuple[Check, ...] = (
    no_pool_matches, every_pool_refuses, served_name_collision, adapter_failed, pool_has_trouble, not_taken_over,
)  # fmt: skip
STUCK: tuple[Check, ...] = (no_pool_matches, every_pool_refuses, served_name_collision)


def first(view: TwinView, checks: Iterable[Check]) -> Finding | None:
    """Return what the first violated check found."""
    return next((found for check in checks if (found := check(view)) is not None), None)


def twin_conditions(
    view: TwinView, fine_tunes: FineTunePlan | None = None, rollout: Rollout | None = None
) -> list[Condition]:
    """Return the twin's conditions; what was not measured is absent."""
    rollout = rollout or Rollout.of(view.twin)
    gate, rolled_back = _gate_passed(view, fine_tunes or FineTunePlan(), rollout), _rolled_back(view, rollout)
    return [
        *([gate] if gate else []),
        *([rolled_back] if rolled_back else []),
        _serving(view), _ready(view), _artifact_verified(view), _adapters_verified(view), _progressing(view, rollout),
        _capacity(view),
    ]  # fmt: skip


def invalid_conditions(problem: str) -> list[Condition]:
    """Return the conditions of a twin whose spec can't be read; what answers for it goes on."""
    return [_condition("Ready", "False", "SpecInvalid", f"the stored spec can't be read: {problem}")]


def _serving(view: TwinView) -> Condition:
    answering = view.answering()
    if answering:
        parts = [
            f"{name} on {len(pods)} {'pod' if len(pods) == 1 else 'pods'}" for name, pods in sorted(answering.items())
        ]
        return _condition("Serving", "True", "VersionServing", f"answers with {', '.join(parts)}")
    reason, message = first(view, READINESS) or ("Loading", _progress(view))
    return _condition("Serving", "False", reason, message)


def _ready(view: TwinView) -> Condition:
    found = first(view, READINESS)
    if found is None:
        pools = ", ".join(pool.pool.name for pool in view.counting)
        message = f"{_wanted_name(view)} answers, verified, in {pools}"
        refused = [pool.refused[1] for pool in view.pools if pool.matches and pool.refused]
        return _condition("Ready", "True", "Serving", "; ".join([message, *refused]))
    reason, message = found
    if (answering := view.answering()) and _wanted_name(view) not in answering:
        message += f"; {', '.join(sorted(answering))} goes on answering"
    return _condition("Ready", "False", reason, message)


def _artifact_verified(view: TwinView) -> Condition:
    if view.wanted is None:
        return _condition("ArtifactVerified", "True", "NoAdapter", "the twin is the base model itself")
    failures = [failure for failure in view.failures() if failure.reason in ARTIFACT_REASONS]
    if failures:
        return _condition("ArtifactVerified", "False", failures[0].reason, _failure_message(failures[0], len(failures)))
    if view.artifact_checked():
        return _condition(
            "ArtifactVerified", "True", "DigestMatches", f"the files at {view.wanted.uri} match {view.wanted.digest}"
        )
    return _condition("ArtifactVerified", "Unknown", "NotFetched", "no pod has fetched the artifact yet")


def _adapters_verified(view: TwinView) -> Condition:
    if view.wanted is None:
        return _condition("AdaptersVerified", "True", "NoAdapter", "the twin is the base model itself")
    found = adapter_failed(view)
    if found is not None:
        return _condition("AdaptersVerified", "False", *found)
    ready = [name for pool in view.counting for name in pool.facts.ready]
    verified = [name for pool in view.counting for name in pool.holds(_as_version(view))]
    if ready and len(verified) == len(ready):
        return _condition(
            "AdaptersVerified", "True", "Verified",
            f"digest, root and fingerprint of {view.wanted.served_name} are confirmed on all {len(ready)} ready pods",
        )  # fmt: skip
    if not view.counting:
        return _condition("AdaptersVerified", "Unknown", "NoPool", "no pool can serve the twin as its spec asks")
    return _condition("AdaptersVerified", "False", "Loading", _progress(view))


def _progressing(view: TwinView, rollout: Rollout) -> Condition:
    stuck = first(view, STUCK)
    if stuck is not None:
        return _condition("Progressing", "False", *stuck)
    failures = view.failures()
    if failures and not any(failure.retryable for failure in failures):
        return _condition("Progressing", "False", failures[0].reason, _failure_message(failures[0], len(failures)))
    if failures:
        return _condition("Progressing", "True", "Retrying", _failure_message(failures[0], len(failures)))
    found = first(view, (not_taken_over, pool_has_trouble))
    if found is None and rollout.canary is not None:
        loading = ("CanaryLoading", f"{rollout.canary.served_name} is to be loaded beside {_wanted_name(view)}")
        return _condition("Progressing", "True", *(rollout.finding or loading))
    if found is None:
        return _condition("Progressing", "False", "Complete", f"{_wanted_name(view)} has taken over")
    return _condition("Progressing", "True", *found)


def _gate_passed(view: TwinView, planned: FineTunePlan, rollout: Rollout) -> Condition | None:
    """The newest gate; without one why there is none, if something is wrong."""
    obstacle = planned.obstacle
    waits = f"; {names.NEXT_WAITS}{obstacle[1]}" if obstacle else ""
    gate, _ = last_gate(view.twin, view.runs)
    if gate is None:
        return _condition("GatePassed", "Unknown", *obstacle) if obstacle else None
    said = f"{gate.run_name or 'the last run'}: {gate.message or gate.verdict}{waits}"
    if rollout.pending is not None and gate.digest == rollout.pending.digest:
        name = view.twin.name
        return _condition(
            "GatePassed", "True", "AwaitingApproval",
            f"{said}; it waits for the doctor: `kubectl twin review {name}`, then `kubectl twin approve {name}`",
        )  # fmt: skip
    if gate.verdict == "Promote":
        return _condition("GatePassed", "True", "Promote", said)
    return _condition("GatePassed", "False", gate.verdict, f"{said}; the version that serves goes on")


def _rolled_back(view: TwinView, rollout: Rollout) -> Condition | None:
    """Absent for a twin that never changes its version by itself."""
    last = rollout.last_rollback
    if rollout.problem is not None:
        return _condition("RolledBack", "False", *rollout.problem)
    if last is not None:
        return _condition("RolledBack", "True", last.reason, last.message)
    if view.twin.spec.fine_tune is None and view.twin.spec.rollout is None:
        return None
    return _condition("RolledBack", "False", "NoRollback", "no version was taken back since the last promotion")


def _capacity(view: TwinView) -> Condition:
    for pool in view.counting:
        if pool.trouble is not None and pool.trouble[0] in _CAPACITY_REASONS:
            return _condition(
                "CapacityAvailable", "False", pool.trouble[0], f"MinerPool {pool.pool.name}: {pool.trouble[1]}"
            )
    for pool in view.counting:
        loras = len({adapter.twin for adapter in pool.table.adapters}) if pool.table else 0
        if view.wanted is not None and loras > pool.pool.max_loras and not pool.pool.spec.engine.endpoint:
            return _condition(
                "CapacityAvailable", "False", "SlotsOvercommitted",
                f"MinerPool {pool.pool.name} serves {loras} twins with {pool.pool.max_loras} LoRA slots per engine: "
                f"raise its spec.engine.maxLoras, or move twins to another pool",
            )  # fmt: skip
    if not view.counting:
        return _condition("CapacityAvailable", "Unknown", "NoPool", "no pool can serve the twin as its spec asks")
    return _condition("CapacityAvailable", "True", "Sufficient", "the pools have room for this twin")


def _as_version(view: TwinView) -> Version:
    digest = view.wanted.digest if view.wanted else None
    return Version(served_name=_wanted_name(view), digest=digest, weight_percent=100)


def _wanted_name(view: TwinView) -> str:
    return view.wanted.served_name if view.wanted else view.twin.spec.base_model.name


def _progress(view: TwinView) -> str:
    desired, loaded, verified = view.counts()
    name = _wanted_name(view)
    slow = [
        pod for pool in view.counting for pod in pool.facts.ready if (pool.pool.name, pod) not in view.wanted_reports()
    ]
    waiting = f"; pod {slow[0]} has not reported it yet" if slow and view.wanted else ""
    return f"{name} is verified on {verified} and loaded on {loaded} of {desired} pods{waiting}"


def _failure_message(failure: Failure, count: int) -> str:
    others = f" (and on {count - 1} more)" if count > 1 else ""
    again = "; the agent keeps trying" if failure.retryable else ""
    return f"pod {failure.pod} of MinerPool {failure.pool}{others}: {failure.message}{again}"


def _condition(kind: str, status: Truth, reason: str, message: str) -> Condition:
    return Condition(type=kind, status=status, reason=reason, message=message)

"""A twin's conditions: pure checks, and for each condition the chain in which they count."""

from __future__ import annotations

from typing import Final

from bettertherapy_api.doctor_twin import Baseline
from twin_operator.domain.appearances import LACKS_CAPACITY, appears
from twin_operator.domain.baseline import condition as degraded
from twin_operator.domain.objects import MOST_SPREAD, Pool
from twin_operator.domain.reasons import Reason, from_elsewhere
from twin_operator.domain.rollout import Rollout
from twin_operator.domain.twin_view import PoolView, TwinView
from twin_operator.engine.conditions import Chain, Condition, Finding
from twin_operator.kinds.doctor_twin.adapter_checks import (
    WRONG_WEIGHTS,
    adapter_failed_for_good,
    artifact_failed,
    failure_message,
    not_on_every_pod,
    progress,
    proof_of,
    wanted_name,
    weights_unproven,
)
from twin_operator.kinds.doctor_twin.fine_tunes import FineTunePlan, last_gate


def no_pool_matches(view: TwinView) -> Finding | None:
    """No pool in the namespace has the labels."""
    if any(pool.matches for pool in view.pools):
        return None
    return Finding(
        Reason.NO_POOL_MATCHES,
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
            return Finding(
                Reason.SERVED_NAME_COLLISION,
                f"this digest and {answering.digest} share the served name {view.wanted.served_name}, and an engine "
                f"can't hold both: train again (any other seed gives another digest)",
            )
    return None


def no_pool_answers(view: TwinView) -> Finding | None:
    """No pool that counts has a ready engine and lets clients in; one of them says why."""
    if any(pool.facts.ready and pool.is_open for pool in view.counting):
        return None
    for pool in view.counting:
        if pool.sleeps:
            return Finding(
                Reason.ASLEEP, f"MinerPool {pool.pool.name} sleeps, since nobody asks: the next question wakes it"
            )
        if pool.replicas == 0:
            return Finding(Reason.SCALED_TO_ZERO, f"MinerPool {pool.pool.name} has spec.replicas 0: raise it to serve")
        if pool.trouble is not None:
            return Finding(Reason.POOL_NOT_READY, f"MinerPool {pool.pool.name} is not ready: {pool.trouble}")
        if pool.facts.ready:
            return Finding(Reason.POOL_NOT_READY, f"no miner pod of MinerPool {pool.pool.name} is ready")
    return Finding(Reason.POOL_NOT_READY, "no engine pod is ready yet")


def not_taken_over(view: TwinView) -> Finding | None:
    """The wanted version doesn't answer yet in every pool."""
    wanted = wanted_name(view)
    for pool in view.counting:
        answering = pool.answering(view.twin)
        if answering is None or answering.served_name != wanted:
            return Finding(Reason.LOADING, progress(view))
        if not pool.holds(answering) and pool.facts.ready and not pool.loads(answering):
            return Finding(
                Reason.LOADING,
                f"no ready pod of MinerPool {pool.pool.name} holds {wanted} at the moment; {progress(view)}",
            )
    return None


def pool_lacks_capacity(view: TwinView) -> Finding | None:
    """The cluster doesn't give a pool what it needs."""
    for pool in view.counting:
        if pool.trouble is not None and pool.trouble.reason in LACKS_CAPACITY:
            return Finding(pool.trouble.reason, f"MinerPool {pool.pool.name}: {pool.trouble.message}")
    return None


def slots_overcommitted(view: TwinView) -> Finding | None:
    """More twins than one engine of a pool computes at once."""
    return next((found for pool in view.counting if (found := _crowded(view, pool)) is not None), None)


def routing_refused(view: TwinView) -> Finding | None:
    """A pool can't be told which version answers."""
    for pool in view.counting:
        if pool.unpublished is not None:
            return pool.unpublished
    return None


def entry_unreadable(view: TwinView) -> Finding | None:
    """What a pool publishes for the twin was written by another release."""
    names_ = [pool.pool.name for pool in view.pools if pool.entry_unreadable]
    if not names_:
        return None
    return Finding(
        Reason.ENTRY_UNREADABLE,
        f"the twin's entry in the routing of MinerPool {', '.join(names_)} was written by another release and can't be "
        f"read: it stays as it is, and miners go on with what they can read of it; run the release that wrote it",
    )


STUCK: Final = Chain[TwinView]("why it can't go on", no_pool_matches, every_pool_refuses, served_name_collision)
READINESS: Final = Chain[TwinView](
    "Ready", STUCK, routing_refused, entry_unreadable, WRONG_WEIGHTS, no_pool_answers, not_taken_over
)
HALTED: Final = Chain[TwinView]("why nothing goes on by itself", STUCK, adapter_failed_for_good)
UNDER_WAY: Final = Chain[TwinView]("Progressing", routing_refused, entry_unreadable, not_taken_over, no_pool_answers)
CAPACITY: Final = Chain[TwinView]("CapacityAvailable", pool_lacks_capacity, slots_overcommitted)


def twin_conditions(
    view: TwinView, fine_tunes: FineTunePlan | None = None, rollout: Rollout | None = None,
    baseline: Baseline | None = None,
) -> list[Condition]:  # fmt: skip
    """Return the twin's conditions; what was not measured is absent."""
    rollout = rollout or Rollout.of(view.twin)
    found = [
        _gate_passed(view, fine_tunes or FineTunePlan(), rollout), _rolled_back(view, rollout), _serving(view),
        _ready(view), _artifact_verified(view), _adapters_verified(view), _progressing(view, rollout), _capacity(view),
        _placement(view), degraded(baseline),
    ]  # fmt: skip
    return [condition for condition in found if condition is not None]


def _serving(view: TwinView) -> Condition:
    answering = view.answering()
    if answering:
        parts = [f"{name} {_held_on(len(pods))}" for name, pods in sorted(answering.items())]
        found = Finding(Reason.VERSION_SERVING, f"answers with {', '.join(parts)}")
        return found.condition("Serving", "True")
    unknown = entry_unreadable(view)
    if unknown is not None:
        return unknown.condition("Serving", "Unknown")
    return (READINESS.evaluate(view) or Finding(Reason.LOADING, progress(view))).condition("Serving", "False")


def _held_on(pods: int) -> str:
    return "once a question has loaded it" if pods == 0 else f"on {pods} {'pod' if pods == 1 else 'pods'}"


def _ready(view: TwinView) -> Condition:
    found = READINESS.evaluate(view)
    if found is None:
        pools = ", ".join(pool.pool.name for pool in view.counting)
        message = f"{wanted_name(view)} answers, verified, in {pools}"
        if view.rests():
            message = f"{wanted_name(view)} is loaded, and verified, by the next question, in {pools}"
        refused = [pool.refused.message for pool in view.pools if pool.matches and pool.refused]
        return Finding(Reason.SERVING, "; ".join([message, *refused])).condition("Ready", "True")
    if (answering := view.answering()) and wanted_name(view) not in answering:
        found = found.followed_by(f"; {', '.join(sorted(answering))} goes on answering")
    return found.condition("Ready", "Unknown" if found.reason is Reason.ENTRY_UNREADABLE else "False")


def _artifact_verified(view: TwinView) -> Condition:
    kind = "ArtifactVerified"
    if view.wanted is None:
        return _no_adapter().condition(kind, "True")
    found = artifact_failed(view)
    if found is not None:
        return found.condition(kind, "False")
    if view.rests():
        return _at_rest(view).condition(kind, "Unknown")
    if view.artifact_checked():
        said = f"the files at {view.wanted.uri} match {view.wanted.digest}"
        return Finding(Reason.DIGEST_MATCHES, said).condition(kind, "True")
    return Finding(Reason.NOT_FETCHED, "no pod has fetched the artifact yet").condition(kind, "Unknown")


def _adapters_verified(view: TwinView) -> Condition:
    """Whose weights answer was measured on every ready pod."""
    kind = "AdaptersVerified"
    if view.wanted is None:
        return _no_adapter().condition(kind, "True")
    found = WRONG_WEIGHTS.evaluate(view)
    if found is not None:
        return found.condition(kind, "False")
    if not view.counting:
        return _no_pool().condition(kind, "Unknown")
    found = None if view.rests() else not_on_every_pod(view)
    if found is not None:
        return found.condition(kind, "False")
    found = _at_rest(view) if view.rests() else weights_unproven(view)
    if found is not None:
        return found.condition(kind, "Unknown")
    return Finding(Reason.VERIFIED, proof_of(view)).condition(kind, "True")


def _at_rest(view: TwinView) -> Finding:
    said = f"no pod holds {wanted_name(view)} now: the next question has it fetched, loaded and verified, and waits"
    return Finding(Reason.ON_DEMAND, said)


def _progressing(view: TwinView, rollout: Rollout) -> Condition:
    kind = "Progressing"
    halted = HALTED.evaluate(view)
    if halted is not None:
        return halted.condition(kind, "False")
    failures = view.failures()
    if failures:
        retried = Finding(Reason.RETRYING, failure_message(failures[0], len(failures)))
        return retried.condition(kind, "True")
    found = UNDER_WAY.evaluate(view)
    if found is None and rollout.canary is not None:
        loading = f"{rollout.canary.served_name} is to be loaded beside {wanted_name(view)}"
        found = rollout.finding or Finding(Reason.CANARY_LOADING, loading)
    if found is None:
        return Finding(Reason.COMPLETE, f"{wanted_name(view)} has taken over").condition(kind, "False")
    return found.condition(kind, "True")


def _gate_passed(view: TwinView, planned: FineTunePlan, rollout: Rollout) -> Condition | None:
    """The newest gate; without one why there is none, if something is wrong."""
    kind, obstacle = "GatePassed", planned.obstacle
    waits = f"; the next fine-tune waits: {obstacle.message}" if obstacle else ""
    gate, _ = last_gate(view.twin, view.runs)
    if gate is None:
        return obstacle.condition(kind, "Unknown") if obstacle else None
    said = f"{gate.run_name or 'the last run'}: {gate.message or gate.verdict}{waits}"
    if rollout.pending is not None and gate.digest == rollout.pending.digest:
        name = view.twin.name
        said += f"; it waits for the doctor: `kubectl twin review {name}`, then `kubectl twin approve {name}`"
        return Finding(Reason.AWAITING_APPROVAL, said).condition(kind, "True")
    if gate.verdict == "Promote":
        return Finding(Reason.PROMOTE, said).condition(kind, "True")
    reason = Reason.REJECT if gate.verdict == "Reject" else Reason.INCONCLUSIVE
    return Finding(reason, f"{said.removesuffix('.')}; the version that serves goes on").condition(kind, "False")


def _rolled_back(view: TwinView, rollout: Rollout) -> Condition | None:
    """Absent for a twin that never changes its version by itself."""
    kind, last = "RolledBack", rollout.last_rollback
    if rollout.problem is not None:
        return rollout.problem.condition(kind, "False")
    if last is not None:
        known = appears("DoctorTwin", kind, "True")
        reason, message = from_elsewhere(last.reason, last.message, known=known, otherwise=Reason.ROLLED_BACK)
        return Finding(reason, message).condition(kind, "True")
    if view.twin.spec.fine_tune is None and view.twin.spec.rollout is None:
        return None
    return Finding(Reason.NO_ROLLBACK, "no version was taken back since the last promotion").condition(kind, "False")


def _capacity(view: TwinView) -> Condition:
    kind, found = "CapacityAvailable", CAPACITY.evaluate(view)
    if found is not None:
        return found.condition(kind, "False")
    if not view.counting:
        return _no_pool().condition(kind, "Unknown")
    return Finding(Reason.SUFFICIENT, "the pools have room for this twin").condition(kind, "True")


def not_placeable(view: TwinView) -> Finding | None:
    """The twin is kept on every pod, though its spec asks otherwise."""
    if view.twin.spread_over is None:
        return Finding(
            Reason.NOT_IMPLEMENTED,
            f"a twin that is to be on more than {MOST_SPREAD} pods is kept on every pod: lower "
            f"spec.placement.replicas, or set mode All",
        )
    for pool in view.counting:
        if isinstance(pool.pool, Pool) and pool.pool.spec.engine.endpoint is not None:
            return Finding(
                Reason.NOT_IMPLEMENTED,
                f"the server of MinerPool {pool.pool.name} (spec.engine.endpoint) runs already and holds what it "
                f"holds: spec.placement has no effect there; set mode All to say what is",
            )
    return None


def too_few_pods(view: TwinView) -> Finding | None:
    """A pool has fewer ready engine pods than the twin is to be on."""
    wanted = view.twin.spread_over or 0
    for pool in view.counting:
        ready = len(pool.facts.ready)
        if ready < wanted:
            return Finding(
                Reason.TOO_FEW_PODS,
                f"MinerPool {pool.pool.name} has {ready} ready engine {'pod' if ready == 1 else 'pods'}, the twin is "
                f"to be on {wanted}: raise the pool's spec.replicas, or lower spec.placement.replicas",
            )
    return None


PLACEMENT: Final = Chain[TwinView]("PlacementActive", not_placeable, too_few_pods)


def _placement(view: TwinView) -> Condition | None:
    """Absent for mode All, which needs no deciding."""
    kind = "PlacementActive"
    if view.twin.spec.placement.mode == "All":
        return None
    found = PLACEMENT.evaluate(view)
    if found is not None:
        return found.condition(kind, "False")
    if not view.counting:
        return _no_pool().condition(kind, "Unknown")
    if view.wanted is None:
        return Finding(Reason.NO_ADAPTER, "the twin is the base model itself, which every pod holds").condition(
            kind, "True"
        )
    said = "; ".join(_where(pool, view.twin.spread_over or 0) for pool in view.counting)
    return Finding(Reason.PLACED, said).condition(kind, "True")


def _where(pool: PoolView, wanted: int) -> str:
    """Return on which of a pool's pods the twin is, the preferred one first."""
    names_ = {pod.uid: pod.name for pod in pool.facts.present}
    listed = [names_[uid] for uid in (pool.entry.pods if pool.entry else None) or () if uid in names_]
    pods = "pod" if len(pool.facts.present) == 1 else "pods"
    on = ", ".join(listed[:8]) or "no pod yet"
    if pool.entry is not None and pool.entry.on_demand is not None:
        return f"loaded by the first question on {on} of {len(pool.facts.present)} {pods} of MinerPool {pool.pool.name}"
    said = f"on {on} of {len(pool.facts.present)} {pods} of MinerPool {pool.pool.name}"
    if len(listed) > wanted:
        return f"{said}: it moves, and the pods that it leaves hold it until the others have verified it"
    return said


def _crowded(view: TwinView, pool: PoolView) -> Finding | None:
    loras = pool.lora_twins
    if not isinstance(pool.pool, Pool) or view.wanted is None:
        return None
    if loras <= pool.pool.max_loras or pool.pool.spec.engine.endpoint:
        return None
    return Finding(
        Reason.SLOTS_OVERCOMMITTED,
        f"MinerPool {pool.pool.name} serves {loras} twins on a pod with {pool.pool.max_loras} LoRA slots: "
        f"{_more_slots(pool.pool)}, or move twins to another pool",
    )


def _more_slots(pool: Pool) -> str:
    fixed = pool.spec.engine.max_loras != "Auto"
    return "raise its spec.engine.maxLoras" if fixed else "its EnginesTuned tells when there are more"


def _no_adapter() -> Finding:
    return Finding(Reason.NO_ADAPTER, "the twin is the base model itself")


def _no_pool() -> Finding:
    return Finding(Reason.NO_POOL, "no pool can serve the twin as its spec asks")

"""What can be wrong with a pool: pure checks, and for each condition the chain in which they count.

Each check takes the situation and returns a finding when it is violated, None when it is not. Reasons are stable;
messages say what happened and what to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bettertherapy_api.miner_pool import SlowReplica
from twin_operator.domain.objects import Pool
from twin_operator.domain.pod_troubles import (
    cannot_pull,
    cannot_start,
    claim_trouble,
    ending,
    last_words,
    while_mounting,
)
from twin_operator.domain.pool_facts import ContainerTrouble, PodFacts, PoolFacts
from twin_operator.domain.reasons import Reason
from twin_operator.domain.registration import registration
from twin_operator.domain.sizing import Sizing
from twin_operator.engine.conditions import Chain, Condition, Finding

MODEL_HEADERS: Final = "model-headers"
"""The container that reads the sizes of a base model in the engine's image."""
_NAMED: Final = 3
"""Slow pods that a message names."""
ENGINE_IMAGE: Final = {"engine": "the engine", MODEL_HEADERS: "container model-headers"}
"""Containers that run the engine's image, with what they are called."""


@dataclass(frozen=True, kw_only=True)
class Situation:
    """What the checks look at."""

    pool: Pool
    facts: PoolFacts
    lora_twins: int = 0
    """Twins with an adapter that this pool serves."""
    problem: Finding | None = None
    """Why children could not be applied."""
    unpublished: Finding | None = None
    """Why what is to be published for all twins is not."""
    access_missing: Finding | None = None
    """What is wrong with the Secret with the clients' tokens, if it doesn't exist or holds none."""
    update_waits: Finding | None = None
    """Why an update of the engines has not begun."""
    sizing: Sizing | None = None
    """What was decided on the number of engine pods, where the operator decides."""
    no_groups: bool = False
    """Its engines are to span several nodes, and the cluster has no LeaderWorkerSets."""
    slow: Sequence[SlowReplica] | None = None
    """Engine pods that are slower than the others; None where none is compared."""


def children_refused(situation: Situation) -> Finding | None:
    """A child can't be made or changed: its name is taken, or the API server refuses it."""
    return situation.problem


def groups_missing(situation: Situation) -> Finding | None:
    """Engines are to span several nodes, and nothing in the cluster makes such groups of pods."""
    if not situation.no_groups:
        return None
    return Finding(
        Reason.LEADER_WORKER_SET_MISSING,
        "spec.engine.group needs LeaderWorkerSets, which this cluster doesn't have: install LeaderWorkerSet "
        "(lws.sigs.k8s.io), and the engines start by themselves; or remove group",
    )


def image_pull_failed(situation: Situation) -> Finding | None:
    """The kubelet can't get an image."""
    for pod in _pods(situation):
        for trouble in pod.pulls:
            return cannot_pull(pod, trouble, field=_image_field(trouble))
    return None


def configuration_failed(situation: Situation) -> Finding | None:
    """A container can't be started, mostly because a Secret is missing."""
    for pod in _pods(situation):
        for trouble in pod.configs:
            return cannot_start(f"container {trouble.container} of pod {pod.name}", trouble)
    return None


def model_fetch_failed(situation: Situation) -> Finding | None:
    """The base model can't be fetched or verified."""
    for pod in _engines(situation):
        for crash in _crashes(pod, "model"):
            return Finding(
                Reason.MODEL_FETCH_FAILED,
                f"pod {pod.name} can't fetch {situation.pool.spec.base_model.uri}: {_ending(crash)}",
            )
    return None


def engine_crashed(situation: Situation) -> Finding | None:
    """vLLM ends again and again."""
    for pod in _engines(situation):
        for container, what in ENGINE_IMAGE.items():
            for crash in _crashes(pod, container):
                return Finding(
                    Reason.ENGINE_CRASHED,
                    f"{what} of pod {pod.name} ended with {_ending(crash)}; see "
                    f"`kubectl logs {pod.name} -c {container} --previous`",
                )
    return None


def neuron_crashed(situation: Situation) -> Finding | None:
    """An agent or a miner ends again and again."""
    for pod in _pods(situation):
        for container, reason in (("agent", Reason.AGENT_CRASHED), ("miner", Reason.MINER_CRASHED)):
            for crash in _crashes(pod, container):
                return Finding(
                    reason,
                    f"{container} of pod {pod.name} ended with {_ending(crash)}; see "
                    f"`kubectl logs {pod.name} -c {container} --previous`",
                )
    return None


def volume_missing(situation: Situation) -> Finding | None:
    """A claim doesn't exist or is not bound."""
    for pod in _pods(situation):
        found = claim_trouble(
            pod,
            absent="; create the claim, or correct the pvc:// URI",
            unbound="a claim needs a StorageClass or a matching volume",
        )
        if found is not None:
            return found
    return None


def unschedulable(situation: Situation) -> Finding | None:
    """No node takes a pod."""
    for pod in _pods(situation):
        if pod.unschedulable is None:
            continue
        message = f"no node takes pod {pod.name}: {pod.unschedulable}"
        if "nvidia.com/gpu" in pod.unschedulable:
            message += (
                "; no node offers a free nvidia.com/gpu: add a GPU node with the NVIDIA device plugin, lower "
                "spec.replicas, or set spec.engine.device: CPU"
            )
        elif "untolerated taint" in pod.unschedulable:
            message += "; add the taint to spec.tolerations"
        elif "node affinity/selector" in pod.unschedulable:
            message += "; correct spec.nodeSelector, or label a node"
        elif "Insufficient" in pod.unschedulable:
            message += "; lower spec.resources, or add a node"
        return Finding(Reason.UNSCHEDULABLE, message)
    return None


def pods_refused(situation: Situation) -> Finding | None:
    """The API server refuses to create pods."""
    for deployment in (situation.facts.engine_deployment, situation.facts.miner_deployment):
        if deployment.refused:
            return Finding(Reason.PODS_REFUSED, f"pods can't be created: {deployment.refused}")
    return None


def engine_wedged(situation: Situation) -> Finding | None:
    """Requests run and nothing moves, or what the base model says became wrong: its agent says which."""
    for pod in situation.facts.present:
        report = situation.facts.reports.get(pod.name)
        if report is not None and report.engine.wedged:
            why = report.engine.message or "it makes no progress on its requests and is being restarted"
            return Finding(Reason.ENGINE_WEDGED, f"the engine of pod {pod.name} is out of service: {why}")
    return None


def endpoint_unreachable(situation: Situation) -> Finding | None:
    """The given server doesn't answer."""
    endpoint = situation.pool.spec.engine.endpoint
    if endpoint is None:
        return None
    for pod in situation.facts.present:
        report = situation.facts.reports.get(pod.name)
        if report is not None and not report.engine.live:
            detail = f": {report.engine.message}" if report.engine.message else ""
            return Finding(
                Reason.ENDPOINT_UNREACHABLE,
                f"{endpoint} doesn't answer{detail}; check spec.engine.endpoint and its secretRef",
            )
    return None


def chat_template_refuses(situation: Situation) -> Finding | None:
    """The chat template takes no conversation, in no engine that answers."""
    why = situation.facts.template_refusal
    if why is None:
        return None
    return Finding(
        Reason.CHAT_TEMPLATE_REFUSES,
        f"the chat template of {situation.pool.spec.base_model.name} takes no conversation, so every patient is turned "
        f"away: {why}; give the engine another one (spec.engine.args: --chat-template=FILE), or use an "
        f"instruction-tuned base model",
    )


def slots_overcommitted(situation: Situation) -> Finding | None:
    """More twins than one engine computes at once."""
    slots = situation.pool.max_loras
    fixed = situation.pool.spec.engine.max_loras != "Auto"
    how = "raise spec.engine.maxLoras or" if fixed else "EnginesTuned tells whether there will be more; or raise"
    if situation.lora_twins <= slots or situation.pool.spec.engine.endpoint:
        return None
    return Finding(
        Reason.SLOTS_OVERCOMMITTED,
        f"{situation.lora_twins} twins share the {slots} LoRA slots of an engine: all are served, but more than "
        f"{slots} active at once swap and slow each other down; {how} spec.replicas, or move "
        f"twins to another pool",
    )


def not_all_ready(situation: Situation) -> Finding | None:
    """Engines are starting, or being replaced."""
    wanted, facts = situation.pool.replicas, situation.facts
    ready = len(facts.ready)
    if ready < wanted:
        waiting = next((pod for pod in facts.present if pod.name not in facts.ready), None)
        said = "s" if waiting is None else f" {waiting.name}{_engine_message(facts, waiting.name)}"
        where = f"; waiting for pod{said}{while_mounting(waiting)}"
        return Finding(Reason.ENGINES_STARTING, f"{ready} of {wanted} engine pods are ready{where}")
    deployment = facts.engine_deployment
    if not deployment.seen or deployment.updated < wanted:
        return Finding(Reason.ROLLING_OUT, f"{deployment.updated} of {wanted} engine pods run the newest spec")
    return None


def miner_not_ready(situation: Situation) -> Finding | None:
    """No miner answers."""
    wanted, ready = situation.pool.spec.miner.replicas, situation.facts.miner_deployment.ready
    if ready >= wanted:
        return None
    waiting = next((pod for pod in situation.facts.miners if pod.mounting and not pod.leaving), None)
    where = f"; waiting for pod {waiting.name}{while_mounting(waiting)}" if waiting is not None else ""
    return Finding(Reason.MINER_STARTING, f"{ready} of {wanted} miner pods are ready{where}")


def scaled_to_zero(situation: Situation) -> Finding | None:
    """Nothing runs, as asked; a patient is not answered all the same."""
    pool = situation.pool
    if pool.replicas > 0:
        return None
    if pool.is_scaled:
        return Finding(Reason.ASLEEP, "no engine runs, since nobody asks: the next question starts one")
    return Finding(Reason.SCALED_TO_ZERO, "spec.replicas is 0, so nothing runs: raise it to serve")


def no_miner(situation: Situation) -> Finding | None:
    """No endpoint is asked for."""
    if situation.pool.spec.miner.replicas > 0:
        return None
    return Finding(Reason.NO_MINER, "spec.miner.replicas is 0, so the pool has no endpoint: raise it to serve")


def access_secret_missing(situation: Situation) -> Finding | None:
    """No client has a token, so the miner refuses everybody."""
    return situation.access_missing


def no_tokens(name: str) -> Finding:
    """Return what to say where the Secret of this name is missing or empty."""
    return Finding(
        Reason.ACCESS_SECRET_MISSING,
        f"Secret {name} with the clients' tokens is missing or empty, so every request is refused: create it with one "
        f"token for each client (`kubectl create secret generic {name} --from-literal=my-app=TOKEN`)",
    )


def replica_slow(situation: Situation) -> Finding | None:
    """A pod writes slower than the others under like load."""
    slow = situation.slow
    if not slow:
        return None
    said = ", ".join(f"{each.pod} (since {each.since}, tried again at {each.until})" for each in slow[:_NAMED])
    more = f" and {len(slow) - _NAMED} more" if len(slow) > _NAMED else ""
    return Finding(
        Reason.SLOW_REPLICA,
        f"engine pods that take more than twice as long for a token as the others under like load: {said}{more}. Twins "
        f"that are placed on them move to the others, as far as those have LoRA slots; look at the pod's node, or "
        f"delete the pod",
    )


def routing_refused(situation: Situation) -> Finding | None:
    """What agents and miners follow can't be published."""
    return situation.unpublished


STARTUP: Final = Chain[Situation](
    "why pods don't come up",
    groups_missing, image_pull_failed, configuration_failed, volume_missing, unschedulable, pods_refused,
    model_fetch_failed, engine_crashed, neuron_crashed,
)  # fmt: skip
READINESS: Final = Chain[Situation](
    "Ready",
    children_refused, routing_refused, engine_wedged, endpoint_unreachable, chat_template_refuses, STARTUP,
    scaled_to_zero, not_all_ready, no_miner, miner_not_ready, access_secret_missing,
)  # fmt: skip
LIVENESS: Final = Chain[Situation](
    "EngineLive", engine_wedged, endpoint_unreachable, model_fetch_failed, engine_crashed
)
CAPACITY: Final = Chain[Situation]("CapacityAvailable", groups_missing, pods_refused, volume_missing, unschedulable)
"""The cluster doesn't give what the pool needs."""
ROOM: Final = CAPACITY.including(slots_overcommitted)
"""Or twins compete for LoRA slots."""
TROUBLE: Final = Chain[Situation](
    "what keeps the pool from answering",
    access_secret_missing,
    engine_wedged,
    chat_template_refuses,
    STARTUP,
    not_all_ready,
)
"""As its twins see it."""


def lacks_capacity(pool: Pool, facts: PoolFacts) -> Finding | None:
    """Return why engine pods that there should be are not placed, if some aren't."""
    return CAPACITY.evaluate(Situation(pool=pool, facts=facts)) if len(facts.ready) < pool.replicas else None


def pool_conditions(situation: Situation) -> list[Condition]:
    """Return the pool's conditions; what was not measured is absent."""
    return [
        _ready(situation), _available(situation), _engine_live(situation), _capacity(situation),
        *_scaling(situation),
        *registration(situation.pool, situation.facts),
        *_degraded(situation),
        *([situation.update_waits.condition("Updated", "False")] if situation.update_waits else []),
    ]  # fmt: skip


def _ready(situation: Situation) -> Condition:
    """A patient who asks is answered, and by what the spec asks for."""
    found = READINESS.evaluate(situation)
    if found is not None:
        return found.condition("Ready", "False")
    miners = situation.facts.miner_deployment.ready
    said = f"{situation.pool.replicas} engine pods and {miners} miner pods are ready"
    return Finding(Reason.ALL_READY, said).condition("Ready", "True")


def _available(situation: Situation) -> Condition:
    """Some engine answers through some miner."""
    facts = situation.facts
    shut = access_secret_missing(situation) or chat_template_refuses(situation)
    if shut is not None:
        return shut.condition("Available", "False")
    if facts.ready and facts.miner_deployment.ready:
        said = f"{len(facts.ready)} engine pods and {facts.miner_deployment.ready} miner pods answer"
        return Finding(Reason.ANSWERING, said).condition("Available", "True")
    found = READINESS.evaluate(situation) or Finding(Reason.NO_READY_POD, "no engine pod or no miner pod is ready")
    return found.condition("Available", "False")


def _engine_live(situation: Situation) -> Condition:
    facts = situation.facts
    found = LIVENESS.evaluate(situation)
    if found is not None:
        return found.condition("EngineLive", "False")
    reports = [facts.reports[pod.name] for pod in facts.present if pod.name in facts.reports]
    live = sum(report.engine.live for report in reports)
    if live:
        said = f"{live} of {len(facts.present)} engines answer"
        return Finding(Reason.PROGRESSING, said).condition("EngineLive", "True")
    if situation.pool.replicas == 0:
        return Finding(Reason.SCALED_TO_ZERO, "no engine runs").condition("EngineLive", "Unknown")
    silent = Finding(Reason.NOT_REPORTED, "no agent has reported a live engine yet")
    return silent.condition("EngineLive", "Unknown")


def _capacity(situation: Situation) -> Condition:
    found = ROOM.evaluate(situation)
    if found is not None:
        return found.condition("CapacityAvailable", "False")
    if situation.facts.present or situation.pool.replicas == 0:
        room = Finding(Reason.SUFFICIENT, "pods are placed and LoRA slots suffice")
        return room.condition("CapacityAvailable", "True")
    return Finding(Reason.NO_PODS, "no engine pod was seen yet").condition("CapacityAvailable", "Unknown")


def _degraded(situation: Situation) -> list[Condition]:
    """Whether pods are slower than the others; absent where none is compared."""
    if situation.slow is None:
        return []
    if (found := replica_slow(situation)) is not None:
        return [found.condition("Degraded", "True")]
    alike = "no engine pod was found to be slower than others under like load; without such load none is compared"
    return [Finding(Reason.NO_SLOW_REPLICA, alike).condition("Degraded", "False")]


def _scaling(situation: Situation) -> list[Condition]:
    """Who scales the pool, and where the operator does, how that goes."""
    pool, sizing = situation.pool, situation.sizing
    mode = pool.spec.autoscaling.mode if pool.spec.autoscaling else "Off"
    if mode == "External":
        left = Finding(Reason.EXTERNAL, "spec.replicas is left to an HPA or KEDA")
        return [left.condition("ScalingActive", "True")]
    if mode == "Off":
        return [Finding(Reason.OFF, "spec.replicas is left to you").condition("ScalingActive", "False")]
    if pool.spec.engine.endpoint is not None:
        foreign = Finding(
            Reason.NOT_SCALABLE,
            "spec.engine.endpoint names a server that isn't the operator's to scale, so spec.replicas counts: set "
            "autoscaling.mode Off",
        )
        return [foreign.condition("ScalingActive", "False")]
    return [] if sizing is None else [sizing.scaling_condition, sizing.metrics_condition]


def _pods(situation: Situation) -> Sequence[PodFacts]:
    return [*_engines(situation), *(pod for pod in situation.facts.miners if not pod.leaving)]


def _engines(situation: Situation) -> Sequence[PodFacts]:
    """Return all pods in which engines run, those that compute with a leader among them."""
    return [*situation.facts.present, *(pod for pod in situation.facts.workers if not pod.leaving)]


def _crashes(pod: PodFacts, container: str) -> list[ContainerTrouble]:
    return [crash for crash in pod.crashes if crash.container == container]


def _ending(crash: ContainerTrouble) -> str:
    return ending(crash, memory="spec.resources.limits.memory", words=last_words(crash.message))


def _image_field(trouble: ContainerTrouble) -> str:
    return "spec.engine.image" if trouble.container in ENGINE_IMAGE else "spec.miner.image"


def _engine_message(facts: PoolFacts, pod: str) -> str:
    report = facts.reports.get(pod)
    return f" ({report.engine.message})" if report is not None and report.engine.message else ""

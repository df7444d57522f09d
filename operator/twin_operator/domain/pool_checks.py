"""What can be wrong with a pool: an ordered chain of pure checks, the first that is violated is the reason.

Each check takes the situation and returns (reason, message) when it is violated, None when it is not. Reasons are
stable; messages say what happened and what to do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from twin_operator.domain.objects import Pool
from twin_operator.domain.pool_facts import ContainerTrouble, PodFacts, PoolFacts
from twin_operator.engine.status import Condition, Truth

Finding = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Situation:
    """What the checks look at."""

    pool: Pool
    facts: PoolFacts
    lora_twins: int = 0
    """Twins with an adapter that this pool serves."""
    problem: Finding | None = None
    """Why children could not be applied."""
    unpublished: Mapping[str, str] = field(default_factory=dict)


Check = Callable[[Situation], Finding | None]


def children_refused(situation: Situation) -> Finding | None:
    """A child can't be made or changed: its name is taken, or the API server refuses it."""
    return situation.problem


def image_pull_failed(situation: Situation) -> Finding | None:
    """The kubelet can't get an image."""
    for pod in _pods(situation):
        for trouble in pod.pulls:
            return (
                "ImagePullFailed",
                f"pod {pod.name} can't pull image {trouble.image}: {trouble.message}; correct {_image_field(trouble)}, "
                f"or load the image onto the nodes, or name a pull secret in spec.imagePullSecrets",
            )
    return None


def configuration_failed(situation: Situation) -> Finding | None:
    """A container can't be started, mostly because a Secret is missing."""
    for pod in _pods(situation):
        for trouble in pod.configs:
            missing = "not found" in trouble.message
            return (
                "SecretNotFound" if missing else "ContainerNotStarted",
                f"container {trouble.container} of pod {pod.name} can't start: {trouble.message}"
                + ("; create it in this namespace, or correct the reference in spec" if missing else ""),
            )
    return None


def model_fetch_failed(situation: Situation) -> Finding | None:
    """The base model can't be fetched or verified."""
    for pod in _engines(situation):
        for crash in _crashes(pod, "model"):
            return (
                "ModelFetchFailed",
                f"pod {pod.name} can't fetch {situation.pool.spec.base_model.uri}: {_ending(crash)}",
            )
    return None


def engine_crashed(situation: Situation) -> Finding | None:
    """vLLM ends again and again."""
    for pod in _engines(situation):
        for crash in _crashes(pod, "engine"):
            return (
                "EngineCrashed",
                f"the engine of pod {pod.name} ended with {_ending(crash)}; see "
                f"`kubectl logs {pod.name} -c engine --previous`",
            )
    return None


def neuron_crashed(situation: Situation) -> Finding | None:
    """An agent or a miner ends again and again."""
    for pod in _pods(situation):
        for container, reason in (("agent", "AgentCrashed"), ("miner", "MinerCrashed")):
            for crash in _crashes(pod, container):
                return (
                    reason,
                    f"{container} of pod {pod.name} ended with {_ending(crash)}; see "
                    f"`kubectl logs {pod.name} -c {container} --previous`",
                )
    return None


def volume_missing(situation: Situation) -> Finding | None:
    """A claim doesn't exist or is not bound."""
    for pod in _pods(situation):
        message = pod.unschedulable or ""
        if "persistentvolumeclaim" not in message.lower() and "unbound" not in message.lower():
            continue
        if "not found" in message:
            return ("VolumeClaimNotFound", f"pod {pod.name}: {message}; create the claim, or correct the pvc:// URI")
        return (
            "VolumeClaimNotBound",
            f"pod {pod.name}: {message}; see `kubectl describe pvc`: a claim needs a StorageClass or a matching volume",
        )
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
        return ("Unschedulable", message)
    return None


def pods_refused(situation: Situation) -> Finding | None:
    """The API server refuses to create pods."""
    for deployment in (situation.facts.engine_deployment, situation.facts.miner_deployment):
        if deployment.refused:
            return ("PodsRefused", f"pods can't be created: {deployment.refused}")
    return None


def engine_wedged(situation: Situation) -> Finding | None:
    """Requests run and nothing moves."""
    for pod in situation.facts.present:
        report = situation.facts.reports.get(pod.name)
        if report is not None and report.engine.wedged:
            return (
                "EngineWedged",
                f"the engine of pod {pod.name} makes no progress on its requests and is being restarted"
                + (f": {report.engine.message}" if report.engine.message else ""),
            )
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
            return (
                "EndpointUnreachable",
                f"{endpoint} doesn't answer{detail}; check spec.engine.endpoint and its secretRef",
            )
    return None


def capacity_troubles(situation: Situation) -> Finding | None:
    """The cluster doesn't give what the pool needs, or twins compete for LoRA slots."""
    return first(situation, (pods_refused, volume_missing, unschedulable)) or slots_overcommitted(situation)


def slots_overcommitted(situation: Situation) -> Finding | None:
    """More twins than one engine computes at once."""
    slots = situation.pool.max_loras
    if situation.lora_twins <= slots or situation.pool.spec.engine.endpoint:
        return None
    return (
        "SlotsOvercommitted",
        f"{situation.lora_twins} twins share {slots} LoRA slots per engine: all are served, but more than {slots} "
        f"active at once swap and slow each other down; raise spec.engine.maxLoras, or move twins to another pool",
    )


def not_all_ready(situation: Situation) -> Finding | None:
    """Engines are starting, or being replaced."""
    spec, facts = situation.pool.spec, situation.facts
    ready = len(facts.ready)
    if ready < spec.replicas:
        waiting = next((pod.name for pod in facts.present if pod.name not in facts.ready), None)
        where = f"; waiting for pod {waiting}{_engine_message(facts, waiting)}" if waiting else "; waiting for pods"
        return ("EnginesStarting", f"{ready} of {spec.replicas} engine pods are ready{where}")
    deployment = facts.engine_deployment
    if not deployment.seen or deployment.updated < spec.replicas:
        return ("RollingOut", f"{deployment.updated} of {spec.replicas} engine pods run the newest spec")
    return None


def miner_not_ready(situation: Situation) -> Finding | None:
    """No miner answers."""
    wanted, ready = situation.pool.spec.miner.replicas, situation.facts.miner_deployment.ready
    if ready >= wanted:
        return None
    return ("MinerStarting", f"{ready} of {wanted} miner pods are ready")


STARTUP: tuple[Check, ...] = (
    image_pull_failed, configuration_failed, volume_missing, unschedulable, pods_refused, model_fetch_failed,
    engine_crashed, neuron_crashed,
)  # fmt: skip
"""Why pods don't come up."""
READINESS: tuple[Check, ...] = (
    children_refused, engine_wedged, endpoint_unreachable, *STARTUP, not_all_ready, miner_not_ready,
)  # fmt: skip
LIVENESS: tuple[Check, ...] = (engine_wedged, endpoint_unreachable, model_fetch_failed, engine_crashed)


def first(situation: Situation, checks: Iterable[Check]) -> Finding | None:
    """Return what the first violated check found."""
    return next((found for check in checks if (found := check(situation)) is not None), None)


def pool_conditions(situation: Situation) -> list[Condition]:
    """Return the pool's conditions; what was not measured is absent."""
    pool, facts = situation.pool, situation.facts
    conditions = [_ready(situation), _available(situation), _engine_live(situation)]
    trouble = capacity_troubles(situation)
    conditions.append(
        _condition("CapacityAvailable", "False", *trouble)
        if trouble
        else _condition("CapacityAvailable", "True", "Sufficient", "pods are placed and LoRA slots suffice")
        if facts.present or pool.spec.replicas == 0
        else _condition("CapacityAvailable", "Unknown", "NoPods", "no engine pod was seen yet")
    )
    conditions.append(_scaling(pool))
    conditions.append(_published(situation))
    return conditions


def _ready(situation: Situation) -> Condition:
    found = first(situation, READINESS)
    if found is not None:
        return _condition("Ready", "False", *found)
    if situation.pool.spec.replicas == 0:
        return _condition("Ready", "True", "ScaledToZero", "spec.replicas is 0: nothing runs, as asked")
    return _condition(
        "Ready", "True", "AllReady", f"{situation.pool.spec.replicas} engine pods and their miners are ready"
    )


def _available(situation: Situation) -> Condition:
    facts = situation.facts
    if facts.ready and facts.miner_deployment.ready:
        return _condition(
            "Available", "True", "Answering",
            f"{len(facts.ready)} engine pods and {facts.miner_deployment.ready} miner pods answer",
        )  # fmt: skip
    if situation.pool.spec.replicas == 0:
        return _condition("Available", "False", "ScaledToZero", "spec.replicas is 0: raise it to serve")
    reason, message = first(situation, READINESS) or ("NoReadyPod", "no engine pod or no miner pod is ready")
    return _condition("Available", "False", reason, message)


def _engine_live(situation: Situation) -> Condition:
    facts = situation.facts
    found = first(situation, LIVENESS)
    if found is not None:
        return _condition("EngineLive", "False", *found)
    reports = [facts.reports[pod.name] for pod in facts.present if pod.name in facts.reports]
    live = sum(report.engine.live for report in reports)
    if live:
        return _condition("EngineLive", "True", "Progressing", f"{live} of {len(facts.present)} engines answer")
    if situation.pool.spec.replicas == 0:
        return _condition("EngineLive", "Unknown", "ScaledToZero", "no engine runs")
    return _condition("EngineLive", "Unknown", "NotReported", "no agent has reported a live engine yet")


def _published(situation: Situation) -> Condition:
    if not situation.unpublished:
        return _condition("RoutingPublished", "True", "Published", "what agents and miners follow is up to date")
    uid, why = next(iter(sorted(situation.unpublished.items())))
    return _condition("RoutingPublished", "False", "RoutingRefused", f"the API server refuses what is to be published for {uid or 'the pool'}: {why}")


def starting_trouble(situation: Situation) -> Finding | None:
    return first(situation, (engine_wedged, *STARTUP, not_all_ready))


def _scaling(pool: Pool) -> Condition:
    mode = pool.spec.autoscaling.mode if pool.spec.autoscaling else "Off"
    if mode == "External":
        return _condition("ScalingActive", "True", "External", "spec.replicas is left to an HPA or KEDA")
    if mode == "Operator":
        return _condition(
            "ScalingActive", "False", "NotSupported",
            "this release doesn't scale pools by itself: set autoscaling.mode External with an HPA, or spec.replicas",
        )  # fmt: skip
    return _condition("ScalingActive", "False", "Off", "spec.replicas is left to you")


def _condition(kind: str, status: Truth, reason: str, message: str) -> Condition:
    return Condition(type=kind, status=status, reason=reason, message=message)


def _pods(situation: Situation) -> Sequence[PodFacts]:
    return [pod for pod in (*situation.facts.engines, *situation.facts.miners) if not pod.leaving]


def _engines(situation: Situation) -> Sequence[PodFacts]:
    return situation.facts.present


def _crashes(pod: PodFacts, container: str) -> list[ContainerTrouble]:
    return [crash for crash in pod.crashes if crash.container == container]


def _ending(crash: ContainerTrouble) -> str:
    code = f"exit code {crash.exit_code}" if crash.exit_code is not None else crash.reason
    hint = " (out of memory: raise spec.resources.limits.memory)" if crash.reason == "OOMKilled" else ""
    return f"{code}{hint}" + (f": {_cause(crash.message)}" if crash.message else "")


def _cause(output: str, length: int = 500) -> str:
    """Return the line of a program's last output that says why it ended: the last that names an error, else the last.

    The whole of it, hundreds of lines of usage or traceback, is in the pod's log.
    """
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    telling = next((line for line in reversed(lines) if "error" in line.lower()), lines[-1] if lines else "")
    return telling if len(telling) <= length else telling[:length] + "…"


def _image_field(trouble: ContainerTrouble) -> str:
    return "spec.engine.image" if trouble.container == "engine" else "spec.miner.image"


def _engine_message(facts: PoolFacts, pod: str) -> str:
    report = facts.reports.get(pod)
    return f" ({report.engine.message})" if report is not None and report.engine.message else ""

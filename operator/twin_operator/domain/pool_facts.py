"""What is observed of a pool, read out of its Kubernetes objects and its agents' reports into plain values."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from bettertherapy_api import names
from bettertherapy_api.configmaps import PodReport
from twin_operator.engine.cache import Cache
from twin_operator.engine.resources import Manifest

_PULL_REASONS = frozenset(
    {"ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"}
)
_REMEMBERED = 1024
_KNOWN: OrderedDict[tuple[str, str], tuple[tuple[tuple[str, str], ...], PoolFacts]] = OrderedDict()
_CONFIG_REASONS = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})


@dataclass(frozen=True, kw_only=True)
class ContainerTrouble:
    """A container that can't start or doesn't stay up."""

    container: str
    image: str
    reason: str
    message: str
    exit_code: int | None = None
    restarts: int = 0


@dataclass(frozen=True, kw_only=True)
class Restart:
    """One restart of an engine, for an event."""

    pod: str
    pod_uid: str
    count: int
    exit_code: int | None
    reason: str
    finished_at: str


@dataclass(frozen=True, kw_only=True)
class PodFacts:
    """One pod."""

    name: str
    uid: str
    component: str
    ready: bool
    leaving: bool
    """It is being deleted, or has ended."""
    unschedulable: str | None = None
    """The scheduler's message."""
    pulls: tuple[ContainerTrouble, ...] = ()
    configs: tuple[ContainerTrouble, ...] = ()
    crashes: tuple[ContainerTrouble, ...] = ()
    restarts: tuple[Restart, ...] = ()


@dataclass(frozen=True, kw_only=True)
class DeploymentFacts:
    """One Deployment; zeros when it does not exist yet."""

    wanted: int = 0
    current: int = 0
    updated: int = 0
    ready: int = 0
    seen: bool = False
    """Whether its controller has seen the newest spec."""
    refused: str | None = None
    """Why pods can't even be created: quota, admission, a missing RuntimeClass."""


@dataclass(frozen=True, kw_only=True)
class PoolFacts:
    """All that is observed of one pool."""

    engines: tuple[PodFacts, ...] = ()
    miners: tuple[PodFacts, ...] = ()
    reports: Mapping[str, PodReport] = field(default_factory=dict)
    """By pod name; only of pods that exist under the UID that the report states."""
    engine_deployment: DeploymentFacts = DeploymentFacts()
    miner_deployment: DeploymentFacts = DeploymentFacts()

    @property
    def present(self) -> tuple[PodFacts, ...]:
        """Engine pods that are here to stay."""
        return tuple(pod for pod in self.engines if not pod.leaving)

    @property
    def ready(self) -> dict[str, PodReport | None]:
        """Engine pods that serve now, with their reports: the kubelet or the agent itself says so."""
        found: dict[str, PodReport | None] = {}
        for pod in self.present:
            report = self.reports.get(pod.name)
            if report is not None and report.draining:
                continue
            if pod.ready or (report is not None and report.ready):
                found[pod.name] = report
        return found


def pool_facts(cache: Cache, *, namespace: str, pool: str) -> PoolFacts:
    """Read the facts out of the pool's labelled objects; the result is kept until one of them changes.

    A pool's twins all look at the same facts, and parsing the reports of 200 adapters once per twin would not do.
    """
    children = cache.of_pool(namespace, pool)
    version = tuple((thing["metadata"]["uid"], thing["metadata"]["resourceVersion"]) for thing in children)
    known = _KNOWN.get((namespace, pool))
    if known is not None and known[0] == version:
        return known[1]
    facts = read_facts(children, pool=pool)
    _KNOWN[namespace, pool] = (version, facts)
    _KNOWN.move_to_end((namespace, pool))
    while len(_KNOWN) > _REMEMBERED:
        _KNOWN.popitem(last=False)
    return facts


def read_facts(children: Iterable[Manifest], *, pool: str) -> PoolFacts:
    """Read the facts out of these objects."""
    things = {(thing["kind"], thing["metadata"]["name"]): thing for thing in children}
    pods = [pod_facts(thing) for (kind, _), thing in things.items() if kind == "Pod"]
    engines = tuple(pod for pod in pods if pod.component == "engine")
    return PoolFacts(
        engines=engines,
        miners=tuple(pod for pod in pods if pod.component == "miner"),
        reports=_reports(things.get(("ConfigMap", names.report_name(pool))), engines),
        engine_deployment=deployment_facts(things.get(("Deployment", names.engine_name(pool)))),
        miner_deployment=deployment_facts(things.get(("Deployment", names.miner_name(pool)))),
    )


def _reports(configmap: Manifest | None, engines: Sequence[PodFacts]) -> dict[str, PodReport]:
    uids = {pod.name: pod.uid for pod in engines}
    reports: dict[str, PodReport] = {}
    for name, text in ((configmap or {}).get("data") or {}).items():
        if name not in uids:
            continue
        try:
            report = PodReport.model_validate_json(text)
        except ValidationError:
            continue  # an agent of another release; it counts as silent
        if report.uid == uids[name]:
            reports[name] = report
    return reports


def orphaned_reports(configmap: Manifest | None, pods: Iterable[Manifest]) -> list[str]:
    """Return the keys of the report ConfigMap whose pod is not in the cache."""
    known = {pod["metadata"]["name"] for pod in pods}
    return sorted(name for name in ((configmap or {}).get("data") or {}) if name not in known)


def pod_facts(pod: Manifest) -> PodFacts:
    """Read one pod."""
    metadata, status = pod["metadata"], pod.get("status") or {}
    conditions = {condition["type"]: condition for condition in status.get("conditions") or []}
    scheduled = conditions.get("PodScheduled", {})
    stuck = scheduled.get("status") == "False" and scheduled.get("reason") in ("Unschedulable", "SchedulerError")
    pulls, configs, crashes, restarts = [], [], [], []
    statuses = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    for container in statuses:
        waiting = (container.get("state") or {}).get("waiting") or {}
        reason = waiting.get("reason", "")
        if reason in _PULL_REASONS:
            pulls.append(_trouble(container, reason, waiting.get("message") or reason))
        elif reason in _CONFIG_REASONS:
            configs.append(_trouble(container, reason, waiting.get("message") or reason))
        elif (crash := _crash(container, reason)) is not None:
            crashes.append(crash)
        if container["name"] == "engine" and (restart := _restart(metadata, container)) is not None:
            restarts.append(restart)
    return PodFacts(
        name=metadata["name"],
        uid=metadata["uid"],
        component=(metadata.get("labels") or {}).get(names.LABEL_COMPONENT, ""),
        ready=conditions.get("Ready", {}).get("status") == "True",
        leaving="deletionTimestamp" in metadata or status.get("phase") in ("Succeeded", "Failed"),
        unschedulable=str(scheduled.get("message") or "no reason given") if stuck else None,
        pulls=tuple(pulls),
        configs=tuple(configs),
        crashes=tuple(crashes),
        restarts=tuple(restarts),
    )


def _trouble(container: Mapping[str, Any], reason: str, message: str) -> ContainerTrouble:
    return ContainerTrouble(
        container=container["name"], image=container.get("image", ""), reason=reason, message=message.strip()
    )


def _crash(container: Mapping[str, Any], waiting_reason: str) -> ContainerTrouble | None:
    """A container that ended badly and has not come up since."""
    ended = (container.get("state") or {}).get("terminated")
    if ended is None and waiting_reason == "CrashLoopBackOff":
        ended = (container.get("lastState") or {}).get("terminated") or {}
    if ended is None or ended.get("exitCode") == 0:
        return None
    return ContainerTrouble(
        container=container["name"],
        image=container.get("image", ""),
        reason=ended.get("reason") or waiting_reason or "Error",
        message=(ended.get("message") or "").strip(),
        exit_code=ended.get("exitCode"),
        restarts=int(container.get("restartCount") or 0),
    )


def _restart(metadata: Mapping[str, Any], container: Mapping[str, Any]) -> Restart | None:
    count = int(container.get("restartCount") or 0)
    ended = (container.get("lastState") or {}).get("terminated")
    if count == 0 or ended is None:
        return None
    return Restart(
        pod=metadata["name"], pod_uid=metadata["uid"], count=count, exit_code=ended.get("exitCode"),
        reason=ended.get("reason") or "Error", finished_at=ended.get("finishedAt") or "",
    )  # fmt: skip


def deployment_facts(deployment: Manifest | None) -> DeploymentFacts:
    """Read one Deployment."""
    if deployment is None:
        return DeploymentFacts()
    status = deployment.get("status") or {}
    failure = next(
        (
            condition.get("message")
            for condition in status.get("conditions") or []
            if condition["type"] == "ReplicaFailure" and condition["status"] == "True"
        ),
        None,
    )
    return DeploymentFacts(
        wanted=int((deployment.get("spec") or {}).get("replicas") or 0),
        current=int(status.get("replicas") or 0),
        updated=int(status.get("updatedReplicas") or 0),
        ready=int(status.get("readyReplicas") or 0),
        seen=status.get("observedGeneration") == deployment["metadata"].get("generation"),
        refused=failure,
    )

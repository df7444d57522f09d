"""What is observed of a pool, read out of its Kubernetes objects and its agents' reports into plain values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from bettertherapy_api import names
from bettertherapy_api.report import MinerReport, PodReport, SubnetReport, TaskClaim
from twin_operator.domain.engine_groups import ENGINE_WORKER
from twin_operator.engine.resources import Manifest

_PULL_REASONS = frozenset(
    {"ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"}
)
_MOUNTING_REASONS = frozenset({"ContainerCreating", "PodInitializing"})
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
    ip: str | None = None
    unschedulable: str | None = None
    """The scheduler's message."""
    mounting: bool = False
    """It has a node, and waits there for its volumes and its network. What is wrong with them only events tell."""
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
    brings_tokens: bool = False
    """Its pods have the tokens between miners and agents."""
    follows_slices: bool = False
    """Whether its pods are of a release that reads RoutingSlices."""
    refused: str | None = None
    """Why pods can't even be created: quota, admission, a missing RuntimeClass."""

    @property
    def rolled_out(self) -> bool:
        """Whether every pod that is wanted is ready and runs the newest template, and no other pod is left."""
        return self.seen and self.current == self.updated == self.wanted <= self.ready


@dataclass(frozen=True, kw_only=True)
class PoolFacts:
    """All that is observed of one pool."""

    engines: tuple[PodFacts, ...] = ()
    """Of engines that span nodes, the leaders."""
    workers: tuple[PodFacts, ...] = ()
    """Pods that compute with a leader."""
    miners: tuple[PodFacts, ...] = ()
    reports: Mapping[str, PodReport] = field(default_factory=dict)
    """By pod name; only of pods that exist under the UID that the report states."""
    miner_reports: Mapping[str, MinerReport] = field(default_factory=dict)
    """Likewise, of miner pods that are on a subnet."""
    engine_deployment: DeploymentFacts = DeploymentFacts()
    miner_deployment: DeploymentFacts = DeploymentFacts()

    def miners_have_tokens(self, *, had: bool) -> bool:
        """Tell whether every miner brings the pool's tokens: once all did (`had`), those that replace them do too."""
        miner = self.miner_deployment
        return miner.brings_tokens and (had or (miner.seen and miner.updated == miner.current == miner.wanted))

    @property
    def present(self) -> tuple[PodFacts, ...]:
        """Engine pods that are here to stay."""
        return tuple(pod for pod in self.engines if not pod.leaving)

    @property
    def subnet(self) -> tuple[SubnetReport, ...]:
        """What the miner pods that are here to stay say of their place on the subnet."""
        return tuple(report.subnet for report in self._staying_miners if report.subnet is not None)

    @property
    def demanded(self) -> bool:
        """Whether a miner pod that is here to stay says that requests wait since no engine is ready."""
        return any(report.demand is not None and report.demand.held_since for report in self._staying_miners)

    @property
    def _staying_miners(self) -> list[MinerReport]:
        staying = (pod.name for pod in self.miners if not pod.leaving)
        return [self.miner_reports[name] for name in staying if name in self.miner_reports]

    @property
    def task_claims(self) -> tuple[TaskClaim, ...]:
        """What miner pods that are here to stay were offered by validators, and ask about."""
        staying = [pod.name for pod in self.miners if not pod.leaving and pod.name in self.miner_reports]
        return tuple(claim for name in sorted(staying) for claim in self.miner_reports[name].tasks or ())

    @property
    def template_refusal(self) -> str | None:
        """Why the chat template takes no conversation, in no engine that answers."""
        engines = [self.reports[pod.name].engine for pod in self.present if pod.name in self.reports]
        refusals = [engine.template_refusal for engine in engines if engine.live]
        return refusals[0] if refusals and all(refusals) else None

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


def facts_of(
    pool: str, *, pods: Iterable[PodFacts], deployments: Mapping[str, DeploymentFacts],
    reports: Mapping[str, PodReport], miner_reports: Mapping[str, MinerReport] = MappingProxyType({}),
) -> PoolFacts:  # fmt: skip
    """Return a pool's facts; `deployments`, `reports` and `miner_reports` are by name.

    A report counts only for the pod that it names by name and UID, and only if that pod exists.
    """
    known = sorted(pods, key=lambda pod: pod.name)
    engines = tuple(pod for pod in known if pod.component == "engine")
    miners = tuple(pod for pod in known if pod.component == "miner")
    return PoolFacts(
        engines=engines,
        workers=tuple(pod for pod in known if pod.component == ENGINE_WORKER),
        miners=miners,
        reports={
            pod.name: report
            for pod in engines
            if (report := reports.get(pod.name)) is not None and report.pod.uid == pod.uid
        },
        miner_reports={
            pod.name: said
            for pod in miners
            if (said := miner_reports.get(pod.name)) is not None and said.pod.uid == pod.uid
        },
        engine_deployment=deployments.get(names.engine_name(pool), DeploymentFacts()),
        miner_deployment=deployments.get(names.miner_name(pool), DeploymentFacts()),
    )


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
        ip=status.get("podIP") or None,
        leaving="deletionTimestamp" in metadata or status.get("phase") in ("Succeeded", "Failed"),
        mounting=(
            scheduled.get("status") == "True"
            and conditions.get("PodReadyToStartContainers", {}).get("status") == "False"
            and any(_waits_for(each) in _MOUNTING_REASONS for each in statuses)
        ),
        unschedulable=str(scheduled.get("message") or "no reason given") if stuck else None,
        pulls=tuple(pulls),
        configs=tuple(configs),
        crashes=tuple(crashes),
        restarts=tuple(restarts),
    )


def _waits_for(container: Mapping[str, Any]) -> str:
    return str(((container.get("state") or {}).get("waiting") or {}).get("reason", ""))


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
        follows_slices=names.CONTRACT_ANNOTATION in _template_annotations(deployment),
        seen=status.get("observedGeneration") == deployment["metadata"].get("generation"),
        brings_tokens=any(
            volume.get("name") == names.POOL_TOKENS_VOLUME for volume in _template_spec(deployment).get("volumes") or []
        ),
        refused=failure,
    )


def _template_spec(deployment: Manifest) -> Mapping[str, Any]:
    return ((deployment.get("spec") or {}).get("template") or {}).get("spec") or {}


def _template_annotations(deployment: Manifest) -> Mapping[str, str]:
    template = (deployment.get("spec") or {}).get("template") or {}
    return (template.get("metadata") or {}).get("annotations") or {}

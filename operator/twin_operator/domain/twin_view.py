"""What is observed of a twin: one view per pool that matches it, or that still answers for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Self

from bettertherapy_api.report import AdapterReport, AdapterState, Proof
from bettertherapy_api.routing import Adapter, TwinEntry, Version
from twin_operator.domain.appearances import ADAPTER
from twin_operator.domain.objects import Pool, PoolRef, Run, Twin
from twin_operator.domain.pool_facts import PodFacts, PoolFacts
from twin_operator.domain.proof import Disagreement, disagreement
from twin_operator.domain.reasons import Reason, from_elsewhere
from twin_operator.domain.routing import is_verified, stable_version
from twin_operator.engine.conditions import Finding

_LOADED = frozenset({AdapterState.VERIFYING, AdapterState.VERIFIED})
_ARTIFACT_CHECKED = frozenset({AdapterState.LOADING, AdapterState.VERIFYING, AdapterState.VERIFIED})


@dataclass(frozen=True, kw_only=True)
class PoolView:
    """One pool as the twin sees it."""

    pool: PoolRef
    """Its spec may not be readable: then it counts for nothing, but may answer."""
    facts: PoolFacts
    entry: TwinEntry | None
    """What is published for this very twin in this pool."""
    lora_twins: int
    """Twins with an adapter on the pod that has most of them to answer for."""
    published: bool
    """Whether the pool has published anything: before that it does not know who answered."""
    unpublished: Finding | None
    """Why the twin's entry is not published as it should be."""
    matches: bool
    refused: Finding | None
    """Why the pool can't serve the twin as its spec asks."""
    entry_unreadable: bool = False
    """Another release has written what is published for the twin: it stays as it is, and what answers isn't known."""
    trouble: Finding | None = None
    """What keeps the pool itself from being ready."""

    @property
    def is_open(self) -> bool:
        """Whether a client is let in and heard: a miner is ready, clients have tokens, the chat template takes them.

        A pool without miners has none of them.
        """
        shut = self.trouble is not None and self.trouble.reason in _SHUT
        miners = self.facts.miner_deployment
        if isinstance(self.pool, Pool):
            wants_none = self.pool.spec.miner.replicas == 0
        else:
            wants_none = miners.seen and miners.wanted == 0
        return not shut and (miners.ready > 0 or wants_none)

    @property
    def replicas(self) -> int | None:
        """Engine pods that there should be; None where that can't be read."""
        return self.pool.replicas if isinstance(self.pool, Pool) else None

    @property
    def sleeps(self) -> bool:
        """Whether the operator took its last engine, since nobody asks."""
        return isinstance(self.pool, Pool) and self.pool.is_scaled and self.pool.replicas == 0

    @property
    def holders(self) -> tuple[PodFacts, ...]:
        """Engine pods, here to stay, that are to hold the twin: every one, or those that it is placed on.

        Of a twin that is loaded on demand, those that hold it now.
        """
        entry = self.entry
        if (adapter := self.on_demand) is not None:
            return tuple(pod for pod in self.facts.present if self._has(pod.name, adapter))
        return tuple(pod for pod in self.facts.present if entry is None or entry.is_held_by(pod.uid))

    @property
    def on_demand(self) -> Adapter | None:
        """The adapter that pods load when it is asked for; None where all is held, or another is to be proven first."""
        entry = self.entry
        if entry is None or (adapter := entry.on_demand) is None:
            return None
        return adapter if entry.adapters == (adapter,) else None

    def loads(self, version: Version) -> bool:
        """Tell whether a ready pod would load this version for a question, and none failed to."""
        adapter = self.entry.on_demand if self.entry else None
        if adapter is None or adapter.digest != version.digest or not self.facts.ready:
            return False
        held = [(report.adapters or {}).get(adapter.served_name) for report in self.facts.ready.values() if report]
        return not any(each is not None and each.state is AdapterState.FAILED for each in held)

    def _has(self, pod: str, adapter: Adapter) -> bool:
        report = self.facts.reports.get(pod)
        held = (report.adapters or {}).get(adapter.served_name) if report is not None else None
        return held is not None and held.digest == adapter.digest

    @property
    def ready_holders(self) -> tuple[str, ...]:
        """Names of those that serve now."""
        names = {pod.name for pod in self.holders}
        return tuple(name for name in self.facts.ready if name in names)

    @property
    def desired(self) -> int:
        """How many engine pods should hold the twin."""
        if self.entry is not None and self.entry.placement is not None:
            return len(self.holders)
        return max(self.replicas or 0, len(self.facts.present))

    @property
    def counts(self) -> bool:
        """Whether the pool is to serve the twin as its spec asks."""
        return self.matches and self.refused is None

    def answering(self, twin: Twin) -> Version | None:
        """Return the version that answers in this pool by its routing table, apart from one on trial."""
        return stable_version(twin, self.entry.versions) if self.entry else None

    def adapter(self, served_name: str) -> Adapter | None:
        """Return the adapter of that name that the pool's pods are told to hold."""
        held = self.entry.adapters if self.entry else ()
        return next((adapter for adapter in held if adapter.served_name == served_name), None)

    def holds(self, version: Version) -> list[str]:
        """Return the ready pods that can answer with this version."""
        return [
            name
            for name, report in self.facts.ready.items()
            if version.digest is None
            or (report is not None and is_verified(report, version.served_name, version.digest))
        ]


@dataclass(frozen=True, kw_only=True)
class Failure:
    """The wanted adapter failed on one pod."""

    pod: str
    pool: str
    reason: Reason
    message: str
    retryable: bool

    @classmethod
    def reported(cls, held: AdapterReport, *, pod: str, pool: PoolRef, rank: int | None) -> Self:
        """Return what a pod says of an adapter of this rank that failed there.

        What its pool takes by now is not failed for good by an engine that was started before.
        """
        reason, message = from_elsewhere(
            held.reason.value if held.reason else None, held.message or "no message", known=ADAPTER,
            otherwise=Reason.ADAPTER_FAILED,
        )  # fmt: skip
        retryable = bool(held.retryable)
        if not retryable and _takes_by_now(pool, reason, rank):
            retryable = True
            message += f". MinerPool {pool.name} takes it by now, so this lasts until that engine is restarted"
        return cls(pod=pod, pool=pool.name, reason=reason, message=message, retryable=retryable)


def _takes_by_now(pool: PoolRef, reason: Reason, rank: int | None) -> bool:
    """Tell whether the pool's spec takes what an engine of its refused."""
    if not isinstance(pool, Pool):
        return False
    if reason is Reason.RANK_TOO_HIGH:
        return rank is not None and rank <= pool.max_lora_rank
    return reason is Reason.MODULES_NOT_WRAPPED and pool.spec.engine.lora_targets != "Attention"


@dataclass(frozen=True, kw_only=True)
class TwinView:
    """A twin with all its pools."""

    twin: Twin
    wanted: Adapter | None
    """The adapter that the spec asks for; None: the base model itself."""
    pools: Sequence[PoolView]
    runs: Sequence[Run] = ()
    """The twin's fine-tunes."""

    @property
    def counting(self) -> list[PoolView]:
        """Pools that are to serve the twin as its spec asks."""
        return [view for view in self.pools if view.counts]

    @cached_property
    def wanted_reports(self) -> Mapping[tuple[str, str], AdapterReport]:
        """What each pod says of the wanted adapter, by pool and pod name."""
        wanted = self.wanted
        if wanted is None:
            return {}
        return {
            (view.pool.name, pod.name): held
            for view in self.counting
            for pod in view.holders
            if (report := view.facts.reports.get(pod.name)) is not None
            and (held := (report.adapters or {}).get(wanted.served_name)) is not None
            and held.digest == wanted.digest
        }

    def failures(self) -> list[Failure]:
        """Return the pods on which the wanted adapter failed."""
        pools, rank = {view.pool.name: view.pool for view in self.counting}, self.wanted.rank if self.wanted else None
        return [
            Failure.reported(held, pod=pod, pool=pools[pool], rank=rank)
            for (pool, pod), held in sorted(self.wanted_reports.items())
            if held.state is AdapterState.FAILED
        ]

    def ready_reports(self) -> Mapping[tuple[str, str], AdapterReport]:
        """Return what the ready pods say of the wanted adapter, by pool and pod name."""
        ready = {(view.pool.name, pod) for view in self.counting for pod in view.facts.ready}
        return {where: held for where, held in self.wanted_reports.items() if where in ready}

    def rests(self) -> bool:
        """Tell whether the wanted version answers on demand, and no pod holds it now."""
        loadable = [view for view in self.counting if view.on_demand is not None]
        return bool(loadable) and len(loadable) == len(self.counting) and not self.wanted_reports

    def unproven(self) -> Mapping[str, AdapterReport]:
        """Return the ready pods that hold the wanted adapter verified, without proof of whose weights it is."""
        return {
            pod: held
            for (_pool, pod), held in sorted(self.ready_reports().items())
            if held.rests_on() is Proof.UNPROVEN
        }

    def disagreement(self) -> tuple[str, Disagreement] | None:
        """Return the first pool whose ready pods answer differently under the wanted adapter's name, and which do."""
        reports = self.ready_reports()
        for view in self.counting:
            held = {pod: each for (pool, pod), each in reports.items() if pool == view.pool.name}
            if (found := disagreement(held)) is not None:
                return view.pool.name, found
        return None

    def artifact_checked(self) -> bool:
        """Tell whether some pod has fetched the wanted artifact and found its digests right."""
        return any(held.state in _ARTIFACT_CHECKED for held in self.wanted_reports.values())

    def counts(self) -> tuple[int, int, int]:
        """Return how many engine pods should hold the wanted version, have loaded it, and verified it."""
        desired = sum(view.desired for view in self.counting)
        if self.wanted is None:
            ready = sum(len(view.facts.ready) for view in self.counting)
            return desired, ready, ready
        states = [held.state for held in self.wanted_reports.values()]
        return (
            desired,
            sum(state in _LOADED for state in states),
            sum(state is AdapterState.VERIFIED for state in states),
        )

    def answering(self) -> dict[str, list[str]]:
        """Return the served names that can answer now, each with the pods that hold it: none of one that is loaded on
        demand, when it is asked for.
        """
        found: dict[str, list[str]] = {}
        for view in self.pools:
            version = view.answering(self.twin) if view.is_open else None
            if version is not None and ((pods := view.holds(version)) or view.loads(version)):
                found.setdefault(version.served_name, []).extend(pods)
        return found


_SHUT: Final = frozenset({Reason.ACCESS_SECRET_MISSING, Reason.CHAT_TEMPLATE_REFUSES})
"""Every patient is turned away, whatever the engines hold."""

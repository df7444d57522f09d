"""What is observed of a twin: one view per pool that matches it, or that still answers for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bettertherapy_api.configmaps import Adapter, PodReport, RoutingTable, Version
from bettertherapy_api.report import AdapterReport, AdapterState
from twin_operator.domain.objects import Pool, Run, Twin
from twin_operator.domain.pool_facts import PoolFacts
from twin_operator.domain.routing import stable_version

_LOADED = frozenset({AdapterState.VERIFYING, AdapterState.VERIFIED})
_ARTIFACT_CHECKED = frozenset({AdapterState.LOADING, AdapterState.VERIFYING, AdapterState.VERIFIED})


@dataclass(frozen=True, kw_only=True)
class PoolView:
    """One pool as the twin sees it."""

    pool: Pool
    facts: PoolFacts
    table: RoutingTable | None
    matches: bool
    refused: tuple[str, str] | None
    """Why the pool can't serve the twin as its spec asks."""
    trouble: tuple[str, str] | None = None
    """What keeps the pool itself from being ready."""

    @property
    def counts(self) -> bool:
        """Whether the pool is to serve the twin as its spec asks."""
        return self.matches and self.refused is None

    def answering(self, twin: Twin) -> Version | None:
        """Return the version that answers in this pool by its routing table, apart from one on trial."""
        route = self.table.twins.get(twin.name) if self.table else None
        return stable_version(twin, route.versions) if route else None

    def adapter(self, served_name: str) -> Adapter | None:
        """Return the adapter of that name that the pool's pods are told to hold."""
        held = self.table.adapters if self.table else ()
        return next((adapter for adapter in held if adapter.served_name == served_name), None)

    def holds(self, version: Version) -> list[str]:
        """Return the ready pods that can answer with this version."""
        return [
            name
            for name, report in self.facts.ready.items()
            if version.digest is None or _verified(report, version.served_name, version.digest)
        ]


@dataclass(frozen=True, kw_only=True)
class Failure:
    """The wanted adapter failed on one pod."""

    pod: str
    pool: str
    reason: str
    message: str
    retryable: bool


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

    def wanted_reports(self) -> Mapping[tuple[str, str], AdapterReport]:
        """Return what each pod says of the wanted adapter, by pool and pod name."""
        wanted = self.wanted
        if wanted is None:
            return {}
        return {
            (view.pool.name, pod.name): held
            for view in self.counting
            for pod in view.facts.present
            if (report := view.facts.reports.get(pod.name)) is not None
            and (held := report.adapters.get(wanted.served_name)) is not None
            and held.digest == wanted.digest
        }

    def failures(self) -> list[Failure]:
        """Return the pods on which the wanted adapter failed."""
        return [
            Failure(
                pod=pod, pool=pool, reason=held.reason.value if held.reason else "AdapterFailed",
                message=held.message or "no message", retryable=bool(held.retryable),
            )
            for (pool, pod), held in sorted(self.wanted_reports().items())
            if held.state is AdapterState.FAILED
        ]  # fmt: skip

    def artifact_checked(self) -> bool:
        """Tell whether some pod has fetched the wanted artifact and found its digests right."""
        return any(held.state in _ARTIFACT_CHECKED for held in self.wanted_reports().values())

    def counts(self) -> tuple[int, int, int]:
        """Return how many engine pods should hold the wanted version, have loaded it, and verified it."""
        desired = sum(max(view.pool.spec.replicas, len(view.facts.present)) for view in self.counting)
        if self.wanted is None:
            ready = sum(len(view.facts.ready) for view in self.counting)
            return desired, ready, ready
        states = [held.state for held in self.wanted_reports().values()]
        return (
            desired,
            sum(state in _LOADED for state in states),
            sum(state is AdapterState.VERIFIED for state in states),
        )

    def answering(self) -> dict[str, list[str]]:
        """Return the served names that can answer now, each with the pods that do."""
        found: dict[str, list[str]] = {}
        for view in self.pools:
            version = view.answering(self.twin)
            if version is not None and (pods := view.holds(version)):
                found.setdefault(version.served_name, []).extend(pods)
        return found


def _verified(report: PodReport | None, served_name: str, digest: str) -> bool:
    held = report.adapters.get(served_name) if report else None
    return held is not None and held.digest == digest and held.state is AdapterState.VERIFIED

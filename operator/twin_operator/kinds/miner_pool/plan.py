"""What a pool should become and what its status should say: pure functions of what was gathered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from bettertherapy_api import names
from bettertherapy_api.report import AdapterState, PodReport
from bettertherapy_api.routing import Adapter, TwinEntry
from twin_operator.domain.objects import Pool
from twin_operator.domain.pool_checks import Situation, pool_conditions
from twin_operator.domain.pool_facts import PoolFacts
from twin_operator.domain.pool_update import Held, Pace
from twin_operator.domain.routing import is_verified
from twin_operator.engine.conditions import Condition, Finding
from twin_operator.engine.resources import Manifest
from twin_operator.kinds.miner_pool.children import Children, OtherRollouts, build_children
from twin_operator.kinds.world import Published
from twin_operator.settings import Images


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """Everything a pool's plan depends on."""

    pool: Pool
    facts: PoolFacts
    published: Published
    unpublished: Finding | None = None
    """Why what is to be published for all twins is not."""
    refused: Finding | None = None
    """Why children could not be applied."""
    engine: Manifest | None = None
    """The engine Deployment that runs."""
    miner: Manifest | None = None
    """The miner Deployment that runs."""
    others: OtherRollouts = tuple
    legacy: frozenset[str] = frozenset()
    """Names of the ConfigMaps of the release before that pods of that release still follow."""
    access_missing: Finding | None = None
    """What is wrong with the Secret with the clients' tokens, if it doesn't exist or holds none."""
    held: Held | None = None
    """Why the engines' update waits."""


def plan_children(gathered: Gathered, images: Images, pace: Pace, *, now: datetime) -> Children:
    """Return the pool's children, and whether an update of its engines waits."""
    pool = gathered.pool
    return build_children(
        pool, images, adapters=adapters_of(gathered.published), engine=gathered.engine, miner=gathered.miner,
        others=gathered.others, pace=pace, now=now, legacy=bool(gathered.legacy),
        reported=any(report.ready for report in gathered.facts.reports.values()),
    )  # fmt: skip


def adapters_of(published: Published) -> int:
    """Return how many adapters that engine pod is to hold which is to hold most of them."""
    everywhere, by_pod = 0, Counter[str]()
    for entry in published.entries().values():
        if entry.placement is None or entry.pods is None:
            everywhere += len(entry.adapters)
        else:
            by_pod.update(dict.fromkeys(entry.pods, len(entry.adapters)))
    return everywhere + max(by_pod.values(), default=0)


def plan_status(gathered: Gathered) -> tuple[Manifest, list[Condition]]:
    """Return the pool's status, without its conditions' dates, and the conditions."""
    pool, facts, published = gathered.pool, gathered.facts, gathered.published
    lora_twins = published.lora_twins
    adapters = [adapter for entry in published.entries().values() for adapter in entry.adapters]
    conditions = pool_conditions(
        Situation(
            pool=pool, facts=facts, lora_twins=lora_twins, problem=gathered.refused,
            unpublished=gathered.unpublished, access_missing=gathered.access_missing,
            update_waits=Finding(gathered.held.reason, gathered.held.message) if gathered.held else None,
        )
    )  # fmt: skip
    ready = facts.ready
    reports = [report for report in ready.values() if report is not None]
    loaded = _loaded(published.entries().values(), reports) if 0 < len(reports) == len(ready) else 0
    failed = _failed(adapters, facts.reports.values())
    present = [facts.reports[pod.name] for pod in facts.present if pod.name in facts.reports]
    versions = sorted({report.engine.version for report in present if report.engine.version})
    started = [report for report in present if report.cold_start_seconds is not None]
    newest = max(started, key=lambda report: (report.engine.started_at or "", report.pod.name), default=None)
    status: Manifest = {
        "observedGeneration": pool.generation,
        "replicas": len(facts.present),
        "readyReplicas": len(ready),
        "readySummary": f"{len(ready)}/{pool.spec.replicas}",
        "selector": f"{names.LABEL_COMPONENT}=engine,{names.LABEL_POOL}={pool.name}",
        "twins": published.twins,
        "adapters": {"desired": len(adapters), "loaded": loaded, "failed": failed},
        "slots": None
        if pool.spec.engine.endpoint
        else {"used": lora_twins, "total": pool.max_loras, "summary": f"{lora_twins}/{pool.max_loras}"},
        "engineVersion": ", ".join(versions)[:64] or None,
        "coldStartSeconds": newest.cold_start_seconds if newest else None,
    }
    return status, conditions


def _loaded(entries: Iterable[TwinEntry], reports: Sequence[PodReport]) -> int:
    """Return how many adapters each of the pods that are to hold them reports as verified, one at least."""
    loaded = 0
    for entry in entries:
        holders = [report for report in reports if entry.is_held_by(report.pod.uid)] if entry.adapters else []
        for adapter in entry.adapters:
            held = [is_verified(report, adapter.served_name, adapter.digest) for report in holders]
            loaded += bool(held) and all(held)
    return loaded


def _failed(adapters: Sequence[Adapter], reports: Iterable[PodReport]) -> int:
    """Return how many of the adapters some pod reports as failed."""
    names_failed = {
        served
        for report in reports
        for served, held in (report.adapters or {}).items()
        if held.state is AdapterState.FAILED
    }
    return sum(adapter.served_name in names_failed for adapter in adapters) if names_failed else 0

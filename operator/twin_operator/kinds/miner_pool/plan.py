"""What a pool should become and what its status should say: pure functions of what was gathered."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from bettertherapy_api import names
from bettertherapy_api.miner_pool import MOST_SLOW, SlowReplica
from bettertherapy_api.report import AdapterState, PodReport
from bettertherapy_api.routing import Adapter, TwinEntry
from twin_operator.domain.objects import Pool
from twin_operator.domain.pool_checks import Situation, lacks_capacity, pool_conditions
from twin_operator.domain.pool_facts import PoolFacts
from twin_operator.domain.pool_update import Held, Pace
from twin_operator.domain.routing import is_verified
from twin_operator.domain.scaling import Outlook, Unmeasured
from twin_operator.domain.sizing import Sizing, size
from twin_operator.domain.tuning import Decision, Needs, tuning_finding, tuning_status
from twin_operator.engine.conditions import Condition, Finding
from twin_operator.engine.resources import DEPLOYMENT, LEADER_WORKER_SET, Manifest
from twin_operator.kinds.miner_pool.children import Children, OtherRollouts, build_children
from twin_operator.kinds.miner_pool.engine_needs import is_crashing
from twin_operator.kinds.miner_pool.engine_update import held_back
from twin_operator.kinds.miner_pool.scaling_watch import NOT_CONFIGURED
from twin_operator.kinds.world import Published
from twin_operator.settings import Images

RUNS_PODS: Final = frozenset({DEPLOYMENT.kind, LEADER_WORKER_SET.kind})
"""Kinds of children that make a pool's pods."""


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
    out_of_bounds: Finding | None = None
    """What the spec names and tenants may not use: no pods are made of it, and those that run stay."""
    load: Outlook | Unmeasured | None = None
    """What is known of its load; None where no Prometheus is asked."""
    saturation: Manifest | None = None
    """How loaded it is, as its status shows it."""
    said: tuple[Condition, ...] = ()
    """ScalingActive and MetricsAvailable as they stand."""
    sizing: Sizing | None = None
    """What was decided on the number of engine pods."""
    needs: Needs = field(default_factory=Needs)
    """What the pod needs of its engine that holds most."""
    tuning: Decision | None = None
    """How engines are started for that; None where it was not decided."""
    no_groups: bool = False
    """Its engines are to span several nodes, and the cluster has no LeaderWorkerSets."""
    slow: tuple[SlowReplica, ...] | None = None
    """Pods that are slower than the others; None where none is compared."""


def plan_children(gathered: Gathered, images: Images, pace: Pace, *, now: datetime) -> Children:
    """Return the pool's children, what was decided on its size, and whether an update of its engines waits."""
    sizing = plan_size(gathered, now=now)
    pool = replace(gathered.pool, decided=sizing.replicas) if sizing is not None else gathered.pool
    planned = build_children(
        pool, images, needs=gathered.needs, engine=gathered.engine, miner=gathered.miner,
        others=gathered.others, pace=pace, now=now, legacy=bool(gathered.legacy),
        reported=any(report.ready for report in gathered.facts.reports.values()), crashing=is_crashing(gathered.facts),
    )  # fmt: skip
    if gathered.out_of_bounds is not None:
        # Nothing is begun that it names now. The engines that it had go on, as many as are needed: patients ask them.
        kept = [each for each in planned.manifests if each["kind"] not in RUNS_PODS]
        if gathered.engine is not None and pool.spec.engine.group is None:
            name = names.engine_name(pool.name)
            kept += [
                held_back(each, gathered.engine)
                for each in planned.manifests
                if each["kind"] == DEPLOYMENT.kind and each["metadata"]["name"] == name
            ]
        return Children(manifests=tuple(kept), held=None, sizing=sizing if gathered.engine is not None else None)
    if gathered.no_groups:
        return replace(
            planned, sizing=sizing,
            manifests=tuple(each for each in planned.manifests if each["kind"] != LEADER_WORKER_SET.kind),
        )  # fmt: skip
    return replace(planned, sizing=sizing)


def plan_size(gathered: Gathered, *, now: datetime) -> Sizing | None:
    """Return what is decided on the pool's size; None where that is somebody else's."""
    pool, scaling = gathered.pool, gathered.pool.spec.autoscaling
    if scaling is None or not pool.is_scaled:
        return None
    before = pool.decided
    if before is None:  # never decided, or forgotten: what runs goes on
        before = gathered.facts.engine_deployment.wanted if gathered.engine is not None else pool.spec.replicas
    pool = replace(pool, decided=before)
    return size(
        scaling, before=before, seen=gathered.load or NOT_CONFIGURED, demanded=gathered.facts.demanded,
        capacity=lacks_capacity(pool, gathered.facts), at=now, former=gathered.said,
    )  # fmt: skip


def plan_status(gathered: Gathered) -> tuple[Manifest, list[Condition]]:
    """Return the pool's status, without its conditions' dates, and the conditions."""
    pool, facts, published = gathered.pool, gathered.facts, gathered.published
    lora_twins = published.lora_twins
    adapters = [adapter for entry in published.entries().values() for adapter in entry.adapters]
    conditions = pool_conditions(
        Situation(
            pool=pool, facts=facts, lora_twins=lora_twins, problem=gathered.out_of_bounds or gathered.refused,
            no_groups=gathered.no_groups,
            unpublished=gathered.unpublished, access_missing=gathered.access_missing,
            update_waits=Finding(gathered.held.reason, gathered.held.message) if gathered.held else None,
            sizing=gathered.sizing, slow=gathered.slow,
        )
    )  # fmt: skip
    tuned = pool.tuning
    if gathered.tuning is not None:
        found, fits = tuning_finding(gathered.tuning, held=gathered.held.message if gathered.held else None)
        conditions.append(found.condition("EnginesTuned", "True" if fits else "False"))
        tuned = tuning_status(gathered.tuning, said=found.message)
    ready = facts.ready
    reports = [report for report in ready.values() if report is not None]
    loaded = _loaded(published.entries().values(), reports) if 0 < len(reports) == len(ready) else 0
    failed = _failed(adapters, facts.reports.values())
    present = [facts.reports[pod.name] for pod in facts.present if pod.name in facts.reports]
    versions = sorted({report.engine.version for report in present if report.engine.version})
    started = [report for report in present if report.cold_start_seconds is not None]
    newest = max(started, key=lambda report: (report.engine.started_at or "", report.pod.name), default=None)
    history = gathered.sizing.history(pool.decisions) if gathered.sizing is not None else pool.decisions
    status: Manifest = {
        "observedGeneration": pool.generation,
        "desiredReplicas": gathered.sizing.replicas if gathered.sizing is not None else None,
        "scalingHistory": [record.to_dict() for record in history] or None,
        "saturation": gathered.saturation,
        "slowReplicas": [each.model_dump(mode="json", by_alias=True) for each in (gathered.slow or ())[:MOST_SLOW]]
        or None,
        "replicas": len(facts.present),
        "readyReplicas": len(ready),
        "readySummary": f"{len(ready)}/{pool.replicas}",
        "selector": f"{names.LABEL_COMPONENT}=engine,{names.LABEL_POOL}={pool.name}",
        "twins": published.twins,
        "adapters": {"desired": len(adapters), "loaded": loaded, "failed": failed},
        "slots": None
        if pool.spec.engine.endpoint
        else {"used": lora_twins, "total": pool.max_loras, "summary": f"{lora_twins}/{pool.max_loras}"},
        "tuning": tuned.to_dict() if tuned is not None and not pool.spec.engine.endpoint else None,
        "engineVersion": ", ".join(versions)[:64] or None,
        "coldStartSeconds": newest.cold_start_seconds if newest else None,
    }
    return status, conditions


def _loaded(entries: Iterable[TwinEntry], reports: Sequence[PodReport]) -> int:
    """Return how many adapters each of the pods that are to hold them reports as verified, one at least; of those that
    are loaded on demand, how many any pod does.
    """
    loaded = 0
    for entry in entries:
        holders = [report for report in reports if entry.is_held_by(report.pod.uid)] if entry.adapters else []
        for adapter in entry.adapters:
            if adapter is entry.on_demand:
                loaded += any(is_verified(report, adapter.served_name, adapter.digest) for report in reports)
                continue
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

"""What a pool should become and what its status should say: pure functions of what was gathered."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from bettertherapy_api import names
from bettertherapy_api.configmaps import RoutingTable
from bettertherapy_api.report import AdapterState
from twin_operator.domain.objects import Pool
from twin_operator.domain.pool_checks import Finding, Situation, pool_conditions
from twin_operator.domain.pool_facts import PoolFacts
from twin_operator.domain.routing import Candidate, build_routing_configmap, plan_routing, verified_on
from twin_operator.engine.resources import Manifest
from twin_operator.engine.status import Condition
from twin_operator.kinds.miner_pool.engine_deployment import build_engine_deployment
from twin_operator.kinds.miner_pool.miner_deployment import build_miner_deployment
from twin_operator.kinds.miner_pool.network_policy import build_network_policies
from twin_operator.kinds.miner_pool.pod_disruption_budget import build_pod_disruption_budgets
from twin_operator.kinds.miner_pool.rbac import build_role_bindings, build_roles, build_service_accounts
from twin_operator.kinds.miner_pool.report_configmap import build_report_configmap
from twin_operator.kinds.miner_pool.service import build_service
from twin_operator.settings import Images


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """Everything a pool's plan depends on."""

    pool: Pool
    facts: PoolFacts
    candidates: Sequence[Candidate]
    previous: RoutingTable | None
    unreadable: Collection[str] = ()
    """Twins whose stored spec doesn't parse; they keep what they have."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to apply."""

    table: RoutingTable
    children: tuple[Manifest, ...]
    """In the order in which they are applied."""


def plan_pool(gathered: Gathered, images: Images) -> Plan:
    """Return the pool's children; the routing table first, since patients wait for it."""
    pool = gathered.pool
    table = plan_routing(
        pool,
        candidates=gathered.candidates,
        unreadable=gathered.unreadable,
        previous=gathered.previous,
        ready=gathered.facts.ready,
    )
    return Plan(
        table=table,
        children=(
            build_routing_configmap(pool, table),
            build_report_configmap(pool),
            *build_service_accounts(pool),
            *build_roles(pool),
            *build_role_bindings(pool),
            *build_network_policies(pool),
            build_service(pool),
            *build_pod_disruption_budgets(pool),
            build_engine_deployment(pool, images),
            build_miner_deployment(pool, images),
        ),
    )


def plan_status(gathered: Gathered, table: RoutingTable, problem: Finding | None) -> tuple[Manifest, list[Condition]]:
    """Return the pool's status, without its conditions' dates, and the conditions."""
    pool, facts = gathered.pool, gathered.facts
    lora_twins = len({adapter.twin for adapter in table.adapters})
    conditions = pool_conditions(Situation(pool=pool, facts=facts, lora_twins=lora_twins, problem=problem))
    ready = facts.ready
    reports = [report for report in ready.values() if report is not None]
    loaded = sum(
        len(verified_on(adapter.served_name, adapter.digest, reports)) == len(ready) > 0 for adapter in table.adapters
    )
    failed = sum(
        any(
            (held := report.adapters.get(adapter.served_name)) is not None and held.state is AdapterState.FAILED
            for report in facts.reports.values()
        )
        for adapter in table.adapters
    )
    present = [facts.reports[pod.name] for pod in facts.present if pod.name in facts.reports]
    versions = sorted({report.engine.version for report in present if report.engine.version})
    started = [report for report in present if report.cold_start_seconds is not None]
    newest = max(started, key=lambda report: (report.engine.started_at or "", report.pod), default=None)
    status: Manifest = {
        "observedGeneration": pool.generation,
        "replicas": len(facts.present),
        "readyReplicas": len(ready),
        "readySummary": f"{len(ready)}/{pool.spec.replicas}",
        "selector": f"{names.LABEL_COMPONENT}=engine,{names.LABEL_POOL}={pool.name}",
        "twins": len(table.twins),
        "adapters": {"desired": len(table.adapters), "loaded": loaded, "failed": failed},
        "slots": None
        if pool.spec.engine.endpoint
        else {"used": lora_twins, "total": pool.max_loras, "summary": f"{lora_twins}/{pool.max_loras}"},
        "engineVersion": ", ".join(versions)[:64] or None,
        "coldStartSeconds": newest.cold_start_seconds if newest else None,
    }
    return status, conditions

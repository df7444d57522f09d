"""One pool: gather → plan → apply → report."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from bettertherapy_api import names
from twin_operator.domain.objects import Pool, Twin, pool_from, twin_from
from twin_operator.domain.pool_checks import Finding, invalid_conditions
from twin_operator.domain.pool_facts import PoolFacts, orphaned_reports, pool_facts
from twin_operator.domain.routing import Candidate, read_table, refusal
from twin_operator.domain.versions import wanted_version
from twin_operator.engine import metrics
from twin_operator.engine.api import Api
from twin_operator.engine.apply import Owner, apply_children
from twin_operator.engine.cache import Cache
from twin_operator.engine.events import EventPoster, Notice
from twin_operator.engine.resources import CONFIG_MAP, POD, Key, Manifest
from twin_operator.engine.status import Condition, dated, write_status
from twin_operator.errors import ApiError, ChildConflictError
from twin_operator.kinds.miner_pool.plan import Gathered, plan_pool, plan_status
from twin_operator.settings import Images

log = logging.getLogger(__name__)

_REFUSALS = frozenset({400, 403, 422})
"""The API server understood and said no: a person must do something, so it belongs into a condition."""
_RECENT = timedelta(minutes=10)


class MinerPoolReconciler:
    """Brings MinerPools to what their specs ask."""

    def __init__(self, *, api: Api, cache: Cache, events: EventPoster, images: Images) -> None:
        self._api = api
        self._cache = cache
        self._events = events
        self._images = images

    async def reconcile(self, key: Key) -> None:
        """Reconcile one pool; raises ApiError or ChildConflictError to be called again later."""
        thing = self._cache.get(key)
        if thing is None or "deletionTimestamp" in thing["metadata"]:
            return  # the garbage collector removes what the pool owned
        pool = pool_from(thing)
        if isinstance(pool, str):
            await self._report(
                thing, {"observedGeneration": thing["metadata"].get("generation", 0)}, invalid_conditions(pool)
            )
            return
        gathered = gather(self._cache, pool)
        plan = plan_pool(gathered, self._images)
        owner = Owner.of(thing)
        problem: ChildConflictError | ApiError | None = None
        try:
            await apply_children(self._api, self._cache, owner=owner, wanted=plan.children)
        except ChildConflictError as error:
            problem = error
        except ApiError as error:
            if error.status not in _REFUSALS:
                raise
            problem = error
        if gathered.previous != plan.table and problem is None:
            metrics.ROUTING_CHANGES.labels(namespace=pool.namespace, pool=pool.name).inc()
        # What was applied may have changed what is observed, so look again before reporting.
        gathered = replace(gathered, facts=pool_facts(self._cache, namespace=pool.namespace, pool=pool.name))
        status, conditions = plan_status(gathered, plan.table, _finding(problem))
        await self._report(thing, status, conditions)
        await self._tell_restarts(thing, gathered.facts)
        await self._prune_reports(pool)
        if problem is not None:
            raise problem

    async def _report(self, thing: Manifest, status: Manifest, conditions: list[Condition]) -> None:
        live = self._cache.get(Key(thing["kind"], thing["metadata"]["namespace"], thing["metadata"]["name"])) or thing
        before = (live.get("status") or {}).get("conditions") or []
        generation = thing["metadata"].get("generation", 0)  # what was planned from; `live` may be newer
        now = dated(conditions, live=before, generation=generation, now=datetime.now(UTC))
        if await write_status(self._api, self._cache, thing=live, status={**status, "conditions": now}):
            for notice in pool_notices(before, now):
                await self._events.post(live, notice)

    async def _tell_restarts(self, thing: Manifest, facts: PoolFacts) -> None:
        since = (datetime.now(UTC) - _RECENT).strftime("%Y-%m-%dT%H:%M:%SZ")
        for pod in facts.engines:
            for restart in pod.restarts:
                if restart.finished_at < since:
                    continue
                why = f"exit code {restart.exit_code}, {restart.reason}"
                note = f"the engine of pod {restart.pod} restarted ({why}); its adapters are loaded and verified again"
                occasion = f"{restart.pod_uid}/{restart.count}"
                await self._events.post(
                    thing, Notice(reason="EngineRestarted", note=note, kind="Warning", occasion=occasion)
                )

    async def _prune_reports(self, pool: Pool) -> None:
        """Take away the reports of pods that are gone; their agents can't do it any more."""
        key = Key("ConfigMap", pool.namespace, names.report_name(pool.name))
        configmap = self._cache.get(key)
        pods = [thing for thing in self._cache.of_pool(pool.namespace, pool.name) if thing["kind"] == "Pod"]
        orphans = orphaned_reports(configmap, pods)
        # The report may be ahead of the pod watch, so the API server has the last word on whether a pod is gone.
        gone = [name for name in orphans if await self._api.get(POD, namespace=pool.namespace, name=name) is None]
        if not gone or configmap is None:
            return
        patch = {
            "metadata": {"resourceVersion": configmap["metadata"]["resourceVersion"]},
            "data": dict.fromkeys(gone),
        }
        try:
            self._cache.put(await self._api.merge(CONFIG_MAP, namespace=pool.namespace, name=key.name, patch=patch))
        except ApiError as error:
            if error.status not in (404, 409):  # changed or gone meanwhile: its event brings us back
                raise


def _finding(problem: ChildConflictError | ApiError | None) -> Finding | None:
    if problem is None:
        return None
    if isinstance(problem, ChildConflictError):
        return "ChildConflict", str(problem)
    return "ApplyRefused", f"the API server refuses a change: {problem.message}"


def gather(cache: Cache, pool: Pool) -> Gathered:
    """Collect what the pool's plan depends on, from the cache alone."""
    configmap = cache.get(Key("ConfigMap", pool.namespace, names.routing_name(pool.name)))
    previous = read_table(configmap)
    known = set(previous.twins) if previous else set()
    candidates = []
    unreadable = set()
    for thing in cache.of_kind("DoctorTwin", namespace=pool.namespace):
        twin = twin_from(thing)
        name = thing["metadata"]["name"]
        if isinstance(twin, str):
            log.warning("DoctorTwin %s/%s can't be read: %s", pool.namespace, name, twin)
            unreadable.add(name)
            continue
        matches = twin.spec.pool_selector.matches(dict(pool.labels))
        if not matches and name not in known and pool.name not in (twin.status.pools or []):
            continue
        refused = refusal(pool, twin) if matches else ("NoPoolMatches", "spec.poolSelector doesn't match the pool")
        elsewhere = refused is not None and served_by_other(cache, twin, pool)
        candidates.append(Candidate(twin=twin, refused=refused, served_elsewhere=elsewhere))
    facts = pool_facts(cache, namespace=pool.namespace, pool=pool.name)
    return Gathered(
        pool=pool,
        facts=facts,
        candidates=candidates,
        unreadable=unreadable,
        previous=previous,
        engine=cache.get(Key("Deployment", pool.namespace, names.engine_name(pool.name))),
        miner=cache.get(Key("Deployment", pool.namespace, names.miner_name(pool.name))),
        now=datetime.now(UTC),
    )


def served_by_other(cache: Cache, twin: Twin, pool: Pool) -> bool:
    """Tell whether another pool, one that matches and can serve the twin, answers with the wanted version."""
    wanted = wanted_version(twin).served_name
    for thing in cache.of_kind("MinerPool", namespace=pool.namespace):
        other = pool_from(thing)
        if isinstance(other, str) or other.name == pool.name or other.deleted:
            continue
        if not twin.spec.pool_selector.matches(dict(other.labels)) or refusal(other, twin) is not None:
            continue
        table = read_table(cache.get(Key("ConfigMap", pool.namespace, names.routing_name(other.name))))
        route = table.twins.get(twin.name) if table else None
        if route is not None and any(version.served_name == wanted for version in route.versions):
            return True
    return False


def pool_notices(before: list[Manifest], now: list[Manifest]) -> list[Notice]:
    """Return the events for what changed between two sets of conditions."""
    known = {condition["type"]: condition for condition in before}
    notices = []
    for condition in now:
        old = known.get(condition["type"], {})
        if (old.get("status"), old.get("reason")) == (condition["status"], condition["reason"]):
            continue
        occasion = f"{condition['type']}/{condition['reason']}/{condition['lastTransitionTime']}"
        kind, status, reason, message = (condition[part] for part in ("type", "status", "reason", "message"))
        if kind == "Ready" and status == "True":
            notices.append(Notice(reason="PoolReady", note=message, occasion=occasion))
        elif kind == "Ready" and reason not in ("EnginesStarting", "RollingOut", "MinerStarting"):
            name = "Wedged" if reason == "EngineWedged" else reason
            notices.append(Notice(reason=name, note=message, kind="Warning", occasion=occasion))
        elif kind == "CapacityAvailable" and reason == "SlotsOvercommitted":
            notices.append(Notice(reason=reason, note=message, kind="Warning", occasion=occasion))
    return notices

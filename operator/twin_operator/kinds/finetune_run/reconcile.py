"""One run: gather → plan → apply → report."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from bettertherapy_api import names
from bettertherapy_api.run_progress import progress_name
from twin_operator.domain.objects import Pool, Run, Twin, pool_from, run_from, twin_from
from twin_operator.domain.queueing import Ticket, may_not_start
from twin_operator.domain.reasons import Reason
from twin_operator.domain.unreadable import spec_invalid, unreadable_condition
from twin_operator.engine.api import Api
from twin_operator.engine.apply import Owner, apply_children, delete_children
from twin_operator.engine.cache import RUNS_OF_POOL, Cache
from twin_operator.engine.conditions import Condition, Finding, dated
from twin_operator.engine.events import EventPoster, Notice
from twin_operator.engine.resources import CONFIG_MAP, JOB, POD, Key, Manifest
from twin_operator.engine.status import write_status
from twin_operator.errors import ApiError
from twin_operator.kinds.finetune_run.facts import RunFacts, read_facts
from twin_operator.kinds.finetune_run.plan import RunView, choose_pool, plan_run
from twin_operator.kinds.resources import FINE_TUNE_RUN
from twin_operator.settings import Images

_REFUSALS = frozenset({400, 403, 422})


class FineTuneRunReconciler:
    """Brings FineTuneRuns to their end."""

    def __init__(
        self, *, api: Api, cache: Cache, events: EventPoster, images: Images,
        wake_at: Callable[[Key, datetime], None],
    ) -> None:  # fmt: skip
        self._api = api
        self._cache = cache
        self._events = events
        self._images = images
        self._wake_at = wake_at
        # Two workers that look at the same queue would both find the last free place.
        self._turnstiles: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def reconcile(self, key: Key) -> None:
        """Reconcile one run; raises ApiError or ChildConflictError to be called again later."""
        thing = self._cache.get(key)
        if thing is None or "deletionTimestamp" in thing["metadata"]:
            return  # the garbage collector removes what the run owned
        run = run_from(thing)
        if isinstance(run, str):
            await self._report(
                thing, thing.get("status") or {}, [unreadable_condition("FineTuneRun", spec_invalid(run))]
            )
            return
        if not run.started and not run.ended:
            async with self._turnstiles[run.namespace]:
                thing = await self._step(key)
            if thing is None or "startTime" not in (thing.get("status") or {}):
                return
        await self._step(key)

    async def _step(self, key: Key) -> Manifest | None:
        """Bring the run one step on; returns it as it is then."""
        thing = self._cache.get(key)
        run = run_from(thing) if thing is not None else None
        if thing is None or run is None or isinstance(run, str):
            return thing
        now = datetime.now(UTC)
        view = gather(self._cache, run)
        if run.started and not run.ended and view.facts.job is not None and view.facts.job.finished is not None:
            view = replace(view, facts=await self._last_look(run))
        plan = plan_run(view, self._images, now=now)
        if plan.expired:
            await self._api.delete(FINE_TUNE_RUN, namespace=run.namespace, name=run.name, uid=run.uid)
            return None
        conditions = plan.conditions
        owner = Owner.of(thing)
        if plan.tidy:
            await delete_children(self._api, self._cache, owner=owner, keep=lambda key: key.kind == CONFIG_MAP.kind)
        if plan.children:
            try:
                await apply_children(self._api, self._cache, owner=owner, wanted=plan.children)
            except ApiError as error:
                if error.status not in _REFUSALS:
                    raise
                said = f"the API server refuses the trainer's objects: {error.message}"
                refused = Finding(Reason.APPLY_REFUSED, said).condition("Running", "False")
                conditions = [*(each for each in conditions if each.type != "Running"), refused]
                await self._report(thing, plan.status, conditions)
                raise
        await self._report(thing, plan.status, conditions)
        if plan.give_up:
            await self._end_attempts(run)
        if plan.wake_at is not None:
            self._wake_at(key, plan.wake_at)
        return self._cache.get(key)

    async def _end_attempts(self, run: Run) -> None:
        """Let the Job fail by the attempts it has made; it keeps its pods and their logs, and ends the run as ever."""
        job = self._cache.get(Key("Job", run.namespace, run.name))
        if job is None or (job.get("spec") or {}).get("backoffLimit") == 0:
            return
        patch = {"metadata": {"uid": job["metadata"]["uid"]}, "spec": {"backoffLimit": 0}}
        try:
            self._cache.put(await self._api.merge(JOB, namespace=run.namespace, name=run.name, patch=patch))
        except ApiError as error:
            if error.status not in (404, 409):  # gone, or another one of its name: its event brings us back
                raise

    async def _last_look(self, run: Run) -> RunFacts:
        """Ask the API server for report and pods: the Job's end may be seen before them, and it is final."""
        name = progress_name(run.name)
        configmap = await self._api.get(CONFIG_MAP, namespace=run.namespace, name=name)
        pods, _ = await self._api.list(POD, namespace=run.namespace, selector=f"{names.LABEL_RUN}={run.name}")
        for fresh in ([configmap] if configmap is not None else []) + pods:
            self._cache.put({"apiVersion": "v1", **fresh})
        return read_facts(self._cache.naming(Key("FineTuneRun", run.namespace, run.name)))

    async def _report(self, thing: Manifest, status: Manifest, conditions: list[Condition]) -> None:
        before = thing.get("status") or {}
        known = before.get("conditions") or []
        generation = thing["metadata"].get("generation", 0)
        now = dated(conditions, live=known, generation=generation, now=datetime.now(UTC))
        if await write_status(self._api, self._cache, thing=thing, status={**status, "conditions": now}):
            for notice in run_notices(known, now):
                await self._events.post(thing, notice)


def gather(cache: Cache, run: Run) -> RunView:
    """Collect what the run's plan depends on, from the cache alone."""
    thing = cache.get(Key("DoctorTwin", run.namespace, run.spec.twin_ref.name))
    twin = twin_from(thing) if thing is not None else None
    if isinstance(twin, str):
        twin = None
    pool, problem = _pool(cache, run, twin)
    facts = read_facts(cache.naming(Key("FineTuneRun", run.namespace, run.name)))
    if run.started or run.ended or twin is None or pool is None:
        return RunView(run=run, twin=twin, pool=pool, obstacle=problem, facts=facts)
    waiting = may_not_start(run.name, tickets(cache, run, pool), pool)
    return RunView(run=run, twin=twin, pool=pool, obstacle=problem or waiting, facts=facts)


def _pool(cache: Cache, run: Run, twin: Twin | None) -> tuple[Pool | None, Finding | None]:
    """Return the pool that the run was given to, else the one that it should be given to, or why there is none."""
    if run.started and run.status.pool is not None:
        thing = cache.get(Key("MinerPool", run.namespace, run.status.pool))
        given = pool_from(thing) if thing is not None else None
        return (None, None) if given is None or isinstance(given, str) else (given, None)
    if twin is None:
        return None, None
    pools = [
        pool
        for thing in cache.of_kind("MinerPool", namespace=run.namespace)
        if not isinstance(pool := pool_from(thing), str)
    ]
    chosen = choose_pool(twin, pools, image=run.spec.image)
    return (chosen, None) if isinstance(chosen, Pool) else (None, chosen)


def tickets(cache: Cache, run: Run, pool: Pool) -> list[Ticket]:
    """Return the queue of a pool, with this run in it."""
    things = {thing["metadata"]["name"]: thing for thing in cache.naming(Key(RUNS_OF_POOL, pool.namespace, pool.name))}
    own = cache.get(Key("FineTuneRun", run.namespace, run.name))
    if own is not None:
        things[run.name] = own
    return [_ticket(cache, thing) for thing in things.values()]


def _ticket(cache: Cache, thing: Manifest) -> Ticket:
    metadata, twin = thing["metadata"], thing["spec"]["twinRef"]["name"]
    busy = any(
        other["metadata"]["uid"] != metadata["uid"] and under_way(other)
        for other in cache.naming(Key("DoctorTwin", metadata["namespace"], twin))
    )
    return Ticket(
        created=metadata.get("creationTimestamp", ""), name=metadata["name"], twin=twin, started=under_way(thing),
        twin_busy=busy,
    )  # fmt: skip


def under_way(thing: Manifest) -> bool:
    """Tell whether a run has started and not ended."""
    status = thing.get("status") or {}
    return "startTime" in status and "completionTime" not in status


def run_notices(before: list[Manifest], now: list[Manifest]) -> list[Notice]:
    """Return the events for what changed between two sets of conditions."""
    known = {condition["type"]: condition for condition in before}
    notices = []
    for condition in now:
        old = known.get(condition["type"], {})
        if (old.get("status"), old.get("reason")) == (condition["status"], condition["reason"]):
            continue
        kind, status, reason, message = (condition[part] for part in ("type", "status", "reason", "message"))
        occasion = f"{kind}/{reason}/{condition['lastTransitionTime']}"
        if status == "True" and kind in ("Published", "Evaluated", "Promoted"):
            notices.append(Notice(reason=kind, note=message, occasion=occasion))
        elif status == "True" and kind in ("Rejected", "Failed"):
            notices.append(Notice(reason=kind, note=f"{reason}: {message}", kind="Warning", occasion=occasion))
        elif kind == "DataReady" and reason == Reason.TOO_FEW_INTERACTIONS:
            notices.append(Notice(reason="Skipped", note=message, occasion=occasion))
        elif kind == "Running" and reason == Reason.RETRYING:
            notices.append(Notice(reason=reason, note=message, kind="Warning", occasion=occasion))
    return notices

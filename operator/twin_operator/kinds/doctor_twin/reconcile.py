"""One twin: gather → plan → report. What makes it answer is its pools' routing tables (kinds.miner_pool)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any, Final

from bettertherapy_api import names
from bettertherapy_api.doctor_twin import Rollout
from twin_operator.domain.canary_analysis import UNWATCHED, Analysis, Measurement, assess, measure
from twin_operator.domain.objects import Twin, pool_from, run_from, twin_from
from twin_operator.domain.pool_checks import TROUBLE, Situation
from twin_operator.domain.pool_facts import pool_facts
from twin_operator.domain.reasons import Reason
from twin_operator.domain.rollout import asks_to_take_back, plan_rollout
from twin_operator.domain.routing import read_table, refusal, wanted_adapter
from twin_operator.domain.twin_view import PoolView, TwinView
from twin_operator.domain.unreadable import spec_invalid, unreadable_condition
from twin_operator.domain.versions import canary_version, wanted_version
from twin_operator.engine.api import Api
from twin_operator.engine.cache import Cache
from twin_operator.engine.events import EventPoster, Notice
from twin_operator.engine.prometheus import Prometheus
from twin_operator.engine.resources import Key, Manifest, key_of
from twin_operator.engine.status import Condition, dated, moment, timestamp, write_status
from twin_operator.errors import ApiError
from twin_operator.kinds.doctor_twin.checks import twin_conditions
from twin_operator.kinds.doctor_twin.fine_tunes import FineTunePlan, plan_fine_tune
from twin_operator.kinds.doctor_twin.plan import plan_status
from twin_operator.kinds.finetune_run.plan import choose_pool

_TOLD: Final = frozenset(
    {
        Reason.NO_POOL_MATCHES, Reason.BASE_MODEL_MISMATCH, Reason.RANK_TOO_HIGH, Reason.SPEC_INVALID,
        Reason.STATUS_UNREADABLE,
    }
)  # fmt: skip
"""Reasons why a twin is not Ready that a person must do something about: they become events."""
_GLANCE_SECONDS: Final = 0.1
"""How often it is looked, while Prometheus is asked, whether somebody wants something else of the twin."""


class _OvertakenError(Exception):
    """The twin is not any more what is being reconciled; its event has brought it back into the queue."""


class DoctorTwinReconciler:
    """Keeps the status of DoctorTwins true."""

    def __init__(
        self, *, api: Api, cache: Cache, events: EventPoster, wake: Callable[[Key], None],
        wake_at: Callable[[Key, datetime], None], window_seconds: int, prometheus: Prometheus | None = None,
        matchers: str = "",
    ) -> None:  # fmt: skip
        self._prometheus = prometheus
        self._matchers = matchers
        self._wake_at = wake_at
        self._window_seconds = window_seconds
        self._api = api
        self._cache = cache
        self._events = events
        self._wake = wake

    async def reconcile(self, key: Key) -> None:
        """Reconcile one twin; raises ApiError to be called again later."""
        thing = self._cache.get(key)
        if thing is None or "deletionTimestamp" in thing["metadata"]:
            return
        twin = twin_from(thing)
        if isinstance(twin, str):
            status: Manifest = {
                **(thing.get("status") or {}),
                "observedGeneration": thing["metadata"].get("generation", 0),
            }
            await self._report(thing, status, [unreadable_condition("DoctorTwin", spec_invalid(twin))])
            return
        view, now = gather(self._cache, twin), datetime.now(UTC)
        fine_tunes = plan_fine_tune(
            twin, view.runs, choose_pool(twin, [pool.pool for pool in view.pools]), now=now,
            window_seconds=self._window_seconds,
        )  # fmt: skip
        await self._create(thing, fine_tunes)
        try:
            analysis = await self._analyse(thing, view, now)
        except _OvertakenError:
            return
        rollout = plan_rollout(view, analysis, now=now)
        status = plan_status(view, now=timestamp(now), fine_tunes=fine_tunes, rollout=rollout)
        await self._report(thing, status, twin_conditions(view, fine_tunes, rollout))
        for wake_at in (fine_tunes.wake_at, rollout.wake_at):
            if wake_at is not None:
                self._wake_at(key, wake_at)
        for pool in view.pools:
            if not pool.counts:
                # It answers with a last version until another pool has taken over: that may be now.
                self._wake(Key("MinerPool", twin.namespace, pool.pool.name))

    async def _analyse(self, thing: Manifest, view: TwinView, now: datetime) -> Analysis | None:
        """Return how the canary does, if one takes traffic; raises _OvertakenError."""
        twin = view.twin
        canary, since = canary_version(twin), twin.status.canary_start_time
        if canary is None or since is None or asks_to_take_back(twin, now=now):
            return None
        if self._prometheus is None:
            return UNWATCHED
        lasted = int((now - moment(since)).total_seconds())
        measuring = measure(
            self._prometheus, twin=twin.name, canary=canary.served_name, stable=wanted_version(twin).served_name,
            window_seconds=min(max(lasted, 60) + 60, 86400),
            matchers=self._matchers.replace("{namespace}", twin.namespace),
        )  # fmt: skip
        measured = await self._unless_overtaken(thing, measuring)
        miners = sum(pool.facts.miner_deployment.ready for pool in view.counting)
        return assess(measured, twin.spec.rollout or Rollout(), miners=miners)

    async def _unless_overtaken(
        self, thing: Manifest, measuring: Coroutine[Any, Any, Measurement | str]
    ) -> Measurement | str:
        """Await the measurement; a Prometheus that hangs keeps no rollback waiting. Raises _OvertakenError."""
        task = asyncio.create_task(measuring)
        try:
            while not (await asyncio.wait({task}, timeout=_GLANCE_SECONDS))[0]:
                if _asked_of(self._cache.get(key_of(thing))) != _asked_of(thing):
                    raise _OvertakenError
            return await task
        finally:
            task.cancel()

    async def _create(self, thing: Manifest, planned: FineTunePlan) -> None:
        """Create the run that is due, before the status says so: killed in between, the next one finds it made."""
        if planned.create is None:
            return
        try:
            self._cache.put(await self._api.create(planned.create))
        except ApiError as error:
            if error.status != 409:
                raise
            return
        name = planned.create["metadata"]["name"]
        await self._events.post(thing, Notice(reason="FineTuneStarted", note=f"created FineTuneRun {name}"))

    async def _report(self, thing: Manifest, status: Manifest, conditions: list[Condition]) -> None:
        before = thing.get("status") or {}
        known = before.get("conditions") or []
        now = dated(conditions, live=known, generation=thing["metadata"].get("generation", 0), now=datetime.now(UTC))
        if await write_status(self._api, self._cache, thing=thing, status={**status, "conditions": now}):
            for notice in twin_notices(before, status, now):
                await self._events.post(thing, notice)


def _asked_of(thing: Manifest | None) -> Manifest | None:
    """Return what people ask of a twin: its spec, by its generation, and its annotations."""
    if thing is None:
        return None
    metadata = thing["metadata"]
    return {name: metadata.get(name) for name in ("uid", "generation", "annotations", "deletionTimestamp")}


def gather(cache: Cache, twin: Twin) -> TwinView:
    """Collect the pools that match the twin, or that answer for it though they match no more.

    A pool whose table was lost makes it anew from the twin's status, so the status has the word on who answers.
    """
    views = []
    for thing in cache.of_kind("MinerPool", namespace=twin.namespace):
        pool = pool_from(thing)
        if isinstance(pool, str) or pool.deleted:
            continue
        table = read_table(cache.get(Key("ConfigMap", pool.namespace, names.routing_name(pool.name))))
        matches = twin.spec.pool_selector.matches(dict(pool.labels))
        answers = twin.name in table.twins if table is not None else pool.name in (twin.status.pools or [])
        if not matches and not answers:
            continue
        facts = pool_facts(cache, namespace=pool.namespace, pool=pool.name)
        situation = Situation(pool=pool, facts=facts)
        views.append(
            PoolView(
                pool=pool,
                facts=facts,
                table=table,
                matches=matches,
                refused=refusal(pool, twin) if matches else None,
                trouble=TROUBLE.evaluate(situation),
            )
        )
    views.sort(key=lambda view: view.pool.name)
    runs = [
        run
        for thing in cache.naming(Key("DoctorTwin", twin.namespace, twin.name))
        if thing["kind"] == "FineTuneRun" and not isinstance(run := run_from(thing), str)
    ]
    return TwinView(twin=twin, wanted=wanted_adapter(twin), pools=views, runs=runs)


def twin_notices(before: Manifest, status: Manifest, conditions: list[Manifest]) -> list[Notice]:
    """Return the events for what changed between two statuses."""
    known = {condition["type"]: condition for condition in before.get("conditions") or []}
    now = {condition["type"]: condition for condition in conditions}
    notices = []
    active, old = status.get("activeVersion") or {}, before.get("activeVersion") or {}
    if active and active.get("servedName") != old.get("servedName"):
        instead = f" instead of {old['servedName']}" if old else ""
        notices.append(
            Notice(
                reason="VersionActivated", note=f"{active['servedName']} answers now{instead}",
                occasion=f"{active['servedName']}/{active.get('since')}",
            )
        )  # fmt: skip
    canary, tried = status.get("canaryVersion") or {}, before.get("canaryVersion") or {}
    if canary and canary.get("digest") != tried.get("digest"):
        name = canary["servedName"]
        notices.append(Notice(reason="CanaryStarted", note=f"{name} is loaded beside what serves", occasion=name))
    rollback = status.get("lastRollback") or {}
    if rollback and rollback != before.get("lastRollback"):
        notices.append(
            Notice(
                reason="RolledBack", note=f"{rollback['reason']}: {rollback['message']}", kind="Warning",
                occasion=rollback["time"],
            )
        )  # fmt: skip
    for kind, condition in now.items():
        was = known.get(kind, {})
        status_, reason, message = condition["status"], condition["reason"], condition["message"]
        if (was.get("status"), was.get("reason")) == (status_, reason):
            continue
        occasion = f"{kind}/{reason}/{condition['observedGeneration']}/{condition['lastTransitionTime']}"
        if kind == "AdaptersVerified" and status_ == "True" and reason == Reason.VERIFIED:
            notices.append(Notice(reason="AdapterVerified", note=message, occasion=occasion))
        elif kind == "AdaptersVerified" and status_ == "False" and reason != Reason.LOADING:
            notices.append(
                Notice(reason="AdapterFailed", note=f"{reason}: {message}", kind="Warning", occasion=occasion)
            )
        elif kind == "Ready" and reason in _TOLD:
            notices.append(Notice(reason=reason, note=message, kind="Warning", occasion=occasion))
    return notices

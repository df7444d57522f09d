"""One operator process: its caches, its queue with workers, its part in the election, its health endpoint."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import time
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Self

from kubernetes.aio.client.api_client import ApiClient

from twin_operator.domain.bounds import Bounds
from twin_operator.domain.objects import Pool
from twin_operator.domain.pool_update import Pace
from twin_operator.engine.api import Api, configuration_from_environment
from twin_operator.engine.apply import Applier
from twin_operator.engine.condition_counts import ConditionCounts
from twin_operator.engine.events import EventPoster
from twin_operator.engine.garbage import WHOLE_EVERY, set_aside
from twin_operator.engine.lease import Leadership, LeaseSettings
from twin_operator.engine.prometheus import Prometheus
from twin_operator.engine.queue import Queue, work
from twin_operator.engine.reconcile import Reconciler, Tools
from twin_operator.engine.resources import LEADER_WORKER_SET, Key, Manifest, Resource
from twin_operator.engine.store import Entry, Store, Watched
from twin_operator.errors import ApiError, TypesChangedError
from twin_operator.kinds.doctor_twin.baseline_watch import BaselineWatch
from twin_operator.kinds.doctor_twin.canary_watch import CanaryWatch
from twin_operator.kinds.doctor_twin.fine_tune_start import FINE_TUNE_START, FineTuneStarter
from twin_operator.kinds.doctor_twin.reconcile import DoctorTwinReconciler
from twin_operator.kinds.finetune_run.reconcile import FineTuneRunReconciler
from twin_operator.kinds.miner_pool.reconcile import MinerPoolReconciler
from twin_operator.kinds.miner_pool.scaling_watch import ScalingWatch
from twin_operator.kinds.miner_pool.task_keeper import TaskKeeper
from twin_operator.kinds.resources import (
    BY_KIND,
    DOCTOR_TWIN,
    FINE_TUNE_RUN,
    MINER_POOL,
    PRIMARY,
    VALIDATOR,
    VALIDATOR_ROUND,
)
from twin_operator.kinds.routing.activity_watch import ActivityWatch
from twin_operator.kinds.routing.reconcile import ROUTING, RoutingReconciler
from twin_operator.kinds.routing.replica_watch import ReplicaWatch
from twin_operator.kinds.triggers.change import Route, Soon
from twin_operator.kinds.triggers.table import asks_anew, woken
from twin_operator.kinds.validator.reconcile import ValidatorReconciler
from twin_operator.kinds.validator_round.reconcile import ValidatorRoundReconciler
from twin_operator.kinds.watched import POOL_TASKS, WATCHED
from twin_operator.kinds.world import World
from twin_operator.settings import Settings

log = logging.getLogger(__name__)

_HUNG_SECONDS = 300.0
_ELECTION_SECONDS = 60.0
_LISTINGS = 20
_LIST_AGAIN_SECONDS = 1.0
_OPTIONAL = (VALIDATOR, VALIDATOR_ROUND, LEADER_WORKER_SET)
"""Nothing else depends on them, and an upgrade by Helm brings no new definition; or it is another project's."""
_AT_A_TIME = 100
"""Objects of a list that are taken before others have their turn: a tenth of a millisecond each, and more."""
PRIORITIES = {
    ROUTING: 0, MINER_POOL.kind: 1, VALIDATOR.kind: 1, DOCTOR_TWIN.kind: 2, FINE_TUNE_START: 3, POOL_TASKS: 3,
    FINE_TUNE_RUN.kind: 3, VALIDATOR_ROUND.kind: 3,
}  # fmt: skip
"""What patients wait for goes first: it must not stand behind a thousand statuses."""
AT_ONCE = {
    MINER_POOL.kind: 2,
    VALIDATOR.kind: 1,
    FINE_TUNE_START: 2,
    POOL_TASKS: 1,
    FINE_TUNE_RUN.kind: 2,
    VALIDATOR_ROUND.kind: 1,
}
"""Of what makes other objects, which a webhook that hangs may hold up, so many at once; for these workers are added."""
SPACING = {ROUTING: 0.01, DOCTOR_TWIN.kind: 0.1, MINER_POOL.kind: 0.25}
"""Seconds. A pool's routing is looked at again no sooner: what changes meanwhile makes one write per slice. Of a twin,
whose change comes back as a slice, as a report and as its own status within moments, what patients are answered with
does not wait for it: that is the routing's work. A pool's status counts a thousand adapters. The first change after a
pause, and what a person asks, waits for nothing."""
SOON_SECONDS = 1.0
"""So long what nobody waits for may be behind: a pool's counters, what a validator hands on."""


class Process:
    """Use as `async with Process(settings, api) as process`; then `run` it beside kopf, which feeds `observe`."""

    def __init__(self, settings: Settings, api: Api) -> None:
        self._settings = settings
        self._free = api
        self._prometheus = (
            Prometheus(settings.prometheus_url, request_seconds=settings.request_seconds)
            if settings.prometheus_url
            else None
        )
        self.queue = Queue(priorities=PRIORITIES, at_once=AT_ONCE, spacing=SPACING)
        self.store = Store(WATCHED, self._changed)
        self._conditions = ConditionCounts({each.kind for each in PRIMARY})
        bounds = Bounds.model_validate_json(settings.tenants) if settings.tenants else Bounds()
        self.world = World(self.store, bounds=bounds)
        self.type_seconds = 5.0
        """Between two looks for types that are not there."""
        self._missing: set[str] = set()
        """Types without which nothing begins, and that the API server doesn't have."""
        self._absent: set[str] = set()
        """Kinds of _OPTIONAL that it didn't have when this process began."""
        self._may_work = asyncio.Event()
        self.leadership = Leadership(
            self._free,
            LeaseSettings(
                namespace=settings.lease_namespace, name=settings.lease_name, identity=settings.identity,
                duration=settings.lease_duration, renew_deadline=settings.lease_renew_deadline,
                retry=settings.lease_retry,
            ),
            prepare=self.relist,
            on_gained=self._gained,
            on_lost=self._lost,
        )  # fmt: skip
        guarded = api.guarded_by(self.leadership.require)
        tools = Tools(
            api=guarded, applier=Applier(guarded, self.store), store=self.store,
            events=EventPoster(guarded, instance=settings.identity), wake=self.queue.add, wake_at=self.queue.add_at,
        )  # fmt: skip
        self.canaries = (
            CanaryWatch(self._prometheus, store=self.store, wake=self._wake, matchers=settings.prometheus_matchers)
            if self._prometheus is not None
            else None
        )
        self.baselines = (
            BaselineWatch(self._prometheus, store=self.store, wake=self._wake, matchers=settings.prometheus_matchers)
            if self._prometheus is not None
            else None
        )
        self.load = (
            ScalingWatch(self._prometheus, world=self.world, wake=self._wake, matchers=settings.prometheus_matchers)
            if self._prometheus is not None
            else None
        )
        self.activity = (
            ActivityWatch(
                self._prometheus, world=self.world, changed=self._place_anew, matchers=settings.prometheus_matchers
            )
            if self._prometheus is not None
            else None
        )
        self.replicas = (
            ReplicaWatch(
                self._prometheus, world=self.world, changed=self._tell_and_place_anew,
                matchers=settings.prometheus_matchers,
            )
            if self._prometheus is not None
            else None
        )  # fmt: skip
        self.routing = (
            RoutingReconciler(
                api=guarded, world=self.world, wake=self.queue.add, busy=self.activity.seen, slow=self.replicas.slow
            )
            if self.activity is not None and self.replicas is not None
            else RoutingReconciler(api=guarded, world=self.world, wake=self.queue.add)
        )
        pools = MinerPoolReconciler(
            tools, world=self.world, images=settings.images,
            pace=Pace(pools=settings.update_pools, delay_seconds=settings.update_delay_seconds), bounds=bounds,
            load=self.load, busy=self.activity.seen if self.activity is not None else lambda pool: None,
            slow=self.replicas.slow if self.replicas is not None else lambda pool: None,
        )  # fmt: skip
        window = settings.fine_tune_window_seconds
        starter = FineTuneStarter(tools, world=self.world, add=self.queue.add, window_seconds=window)
        twins = DoctorTwinReconciler(
            tools, world=self.world, wake_route=self._wake_route, starter=starter, window_seconds=window,
            canaries=self.canaries, baselines=self.baselines,
        )  # fmt: skip
        runs = FineTuneRunReconciler(tools, world=self.world, images=settings.images, bounds=bounds)
        validators = ValidatorReconciler(tools, images=settings.images, bounds=bounds)
        rounds = ValidatorRoundReconciler(
            tools, world=self.world, images=settings.images, prometheus_url=settings.prometheus_url
        )
        self._kinds: Mapping[str, Reconciler[Any, Any, Any]] = {
            each.kind: each for each in (pools, twins, runs, validators, rounds)
        }
        self._reconcilers = {
            ROUTING: self.routing.reconcile, FINE_TUNE_START: starter.reconcile,
            POOL_TASKS: TaskKeeper(tools, world=self.world).reconcile,
            **{kind: each.reconcile for kind, each in self._kinds.items()},
        }  # fmt: skip

    @classmethod
    async def connect(cls, settings: Settings) -> Process:
        """Return a process with a connection to the API server of the environment."""
        client = ApiClient(await configuration_from_environment())
        return cls(
            settings,
            Api(
                client,
                request_seconds=settings.request_seconds,
                resources=BY_KIND,
                user_agent=f"twin-operator/{settings.identity}",
            ),
        )

    async def __aenter__(self) -> Self:
        await self.relist()
        self.store.synced = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._free.close()
        if self._prometheus is not None:
            await self._prometheus.close()

    def observe(self, resource: Resource, event: str | None, thing: Manifest) -> None:
        """Take one watch event; what follows from it is the cache's listener's business."""
        whole = {"apiVersion": resource.api_version, "kind": resource.kind, **thing}
        if event == "DELETED":
            self.store.remove(whole)
        else:
            self.store.put(whole)

    async def run(self) -> None:
        """Work until cancelled; then stop writing and give the Lease back."""
        election = asyncio.create_task(self.leadership.run(), name="election")
        try:
            async with asyncio.TaskGroup() as tasks:
                added = sum(AT_ONCE.values()) if self._settings.workers > 1 else 0  # one worker is one thing at a time
                for number in range(self._settings.workers + added):
                    tasks.create_task(
                        work(self.queue, self._reconcile, may_work=self._may_work), name=f"worker-{number}"
                    )
                tasks.create_task(self._resync(), name="resync")
                if self._absent:
                    tasks.create_task(self._await_absent(), name="types")
                if self.canaries is not None:
                    tasks.create_task(self._measure(self.canaries), name="canaries")
                if self.load is not None:
                    tasks.create_task(self._measure(self.load), name="load")
                if self.activity is not None:
                    tasks.create_task(self._measure(self.activity), name="activity")
                if self.baselines is not None:
                    tasks.create_task(self._measure(self.baselines), name="baselines")
                if self.replicas is not None:
                    tasks.create_task(self._measure(self.replicas), name="replicas")
                tasks.create_task(_escalate(election), name="election-watch")
        finally:
            # The workers are done: nobody writes any more, so the next leader may begin.
            election.cancel()
            await asyncio.wait({election}, timeout=self._settings.request_seconds)

    async def relist(self) -> None:
        """List everything once: the start, on gaining the Lease, and now and then against what a watch has lost."""
        async with asyncio.TaskGroup() as tasks:
            for watched in WATCHED:
                tasks.create_task(self._relist(watched))

    def unhealthy(self) -> str | None:
        """Return what hangs, or None."""
        if self._missing:
            return None  # it waits, as it should
        now = time.monotonic()
        if now - self.leadership.ticked_at > _ELECTION_SECONDS:
            return "the election has not gone round for a minute"
        hung = [str(key) for key, begun in self.queue.started_at.items() if now - begun > _HUNG_SECONDS]
        return f"reconciling hangs: {', '.join(hung)}" if hung else None

    def unready(self) -> str | None:
        """Return why this replica could not take over, or None."""
        if self._missing:
            return f"the cluster knows no {_and(self._missing)}: apply CustomResourceDefinitions, they are awaited"
        return None if self.store.synced else "the store is being filled"

    async def _relist(self, watched: Watched) -> None:
        kind, refused = watched.resource.kind, 0
        while True:
            try:
                things, version = await self._list(watched)
                break
            except ApiError as error:
                if error.status == 404:
                    if not await self._await(watched.resource):
                        return
                elif error.status == 429 and refused < _LISTINGS:
                    # It has too much to do, or it was told of this type only a moment ago.
                    refused += 1
                    await asyncio.sleep(_LIST_AGAIN_SECONDS)
                else:
                    raise
        self._missing.discard(kind)
        listed: set[Key] = set()
        things.reverse()
        while things:  # each goes as soon as it is taken: ten thousand of them twice are much memory
            listed.add(self.store.put_listed(things.pop(), version=version))
            if len(listed) % _AT_A_TIME == 0:
                await asyncio.sleep(0)  # the Lease is renewed meanwhile
        self.store.end_list(watched.resource, listed, version=version, namespace=self._settings.namespace)

    async def _await(self, resource: Resource) -> bool:
        """Wait a moment for a type that isn't there; tells whether to list it then. Raises TypesChangedError."""
        kind = resource.kind
        if resource in _OPTIONAL and (not self.store.synced or kind in self._absent):
            self.world.absent_kinds.add(kind)
            if resource is LEADER_WORKER_SET:
                log.info("no engine can span several nodes until LeaderWorkerSet's CustomResourceDefinition is applied")
            elif kind not in self._absent:
                log.warning("%ss aren't looked after until their CustomResourceDefinition is applied", kind)
            self._absent.add(kind)
            return False
        if self.store.synced:
            raise TypesChangedError(f"the cluster knows no {kind} any more: apply its CustomResourceDefinition again")
        if kind not in self._missing:
            log.error("the cluster knows no %s: apply its CustomResourceDefinition; it is awaited", kind)
        self._missing.add(kind)
        await asyncio.sleep(self.type_seconds)
        return True

    async def _await_absent(self) -> None:
        """Raise TypesChangedError once a type is there that wasn't when this process began: nothing watches it."""
        absent = [each for each in WATCHED if each.resource.kind in self._absent]
        while True:
            await asyncio.sleep(self.type_seconds)
            for watched in absent:
                try:
                    await self._list(watched)
                except ApiError:
                    continue
                raise TypesChangedError(f"the cluster knows {watched.resource.kind}s now: beginning anew to watch them")

    async def _list(self, watched: Watched) -> tuple[list[Manifest], int]:
        return await self._free.list(
            watched.resource, namespace=self._settings.namespace, selector=watched.selector,
            keep=self.store.known_version,
        )  # fmt: skip

    async def _reconcile(self, key: Key) -> None:
        await self._reconcilers[key.kind](key)

    def _changed(self, old: Entry | None, new: Entry | None) -> None:
        self.world.changed(old, new)
        self._conditions.changed(old, new)
        if old is not None and new is None and old.key.kind in self._kinds:
            self._kinds[old.key.kind].gone(old)
        if not self._may_work.is_set():
            return
        # What a person has just corrected is looked at now, however often it failed before.
        asked = new.key if new is not None and asks_anew(old, new) else None
        # Nobody is answered by a new object yet: a thousand of them at once go before nothing.
        first = asked is not None and old is not None
        others = []
        for woken_ in woken(self.world, old, new):
            if isinstance(woken_, Route):
                self._wake_route(woken_.namespace, woken_.pool, woken_.twin, first=first)
            else:
                others.append(woken_)
        # After the routing, which patients wait for: the API server takes one thing after another.
        for woken_ in others:
            if isinstance(woken_, Soon):
                self.queue.add_after(woken_.key, SOON_SECONDS)
            else:
                self.queue.add(woken_, urgent=woken_ == asked, first=first and woken_ == asked)

    def _wake(self, key: Key) -> None:
        if self._may_work.is_set():
            self.queue.add(key)

    def _wake_route(self, namespace: str, pool: str, twin: str | None, *, first: bool = False) -> None:
        self.routing.mark(namespace, pool, twin)
        self.queue.add(Key(ROUTING, namespace, pool), first=first)

    def _add_all(self) -> None:
        for resource in PRIMARY:
            for entry in self.store.of_kind(resource.kind):
                self.queue.add(entry.key)
        for entry in self.store.of_kind(MINER_POOL.kind):
            # At once: statuses tell what could not be published, so that is to be known before them.
            self.routing.mark(entry.key.namespace, entry.key.name, None)
            self.queue.add(Key(ROUTING, entry.key.namespace, entry.key.name))
            self.queue.add(Key(POOL_TASKS, entry.key.namespace, entry.key.name))

    def _gained(self) -> None:
        """Look at everything; it has just been listed anew, since what was seen before may be older than the Lease."""
        self._may_work.set()
        self._add_all()

    def _lost(self) -> None:
        self._may_work.clear()
        self.queue.clear()
        self.world.forget_findings()

    def _place_anew(self, pool: Pool) -> None:
        if self._may_work.is_set():
            self._wake_route(pool.namespace, pool.name, None)

    def _tell_and_place_anew(self, pool: Pool) -> None:
        self._wake(Key(MINER_POOL.kind, pool.namespace, pool.name))
        self._place_anew(pool)

    async def _measure(self, watch: CanaryWatch | ScalingWatch | ActivityWatch | ReplicaWatch | BaselineWatch) -> None:
        await self._may_work.wait()
        await watch.run()

    async def _resync(self) -> None:
        """Bring back what was missed, every now and then; jittered, so that replicas don't do it at once."""
        for number in itertools.count(1):
            await asyncio.sleep(self._settings.resync_seconds * random.uniform(0.8, 1.2))  # noqa: S311
            try:
                await self.relist()
            except* ApiError as group:
                log.warning("resync: %s", group.exceptions[0])
            set_aside(whole=number % WHOLE_EVERY == 0)
            if self._may_work.is_set():
                self._add_all()


def _and(kinds: Iterable[str]) -> str:
    *others, last = sorted(kinds)
    return f"{', '.join(others)} and {last}" if others else last


async def _escalate(election: asyncio.Task[None]) -> None:
    """Let a defect in the election end the process instead of leaving it running without a leader."""
    await asyncio.wait({election})
    if not election.cancelled() and (error := election.exception()) is not None:
        raise error

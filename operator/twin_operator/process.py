"""One operator process: its caches, its queue with workers, its part in the election, its health endpoint."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from types import TracebackType
from typing import Self

from kubernetes.aio.client.api_client import ApiClient

from bettertherapy_api import names
from twin_operator.engine.api import Api, configuration_from_environment
from twin_operator.engine.cache import Cache
from twin_operator.engine.events import EventPoster
from twin_operator.engine.lease import Leadership, LeaseSettings
from twin_operator.engine.prometheus import Prometheus
from twin_operator.engine.queue import Queue, work
from twin_operator.engine.resources import Key, Manifest, Resource, key_of
from twin_operator.errors import ApiError
from twin_operator.kinds.doctor_twin.reconcile import DoctorTwinReconciler
from twin_operator.kinds.finetune_run.reconcile import FineTuneRunReconciler
from twin_operator.kinds.miner_pool.reconcile import MinerPoolReconciler
from twin_operator.kinds.resources import BY_KIND, PRIMARY, WATCHED
from twin_operator.kinds.wakeups import concerned
from twin_operator.settings import Settings

log = logging.getLogger(__name__)

_HUNG_SECONDS = 300.0
_ELECTION_SECONDS = 60.0


def selector_of(resource: Resource) -> str | None:
    """Return the label selector by which a resource is watched: our children by their component, our own kinds all."""
    return None if resource in PRIMARY else names.LABEL_COMPONENT


class Process:
    """Use as `async with Process(settings, client) as process`; then `run` it beside kopf, which feeds `observe`."""

    def __init__(self, settings: Settings, client: ApiClient) -> None:
        self._settings = settings
        self._free = Api(
            client,
            request_seconds=settings.request_seconds,
            resources=BY_KIND,
            user_agent=f"twin-operator/{settings.identity}",
        )
        self._prometheus = (
            Prometheus(settings.prometheus_url, request_seconds=settings.request_seconds)
            if settings.prometheus_url
            else None
        )
        self.queue = Queue(urgent=["MinerPool"])
        self.cache = Cache(self._changed)
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
        api = self._free.guarded_by(self.leadership.require)
        events = EventPoster(api, instance=settings.identity)
        pools = MinerPoolReconciler(api=api, cache=self.cache, events=events, images=settings.images)
        twins = DoctorTwinReconciler(
            api=api, cache=self.cache, events=events, wake=self.queue.add, wake_at=self.queue.add_at,
            window_seconds=settings.fine_tune_window_seconds, prometheus=self._prometheus,
            matchers=settings.prometheus_matchers,
        )  # fmt: skip
        runs = FineTuneRunReconciler(
            api=api, cache=self.cache, events=events, images=settings.images, wake_at=self.queue.add_at
        )
        self._reconcilers = {
            "MinerPool": pools.reconcile, "DoctorTwin": twins.reconcile, "FineTuneRun": runs.reconcile,
        }  # fmt: skip

    @classmethod
    async def connect(cls, settings: Settings) -> Process:
        """Return a process with a connection to the API server of the environment."""
        return cls(settings, ApiClient(await configuration_from_environment()))

    async def __aenter__(self) -> Self:
        await self.relist()
        self.cache.synced = True
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
            self.cache.remove(whole)
        else:
            self.cache.put(whole)

    async def run(self) -> None:
        """Work until cancelled; then stop writing and give the Lease back."""
        election = asyncio.create_task(self.leadership.run(), name="election")
        try:
            async with asyncio.TaskGroup() as tasks:
                for number in range(self._settings.workers):
                    tasks.create_task(
                        work(self.queue, self._reconcile, may_work=self._may_work), name=f"worker-{number}"
                    )
                tasks.create_task(self._resync(), name="resync")
                tasks.create_task(_escalate(election), name="election-watch")
        finally:
            # The workers are done: nobody writes any more, so the next leader may begin.
            election.cancel()
            await asyncio.wait({election}, timeout=self._settings.request_seconds)

    async def relist(self) -> None:
        """List everything once: the start, and now and then against whatever a watch has lost."""
        async with asyncio.TaskGroup() as tasks:
            for resource in WATCHED:
                tasks.create_task(self._relist(resource))

    def unhealthy(self) -> str | None:
        """Return what hangs, or None."""
        now = time.monotonic()
        if now - self.leadership.ticked_at > _ELECTION_SECONDS:
            return "the election has not gone round for a minute"
        hung = [str(key) for key, begun in self.queue.started_at.items() if now - begun > _HUNG_SECONDS]
        return f"reconciling hangs: {', '.join(hung)}" if hung else None

    def unready(self) -> str | None:
        """Return why this replica could not take over, or None."""
        return None if self.cache.synced else "the caches are being filled"

    async def _relist(self, resource: Resource) -> None:
        things, version = await self._free.list(
            resource, namespace=self._settings.namespace, selector=selector_of(resource)
        )
        self.cache.replace(resource, things, version=version, namespace=self._settings.namespace)

    async def _reconcile(self, key: Key) -> None:
        await self._reconcilers[key.kind](key)

    def _changed(self, old: Manifest | None, new: Manifest | None) -> None:
        if self._may_work.is_set():
            for key in concerned(self.cache, old, new):
                self.queue.add(key)

    def _add_all(self) -> None:
        for resource in PRIMARY:
            for thing in self.cache.of_kind(resource.kind):
                self.queue.add(key_of(thing))

    def _gained(self) -> None:
        self._may_work.set()
        self._add_all()

    def _lost(self) -> None:
        self._may_work.clear()
        self.queue.clear()

    async def _resync(self) -> None:
        """Bring back what was missed, every now and then; jittered, so that replicas don't do it at once."""
        while True:
            await asyncio.sleep(self._settings.resync_seconds * random.uniform(0.8, 1.2))  # noqa: S311
            try:
                await self.relist()
            except* ApiError as group:
                log.warning("resync: %s", group.exceptions[0])
            if self._may_work.is_set():
                self._add_all()


async def _escalate(election: asyncio.Task[None]) -> None:
    """Let a defect in the election end the process instead of leaving it running without a leader."""
    await asyncio.wait({election})
    if not election.cancelled() and (error := election.exception()) is not None:
        raise error

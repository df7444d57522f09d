"""The miner as a process: start everything, listen, and leave without cutting an answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from bettertherapy_api.report import PodRef
from neurons.http_server import HttpServer
from neurons.lessons.model import load_embedder
from neurons.metrics_port import MetricsPort
from neurons.miner.access import AccessList
from neurons.miner.bodies import bounded_request
from neurons.miner.demand import Demand
from neurons.miner.demand_report import report_demand
from neurons.miner.doors import Doors, SignedDoor
from neurons.miner.lesson_feed import LessonFeed
from neurons.miner.lessons import Lessons
from neurons.miner.metrics import Metrics
from neurons.miner.relay import Relay
from neurons.miner.server import MinerServer
from neurons.miner.settings import SIGNED_DOOR, TOKEN_DOOR, Settings
from neurons.miner.source import follow_cluster, follow_folder
from neurons.miner.tables import Tables
from neurons.pool_tokens import PoolTokens

if TYPE_CHECKING:
    from neurons.miner.subnet import Subnet
    from neurons.miner.tasks import TaskBook

log = logging.getLogger(__name__)

BACKLOG: Final = 1024
LAST_BYTES_SECONDS: Final = 5.0
"""How long the last answers may take to leave once they are complete."""


class MinerService:
    """One miner. `run` returns when it has been told to stop and has drained."""

    def __init__(self, settings: Settings, *, metrics: Metrics | None = None) -> None:
        """Raises StartError for a wallet without a usable hotkey."""
        self._settings = settings
        self.metrics = metrics or Metrics()
        self.tables = Tables(self.metrics, pool=settings.pool)
        self._subnet = _subnet(settings, self.metrics)
        stamper = self._subnet.stamper(lambda: self.tables.base) if self._subnet is not None else None
        self._lessons: Lessons | None = None
        if settings.lessons != "off":
            self._lessons = Lessons(
                self.metrics,
                floor=settings.lesson_floor,
                load=load_embedder,
                liked_unapproved=settings.lessons == "all",
            )
        self._demand = Demand()
        self._tokens = PoolTokens(settings.tokens_dir)
        self.relay = Relay(
            self.tables, self.metrics, settings, stamper=stamper, lessons=self._lessons, demand=self._demand,
            tokens=self._tokens,
        )  # fmt: skip
        self.port = 0
        """The port it listens on, once `listening` is set."""
        self.metrics_port = 0
        """And that of its metrics."""
        self.listening = asyncio.Event()
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """Begin to drain; a second call changes nothing."""
        if not self._stop.is_set():
            log.info("draining", extra={"in_flight": self.relay.in_flight})
            self.relay.draining = True  # before the loop turns: /readyz must say so from now on
            self._stop.set()

    async def run(self) -> None:
        """Serve until `stop`; raises what a follower raises for want of any way to its source."""
        settings = self._settings
        access = AccessList(
            settings.access_dir, secret=settings.access_secret, namespace=settings.namespace, metrics=self.metrics
        )
        if settings.tables_dir is not None:
            source = follow_folder(self.tables, settings.tables_dir)
        else:
            source = follow_cluster(self.tables, pool=settings.pool, namespace=settings.namespace)
        subnet = self._subnet
        book = self._task_book(subnet) if subnet is not None else None
        feed: LessonFeed | None = None
        if self._lessons is not None:
            feed = LessonFeed(
                self._lessons, self.metrics, lambda: self.tables.snapshot, lap_seconds=settings.lessons_seconds,
                tokens=self._tokens,
            )  # fmt: skip
        server = MinerServer(
            tables=self.tables,
            relay=self.relay,
            doors=Doors(tokens=access if TOKEN_DOOR in settings.doors else None, signed=self._signed_door()),
            metrics=self.metrics,
            settings=settings,
            learning=(lambda: feed.waiting) if feed is not None else (lambda: False),
            announce=None if subnet is None else lambda: subnet.announcement(self.tables.snapshot, self.tables.base),
            tasks=None if book is None else book.offered,
        )
        more: list[Coroutine[Any, Any, None]] = []
        if subnet is not None and book is not None:
            more = [*subnet.followers(), *self._reporting(subnet, book), *self._tasks(subnet, book)]
        elif (wakes := self._waking()) is not None:
            more = [wakes]
        if feed is not None:
            more.append(feed.run())
        try:
            async with self.relay, self._metrics_door() as metrics:
                self.metrics_port = metrics.port
                await self._serve(server, followers=(source, access.follow(), self._tokens.follow(), *more))
        finally:
            if self._lessons is not None:
                self._lessons.close()
            if subnet is not None:
                await subnet.close()

    def _metrics_door(self) -> MetricsPort:
        async def page() -> bytes:
            return await asyncio.to_thread(self.metrics.render)

        async def openmetrics() -> bytes:
            return await asyncio.to_thread(self.metrics.render_openmetrics)

        return MetricsPort(page, host=self._settings.host, port=self._settings.metrics_port, openmetrics=openmetrics)

    def _reporting(self, subnet: Subnet, book: TaskBook) -> list[Coroutine[Any, Any, None]]:
        """Tell the operator of the subnet, where there is one to tell."""
        own = self._settings.subnet
        if own is None or own.pod_name is None or own.pod_uid is None or self._settings.tables_dir is not None:
            return []
        from neurons.miner.registration_report import report_standing  # noqa: PLC0415 - as the SDK

        demand = self._demand if self._settings.wakes else None
        if demand is not None:
            demand.changed = subnet.news.set
        return [report_standing(self._settings, subnet, claims=lambda: book.claims, demand=demand)]

    def _waking(self) -> Coroutine[Any, Any, None] | None:
        """Tell the operator of a demand, where there is one to tell, and no report on a subnet that says it too."""
        settings = self._settings
        if not settings.wakes or settings.pod is None or settings.tables_dir is not None:
            return None
        name, uid = settings.pod
        return report_demand(
            self._demand, pod=PodRef(name=name, uid=uid), namespace=settings.namespace, pool=settings.pool
        )  # fmt: skip

    def _task_book(self, subnet: Subnet) -> TaskBook:
        """Return what answers validators' offers, where there is a wallet that signs the answers."""
        from neurons.miner.tasks import TaskBook, TaskPolicy  # noqa: PLC0415 - as the SDK

        own = self._settings.subnet
        assert own is not None  # noqa: S101 - there is a subnet
        return TaskBook(
            subnet.keypair, policy=TaskPolicy(accept=own.tasks, netuid=own.netuid),
            snapshot=lambda: self.tables.snapshot, changed=subnet.news.set,
        )  # fmt: skip

    def _tasks(self, subnet: Subnet, book: TaskBook) -> list[Coroutine[Any, Any, None]]:
        """Follow what the operator says of tasks, and report it, where any are taken."""
        settings = self._settings
        if settings.subnet is None or not settings.subnet.tasks:
            return []
        from neurons.miner.task_feed import TaskReporter, follow_cluster_tasks, follow_folder_tasks  # noqa: PLC0415

        if settings.tables_dir is not None:
            following = follow_folder_tasks(book, settings.tables_dir / "tasks", news=subnet.news)
        else:
            following = follow_cluster_tasks(book, namespace=settings.namespace, pool=settings.pool)
        return [following, TaskReporter(book, loopback=settings.tables_dir is not None).run()]

    def _signed_door(self) -> SignedDoor | None:
        return self._subnet if SIGNED_DOOR in self._settings.doors else None

    async def _serve(self, server: MinerServer, *, followers: tuple[Coroutine[Any, Any, None], ...]) -> None:
        settings = self._settings
        runner = web.ServerRunner(
            HttpServer(server.handle, request_factory=bounded_request, most_connections=settings.max_connections),
            shutdown_timeout=LAST_BYTES_SECONDS,
        )
        await runner.setup()
        site = web.TCPSite(runner, settings.host, settings.port, backlog=BACKLOG)
        await site.start()
        self.port = runner.addresses[0][1]
        self.listening.set()
        log.info(
            "listening",
            extra={
                "port": self.port,
                "metrics_port": self.metrics_port,
                "pool": settings.pool,
                "namespace": settings.namespace,
            },
        )
        tasks = [asyncio.create_task(follower) for follower in followers]
        stopped = asyncio.create_task(self._stopped())
        try:
            await asyncio.wait([*tasks, stopped], return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()  # a follower only ends by an error: without it this miner would never learn anything
            await asyncio.sleep(settings.drain_delay_seconds)
            await site.stop()
            await self._finish()
        finally:
            for task in (*tasks, stopped):
                task.cancel()
            await asyncio.gather(*tasks, stopped, return_exceptions=True)
            await runner.cleanup()

    async def _stopped(self) -> None:
        await self._stop.wait()

    async def _finish(self) -> None:
        if await self.relay.idle(self._settings.drain_seconds):
            log.info("drained")
        else:
            log.error(
                "requests were cut: they ran longer than drainSeconds",
                extra={"in_flight": self.relay.in_flight, "drain_seconds": self._settings.drain_seconds},
            )


def _subnet(settings: Settings, metrics: Metrics) -> Subnet | None:
    if settings.subnet is None:
        return None
    from neurons.miner.subnet import Subnet  # noqa: PLC0415 - it loads the SDK, which no miner without a wallet needs

    return Subnet.open(settings.subnet, registry=metrics.registry)

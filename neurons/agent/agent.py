"""One agent, wired: routing in, adapters into the engine, report out, and the door in front."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from aiohttp import web

from bettertherapy_api import names
from bettertherapy_api.manifest import AdapterManifest, manifest_digest
from bettertherapy_api.report import MAX_ADAPTERS, MAX_MESSAGE, EngineReport, FailureReason, PodRef, PodReport, Slots
from neurons.agent.base_digest import BaseDigest
from neurons.agent.base_sizes import BaseSizes
from neurons.agent.drain import Drain
from neurons.agent.engine import EngineClient, EngineError
from neurons.agent.keeper import AdapterKeeper, Fetch
from neurons.agent.lessons import FOLDER, LessonKeeper
from neurons.agent.metrics import CONTENT_TYPE, AgentMetrics
from neurons.agent.monitor import EngineMonitor
from neurons.agent.oddities import OddAnswers
from neurons.agent.proxy import GENERATION_PATHS, Proxy, problem
from neurons.agent.reporting import Publish, Reporter
from neurons.agent.roster import Roster
from neurons.agent.saved_routing import load_routing, save_routing
from neurons.agent.second_looks import SecondLooks
from neurons.agent.settings import Settings
from neurons.agent.template import ChatTemplate
from neurons.agent.traffic import Traffic
from neurons.cluster import Backoff, Change, Event, RoutingView, in_turns
from neurons.http_server import HttpServer
from neurons.metrics_port import MetricsPort
from neurons.pool_tokens import PoolTokens
from neurons.store import fetch_adapter, read_manifest
from neurons.store.errors import DigestMismatch

log = logging.getLogger(__name__)

SLOT_WINDOW_SECONDS: Final = 60.0
"""An adapter that ran a request within this time is counted as using a slot."""
_SLOT_LOOK_SECONDS: Final = 10.0
LESSONS_PATH: Final = "/agent/v1/lessons"
_OPEN_PATHS: Final = frozenset({"/healthz", "/readyz"})
"""What the kubelet asks, which has no token."""
_SHUTDOWN_QUIET_SECONDS: Final = 1.0
TWINS_AT_ONCE: Final = 50
"""So many are taken into the roster before others have the loop."""
_SAVE_SECONDS: Final = 0.2
"""Between two saves of the routing, so that a thousand changes make few."""
_WAITS_FOR_STORE: Final = (FailureReason.STORE_UNREACHABLE, FailureReason.NO_SPACE)

Routing = AsyncIterable[Event]
"""What becomes of the pool's RoutingSlices; an ObjectWatch of them is one."""


class Agent:
    """Everything that runs in the sidecar. `async with Agent(...)`: it serves and works until the context ends."""

    def __init__(self, settings: Settings, *, routing: Routing, publish: Publish, fetch: Fetch | None = None) -> None:
        self.settings = settings
        self._routing = routing
        self.view = RoutingView(settings.pool)
        self._untaken: set[str] = set()
        """UIDs of twins whose change the roster has not been told yet."""
        self._unsaved = asyncio.Event()
        self.traffic = Traffic()
        self.metrics = AgentMetrics()
        self._local = settings.endpoint is None
        self.engine = EngineClient(
            socket=settings.socket if self._local else None,
            endpoint=settings.endpoint,
            endpoint_key_file=settings.endpoint_key_file,
            poll_seconds=settings.poll_seconds,
            load_seconds=settings.load_seconds,
            request_seconds=settings.request_seconds,
        )
        self.monitor = EngineMonitor(
            self.engine,
            self.traffic,
            wedged_file=settings.wedged_file if self._local else None,
            socket=settings.socket if self._local else None,
            wedge_seconds=settings.wedge_seconds,
        )
        self.roster = Roster(
            settings,
            engine=self.engine,
            monitor=self.monitor,
            traffic=self.traffic,
            fetch=fetch or _fetcher(settings),
            changed=self._on_change,
            moved=partial(self._on_change, under_way=True),
            loaded=self._on_loaded,
            demanded=lambda outcome: self.metrics.on_demand.labels(outcome).inc(),
        )
        self.roster.known_answers.looked = self._on_change
        self.second_looks = SecondLooks(
            self.roster,
            self.monitor,
            self.traffic,
            looked=lambda outcome: self.metrics.second_looks.labels(outcome).inc(),
        )
        self.template = ChatTemplate(self.engine, self.roster.measuring, self.monitor, changed=self._on_change)
        self.base = BaseDigest(settings.base_model_dir if self._local else None, self.monitor, changed=self._on_change)
        self.monitor.eager = lambda: not self.roster.all_verified()
        self.lessons = LessonKeeper(
            lambda: self.view.twins,
            folder=settings.adapters_dir / FOLDER,
            store_uri=settings.store_uri,
            pvc_dir=settings.pvc_dir,
            lap_seconds=settings.lessons_seconds,
        )
        self.tokens = PoolTokens(settings.tokens_dir)
        self.proxy = Proxy(
            engine=self.engine,
            monitor=self.monitor,
            roster=self.roster,
            traffic=self.traffic,
            metrics=self.metrics,
            odd_answers=OddAnswers(
                enough=self.second_looks.suspect, count=lambda kind: self.metrics.odd_answers.labels(kind.value).inc()
            ),
            pod=settings.pod_name,
            max_body_bytes=settings.max_body_bytes,
            max_in_flight=settings.max_in_flight,
            demand_seconds=settings.demand_seconds,
            images=settings.images,
        )
        self.drain = Drain(
            drain_file=settings.drain_file,
            drained_file=settings.drained_file,
            traffic=self.traffic,
            monitor=self.monitor,
            changed=self._on_change,
        )
        self._reporter = Reporter(
            self.report,
            publish,
            metrics=self.metrics,
            backoff=Backoff(first=settings.retry_first, most=10.0),
        )
        self.monitor.listeners.append(self._on_change)
        self._awaited: set[str] | None = None
        self._ready_epoch = 0
        self._stopping = False
        self._slots_used = 0
        self._slots_looked_at = 0.0
        self._pages: dict[str, Callable[[], Awaitable[web.Response]]] = {
            "/v1/models": self.proxy.models,
            "/healthz": self._health_page,
            "/readyz": self._ready_page,
            "/agent/v1/status": self._status_page,
            LESSONS_PATH: self._lessons_page,
        }
        self._stack = AsyncExitStack()
        self.failed = asyncio.Event()
        """Set when a part of the agent ended by a defect: end the process, so that it is started anew."""
        self.port, self.metrics_port = settings.port, settings.metrics_port

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.engine)
            if self._local:
                self.settings.run_dir.mkdir(parents=True, exist_ok=True)
            stack.push_async_callback(self.roster.close)
            stack.push_async_callback(self._save_now)
            await self._load_saved_routing()
            for work in (
                self.monitor.run,
                self.roster.known_answers.run,
                self.second_looks.run,
                self.template.run,
                self.base.run,
                self._follow_routing,
                self._save_routing,
                self._reporter.run,
                self.lessons.run,
                self.tokens.follow,
            ):
                await stack.enter_async_context(self._background(work))
            if self._local:
                await stack.enter_async_context(self._background(self.drain.run))
            await self._listen(stack)
            self._stack = stack.pop_all()
        self._on_change()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def shut_down(self) -> None:
        """Leave decently: take no new requests, let the running ones end (drain_seconds at most), take the report away.

        Beside an engine, kubelet stops the sidecar after the engine, when nothing runs any more and this is quick.
        """
        self._stopping = True
        self._on_change()
        if not self._local:
            await asyncio.sleep(_SHUTDOWN_QUIET_SECONDS)
        with suppress(TimeoutError):
            async with asyncio.timeout(self.settings.drain_seconds):
                await self.traffic.idle()
        await self._reporter.withdraw()

    # --- what it says

    @property
    def draining(self) -> bool:
        """Whether new requests are refused because the pod stops."""
        return self.drain.active or self._stopping

    @property
    def ready(self) -> bool:
        """The engine answers, what was desired when it came up is settled, and nothing drains."""
        return self.monitor.live and self._ready_epoch == self.monitor.epoch and not self.draining

    def report(self) -> PodReport:
        """Return the pod's report as of now."""
        pool, monitor = self.roster.pool, self.monitor
        slots = None
        if pool is not None and self._local:
            slots = Slots(used=min(self._slots_used, pool.max_loras), total=pool.max_loras)
        return PodReport(
            pod=PodRef(name=self.settings.pod_name, uid=self.settings.pod_uid),
            ready=self.ready,
            draining=self.draining,
            engine=EngineReport(
                live=monitor.live,
                wedged=monitor.wedged,
                version=monitor.version[:64] if monitor.version else None,
                started_at=monitor.started_at,
                max_model_length=monitor.max_model_length,
                message=monitor.message[:MAX_MESSAGE] if monitor.message else None,
                base_digest=self.base.digest,
                template_refusal=refusal[:MAX_MESSAGE] if (refusal := self.template.refusal) else None,
            ),
            adapters=dict(sorted(self.roster.reports().items())[:MAX_ADAPTERS]),
            slots=slots,
            cold_start_seconds=monitor.cold_start_seconds,
            observed_generation=pool.generation if pool is not None else None,
        )

    def _on_change(self, *, under_way: bool = False) -> None:
        self.proxy.draining = self.draining
        self.roster.on_demand.stop(self.draining)
        self._look_at_readiness()
        self._look_at_slots()
        self._reporter.changed(under_way=under_way)

    def _on_loaded(self, seconds: float) -> None:
        self.metrics.load_seconds.observe(seconds)
        self.roster.known_answers.look_soon()

    def _look_at_readiness(self) -> None:
        """Latch readiness per engine process: a twin that is added later must not take the pod out of service."""
        if not self.monitor.live or self.roster.pool is None or self._ready_epoch == self.monitor.epoch:
            return
        if self._untaken:
            return  # not all that is desired is on its way yet
        if self._awaited is None:
            self._awaited = {keeper.name for keeper in self.roster.keepers()}
        if not self.roster.known_answers.settled:
            return  # the base model may answer with another's weights beside the adapters that came
        if all(self._settled(keeper) for keeper in self.roster.keepers() if keeper.name in self._awaited):
            self._ready_epoch = self.monitor.epoch
            self._awaited = None

    def _settled(self, keeper: AdapterKeeper) -> bool:
        if keeper.verified:
            return True
        failure = keeper.failure
        if failure is None or failure.reason is FailureReason.ENGINE_UNREACHABLE:
            return False
        if failure.reason in _WAITS_FOR_STORE:
            # A pod that can get nothing must not replace one that has all. If others came through, it is this one.
            others = any(other.verified for other in self.roster.keepers())
            return others and keeper.failing_seconds() >= self.settings.settle_seconds
        return True

    def _look_at_slots(self) -> None:
        now = time.monotonic()
        if now - self._slots_looked_at >= _SLOT_LOOK_SECONDS:
            self._slots_looked_at = now
            used = self.traffic.used_within(SLOT_WINDOW_SECONDS)
            self._slots_used = sum(keeper.name in used for keeper in self.roster.keepers())

    # --- what it hears

    async def _load_saved_routing(self) -> None:
        saved = await asyncio.to_thread(load_routing, self.settings.routing_file)
        if saved is not None and (change := self.view.put(saved)) and self.view.header is not None:
            generation = self.view.header.generation
            log.info("going on with the routing of generation %d until the API server is heard", generation)
            await self._take(change)

    async def _follow_routing(self) -> None:
        async for event in self._routing:
            change = await in_turns(self.view.taking(event))
            if change.twins or change.header:
                await self._take(change)
                self._unsaved.set()
        log.warning("no more routing is coming; the last one stays")
        await asyncio.Event().wait()

    async def _take(self, change: Change) -> None:
        self._untaken |= change.twins
        if change.twins:
            self.proxy.twins = frozenset(twin.name for twin in self.view.twins.values())
        if self.view.header is None:
            return
        self.proxy.limit(self.view.header.max_running)
        if self.roster.pool is None and self._local:
            await asyncio.to_thread(self.roster.prepare, dict(self.view.twins))
        # What comes first, then what is gone: what one twin hands to another is not let go in between.
        waiting = sorted(self._untaken, key=lambda uid: uid not in self.view.twins)
        for at in range(0, max(1, len(waiting)), TWINS_AT_ONCE):
            part = waiting[at : at + TWINS_AT_ONCE]
            self._untaken -= set(part)
            self.roster.apply(self.view.header, self.view.twins, changed=part)
            if self._untaken:
                await asyncio.sleep(0)

    async def _save_routing(self) -> None:
        while True:
            await self._unsaved.wait()
            await self._save_now()
            await asyncio.sleep(_SAVE_SECONDS)

    async def _save_now(self) -> None:
        if self._unsaved.is_set():
            self._unsaved.clear()
            await asyncio.to_thread(lambda: save_routing(self.settings.routing_file, self.view.saved()))

    @asynccontextmanager
    async def _background(self, work: Callable[[], Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
        """Run a coroutine function for as long as the context lasts."""
        task = asyncio.create_task(work())
        task.add_done_callback(self._on_end)
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait({task})

    def _on_end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.critical("a part of the agent failed", exc_info=error)
            self.failed.set()

    # --- its door

    async def _listen(self, stack: AsyncExitStack) -> None:
        # web.Server and not web.Application: no router, no path normalising, no middlewares between wire and check.
        server = HttpServer(self._handle)
        runner = web.ServerRunner(server, shutdown_timeout=1.0)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, self.settings.host, self.settings.port, backlog=1024)
        await site.start()
        self.port = runner.addresses[0][1]
        metrics = MetricsPort(
            self._metrics_page,
            host=self.settings.host,
            port=self.settings.metrics_port,
            content_type=CONTENT_TYPE,
        )
        self.metrics_port = (await stack.enter_async_context(metrics)).port

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if "upgrade" in request.headers:
            return problem(400, "BadRequestError", "no upgrades here")
        path, _, query = request.raw_path.partition("?")
        if path not in _OPEN_PATHS and (refusal := self._stranger(request)) is not None:
            return refusal
        if path in GENERATION_PATHS and request.method == "POST" and not query:
            return await self.proxy.generate(request, path)
        page = self._pages.get(path) if request.method == "GET" else None
        if page is None and request.method == "GET" and path.startswith(f"{LESSONS_PATH}/"):
            return self._lessons_file(path.removeprefix(f"{LESSONS_PATH}/"))
        if page is None:
            self.metrics.refused.labels("not_allowed").inc()
            return problem(404, "NotFoundError", "no such route here")
        return await page()

    def _stranger(self, request: web.BaseRequest) -> web.Response | None:
        """Return the refusal of whoever isn't a miner of this pool; None of one who is.

        As long as the operator doesn't say that all miners bring tokens, some may be of the release before.
        """
        if self.view.header is None or not self.view.header.miners_have_tokens:
            return None
        if self.tokens.admits(request.headers.get(names.POOL_TOKEN_HEADER)) or self.tokens.admits(_bearer(request)):
            return None
        self.metrics.refused.labels("stranger").inc()
        if not self.tokens.known:
            message = "this pod has no token by which it knows its miners yet: the pool's Secret is missing or empty"
            return problem(503, "NoTokens", message, headers={names.RETRY_HEADER: "other-pod", "Retry-After": "1"})
        return problem(401, "NotAMiner", "this is a door for the miners of this pool: ask one of those")

    async def _health_page(self) -> web.Response:
        return web.Response(text="ok\n")

    async def _ready_page(self) -> web.Response:
        return web.Response(status=200 if self.ready else 503, text=f"{self._readiness()}\n")

    async def _status_page(self) -> web.Response:
        return web.Response(text=self.report().to_json(), content_type="application/json")

    async def _lessons_page(self) -> web.Response:
        return web.Response(body=self.lessons.index(), content_type="application/json")

    def _lessons_file(self, digest: str) -> web.Response:
        data = self.lessons.file(f"sha256:{digest}")
        if data is None:
            return problem(404, "NotFoundError", "no twin has such lessons now")
        return web.Response(body=data, content_type="application/jsonl")

    def _readiness(self) -> str:
        if self.ready:
            return "ready"
        if self.draining:
            return "draining"
        if not self.monitor.live:
            return f"the engine is not live: {self.monitor.message}"
        if self.roster.pool is None:
            return "no routing yet"
        waiting = sorted(k.name for k in self.roster.keepers() if not self._settled(k))
        if not waiting:
            return "waiting for a look at the base model beside the adapters that came"
        return f"waiting for adapters: {', '.join(waiting)}"

    async def _metrics_page(self) -> bytes:
        page = self.metrics.text(
            adapters=self.roster.reports().values(),
            live=self.monitor.live,
            epoch=self.monitor.epoch,
            in_flight=self.traffic.total,
        )
        try:
            page += (await self.engine.metrics()).encode()
        except EngineError as error:
            log.debug("no metrics from the engine: %s", error)
        return page


def _fetcher(settings: Settings) -> Fetch:
    if settings.endpoint is None:
        sizes = BaseSizes(settings.base_model_dir)

        async def fetch(uri: str, digest: str, destination: Path) -> AdapterManifest:
            base = await sizes.known()
            return await fetch_adapter(
                uri, digest, destination, pvc_dir=settings.pvc_dir, base=base, volume=settings.adapters_dir,
                at_most=settings.adapters_bytes,
            )  # fmt: skip

        return fetch

    async def look(uri: str, digest: str, destination: Path) -> AdapterManifest:
        # A foreign server has its own files; all we need is what the adapter should be.
        manifest, data = await read_manifest(uri, pvc_dir=settings.pvc_dir)
        if (actual := manifest_digest(data)) != digest:
            raise DigestMismatch(f"{uri}: its digest is {actual}, expected {digest}. Set adapter.digest to it.")
        return manifest

    return look


def _bearer(request: web.BaseRequest) -> str | None:
    """Return the bearer token of a request: another pool's agents bring this one's there (`engine.secretRef`)."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token if scheme.lower() == "bearer" else None

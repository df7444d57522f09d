"""Send a request to a pod that holds the twin's version, and its answer back.

Until the first byte of an answer is forwarded, a request can move: to another pod, or to another version when a new
table says so. Afterwards a stream can still go on at another pod of the same version (`continuation`). A pod that
answers 421, or 503 with `x-twin-retry`, or refuses the connection has not begun, so there is no limit but the hold
time. All attempts that an engine may have begun share one budget, so that a request that kills engines doesn't go
through all of them; and the client is told not to begin anew (`x-should-retry`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Final, Self

from aiohttp import web

from bettertherapy_api import names
from neurons.miner.asked import EngineRequest
from neurons.miner.attempt import MAX_BEGUN, Attempt
from neurons.miner.cache import AnswerCache, Keeping, key_of, may_be_kept
from neurons.miner.continuation import Finish, GoOn, Impossible, plan
from neurons.miner.crowd import Crowd
from neurons.miner.demand import Demand
from neurons.miner.drawing import Drawing, Undrawn
from neurons.miner.errors import (
    JSON_HEADERS,
    RETRY_AFTER_SECONDS,
    SHOULD_RETRY_HEADER,
    RequestError,
    broken_stream,
    overloaded,
    unavailable,
    unknown_model,
)
from neurons.miner.exchange import Exchange
from neurons.miner.lessons import Lessons
from neurons.miner.metrics import CODE_BROKEN_STREAM, CODE_CLIENT_GONE, Metrics
from neurons.miner.outlet import Outlet
from neurons.miner.pod_answers import Refused, TryElsewhere
from neurons.miner.preparation import Preparation
from neurons.miner.selection import Spread, choose_pod, choose_version, usable_pods
from neurons.miner.settings import Settings
from neurons.miner.stamp import Stamper
from neurons.miner.tables import Obstacle, Pod, Snapshot, Tables, TwinRoute, VersionRoute
from neurons.miner.templates import Templates
from neurons.miner.tracing import exemplar_of
from neurons.miner.turns import Turn, Turns, in_whole_seconds
from neurons.miner.upstream import Upstream
from neurons.pool_tokens import PoolTokens

FIRST_PAUSE_SECONDS: Final = 0.05
MAX_PAUSE_SECONDS: Final = 0.5
LOOK_SECONDS: Final = 1.0
"""Whoever waits for a place looks so often whether its pods are still the same."""


class Relay:
    """All requests of one miner; use as `async with Relay(...) as relay`."""

    def __init__(
        self,
        tables: Tables,
        metrics: Metrics,
        settings: Settings,
        *,
        stamper: Stamper | None = None,
        lessons: Lessons | None = None,
        demand: Demand | None = None,
        tokens: PoolTokens | None = None,
    ) -> None:
        """Without a `stamper`, answers have no receipts; without `lessons`, prompts hold none.

        `demand` is told of requests that no engine pod is there for; `tokens`: by which agents know this miner.
        """
        self._demand = demand or Demand()
        self._tables, self._metrics, self._settings = tables, metrics, settings
        self._upstream = Upstream(connect_seconds=settings.connect_seconds, tokens=tokens)
        self._templates = Templates(metrics, self._upstream)
        self._drawing = Drawing(settings, metrics)
        self._preparation = Preparation(self._upstream, lessons, metrics, history=settings.history)
        self._exchange = Exchange(self._upstream, self._templates, metrics, stamper, self._drawing)
        self._cache = (
            AnswerCache(max_bytes=settings.cache_bytes, max_seconds=settings.cache_seconds)
            if settings.cache_bytes and settings.cache_seconds
            else None
        )
        self._spread = Spread()
        self._turns = Turns(settings.twin_weights, waited=metrics.turn_seconds.observe)
        self._running = Crowd(settings.max_in_flight)
        self._held = Crowd(settings.max_held)
        self.draining = False
        self._idle = asyncio.Event()

    async def __aenter__(self) -> Self:
        await self._upstream.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._upstream.__aexit__()

    @property
    def in_flight(self) -> int:
        """Requests now, waiting ones included."""
        return self._running.total

    async def idle(self, seconds: float) -> bool:
        """Wait until no request runs, at most `seconds`; tell whether none does."""
        try:
            async with asyncio.timeout(seconds):
                while self.in_flight:
                    self._idle.clear()
                    await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def answer(
        self, asked: EngineRequest, *, client: str, session: bytes, outlet: Outlet, trace: Mapping[str, str]
    ) -> web.StreamResponse:
        """Answer one checked request; raises RequestError when nothing was forwarded yet."""
        started = time.monotonic()
        twin = self._admit(asked.twin, client)
        attempt = Attempt(
            asked=asked,
            session=session,
            outlet=outlet,
            headers={**JSON_HEADERS, names.TWIN_HEADER: twin.name, **trace},
            started=started,
            twin=twin,
            turn=self._turns.turn(twin.name, client),
            draws=self._drawing.wanted(asked),
        )
        code = CODE_CLIENT_GONE
        self._running.begin(twin.name, client)
        self._spread.begin(twin.name)
        try:
            async with asyncio.timeout(self._settings.request_seconds):
                response = await self._answer(attempt)
            code = attempt.passed_code or str(response.status)
        except RequestError as error:
            code = str(error.status)
            if not outlet.begun:
                raise
            code = attempt.broken_code
            return await self._break(attempt, error.message)
        except ConnectionError:
            if not outlet.begun:
                raise
            return outlet.response  # the client left in a stream: there is nobody to tell
        except TimeoutError:
            limit = f"it took longer than {self._settings.request_seconds:.0f} s"
            if outlet.begun:
                code = CODE_BROKEN_STREAM
                return await self._break(attempt, limit)
            code = "504"
            raise RequestError(
                504, "timeout", f"no answer: {limit}; ask for fewer tokens, or stream", code="timeout", may_repeat=False
            ) from None
        else:
            return response
        finally:
            self._leave_line(attempt)
            self._spread.end(twin.name)
            self._running.end(twin.name, client)
            if not self._running.total:
                self._idle.set()
            version = attempt.version.served_name if attempt.version is not None else ""
            if not attempt.repeated:  # else no engine was asked: neither its speed nor a canary's share of errors
                self._metrics.count(twin.name, version, code)
            if version and not attempt.repeated:
                seconds = self._metrics.series(twin.name, version).request_seconds
                seconds.observe(time.monotonic() - started, exemplar_of(attempt.headers))

    def _admit(self, name: str, client: str) -> TwinRoute:
        """Return the twin that is asked; raises RequestError when it can't be now."""
        twin = self._tables.snapshot.twins.get(name)
        if twin is None and self._tables.known:
            self._metrics.count("", "", "404")
            raise unknown_model(name)
        if twin is None:
            self._metrics.count("", "", "503")
            raise unavailable("the miner has read no routing yet", retry_after=RETRY_AFTER_SECONDS, code="no_table")
        if not self._running.admits(twin.name, client, twins=len(self._tables.snapshot.twins)):
            self._metrics.count(twin.name, "", "429")
            raise overloaded(
                f"{self.in_flight} requests are running, which is this miner's limit, and twin {name!r} and this "
                "client have their share of them",
                retry_after=1,
            )
        return twin

    async def _answer(self, attempt: Attempt) -> web.StreamResponse:
        hold_until = attempt.started + self._settings.hold_seconds
        pause = FIRST_PAUSE_SECONDS
        while True:
            snapshot = self._tables.snapshot
            version, pods = self._route(attempt, snapshot)
            usable = usable_pods(pods, avoid=attempt.avoid, now=time.monotonic())
            if not usable or version is None:
                if (error := await self._without_pods(attempt, snapshot, pods, pause, hold_until)) is not None:
                    return error
                pause = self._next_pause(snapshot, pause)
                continue
            pod = self._place(attempt, usable)
            if pod is None:
                await self._wait_for_turn(attempt, usable)
                continue
            try:
                await self._preparation.teach(attempt)
                if attempt.asked.wants_manner(attempt.twin):
                    attempt.manner = await self._templates.settle(pod, version)
                await self._preparation.fit(attempt, pod, version)
                return await self._repeated(attempt, version) or await self._ask(attempt, pod, version)
            except TryElsewhere as why:
                self._metrics.retries.labels(why.reason).inc()
                attempt.note(pod, why)
                began = why.began
            finally:
                attempt.turn.give_back(pod)
            if began and attempt.transcript is not None:
                going_on = plan(attempt.asked, attempt.transcript)
                if isinstance(going_on, Finish):
                    await self._exchange.write(attempt, version, attempt.transcript, going_on.events)
                    await attempt.outlet.end()
                    return attempt.outlet.response
                if isinstance(going_on, Impossible):
                    self._metrics.continued.labels("impossible").inc()
                    raise attempt.incomplete(f"it can't go on at another engine because {going_on.why}")
                attempt.going_on = going_on
                hold_until = max(hold_until, time.monotonic() + self._settings.hold_seconds)
            if attempt.begun >= MAX_BEGUN:
                if attempt.refused is not None and attempt.transcript is None:
                    return self._pass_on(attempt, attempt.refused)
                raise attempt.incomplete(f"{attempt.begun} engines broke off while they worked on this request")

    def _route(self, attempt: Attempt, snapshot: Snapshot) -> tuple[VersionRoute | None, tuple[Pod, ...]]:
        """Return the version that answers and the pods that hold it; raises RequestError when none ever will."""
        if snapshot.ready_pods:
            self._demand.met()
        twin = snapshot.twins.get(attempt.asked.twin)
        if attempt.transcript is not None and attempt.version is not None:
            # The rest must be the same version's; and a name that is another's by now is another doctor's.
            if twin is None or twin.uid != attempt.twin.uid:
                raise attempt.incomplete(f"twin {attempt.twin.name!r} was deleted or replaced meanwhile")
            return attempt.version, snapshot.pods_for(attempt.version)
        if twin is None:
            raise unknown_model(attempt.asked.twin)
        if not twin.active:
            attempt.version = None
            if not snapshot.ready_pods:
                self._demand.turned_away()  # the first pod has to come before anything can be verified
            why = twin.obstacle or Obstacle(
                "twin_not_ready", f"has no verified version yet: kubectl describe twin {twin.name}"
            )
            raise unavailable(f"twin {twin.name!r} {why.message}", retry_after=RETRY_AFTER_SECONDS, code=why.code)
        version = choose_version(twin.active, attempt.session)
        pods = snapshot.pods_for(version) if version is not None else ()
        if not pods and len(twin.active) > 1:
            # No ready pod holds this version: another verified one answers rather than nobody.
            version = choose_version([v for v in twin.active if snapshot.pods_for(v)], attempt.session) or version
            pods = snapshot.pods_for(version) if version is not None else ()
        attempt.twin, attempt.version = twin, version
        return version, pods

    async def _without_pods(
        self, attempt: Attempt, snapshot: Snapshot, pods: tuple[Pod, ...], pause: float, until: float
    ) -> web.StreamResponse | None:
        """Wait for a pod, or pause before those that didn't take it are asked again; return an engine's error where
        waiting brings no better.
        """
        self._leave_line(attempt)
        left = until - time.monotonic()
        if attempt.refused is not None and not attempt.waits_for(left):
            return self._pass_on(attempt, attempt.refused)
        await self._hold(attempt, snapshot.number, left, pause if pods else None)
        attempt.look_again(pods)
        return None

    def _next_pause(self, seen: Snapshot, pause: float) -> float:
        """Return how long to pause next: longer each time, and anew from a short one where the tables changed."""
        changed = self._tables.snapshot.number != seen.number
        return FIRST_PAUSE_SECONDS if changed else min(2 * pause, MAX_PAUSE_SECONDS)

    def _place(self, attempt: Attempt, usable: list[Pod]) -> Pod | None:
        """Return the pod at which the request has a place from now on; None where it has to wait for its turn."""
        turn = attempt.turn
        if (pod := turn.claim(usable)) is not None:
            self._leave_line(attempt)
            return pod
        free = [pod for pod in usable if self._turns.has_room(pod, turn.twin)]
        if not free and attempt.transcript is not None:
            free = usable  # its patient reads already: it goes on at once, at an engine that has room for one more
        width = self._spread.width(attempt.twin.name, usable) if len(usable) > 1 else 1
        pod = choose_pod(free, session=attempt.session, width=width)
        if pod is not None:
            self._leave_line(attempt)
            turn.start(pod)
        return pod

    async def _wait_for_turn(self, attempt: Attempt, usable: list[Pod]) -> None:
        """Wait for a place at one of these pods, for a while. Raises RequestError (429) when too many wait, or this one
        has for too long.
        """
        turn, twin = attempt.turn, attempt.twin.name
        if not attempt.in_line:
            if not self._held.admits(twin, turn.client, twins=len(self._tables.snapshot.twins)):
                raise self._too_many(turn, f"as many as may, {self._held.of_twin(twin)}, wait already")
            attempt.in_line = True
            self._held.begin(twin, turn.client)
            self._metrics.held.set(self._held.total)
        turn.wait_at(usable)
        left = self._settings.turn_seconds - (turn.waited or 0.0)
        if left <= 0:
            raise self._too_many(turn, f"this one has waited for {self._settings.turn_seconds:.0f} s")
        await turn.wait(min(left, LOOK_SECONDS))

    def _too_many(self, turn: Turn, why: str) -> RequestError:
        """Return the 429 for more than a twin's share of the engines answers."""
        self._metrics.turned_away.inc()
        twin = turn.twin
        after = in_whole_seconds(max(self._turns.last_wait(twin), turn.waited or 0.0))
        return overloaded(
            f"more is asked of twin {twin!r} than its share of the engines answers: {self._turns.running(twin)} of its "
            f"requests are being answered, and {why}. Ask again in {after} s",
            retry_after=after,
        )

    def _leave_line(self, attempt: Attempt) -> None:
        """Let a request wait for a place no longer."""
        attempt.turn.leave()
        if attempt.in_line:
            attempt.in_line = False
            self._held.end(attempt.turn.twin, attempt.turn.client)
            self._metrics.held.set(self._held.total)

    async def _ask(self, attempt: Attempt, pod: Pod, version: VersionRoute) -> web.StreamResponse:
        """Ask the pod for several answers, or for one where that is asked, or all that it gives."""
        draws = 1
        if attempt.transcript is None:
            draws = self._drawing.at(pod, attempt.draws, started=attempt.started)
        try:
            return await self._exchange.ask(attempt, pod, version, self._body(attempt, version, draws), draws=draws)
        except Undrawn:
            self._metrics.draws.labels("refused").inc()
            attempt.draws, attempt.undrawn = 1, pod
        return await self._exchange.ask(attempt, pod, version, self._body(attempt, version, 1))

    async def _repeated(self, attempt: Attempt, version: VersionRoute) -> web.StreamResponse | None:
        """Return the answer that was given before, if it may be; else let the new one be kept."""
        if self._cache is None or attempt.transcript is not None or not may_be_kept(attempt.asked):
            return None
        body = attempt.asked.to_bytes(attempt.twin, version, attempt.manner)
        key = key_of(
            body, session=attempt.session, twin=attempt.twin, version=version, base=self._tables.base,
            lessons=self._preparation.lessons_of(attempt.twin),
        )  # fmt: skip
        kept = self._cache.get(key)
        self._metrics.cached.labels("hit" if kept is not None else "miss").inc()
        if kept is None:
            attempt.keep = Keeping(self._cache, key)
            return None
        attempt.keep, attempt.repeated = None, True
        return await self._exchange.repeat(attempt, version, kept, age=self._cache.age(kept))

    def _body(self, attempt: Attempt, version: VersionRoute, draws: int) -> bytes:
        asked, twin, manner = attempt.asked, attempt.twin, attempt.manner
        if isinstance(attempt.going_on, GoOn):
            return asked.continued(twin, version, manner, said=attempt.going_on.said, tokens=attempt.going_on.tokens)
        if draws > 1:
            logprobs = self._drawing.chooser.needs_logprobs
            return asked.drawn(twin, version, manner, candidates=draws, logprobs=logprobs)
        return asked.to_bytes(twin, version, manner)

    async def _hold(self, attempt: Attempt, number: int, left: float, pause: float | None) -> None:
        """Wait for a newer table, at most `left` seconds or `pause`. Raises RequestError when the time is up."""
        twin, client = attempt.twin.name, attempt.turn.client
        if left <= 0 and attempt.retry_after is not None:
            raise overloaded(f"all engine pods of twin {twin!r} are busy", retry_after=attempt.retry_after)
        if not self._held.admits(twin, client, twins=len(self._tables.snapshot.twins)):
            raise overloaded(
                f"{self._held.total} requests wait for an engine pod already, and twin {twin!r} and this client have "
                "their share of them",
                retry_after=RETRY_AFTER_SECONDS,
            )
        if left <= 0:
            waited = time.monotonic() - attempt.started
            raise unavailable(
                f"no engine pod answers for twin {twin!r} after {waited:.0f} s: kubectl describe twin {twin}",
                retry_after=RETRY_AFTER_SECONDS,
                code="no_pod_ready",
            )
        self._held.begin(twin, client)
        self._metrics.held.set(self._held.total)
        without_pods = not self._tables.snapshot.ready_pods
        if without_pods:
            self._demand.begin()
        try:
            await self._tables.wait(number, left if pause is None else min(left, pause))
        finally:
            if without_pods:
                self._demand.end()
            self._held.end(twin, client)
            self._metrics.held.set(self._held.total)

    def _pass_on(self, attempt: Attempt, refused: Refused) -> web.StreamResponse:
        """Return an engine's own error: no pod did better."""
        headers = dict(refused.headers)
        if attempt.begun:
            headers[SHOULD_RETRY_HEADER] = "false"
        return web.Response(status=refused.status, body=refused.body, headers=headers)

    async def _break(self, attempt: Attempt, message: str) -> web.StreamResponse:
        """End a stream that can't be finished with an error event."""
        if attempt.going_on is not None:
            self._metrics.continued.labels("failed").inc()
        try:
            async with asyncio.timeout(self._settings.connect_seconds):
                await attempt.outlet.fail(broken_stream(f"the answer is incomplete: {message}; ask again"))
        except TimeoutError:
            attempt.outlet.abort()  # the client doesn't read: nothing can be said to it any more
        except ConnectionError:
            pass  # it has left
        return attempt.outlet.response

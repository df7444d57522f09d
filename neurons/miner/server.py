"""The miner's HTTP side: OpenAI's routes and the health checks. Nothing else exists."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import orjson
from aiohttp import web

from neurons.miner.asked import EngineRequest
from neurons.miner.body_turns import BodyTurns, takes_turns
from neurons.miner.chat import parse_chat
from neurons.miner.completions import parse_completion, parse_embedding
from neurons.miner.cors import Cors
from neurons.miner.doors import Doors
from neurons.miner.errors import RequestError, unavailable, unknown_model
from neurons.miner.limits import Limits
from neurons.miner.memory import RequestBytes, RequestMemory
from neurons.miner.metrics import Metrics
from neurons.miner.outlet import Outlet, is_large
from neurons.miner.relay import Relay
from neurons.miner.responses import ResponsesRequest, parse_responses
from neurons.miner.responses_outlet import ResponsesOutlet
from neurons.miner.sessions import SESSION_HEADER, session_of
from neurons.miner.settings import Settings
from neurons.miner.tables import Snapshot, Tables, TwinRoute
from neurons.miner.tracing import REQUEST_ID, request_id_of, trace_id_of, trace_of
from neurons.unsaid import where

log = logging.getLogger(__name__)

_R = TypeVar("_R", bound=EngineRequest)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What of a request's headers goes on, and what its answer carries."""

    trace: dict[str, str]
    shown: dict[str, str]


_Handler = Callable[[web.BaseRequest, _Seen], Awaitable[web.StreamResponse]]


class MinerServer:
    """Turns HTTP requests into answers; knows nothing of sockets (see `service`)."""

    def __init__(
        self,
        *,
        tables: Tables,
        relay: Relay,
        doors: Doors,
        metrics: Metrics,
        settings: Settings,
        announce: Callable[[], bytes] | None = None,
        learning: Callable[[], bool] = lambda: False,
        tasks: Callable[[str, bytes], Awaitable[bytes]] | None = None,
    ) -> None:
        """`announce` returns the signed announcement, for a miner that has a wallet; `learning` tells whether lessons
        are to come yet; `tasks` answers a caller's offer of a fine-tune task.
        """
        self._tables, self._relay, self._doors, self._metrics = tables, relay, doors, metrics
        self._announce, self._learning, self._tasks = announce, learning, tasks
        self._cors = Cors(settings.cors_origins)
        self._memory = RequestMemory(
            settings.request_memory_bytes,
            client_percent=settings.client_memory_percent,
            client_requests=settings.client_requests,
        )
        self._turns = BodyTurns()
        limits = settings.limits
        generate = self._generate
        self._routes: dict[str, tuple[str, _Handler]] = {
            "/v1/chat/completions": ("POST", lambda r, s: generate(r, s, partial(parse_chat, limits=limits))),
            "/v1/responses": ("POST", lambda r, s: self._respond(r, s, limits)),
            "/v1/completions": ("POST", lambda r, s: generate(r, s, partial(parse_completion, limits=limits))),
            "/v1/embeddings": ("POST", lambda r, s: generate(r, s, parse_embedding)),
            "/v1/models": ("GET", self._models),
            **({"/v1/announcement": ("GET", self._announced)} if announce is not None else {}),
            **({"/v1/tasks": ("POST", self._offered)} if tasks is not None else {}),
            "/healthz": ("GET", self._healthz),
            "/readyz": ("GET", self._readyz),
        }

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer any request."""
        trace = trace_of(request.headers)
        seen = _Seen(trace, {REQUEST_ID: request_id_of(trace), **self._cors.headers(request)})
        try:
            response = await self._dispatch(request, seen)
        except RequestError as error:
            response = error.response()
        except ConnectionError:
            # The client left. aiohttp would log a traceback for the error; writing this fails silently instead.
            response = web.Response(status=400)
        except Exception as error:  # noqa: BLE001 - nothing of a patient may get into the log with an exception's words
            said = {**where(error), "trace_id": trace_id_of(trace)}
            log.error("a request failed in an unforeseen way", extra=said)  # noqa: TRY400
            response = RequestError(
                500, "internal_error", "the miner failed; its log says why", may_repeat=False
            ).response()
        if not response.prepared:
            self._finish(response, seen)
        return response

    async def _dispatch(self, request: web.BaseRequest, seen: _Seen) -> web.StreamResponse:
        path = request.path
        route = self._routes.get(path)
        if route is None:
            if path.startswith("/v1/models/") and path.count("/") == 3:
                route = ("GET", self._model)
            else:
                raise RequestError(
                    404,
                    "invalid_request_error",
                    f"there is no {path[:100]!r} here: use GET /v1/models or POST /v1/chat/completions",
                    code="unknown_route",
                )
        method, handler = route
        if request.method != method and not (request.method == "HEAD" and method == "GET"):
            if self._cors.is_preflight(request):
                return self._cors.preflight(request)
            raise RequestError(
                405, "invalid_request_error", f"use {method} for {path[:100]}", code="wrong_method",
                allow="GET, HEAD" if method == "GET" else method,
            )  # fmt: skip
        return await handler(request, seen)

    async def _generate(
        self, request: web.BaseRequest, seen: _Seen, parse: Callable[[bytes], EngineRequest]
    ) -> web.StreamResponse:
        def outlet(_: EngineRequest, held: RequestBytes) -> Outlet:
            return Outlet(request, headers=seen.shown, closing=self._is_draining, grow=held.grow)

        return await self._relay_to(request, seen, parse, outlet)

    async def _respond(self, request: web.BaseRequest, seen: _Seen, limits: Limits) -> web.StreamResponse:
        def outlet(asked: ResponsesRequest, held: RequestBytes) -> Outlet:
            return ResponsesOutlet(request, headers=seen.shown, closing=self._is_draining, grow=held.grow, asked=asked)

        return await self._relay_to(request, seen, partial(parse_responses, limits=limits), outlet)

    async def _relay_to(
        self,
        request: web.BaseRequest,
        seen: _Seen,
        parse: Callable[[bytes], _R],
        outlet: Callable[[_R, RequestBytes], Outlet],
    ) -> web.StreamResponse:
        headers = request.headers
        with self._memory.request() as held:
            try:
                client, body = await self._doors.enter(request, held.read)
                held.own(client)  # else a validator's body would count as anybody's while it waits
                async with self._turns.turn(client, large=takes_turns(body)):
                    held.prove(client, body)
                    asked = parse(body)
                    session = session_of(asked, client=client, header=headers.get(SESSION_HEADER))
                del body  # else it would be there for as long as its answer takes
            except RequestError as error:
                self._metrics.count("", "", str(error.status))
                raise
            asked.named = asked.named or SESSION_HEADER in headers
            way = outlet(asked, held)
            response = await self._relay.answer(asked, client=client, session=session, outlet=way, trace=seen.trace)
            if isinstance(response, web.Response) and not response.prepared and is_large(response):
                # Sent here, as long as it is counted: a client that reads slowly keeps it in this miner's memory.
                self._finish(response, seen)
                await way.send(response)
            return response

    def _finish(self, response: web.StreamResponse, seen: _Seen) -> None:
        """Put in what all answers have."""
        response.headers.update(seen.shown)
        if self._relay.draining:
            response.force_close()  # the client's next request goes to another miner

    def _is_draining(self) -> bool:
        return self._relay.draining

    async def _models(self, request: web.BaseRequest, _: _Seen) -> web.StreamResponse:
        await self._doors.enter(request)
        snapshot = self._tables.snapshot
        twins = [_entry(snapshot, twin) for twin in snapshot.twins.values() if snapshot.can_answer(twin)]
        return _json({"object": "list", "data": twins})

    async def _model(self, request: web.BaseRequest, _: _Seen) -> web.StreamResponse:
        await self._doors.enter(request)
        name = request.path.removeprefix("/v1/models/")
        snapshot = self._tables.snapshot
        twin = snapshot.twins.get(name)
        if twin is None:
            raise unknown_model(name)
        if not snapshot.can_answer(twin):
            raise RequestError(
                404,
                "invalid_request_error",
                f"twin {name!r} can't answer now: no ready pod holds a verified version; kubectl describe twin {name}",
                param="model",
                code="model_not_ready",
            )
        return _json(_entry(snapshot, twin))

    async def _announced(self, request: web.BaseRequest, _: _Seen) -> web.StreamResponse:
        await self._doors.enter(request)
        if self._announce is None or not self._tables.known:
            raise unavailable("the miner has read no routing yet", retry_after=1, code="no_table")
        # The bytes are signed: they must arrive as they are.
        return web.Response(body=self._announce(), headers={"Content-Type": "application/json"})

    async def _offered(self, request: web.BaseRequest, _: _Seen) -> web.StreamResponse:
        with self._memory.request() as held:
            client, body = await self._doors.enter(request, held.read)
            held.prove(client, body)
        if self._tasks is None or not self._tables.known:
            raise unavailable("the miner has read no routing yet", retry_after=1, code="no_table")
        return web.Response(body=await self._tasks(client, body), headers={"Content-Type": "application/json"})

    async def _healthz(self, _: web.BaseRequest, __: _Seen) -> web.StreamResponse:
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.BaseRequest, __: _Seen) -> web.StreamResponse:
        """Ready = routing and reports known, the pods asked for lessons, and not draining.

        Not: some engine pod is ready. A miner that leaves its Service while the pool is at zero could not hold the
        request that is to wake it, and in a rollout a new miner that knows what the old one knows is as good.
        """
        if self._relay.draining:
            return web.Response(status=503, text="draining\n")
        if not self._tables.known:
            return web.Response(status=503, text="waiting for the routing and the pods' reports\n")
        if self._learning():
            return web.Response(status=503, text="waiting for the doctors' corrections\n")
        return web.Response(text=f"ready: {len(self._tables.snapshot.ready_pods)} engine pods\n")


def _entry(snapshot: Snapshot, twin: TwinRoute) -> dict[str, Any]:
    return {
        "id": twin.name,
        "object": "model",
        "created": twin.first_seen,
        "owned_by": twin.doctor or "",
        "bettertherapy": {
            "versions": [
                {
                    "servedName": version.served_name,
                    "adapterDigest": version.digest,
                    "weightPercent": version.weight,
                    "pods": snapshot.holding(version),
                }
                for version in twin.active
            ]
        },
    }


def _json(document: dict[str, Any]) -> web.Response:
    return web.Response(body=orjson.dumps(document), headers={"Content-Type": "application/json"})

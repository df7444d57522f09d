"""The gateway's HTTP side: its routes, health checks and metrics; and the pages, where they are asked for."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Final

import orjson
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from neurons.miner.asked import parse_object
from neurons.miner.bodies import read_body
from neurons.miner.cors import Cors
from neurons.miner.errors import JSON_HEADERS, RequestError, overloaded, unknown_model
from neurons.miner.tracing import REQUEST_ID, request_id_of, trace_of
from neurons.validator.gateway.chat import Chats
from neurons.validator.gateway.feedback import Feedback
from neurons.validator.gateway.keys import ApiKey, Keyring
from neurons.validator.gateway.metrics import Metrics
from neurons.validator.gateway.request import ChatAsked, parse
from neurons.validator.gateway.roster import Roster
from neurons.validator.gateway.twins import Twins

log = logging.getLogger(__name__)

CLIENT_GONE: Final = "499"
_SESSION: Final = re.compile(r"/v1/sessions/([^/]{1,64})")
_MODEL: Final = re.compile(r"/v1/models/([^/]{1,253})")

MOST_TURNED_AWAY: Final = 256
"""Questions beyond the limits that are read at once for the notice of an emergency: each may have a whole body."""

_Handler = Callable[[web.BaseRequest, ApiKey, Mapping[str, str]], Awaitable[web.StreamResponse]]
PageHandler = Callable[
    [web.BaseRequest, Mapping[str, str], RequestError | None], Coroutine[Any, Any, web.StreamResponse]
]
"""Is told by which error the request is refused, where it is."""


class GatewayServer:
    """Turns HTTP requests into answers; knows nothing of sockets (see `service`)."""

    def __init__(
        self,
        *,
        keyring: Keyring,
        chats: Chats,
        feedback: Feedback,
        roster: Roster,
        twins: Twins,
        metrics: Metrics,
        cors: Cors,
        max_in_flight: int,
        pages: PageHandler | None = None,
    ) -> None:
        """`pages`: answers whatever isn't the API's; None: nothing does."""
        self._pages = pages
        self._keyring, self._chats, self._feedback = keyring, chats, feedback
        self._roster, self._twins, self._metrics, self._cors = roster, twins, metrics, cors
        self._max_in_flight = max_in_flight
        self.in_flight = 0
        self._turned_away = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._routes: dict[str, dict[str, _Handler]] = {
            "/v1/chat/completions": {"POST": self._chat},
            "/v1/models": {"GET": self._models},
            "/v1/sessions": {"GET": self._sessions, "POST": self._begin},
            "/v1/ratings": {"POST": self._rate},
            "/v1/preferences": {"POST": self._prefer},
        }
        self._open = {"/healthz": self._healthz, "/readyz": self._readyz, "/metrics": self._expose}

    async def idle(self, seconds: float) -> bool:
        """Wait until no request is in work; False when some are after so many seconds."""
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer any request."""
        shown = {REQUEST_ID: request_id_of(trace_of(request.headers))}
        if not self._is_page(request.path):  # no other site's program has anything to do with those
            shown |= self._cors.headers(request)
        try:
            response = await self._dispatch(request, shown)
        except RequestError as error:
            response = error.response()
        except ConnectionError:
            response = web.Response(status=400)  # the client left: writing this fails silently
        except Exception as error:  # noqa: BLE001 - nothing of a patient may get into the log with an exception's words
            response = _unforeseen(error).response()
        if not response.prepared:
            response.headers.update(shown)
            if self._chats.draining:
                response.force_close()
        return response

    async def _dispatch(self, request: web.BaseRequest, shown: Mapping[str, str]) -> web.StreamResponse:
        path, method = request.path, "GET" if request.method == "HEAD" else request.method
        if (probe := self._open.get(path)) is not None:
            if method != "GET":
                raise _wrong_method(path, "GET, HEAD")
            return probe()
        handlers = self._routes.get(path)
        if handlers is None and _SESSION.fullmatch(path):
            handlers = {"GET": self._session}
        if handlers is None and _MODEL.fullmatch(path):
            handlers = {"GET": self._model}
        if self._pages is not None and self._is_page(path):
            if (refusal := self._refusal()) is not None:
                return await self._away(self._pages(request, shown, refusal), refusal)
            return await self._counted(self._pages(request, shown, None))
        if handlers is None:
            raise RequestError(
                404, "invalid_request_error",
                f"there is no {path[:100]!r} here: use GET /v1/models, POST /v1/chat/completions, /v1/sessions, "
                "/v1/ratings or /v1/preferences",
                code="unknown_route",
            )  # fmt: skip
        handler = handlers.get(method)
        if handler is None:
            if self._cors.is_preflight(request):
                return self._cors.preflight(request)
            raise _wrong_method(path, ", ".join(sorted(handlers)))
        key = self._keyring.known(request.headers.get("Authorization"))
        try:
            self._keyring.count(key)
            if (refusal := self._refusal()) is not None:
                raise refusal
        except RequestError as error:
            if handler != self._chat:
                raise
            return await self._away(self._chat(request, key, shown, error), error)
        return await self._counted(handler(request, key, shown))

    def _is_page(self, path: str) -> bool:
        return self._pages is not None and not path.startswith("/v1/") and path not in self._open

    def _refusal(self) -> RequestError | None:
        """Return why no more is taken now."""
        if self.in_flight < self._max_in_flight:
            return None
        return overloaded("this gateway has as many questions in work as it can: come back soon", retry_after=2)

    async def _away(
        self, answering: Coroutine[Any, Any, web.StreamResponse], refusal: RequestError
    ) -> web.StreamResponse:
        """Let a request that is refused be read, since what it says may be an emergency; so many at once at most."""
        if self._turned_away >= MOST_TURNED_AWAY:
            answering.close()
            raise refusal
        self._turned_away += 1
        try:
            return await answering
        finally:
            self._turned_away -= 1

    async def _counted(self, answering: Awaitable[web.StreamResponse]) -> web.StreamResponse:
        """Answer as one of the requests in work."""
        self.in_flight += 1
        self._idle.clear()
        self._metrics.in_flight.set(self.in_flight)
        try:
            return await answering
        finally:
            self.in_flight -= 1
            self._metrics.in_flight.set(self.in_flight)
            if not self.in_flight:
                self._idle.set()

    async def _chat(
        self, request: web.BaseRequest, key: ApiKey, shown: Mapping[str, str], refusal: RequestError | None = None
    ) -> web.StreamResponse:
        """Answer a question; `refusal`: nobody is asked. An emergency gets its notice whatever else happens."""
        asked: ChatAsked | None = None
        try:
            body = await read_body(request)
            try:
                asked = parse(body)
            except RequestError as error:
                raise self._noticed(error, body) from None
            if refusal is not None:
                return await self._chats.turn_away(request, asked, refusal, shown=shown)
            try:
                return await self._chats.answer(request, asked, key=key, shown=shown)
            except RequestError as error:
                return await self._chats.turn_away(request, asked, error, shown=shown)
            except ConnectionError:
                raise
            except Exception as error:
                if asked.stream:  # it may have begun, and then the notice was the first that it said
                    raise
                return await self._chats.turn_away(request, asked, _unforeseen(error), shown=shown)
        except RequestError as error:
            self._metrics.requests.labels(self._chats.label(asked.twin if asked else ""), str(error.status)).inc()
            raise
        except (asyncio.CancelledError, ConnectionError):
            self._metrics.requests.labels(self._chats.label(asked.twin if asked else ""), CLIENT_GONE).inc()
            raise

    def _noticed(self, error: RequestError, body: bytes) -> RequestError:
        """Put the notice of an emergency, if a body tells of one, before what is wrong with the body."""
        notice = self._chats.notice(_said(body))
        if notice is not None:
            error.message = notice.shown + error.message
            error.emergency = ", ".join(notice.kinds)
        return error

    async def _models(self, request: web.BaseRequest, key: ApiKey, _: Mapping[str, str]) -> web.StreamResponse:
        del request
        names = [name for name in self._roster.twins() if self._twins.serves(name) and key.may_ask(name)]
        return _json(
            {"object": "list", "data": [self._entry(name) for name in names], "bettertherapy": self._metagraph()}
        )

    async def _model(self, request: web.BaseRequest, key: ApiKey, _: Mapping[str, str]) -> web.StreamResponse:
        name = request.path.removeprefix("/v1/models/")
        if not (key.may_ask(name) and self._twins.serves(name) and self._roster.for_twin(name)):
            raise unknown_model(name)
        return _json(self._entry(name) | {"metagraph": self._metagraph()})

    async def _begin(self, request: web.BaseRequest, key: ApiKey, _: Mapping[str, str]) -> web.StreamResponse:
        return _json(*reversed(await self._feedback.begin(await read_body(request), key)))

    async def _sessions(self, request: web.BaseRequest, key: ApiKey, _: Mapping[str, str]) -> web.StreamResponse:
        del request
        return _json(self._feedback.listed(key))

    async def _session(self, request: web.BaseRequest, key: ApiKey, _: Mapping[str, str]) -> web.StreamResponse:
        session_id = request.path.removeprefix("/v1/sessions/")
        return _json(await self._feedback.show(session_id, key, user=request.query.get("user")))

    async def _rate(self, request: web.BaseRequest, key: ApiKey, _: Mapping[str, str]) -> web.StreamResponse:
        return _json(*reversed(await self._feedback.rate(await read_body(request), key)))

    async def _prefer(self, request: web.BaseRequest, key: ApiKey, _: Mapping[str, str]) -> web.StreamResponse:
        return _json(*reversed(await self._feedback.prefer(await read_body(request), key)))

    def _entry(self, name: str) -> dict[str, Any]:
        members = self._roster.for_twin(name)
        said = [
            each for m in members if m.announcement is not None for each in m.announcement.twins if each.name == name
        ]
        digests = sorted(
            {
                version.adapter or "base"
                for each in said
                for version in each.versions
                if version.pods and self._twins.approves(name, version.adapter)
            }
        )
        doctor = self._twins.doctor(name) or next((each.doctor for each in said if each.doctor), "")
        more = {"miners": len(members), "adapterDigests": digests}
        return {"id": name, "object": "model", "created": 0, "owned_by": doctor, "bettertherapy": more}

    def _metagraph(self) -> dict[str, Any]:
        age, problem = self._roster.age_seconds, self._roster.problem
        return {
            "block": self._roster.block,
            "ageSeconds": None if age == float("inf") else round(age, 1),
            "problem": str(problem)[:300] if problem is not None else None,
        }

    def _healthz(self) -> web.Response:
        return web.Response(text="ok\n")

    def _readyz(self) -> web.Response:
        """Ready = miners were asked what they serve, and not draining; that any serves is not its doing."""
        if self._chats.draining:
            return web.Response(status=503, text="draining\n")
        if not self._roster.looked.is_set():
            return web.Response(status=503, text="waiting for the metagraph and the miners' announcements\n")
        age = self._roster.age_seconds
        return web.Response(
            text=f"ready: {len(self._roster.twins())} twins at {len(self._roster.members)} miners, as of block "
            f"{self._roster.block}, read {age:.0f} s ago\n"
        )

    def _expose(self) -> web.Response:
        return web.Response(body=self._metrics.render(), headers={"Content-Type": CONTENT_TYPE_LATEST})


def _unforeseen(error: Exception) -> RequestError:
    """Return the 500 of a failure, which is logged without its words."""
    log.error("a request failed in an unforeseen way", extra={"error": type(error).__name__, "where": _where(error)})
    return RequestError(
        500, "internal_error", "the gateway failed; its log says where", code="internal_error", may_repeat=False
    )


def _said(body: bytes) -> list[dict[str, Any]]:
    """Return the messages of a body that is no question, as far as they can be told; else all of it as one."""
    try:
        messages = parse_object(body).get("messages")
    except RequestError:
        messages = None
    if isinstance(messages, list) and messages:
        return [message for message in messages if isinstance(message, dict)]
    return [{"role": "user", "content": body.decode("utf-8", "replace")}]


def _wrong_method(path: str, allowed: str) -> RequestError:
    return RequestError(
        405, "invalid_request_error", f"use {allowed} for {path[:100]}", code="wrong_method", allow=allowed
    )


def _where(error: BaseException) -> str:
    """Return file and line of an error: what was at hand there stays out of the log."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else f"{trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}"


def _json(document: dict[str, Any], status: int = 200) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(document), headers=JSON_HEADERS)

"""The gateway's HTTP side: its routes and health checks; and the pages, where they are asked for."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Final

import orjson
from aiohttp import web

from neurons.miner.asked import parse_object
from neurons.miner.body_turns import BodyTurns, takes_turns
from neurons.miner.cors import Cors
from neurons.miner.errors import JSON_HEADERS, RequestError, overloaded, unknown_model
from neurons.miner.memory import RequestBytes, RequestMemory
from neurons.miner.tracing import REQUEST_ID, request_id_of, trace_id_of, trace_of
from neurons.shares import Shares
from neurons.validator.gateway.chat import Chats
from neurons.validator.gateway.failing import unforeseen
from neurons.validator.gateway.feedback import Feedback
from neurons.validator.gateway.keys import VISITORS, ApiKey, Keyring
from neurons.validator.gateway.metrics import Metrics
from neurons.validator.gateway.notices import Notice
from neurons.validator.gateway.refused import said_in
from neurons.validator.gateway.request import ChatAsked, parse
from neurons.validator.gateway.roster import Roster
from neurons.validator.gateway.rounds import PATH as ROUND_PATH
from neurons.validator.gateway.rounds import Rounds
from neurons.validator.gateway.security_log import SecurityLog
from neurons.validator.gateway.task_desk import TaskDesk
from neurons.validator.gateway.twins import Twins
from neurons.wire.tasks import place_of

CLIENT_GONE: Final = "499"
_SESSION: Final = re.compile(r"/v1/sessions/([^/]{1,64})")
_MODEL: Final = re.compile(r"/v1/models/([^/]{1,253})")

_BY_HTTPS: Final = {"Strict-Transport-Security": "max-age=31536000; includeSubDomains"}
MOST_TURNED_AWAY: Final = 256
"""Questions beyond the limits that are read at once for the notice of an emergency: each may have a whole body."""

_Handler = Callable[[web.BaseRequest, ApiKey, Mapping[str, str]], Awaitable[web.StreamResponse]]
_Reader = Callable[
    [web.BaseRequest, ApiKey, Mapping[str, str], RequestBytes, RequestError | None],
    Coroutine[Any, Any, web.StreamResponse],
]
"""Is told by which error the request is refused, where it is: it reads all the same whether an emergency is told of."""
PageHandler = Callable[
    [web.BaseRequest, Mapping[str, str], RequestBytes, RequestError | None], Coroutine[Any, Any, web.StreamResponse]
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
        memory: RequestMemory,
        unread: str = "",
        pages: PageHandler | None = None,
        rounds: Rounds | None = None,
        tasks: TaskDesk | None = None,
        beside: Callable[[], str] = str,
        log: SecurityLog | None = None,
        by_https: bool = False,
    ) -> None:
        """`memory`: counts what requests hold.

        `unread`: what stands before the error of a question or comment that isn't read.
        `pages`: answers whatever isn't the API's; None: nothing does. `rounds`: what operators see of them. `tasks`:
        answers miners with fine-tune tasks.
        `by_https`: browsers reach it by https, and are told to come in no other way.
        `beside`: says what is wrong with processes beside this one, without which it answers all the same.
        """
        self._beside = beside
        self._rounds, self._tasks = rounds or Rounds(None), tasks
        self._pages = pages
        self._keyring, self._chats, self._feedback = keyring, chats, feedback
        self._roster, self._twins, self._metrics, self._cors = roster, twins, metrics, cors
        self._running, self._turned_away = Shares(max_in_flight), Shares(MOST_TURNED_AWAY)
        self._unread_words = unread
        self._log = log or SecurityLog()
        self._always = dict(_BY_HTTPS) if by_https else {}
        self._memory, self._turns = memory, BodyTurns()
        self._idle = asyncio.Event()
        self._idle.set()
        self._routes: dict[str, dict[str, _Handler]] = {
            "/v1/models": {"GET": self._models},
            "/v1/sessions": {"GET": self._sessions, "POST": self._begin},
            "/v1/preferences": {"POST": self._prefer},
        }
        self._readers: dict[str, _Reader] = {"/v1/chat/completions": self._chat, "/v1/ratings": self._rate}
        self._open = {"/healthz": self._healthz, "/readyz": self._readyz}

    @property
    def in_flight(self) -> int:
        """Requests in work."""
        return self._running.total

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
        trace = trace_of(request.headers)
        shown = {REQUEST_ID: request_id_of(trace), **self._always}
        if not self._is_page(request.path):  # no other site's program has anything to do with those
            shown |= self._cors.headers(request)
        try:
            if self._tasks is not None and (place := place_of(request.path)) is not None:
                # A miner is no client: it has no key, and bounds of its own.
                response: web.StreamResponse = await self._tasks.answer(request, *place)
            else:
                response = await self._dispatch(request, shown)
        except RequestError as error:
            client = self._keyring.name_of(request.headers.get("Authorization"))
            self._log.turned_away(error, client=client, trace_id=trace_id_of(trace))
            response = error.response()
        except ConnectionError:
            response = web.Response(status=400)  # the client left: writing this fails silently
        except Exception as error:  # noqa: BLE001 - nothing of a patient may get into the log with an exception's words
            response = unforeseen(error).response()
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
        reader = self._readers.get(path)
        handlers = self._routes.get(path) or self._one_of(path) or {}
        if self._pages is not None and self._is_page(path):
            with self._memory.request() as held:
                if (refusal := self._refusal(VISITORS)) is not None:
                    return await self._away(VISITORS, self._pages(request, shown, held, refusal), refusal)
                return await self._counted(VISITORS, self._pages(request, shown, held, None))
        methods = handlers.keys() if reader is None else {"POST"}
        if not methods:
            error = RequestError(
                404, "invalid_request_error",
                f"there is no {path[:100]!r} here: use GET /v1/models, POST /v1/chat/completions, /v1/sessions, "
                "/v1/ratings or /v1/preferences",
                code="unknown_route",
            )  # fmt: skip
            raise self._unread(error) if method == "POST" else error  # OpenAI's clients ask by other routes, too
        if method not in methods:
            if self._cors.is_preflight(request):
                return self._cors.preflight(request)
            raise _wrong_method(path, ", ".join(sorted(methods)))
        if reader is not None:
            return await self._read(reader, request, shown)
        key = self._keyring.known(request.headers.get("Authorization"))
        self._keyring.count(key)
        if (refusal := self._refusal(key.share)) is not None:
            raise refusal
        return await self._counted(key.share, handlers[method](request, key, shown))

    async def _read(self, reader: _Reader, request: web.BaseRequest, shown: Mapping[str, str]) -> web.StreamResponse:
        """Answer what a patient wrote. Of whatever isn't taken it is read, if it can be, whether it is an emergency."""
        try:
            key = self._keyring.known(request.headers.get("Authorization"))
        except RequestError as error:
            raise self._unread(error) from None
        try:
            self._keyring.count(key)
            refusal = self._refusal(key.share)
        except RequestError as error:
            refusal = error
        with self._memory.request() as held:
            if refusal is not None:
                return await self._away(key.share, reader(request, key, shown, held, refusal), refusal)
            return await self._counted(key.share, reader(request, key, shown, held, None))

    def _one_of(self, path: str) -> dict[str, _Handler] | None:
        """Return the methods of a path that names one of several; None where it names none."""
        shown: tuple[tuple[re.Pattern[str], _Handler], ...] = (
            (_SESSION, self._session), (_MODEL, self._model), (ROUND_PATH, self._round),
        )  # fmt: skip
        return next(({"GET": handler} for pattern, handler in shown if pattern.fullmatch(path)), None)

    def _is_page(self, path: str) -> bool:
        return self._pages is not None and not path.startswith("/v1/") and path not in self._open

    def _refusal(self, whose: str) -> RequestError | None:
        """Return why no more of this client's is taken now."""
        if self._running.admits(whose, of=self._sharers()):
            return None
        return overloaded(
            "this gateway has as many questions in work as it can, and of this client its share: come back soon",
            retry_after=2,
        )

    def _sharers(self) -> int:
        return self._keyring.clients + (self._pages is not None)

    async def _away(
        self, whose: str, answering: Coroutine[Any, Any, web.StreamResponse], refusal: RequestError
    ) -> web.StreamResponse:
        """Let a request that is refused be read, since what it says may be an emergency; so many at once at most."""
        if not self._turned_away.admits(whose, of=self._sharers()):
            answering.close()
            raise self._unread(refusal)
        self._turned_away.begin(whose)
        try:
            return await answering
        finally:
            self._turned_away.end(whose)

    async def _counted(self, whose: str, answering: Awaitable[web.StreamResponse]) -> web.StreamResponse:
        """Answer as one of the requests in work."""
        self._running.begin(whose)
        self._idle.clear()
        self._metrics.in_flight.set(self.in_flight)
        try:
            return await answering
        finally:
            self._running.end(whose)
            self._metrics.in_flight.set(self.in_flight)
            if not self.in_flight:
                self._idle.set()

    def _unread(self, error: RequestError) -> RequestError:
        """Put before an error whom to call: what was written isn't read, and may tell of an emergency."""
        error.message = self._unread_words + error.message
        return error

    async def _body(self, request: web.BaseRequest, key: ApiKey, held: RequestBytes) -> bytes:
        """Return what a patient sends, counted as what it costs once it is parsed; raises RequestError."""
        try:
            return await held.take(request, client=key.share)
        except RequestError as error:
            raise self._unread(error) from None

    async def _chat(
        self,
        request: web.BaseRequest,
        key: ApiKey,
        shown: Mapping[str, str],
        held: RequestBytes,
        refusal: RequestError | None,
    ) -> web.StreamResponse:
        """Answer a question; `refusal`: nobody is asked. An emergency gets its notice whatever else happens."""
        asked: ChatAsked | None = None
        try:
            body = await self._body(request, key, held)
            try:
                async with self._turns.turn(key.share, large=takes_turns(body)):
                    asked = parse(body)
            except RequestError as error:
                raise _noticed(error, self._told_in(body)) from None
            del body  # else it would be there for as long as its answer takes
            if refusal is not None:
                return await self._chats.turn_away(request, asked, refusal, key=key, shown=shown)
            try:
                return await self._chats.answer(request, asked, key=key, shown=shown, grow=held.grow)
            except RequestError as error:
                return await self._chats.turn_away(request, asked, error, key=key, shown=shown)
            except ConnectionError:
                raise
            except Exception as error:  # noqa: BLE001 - the patient is owed the notice of an emergency
                return await self._chats.turn_away(request, asked, unforeseen(error), key=key, shown=shown)
        except RequestError as error:
            self._metrics.ended(self._chats.label(asked.twin if asked else ""), str(error.status))
            raise
        except (asyncio.CancelledError, ConnectionError):
            self._metrics.ended(self._chats.label(asked.twin if asked else ""), CLIENT_GONE)
            raise

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
        with self._memory.request() as held:
            return _json(*reversed(await self._feedback.begin(await held.take(request, client=key.share), key)))

    async def _sessions(self, request: web.BaseRequest, key: ApiKey, _: Mapping[str, str]) -> web.StreamResponse:
        del request
        return _json(self._feedback.listed(key))

    async def _session(self, request: web.BaseRequest, key: ApiKey, _: Mapping[str, str]) -> web.StreamResponse:
        session_id = request.path.removeprefix("/v1/sessions/")
        return _json(await self._feedback.show(session_id, key, user=request.query.get("user")))

    async def _round(self, request: web.BaseRequest, key: ApiKey, _: Mapping[str, str]) -> web.StreamResponse:
        return _json(await self._rounds.show(request.path, key))

    async def _rate(
        self,
        request: web.BaseRequest,
        key: ApiKey,
        _: Mapping[str, str],
        held: RequestBytes,
        refusal: RequestError | None,
    ) -> web.StreamResponse:
        """Take a rating; a comment that tells of an emergency gets its notice whatever becomes of it."""
        body = await self._body(request, key, held)
        comment = _comment(body)
        notice = self._told_in(body) if comment is None else self._chats.notice([{"role": "user", "content": comment}])
        if refusal is not None:
            raise _noticed(refusal, notice)
        try:
            status, document = await self._feedback.rate(body, key)
        except RequestError as error:
            raise _noticed(error, notice) from None
        except Exception as error:
            if notice is None or isinstance(error, ConnectionError):
                raise
            raise _noticed(unforeseen(error), notice) from None
        if notice is not None:
            kinds = {"kinds": list(notice.kinds), "language": notice.language}
            document = {**document, "notice": {**kinds, "text": notice.text}}
        return _json(document, status)

    def _told_in(self, body: bytes) -> Notice | None:
        """Return the notice of an emergency that a body tells of which is not taken as it is."""
        return next((found for said in said_in(body) if (found := self._chats.notice(said)) is not None), None)

    async def _prefer(self, request: web.BaseRequest, key: ApiKey, _: Mapping[str, str]) -> web.StreamResponse:
        with self._memory.request() as held:
            return _json(*reversed(await self._feedback.prefer(await held.take(request, client=key.share), key)))

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
        wrong = self._beside()
        return web.Response(
            text=f"ready: {len(self._roster.twins())} twins at {len(self._roster.members)} miners, as of block "
            f"{self._roster.block}, read {age:.0f} s ago\n" + (f"{wrong}\n" if wrong else "")
        )


def _noticed(error: RequestError, notice: Notice | None) -> RequestError:
    """Put the notice of an emergency, if there is one, before what is wrong with what was sent."""
    if notice is not None:
        error.message = notice.shown + error.message
        error.emergency = ", ".join(notice.kinds)
    return error


def _comment(body: bytes) -> str | None:
    """Return the comment of a rating; None of what has none, or is no rating."""
    try:
        comment = parse_object(body).get("comment")
    except RequestError:
        return None
    return comment if isinstance(comment, str) else None


def _wrong_method(path: str, allowed: str) -> RequestError:
    return RequestError(
        405, "invalid_request_error", f"use {allowed} for {path[:100]}", code="wrong_method", allow=allowed
    )


def _json(document: dict[str, Any], status: int = 200) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(document), headers=JSON_HEADERS)

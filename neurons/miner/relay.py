"""Send a request to a pod that holds the twin's version, and its answer back.

Until the first byte of an answer is forwarded, a request can move: to another pod, or to another version when a new
table says so. Afterwards a stream can still go on at another pod of the same version (`continuation`). A pod that
answers 421, or 503 with `x-twin-retry`, or refuses the connection has not begun, so there is no limit but the hold
time. All attempts that an engine may have begun share one budget, so that a request that kills engines doesn't go
through all of them; and the client is told not to begin anew (`x-should-retry`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Self

import orjson
from aiohttp import web
from yarl import URL

from bettertherapy_api import names
from neurons.conversation import DEFAULT, Manner, Probe
from neurons.conversation import Reply as TemplateReply
from neurons.miner.asked import EngineRequest
from neurons.miner.continuation import Again, Finish, GoOn, Impossible, Splice, plan
from neurons.miner.errors import (
    SHOULD_RETRY_HEADER,
    RequestError,
    broken_stream,
    overloaded,
    unavailable,
    unknown_model,
)
from neurons.miner.metrics import CODE_BROKEN_STREAM, CODE_CLIENT_GONE, Metrics
from neurons.miner.outlet import Outlet
from neurons.miner.pod_answers import (
    EVENT_STREAM,
    MAX_LINE_BYTES,
    Refused,
    TryElsewhere,
    check_answer,
    first_events,
    headers_of,
    is_about_the_template,
    is_error,
    is_unknown_route,
    message_of,
    pod_errors,
    stream_error,
)
from neurons.miner.selection import Spread, choose_pod, choose_version
from neurons.miner.settings import Settings
from neurons.miner.stamp import Stamper
from neurons.miner.tables import Obstacle, Pod, Snapshot, Tables, TwinRoute, VersionRoute
from neurons.miner.templates import Templates
from neurons.miner.transcript import Transcript
from neurons.miner.upstream import AnswerTooLargeError, BrokeOffError, Reply, Upstream

log = logging.getLogger(__name__)

MAX_BEGUN: Final = 3
"""Engines that may begin one request, whatever the reason why they didn't finish it."""
FIRST_PAUSE_SECONDS: Final = 0.05
MAX_PAUSE_SECONDS: Final = 0.5
RETRY_AFTER_SECONDS: Final = 5
PROBE_SECONDS: Final = 10.0

_JSON_HEADERS: Final = {"Content-Type": "application/json"}
_DONE: Final = (b"data: [DONE]", b"data:[DONE]")


@dataclass(slots=True)
class _Attempt:
    """One request on its way."""

    asked: EngineRequest
    session: bytes
    outlet: Outlet
    headers: Mapping[str, str]
    """What the engine is sent beside the body."""
    started: float
    twin: TwinRoute
    version: VersionRoute | None = None
    manner: Manner = DEFAULT
    transcript: Transcript | None = None
    """What a stream has said that has begun: from now on the request can't change its version."""
    going_on: Again | GoOn | None = None
    """How a stream that broke goes on."""
    avoid: set[Pod] = field(default_factory=set)
    begun: int = 0
    """How many engines may have begun it."""
    refused: Refused | None = None
    """The last engine's own error."""
    retry_after: str | None = None
    broke: str = ""
    """Why a stream broke, for the client."""
    broken_code: str = CODE_BROKEN_STREAM
    """What is counted if the stream stays broken."""
    passed_code: str | None = None
    """What is counted for an error event that was passed on."""


class Relay:
    """All requests of one miner; use as `async with Relay(...) as relay`."""

    def __init__(self, tables: Tables, metrics: Metrics, settings: Settings, *, stamper: Stamper | None = None) -> None:
        """Without a `stamper`, answers have no receipts."""
        self._tables, self._metrics, self._settings, self._stamper = tables, metrics, settings, stamper
        self._upstream = Upstream(connect_seconds=settings.connect_seconds)
        self._templates = Templates(metrics)
        self._spread = Spread()
        self._held = 0
        self.in_flight = 0
        """Requests now, waiting ones included."""
        self.draining = False
        self._idle = asyncio.Event()

    async def __aenter__(self) -> Self:
        await self._upstream.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._upstream.__aexit__()

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
        self, asked: EngineRequest, *, session: bytes, outlet: Outlet, trace: Mapping[str, str]
    ) -> web.StreamResponse:
        """Answer one checked request; raises RequestError when nothing was forwarded yet."""
        started = time.monotonic()
        twin = self._admit(asked.twin)
        attempt = _Attempt(
            asked=asked,
            session=session,
            outlet=outlet,
            headers={**_JSON_HEADERS, **trace} if trace else _JSON_HEADERS,
            started=started,
            twin=twin,
        )
        code = CODE_CLIENT_GONE
        self.in_flight += 1
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
            self._spread.end(twin.name)
            self.in_flight -= 1
            if self.in_flight == 0:
                self._idle.set()
            version = attempt.version.served_name if attempt.version is not None else ""
            self._metrics.count(twin.name, version, code)
            if version:
                self._metrics.series(twin.name, version).request_seconds.observe(time.monotonic() - started)

    def _admit(self, name: str) -> TwinRoute:
        """Return the twin that is asked; raises RequestError when it can't be now."""
        twin = self._tables.snapshot.twins.get(name)
        if twin is None and self._tables.known:
            self._metrics.count("", "", "404")
            raise unknown_model(name)
        if twin is None:
            self._metrics.count("", "", "503")
            raise unavailable("the miner has read no routing yet", retry_after=RETRY_AFTER_SECONDS, code="no_table")
        if self.in_flight >= self._settings.max_in_flight:
            self._metrics.count(twin.name, "", "429")
            raise overloaded(f"{self.in_flight} requests are running, which is this miner's limit", retry_after=1)
        return twin

    async def _answer(self, attempt: _Attempt) -> web.StreamResponse:
        hold_until = attempt.started + self._settings.hold_seconds
        pause = FIRST_PAUSE_SECONDS
        while True:
            snapshot = self._tables.snapshot
            version, pods = self._route(attempt, snapshot)
            pod = choose_pod(
                pods, avoid=attempt.avoid, now=time.monotonic(), session=attempt.session,
                width=self._spread.width(attempt.twin.name, pods) if len(pods) > 1 else 1,
            )  # fmt: skip
            if pod is None or version is None:
                if attempt.refused is not None:
                    return self._pass_on(attempt, attempt.refused)  # no other pod is left that could do better
                changed = await self._hold(attempt, snapshot.number, hold_until, pause if pods else None)
                pause = FIRST_PAUSE_SECONDS if changed else min(2 * pause, MAX_PAUSE_SECONDS)
                attempt.avoid.clear()
                continue
            try:
                if attempt.asked.wants_manner(attempt.twin):
                    attempt.manner = self._templates.manner or await self._settle(pod, version)
                return await self._send(attempt, pod, version, self._body(attempt, version))
            except TryElsewhere as why:
                self._note(attempt, pod, why)
            if attempt.transcript is not None:
                going_on = plan(attempt.asked, attempt.transcript)
                if isinstance(going_on, Finish):
                    await self._write(attempt, version, attempt.transcript, going_on.events)
                    await attempt.outlet.end()
                    return attempt.outlet.response
                if isinstance(going_on, Impossible):
                    self._metrics.continued.labels("impossible").inc()
                    raise _incomplete(attempt, f"it can't go on at another engine because {going_on.why}")
                attempt.going_on = going_on
                hold_until = max(hold_until, time.monotonic() + self._settings.hold_seconds)
            if attempt.begun >= MAX_BEGUN:
                if attempt.refused is not None and attempt.transcript is None:
                    return self._pass_on(attempt, attempt.refused)
                raise _incomplete(attempt, f"{attempt.begun} engines broke off while they worked on this request")

    def _route(self, attempt: _Attempt, snapshot: Snapshot) -> tuple[VersionRoute | None, tuple[Pod, ...]]:
        """Return the version that answers and the pods that hold it; raises RequestError when none ever will."""
        twin = snapshot.twins.get(attempt.asked.twin)
        if twin is None:
            raise unknown_model(attempt.asked.twin)
        if attempt.transcript is not None and attempt.version is not None and twin.uid == attempt.twin.uid:
            return attempt.version, snapshot.pods_for(attempt.version)  # the rest must be the same version's
        if not twin.active:
            attempt.version = None
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

    def _note(self, attempt: _Attempt, pod: Pod, why: TryElsewhere) -> None:
        """Take down that a pod didn't answer."""
        self._metrics.retries.labels(why.reason).inc()
        if why.reason != "template":
            attempt.avoid.add(pod)
        attempt.begun += why.began
        attempt.refused = why.refused or attempt.refused
        attempt.retry_after = why.retry_after
        attempt.broke = why.why or attempt.broke

    def _body(self, attempt: _Attempt, version: VersionRoute) -> bytes:
        asked, twin, manner = attempt.asked, attempt.twin, attempt.manner
        if isinstance(attempt.going_on, GoOn):
            return asked.continued(twin, version, manner, said=attempt.going_on.said, tokens=attempt.going_on.tokens)
        return asked.to_bytes(twin, version, manner)

    async def _hold(self, attempt: _Attempt, number: int, until: float, pause: float | None) -> bool:
        """Wait for a newer table; with a `pause`, no longer than that. Raises RequestError when the time is up."""
        left = until - time.monotonic()
        twin = attempt.twin.name
        if left <= 0 and attempt.retry_after is not None:
            raise overloaded(f"all engine pods of twin {twin!r} are busy", retry_after=attempt.retry_after)
        if self._held >= self._settings.max_held:
            raise overloaded(f"{self._held} requests wait for an engine pod already", retry_after=RETRY_AFTER_SECONDS)
        if left <= 0:
            waited = time.monotonic() - attempt.started
            raise unavailable(
                f"no engine pod answers for twin {twin!r} after {waited:.0f} s: kubectl describe twin {twin}",
                retry_after=RETRY_AFTER_SECONDS,
                code="no_pod_ready",
            )
        self._held += 1
        self._metrics.held.set(self._held)
        try:
            return await self._tables.wait(number, left if pause is None else min(left, pause))
        finally:
            self._held -= 1
            self._metrics.held.set(self._held)

    async def _send(self, attempt: _Attempt, pod: Pod, version: VersionRoute, body: bytes) -> web.StreamResponse:
        """Ask one pod; raises TryElsewhere when it didn't take the request or didn't finish."""
        series = self._metrics.series(version.twin, version.served_name)
        reply: Reply | None = None
        pod.in_flight += 1
        series.in_flight.inc()
        try:
            with pod_errors(pod):
                reply = await self._upstream.post(_url(pod, attempt.asked.PATH), body, attempt.headers)
                streaming = reply.status == 200 and reply.content_type == EVENT_STREAM
                answer = await (first_events(reply) if streaming else reply.whole())
            headers = headers_of(version, pod, reply)
            check_answer(reply, pod, answer, headers)
            if reply.headers.get(names.ADAPTER_DIGEST_HEADER, version.digest) != version.digest:
                raise TryElsewhere("adapter_not_here")  # the answer must name the adapter that gave it
            if pod.failures:
                pod.answered()
            if attempt.transcript is not None:
                return await self._go_on(attempt, pod, version, reply, answer, streaming=streaming)
            if not streaming:
                return self._whole(attempt, version, reply, answer, headers)
            if is_error(answer) and not (failed := stream_error(answer)).before:
                # Nothing was forwarded yet: the error is still a whole answer.
                refused = Refused(failed.status, orjson.dumps({"error": failed.error}), _as_json(headers))
                if failed.status < 500:
                    return attempt.outlet.whole(refused.status, refused.body, refused.headers, version)
                raise TryElsewhere("error_event", began=True, refused=refused)
            series.first_token_seconds.observe(time.monotonic() - attempt.started)
            headers["Cache-Control"] = "no-cache"
            headers["X-Accel-Buffering"] = "no"
            attempt.transcript = Transcript()
            await attempt.outlet.begin(headers)
            return await self._forward(attempt, pod, version, reply, answer)
        except AnswerTooLargeError:
            raise RequestError(
                502, "engine_error", "the engine's answer is too large", code="answer_too_large"
            ) from None
        finally:
            pod.in_flight -= 1
            series.in_flight.dec()
            if reply is not None:
                # Read to its end the connection is back in the pool already and this does nothing; otherwise closing
                # it is what makes the engine stop generating.
                reply.close()

    def _whole(
        self, attempt: _Attempt, version: VersionRoute, reply: Reply, answer: bytes, headers: dict[str, str]
    ) -> web.StreamResponse:
        """Return an answer that came as a whole."""
        if reply.status == 400 and attempt.asked.wants_manner(attempt.twin):
            if is_about_the_template(reply, answer) and self._templates.doubt():
                raise TryElsewhere("template", began=True, refused=Refused(400, answer, headers))
        elif reply.status == 404 and is_unknown_route(answer):
            raise RequestError(
                404, "invalid_request_error", f"this pool's engines have no {attempt.asked.PATH}", code="unknown_route"
            )
        if reply.status == 200 and self._stamper is not None:
            headers |= self._stamper.headers(attempt.asked, version, answer)
        return attempt.outlet.whole(reply.status, answer, headers, version)

    async def _write(self, attempt: _Attempt, version: VersionRoute, transcript: Transcript, lines: bytes) -> None:
        """Forward whole lines of a stream, the receipt before the last."""
        transcript.add(lines)
        if self._stamper is not None:
            lines = self._stamper.lines(lines, attempt.asked, version, transcript)
        await attempt.outlet.write(lines, version)

    async def _go_on(
        self, attempt: _Attempt, pod: Pod, version: VersionRoute, reply: Reply, answer: bytes, *, streaming: bool
    ) -> web.StreamResponse:
        """Forward the rest of a stream that another pod began."""
        if not streaming:
            raise _incomplete(attempt, f"the next engine refused to go on: {message_of(answer)[:200] or reply.status}")
        if attempt.transcript is None or attempt.going_on is None:
            raise RuntimeError("no stream has begun")
        splice = Splice(attempt.transcript, attempt.going_on)
        response = await self._forward(attempt, pod, version, reply, answer, splice=splice)
        self._metrics.continued.labels("continued").inc()
        return response

    async def _forward(
        self,
        attempt: _Attempt,
        pod: Pod,
        version: VersionRoute,
        reply: Reply,
        chunk: bytes,
        *,
        splice: Splice | None = None,
    ) -> web.StreamResponse:
        """Forward whole lines as they arrive, beginning with `chunk`; raises TryElsewhere when the pod breaks off."""
        transcript, outlet = attempt.transcript, attempt.outlet
        if transcript is None:
            raise RuntimeError("no stream has begun")

        async def forward(lines: bytes) -> None:
            lines = splice.rewrite(lines) if splice is not None else lines
            if lines:
                await self._write(attempt, version, transcript, lines)

        rest, end = b"", b""
        why = "the engine ended it before it was done"
        while chunk:
            if rest or not chunk.endswith(b"\n"):
                # The served name may be cut in two by the network; and half a line is of no use to anybody.
                chunk = rest + chunk
                cut = chunk.rfind(b"\n") + 1
                if cut == 0 and len(chunk) > MAX_LINE_BYTES:
                    why = f"the engine sent a line of over {MAX_LINE_BYTES} bytes"
                    break
                chunk, rest = chunk[:cut], chunk[cut:]
            if chunk:
                if is_error(chunk):
                    failed = stream_error(chunk)
                    await forward(failed.before)
                    if failed.status < 500:
                        attempt.passed_code = str(failed.status)
                        await outlet.fail(failed.error)
                        return outlet.response
                    attempt.broken_code = str(failed.status)
                    raise TryElsewhere("error_event", began=True, why=_words(failed.error))
                await forward(chunk)
                end = chunk[-32:]
            try:
                chunk = await reply.chunk()
            except BrokeOffError as error:
                why = "the engine pod broke off"
                pod.failed(time.monotonic())
                log.warning("pod broke off in a stream", extra={"pod": pod.name, "reason": str(error)})
                break
        if rest.rstrip().endswith(_DONE):
            await forward(rest + b"\n\n")
        elif not end.rstrip().endswith(_DONE):
            attempt.broken_code = CODE_BROKEN_STREAM
            raise TryElsewhere("stream", began=True, why=why)
        await outlet.end()
        return outlet.response

    def _pass_on(self, attempt: _Attempt, refused: Refused) -> web.StreamResponse:
        """Return an engine's own error: no pod did better."""
        if attempt.outlet.begun:
            raise _incomplete(attempt, "no other engine could go on")
        headers = dict(refused.headers)
        if attempt.begun:
            headers[SHOULD_RETRY_HEADER] = "false"
        return web.Response(status=refused.status, body=refused.body, headers=headers)

    async def _break(self, attempt: _Attempt, message: str) -> web.StreamResponse:
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

    async def _settle(self, pod: Pod, version: VersionRoute) -> Manner:
        """Find out what the chat template takes; raises RequestError when it takes nothing."""

        async def ask(probe: Probe) -> TemplateReply | None:
            document = {
                "model": version.served_name, "messages": list(probe.messages), "max_tokens": 1, "temperature": 0
            }  # fmt: skip
            reply = None
            try:
                async with asyncio.timeout(PROBE_SECONDS):
                    with pod_errors(pod):
                        reply = await self._upstream.post(pod.url, orjson.dumps(document), _JSON_HEADERS)
                        answer = await reply.whole()
            except (TryElsewhere, TimeoutError, AnswerTooLargeError):
                return None
            finally:
                if reply is not None:
                    reply.close()
            if reply.status == 200:
                usage = orjson.loads(answer).get("usage") or {}
                return TemplateReply(prompt_tokens=usage.get("prompt_tokens"))
            if is_about_the_template(reply, answer):
                return TemplateReply(refusal=message_of(answer))
            return None

        return await self._templates.settle(ask)


def _incomplete(attempt: _Attempt, why: str) -> RequestError:
    """Return the error of a request that no engine finished."""
    message = f"{attempt.broke}; {why}" if attempt.broke and attempt.outlet.begun else why
    return RequestError(502, "engine_error", message, code="engine_broke_off", may_repeat=False)


def _url(pod: Pod, path: str) -> URL:
    return pod.url if pod.url.path == path else pod.url.with_path(path)


def _words(error: Mapping[str, object]) -> str:
    return f"the engine failed ({str(error.get('message') or error.get('type'))[:200]})"


def _as_json(headers: Mapping[str, str]) -> dict[str, str]:
    return {**headers, "Content-Type": "application/json"}

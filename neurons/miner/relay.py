"""Send a chat request to a pod that holds the twin's version, and its answer back.

Until the first byte of an answer is forwarded, a request can move: to another pod, or to another version when a new
table says so. A pod that answers 421, or 503 with `x-twin-retry`, or refuses the connection has not begun, so there is
no limit but the hold time. One that broke the connection may have begun: a request is sent again twice at most, so that
one that kills engines doesn't go through all of them.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import aiohttp
import orjson
from aiohttp import web

from bettertherapy_api import names
from neurons.miner.chat import ChatRequest
from neurons.miner.errors import RequestError, broken_stream_event, unavailable
from neurons.miner.metrics import CODE_BROKEN_STREAM, CODE_CLIENT_GONE, Metrics
from neurons.miner.selection import choose_pod, choose_version
from neurons.miner.settings import Settings
from neurons.miner.tables import Obstacle, Pod, Tables, TwinRoute, VersionRoute

log = logging.getLogger(__name__)

MAX_RESENDS: Final = 2
MAX_LINE_BYTES: Final = 1024 * 1024
MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024
FIRST_PAUSE_SECONDS: Final = 0.05
MAX_PAUSE_SECONDS: Final = 0.5
RETRY_AFTER_SECONDS: Final = 5

EVENT_STREAM: Final = "text/event-stream"

_JSON_HEADERS: Final = {"Content-Type": "application/json"}
_DONE: Final = (b"data: [DONE]", b"data:[DONE]")


class _TryElsewhere(Exception):  # noqa: N818 - control flow between two functions of this module
    """This pod didn't take the request; `reason` is the label of retries_total."""

    def __init__(self, reason: str, *, began: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.began = began
        """Whether the engine may have worked on it."""


@dataclass(slots=True)
class _Attempt:
    """One chat request on its way."""

    request: web.BaseRequest
    chat: ChatRequest
    session: bytes
    started: float
    twin: TwinRoute
    version: VersionRoute | None = None
    response: web.StreamResponse | None = None
    """A stream that has begun: from now on the request can't move."""
    broken: bool = False
    """The stream ended with an error event."""
    avoid: set[Pod] = field(default_factory=set)
    resends: int = 0


class Relay:
    """All chat requests of one miner; use as `async with Relay(...) as relay`."""

    def __init__(self, tables: Tables, metrics: Metrics, settings: Settings) -> None:
        self._tables, self._metrics, self._settings = tables, metrics, settings
        self._client: aiohttp.ClientSession | None = None
        self._held = 0
        self.in_flight = 0
        """Chat requests now, waiting ones included."""
        self.draining = False
        self._idle = asyncio.Event()

    async def __aenter__(self) -> Relay:
        self._client = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30, socket_factory=_socket),
            # The whole request has one time limit, in `chat`; these are for what only the client can see.
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._settings.connect_seconds),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            skip_auto_headers=("User-Agent", "Accept-Encoding"),
            read_bufsize=256 * 1024,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._client is not None:
            await self._client.close()

    async def idle(self, seconds: float) -> bool:
        """Wait until no chat request runs, at most `seconds`; tell whether none does."""
        try:
            async with asyncio.timeout(seconds):
                while self.in_flight:
                    self._idle.clear()
                    await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def chat(self, request: web.BaseRequest, chat: ChatRequest, session: str | None) -> web.StreamResponse:
        """Answer one checked request; raises RequestError when nothing was forwarded yet."""
        started = time.monotonic()
        twin = self._tables.snapshot.twins.get(chat.twin)
        if twin is None and self._tables.known:
            self._metrics.count("", "", "404")
            raise unknown_model(chat.twin)
        if twin is None:
            self._metrics.count("", "", "503")
            raise unavailable("the miner has read no routing yet", retry_after=RETRY_AFTER_SECONDS, code="no_table")
        if self.in_flight >= self._settings.max_in_flight:
            self._metrics.count(twin.name, "", "503")
            raise unavailable(
                f"{self.in_flight} requests are running, which is this miner's limit", retry_after=1, code="overloaded"
            )
        attempt = _Attempt(
            request=request,
            chat=chat,
            session=session.encode("utf-8", "surrogatepass") if session else os.urandom(8),
            started=started,
            twin=twin,
        )
        code = CODE_CLIENT_GONE
        self.in_flight += 1
        try:
            async with asyncio.timeout(self._settings.request_seconds):
                response = await self._answer(attempt)
            code = CODE_BROKEN_STREAM if attempt.broken else str(response.status)
        except RequestError as error:
            code = str(error.status)
            raise
        except ConnectionError:
            if attempt.response is None:
                raise
            return attempt.response  # the client left in a stream: there is nobody to tell
        except TimeoutError:
            if attempt.response is not None:
                code = CODE_BROKEN_STREAM
                why = f"it took longer than {self._settings.request_seconds:.0f} s"
                return await self._break(attempt, attempt.response, why)
            code = "504"
            raise RequestError(
                504,
                "timeout",
                f"the answer took longer than {self._settings.request_seconds:.0f} s: ask for fewer tokens, or stream",
                code="timeout",
            ) from None
        else:
            return response
        finally:
            self.in_flight -= 1
            if self.in_flight == 0:
                self._idle.set()
            version = attempt.version.served_name if attempt.version is not None else ""
            self._metrics.count(twin.name, version, code)
            if version:
                self._metrics.series(twin.name, version).request_seconds.observe(time.monotonic() - started)

    async def _answer(self, attempt: _Attempt) -> web.StreamResponse:
        body, written_for = b"", None
        hold_until = attempt.started + self._settings.hold_seconds
        pause = FIRST_PAUSE_SECONDS
        while True:
            snapshot = self._tables.snapshot
            twin = snapshot.twins.get(attempt.chat.twin)
            if twin is None:
                raise unknown_model(attempt.chat.twin)
            if not twin.active:
                attempt.version = None
                why = twin.obstacle or Obstacle("twin_not_ready", "has no version that answers")
                raise unavailable(f"twin {twin.name!r} {why.message}", retry_after=RETRY_AFTER_SECONDS, code=why.code)
            version = choose_version(twin.active, attempt.session)
            pods = snapshot.pods_for(version) if version is not None else ()
            if not pods and len(twin.active) > 1:
                # No ready pod holds this version: another verified one answers rather than nobody.
                version = choose_version([v for v in twin.active if snapshot.pods_for(v)], attempt.session) or version
                pods = snapshot.pods_for(version) if version is not None else ()
            attempt.twin, attempt.version = twin, version
            pod = choose_pod(pods, avoid=attempt.avoid, now=time.monotonic())
            if pod is None or version is None:
                changed = await self._hold(attempt, snapshot.number, hold_until, pause if pods else None)
                pause = FIRST_PAUSE_SECONDS if changed else min(2 * pause, MAX_PAUSE_SECONDS)
                attempt.avoid.clear()
                continue
            if version is not written_for:
                body, written_for = attempt.chat.to_bytes(twin, version), version
            try:
                return await self._send(attempt, pod, version, body)
            except _TryElsewhere as why:
                self._metrics.retries.labels(why.reason).inc()
                attempt.avoid.add(pod)
                attempt.resends += why.began
                if attempt.resends > MAX_RESENDS:
                    raise RequestError(
                        502,
                        "engine_error",
                        f"{attempt.resends} engines broke off while they worked on this request",
                        code="engine_broke_off",
                    ) from None

    async def _hold(self, attempt: _Attempt, number: int, until: float, pause: float | None) -> bool:
        """Wait for a newer table; with a `pause`, no longer than that. Raises RequestError when the time is up."""
        left = until - time.monotonic()
        twin = attempt.twin.name
        if left <= 0 or self._held >= self._settings.max_held:
            waited = time.monotonic() - attempt.started
            why = f"after {waited:.0f} s" if left <= 0 else f"and {self._held} requests wait already"
            raise unavailable(
                f"no engine pod answers for twin {twin!r} {why}: kubectl describe twin {twin}",
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
        """Ask one pod; raises _TryElsewhere when it didn't take the request or nothing was forwarded yet."""
        series = self._metrics.series(version.twin, version.served_name)
        upstream: aiohttp.ClientResponse | None = None
        pod.in_flight += 1
        series.in_flight.inc()
        try:
            async with _pod_errors(pod):
                upstream = await self._post(pod, body)
                streaming = upstream.status == 200 and upstream.content_type == EVENT_STREAM
                if streaming:
                    answer = await upstream.content.readany()
                else:
                    answer = await _read(upstream)
            _check_refusal(upstream, pod, answer)
            if upstream.headers.get(names.ADAPTER_DIGEST_HEADER, version.digest) != version.digest:
                raise _TryElsewhere("adapter_not_here")  # the answer must name the adapter that gave it
            if pod.failures:
                pod.answered()
            headers = _headers(version, pod, upstream.headers.get("Content-Type", "application/json"))
            if streaming:
                series.first_token_seconds.observe(time.monotonic() - attempt.started)
                return await self._stream(attempt, version, headers, pod=pod, content=upstream.content, chunk=answer)
            if upstream.status == 200:
                answer = version.model.in_body(answer)
            return web.Response(status=upstream.status, body=answer, headers=headers)
        finally:
            pod.in_flight -= 1
            series.in_flight.dec()
            if upstream is not None:
                # Read to its end the connection is back in the pool already and this does nothing; otherwise closing
                # it is what makes the engine stop generating.
                upstream.close()

    async def _post(self, pod: Pod, body: bytes) -> aiohttp.ClientResponse:
        if self._client is None:
            raise RuntimeError("Relay must be entered first: async with Relay(...) as relay")
        return await self._client.post(pod.url, data=body, headers=_JSON_HEADERS, allow_redirects=False)

    async def _stream(
        self,
        attempt: _Attempt,
        version: VersionRoute,
        headers: dict[str, str],
        *,
        pod: Pod,
        content: aiohttp.StreamReader,
        chunk: bytes,
    ) -> web.StreamResponse:
        """Forward whole lines as they arrive, beginning with `chunk`, and say so when the pod breaks off."""
        headers["Cache-Control"] = "no-cache"
        headers["X-Accel-Buffering"] = "no"
        attempt.response = response = web.StreamResponse(status=200, headers=headers)
        if self.draining:
            response.force_close()
        await response.prepare(attempt.request)
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
                await response.write(version.model.in_events(chunk))
                end = chunk[-32:]
            try:
                chunk = await content.readany()
            except (aiohttp.ClientError, ConnectionError) as error:
                why = "the engine pod broke off"
                pod.failed(time.monotonic())
                log.warning("pod broke off in a stream", extra={"pod": pod.name, "reason": type(error).__name__})
                break
        if rest.rstrip().endswith(_DONE):
            await response.write(rest + b"\n\n")
        elif not end.rstrip().endswith(_DONE):
            return await self._break(attempt, response, why)
        await response.write_eof()
        return response

    async def _break(self, attempt: _Attempt, response: web.StreamResponse, why: str) -> web.StreamResponse:
        """End a stream that can't be finished with an error event."""
        attempt.broken = True
        try:
            async with asyncio.timeout(self._settings.connect_seconds):
                await response.write(broken_stream_event(f"the answer is incomplete: {why}; ask again"))
                await response.write_eof()
        except TimeoutError:
            # The client doesn't read: nothing can be said to it any more.
            if attempt.request.transport is not None:
                attempt.request.transport.abort()
        return response


@asynccontextmanager
async def _pod_errors(pod: Pod) -> AsyncIterator[None]:
    """Turn what can go wrong between us and a pod, before anything was forwarded, into _TryElsewhere."""
    try:
        yield
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
        pod.failed(time.monotonic())
        log.warning("pod can't be reached", extra={"pod": pod.name, "reason": type(error).__name__})
        raise _TryElsewhere("connect") from None
    except (aiohttp.ClientError, ConnectionError) as error:
        pod.failed(time.monotonic())
        log.warning("pod broke off", extra={"pod": pod.name, "reason": type(error).__name__})
        raise _TryElsewhere("reset", began=True) from None


def unknown_model(name: str) -> RequestError:
    """Return the 404 for a model that is no twin of this pool."""
    return RequestError(
        404,
        "invalid_request_error",
        f"there is no twin {name[:100]!r} here; GET /v1/models lists the twins that answer now",
        param="model",
        code="model_not_found",
    )


def _headers(version: VersionRoute, pod: Pod, content_type: str) -> dict[str, str]:
    headers = {
        "Content-Type": content_type,
        names.SERVED_NAME_HEADER: version.served_name,
        names.POD_HEADER: pod.name,
    }
    if version.digest is not None:
        headers[names.ADAPTER_DIGEST_HEADER] = version.digest
    return headers


def _check_refusal(upstream: aiohttp.ClientResponse, pod: Pod, answer: bytes) -> None:
    """Raise _TryElsewhere for an answer that says that this pod didn't take the request, or an empty one."""
    status = upstream.status
    if status == 200:
        if not answer:
            pod.failed(time.monotonic())
            raise _TryElsewhere("reset", began=True)
        return
    if status == 421:
        raise _TryElsewhere("adapter_not_here")
    if status >= 500 and names.RETRY_HEADER in upstream.headers:
        pod.failed(time.monotonic())  # until its report says so too
        raise _TryElsewhere("pod_draining")
    if status == 404 or (status == 400 and _error_type(answer) == "NotFoundError"):
        # The engine restarted and forgot the adapter, and its agent hasn't noticed yet. Which of the two statuses
        # says so depends on vLLM's version.
        raise _TryElsewhere("adapter_not_here")
    if status in (502, 504):
        pod.failed(time.monotonic())
        raise _TryElsewhere("reset", began=True)


def _error_type(answer: bytes) -> str | None:
    try:
        document = orjson.loads(answer)
    except orjson.JSONDecodeError:
        return None
    error = document.get("error", document) if isinstance(document, dict) else None
    kind = error.get("type") if isinstance(error, dict) else None
    return kind if isinstance(kind, str) else None


async def _read(upstream: aiohttp.ClientResponse) -> bytes:
    length = upstream.content_length
    if length is not None and length <= MAX_ANSWER_BYTES:
        return await upstream.read()
    body = bytearray()
    async for chunk in upstream.content.iter_any():
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise RequestError(502, "engine_error", "the engine's answer is too large", code="answer_too_large")
    return bytes(body)


def _socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """Open a socket that notices within about 20 s that its node has vanished, even in the middle of an answer."""
    family, kind, protocol, _, _ = address
    sock = socket.socket(family, kind, protocol)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 5)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 20_000)
    return sock

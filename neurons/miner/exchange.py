"""Ask one pod, and forward its answer: as a whole, as a stream, or as the rest of a stream that another pod began."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any, Final

import orjson
from aiohttp import web
from yarl import URL

from bettertherapy_api import names
from neurons.miner.attempt import Attempt
from neurons.miner.best_of import BestOf
from neurons.miner.cache import Kept
from neurons.miner.continuation import Splice, TornError
from neurons.miner.drawing import Drawing, Undrawn
from neurons.miner.errors import RETRY_AFTER_SECONDS, RequestError, unknown_route
from neurons.miner.metrics import CODE_BROKEN_STREAM, Metrics
from neurons.miner.pod_answers import (
    EVENT_STREAM,
    MAX_LINE_BYTES,
    Refused,
    StreamError,
    TryElsewhere,
    check_adapter,
    check_answer,
    check_whole,
    document_of,
    first_events,
    headers_of,
    is_about_the_template,
    is_error,
    is_unknown_route,
    message_of,
    pod_errors,
    stream_error,
)
from neurons.miner.stamp import Stamper, is_end
from neurons.miner.tables import Pod, VersionRoute
from neurons.miner.templates import Templates
from neurons.miner.tracing import exemplar_of
from neurons.miner.transcript import Transcript
from neurons.miner.upstream import AnswerTooLargeError, BrokeOffError, Reply, Upstream

log = logging.getLogger(__name__)

_ALL: Final = 100
"""Percent. A version with less is compared with another: one of the two is a canary."""
_DONE: Final = (b"data: [DONE]", b"data:[DONE]")


class Exchange:
    """All exchanges of one miner with its pods."""

    def __init__(
        self, upstream: Upstream, templates: Templates, metrics: Metrics, stamper: Stamper | None, drawing: Drawing
    ) -> None:
        self._upstream, self._templates, self._metrics, self._stamper = upstream, templates, metrics, stamper
        self._drawing = drawing

    async def ask(
        self, attempt: Attempt, pod: Pod, version: VersionRoute, body: bytes, *, draws: int = 1
    ) -> web.StreamResponse:
        """Ask one pod; raises TryElsewhere when it didn't take the request or didn't finish.

        With `draws` above 1 the body asks for so many answers in a stream, of which the best goes to the client; raises
        Undrawn when the engine refuses that.
        """
        series = self._metrics.series(version.twin, version.served_name, tried=version.weight < _ALL)
        reply: Reply | None = None
        pod.in_flight += draws - 1  # so many sequences the engine has to run; the request has a place for one
        series.in_flight.inc()
        try:
            with pod_errors(pod):
                reply = await self._upstream.post(_url(pod, attempt.asked.PATH), body, attempt.headers)
                streaming = reply.status == 200 and reply.content_type == EVENT_STREAM
                answer = await (first_events(reply) if streaming else reply.whole(attempt.outlet.grow))
            headers = headers_of(version, pod, reply)
            if attempt.told:
                headers |= attempt.told
            check_answer(reply, pod, answer, headers)
            check_adapter(reply, version)
            attempt.answered_by(pod)
            if draws > 1 and not streaming:
                raise Undrawn
            document: Mapping[str, Any] | None = None
            if reply.status == 200 and draws == 1 and not (streaming and attempt.asked.stream):
                document = check_whole(reply, pod, b"" if streaming or attempt.asked.stream else answer)
            if pod.failures:
                pod.answered()
            if draws > 1:
                return await self._best_of(attempt, pod, version, reply, answer, draws=draws, headers=headers)
            if reply.status == 200 and attempt.undrawn is pod:
                self._drawing.refused(pod)
            if attempt.transcript is not None:
                return await self._go_on(attempt, pod, version, reply, answer, streaming=streaming)
            if not streaming:
                return self._whole(attempt, pod, version, reply, answer, headers=headers, document=document)
            if is_error(answer) and not (failed := stream_error(answer)).before:
                return self._refusal(attempt, version, failed, _as_json(headers))
            series.first_token_seconds.observe(time.monotonic() - attempt.started, exemplar_of(attempt.headers))
            await _begin(attempt, headers)
            return await self._forward(attempt, pod, version, reply, answer)
        except AnswerTooLargeError:
            raise RequestError(
                502, "engine_error", "the engine's answer is too large", code="answer_too_large"
            ) from None
        finally:
            pod.in_flight -= draws - 1
            series.in_flight.dec()
            if reply is not None:
                # Read to its end the connection is back in the pool already and this does nothing; otherwise closing
                # it is what makes the engine stop generating.
                reply.close()

    def _refusal(
        self, attempt: Attempt, version: VersionRoute, failed: StreamError, headers: dict[str, str]
    ) -> web.StreamResponse:
        """Return the error of a stream of which nothing was forwarded yet: it is still a whole answer."""
        refused = Refused(failed.status, orjson.dumps({"error": failed.error}), headers)
        if _is_the_clients(failed):
            return attempt.outlet.whole(refused.status, refused.body, refused.headers, version)
        if failed.status not in (429, 503):
            raise TryElsewhere("error_event", began=True, refused=refused)
        headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
        raise TryElsewhere("busy", refused=refused)

    def _whole(
        self, attempt: Attempt, pod: Pod, version: VersionRoute, reply: Reply, answer: bytes, *,
        headers: dict[str, str], document: Mapping[str, Any] | None,
    ) -> web.StreamResponse:  # fmt: skip
        """Return an answer that came as a whole; `document`: what it says, if that was read."""
        if reply.status == 400 and attempt.asked.wants_manner(attempt.twin):
            if is_about_the_template(reply, answer) and self._templates.doubt(pod):
                raise TryElsewhere("template", began=True, refused=Refused(400, answer, headers))
        elif reply.status == 404 and is_unknown_route(answer):
            raise unknown_route(attempt.asked.PATH)
        if reply.status == 200:
            return self._complete(attempt, version, answer, headers, document)
        return attempt.outlet.whole(reply.status, answer, headers, version)

    def _complete(
        self, attempt: Attempt, version: VersionRoute, answer: bytes, headers: dict[str, str],
        document: Mapping[str, Any] | None = None,
    ) -> web.StreamResponse:  # fmt: skip
        """Return a whole answer as the client's, with its receipt; `document`: what it says, if that was read."""
        if attempt.keep is not None:
            attempt.keep.put(answer, headers, measured=attempt.measured)
        if self._stamper is not None:
            said = document if document is not None else document_of(answer)
            headers |= self._stamper.headers(attempt.asked, version, said, measured=attempt.measured)
        return attempt.outlet.whole(200, answer, headers, version)

    async def repeat(self, attempt: Attempt, version: VersionRoute, kept: Kept, *, age: float) -> web.StreamResponse:
        """Give an answer that was given before, marked as such."""
        headers = {**kept.headers, names.CACHED_HEADER: f"{age:.0f}"}
        stamper, asked = self._stamper, attempt.asked
        if not asked.stream:
            body = version.model.marked_cached(kept.body)
            if stamper is not None:
                said = document_of(kept.body)
                headers |= stamper.headers(asked, version, said, measured=kept.measured, cached=True)
            return attempt.outlet.whole(200, body, headers, version)
        await _begin(attempt, headers)
        transcript, lines = Transcript(), kept.body
        transcript.add(lines)
        if stamper is not None:
            lines = stamper.lines(lines, asked, version, transcript, measured=kept.measured, cached=True)
        await attempt.outlet.write(lines, version)
        await attempt.outlet.end()
        return attempt.outlet.response

    async def _best_of(
        self, attempt: Attempt, pod: Pod, version: VersionRoute, reply: Reply, answer: bytes, *,
        draws: int, headers: dict[str, str],
    ) -> web.StreamResponse:  # fmt: skip
        """Compare several answers and give one."""
        spoken = False

        async def write(attempt: Attempt, version: VersionRoute, transcript: Transcript, lines: bytes) -> None:
            nonlocal spoken
            if not spoken:
                spoken = True
                series = self._metrics.series(version.twin, version.served_name)
                series.first_token_seconds.observe(time.monotonic() - attempt.started, exemplar_of(attempt.headers))
            await self.write(attempt, version, transcript, lines)

        best = BestOf(self._drawing, attempt, pod, version, reply=reply, draws=draws, headers=headers)
        return await best.answer(
            answer, begin=_begin, write=write, whole=lambda body, more: self._complete(attempt, version, body, more)
        )

    async def write(self, attempt: Attempt, version: VersionRoute, transcript: Transcript, lines: bytes) -> None:
        """Forward whole lines of a stream, the receipt before the last."""
        transcript.add(lines)
        if (keep := attempt.keep) is not None:
            keep.add(lines)
            if is_end(lines):
                keep.put(keep.lines, attempt.shown, measured=attempt.measured)
        if self._stamper is not None:
            lines = self._stamper.lines(lines, attempt.asked, version, transcript, measured=attempt.measured)
        await attempt.outlet.write(lines, version)

    async def _go_on(
        self, attempt: Attempt, pod: Pod, version: VersionRoute, reply: Reply, answer: bytes, *, streaming: bool
    ) -> web.StreamResponse:
        """Forward the rest of a stream that another pod began."""
        if not streaming:
            raise attempt.incomplete(f"the next engine refused to go on: {message_of(answer)[:200] or reply.status}")
        if attempt.transcript is None or attempt.going_on is None:
            raise RuntimeError("no stream has begun")
        splice = Splice(attempt.transcript, attempt.going_on)
        response = await self._forward(attempt, pod, version, reply, answer, splice=splice)
        self._metrics.continued.labels("continued").inc()
        return response

    async def _forward(
        self,
        attempt: Attempt,
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
            try:
                lines = splice.rewrite(lines) if splice is not None else lines
            except TornError as torn:
                raise attempt.incomplete(str(torn)) from None
            if lines:
                await self.write(attempt, version, transcript, lines)

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
                    if _is_the_clients(failed):
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


async def _begin(attempt: Attempt, headers: dict[str, str]) -> None:
    """Begin the client's stream, if it hasn't begun."""
    if attempt.transcript is None:
        attempt.shown = dict(headers)
        attempt.transcript = Transcript()
        await attempt.outlet.begin({**headers, "Cache-Control": "no-cache", "X-Accel-Buffering": "no"})


def _is_the_clients(failed: StreamError) -> bool:
    """Tell whether an error event is about the request, which no other pod would take either."""
    return failed.status < 500 and failed.status != 429


def _url(pod: Pod, path: str) -> URL:
    return pod.url if pod.url.path == path else pod.url.with_path(path)


def _words(error: Mapping[str, object]) -> str:
    return f"the engine failed ({str(error.get('message') or error.get('type'))[:200]})"


def _as_json(headers: Mapping[str, str]) -> dict[str, str]:
    return {**headers, "Content-Type": "application/json"}

"""An engine pod as the miner sees it: the agent's allow-list proxy, answering by itself, with faults on demand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import web

from bettertherapy_api import names
from bettertherapy_api.report import AdapterReport, AdapterState, EngineReport, PodRef, PodReport
from neurons.lessons.file import digest_of


@dataclass(kw_only=True)
class FakeAgent:
    """`async with FakeAgent(pod="a", holds={served: digest}) as agent`; change the fields while it runs."""

    pod: str
    holds: dict[str, str] = field(default_factory=dict)
    """Served name → digest of the adapters that it answers for (421 otherwise)."""
    base: str = "base"
    twins: dict[str, str] = field(default_factory=dict)
    """Served name → twin, for the report; by default all before the last dash."""
    ready: bool = True
    draining: bool = False
    words: Sequence[str] = ("It", " is", " fine", ".")
    events: list[bytes] | None = None
    """What a stream sends, instead of one event per word and [DONE]."""
    cut_after: int | None = None
    """Break the connection after this many events (0: after the headers)."""
    break_off: bool = False
    """Close the connection without an answer, having read the request."""
    status: int = 200
    """Answer every chat with this status and `error`."""
    error: dict[str, Any] = field(default_factory=dict)
    marks: dict[str, str] = field(default_factory=dict)
    """Headers of its whole answers."""
    names_adapter: bool = True
    """Its answers name the adapter that gave them."""
    answer: bytes | None = None
    """What it answers every question with, as HTML."""
    finish: str = "stop"
    gate: asyncio.Event | None = None
    """Wait for it before the first event or answer."""
    step: asyncio.Semaphore | None = None
    """Acquired before each event: the test lets them out one by one."""
    context: int | None = None
    """What its engine says of the longest prompt and answer."""
    base_digest: str | None = None
    """What was hashed of its base model."""
    bytes_a_token: int | None = 4
    """How it counts tokens; None for an engine that doesn't."""
    counted: int = 0
    lessons: dict[str, tuple[int, bytes] | None] = field(default_factory=dict)
    """UID → revision and file of the lessons that it has from the store."""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    """Every chat body that was let in, as it arrived."""
    counted_for: list[str | None] = field(default_factory=list)
    """Whose questions those were, as the miner said."""
    headers: list[dict[str, str]] = field(default_factory=list)
    refused: int = 0
    running: int = 0
    most_running: int = 0
    cancelled: int = 0
    address: str = ""

    @property
    def uid(self) -> str:
        return f"uid-{self.pod}"

    async def __aenter__(self) -> Self:
        self._runner = web.ServerRunner(
            web.Server(self._handle, handler_cancellation=True, access_log=None), shutdown_timeout=0.2
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", int(self.address.rpartition(":")[2] or 0)).start()
        self.address = f"127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    def report(self, **changes: Any) -> PodReport:
        adapters = {
            served: AdapterReport(
                twin=self.twins.get(served, served.rpartition("-")[0]), digest=digest, state=AdapterState.VERIFIED
            )
            for served, digest in self.holds.items()
        }
        values: dict[str, Any] = {
            "pod": PodRef(name=self.pod, uid=self.uid),
            "ready": self.ready,
            "draining": self.draining,
            "engine": EngineReport(live=True, max_model_length=self.context, base_digest=self.base_digest),
            "adapters": adapters,
        }
        return PodReport(**(values | changes))

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path.startswith("/agent/v1/lessons"):
            return self._lessons(request.path.removeprefix("/agent/v1/lessons"))
        if request.path == "/tokenize" and self.bytes_a_token is not None:
            self.counted += 1
            self.counted_for.append(request.headers.get(names.TWIN_HEADER))
            return web.json_response({"count": self.tokens(json.loads(await request.read())["messages"])})
        if request.method != "POST" or request.path != "/v1/chat/completions":
            return web.json_response({"error": {"type": "NotFound"}}, status=404)
        body = json.loads(await request.read())
        if self.draining:
            self.refused += 1
            error = {"error": {"type": "Draining", "message": "this pod goes away"}}
            return web.json_response(error, status=503, headers={names.RETRY_HEADER: "other-pod"})
        if body["model"] not in self.holds and body["model"] != self.base:
            self.refused += 1
            error = {"error": {"type": "AdapterNotHere", "message": body["model"]}}
            return web.json_response(error, status=421, headers={names.RETRY_HEADER: "other-pod"})
        self.bodies.append(body)
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            return await self._answer(request, body)
        except (asyncio.CancelledError, ConnectionError):
            self.cancelled += 1
            raise
        finally:
            self.running -= 1

    def tokens(self, messages: list[dict[str, Any]]) -> int:
        """Return how long a prompt is for its engine."""
        said = sum(len(str(message["content"]).encode()) for message in messages)
        return said // (self.bytes_a_token or 1) + 4 * len(messages)

    def _lessons(self, path: str) -> web.Response:
        if not path:
            index = {
                uid: None if kept is None else {"revision": kept[0], "digest": digest_of(kept[1])}
                for uid, kept in self.lessons.items()
            }
            return web.json_response({"twins": index})
        files = {f"/{digest_of(kept[1]).removeprefix('sha256:')}": kept[1] for kept in self.lessons.values() if kept}
        return web.Response(body=files[path]) if path in files else web.Response(status=404)

    async def _answer(self, request: web.BaseRequest, body: dict[str, Any]) -> web.StreamResponse:
        if self.gate is not None:
            await self.gate.wait()
        if self.break_off:
            return self._abort(request)
        if self.context is not None and self.tokens(body["messages"]) + body.get("max_tokens", 0) > self.context:
            return web.json_response({"error": {"type": "BadRequestError", "message": "too long"}}, status=400)
        if self.status != 200:
            return web.json_response({"error": self.error}, status=self.status, headers=self.marks)
        if self.answer is not None:
            return web.Response(body=self.answer, content_type="text/html", headers=self._mark(body["model"]))
        if body.get("stream"):
            return await self._stream(request, body["model"])
        message = {"role": "assistant", "content": "".join(self.words)}
        answer = {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": self.finish}],
            "usage": {"prompt_tokens": len(str(body["messages"]).split()), "completion_tokens": 4},
        }
        headers = {"Content-Type": "application/json", **self._mark(body["model"]), **self.marks}
        return web.Response(body=json.dumps(answer, separators=(",", ":")).encode(), headers=headers)

    async def _stream(self, request: web.BaseRequest, model: str) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8", **self._mark(model)})
        await response.prepare(request)
        events = self.events or [*(_event(model, word) for word in self.words), b"data: [DONE]\n\n"]
        for number, event in enumerate(events):
            if self.cut_after == number:
                return self._abort(request)
            if self.step is not None:
                await self.step.acquire()
            await response.write(event)
        await response.write_eof()
        return response

    def _mark(self, model: str) -> dict[str, str]:
        return {names.ADAPTER_DIGEST_HEADER: self.holds[model]} if model in self.holds and self.names_adapter else {}

    def _abort(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.transport is not None:
            request.transport.close()
        raise ConnectionResetError


def _event(model: str, word: str) -> bytes:
    chunk = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": model,
        "choices": [{"index": 0, "delta": {"content": word}}],
    }
    return b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n"

"""The pod's only door: an allow-list in front of an engine whose other routes could load, unload or stop it.

A request goes on only if its method and its raw path are one of these pairs, its body is JSON that we have parsed and
written anew (so the engine reads what we have checked), and its model is the base or a Verified adapter.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Final

import aiohttp
import orjson
from aiohttp import web

from bettertherapy_api import names
from neurons import engine_fields
from neurons.agent.engine import EngineClient
from neurons.agent.metrics import AgentMetrics
from neurons.agent.monitor import EngineMonitor
from neurons.agent.oddities import MOST_BYTES, Asked, OddAnswers
from neurons.agent.roster import Roster
from neurons.agent.traffic import BrokenOff, Traffic
from neurons.shares import Shares

log = logging.getLogger(__name__)

_WHOLE_BYTES: Final = 1024 * 1024
"""Answers of known length up to this are sent on in one piece; streams have no length."""
GENERATION_PATHS: Final = frozenset(engine_fields.BY_PATH)
"""What goes on to the engine. `/tokenize` generates nothing: it says how long a prompt is."""
OTHER_POD: Final = {names.RETRY_HEADER: "other-pod"}

_REFUSED_TEMPLATE_FIELDS: Final = frozenset({"chat_template", "tokenize"})
_MESSAGE: Final = frozenset(
    {
        "role", "content", "name", "tool_call_id", "tool_calls", "function_call", "refusal", "reasoning",
        "reasoning_content",
    }
)  # fmt: skip

_REQUEST_HEADERS: Final = ("accept", "x-request-id", "traceparent", "tracestate")
_DROPPED_ANSWER_HEADERS: Final = frozenset(
    {
        "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding",
        "upgrade", "content-length", "server", "date", "set-cookie",
    }
)  # fmt: skip


def problem(status: int, kind: str, message: str, *, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return an error in OpenAI's form."""
    body = {"error": {"message": message, "type": kind, "param": None, "code": status}}
    return web.Response(status=status, body=orjson.dumps(body), content_type="application/json", headers=headers)


class Refusal(Exception):  # noqa: N818
    """A request that is not sent on."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.response = problem(status, kind, message)


class Proxy:
    """Sends generation requests on to the engine, byte by byte as they come back."""

    def __init__(
        self,
        *,
        engine: EngineClient,
        monitor: EngineMonitor,
        roster: Roster,
        traffic: Traffic,
        metrics: AgentMetrics,
        odd_answers: OddAnswers,
        pod: str,
        max_body_bytes: int,
        max_in_flight: int,
        demand_seconds: float,
        images: bool = False,
    ) -> None:
        """`images`: messages may hold some, as data URLs; `demand_seconds`: longest wait for an adapter's load."""
        self._demand_seconds = demand_seconds
        self._images = images
        self._engine = engine
        self._monitor = monitor
        self._roster = roster
        self._traffic = traffic
        self._metrics = metrics
        self._odd_answers = odd_answers
        self._pod = pod
        self._max_body_bytes = max_body_bytes
        self._most_in_flight, self._shares = max_in_flight, Shares(max_in_flight)
        self.draining = False
        self.twins: frozenset[str] = frozenset()
        """Names of the twins that are routed: a miner's word on whose a question is counts for these alone."""

    def limit(self, running: int | None) -> None:
        """Let no more in at once than the engine runs, if that is known: several miners may send as many each."""
        self._shares.resize(min(self._most_in_flight, running or self._most_in_flight))

    async def models(self) -> web.Response:
        """GET /v1/models: the base and what is Verified, in OpenAI's form."""
        pool = self._roster.pool
        if pool is None or not self._monitor.live:
            return self._elsewhere("EngineNotReady", "this pod's engine does not answer now")
        listed = {model.id: model for model in self._monitor.listing.models}
        entries: list[dict[str, Any]] = []
        for name in self._base_names():
            model = listed.get(name)
            entries.append(_entry(name, parent=None, length=model.max_model_len if model else None))
        verified = (keeper.name for keeper in self._roster.keepers() if keeper.verified)
        entries += [_entry(name, parent=pool.base_model.name, length=None) for name in verified]
        return web.Response(
            body=orjson.dumps({"object": "list", "data": entries}),
            content_type="application/json",
            headers={names.POD_HEADER: self._pod},
        )

    async def generate(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        """POST to one of GENERATION_PATHS."""
        try:
            document = await self._document(request, path)
            name = _model(document)
        except Refusal as refusal:
            self._metrics.refused.labels("bad_request").inc()
            return refusal.response
        if (shut := self._shut()) is not None:
            return shut
        on_demand = self._roster.on_demand
        if self._roster.verified(name) is None and on_demand.adapter(name) is None and name not in self._base_names():
            return self._not_here(name)
        said = request.headers.get(names.TWIN_HEADER)
        whose = said if said is not None and said in self.twins else name
        if not self._shares.admits(whose, of=len(self.twins)):
            return self._elsewhere(
                "Busy", f"this pod has {self._shares.total} requests in flight, and this twin has its share of them"
            )
        self._shares.begin(whose)
        try:
            return await self._answer(request, path, name, document)
        finally:
            self._shares.end(whose)
            on_demand.idle()

    async def _answer(
        self, request: web.BaseRequest, path: str, name: str, document: dict[str, Any]
    ) -> web.StreamResponse:
        """Send a request on, once its adapter is here if it is one that is loaded on demand."""
        on_demand = self._roster.on_demand
        on_demand.used(name)
        if self._roster.verified(name) is None and on_demand.adapter(name) is not None:
            await on_demand.bring(name, seconds=self._demand_seconds)
            if (shut := self._shut()) is not None:
                return shut
            if not self._monitor.up:
                return self._elsewhere("EngineDown", "this pod's engine is not running now")
        keeper = self._roster.verified(name)
        if keeper is None and name not in self._base_names():
            return self._not_here(name)
        digest = keeper.adapter.digest if keeper is not None else None
        # From the look at what is verified until the request is counted nothing awaits: no adapter is unloaded between.
        body, asked = orjson.dumps(document), Asked.of(document)
        return await self._forward(request, path, name, digest, body=body, asked=asked)

    def _shut(self) -> web.Response | None:
        """Return why this pod takes no request now, or None if it does."""
        if self.draining:
            return self._elsewhere("Draining", "this pod is being stopped and takes no new requests")
        if self._monitor.wedged:
            return self._elsewhere("EngineWedged", "this pod's engine makes no progress and is being restarted")
        return None

    def _not_here(self, name: str) -> web.Response:
        """Answer that the adapter isn't here, or isn't yet."""
        keeper = self._roster.keeper(name)
        failed = keeper is not None and keeper.hopeless
        if self._roster.on_demand.adapter(name) is not None and not failed:
            return self._elsewhere("Busy", f"{name} is not loaded yet on this pod")
        self._metrics.refused.labels("adapter_not_here").inc()
        return problem(
            421, "AdapterNotHere", f"{name} is not verified on this pod", headers={**OTHER_POD, **self._mark(None)}
        )

    async def _forward(
        self, request: web.BaseRequest, path: str, name: str, digest: str | None, *, body: bytes, asked: Asked
    ) -> web.StreamResponse:
        headers = {h: request.headers[h] for h in _REQUEST_HEADERS if h in request.headers}
        headers |= {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        mark = {names.SERVED_NAME_HEADER: name, **self._mark(digest)}
        response: web.StreamResponse | None = None
        try:
            async with (
                self._traffic.request(name),
                self._engine.open("POST", path, headers=headers, body=body) as upstream,
            ):
                if upstream.content_length is not None and upstream.content_length <= _WHOLE_BYTES:
                    answer = await upstream.read()
                    if digest is not None and upstream.status in (400, 404) and _is_unknown_model(answer):
                        # The engine restarted a moment ago; it has refused before doing anything.
                        self._monitor.kick()
                        return problem(
                            421, "AdapterNotHere", f"{name} is being loaded again", headers={**OTHER_POD, **mark}
                        )
                    self._look_at(name, upstream.status, answer, asked)
                    return web.Response(status=upstream.status, body=answer, headers=_answer_headers(upstream, mark))
                response = web.StreamResponse(status=upstream.status, headers=_answer_headers(upstream, mark))
                if upstream.content_length is not None:
                    response.content_length = upstream.content_length
                await response.prepare(request)
                passed = bytearray()
                async for chunk in upstream.content.iter_any():
                    if len(passed) < MOST_BYTES:
                        passed += chunk
                    await response.write(chunk)
                await response.write_eof()
                self._look_at(name, upstream.status, bytes(passed), asked)
                return response
        except asyncio.CancelledError:
            if response is None:
                self._traffic.unanswered += 1
            raise  # the client went away; leaving the context closes the engine's connection, which aborts the request
        except BrokenOff:
            message = (
                "the agent broke the answer off: this pod's engine or the model asked was found not to answer well"
            )
            return self._end(request, response, "BrokenOff", message, mark)
        except aiohttp.ClientConnectorError as error:
            self._monitor.kick()
            log.warning("engine can't be reached: %s", error.os_error)
            return self._elsewhere("EngineDown", "this pod's engine is not running now")
        except (aiohttp.ClientError, TimeoutError) as error:
            if request.transport is None or request.transport.is_closing():
                raise  # it was the client's side that broke
            self._monitor.kick()
            message = f"the engine broke off: {type(error).__name__}"
            return self._end(request, response, "EngineBroke", message, mark)

    def _end(
        self,
        request: web.BaseRequest,
        response: web.StreamResponse | None,
        kind: str,
        message: str,
        mark: Mapping[str, str],
    ) -> web.StreamResponse:
        """Return what a request ends with that no engine finishes; `response` is what has begun of its answer."""
        if response is None:
            return problem(502, kind, message, headers=mark)
        # Only a broken connection tells the client that the answer is not whole.
        if request.transport is not None:
            request.transport.abort()
        return response

    def _look_at(self, name: str, status: int, answer: bytes, asked: Asked) -> None:
        # In the next turn, so that the client's last byte doesn't wait for it.
        asyncio.get_running_loop().call_soon(self._odd_answers.saw, name, status, answer[:MOST_BYTES], asked)

    async def _document(self, request: web.BaseRequest, path: str) -> dict[str, Any]:
        if request.headers.get("content-encoding", "identity") != "identity":
            raise Refusal(415, "UnsupportedMediaType", "send the body uncompressed")
        if request.content_type != "application/json":
            raise Refusal(415, "UnsupportedMediaType", "send JSON: Content-Type: application/json")
        too_large = Refusal(413, "RequestTooLarge", f"the body has more than {self._max_body_bytes} bytes")
        if (request.content_length or 0) > self._max_body_bytes:
            raise too_large
        body = bytearray()
        async for chunk in request.content.iter_any():
            body += chunk
            if len(body) > self._max_body_bytes:
                raise too_large
        try:
            document = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise Refusal(400, "BadRequestError", f"the body is no JSON: {error.msg}") from None
        if not isinstance(document, dict):
            raise Refusal(400, "BadRequestError", "the body must be a JSON object")
        _check_fields(document, path, images=self._images)
        return document

    def _base_names(self) -> tuple[str, ...]:
        pool = self._roster.pool
        return (pool.base_model.name,) if pool is not None else ()

    def _elsewhere(self, kind: str, message: str) -> web.Response:
        self._metrics.refused.labels(kind).inc()
        return problem(503, kind, message, headers={**OTHER_POD, **self._mark(None), "Retry-After": "1"})

    def _mark(self, digest: str | None) -> dict[str, str]:
        mark = {names.POD_HEADER: self._pod}
        if digest is not None:
            mark[names.ADAPTER_DIGEST_HEADER] = digest
        return mark


def _check_fields(document: dict[str, Any], path: str, *, images: bool) -> None:
    """Refuse what is not on the route's list; what it says nothing by (null, false) is taken away instead.

    Of what is left out on purpose: `prompt_logprobs`, `echo` and `logprob_token_ids` kill vLLM 0.32 on a CPU when
    another request runs in the same step, or spoil that one's answer.
    """
    refused = []
    for field in document.keys() - engine_fields.BY_PATH[path]:
        if document[field] is None or document[field] is False:
            del document[field]
        else:
            refused.append(field[:64])
    template = document.get("chat_template_kwargs")
    if isinstance(template, dict):
        refused += sorted(f"chat_template_kwargs.{k}" for k in _REFUSED_TEMPLATE_FIELDS & template.keys())
    if refused:
        raise Refusal(400, "BadRequestError", f"not allowed here: {', '.join(sorted(refused)[:8])}")
    messages = document.get("messages")
    for message in messages if isinstance(messages, list) else ():
        if not isinstance(message, dict):
            raise Refusal(400, "BadRequestError", "each of `messages` must be an object")
        if not message.keys() <= _MESSAGE:
            raise Refusal(400, "BadRequestError", f"a message has `{min(message.keys() - _MESSAGE)[:64]}`: remove it")
        content = message.get("content")
        if isinstance(content, list) and not all(_is_text(part) or (images and _is_image(part)) for part in content):
            kinds = "texts, and images as data URLs, are" if images else "only text is"
            raise Refusal(400, "BadRequestError", f"{kinds} taken: remove other parts of messages")
        if not (content is None or isinstance(content, str | list)):
            raise Refusal(400, "BadRequestError", "the `content` of a message must be a text or a list of parts")


def _is_text(part: Any) -> bool:
    return (
        isinstance(part, dict)
        and part.keys() == {"type", "text"}
        and part["type"] == "text"
        and isinstance(part["text"], str)
    )


def _is_image(part: Any) -> bool:
    """Tell whether it is an image that lies in the request: others the engine would fetch, from inside the cluster."""
    if not isinstance(part, dict) or part.keys() != {"type", "image_url"} or part["type"] != "image_url":
        return False
    image = part["image_url"]
    if not isinstance(image, dict) or not {"url"} <= image.keys() <= {"url", "detail"}:
        return False
    url = image["url"]
    return isinstance(url, str) and url.startswith("data:image/")


def _model(document: dict[str, Any]) -> str:
    name = document.get("model")
    if not isinstance(name, str) or not name:
        # vLLM would answer with the base model.
        raise Refusal(400, "BadRequestError", "say which model: the field `model` is missing or no text")
    return name


def _is_unknown_model(answer: bytes) -> bool:
    try:
        error = orjson.loads(answer)
        error = error.get("error", error)
        return bool(error.get("type") == "NotFoundError")
    except (orjson.JSONDecodeError, AttributeError):
        return False


def _answer_headers(upstream: aiohttp.ClientResponse, mark: Mapping[str, str]) -> dict[str, str]:
    dropped = _DROPPED_ANSWER_HEADERS | {
        token.strip().lower() for token in upstream.headers.get("connection", "").split(",")
    }
    headers = {k: v for k, v in upstream.headers.items() if k.lower() not in dropped}
    return {**headers, **mark}


def _entry(name: str, *, parent: str | None, length: int | None) -> dict[str, Any]:
    # No `root`: where files lie in a pod is nobody's business outside.
    entry = {"id": name, "object": "model", "created": 0, "owned_by": "bettertherapy"}
    return {**entry, "parent": parent, "max_model_len": length}

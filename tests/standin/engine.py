"""A stand-in for vLLM 0.32's server: no model, all the manners, the bad ones included.

`tests/standin/contract.py` holds what it promises, and runs the same against a real vLLM.
"""

from __future__ import annotations

import asyncio
import errno
import json
import random
import re
import time
import uuid
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from aiohttp import web

from tests.standin import sayings
from tests.standin.sayings import Saying
from tests.standin.weights import (
    BASE,
    BASE_SEED,
    CONFIG_FILE,
    FLAW_KEY,
    NO_EFFECT,
    NOT_FINITE,
    SLOWER_KEY,
    SPOILING,
    VOCABULARY,
    WEIGHTS_FILE,
    logprobs,
    seed_of,
    word,
)
from tests.standin.wire import Answer

OWN_WORD = re.compile(r"[0-9a-f]{8}\.\d+")
ROUTES: tuple[tuple[str, str], ...] = (
    ("POST", "/adapters"), ("DELETE", "/adapters/{adapter_name}"), ("POST", "/detokenize"),
    ("POST", "/generative_scoring"), ("GET", "/health"), ("POST", "/invocations"), ("POST", "/is_scaling_elastic_ep"),
    ("GET", "/kv_event_sources"), ("GET", "/load"), ("GET", "/metrics"), ("GET", "/ping"), ("POST", "/ping"),
    ("POST", "/scale_elastic_ep"), ("POST", "/tokenize"), ("POST", "/v1/chat/completions"),
    ("POST", "/v1/chat/completions/batch"), ("POST", "/v1/completions"), ("POST", "/v1/load_lora_adapter"),
    ("POST", "/v1/unload_lora_adapter"), ("POST", "/v1/messages"), ("POST", "/v1/messages/count_tokens"),
    ("GET", "/v1/models"), ("POST", "/v1/responses"), ("GET", "/v1/responses/{id}"),
    ("POST", "/v1/responses/{id}/cancel"), ("POST", "/v1/systemone"), ("GET", "/version"), ("GET", "/docs"),
    ("GET", "/redoc"), ("GET", "/openapi.json"), ("GET", "/docs/oauth2-redirect"),
    ("POST", "/inference/v1/generate"), ("POST", "/inference/v1/abort_requests"),
    ("POST", "/v1/chat/completions/render"), ("POST", "/v1/chat/completions/derender"),
    ("POST", "/v1/completions/render"), ("POST", "/v1/completions/derender"),
    ("POST", "/v1/messages/render"), ("POST", "/v1/responses/render"),
)  # fmt: skip
"""Every route that a real vLLM 0.32 names in its start log with LoRA updating on; openapi.json leaves some out."""


@dataclass
class Knobs:
    """How this engine is built and how it misbehaves; change them while it runs."""

    max_loras: int = 4
    max_cpu_loras: int = 64
    max_lora_rank: int = 16
    max_model_len: int = 1024
    base: str = BASE
    token_seconds: float = 0.0
    prefill_seconds: float = 0.0
    load_seconds: float = 0.0
    models_seconds: float = 0.0
    noise: float = 0.02
    """What bf16 adds to log-probabilities, in nats."""
    unsteady: float = 0.0
    """What they move from one answer to the next in nats, as in another batch of a busy engine."""
    old_errors: bool = False
    """Errors as vLLM 0.6 answers them: no envelope, and 400 where 404 came later."""
    quantized: float = 0.0
    """What a quantized base model moves log-probabilities by, in nats."""
    wrong_weights: set[str] = field(default_factory=set)
    """Adapters under these names answer with other weights than their files'."""
    weights_of: dict[str, str] = field(default_factory=dict)
    """Adapters under these names answer with the weights of this seed."""
    fail_load: Callable[[str], tuple[int, str, str] | None] = lambda name: None
    """(status, type, message) to answer a load with."""
    root_of: Callable[[str, str], str] = lambda name, path: path
    """What /v1/models says as root of (name, path)."""
    leaky_unload: bool = False
    flaw_beyond: int = 0
    """What is wrong with an adapter's weights (FLAW_KEY) shows only after so many tokens."""
    chat_template: str | None = None
    """Applied to every chat as vLLM does: what it refuses is a 400 in its own words."""
    embeddings: bool = False
    """A model that embeds: /v1/embeddings is there."""
    fail_generation: tuple[int, str, str] | None = None
    """(status, type, message) to answer every question with."""
    mixes_up: bool = False
    """The base model, asked while an adapter is, answers with the weights in the last slot once that is taken."""
    fail_stream_after: int | None = None
    """An error event instead of this word (0: before the first event), as when vLLM's engine core dies."""
    cut_stream_after: int | None = None
    """The connection breaks instead of this word."""
    abort_stream_after: int | None = None
    """The answer ends before this word as one that was aborted."""
    sayings: Sequence[Saying] | None = None
    """What the choices of a chat say, instead of words made from the weights."""
    most_choices: int | None = None
    """It draws so many, whatever is asked for."""
    refuses_choices: bool = False
    """More than one is a 400, as from engines that can't."""
    processed_logprobs: bool = False
    """Log-probabilities after restrictions, as with --logprobs-mode processed_logprobs."""


@dataclass
class _Lora:
    name: str
    path: str
    number: int
    slower: float = 1.0
    """How many times as long as usual its tokens take (SLOWER_KEY): a version that does worse."""
    flaw: str | None = None
    """What is wrong with its weights (FLAW_KEY)."""


@dataclass(frozen=True)
class _Text:
    """A text to go on with."""

    tokens: list[int]
    said: int
    """Words of its own that it ends with: it goes on after them, as a model would."""

    @classmethod
    def of(cls, prompt: str | list[Any]) -> _Text:
        """Return a text, or token ids, as it is read."""
        if not isinstance(prompt, str):
            return cls([int(token) for token in prompt], 0)
        # Its first word has no space before it, and may stand right after the prompt's last.
        return cls([len(w) for w in prompt.split()], len(OWN_WORD.findall(prompt)))


def _spaced(seed: str, position: int) -> str:
    """Return a word with the space before it, as tokens have them."""
    return (" " if position else "") + word(seed, position)


class StandIn:
    """The server. `async with StandIn(socket=path) as engine`, or `port=0` for TCP on the loopback."""

    def __init__(self, *, socket: Path | None = None, port: int | None = None, host: str = "127.0.0.1", **knobs: Any):
        self.socket, self.port, self.host = socket, port, host
        self.knobs = Knobs(**knobs)
        self.start_time = time.time()
        self.loras: dict[str, _Lora] = {}
        self.calls: Counter[str] = Counter()
        """Requests by `METHOD path`."""
        self.bodies: list[dict[str, Any]] = []
        """Bodies of generation requests, as they arrived."""
        self.seen_headers: list[dict[str, str]] = []
        self.running = self.waiting = 0
        self.spoilt = False
        """Every answer of this process is nonsense now."""
        self.aborted = 0
        """Requests whose client went away."""
        self._gauges = (0, 0)
        self._moving = asyncio.Event()
        self._moving.set()
        self._slots: OrderedDict[str, int] = OrderedDict()
        self._slot_free = asyncio.Condition()
        self._weights: OrderedDict[int, str] = OrderedDict()
        self._numbers = 0
        self._steps = self._tokens = 0
        self._runner: web.AppRunner | None = None
        self._crash: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    # --- the hand on the switch

    def wedge(self) -> None:
        """Stop making progress; /health goes on answering 200."""
        self._gauges = (self.running, self.waiting)
        self._moving.clear()

    def unwedge(self) -> None:
        self._moving.set()

    async def start(self) -> None:
        """Start a process: it knows no adapter."""
        self.start_time = time.time()
        self.loras.clear()
        self._weights.clear()
        self._slots.clear()
        self._steps = self._tokens = self._numbers = 0
        self.running = self.waiting = 0
        self.spoilt = False
        self._moving.set()
        self._runner = web.AppRunner(self._app(), handler_cancellation=True, access_log=None, shutdown_timeout=0.05)
        await self._runner.setup()
        site: web.BaseSite
        if self.socket is not None:
            if self.socket.exists():
                await self._runner.cleanup()
                raise OSError(errno.EADDRINUSE, "Address already in use")  # as vLLM, which never removes it
            site = web.UnixSite(self._runner, str(self.socket))
        else:
            site = web.TCPSite(self._runner, self.host, self.port or 0)
        await site.start()
        if self.socket is None:
            self.port = self._runner.addresses[0][1]

    async def stop(self, *, shutdown_timeout: float = 0.0) -> None:
        """End the process as SIGTERM does: `shutdown_timeout` 0 aborts running requests, more lets them finish."""
        if self._runner is None:
            return
        for site in list(self._runner.sites):
            await site.stop()
        with suppress(TimeoutError):
            async with asyncio.timeout(shutdown_timeout):
                while self.running or self.waiting:
                    await asyncio.sleep(0.01)
        await self._runner.cleanup()
        self._runner = None

    async def restart(self, *, down_seconds: float = 0.0) -> None:
        """Crash and come back, all adapters forgotten."""
        await self.stop()
        await asyncio.sleep(down_seconds)
        with suppress(TimeoutError):
            async with asyncio.timeout(5):  # what Python takes to import vLLM, and more
                while self.socket is not None and self.socket.exists():
                    await asyncio.sleep(0.01)
        await self.start()

    async def restart_unseen(self) -> None:
        """Crash and come back while no agent is there that would remove the socket."""
        await self.stop()
        if self.socket is not None:
            self.socket.unlink(missing_ok=True)
        await self.start()

    # --- routes

    def _app(self) -> web.Application:
        app = web.Application(middlewares=[self._count], client_max_size=64 * 1024 * 1024)
        handlers: dict[tuple[str, str], Callable[[web.Request], Awaitable[web.StreamResponse]]] = {
            ("GET", "/v1/models"): self._models,
            ("GET", "/health"): self._ok,
            ("GET", "/ping"): self._ok,
            ("POST", "/ping"): self._ok,
            ("GET", "/version"): self._version,
            ("GET", "/metrics"): self._metrics,
            ("POST", "/v1/load_lora_adapter"): self._load,
            ("POST", "/v1/unload_lora_adapter"): self._unload,
            ("POST", "/adapters"): self._sagemaker_load,
            ("DELETE", "/adapters/{adapter_name}"): self._sagemaker_unload,
            ("POST", "/v1/chat/completions"): self._chat,
            ("POST", "/v1/completions"): self._completions,
        }
        app.router.add_post("/v1/embeddings", self._embeddings)
        for method, path in ROUTES:
            app.router.add_route(method, path, handlers.get((method, path), self._ok))
        return app

    @web.middleware
    async def _count(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        self.calls[f"{request.method} {request.path}"] += 1
        try:
            return await handler(request)
        except web.HTTPNotFound:
            return web.json_response({"detail": "Not Found"}, status=404)
        except web.HTTPMethodNotAllowed:
            return web.json_response({"detail": "Method Not Allowed"}, status=405)

    async def _ok(self, request: web.Request) -> web.Response:
        return web.Response()

    async def _version(self, request: web.Request) -> web.Response:
        return web.json_response({"version": "0.6.0" if self.knobs.old_errors else "0.32.0"})

    async def _models(self, request: web.Request) -> web.Response:
        await asyncio.sleep(self.knobs.models_seconds)
        cards = [_card(self.knobs.base, root="/models/current", parent=None, length=self.knobs.max_model_len)]
        cards += [
            _card(lora.name, root=self.knobs.root_of(lora.name, lora.path), parent=self.knobs.base, length=None)
            for lora in self.loras.values()
        ]
        return web.json_response({"object": "list", "data": cards})

    async def _load(self, request: web.Request) -> web.Response:
        body = await request.json()
        if "lora_name" not in body or "lora_path" not in body:
            return self._error(400, "Bad Request", "1 validation error", param="body.lora_name")
        return await self._load_named(body["lora_name"], body["lora_path"], inplace=bool(body.get("load_inplace")))

    async def _sagemaker_load(self, request: web.Request) -> web.Response:
        body = await request.json()
        return await self._load_named(body.get("name", ""), body.get("src", ""), inplace=False)

    async def _load_named(self, name: str, path: str, *, inplace: bool) -> web.Response:
        if not name or not path:
            return self._error(400, "InvalidUserInput", "Both 'lora_name' and 'lora_path' must be provided.")
        if name == self.knobs.base:
            return self._error(
                400, "InvalidUserInput", f"The lora adapter '{name}' conflicts with a served base model."
            )
        if name in self.loras and not inplace:
            return self._error(
                400,
                "InvalidUserInput",
                f"The lora adapter '{name}' has already been loaded. If you want to load the adapter in place, set "
                "'load_inplace' to True.",
            )
        return await self._load_files(name, path)

    async def _load_files(self, name: str, path: str) -> web.Response:
        await asyncio.sleep(self.knobs.load_seconds)
        if (refusal := self.knobs.fail_load(name)) is not None:
            return self._error(refusal[0], refusal[1], refusal[2])
        try:
            config, weights = await asyncio.to_thread(_read, Path(path))
        except FileNotFoundError:
            text = f"Loading lora {name} failed: No adapter found for <path>"
            return self._error(400 if self.knobs.old_errors else 404, "NotFoundError", text)
        if config["r"] > self.knobs.max_lora_rank:
            text = (
                f"Call to add_lora method failed: Worker failed with error 'LoRA rank {config['r']} is greater than "
                f"max_lora_rank {self.knobs.max_lora_rank}.', please check the stack trace above for the root cause"
            )
            return self._error(500, "InternalServerError", text)
        known = self.loras.get(name)
        if known is None:
            self._numbers += 1
        lora = _Lora(
            name, path, known.number if known else self._numbers, config.get(SLOWER_KEY, 1.0), config.get(FLAW_KEY)
        )
        self.loras[name] = lora
        self._remember(lora, seed_of(weights))
        return web.Response(text=f"Success: LoRA adapter '{name}' added successfully.")

    async def _unload(self, request: web.Request) -> web.Response:
        return self._unload_named((await request.json()).get("lora_name", ""))

    async def _sagemaker_unload(self, request: web.Request) -> web.Response:
        return self._unload_named(request.match_info["adapter_name"])

    def _unload_named(self, name: str) -> web.Response:
        if not name:
            text = "'lora_name' needs to be provided to unload a LoRA adapter."
            return self._error(400, "InvalidUserInput", text)
        if name not in self.loras:
            text = f"The lora adapter '{name}' cannot be found."
            if self.knobs.old_errors:
                return self._error(400, "InvalidUserInput", text)
            return self._error(404, "NotFoundError", text)
        if not self.knobs.leaky_unload:
            del self.loras[name]
        # Only the name goes; the weights stay in the worker's cache until others push them out.
        return web.Response(text=f"Success: LoRA adapter '{name}' removed successfully.")

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await self._generation_body(request)
        if isinstance(body, web.Response):
            return body
        messages = body["messages"]
        prompt = " ".join(str(message.get("content")) for message in messages)
        if self.knobs.chat_template is not None:
            from tests.standin import templates

            try:
                prompt = templates.render(
                    self.knobs.chat_template,
                    messages,
                    add_generation_prompt=body.get("add_generation_prompt", True),
                    continue_final_message=body.get("continue_final_message", False),
                    **(body.get("chat_template_kwargs") or {}),
                )
            except templates.Refusal as refusal:
                return self._error(400, "BadRequestError", str(refusal))
        said = messages[-1]["content"] if body.get("continue_final_message") else ""
        text = _Text([len(w) for w in prompt.split()], len(said.split()))
        return await self._generate(request, body, texts=[text], chat=True)

    async def _embeddings(self, request: web.Request) -> web.StreamResponse:
        if not self.knobs.embeddings:
            raise web.HTTPNotFound
        body = await self._generation_body(request)
        if isinstance(body, web.Response):
            return body
        texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
        data = [{"object": "embedding", "index": i, "embedding": [0.5, float(len(t))]} for i, t in enumerate(texts)]
        usage = {"prompt_tokens": len(texts), "total_tokens": len(texts)}
        return web.json_response({"object": "list", "model": body["model"], "data": data, "usage": usage})

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        body = await self._generation_body(request)
        if isinstance(body, web.Response):
            return body
        prompt = body["prompt"]
        several = isinstance(prompt, list) and any(isinstance(part, str | list) for part in prompt)
        texts = [_Text.of(part) for part in (prompt if several else [prompt])]
        tokens = [token for text in texts for token in text.tokens]
        if any(token >= VOCABULARY for token in (*tokens, *(body.get("allowed_token_ids") or ()))):
            return self._error(400, "BadRequestError", f"Token id {max(tokens)} is out of vocabulary")
        return await self._generate(request, body, texts=texts, chat=False)

    async def _generation_body(self, request: web.Request) -> dict[str, Any] | web.Response:
        try:
            body = json.loads(await request.read())
        except ValueError:
            return self._error(400, "Bad Request", "1 validation error:\n  JSON decode error", param="body.0")
        self.bodies.append(body)
        self.seen_headers.append({k.lower(): v for k, v in request.headers.items()})
        if (body.get("n") or 1) > 1:
            if self.knobs.refuses_choices:
                return self._error(400, "BadRequestError", "Only one completion choice is allowed", param="n")
            body = {**body, "n": min(body["n"], self.knobs.most_choices or body["n"])}
        name = body.get("model")
        if name and name != self.knobs.base and name not in self.loras:
            text = f"The model `{name}` does not exist. Valid aliases: {self.knobs.base}."
            return self._error(404, "NotFoundError", text, param="model")
        return dict(body)

    async def _generate(
        self, request: web.Request, body: dict[str, Any], *, texts: list[_Text], chat: bool
    ) -> web.StreamResponse:
        if self.knobs.fail_generation is not None:
            return self._error(*self.knobs.fail_generation)
        count = int(body.get("max_tokens") or body.get("max_completion_tokens") or 16)
        longest = max(len(given.tokens) for given in texts)
        if longest + count > self.knobs.max_model_len:
            text = f"This model's maximum context length is {self.knobs.max_model_len} tokens."
            return self._error(400, "BadRequestError", text, param="input_tokens")
        lora = self.loras.get(body.get("model") or "")
        name = lora.name if lora else self.knobs.base
        identity = f"{'chatcmpl' if chat else 'cmpl'}-{uuid.uuid4().hex}"
        try:
            async with self._slot(lora):
                seed = self._seed(lora)
                sizes = tuple(len(given.tokens) for given in texts)
                await self._step(sum(sizes), self.knobs.prefill_seconds)
                flaw = lora.flaw if lora is not None and longest > self.knobs.flaw_beyond else None
                self.spoilt = self.spoilt or flaw == SPOILING
                if lora is None and (other := self._mixed_up()) is not None:
                    seed = other
                spoilt = self.spoilt or flaw == NOT_FINITE
                if body.get("prompt_logprobs") is not None and self.running > 1:
                    # As vLLM 0.32 on a CPU: "einsum(): subscript b has size 2 for operand 1", and the engine is dead.
                    self._crash = asyncio.create_task(self.stop())
                    await asyncio.sleep(60)
                answer = Answer(
                    chat=chat, model=name, words=[""] * count, prompt_tokens=sum(sizes), body=body, identity=identity,
                    others=[[""] * count for _ in texts[1:]], sizes=sizes,
                )  # fmt: skip
                if body.get("stream"):
                    return await self._stream(request, answer, seed, lora, texts=texts)
                positions = [given.said for given in texts]
                answer.words = [] if spoilt else await self._pieces(answer, seed, positions[0], lora)
                answer.others = [
                    [] if spoilt else [_spaced(seed, position + i) for i in range(count)] for position in positions[1:]
                ]
        except FileNotFoundError:
            return self._error(500, "InternalServerError", "EngineCore encountered an issue.")
        except asyncio.CancelledError:
            self.aborted += 1
            raise
        document = answer.document()
        if spoilt and not chat and body.get("allowed_token_ids") is not None and body.get("logprobs") is not None:
            # vLLM's own JSON encoder refuses NaN, and it takes that for a bad request
            return self._error(400, "BadRequestError", "Out of range float values are not JSON compliant")
        for choice in () if chat else document["choices"]:
            self._add_probabilities(choice, body, seed, texts[choice["index"] // answer.choices].tokens)
        return web.json_response(document)

    def _add_probabilities(
        self, choice: dict[str, Any], body: dict[str, Any], seed: str, tokens: Sequence[int]
    ) -> None:
        """Say those of the prompt's tokens and of the one token that is allowed, where they were asked for."""
        noise, quantized = self.knobs.noise, self.knobs.quantized
        if body.get("prompt_logprobs") is not None:
            values = logprobs(seed, list(tokens), noise=noise, quantized=quantized)
            choice["prompt_logprobs"] = [
                None,
                *(
                    {str(token): {"logprob": value, "rank": 1, "decoded_token": f"t{token}"}}
                    for token, value in zip(tokens[1:], values, strict=True)
                ),
            ]
        allowed = body.get("allowed_token_ids")
        if allowed is not None and body.get("logprobs") is not None:
            value = logprobs(seed, [*tokens, allowed[0]], noise=noise, quantized=quantized)[-1]
            value += random.uniform(-1, 1) * self.knobs.unsteady
            said = 0.0 if self.knobs.processed_logprobs else value
            name_of = f"token_id:{allowed[0]}" if body.get("return_tokens_as_token_ids") else f"t{allowed[0]}"
            choice["logprobs"] = {"tokens": [name_of], "token_logprobs": [said], "top_logprobs": [{name_of: said}]}

    async def _stream(
        self, request: web.Request, answer: Answer, seed: str, lora: _Lora | None, *, texts: Sequence[_Text]
    ) -> web.StreamResponse:
        if self.knobs.sayings is not None and answer.chat:
            return await sayings.stream(request, answer, self.knobs.sayings)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        knobs = self.knobs
        for number in range(len(answer.words)):
            if number == knobs.cut_stream_after:
                if request.transport is not None:
                    request.transport.abort()
                raise ConnectionResetError
            if number == knobs.fail_stream_after:
                await response.write(answer.failure(500, "InternalServerError", "EngineCore encountered an issue."))
                await response.write_eof()
                return response
            if number == 0:
                for event in answer.opening():
                    await response.write(event)
            answer.words[number] = await self._piece(seed, texts[0].said + number, lora)
            for words, given in zip(answer.others, texts[1:], strict=True):
                words[number] = _spaced(seed, given.said + number)
            aborts = number + 1 == knobs.abort_stream_after
            for event in answer.said(number):
                was, becomes = b'"finish_reason":null', b'"finish_reason":"abort"'
                await response.write(event.replace(was, becomes) if aborts else event)
            if aborts:
                break
        for event in answer.closing():
            await response.write(event)
        await response.write_eof()
        return response

    # --- the engine within

    async def _step(self, tokens: int, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self._moving.wait()
        self._steps += 1
        self._tokens += tokens

    async def _pieces(self, answer: Answer, seed: str, position: int, lora: _Lora | None) -> list[str]:
        """Return all that a whole answer says."""
        if self.knobs.sayings is None or not answer.chat:
            return [await self._piece(seed, position + i, lora) for i in range(len(answer.words))]
        saying = sayings.chosen(self.knobs.sayings, 0)
        await asyncio.sleep(saying.seconds * len(saying.words))
        return saying.words

    async def _piece(self, seed: str, position: int, lora: _Lora | None) -> str:
        """Return the word at a position in its time."""
        await self._step(1, self.knobs.token_seconds * (lora.slower if lora else 1.0))
        return _spaced(seed, position)

    @asynccontextmanager
    async def _slot(self, lora: _Lora | None) -> AsyncIterator[None]:
        """Hold one of max_loras slots: as many different adapters run at once, the others wait."""
        key = lora.name if lora else None
        if key is not None:
            self.waiting += 1
            try:
                async with self._slot_free:
                    await self._slot_free.wait_for(lambda: self._take_slot(key))
            finally:
                self.waiting -= 1
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1
            if key is not None:
                self._slots[key] -= 1
                await asyncio.shield(self._announce_slot())

    async def _announce_slot(self) -> None:
        async with self._slot_free:
            self._slot_free.notify_all()

    def _take_slot(self, key: str) -> bool:
        if key not in self._slots:
            if len(self._slots) >= self.knobs.max_loras:
                idle = next((k for k, users in self._slots.items() if users == 0), None)
                if idle is None:
                    return False
                del self._slots[idle]
            self._slots[key] = 0
        self._slots.move_to_end(key)
        self._slots[key] += 1
        return True

    def _remember(self, lora: _Lora, seed: str) -> None:
        self._weights[lora.number] = seed
        self._weights.move_to_end(lora.number)
        while len(self._weights) > self.knobs.max_cpu_loras:
            self._weights.popitem(last=False)

    def _seed(self, lora: _Lora | None) -> str:
        if lora is None or lora.flaw == NO_EFFECT:
            return seed_of(BASE_SEED.encode())
        if lora.name in self.knobs.weights_of:
            return self.knobs.weights_of[lora.name]
        if lora.name in self.knobs.wrong_weights:
            return seed_of(b"other weights")
        if lora.number not in self._weights:
            self._remember(lora, seed_of(Path(lora.path, WEIGHTS_FILE).read_bytes()))
        self._weights.move_to_end(lora.number)
        return self._weights[lora.number]

    def _mixed_up(self) -> str | None:
        """Whose weights the base model answers with, as vLLM 0.32 on a CPU unless it was mended."""
        if not self.knobs.mixes_up or len(self._slots) < self.knobs.max_loras or not any(self._slots.values()):
            return None
        return self._seed(self.loras.get(next(reversed(self._slots)))) if self._slots else None

    async def _metrics(self, request: web.Request) -> web.Response:
        labels = f'engine="0",model_name="{self.knobs.base}"'
        if self._moving.is_set():
            self._gauges = (self.running, self.waiting)  # a scheduler that stands still publishes nothing new
        running, waiting = self._gauges
        busy = ",".join(k for k, users in self._slots.items() if users)
        rows: Iterable[tuple[str, object]] = (
            ("process_start_time_seconds", self.start_time),
            (f"vllm:num_requests_running{{{labels}}}", float(running)),
            (f"vllm:num_requests_waiting{{{labels}}}", float(waiting)),
            (f"vllm:kv_cache_usage_perc{{{labels}}}", 0.0),
            (f"vllm:prompt_tokens_total{{{labels}}}", 0.0),
            (f'vllm:iteration_tokens_total_bucket{{{labels},le="+Inf"}}', float(self._steps)),
            (f"vllm:iteration_tokens_total_count{{{labels}}}", float(self._steps)),
            (f"vllm:iteration_tokens_total_sum{{{labels}}}", float(self._tokens)),
            (
                f'vllm:lora_requests_info{{max_lora="{self.knobs.max_loras}",running_lora_adapters="{busy}",'
                'waiting_lora_adapters=""}',
                time.time(),
            ),
        )
        text = "".join(f"{name} {value}\n" for name, value in rows)
        return web.Response(body=text.encode(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    def _error(self, status: int, kind: str, message: str, *, param: str | None = None) -> web.Response:
        error = {"message": message, "type": kind, "param": param, "code": status}
        return web.json_response(
            {"object": "error", **error} if self.knobs.old_errors else {"error": error}, status=status
        )


def _read(folder: Path) -> tuple[dict[str, Any], bytes]:
    return json.loads((folder / CONFIG_FILE).read_text()), (folder / WEIGHTS_FILE).read_bytes()


def _card(name: str, *, root: str, parent: str | None, length: int | None) -> dict[str, Any]:
    now = int(time.time())
    permission = {"id": f"modelperm-{uuid.uuid4().hex}", "object": "model_permission", "created": now}
    card = {"id": name, "object": "model", "created": now, "owned_by": "vllm", "root": root, "parent": parent}
    return {**card, "max_model_len": length, "permission": [permission]}

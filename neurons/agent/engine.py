"""vLLM's HTTP API as far as the agent uses it, over the Unix socket or, for a foreign server, by URL."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

_KEEPALIVE_SECONDS: Final = 2.0
"""Less than vLLM's own 5 s, so that a pooled connection is never closed under a request just being sent."""
_CONNECT_SECONDS: Final = 5.0
NOT_FINITE_WORDS: Final = b"not JSON compliant"
"""What the JSON encoder behind vLLM says of a log-probability that is no number."""
_MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024


_KNOWN_KINDS: Final = frozenset({"NotFoundError", "InvalidUserInput", "BadRequestError", "InternalServerError"})
"""Of errors, by which vLLM tells them apart."""


class EngineError(Exception):
    """The engine did not do what was asked."""


class EngineDown(EngineError):  # noqa: N818 - a state, as in the report
    """Nothing listens: the engine is starting, restarting or gone. Nothing was sent."""


class EngineSilent(EngineError):  # noqa: N818
    """It took the request and did not answer in time, or broke the connection."""


class EngineAnswer(EngineError):  # noqa: N818
    """It answered with an error. Match by `status` and `kind` together: versions of vLLM move them separately."""

    def __init__(
        self, status: int, kind: str, message: str, param: str | None = None, *, of_stranger: bool = False
    ) -> None:
        if of_stranger:
            # What is said goes into reports and conditions, which a tenant reads who chose the server: it may be one
            # that only the pod reaches. Words that mean something here are known, and no secret.
            kind = kind if kind in _KNOWN_KINDS else ""
            known = NOT_FINITE_WORDS.decode()
            message = known if known in message else "its words are not repeated"
            param = param if param in (None, "messages", "model") else "another"
        super().__init__(f"{status} {kind}: {message}" if kind else f"{status}: {message}")
        self.status = status
        self.kind = kind
        self.message = message
        self.param = param
        """The parameter of the request that it is about, as vLLM says it."""

    @property
    def is_not_found(self) -> bool:
        """An unknown name: 404 since vLLM 0.6, 400 before, both with this type."""
        return self.status in (400, 404) and self.kind == "NotFoundError"

    @property
    def is_not_finite(self) -> bool:
        """A log-probability that is no number: the JSON encoder behind vLLM refuses it, which becomes a 400 or 500."""
        return NOT_FINITE_WORDS.decode() in self.message

    @property
    def is_name_taken(self) -> bool:
        """Perhaps "has already been loaded"; whether that is success, only the name's root in /v1/models can tell."""
        return self.status == 400 and self.kind in ("InvalidUserInput", "BadRequestError")


class Model(BaseModel):
    """One entry of /v1/models."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    root: str | None = None
    """The adapter's path, or the base model's."""
    parent: str | None = None
    """None for the base model itself."""
    max_model_len: int | None = None


class EngineClient:
    """One engine. Use as `async with EngineClient(...) as engine`."""

    def __init__(
        self,
        *,
        socket: Path | None,
        endpoint: str | None = None,
        endpoint_key_file: Path | None = None,
        poll_seconds: float,
        load_seconds: float,
        request_seconds: float,
    ) -> None:
        self._socket = socket
        self._base = endpoint or "http://engine"
        self._key_file = endpoint_key_file
        self._poll = aiohttp.ClientTimeout(total=poll_seconds, sock_connect=_CONNECT_SECONDS)
        self._load = aiohttp.ClientTimeout(total=load_seconds, sock_connect=_CONNECT_SECONDS)
        self.proxy_timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=request_seconds)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector: aiohttp.BaseConnector
        if self._socket is not None:
            connector = aiohttp.UnixConnector(str(self._socket), limit=0, keepalive_timeout=_KEEPALIVE_SECONDS)
        else:
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEPALIVE_SECONDS)
        # No cookies, no proxies from the environment, and bodies passed on as they are.
        self._session = aiohttp.ClientSession(
            connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False, auto_decompress=False
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    def open(self, method: str, path: str, *, headers: Mapping[str, str], body: bytes | None) -> Any:
        """Return aiohttp's request context manager, for the proxy; errors are aiohttp's own."""
        return self._require().request(
            method,
            self._base + path,
            data=body,
            headers={**headers, **self._authorization()},
            timeout=self.proxy_timeout,
            allow_redirects=False,
        )

    async def models(self) -> list[Model]:
        """Return what the engine serves now."""
        answer = await self._json("GET", "/v1/models", timeout=self._poll)
        try:
            return [Model.model_validate(entry) for entry in answer["data"]]
        except (KeyError, TypeError, ValidationError) as error:
            raise EngineAnswer(200, "Unreadable", f"/v1/models is not in OpenAI's form: {error!r}") from error

    async def version(self) -> str | None:
        """Return vLLM's version, or None from a server that does not tell."""
        try:
            value = (await self._json("GET", "/version", timeout=self._poll)).get("version")
        except EngineAnswer:
            return None
        return str(value) if value is not None else None

    async def metrics(self) -> str:
        """Return the engine's Prometheus text."""
        return (await self._call("GET", "/metrics", timeout=self._poll)).decode("utf-8", "replace")

    async def load(self, name: str, path: Path) -> None:
        """Load an adapter; raises EngineAnswer, also for a name that is taken."""
        body = {"lora_name": name, "lora_path": str(path)}
        await self._call("POST", "/v1/load_lora_adapter", body=body, timeout=self._load)

    async def unload(self, name: str) -> None:
        """Make the engine forget a name; an unknown name is no error."""
        try:
            await self._call("POST", "/v1/unload_lora_adapter", body={"lora_name": name}, timeout=self._load)
        except EngineAnswer as error:
            # "Cannot be found" has been 400 InvalidUserInput and 404 NotFoundError; the listing knows.
            if error.status not in (400, 404) or any(model.id == name for model in await self.models()):
                raise

    async def forced(self, model: str, prompt: Sequence[int], token: int) -> float | None:
        """Return ln p(token | prompt) as this model sees it, in nats; NaN when the engine calls it no number.

        None from a server that can't be made to say it. Only this token is allowed; its log-probability is taken before
        that restriction. `prompt_logprobs` would give those of a whole text in one request, but kills vLLM 0.32 on a
        CPU when another request runs in the same step (its LoRA head takes the wrong shape).
        """
        body = {
            "model": model,
            "prompt": list(prompt),
            "max_tokens": 1,
            "temperature": 0,
            "logprobs": 1,
            "allowed_token_ids": [token],
            "return_tokens_as_token_ids": True,
        }
        try:
            answer = await self._json("POST", "/v1/completions", body=body, timeout=self._load)
        except EngineAnswer as error:
            if error.is_not_finite:
                return math.nan
            raise
        try:
            said = answer["choices"][0]["logprobs"]
            if said["tokens"][0] != f"token_id:{token}":
                return None
            value = said["token_logprobs"][0]
            return math.nan if value is None else float(value)
        except (KeyError, TypeError, ValueError, IndexError):
            return None

    async def prompt_tokens(self, model: str, messages: Sequence[Mapping[str, Any]]) -> int | None:
        """Apply the chat template and return the prompt's length, None where the engine doesn't tell."""
        body = {"model": model, "messages": list(messages), "max_tokens": 1, "temperature": 0}
        answer = await self._json("POST", "/v1/chat/completions", body=body, timeout=self._load)
        usage = answer.get("usage")
        told = usage.get("prompt_tokens") if isinstance(usage, dict) else None
        return told if isinstance(told, int) else None

    async def generate_one_token(self, model: str, *, seconds: float) -> None:
        """Ask for one token, to see whether the engine still moves."""
        body = {"model": model, "prompt": ".", "max_tokens": 1}
        timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=_CONNECT_SECONDS)
        await self._call("POST", "/v1/completions", body=body, timeout=timeout)

    async def _json(
        self, method: str, path: str, *, timeout: aiohttp.ClientTimeout, body: object | None = None
    ) -> dict[str, Any]:
        data = await self._call(method, path, body=body, timeout=timeout)
        try:
            answer = orjson.loads(data)
        except orjson.JSONDecodeError as error:
            raise EngineAnswer(200, "Unreadable", f"{path} answered no JSON") from error
        if not isinstance(answer, dict):
            raise EngineAnswer(200, "Unreadable", f"{path} answered no JSON object")
        return answer

    async def _call(
        self, method: str, path: str, *, timeout: aiohttp.ClientTimeout, body: object | None = None
    ) -> bytes:
        data = None if body is None else orjson.dumps(body)
        headers = {"Accept-Encoding": "identity", "Content-Type": "application/json", **self._authorization()}
        try:
            async with self._require().request(
                method, self._base + path, data=data, headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                content = bytearray()
                async for chunk in response.content.iter_any():
                    content += chunk
                    if len(content) > _MAX_ANSWER_BYTES:
                        raise EngineAnswer(response.status, "TooLarge", f"{path} answered more than 16 MiB")
                if response.status != 200:
                    raise parse_error(response.status, bytes(content), of_stranger=self._socket is None)
                return bytes(content)
        except aiohttp.ClientConnectorError as error:
            if isinstance(error.os_error, (ConnectionRefusedError, FileNotFoundError)):
                raise EngineDown(f"nothing listens at {self._where}") from error
            raise EngineSilent(f"{self._where}: {error}") from error
        except TimeoutError as error:
            raise EngineSilent(f"{self._where} gave no answer to {path} in {timeout.total} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise EngineSilent(f"{self._where} broke off {path}: {type(error).__name__}: {error}") from error

    @property
    def _where(self) -> str:
        return str(self._socket) if self._socket is not None else self._base

    def _require(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("EngineClient must be entered first: async with EngineClient(...) as engine")
        return self._session

    def _authorization(self) -> dict[str, str]:
        if self._key_file is None:
            return {}
        try:
            return {"Authorization": f"Bearer {self._key_file.read_text().strip()}"}
        except OSError as error:
            raise EngineAnswer(401, "NoKey", f"{self._key_file} can't be read: {error.strerror}") from error


def parse_error(status: int, content: bytes, *, of_stranger: bool = False) -> EngineAnswer:
    """Read an error answer: `{"error": {...}}` of vLLM ≥ 0.9, the bare object of older ones, or anything else.

    `of_stranger`: of a server that a pool names (`engine.endpoint`), and no engine of its own.
    """
    try:
        document = orjson.loads(content)
        error = document.get("error", document)
        param = error.get("param")
        return EngineAnswer(
            status, str(error.get("type", "")), str(error.get("message", ""))[:1000],
            None if param is None else str(param)[:100], of_stranger=of_stranger,
        )  # fmt: skip
    except (orjson.JSONDecodeError, AttributeError):
        return EngineAnswer(status, "", content[:200].decode("utf-8", "replace"), of_stranger=of_stranger)

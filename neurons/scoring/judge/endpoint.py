"""Asks one OpenAI-compatible endpoint one question: a hosted model, a vLLM of one's own, or a MinerPool.

It follows no redirect, reads no more than it must, waits no longer than there is time, and asks again only out of a
budget that all questions of one grading share. What is raised names neither the endpoint's address nor its words.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import random
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import aiohttp
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from yarl import URL

from neurons.outside import ForbiddenAddress, GuardedResolver, check_url
from neurons.scoring.judge.votes import NoGrade, Why

MAX_BYTES: Final = 1 << 20
"""Of one reply."""
MAX_KEY_BYTES: Final = 16_384
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 30.0
_AGAIN: Final = frozenset({408, 429, 500, 502, 503, 504})
_REFUSED: Final = frozenset({400, 422})
FORBIDDEN: Final = "the judge's address is a link-local one, where clouds hand out keys, or like it: it is not asked"
_HOST_LENGTH: Final = 253
_LABEL_LENGTH: Final = 63
"""Of a host's name and of each of its parts (RFC 1035)."""
_KEY: Final = re.compile(r"[!-~]+")


class EndpointError(ValueError):
    """An endpoint can't be used as it is configured; the message says what to change, and never holds a key."""


class Budget:
    """The time and the second tries that all questions of one grading share."""

    def __init__(self, *, seconds: float, retries: int = 10) -> None:
        """`retries`: how often, over all questions together, one may be asked again."""
        self._until = time.monotonic() + seconds
        self._retries = retries

    def left(self) -> float:
        """Return the seconds that are left, at least 0."""
        return max(0.0, self._until - time.monotonic())

    def again(self, *, pause: float) -> bool:
        """Take one retry, if there is one and time for its pause."""
        if self._retries < 1 or pause >= self.left():
            return False
        self._retries -= 1
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a model answered, and under which name."""

    content: str
    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSettings:
    """Where a grader is, and how it is asked. Raises EndpointError."""

    base: str
    """Up to and with `/v1`, as OpenAI's clients have it."""
    model: str
    key_file: Path | None = None
    """A mounted Secret's file; it is read for each question, so that a new key needs no restart."""
    seconds: float = 60.0
    """The longest that one try takes."""
    concurrency: int = 4
    """Questions in flight at once."""
    max_tokens: int = 1024
    schema: bool = True
    """Sends the answer's JSON schema as `response_format`, until the endpoint refuses that and answers without."""

    def __post_init__(self) -> None:
        try:
            url = URL(self.base)
            host = url.host
        except ValueError:
            raise EndpointError("the judge's address is none; write https://HOST/v1") from None
        if url.scheme not in ("http", "https") or not host:
            raise EndpointError("the judge's address begins with neither http:// nor https://; write https://HOST/v1")
        if url.user is not None or url.password is not None or url.query_string or url.fragment:
            raise EndpointError("the judge's address holds a name, a key or a query; put a key into a file (key_file)")
        if not self.model.strip() or len(self.model) > 200:
            raise EndpointError("the judge's model has no name, or one of over 200 characters")
        if not (self.seconds > 0 and self.concurrency >= 1 and self.max_tokens >= 1):
            raise EndpointError("the judge's seconds, concurrency and max_tokens have to be above zero")
        if len(host) > _HOST_LENGTH or any(len(part) > _LABEL_LENGTH for part in host.split(".")):
            raise EndpointError("the judge's address names a host that can't be: a part of it is too long")
        try:
            check_url(url, loopback=True)
        except ForbiddenAddress:
            raise EndpointError(FORBIDDEN) from None
        if self.key_file is not None and url.scheme == "http" and not _is_near(host):
            raise EndpointError("a key is sent by https:// only, or within the cluster (HOST.NAMESPACE.svc)")

    @property
    def id(self) -> str:
        """Return the endpoint's digest: it tells two endpoints apart without naming either."""
        return f"sha256:{hashlib.sha256(self.base.rstrip('/').encode()).hexdigest()}"


class Endpoint:
    """A grader's endpoint; many tasks may ask it at once."""

    def __init__(self, settings: EndpointSettings) -> None:
        self.settings = settings
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._session: aiohttp.ClientSession | None = None
        self._schema = settings.schema

    async def ask(self, prompt: str, schema: Mapping[str, Any], *, budget: Budget) -> Reply:
        """Return the model's answer to one message. Raises NoGrade: Down, Slow or Unparsable."""
        slow = NoGrade(Why.SLOW, "the judge had no answer within its time")
        try:
            async with asyncio.timeout(budget.left()), self._slots:
                return await self._with_or_without_schema(prompt, schema, budget, slow)
        except TimeoutError:
            raise slow from None

    async def close(self) -> None:
        """Close its connections. May be called twice."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _with_or_without_schema(
        self, prompt: str, schema: Mapping[str, Any], budget: Budget, slow: NoGrade
    ) -> Reply:
        """Ask by the schema, and once more without where that is refused: many servers know no `response_format`."""
        if self._schema:
            try:
                return await self._until_answered(self._body(prompt, schema), budget, slow)
            except _RefusedError:
                pass
        try:
            reply = await self._until_answered(self._body(prompt, None), budget, slow)
        except _RefusedError as refused:
            raise NoGrade(
                Why.DOWN,
                f"the judge refuses the request (status {refused}), also without response_format: look at the model's "
                "name, and at how long a question its endpoint takes",
            ) from None
        self._schema = False
        return reply

    async def _until_answered(self, body: bytes, budget: Budget, slow: NoGrade) -> Reply:
        for attempt in itertools.count():
            pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(attempt, 10)) * random.uniform(0.5, 1)  # noqa: S311 - jitter
            try:
                async with asyncio.timeout(self.settings.seconds):
                    return await self._once(body)
            except TimeoutError:
                failed: NoGrade = slow
            except _AgainError as error:
                failed, pause = NoGrade(Why.DOWN, str(error)), max(pause, error.pause)
            except (aiohttp.ClientError, OSError) as error:
                failed = NoGrade(Why.DOWN, f"the judge could not be reached, or broke off ({type(error).__name__})")
            if not budget.again(pause=pause):
                raise failed from None
            await asyncio.sleep(pause)
        raise AssertionError  # count() does not end

    async def _once(self, body: bytes) -> Reply:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if (key := self._key()) is not None:
            headers["Authorization"] = f"Bearer {key}"
        if self._session is None:
            self._session = aiohttp.ClientSession(
                # Looks at what a name leads to whenever it is resolved: it may lead elsewhere than at the start.
                connector=aiohttp.TCPConnector(resolver=GuardedResolver(loopback=True)),
                cookie_jar=aiohttp.DummyCookieJar(), trust_env=False,
            )  # fmt: skip
        url = URL(self.settings.base.rstrip("/") + "/chat/completions")
        async with self._session.post(url, data=body, headers=headers, allow_redirects=False,
                                      timeout=aiohttp.ClientTimeout(total=None)) as answer:  # fmt: skip
            if answer.status in _AGAIN:
                raise _AgainError(f"the judge fails or is busy (status {answer.status})", _pause(answer.headers))
            if answer.status in (401, 403):
                raise NoGrade(Why.DOWN, f"the judge refuses the key (status {answer.status}); look at its key_file")
            if answer.status in _REFUSED:
                raise _RefusedError(answer.status)
            if answer.status != 200:
                told = "; look at its address and the model's name" if answer.status == 404 else ""
                raise NoGrade(Why.DOWN, f"the judge refuses the request (status {answer.status}){told}")
            return _read(await _whole(answer))

    def _key(self) -> str | None:
        if self.settings.key_file is None:
            return None
        try:
            with self.settings.key_file.open("rb") as opened:
                key = opened.read(MAX_KEY_BYTES + 1).decode("ascii", "replace").strip()
        except OSError as error:
            raise NoGrade(Why.DOWN, f"the judge's key_file can't be read ({type(error).__name__})") from None
        if len(key) > MAX_KEY_BYTES or not _KEY.fullmatch(key):
            raise NoGrade(Why.DOWN, "the judge's key_file doesn't hold one key, in one line and nothing else")
        return key

    def _body(self, prompt: str, schema: Mapping[str, Any] | None) -> bytes:
        body: dict[str, Any] = {
            # one message: some models' templates refuse a system message
            "model": self.settings.model, "messages": [{"role": "user", "content": prompt}], "temperature": 0,
            "max_tokens": self.settings.max_tokens, "stream": False,
        }  # fmt: skip
        if schema is not None:
            named = {"name": "verdicts", "strict": True, "schema": schema}
            body["response_format"] = {"type": "json_schema", "json_schema": named}
        return json.dumps(body).encode()


class _AgainError(Exception):
    """The endpoint failed in a way that may pass."""

    def __init__(self, message: str, pause: float) -> None:
        super().__init__(message)
        self.pause = pause


class _RefusedError(Exception):
    """The endpoint refuses a question as it was asked; its argument is the status."""


class _Read(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)


class _Message(_Read):
    content: str | None = None


class _ReplyChoice(_Read):
    message: _Message
    finish_reason: str | None = None


class _Completion(_Read):
    model: Annotated[str, Field(max_length=200)] = ""
    choices: Annotated[list[_ReplyChoice], Field(min_length=1, max_length=16)]


def _read(raw: bytes) -> Reply:
    try:
        found = _Completion.model_validate_json(raw)
    except ValidationError:
        raise NoGrade(Why.UNPARSABLE, "the judge's endpoint doesn't answer in OpenAI's format") from None
    first = found.choices[0]
    if first.finish_reason not in ("stop", None):
        said = "was cut off: raise max_tokens" if first.finish_reason == "length" else "did not come to its end"
        raise NoGrade(Why.UNPARSABLE, f"the judge's answer {said}")
    if not first.message.content:
        raise NoGrade(Why.UNPARSABLE, "the judge's answer is empty")
    return Reply(content=first.message.content, model=found.model)


async def _whole(answer: aiohttp.ClientResponse) -> bytes:
    read = bytearray()
    async for part in answer.content.iter_chunked(1 << 16):
        read += part
        if len(read) > MAX_BYTES:
            raise NoGrade(Why.UNPARSABLE, f"the judge answers more than {MAX_BYTES >> 20} MiB, which is not read")
    return bytes(read)


def _pause(headers: Mapping[str, str]) -> float:
    """Return what Retry-After says, in seconds; 0 where it says none."""
    told = headers.get("Retry-After", "").strip()
    return float(told[:6]) if told.isascii() and told.isdecimal() else 0.0


def _is_near(host: str) -> bool:
    """Tell whether a host is this machine or a Service of this cluster."""
    return host in ("localhost", "127.0.0.1", "::1") or host.endswith((".svc", ".svc.cluster.local"))

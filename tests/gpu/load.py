"""Asking, once and many times, through the miner or straight at the engine's socket."""

from __future__ import annotations

import asyncio
import itertools
import json
import statistics
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import aiohttp

from bettertherapy_api import names
from tests.gpu.plane import TOKEN

QUESTION: Final = "I have had a headache for two days. What should I do?"
_CHAT: Final = "/v1/chat/completions"
_REQUEST_SECONDS: Final = 60.0


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One answer, or why there is none."""

    model: str
    streamed: bool = False
    error: str | None = None
    digest: str | None = None
    """What the header named."""
    first_seconds: float = 0.0
    """Until the first byte of the body."""
    seconds: float = 0.0
    text: str = ""
    tokens: int | None = None
    """Of the answer, as its usage says."""


@dataclass(frozen=True)
class Target:
    """Someone to ask. `model_of` maps a twin to the name it has there."""

    name: str
    session: aiohttp.ClientSession
    model_of: Mapping[str, str] = field(default_factory=dict)

    async def ask(self, twin: str, *, question: str = QUESTION, stream: bool, tokens: int, **body: Any) -> Answer:
        """Ask once; never raises for what the other side does."""
        model = self.model_of.get(twin, twin)
        document = {
            "model": model, "messages": [{"role": "user", "content": question}], "max_tokens": tokens,
            "stream": stream, "temperature": 0, **body,
        }  # fmt: skip
        began = time.monotonic()
        try:
            async with self.session.post(_CHAT, json=document) as response:
                digest = response.headers.get(names.ADAPTER_DIGEST_HEADER)
                pieces: list[bytes] = []
                first = 0.0
                async for piece in response.content.iter_any():
                    first = first or time.monotonic() - began
                    pieces.append(piece)
                content = b"".join(pieces)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            seconds = time.monotonic() - began
            return Answer(model=twin, streamed=stream, error=f"{type(error).__name__}: {error}", seconds=seconds)
        seconds = time.monotonic() - began
        wrong = _error(response.status, content, stream=stream)
        text, counted = "", None
        try:
            if not wrong:
                text, counted = _text(content, stream=stream), _tokens(content, stream=stream)
        except (ValueError, LookupError, TypeError) as error:
            wrong = f"unreadable, {error!r}: {content[:300]!r}"
        return Answer(
            model=twin, streamed=stream, error=wrong, digest=digest, first_seconds=first, seconds=seconds, text=text,
            tokens=counted,
        )  # fmt: skip


@asynccontextmanager
async def miner(url: str) -> AsyncIterator[Target]:
    """Ask through both hops."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with _session(url, aiohttp.TCPConnector(limit=0), headers=headers) as session:
        yield Target("miner and agent", session)


@asynccontextmanager
async def engine(socket: Path, model_of: Mapping[str, str]) -> AsyncIterator[Target]:
    """Ask the engine itself."""
    connector = aiohttp.UnixConnector(str(socket), limit=0, keepalive_timeout=2)
    async with _session("http://engine", connector) as session:
        yield Target("the engine's socket", session, model_of)


def _session(
    url: str, connector: aiohttp.BaseConnector, *, headers: Mapping[str, str] | None = None
) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        url, connector=connector, headers=headers, timeout=aiohttp.ClientTimeout(total=_REQUEST_SECONDS),
        cookie_jar=aiohttp.DummyCookieJar(), read_bufsize=1024 * 1024,
    )  # fmt: skip


def _error(status: int, content: bytes, *, stream: bool) -> str | None:
    if status != 200:
        return f"{status}: {content[:300].decode(errors='replace')}"
    if stream and not content.rstrip().endswith(b"data: [DONE]"):
        return f"the stream is not whole: …{content[-200:].decode(errors='replace')}"
    if stream and b'data: {"error"' in content:
        return f"an error in the stream: …{content[-300:].decode(errors='replace')}"
    return None


def _text(content: bytes, *, stream: bool) -> str:
    if not stream:
        return str(json.loads(content)["choices"][0]["message"]["content"])
    events = (line[6:] for line in content.split(b"\n") if line.startswith(b"data: {"))
    deltas = (choice["delta"] for event in events for choice in json.loads(event)["choices"])
    return "".join(delta.get("content") or "" for delta in deltas)


def _tokens(content: bytes, *, stream: bool) -> int | None:
    documents = [line[6:] for line in content.split(b"\n") if line.startswith(b"data: {")] if stream else [content]
    usage = json.loads(documents[-1]).get("usage") if documents else None
    return int(usage["completion_tokens"]) if usage else None


@dataclass(frozen=True, kw_only=True)
class Round:
    """So many requests, with so many always in flight."""

    requests: int
    failed: int
    errors: tuple[str, ...]
    """A few of them."""
    per_second: float
    tokens_per_second: float
    first: tuple[float, ...]
    """Milliseconds to the first byte of each answer."""

    def first_at(self, share: float) -> float:
        """Return a percentile of the milliseconds to the first byte."""
        return percentile(self.first, share)


async def drive(
    target: Target, twins: Sequence[str], *, in_flight: int, requests: int, stream: bool, tokens: int
) -> Round:
    """Keep `in_flight` requests running until `requests` are done; every answer has exactly `tokens` tokens."""
    numbers = itertools.count()
    answers: list[Answer] = []

    async def work() -> None:
        while (number := next(numbers)) < requests:
            question = f"Patient {number}: {QUESTION}"
            twin = twins[number % len(twins)]
            answers.append(await target.ask(twin, question=question, stream=stream, tokens=tokens, ignore_eos=True))

    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for _ in range(in_flight):
            group.create_task(work())
    seconds = time.monotonic() - began
    good = [answer for answer in answers if answer.error is None]
    return Round(
        requests=len(answers),
        failed=len(answers) - len(good),
        errors=tuple(sorted({answer.error for answer in answers if answer.error is not None}))[:3],
        per_second=len(good) / seconds,
        tokens_per_second=len(good) * tokens / seconds,
        first=tuple(answer.first_seconds * 1000 for answer in good),
    )


class Clients:
    """Clients that ask without a pause for as long as the context lasts: every other one streams."""

    def __init__(self, target: Target, twins: Sequence[str], *, count: int, tokens: int) -> None:
        self._target, self._twins, self._count, self._tokens = target, twins, count, tokens
        self._stop = False
        self._tasks: list[asyncio.Task[None]] = []
        self.answers: list[Answer] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._work(number)) for number in range(self._count)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop = True  # each ends its last answer
        late = (await asyncio.wait(self._tasks, timeout=_REQUEST_SECONDS + 5))[1]
        for task in late:
            task.cancel()

    async def _work(self, number: int) -> None:
        for turn in itertools.count(number):
            if self._stop:
                return
            twin = self._twins[turn % len(self._twins)]
            # Streaming goes by client and twin by turn, so that all four pairs come up.
            answer = await self._target.ask(twin, stream=number % 2 == 0, tokens=self._tokens)
            self.answers.append(answer)
            if answer.error is not None:
                await asyncio.sleep(0.05)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which `share` percent lie."""
    if len(values) < 2:
        return values[0] if values else 0.0
    return statistics.quantiles(values, n=100, method="inclusive")[round(share) - 1]

"""Clients that ask a twin without a pause, and count what they don't get: no retries, so a failure is a failure."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp

from bettertherapy_api import names

QUESTION: Final = "My head has ached since this morning. What should I do?"
REQUEST_SECONDS: Final = 120.0

Check = Callable[[str, str], str | None]
"""Says what is wrong with an answer, given the served name in its headers and its text; None when it is right."""


@dataclass(frozen=True)
class Answer:
    """One good answer, as its headers tell it; times are time.monotonic()."""

    sent: float
    ended: float
    served: str
    digest: str
    pod: str


class _Wrong(Exception):  # noqa: N818 - a finding, not an error of this program
    """An answer that is not what it should be."""


@dataclass
class Tally:
    """What the clients got."""

    whole: int = 0
    """Answers in one piece."""
    streams: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    by_version: Counter[str] = field(default_factory=Counter)

    @property
    def requests(self) -> int:
        """Requests that were answered or failed."""
        return self.whole + self.streams + self.failures.total()

    def notes(self, subject: str) -> list[str]:
        """Return a sentence for each of the ten commonest failures."""
        return [f"Failed on the {subject}, {count} times: {what}" for what, count in self.failures.most_common(10)]


class Clients:
    """So many clients, half of them streaming. Each asks again as soon as it has its answer, until `stop`.

    A failure is any answer that is not 200, breaks off, has an error in its stream, lacks its end or its text, names no
    version, or fails `check`.
    """

    def __init__(
        self, url: str, *, token: str, twin: str, check: Check | None = None,
        heard: Callable[[Answer], None] = lambda answer: None,
    ) -> None:  # fmt: skip
        self._url = f"{url}/v1/chat/completions"
        self._headers = {"Authorization": f"Bearer {token}"}
        self._twin = twin
        self._check = check
        self._heard = heard
        self._stopping = False
        self.tally = Tally()

    async def run(self, count: int, *, tokens: tuple[int, ...]) -> None:
        """Ask until `stop` was called and the last answers are in; client i asks for tokens[i % len(tokens)] tokens."""
        timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS)
        async with (
            aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as http,
            asyncio.TaskGroup() as group,
        ):
            for number in range(count):
                asks = tokens[number // 2 % len(tokens)]
                group.create_task(self._client(http, stream=number % 2 == 0, tokens=asks))

    def stop(self) -> None:
        """Let each client have its last answer."""
        self._stopping = True

    async def _client(self, http: aiohttp.ClientSession, *, stream: bool, tokens: int) -> None:
        body = {
            "model": self._twin, "max_tokens": tokens, "temperature": 0, "stream": stream,
            "messages": [{"role": "user", "content": QUESTION}],
        }  # fmt: skip
        while not self._stopping:
            try:
                answer = await self._ask(http, body)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                self.tally.failures[f"{type(error).__name__}: {error}"[:200]] += 1
                await asyncio.sleep(0.1)  # a miner that is gone must not be asked a thousand times a second
            except _Wrong as wrong:
                self.tally.failures[str(wrong)[:200]] += 1
            else:
                self.tally.by_version[answer.served] += 1
                self.tally.streams += stream
                self.tally.whole += not stream
                self._heard(answer)

    async def _ask(self, http: aiohttp.ClientSession, body: dict[str, Any]) -> Answer:
        sent = time.monotonic()
        # Each question is a conversation of its own; otherwise all would be one, and meet one version.
        headers = self._headers | {"x-session-id": uuid.uuid4().hex}
        async with http.post(self._url, json=body, headers=headers) as response:
            content = await response.read()
            if response.status != 200:
                raise _Wrong(f"{response.status}: {content.decode(errors='replace')}")
            text = _streamed(content) if body["stream"] else _in_one_piece(content)
            served, digest, pod = (
                response.headers.get(header, "")
                for header in (names.SERVED_NAME_HEADER, names.ADAPTER_DIGEST_HEADER, names.POD_HEADER)
            )
        if not served.startswith(f"{self._twin}-"):
            raise _Wrong(f"answered by {served or 'no named version'}")
        if not text.strip():
            raise _Wrong("an answer without text")
        if self._check is not None and (wrong := self._check(served, text)) is not None:
            raise _Wrong(wrong)
        return Answer(sent, time.monotonic(), served, digest, pod)


def _in_one_piece(content: bytes) -> str:
    try:
        return str(json.loads(content)["choices"][0]["message"]["content"])
    except (ValueError, LookupError, TypeError) as error:
        raise _Wrong(f"no answer in OpenAI's form: {error!r}") from error


def _streamed(content: bytes) -> str:
    events = [line[6:] for line in content.decode().split("\n\n") if line.startswith("data: ")]
    if not events or events[-1].strip() != "[DONE]":
        raise _Wrong("a stream without its end")
    try:
        choices = [json.loads(event)["choices"] for event in events[:-1]]
        return "".join(choice["delta"].get("content") or "" for each in choices for choice in each)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise _Wrong(f"no stream in OpenAI's form: {error!r}") from error

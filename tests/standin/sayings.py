"""Answers that a test writes for the stand-in to draw, each choice in its own time and manner."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from tests.standin.wire import Answer


@dataclass(frozen=True, kw_only=True)
class Saying:
    """What one choice says."""

    text: str
    seconds: float = 0.0
    """Before each word."""
    finish: str = "stop"
    hangs: bool = False
    """It never comes to its end."""
    logprob: float | None = -0.5
    """Of each token; NaN is written as vLLM's encoder does, as null."""
    raw_nan: bool = False
    """Probabilities are the word NaN, which is no JSON."""

    @property
    def words(self) -> list[str]:
        """Its pieces: all but the first with the space before it."""
        return [word if not number else f" {word}" for number, word in enumerate(self.text.split())]


def chosen(sayings: Sequence[Saying], index: int) -> Saying:
    """Return what a choice says: the last one again and again, where there are too few."""
    return sayings[min(index, len(sayings) - 1)]


async def stream(request: web.Request, answer: Answer, sayings: Sequence[Saying]) -> web.StreamResponse:
    """Stream all choices, interleaved as they come."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
    await response.prepare(request)
    for event in answer.opening():
        await response.write(event)
    try:
        async with asyncio.TaskGroup() as group:
            for index in range(answer.choices):
                group.create_task(_speak(response, answer, index, chosen(sayings, index)))
    except* ConnectionError:
        raise asyncio.CancelledError from None  # the client left
    answer.words = chosen(sayings, 0).words
    for event in answer.closing():
        await response.write(event)
    await response.write_eof()
    return response


async def _speak(response: web.StreamResponse, answer: Answer, index: int, saying: Saying) -> None:
    words = saying.words
    for number, word in enumerate(words):
        await asyncio.sleep(saying.seconds)
        if saying.hangs and number == len(words) - 1:
            await asyncio.Event().wait()
        finish = saying.finish if number == len(words) - 1 else None
        await response.write(_event(answer, index, word, saying, finish, number + 1))
    if not words:
        await response.write(_event(answer, index, "", saying, saying.finish, 0))


def _event(answer: Answer, index: int, word: str, saying: Saying, finish: str | None, tokens: int) -> bytes:
    choice: dict[str, Any] = {"index": index, "delta": {"content": word}, "logprobs": None, "finish_reason": finish}
    if answer.body.get("logprobs") and word:
        entry = {"token": word, "logprob": saying.logprob, "bytes": None, "top_logprobs": []}
        choice["logprobs"] = {"content": [entry]}
    event: dict[str, Any] = {
        "id": answer.identity, "object": "chat.completion.chunk", "created": answer.created, "model": answer.model,
        "choices": [choice],
    }  # fmt: skip
    if (answer.body.get("stream_options") or {}).get("continuous_usage_stats"):
        given = answer.prompt_tokens
        event["usage"] = {"prompt_tokens": given, "completion_tokens": tokens, "total_tokens": given + tokens}
    text = json.dumps(event, separators=(",", ":"))
    if saying.raw_nan:
        text = text.replace(f'"logprob":{saying.logprob}', '"logprob":NaN')
    return f"data: {text}\n\n".encode()

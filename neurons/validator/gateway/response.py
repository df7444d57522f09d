"""Answers in OpenAI's form: a document, or a stream of chunks."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
from aiohttp import HttpVersion11, web

from bettertherapy_api import names
from neurons.miner.errors import JSON_HEADERS, error_event

SESSION_HEADER: Final = "x-session-id"
MINER_HEADER: Final = "x-bettertherapy-miner"
ANSWER_HEADER: Final = "x-bettertherapy-answer"
KEEP_ALIVE: Final = b": comparing answers\n\n"
_PIECE: Final = re.compile(r"\S*\s*(?:\S+\s*){0,11}", re.DOTALL)
"""A dozen words of a stream's text, as its chunks have them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One text for the patient."""

    text: str
    """The miner's, word for word; or the gateway's own sentence where nobody answered."""
    finish_reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the patient gets."""

    id: str
    created: int
    twin: str
    notice: str
    """Stands before the first text; empty without an emergency."""
    choices: Sequence[Choice]
    tokens: tuple[int, int] | None
    more: Mapping[str, Any]
    """What stands under `bettertherapy`."""
    headers: Mapping[str, str]

    def to_response(self, headers: Mapping[str, str]) -> web.Response:
        """Return the whole answer."""
        choices = [
            {
                "index": number,
                "message": {"role": "assistant", "content": self.notice + choice.text, "refusal": None},
                "logprobs": None,
                "finish_reason": choice.finish_reason,
            }
            for number, choice in enumerate(self.choices)
        ]
        document = {
            "id": self.id, "object": "chat.completion", "created": self.created, "model": self.twin,
            "choices": choices, "usage": self._usage(), "bettertherapy": self.more,
        }  # fmt: skip
        return web.Response(body=orjson.dumps(document), headers={**JSON_HEADERS, **headers, **self.headers})

    def _usage(self) -> dict[str, int] | None:
        if self.tokens is None:
            return None
        prompt, completion = self.tokens
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}

    def events(self, *, notice_sent: bool) -> bytes:
        """Return the chunks of the text."""
        made = []
        for index, choice in enumerate(self.choices):
            text = choice.text if notice_sent and index == 0 else self.notice + choice.text
            if not (notice_sent and index == 0):
                made.append(self._chunk(index, {"role": "assistant", "content": ""}))
            made += [self._chunk(index, {"content": piece}) for piece in _PIECE.findall(text) if piece]
            made.append(self._chunk(index, {}, finish=choice.finish_reason))
        return b"".join(made)

    def last_events(self, *, usage: bool) -> bytes:
        """Return what stands behind the text: the tokens' count, then receipt and the rest, then the end."""
        made = b""
        head = _head(self.id, self.created, self.twin)
        if usage:
            made += _event({**head, "choices": [], "usage": self._usage()})
        choice = {"index": 0, "delta": {}, "logprobs": None, "finish_reason": None}
        return made + _event({**head, "choices": [choice], "bettertherapy": self.more}) + b"data: [DONE]\n\n"

    def _chunk(self, index: int, delta: Mapping[str, str], *, finish: str | None = None) -> bytes:
        return chunk(self.id, self.created, self.twin, delta, index=index, finish=finish)


def chunk(
    id_: str, created: int, twin: str, delta: Mapping[str, str], *, index: int = 0, finish: str | None = None
) -> bytes:
    """Return one event of a stream."""
    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
    return _event({**_head(id_, created, twin), "choices": [choice]})


def _head(id_: str, created: int, twin: str) -> dict[str, Any]:
    return {"id": id_, "object": "chat.completion.chunk", "created": created, "model": twin}


def _event(document: Mapping[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(document) + b"\n\n"


def answer_headers(
    *, receipt: str, adapter: str | None, served_name: str, miner: str, answer_id: str
) -> dict[str, str]:
    """Return the headers that say who gave a whole answer."""
    headers = {
        names.RECEIPT_HEADER: receipt, names.SERVED_NAME_HEADER: served_name, MINER_HEADER: miner,
        ANSWER_HEADER: answer_id,
    }  # fmt: skip
    if adapter is not None:
        headers[names.ADAPTER_DIGEST_HEADER] = adapter
    return headers


class EventStream:
    """A stream to one client."""

    def __init__(self, request: web.BaseRequest, headers: Mapping[str, str], *, closing: Callable[[], bool]) -> None:
        self._request, self._headers, self._closing = request, headers, closing
        self.response: web.StreamResponse | None = None

    async def begin(self) -> web.StreamResponse:
        """Send the headers, once; from now on nothing but events can be said."""
        if self.response is None:
            headers = {
                "Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-store",
                "X-Accel-Buffering": "no", **self._headers,
            }  # fmt: skip
            self.response = web.StreamResponse(status=200, headers=headers)
            if self._closing() or self._request.version < HttpVersion11:  # which has chunks
                self.response.force_close()
            await self.response.prepare(self._request)
        return self.response

    async def write(self, events: bytes) -> None:
        """Send whole events."""
        await (await self.begin()).write(events)

    async def fail(self, error: dict[str, Any]) -> None:
        """End the stream with an error."""
        response = await self.begin()
        await response.write(error_event(error))
        await response.write_eof()

"""A chat's answer in the form of OpenAI's responses, whole or as its events."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson
from aiohttp import web

from neurons.miner.outlet import Outlet
from neurons.miner.responses import ResponsesRequest
from neurons.miner.tables import VersionRoute
from neurons.miner.transcript import events_of

_Item = dict[str, Any]
_CUT_OFF: Final = {"length": "max_output_tokens", "content_filter": "content_filter"}


class ResponsesOutlet(Outlet):
    """Translates as it goes; the relay sees a chat."""

    def __init__(
        self,
        request: web.BaseRequest,
        *,
        headers: Mapping[str, str],
        closing: Callable[[], bool],
        grow: Callable[[int], None],
        asked: ResponsesRequest,
    ) -> None:
        super().__init__(request, headers=headers, closing=closing, grow=grow)
        self._asked = asked
        self._events = _Events(asked)

    def document(self, body: bytes, version: VersionRoute) -> bytes:
        """Return a chat completion as a response."""
        chat = orjson.loads(version.model.in_body(body))
        choice = chat["choices"][0]
        message = choice["message"]
        output = [_message(chat["id"], message["content"], _logprobs(choice))] if message.get("content") else []
        output += [_call(call["id"], call["function"]) for call in message.get("tool_calls") or ()]
        response = _response(self._asked, chat, output, finish=choice.get("finish_reason"), usage=chat.get("usage"))
        return orjson.dumps({**response, "bettertherapy": chat.get("bettertherapy")})

    async def write(self, events: bytes, version: VersionRoute) -> None:
        """Forward whole lines of a chat's stream."""
        out = b"".join(self._events.of(event) for event in events_of(version.model.in_events(events)))
        if out:
            await self._pass(out)

    async def fail(self, error: dict[str, Any]) -> None:
        """End the stream with a failed response."""
        await self._end_with(self._events.failure(error))


class _Events:
    """A chat's chunks in, a response's events out."""

    def __init__(self, asked: ResponsesRequest) -> None:
        self._asked = asked
        self._number = 0
        self._head: dict[str, Any] | None = None
        self._output: list[_Item] = []
        self._text: list[str] = []
        self._logprobs: list[Any] = []
        self._message_at: int | None = None
        self._calls: dict[int, int] = {}
        """Index of a call in the chat → its place in the output."""
        self._finish: str | None = None
        self._usage: dict[str, Any] | None = None
        self._signed: dict[str, Any] = {}
        """The receipt, for the last event."""

    def of(self, event: dict[str, Any] | None) -> bytes:
        """Return the events that a chunk means; None is the chat's end."""
        if event is None:
            return self._end()
        out = b""
        if self._head is None:
            self._head = event
            for kind in ("response.created", "response.in_progress"):
                out += self._event(kind, response=self._response(status="in_progress"))
        self._usage = event.get("usage") or self._usage
        if "bettertherapy" in event:
            self._signed = {"bettertherapy": event["bettertherapy"]}
        for choice in event.get("choices") or ():
            delta = choice.get("delta") or {}
            if delta.get("content"):
                out += self._said(delta["content"], _logprobs(choice))
            for call in delta.get("tool_calls") or ():
                out += self._called(call)
            self._finish = choice.get("finish_reason") or self._finish
        return out

    def failure(self, error: dict[str, Any]) -> bytes:
        """Return the event of a stream that broke."""
        said = {"code": "server_error", "message": str(error.get("message"))}
        if self._message_at is not None:
            self._output[self._message_at] = self._message(status="incomplete")
        for place in self._calls.values():
            self._output[place]["status"] = "incomplete"
        return self._event("response.failed", response={**self._response(status="failed"), "error": said})

    def _said(self, text: str, logprobs: list[Any]) -> bytes:
        out = b""
        if self._message_at is None:
            self._message_at = len(self._output)
            item = _message(self._identity, "", [], status="in_progress")
            self._output.append({**item, "content": []})
            out += self._event("response.output_item.added", output_index=self._message_at, item=self._output[-1])
            out += self._part("response.content_part.added", part=item["content"][0])
        self._text.append(text)
        self._logprobs += logprobs
        return out + self._part("response.output_text.delta", delta=text, logprobs=logprobs)

    def _called(self, call: dict[str, Any]) -> bytes:
        function, number = call.get("function") or {}, call.get("index", 0)
        out = b""
        if number not in self._calls:
            self._calls[number] = len(self._output)
            item = {**_call(call.get("id") or f"call_{number}", {"name": function.get("name"), "arguments": ""})}
            self._output.append({**item, "status": "in_progress"})
            out += self._event("response.output_item.added", output_index=self._calls[number], item=self._output[-1])
        place = self._calls[number]
        item = self._output[place]
        if function.get("arguments"):
            item["arguments"] += function["arguments"]
            out += self._event(
                "response.function_call_arguments.delta",
                item_id=item["id"],
                output_index=place,
                delta=function["arguments"],
            )
        return out

    def _end(self) -> bytes:
        out = b""
        if self._message_at is not None:
            item = self._output[self._message_at] = self._message()
            part = item["content"][0]
            out += self._part("response.output_text.done", text=part["text"], logprobs=part["logprobs"])
            out += self._part("response.content_part.done", part=part)
            out += self._event("response.output_item.done", output_index=self._message_at, item=item)
        for place in self._calls.values():
            item = self._output[place]
            item["status"] = "completed"
            out += self._event(
                "response.function_call_arguments.done",
                item_id=item["id"],
                output_index=place,
                name=item["name"],
                arguments=item["arguments"],
            )
            out += self._event("response.output_item.done", output_index=place, item=item)
        response = {**self._response(), **self._signed}
        return out + self._event(f"response.{response['status']}", response=response)

    def _message(self, *, status: str = "completed") -> _Item:
        """Return all that was said."""
        return _message(self._identity, "".join(self._text), self._logprobs, status=status)

    @property
    def _identity(self) -> str:
        return str((self._head or {}).get("id", ""))

    def _response(self, *, status: str | None = None) -> dict[str, Any]:
        made = _response(self._asked, self._head or {}, self._output, finish=self._finish, usage=self._usage)
        return made if status is None else {**made, "status": status, "incomplete_details": None}

    def _part(self, kind: str, **values: Any) -> bytes:
        item_id = f"msg_{self._identity}"
        return self._event(kind, item_id=item_id, output_index=self._message_at, content_index=0, **values)

    def _event(self, kind: str, **values: Any) -> bytes:
        data = orjson.dumps({"type": kind, "sequence_number": self._number, **values})
        self._number += 1
        return b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n"


def _response(
    asked: ResponsesRequest, chat: dict[str, Any], output: list[_Item], *, finish: str | None, usage: Any
) -> dict[str, Any]:
    why = _CUT_OFF.get(finish or "")
    return {
        "id": f"resp_{chat.get('id', '')}", "object": "response", "created_at": chat.get("created", 0),
        "status": "incomplete" if why else "completed", "error": None,
        "incomplete_details": {"reason": why} if why else None, "model": asked.twin, "output": output,
        **asked.echo, "usage": _usage(usage),
    }  # fmt: skip


def _message(identity: str, text: str, logprobs: list[Any], *, status: str = "completed") -> _Item:
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}
    return {"id": f"msg_{identity}", "type": "message", "role": "assistant", "status": status, "content": [part]}


def _call(call_id: str, function: dict[str, Any]) -> _Item:
    return {
        "id": f"fc_{call_id}", "type": "function_call", "call_id": call_id, "name": function.get("name"),
        "arguments": function.get("arguments") or "", "status": "completed",
    }  # fmt: skip


def _logprobs(choice: dict[str, Any]) -> list[Any]:
    return (choice.get("logprobs") or {}).get("content") or []


def _usage(usage: Any) -> dict[str, Any] | None:
    if not isinstance(usage, dict):
        return None
    given, made = usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0)
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    thought = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0
    return {
        "input_tokens": given, "input_tokens_details": {"cached_tokens": cached},
        "output_tokens": made, "output_tokens_details": {"reasoning_tokens": thought}, "total_tokens": given + made,
    }  # fmt: skip

"""The form in which vLLM 0.32 writes its answers: events and bodies of chats and completions."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass(kw_only=True)
class Answer:
    """One answer on its way to the wire. `words` are its pieces: all but the first with the space before it.

    A list of texts to go on with has an answer of `choices` choices for each, their numbers running on: `others` are
    the words that go on with the second text and those after it.
    """

    chat: bool
    model: str
    words: list[str]
    prompt_tokens: int
    """Of all texts together."""
    body: dict[str, Any]
    others: list[list[str]] = field(default_factory=list)
    sizes: tuple[int, ...] = ()
    """Tokens of each of the texts."""
    identity: str = ""
    created: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        self.identity = self.identity or f"{'chatcmpl' if self.chat else 'cmpl'}-{uuid.uuid4().hex}"

    @property
    def choices(self) -> int:
        """How many there are for each text."""
        return int(self.body.get("n") or 1)

    @property
    def texts(self) -> list[list[str]]:
        """The words that go on with each text."""
        return [self.words, *self.others]

    @property
    def tool(self) -> tuple[str, str] | None:
        """The call of a tool that this answer is: the first one offered, unless its result is there already."""
        tools = self.body.get("tools")
        if not tools or not self.chat or self.body.get("tool_choice") == "none":
            return None
        if self.body["messages"][-1]["role"] == "tool":
            return None
        function = tools[0]["function"]
        names = list(function.get("parameters", {}).get("properties", {}))
        return function["name"], json.dumps(dict.fromkeys(names, "x"))

    def document(self) -> dict[str, Any]:
        """The whole answer."""
        choices = []
        for index, words in enumerate(words for words in self.texts for _ in range(self.choices)):
            choice: dict[str, Any] = {"index": index}
            text = "".join(words)
            if not self.chat:
                choice |= {"text": text}
            elif self.tool is None:
                message = {"role": "assistant", "content": text, "refusal": None, "annotations": None, "audio": None}
                choice["message"] = {**message, "function_call": None, "tool_calls": [], "reasoning": None}
            else:
                call = {"id": f"call_{index}", "type": "function", "function": _function(*self.tool)}
                choice["message"] = {"role": "assistant", "content": None, "tool_calls": [call], "reasoning": None}
            choice |= {"logprobs": self._logprobs(words), "finish_reason": self._finish(), "stop_reason": None}
            choices.append(choice)
        kind = "chat.completion" if self.chat else "text_completion"
        head = {"id": self.identity, "object": kind, "created": self.created, "model": self.model}
        return {**head, "choices": choices, "usage": self.usage(len(self.words))}

    def usage(self, tokens: int) -> dict[str, Any]:
        whole = tokens * self.choices * len(self.texts)
        return {
            "prompt_tokens": self.prompt_tokens,
            "total_tokens": self.prompt_tokens + whole,
            "completion_tokens": whole,
        }

    def opening(self) -> Iterator[bytes]:
        """The events before the first word: each choice's role."""
        if self.chat:
            for index in range(self.choices):
                yield self._event(index, {"delta": {"role": "assistant", "content": ""}}, [], None, 0)

    def said(self, position: int) -> Iterator[bytes]:
        """The events of one word, of each choice."""
        finish = self._finish() if position == len(self.words) - 1 else None
        for index, words in enumerate(words for words in self.texts for _ in range(self.choices)):
            word = words[position]
            if not self.chat:
                piece: dict[str, Any] = {"text": word}
            elif self.tool is None:
                piece = {"delta": {"content": word}}
            else:
                piece = {"delta": self._piece_of_call(position, index)}
            yield self._event(index, piece, [word], finish, position + 1)

    def closing(self) -> Iterator[bytes]:
        """The events after the last word."""
        if (self.body.get("stream_options") or {}).get("include_usage"):
            yield _data({**self._head(), "choices": [], "usage": self.usage(len(self.words))})
        yield b"data: [DONE]\n\n"

    def failure(self, status: int, kind: str, message: str) -> bytes:
        """What vLLM says in a stream that failed: an error, and then that it is done."""
        error = {"error": {"message": message, "type": kind, "param": None, "code": status}}
        return f"data: {json.dumps(error)}\n\n".encode() + b"data: [DONE]\n\n"

    def _piece_of_call(self, position: int, index: int) -> dict[str, Any]:
        name, arguments = self.tool or ("", "")
        if position == 0:
            call = {"index": 0, "id": f"call_{index}", "type": "function", "function": _function(name, "")}
            return {"tool_calls": [call]}
        if position == len(self.words) - 1:
            return {"tool_calls": [{"index": 0, "function": {"arguments": arguments}}]}
        return {"tool_calls": [{"index": 0, "function": {"arguments": ""}}]}

    def _event(self, index: int, piece: dict[str, Any], words: list[str], finish: str | None, tokens: int) -> bytes:
        choice = {"index": index, **piece, "logprobs": self._logprobs(words), "finish_reason": finish}
        if finish is not None:
            choice["stop_reason"] = None
        event = {**self._head(), "choices": [choice]}
        if (self.body.get("stream_options") or {}).get("continuous_usage_stats"):
            event["usage"] = self.usage(tokens) if self.chat else self._usage_of(index, tokens)
        return _data(event)

    def _usage_of(self, index: int, tokens: int) -> dict[str, Any]:
        """The usage of one choice so far, with its own text's."""
        given = self.sizes[index // self.choices] if self.sizes else self.prompt_tokens
        return {"prompt_tokens": given, "total_tokens": given + tokens, "completion_tokens": tokens}

    def _head(self) -> dict[str, Any]:
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        return {"id": self.identity, "object": kind, "created": self.created, "model": self.model}

    def _finish(self) -> str:
        return "length" if self.tool is None else "tool_calls"

    def _logprobs(self, words: list[str]) -> dict[str, Any] | None:
        wanted = self.body.get("logprobs")
        if not wanted or not words:
            return None
        if not self.chat:
            tops = [{word: -0.5} for word in words]
            return {"tokens": words, "token_logprobs": [-0.5] * len(words), "top_logprobs": tops, "text_offset": [0]}
        top = int(self.body.get("top_logprobs") or 0)
        entries = [{"token": word, "logprob": -0.5, "bytes": list(word.encode())} for word in words]
        return {"content": [{**entry, "top_logprobs": [entry] * min(top, 1)} for entry in entries]}


def _function(name: str, arguments: str) -> dict[str, str]:
    return {"name": name, "arguments": arguments}


def _data(event: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(event, separators=(",", ":")).encode() + b"\n\n"

"""A chat request's body: parsed once, checked, and written once for the engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import orjson

from neurons.miner.errors import RequestError, bad_request
from neurons.miner.tables import TwinRoute, VersionRoute

# fmt: off
_FORWARDED: Final = frozenset(
    {
        # OpenAI's own fields that the engine understands
        "messages", "model", "stream", "stream_options", "frequency_penalty", "presence_penalty", "logit_bias",
        "logprobs", "top_logprobs",
        "max_tokens", "max_completion_tokens", "n", "seed", "stop", "temperature", "top_p", "tools", "tool_choice",
        "parallel_tool_calls",
        "functions", "function_call", "response_format", "reasoning_effort",
        # vLLM's sampling fields
        "top_k", "min_p", "repetition_penalty", "length_penalty", "stop_token_ids", "include_stop_str_in_output",
        "ignore_eos", "min_tokens",
        "skip_special_tokens", "spaces_between_special_tokens", "truncate_prompt_tokens", "prompt_logprobs",
        "bad_words",
        "allowed_token_ids", "structured_outputs", "echo", "add_generation_prompt", "continue_final_message",
        "include_reasoning",
        "return_token_ids", "return_tokens_as_token_ids",
    }
)
_SWALLOWED: Final = frozenset(
    {
        # OpenAI's clients send these; they say who asks, or concern OpenAI's own platform. The engine never sees them.
        "user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "metadata", "store",
        "service_tier", "verbosity",
    }
)
# fmt: on
_KNOWN: Final = _FORWARDED | _SWALLOWED
MAX_SESSION_CHARACTERS: Final = 1024


@dataclass(slots=True)
class ChatRequest:
    """A checked body. `document` is what goes to the engine, but for `model` and the twin's system prompt."""

    twin: str
    stream: bool
    session: str | None
    """The body's `user`: never sent on."""
    document: dict[str, Any]
    messages: list[Any]

    def to_bytes(self, twin: TwinRoute, version: VersionRoute) -> bytes:
        """Return the body for the engine: the served name, and the twin's system prompt before all messages."""
        self.document["model"] = version.served_name
        if twin.system_message is not None:
            self.document["messages"] = [twin.system_message, *self.messages]
        else:
            self.document["messages"] = self.messages
        return orjson.dumps(self.document)


def parse_chat(body: bytes) -> ChatRequest:
    """Check a body; raises RequestError (400), which quotes field names only.

    Unknown fields are refused, as OpenAI does: an allow-list is the only way to be sure that no field of some engine
    (a chat template, another adapter, a cache transfer) reaches it.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        # JSONDecodeError keeps the whole body in `doc`: don't chain it to anything that may be logged.
        raise bad_request(f"the body is not valid JSON (line {error.lineno}, column {error.colno})") from None
    if not isinstance(document, dict):
        raise bad_request("the body must be a JSON object")
    if not document.keys() <= _KNOWN:
        raise _unknown_field(document)
    twin, messages, stream = document.get("model"), document.get("messages"), document.get("stream")
    if not isinstance(twin, str) or not twin:
        raise bad_request("`model` must name a twin; GET /v1/models lists them", param="model")
    if not isinstance(messages, list) or not messages:
        raise bad_request("`messages` must be a list with at least one message", param="messages")
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise bad_request("each of `messages` must be an object with a `role`", param="messages")
    if not (stream is None or isinstance(stream, bool)):
        raise bad_request("`stream` must be true or false", param="stream")
    user = document.get("user")
    for name in _SWALLOWED & document.keys():
        del document[name]
    return ChatRequest(
        twin=twin,
        stream=stream is True,
        session=user[:MAX_SESSION_CHARACTERS] if isinstance(user, str) and user else None,
        document=document,
        messages=messages,
    )


def _unknown_field(document: dict[str, Any]) -> RequestError:
    name = min(document.keys() - _KNOWN)[:64]
    return bad_request(f"unknown field `{name}`: remove it from the request", param=name, code="unknown_field")

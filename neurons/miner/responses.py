"""`/v1/responses` as a chat: what a chat can express is translated, the rest refused in words. Nothing is stored."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from neurons.miner.asked import parse_object
from neurons.miner.chat import ChatRequest, check_chat
from neurons.miner.errors import bad_request
from neurons.receipts.digests import question_of_input

# fmt: off
_AS_THEY_ARE: Final = (
    "model", "temperature", "top_p", "parallel_tool_calls", "stream", "top_logprobs", "user", "safety_identifier",
    "prompt_cache_key", "prompt_cache_retention", "metadata", "store", "service_tier", "seed", "stop", "top_k", "min_p",
    "chat_template_kwargs",
)
_TRANSLATED: Final = frozenset(
    {"input", "instructions", "max_output_tokens", "tools", "tool_choice", "text", "reasoning", "include", "truncation",
     "stream_options", "background"}
)
# fmt: on
_ELSEWHERE: Final = {
    "previous_response_id": "responses are not stored here: send the whole conversation as `input`",
    "conversation": "conversations are not stored here: send the whole conversation as `input`",
    "prompt": "prompts are not stored here: send `instructions` and `input`",
}


@dataclass(slots=True, kw_only=True)
class ResponsesRequest(ChatRequest):
    """A chat that is answered in the form of a response."""

    echo: dict[str, Any] = field(default_factory=dict)
    """What the response repeats of its request."""
    given: dict[str, Any] = field(default_factory=dict)
    """`input` and `instructions` as the client sent them."""

    def question(self) -> str | None:
        """Return the digest of those, and not of the messages that they became."""
        return question_of_input(self.given)


def parse_responses(body: bytes, *, images: bool = False) -> ResponsesRequest:
    """Check a body; raises RequestError (400), which quotes field names only."""
    given = parse_object(body)
    for name, why in _ELSEWHERE.items():
        if name in given:
            raise bad_request(f"`{name}` is not taken: {why}", param=name)
    unknown = given.keys() - _TRANSLATED - set(_AS_THEY_ARE)
    if unknown:
        name = min(unknown)[:64]
        raise bad_request(f"unknown field `{name}`: remove it from the request", param=name, code="unknown_field")
    if given.get("background"):
        raise bad_request("`background` is not taken: wait for the answer, or stream it", param="background")
    document: dict[str, Any] = {name: given[name] for name in _AS_THEY_ARE if name in given}
    document["messages"] = _messages(given)
    if "max_output_tokens" in given:
        document["max_tokens"] = given["max_output_tokens"]
    tools = [_tool(tool) for tool in given.get("tools") or ()]
    if tools:
        document["tools"] = tools
        document["tool_choice"] = _tool_choice(given.get("tool_choice", "auto"))
    _format(given, document)
    if document.get("stream"):
        document["stream_options"] = {"include_usage": True}
    chat = check_chat(document, images=images)
    return ResponsesRequest(
        twin=chat.twin,
        stream=chat.stream,
        document=chat.document,
        identity=chat.identity,
        beginning=chat.beginning,
        messages=chat.messages,
        plain=chat.plain,
        given={name: given[name] for name in ("input", "instructions") if name in given},
        echo={
            "instructions": given.get("instructions"), "metadata": given.get("metadata") or {},
            "temperature": given.get("temperature"), "top_p": given.get("top_p"), "tools": given.get("tools") or [],
            "tool_choice": given.get("tool_choice", "auto"),
            "parallel_tool_calls": given.get("parallel_tool_calls", True),
            "max_output_tokens": given.get("max_output_tokens"),
            "text": given.get("text") or {"format": {"type": "text"}},
            "reasoning": given.get("reasoning"), "truncation": given.get("truncation", "disabled"),
            "previous_response_id": None, "store": False,
        },
    )  # fmt: skip


def _messages(given: dict[str, Any]) -> list[dict[str, Any]]:
    instructions, said = given.get("instructions"), given.get("input")
    messages: list[dict[str, Any]] = []
    if instructions is not None:
        if not isinstance(instructions, str):
            raise bad_request("`instructions` must be a text", param="instructions")
        messages.append({"role": "system", "content": instructions})
    if isinstance(said, str) and said:
        return [*messages, {"role": "user", "content": said}]
    if not isinstance(said, list) or not said:
        raise bad_request("`input` must be a text or a list of items", param="input")
    for item in said:
        _add_item(messages, item)
    return messages


def _add_item(messages: list[dict[str, Any]], item: Any) -> None:
    kind = item.get("type", "message") if isinstance(item, dict) else None
    match kind:
        case "message" if isinstance(item.get("role"), str):
            messages.append({"role": item["role"], "content": _content(item.get("content"))})
        case "function_call":
            function = {"name": item.get("name"), "arguments": item.get("arguments") or "{}"}
            call = {"id": item.get("call_id"), "type": "function", "function": function}
            if messages and messages[-1].get("tool_calls"):
                messages[-1]["tool_calls"].append(call)
            else:
                messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
        case "function_call_output":
            messages.append(
                {"role": "tool", "tool_call_id": item.get("call_id"), "content": _content(item.get("output"))}
            )
        case "reasoning":
            pass  # a model's earlier thoughts are not shown to it again
        case _:
            raise bad_request(
                "each item of `input` must be a message, a function_call or a function_call_output", param="input"
            )


def _content(content: Any) -> Any:
    if not isinstance(content, list):
        return content
    parts: list[dict[str, Any]] = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in ("input_text", "output_text", "text"):
            parts.append({"type": "text", "text": part.get("text")})
        elif kind == "refusal":
            parts.append({"type": "text", "text": part.get("refusal")})
        elif kind == "input_image":
            parts.append({"type": "image_url", "image_url": {"url": part.get("image_url")}})
        else:
            raise bad_request("each part of a message must be a text or an image", param="input")
    if all(part["type"] == "text" and isinstance(part["text"], str) for part in parts):
        return "\n\n".join(part["text"] for part in parts)
    return parts


def _tool(tool: Any) -> dict[str, Any]:
    if not isinstance(tool, dict) or tool.get("type") != "function":
        raise bad_request("only tools of type `function` are taken: an engine can't search or run code", param="tools")
    return {"type": "function", "function": {name: value for name, value in tool.items() if name != "type"}}


def _tool_choice(choice: Any) -> Any:
    if isinstance(choice, str):
        return choice
    if isinstance(choice, dict) and choice.get("type") == "function":
        return {"type": "function", "function": {"name": choice.get("name")}}
    raise bad_request("`tool_choice` must be auto, none, required or a function", param="tool_choice")


def _format(given: dict[str, Any], document: dict[str, Any]) -> None:
    text, reasoning = given.get("text"), given.get("reasoning")
    form = text.get("format") if isinstance(text, dict) else None
    if isinstance(form, dict) and form.get("type") == "json_schema":
        schema = {name: value for name, value in form.items() if name != "type"}
        document["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif isinstance(form, dict) and form.get("type") not in (None, "text"):
        document["response_format"] = {"type": form["type"]}
    if isinstance(reasoning, dict) and reasoning.get("effort") is not None:
        document["reasoning_effort"] = reasoning["effort"]
    if "top_logprobs" in document or "message.output_text.logprobs" in (given.get("include") or ()):
        document["logprobs"] = True

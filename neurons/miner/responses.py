"""`/v1/responses` as a chat: what a chat can express is translated, the rest refused in words. Nothing is stored."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from neurons.conversation import BETWEEN
from neurons.miner.asked import parse_object
from neurons.miner.chat import ChatRequest, check_chat
from neurons.miner.errors import bad_request
from neurons.miner.limits import Limits, check_messages
from neurons.receipts.digests import question_of_input

# fmt: off
_AS_THEY_ARE: Final = (
    "model", "temperature", "top_p", "parallel_tool_calls", "stream", "top_logprobs", "user", "safety_identifier",
    "prompt_cache_key", "prompt_cache_retention", "metadata", "store", "service_tier", "seed", "stop", "top_k", "min_p",
    "chat_template_kwargs", "bettertherapy",
)
_TRANSLATED: Final = frozenset(
    {"input", "instructions", "max_output_tokens", "tools", "tool_choice", "text", "reasoning", "include", "truncation",
     "stream_options", "background"}
)
# fmt: on
_CALLED: Final = {"messages": "input", "max_tokens": "max_output_tokens", "response_format": "text.format"}
_OF_A_TOOL: Final = ("name", "description", "parameters", "strict")
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


def parse_responses(body: bytes, *, limits: Limits | None = None) -> ResponsesRequest:
    """Check a body; raises RequestError (400), which quotes field names only."""
    given = parse_object(body)
    limits = limits or Limits()
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
    if isinstance(said := given.get("input"), list):
        check_messages(said, limits, name="input")
    messages, places = _messages(given)
    document["messages"] = messages
    if "max_output_tokens" in given:
        document["max_tokens"] = given["max_output_tokens"]
    tools = [_tool(tool, f"tools[{number}]") for number, tool in enumerate(_list(given, "tools"))]
    if tools:
        document["tools"] = tools
        document["tool_choice"] = _tool_choice(given.get("tool_choice", "auto"))
    _format(given, document)
    if document.get("stream"):
        document["stream_options"] = {"include_usage": True}
    chat = check_chat(document, limits=limits, place=places.__getitem__, called=_CALLED)
    response = ResponsesRequest(
        twin=chat.twin,
        stream=chat.stream,
        document=chat.document,
        identity=chat.identity,
        named=chat.named,
        beginning=chat.beginning,
        messages=chat.messages,
        turns=chat.turns,
        plain=chat.plain,
        patient=chat.patient,
        size=len(body) + sum(len(str(place)) for place in places),
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
    if chat.patient is not None:
        response.teach(())
    return response


def _list(given: dict[str, Any], name: str) -> list[Any]:
    value = given.get(name, [])
    if not isinstance(value, list):
        raise bad_request(f"`{name}` must be a list", param=name)
    return value


def _object(given: dict[str, Any], name: str) -> dict[str, Any]:
    value = given.get(name, {})
    if not isinstance(value, dict):
        raise bad_request(f"`{name}` must be an object", param=name)
    return value


def _messages(given: dict[str, Any]) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the chat's messages, and what in the request each comes from."""
    instructions, said = given.get("instructions"), given.get("input")
    messages: list[dict[str, Any]] = []
    places: list[str] = []
    if instructions is not None:
        if not isinstance(instructions, str):
            raise bad_request("`instructions` must be a text", param="instructions")
        messages.append({"role": "system", "content": instructions})
        places.append("instructions")
    if isinstance(said, str) and said:
        return [*messages, {"role": "user", "content": said}], [*places, "input"]
    if not isinstance(said, list) or not said:
        raise bad_request("`input` must be a text or a list of items", param="input")
    for number, item in enumerate(said):
        place = f"input[{number}]"
        _add_item(messages, item, place)
        places += [place] * (len(messages) - len(places))
    if not messages:
        raise bad_request("`input` must have a message", param="input")
    return messages, places


def _add_item(messages: list[dict[str, Any]], item: Any, place: str) -> None:
    kind = (item.get("type") or "message") if isinstance(item, dict) else None
    match kind:
        case "message":
            messages.append({"role": item.get("role"), "content": _content(item.get("content"), f"{place}.content")})
        case "function_call":
            call = _call(item, place)
            if messages and messages[-1]["role"] == "assistant":
                # Templates that count turns take what was said and the calls with it as one answer, as it was.
                messages[-1].setdefault("tool_calls", []).append(call)
            else:
                messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
        case "function_call_output":
            output = _content(item.get("output"), f"{place}.output")
            messages.append({"role": "tool", "tool_call_id": _text(item, "call_id", place), "content": output})
        case "reasoning":
            pass  # a model's earlier thoughts are not shown to it again
        case _:
            raise bad_request(f"`{place}` must be a message, a function_call or a function_call_output", param="input")


def _call(item: dict[str, Any], place: str) -> dict[str, Any]:
    arguments = _text(item, "arguments", place) if item.get("arguments") is not None else ""
    function = {"name": _text(item, "name", place), "arguments": arguments or "{}"}
    return {"id": _text(item, "call_id", place), "type": "function", "function": function}


def _text(item: dict[str, Any], name: str, place: str) -> str:
    value = item.get(name)
    if not isinstance(value, str):
        raise bad_request(f"`{place}.{name}` must be a text", param="input")
    return value


def _content(content: Any, place: str) -> Any:
    if not isinstance(content, list):
        return content
    parts = [_part(part, f"{place}[{number}]") for number, part in enumerate(content)]
    if all(part["type"] == "text" for part in parts):
        return BETWEEN.join(part["text"] for part in parts)
    return parts


def _part(part: Any, place: str) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "input_image":
        image = {"url": part.get("image_url"), "detail": part.get("detail")}
        return {"type": "image_url", "image_url": image}
    text = part.get("refusal" if kind == "refusal" else "text") if isinstance(part, dict) else None
    if kind not in ("input_text", "output_text", "text", "refusal") or not isinstance(text, str):
        raise bad_request(f"`{place}` must be a text or an image", param="input")
    return {"type": "text", "text": text}


def _tool(tool: Any, place: str) -> dict[str, Any]:
    if not isinstance(tool, dict) or tool.get("type") != "function":
        raise bad_request(f"`{place}` must be of type `function`: an engine can't search or run code", param="tools")
    return {"type": "function", "function": {name: tool[name] for name in _OF_A_TOOL if tool.get(name) is not None}}


def _tool_choice(choice: Any) -> Any:
    if isinstance(choice, str):
        return choice
    if isinstance(choice, dict) and choice.get("type") == "function":
        return {"type": "function", "function": {"name": choice.get("name")}}
    raise bad_request("`tool_choice` must be auto, none, required or a function", param="tool_choice")


def _format(given: dict[str, Any], document: dict[str, Any]) -> None:
    text, reasoning, include = _object(given, "text"), _object(given, "reasoning"), _list(given, "include")
    form = text.get("format")
    if form is not None and not isinstance(form, dict):
        raise bad_request("`text.format` must be an object", param="text")
    if form is not None and form.get("type") == "json_schema":
        schema = {name: value for name, value in form.items() if name != "type"}
        document["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif form is not None and form.get("type") not in (None, "text"):
        document["response_format"] = {"type": form["type"]}
    if reasoning.get("effort") is not None:
        document["reasoning_effort"] = reasoning["effort"]
    if "top_logprobs" in document or "message.output_text.logprobs" in include:
        document["logprobs"] = True

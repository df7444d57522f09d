"""A chat's messages, written anew for the engine: what OpenAI's API has there goes on, and nothing else.

An allow-list, as for the fields of the body. vLLM takes more of a part than its content (a `uuid` stands in place of
the content's hash, and would give one patient another's image out of the cache), and templates read what they like.
What can't be read is refused by its name: a rule of the client's must not vanish in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from neurons.conversation import SYSTEM_ROLES, Message
from neurons.miner.errors import RequestError, bad_request

ROLES: Final = ("system", "developer", "user", "assistant", "tool", "function")
_NAMED: Final = frozenset({"user", "assistant", "tool", "function"})
_MUST_SPEAK: Final = SYSTEM_ROLES | {"user"}
_TEXT_PARTS: Final = ("text", "refusal")
_THOUGHTS: Final = ("reasoning", "reasoning_content")
"""vLLM's own: templates that show a model its thoughts between two calls of tools read them."""
_IMAGE_PREFIX: Final = "data:image/"

Place = Callable[[int], str]
"""What the client calls a message, by its number."""


class _Wrong(Exception):  # noqa: N818 - becomes the RequestError of the message that it is in
    def __init__(self, where: str, why: str, *, code: str | None = None) -> None:
        super().__init__(why)
        self.where, self.why, self.code = where, why, code


def _in_messages(number: int) -> str:
    return f"messages[{number}]"


def written(messages: Sequence[Any], *, images: bool, place: Place = _in_messages) -> list[Message]:
    """Return the messages for the engine; raises RequestError (400), which quotes names only."""
    turns = []
    for number, message in enumerate(messages):
        try:
            turns.append(_message(message, images=images))
        except _Wrong as wrong:
            raise _refusal(wrong, place(number)) from None
    return turns


def _refusal(wrong: _Wrong, place: str) -> RequestError:
    return bad_request(f"`{place}{wrong.where}` {wrong.why}", param=place.partition("[")[0], code=wrong.code)


def _message(given: Any, *, images: bool) -> Message:
    if not isinstance(given, dict):
        raise _Wrong("", "must be an object with a `role`")
    role = given.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise _Wrong(".role", f"must be one of {', '.join(ROLES)}")
    message: Message = {"role": role, "content": _content(given.get("content"), role, images=images)}
    if len(given) == 2 and given.get("content") is not None:
        return message
    if role in _NAMED:
        _take_texts(given, message, ("name",))
    if role == "tool":
        _take_texts(given, message, ("tool_call_id",))
    if role == "assistant":
        _take_answer(given, message)
    return message


def _take_answer(given: Mapping[str, Any], message: Message) -> None:
    """Take what only an answer has."""
    _take_texts(given, message, _THOUGHTS)
    refusal = given.get("refusal")
    if message["content"] is None and isinstance(refusal, str):
        message["content"] = refusal
    calls = given.get("tool_calls")
    if calls is not None and not isinstance(calls, list):
        raise _Wrong(".tool_calls", "must be a list")
    if calls:
        message["tool_calls"] = [_call(call, f".tool_calls[{number}]") for number, call in enumerate(calls)]
    if (function := given.get("function_call")) is not None:
        message["function_call"] = _function(function, ".function_call")
    if message["content"] is None and not calls and function is None:
        message["content"] = ""  # templates write "None", or fail on it


def _take_texts(given: Mapping[str, Any], message: Message, names: Sequence[str]) -> None:
    for name in names:
        value = given.get(name)
        if value is None:
            continue
        if not isinstance(value, str):
            raise _Wrong(f".{name}", "must be a text")
        message[name] = value


def _call(call: Any, where: str) -> dict[str, Any]:
    if not isinstance(call, dict) or call.get("type", "function") != "function":
        raise _Wrong(where, "must be a call of a function")
    made: dict[str, Any] = {"type": "function", "function": _function(call.get("function"), f"{where}.function")}
    if (identity := call.get("id")) is not None:
        if not isinstance(identity, str):
            raise _Wrong(f"{where}.id", "must be a text")
        made["id"] = identity
    return made


def _function(function: Any, where: str) -> dict[str, str]:
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str):
        raise _Wrong(where, "must be an object with a `name`")
    arguments = function.get("arguments")
    if arguments is not None and not isinstance(arguments, str):
        raise _Wrong(where, "must have its `arguments` as a text of JSON")
    return {"name": name, "arguments": arguments or "{}"}


def _content(content: Any, role: str, *, images: bool) -> Any:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        images_here = images and role not in SYSTEM_ROLES
        return [
            _part(part, f".content[{number}]", role=role, images=images_here) for number, part in enumerate(content)
        ]
    if content is None and role not in _MUST_SPEAK:
        return None if role == "assistant" else ""
    raise _Wrong(".content", "must be a text or a list of parts")


def _part(part: Any, where: str, *, role: str, images: bool) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, dict) else None
    if isinstance(kind, str) and kind in _TEXT_PARTS and isinstance(part.get(kind), str):
        return {"type": "text", "text": part[kind]}
    if kind != "image_url" or role in SYSTEM_ROLES:
        if images:
            raise _Wrong(where, "must be a text or an image as a data URL")
        why = "" if role in SYSTEM_ROLES else ": this pool takes no images, audio, video or files"
        raise _Wrong(where, f"must be a text{why}")
    if not images:
        raise _Wrong(where, "is an image, and this pool takes none: send text", code="images_not_taken")
    image = part.get("image_url")
    url, detail = (image.get("url"), image.get("detail")) if isinstance(image, dict) else (image, None)
    if not isinstance(url, str) or not url.startswith(_IMAGE_PREFIX):
        # The engine would fetch a URL itself, from inside the cluster.
        raise _Wrong(where, "must have its image as a data URL (data:image/png;base64,…)", code="image_url")
    if detail is None:
        return {"type": "image_url", "image_url": {"url": url}}
    if not isinstance(detail, str):
        raise _Wrong(where, "must have a text as `detail`")
    return {"type": "image_url", "image_url": {"url": url, "detail": detail}}

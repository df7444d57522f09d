"""What a patient may have written in a body that is refused: whatever shape it has, it may tell of an emergency."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import orjson

from neurons.conversation import text_of
from neurons.miner.messages import ROLES

Conversation = Sequence[Mapping[str, Any]]
"""Messages as OpenAI's API has them."""
_OTHERS: Final = frozenset(ROLES) - {"user"}
_NO_WORDS: Final = frozenset(
    {"messages", "model", "sessionId", "session_id", "answerId", "answer_id", "questionId", "question_id"}
)
_ESCAPE: Final = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_SPACES: Final[Mapping[str, str]] = {"n": "\n", "r": "\n", "t": " ", "f": " ", "b": " "}


def said_in(body: bytes) -> list[Conversation]:
    """Return what is said in a body, to be looked at one after another: its messages, and all else that is a text.

    A message of nobody's that is known (a role of another client's library, a bare text) is taken for the patient's,
    since it can't be told that it isn't. Of a body that is no JSON all of it is.
    """
    try:
        document = orjson.loads(body.removeprefix(codecs.BOM_UTF8))
    except orjson.JSONDecodeError:
        return [[_patients(_unescaped(body.decode("utf-8", "replace")))]]
    if not isinstance(document, dict):
        return [[_patients(text) for text in _texts(document)]]
    messages = document.get("messages")
    conversation = [said for message in messages for said in _said(message)] if isinstance(messages, list) else []
    beside = {name: value for name, value in document.items() if name not in _NO_WORDS}
    if not isinstance(messages, list):
        beside["messages"] = messages
    return [conversation, [_patients(text) for text in _texts(beside)]]


def _said(message: Any) -> list[Mapping[str, Any]]:
    role = message.get("role") if isinstance(message, dict) else None
    if isinstance(role, str) and role in _OTHERS:
        return [{"role": role, "content": text_of(message)}]
    words = {name: value for name, value in message.items() if name != "role"} if isinstance(message, dict) else message
    return [_patients(text) for text in _texts(words)]


def _patients(text: str) -> Mapping[str, Any]:
    return {"role": "user", "content": text}


def _texts(value: Any) -> Iterator[str]:
    """Yield the texts in a JSON value, in order; it may be nested as deep as a parser takes."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, str):
            yield each
        elif isinstance(each, dict):
            waiting.extend(reversed(each.values()))
        elif isinstance(each, list):
            waiting.extend(reversed(each))


def _unescaped(text: str) -> str:
    """Return a text with JSON's escapes undone: most programs write Devanagari by them."""
    halves = _ESCAPE.sub(lambda match: chr(int(match[1], 16)) if match[1] else _SPACES.get(match[2], match[2]), text)
    return halves.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")

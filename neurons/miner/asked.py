"""What a client asks of an engine, whichever of OpenAI's routes it came by: checked once, written once a pod."""

from __future__ import annotations

import codecs
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import orjson

from neurons.conversation import Manner
from neurons.miner.errors import bad_request
from neurons.miner.tables import TwinRoute, VersionRoute

STREAM_OPTIONS: Final = frozenset({"include_usage", "continuous_usage_stats"})
_MOST_TOKENS: Final = 2**31
"""More than any engine says; a greater number, as a float may be, can't be written as an integer."""
COUNTED_TOKENS: Final = ("max_tokens", "max_completion_tokens", "min_tokens")

IDENTITY_FIELDS: Final = ("user", "safety_identifier", "prompt_cache_key")
"""What names a conversation in a body; the first that is there counts."""
SWALLOWED: Final = frozenset(
    {
        # OpenAI's clients send these; they say who asks, or concern OpenAI's own platform. The engine never sees them.
        *IDENTITY_FIELDS,
        "prompt_cache_retention", "prompt_cache_options", "metadata", "store", "service_tier", "verbosity",
        "prediction", "modalities", "moderation",
    }
)  # fmt: skip


@dataclass(slots=True, kw_only=True)
class EngineRequest(ABC):
    """A checked body. `document` is what goes to the engine, but for `model` and the twin's system prompt."""

    PATH: ClassVar[str]
    """The engine's route."""
    DEFAULT_TOKENS: ClassVar[int | None] = None
    """How long an answer is of which nothing was asked; None for as long as it becomes."""

    twin: str
    stream: bool
    document: dict[str, Any]
    identity: str | None = None
    """Who or which conversation it is, if the body says so: never sent on."""
    beginning: bytes = b""
    """What a conversation begins with, by which its later turns are known."""
    named: bool = False
    """The client says who asks, or which conversation it is."""

    @property
    def personal(self) -> bool:
        """Whether its prompt holds facts of one patient: its answer is nobody else's."""
        return False

    @property
    def sources(self) -> tuple[str, ...]:
        """The texts that were found for this question, best first, for those who compare answers."""
        return ()

    @abstractmethod
    def to_bytes(self, twin: TwinRoute, version: VersionRoute, manner: Manner) -> bytes:
        """Return the body for the engine: the served name, and the twin's system prompt in the template's manner."""

    @abstractmethod
    def continued(self, twin: TwinRoute, version: VersionRoute, manner: Manner, *, said: str, tokens: int) -> bytes:
        """Return the body that goes on after `said`, which has about `tokens` tokens."""

    def drawn(
        self, twin: TwinRoute, version: VersionRoute, manner: Manner, *, candidates: int, logprobs: bool
    ) -> bytes:
        """Return the body that draws several answers in one stream; only where `may_be_drawn`."""
        raise NotImplementedError

    def may_be_drawn(self) -> bool:
        """Tell whether the miner may draw several answers and give one: the client left that to it."""
        return False

    def is_single_turn(self) -> bool:
        """Tell whether it is one question in words, and nothing else."""
        return False

    def last_said(self) -> str:
        """Return the last thing that the patient said."""
        return ""

    def obstacle(self) -> str | None:
        """Return why its stream can't go on at another engine, None if it can."""
        return "it is no text"

    def wants_manner(self, twin: TwinRoute) -> bool:
        """Tell whether it matters what the chat template takes."""
        return False

    def question(self) -> str | None:
        """Return the digest of what was asked, as a receipt names it; None where there are no receipts."""
        return None

    def wants_usage(self) -> bool:
        """Tell whether its stream ends with the tokens' count."""
        options = self.document.get("stream_options")
        return isinstance(options, dict) and bool(options.get("include_usage"))

    def counted(self, tokens: int) -> dict[str, int]:
        """Return the fields that limit the answer's length, less what was said; at least 1 for a maximum."""
        return {
            name: max(0 if name == "min_tokens" else 1, int(min(value, _MOST_TOKENS)) - tokens)
            for name, value in self._limits().items()
        }

    def is_at_its_length(self, tokens: int) -> bool:
        """Tell whether `tokens` are all that were asked for."""
        return any(tokens >= value for name, value in self._limits().items() if name != "min_tokens")

    @property
    def asked_tokens(self) -> int | None:
        """How long the answer may become, as far as that was asked."""
        limits = [int(min(value, _MOST_TOKENS)) for name, value in self._limits().items() if name != "min_tokens"]
        return max(limits, default=None)

    def _limits(self) -> dict[str, int | float]:
        given = {name: self.document.get(name) for name in COUNTED_TOKENS}
        limits = {
            name: value for name, value in given.items() if isinstance(value, int | float)
        }  # engines take 8.0 for 8
        if self.DEFAULT_TOKENS is not None:
            limits.setdefault("max_tokens", self.DEFAULT_TOKENS)
        return limits


def parse_object(body: bytes) -> dict[str, Any]:
    """Return the body's object without its null fields; raises RequestError (400)."""
    document = _parsed(body.removeprefix(codecs.BOM_UTF8))
    if not isinstance(document, dict):
        raise bad_request("the body must be a JSON object")
    if body.count(b"{") + body.count(b"[") > _CERTAINLY_SHALLOW:
        _check_depth(document)
    if None in document.values():  # a null says as much as no field at all
        document = {name: value for name, value in document.items() if value is not None}
    return document


def _parsed(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        # JSONDecodeError keeps the whole body in `doc`: don't chain it to anything that may be logged.
        why, at = error.msg, f"line {error.lineno}, column {error.colno}"
    # A client that counts a text's UTF-16 units (JavaScript's) may cut an emoji in two when it shortens one.
    mended = _ESCAPE.sub(_whole_characters, body)
    if mended != body:
        return _parsed(mended)
    if b"\0" in body[:4]:
        raise bad_request("the body must be encoded as UTF-8; it looks like UTF-16 or UTF-32")
    try:
        body.decode()
    except UnicodeDecodeError as undecodable:
        raise bad_request(f"the body is not valid UTF-8 (at byte {undecodable.start})") from None
    if why == _TOO_DEEP:
        raise bad_request("the body is nested too deep")
    raise bad_request(f"the body is not valid JSON: {why} ({at})")


_ESCAPE: Final = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)
"""An escape in a JSON text; the group is half a character."""
_TOO_DEEP: Final = "depth limit exceeded"
"""orjson's own words, beyond 1024; no walk through a megabyte of brackets tells it as quickly."""
_MAX_DEPTH: Final = 200
"""Objects and lists within each other. orjson writes 254; what a body is put into for an engine or an answer is less
than the difference."""
_CERTAINLY_SHALLOW: Final = _MAX_DEPTH
_WRITABLE: Final = 254


def _whole_characters(escape: re.Match[bytes]) -> bytes:
    return escape[0] if escape[1] is None else b"\\ufffd"


def _check_depth(document: dict[str, Any]) -> None:
    for name, value in document.items():
        if _is_too_deep(value):
            raise bad_request(f"`{name[:64]}` is nested more than {_MAX_DEPTH} deep", param=name[:64])


def _is_too_deep(value: Any) -> bool:
    # orjson tells in milliseconds; a walk through a megabyte of brackets in Python holds up everybody's answers.
    for _ in range(_WRITABLE - _MAX_DEPTH):
        value = [value]
    try:
        orjson.dumps(value)
    except orjson.JSONEncodeError:
        return True
    return False


def check_fields(document: dict[str, Any], known: frozenset[str]) -> None:
    """Refuse unknown fields, as OpenAI does; raises RequestError (400).

    An allow-list is the only way to be sure that no field of some engine (a chat template, another adapter, a cache
    transfer) reaches it.
    """
    if not document.keys() <= known:
        name = min(document.keys() - known)[:64]
        raise bad_request(f"unknown field `{name}`: remove it from the request", param=name, code="unknown_field")
    modalities = document.get("modalities")
    if modalities is not None and modalities != ["text"]:
        raise bad_request('twins answer in text: send `"modalities": ["text"]` or leave it out', param="modalities")
    options = document.get("stream_options")
    if isinstance(options, dict) and not options.keys() <= STREAM_OPTIONS:
        document["stream_options"] = {name: value for name, value in options.items() if name in STREAM_OPTIONS}


def take_model(document: dict[str, Any]) -> str:
    """Return the twin's name; raises RequestError (400)."""
    twin = document.get("model")
    if not isinstance(twin, str) or not twin:
        raise bad_request("`model` must name a twin; GET /v1/models lists them", param="model")
    return twin


def take_stream(document: dict[str, Any]) -> bool:
    """Return whether a stream is asked for; raises RequestError (400)."""
    stream = document.get("stream", False)
    if not isinstance(stream, bool):
        raise bad_request("`stream` must be true or false", param="stream")
    return stream


def identity_of(name: str, value: str) -> str:
    """Return who a patient is as a question's field of this name says it."""
    return f"{name}\0{value}"


def take_identity(document: dict[str, Any]) -> str | None:
    """Return what names the conversation, and take all fields away that the engine must not see.

    Raises RequestError (400) for a name that is no text: left out in silence it would join or part conversations.
    """
    identity = None
    for name in IDENTITY_FIELDS:
        value = document.get(name, "")
        if not isinstance(value, str):
            raise bad_request(f"`{name}` must be a text", param=name)
        if value and identity is None:
            identity = identity_of(name, value)
    for name in SWALLOWED & document.keys():
        del document[name]
    return identity


def first_asked(document: dict[str, Any], names: Sequence[str]) -> str | None:
    """Return the first of these fields that asks for something, None if none does.

    A 0 does: `logprobs: 0` asks for the probabilities of the tokens said, and of no others.
    """
    return next((name for name in names if _asks(document.get(name))), None)


def _asks(value: Any) -> bool:
    return value is not None and value is not False and value not in ([], {})


def check_template_kwargs(document: dict[str, Any]) -> None:
    """Refuse `chat_template_kwargs` that would replace what the miner has written; raises RequestError (400)."""
    name = "chat_template_kwargs"
    given = document.get(name)
    if given is None:
        return
    if not isinstance(given, dict):
        raise bad_request(f"`{name}` must be an object", param=name)
    document[name] = given = {key: value for key, value in given.items() if value is not None}
    for key, value in given.items():
        if key in _TEMPLATES_OWN or not isinstance(value, str | bool | int | float):
            raise bad_request(
                f"`{name}.{key[:64]}` is not taken: only switches of the model's own template", param=name
            )


_TEMPLATES_OWN: Final = frozenset(
    {
        "chat_template", "tokenize", "messages", "conversation", "tools", "documents", "add_generation_prompt",
        "continue_final_message", "return_dict", "return_tensors", "padding", "truncation", "max_length",
        "tokenizer_kwargs", "return_assistant_tokens_mask", "raise_exception",
    }
)  # fmt: skip

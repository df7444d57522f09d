"""A chat request's body: parsed once, checked, and written for the engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

import orjson

from neurons import engine_fields
from neurons.conversation import BETWEEN, Manner, Message, is_plain, shape, text_of
from neurons.lessons import Found
from neurons.lessons.wording import worded
from neurons.miner.asked import (
    IDENTITY_FIELDS,
    SWALLOWED,
    EngineRequest,
    check_fields,
    check_template_kwargs,
    first_asked,
    parse_object,
    take_identity,
    take_model,
    take_stream,
)
from neurons.miner.errors import bad_request
from neurons.miner.limits import Limits, check_amounts, check_messages
from neurons.miner.messages import Place, written
from neurons.miner.patient import FIELD, Patient, take_patient
from neurons.miner.tables import TwinRoute, VersionRoute
from neurons.receipts.digests import question_of_messages

# fmt: off
_OBSTACLES: Final = (
    "tools", "functions", "seed", "logprobs", "prompt_logprobs", "structured_outputs", "echo",
    "return_token_ids", "return_tokens_as_token_ids", "continue_final_message",
)
# fmt: on
_KNOWN: Final = engine_fields.CHAT | SWALLOWED | {FIELD, "prompt_logprobs", "echo"}
_NAMING: Final = (*IDENTITY_FIELDS, "metadata")


@dataclass(slots=True, kw_only=True)
class ChatRequest(EngineRequest):
    """A checked chat request."""

    PATH: ClassVar[str] = "/v1/chat/completions"

    messages: list[Any]
    """As the client sent them."""
    turns: list[Message]
    """The same, written for the engine."""
    plain: bool
    """Every template takes the messages as they are."""
    size: int = 0
    """Bytes of the body: more than the prompt's, but for what the miner adds."""
    patient: Patient | None = None
    """What was said of who asks."""
    lessons: tuple[Found, ...] = ()
    """What was found among the twin's lessons, for the prompt; set once the twin is known, by its UID."""
    shown: list[Message] | None = None
    """The turns that the engine gets, where that is not all of them."""
    closing: str | None = field(default=None, init=False)
    """What stands after all system texts: patient and lessons, in words."""

    @property
    def personal(self) -> bool:
        """Whether the prompt holds facts of one patient: its answer is nobody else's."""
        return self.patient is not None

    @property
    def sources(self) -> tuple[str, ...]:
        """What an answer may be held against: what the doctor said to questions like this one."""
        return tuple(found.lesson.answer for found in self.lessons)

    def teach(self, lessons: tuple[Found, ...]) -> None:
        """Put these lessons, and no others, into the prompt."""
        self.lessons = lessons
        # A patient's facts stay through a session, lessons come with its questions: first what changes less.
        texts = [self.patient.worded() if self.patient is not None else "", worded(lessons)]
        self.closing = BETWEEN.join(text for text in texts if text) or None

    def to_bytes(self, twin: TwinRoute, version: VersionRoute, manner: Manner) -> bytes:
        """Return the body for the engine."""
        self.document["model"] = version.served_name
        self.document["messages"] = self._messages(twin, manner)
        return orjson.dumps(self.document)

    def continued(self, twin: TwinRoute, version: VersionRoute, manner: Manner, *, said: str, tokens: int) -> bytes:
        """Return the body that lets the engine go on in the middle of the answer, by vLLM's continue_final_message."""
        return orjson.dumps(
            {
                **self.document,
                "model": version.served_name,
                "messages": [*self._messages(twin, manner), {"role": "assistant", "content": said}],
                "add_generation_prompt": False,
                "continue_final_message": True,
                **self.counted(tokens),
            }
        )

    def drawn(
        self, twin: TwinRoute, version: VersionRoute, manner: Manner, *, candidates: int, logprobs: bool
    ) -> bytes:
        """Return the body that draws several answers. One request and not several: the engine reads the prompt once."""
        return orjson.dumps(
            {
                **self.document,
                "model": version.served_name,
                "messages": self._messages(twin, manner),
                "n": candidates,
                "stream": True,
                # The last event, which has the whole count, may not be waited for.
                "stream_options": {"include_usage": True, "continuous_usage_stats": True},
                **({"logprobs": True} if logprobs else {}),
            }
        )

    def may_be_drawn(self) -> bool:
        """Tell whether it asks for one answer, in words, with nothing that several would change."""
        given = self.document
        greedy = given.get("temperature") == 0 or given.get("top_k") == 1 or given.get("top_p") == 0
        return not greedy and given.get("allowed_token_ids") is None and self.obstacle() is None

    def is_single_turn(self) -> bool:
        """Tell whether it is one text of the patient's: a client's own rules may tell of the patient too."""
        turn = self.turns[0]
        return (
            len(self.turns) == 1
            and turn["role"] == "user"
            and turn.keys() == {"role", "content"}
            and isinstance(turn["content"], str)
        )

    def last_said(self) -> str:
        """Return the last user turn's text."""
        return next((text_of(turn) for turn in reversed(self.turns) if turn["role"] == "user"), "")

    def obstacle(self) -> str | None:
        """Return the field that keeps its stream from going on at another engine."""
        given = self.document
        if given.get("n", 1) != 1:
            return "`n` is more than 1"
        if (name := first_asked(given, _OBSTACLES)) is not None:
            return f"it has `{name}`"
        form = given.get("response_format")
        if isinstance(form, dict) and form.get("type") != "text":
            return "it has `response_format`"
        if self.turns[-1]["role"] == "assistant":
            return "its last message is the assistant's"
        if given.get("add_generation_prompt") is False:
            return "it has `add_generation_prompt`"
        return None

    def question(self) -> str | None:
        """Return the digest of the messages as the client sent them."""
        return question_of_messages(self.messages)

    def wants_manner(self, twin: TwinRoute) -> bool:
        """Tell whether there is a system text, or a speaker twice in a row."""
        return twin.system_message is not None or self.closing is not None or not self.plain

    def _messages(self, twin: TwinRoute, manner: Manner) -> list[Any]:
        turns = self.turns if self.shown is None else self.shown
        if not self.wants_manner(twin):
            return turns
        system = twin.system_message["content"] if twin.system_message else None
        return shape(turns, system=system, manner=manner, closing=self.closing)

    def messages_for(self, twin: TwinRoute, manner: Manner, shown: list[Message]) -> list[Any]:
        """Return the messages as the engine would get them if these turns were shown."""
        before, self.shown = self.shown, shown
        try:
            return self._messages(twin, manner)
        finally:
            self.shown = before


def parse_chat(body: bytes, *, limits: Limits | None = None) -> ChatRequest:
    """Check a body; raises RequestError (400), which quotes field names only."""
    chat = check_chat(parse_object(body), limits=limits)
    chat.size = len(body)
    return chat


def check_chat(
    document: dict[str, Any],
    *,
    limits: Limits | None = None,
    place: Place | None = None,
    called: Mapping[str, str] | None = None,
) -> ChatRequest:
    """Check a chat document, which is kept and changed; raises RequestError (400).

    `place` says what the client calls a message, where it did not write `messages` itself; `called` the same of fields.
    """
    limits = limits or Limits()
    check_fields(document, _KNOWN)
    check_amounts(document, limits, called=called)
    twin = take_model(document)
    stream = take_stream(document)
    messages = document.get("messages")
    if not isinstance(messages, list) or not messages:
        raise bad_request("`messages` must be a list with at least one message", param="messages")
    check_messages(messages, limits, name=(called or {}).get("messages", "messages"))
    turns = written(messages, images=limits.images, **({} if place is None else {"place": place}))
    check_template_kwargs(document)
    named = not document.keys().isdisjoint(_NAMING)
    identity = take_identity(document)
    patient = take_patient(document) if FIELD in document else None
    first = next((turn for turn in turns if turn["role"] == "user"), turns[0])
    chat = ChatRequest(
        twin=twin,
        stream=stream,
        document=document,
        identity=identity,
        named=named,
        beginning=_beginning(first),
        messages=messages,
        turns=turns,
        plain=is_plain(turns),
        patient=patient,
    )
    if patient is not None:
        chat.teach(())
    return chat


def _beginning(turn: Message) -> bytes:
    """Return what a turn says, the same for a text and for that text in parts."""
    content = turn["content"]
    others = [part for part in content if part["type"] != "text"] if isinstance(content, list) else []
    return orjson.dumps([text_of(turn), *others])

"""A patient's question as it comes in: what OpenAI's chat API has for text, checked and written for the miners."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from neurons.conversation import text_of
from neurons.miner.asked import parse_object
from neurons.miner.chat import check_chat
from neurons.miner.errors import bad_request
from neurons.miner.patient import Patient, take_patient
from neurons.receipts import question_of_messages

_TAKEN: Final = frozenset(
    {
        "messages", "model", "frequency_penalty", "presence_penalty", "max_tokens", "max_completion_tokens", "seed",
        "stop", "temperature", "top_p",
    }
)  # fmt: skip
_ONLY: Final[Mapping[str, tuple[Any, ...]]] = {
    "n": (1,), "logprobs": (False,), "tools": ([],), "functions": ([],), "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False), "response_format": ({"type": "text"},), "stream": (True, False),
    "logit_bias": ({},), "echo": (False,),
}  # fmt: skip
"""Fields that are taken where they ask for nothing."""
_EXTENSION: Final = "bettertherapy"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatAsked:
    """A checked question, before its session's history is put in front."""

    twin: str
    stream: bool
    usage: bool
    """The stream is to end with the tokens' count."""
    compare: bool
    """Two answers are wanted, without saying whose they are."""
    messages: Sequence[Mapping[str, Any]]
    """As the client sent them."""
    identity: str | None
    """What the client calls the patient."""
    fields: Mapping[str, Any]
    """What else goes to the miners."""
    patient: Patient | None = field(default=None, repr=False)
    """Who asks, as far as this question says it."""
    names_patient: bool = False
    """Whether it says anything of who asks: an empty `patient` takes back what was said before."""

    @property
    def repeats_history(self) -> bool:
        """Whether the client keeps the conversation itself, and sends all of it."""
        return any(message.get("role") == "assistant" for message in self.messages)

    @property
    def newest(self) -> str:
        """The text of the patient's last message; of the last one at all where none is the user's."""
        users = (message for message in reversed(self.messages) if message.get("role") == "user")
        return text_of(dict(next(users, self.messages[-1])))

    def conversation(self, key_id: str, answer: str | None = None) -> bytes:
        """Return by what a conversation is known whose client repeats all of it: what was said up to the last answer.

        `answer`: what this question was answered with; None: what the client says that was answered last.
        """
        said = [(message.get("role"), text_of(dict(message)).split()) for message in self.messages]
        said = [(role, words) for role, words in said if role in ("user", "assistant")]
        if answer is not None:
            said.append(("assistant", answer.split()))
        while said and said[-1][0] != "assistant":
            said.pop()
        return hashlib.sha256(orjson.dumps([key_id, self.twin, self.identity, said])).digest()

    def with_history(self, history: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Return the whole conversation: the client's rules first, then what was said, then what is new."""
        if self.repeats_history or not history:
            return list(self.messages)
        rules = [message for message in self.messages if message.get("role") in ("system", "developer")]
        new = [message for message in self.messages if message.get("role") not in ("system", "developer")]
        return [*rules, *history, *new]

    def to_miners(self, messages: Sequence[Mapping[str, Any]], patient: Patient | None = None) -> tuple[bytes, str]:
        """Return the body for each miner, and the digest by which its receipt names the question.

        `patient`: for the prompt alone; the digest has nothing of it.
        """
        beside = {} if patient is None else {_EXTENSION: {"patient": patient.to_dict()}}
        body = {**self.fields, "model": self.twin, "messages": messages, **beside}
        return orjson.dumps(body), question_of_messages(messages)


def parse(body: bytes) -> ChatAsked:
    """Check a body; raises RequestError (400), which quotes names of fields only."""
    document = parse_object(body)
    extension = document.pop(_EXTENSION, {})
    if not isinstance(extension, dict) or not extension.keys() <= {"compare", "patient"}:
        raise bad_request(f"`{_EXTENSION}` may have the members `compare` and `patient` and no other", param=_EXTENSION)
    patient = take_patient({_EXTENSION: {"patient": extension.get("patient")}})
    compare = extension.get("compare", False)
    if not isinstance(compare, bool):
        raise bad_request(f"`{_EXTENSION}.compare` must be true or false", param=_EXTENSION)
    asked = check_chat(document)
    options = document.pop("stream_options", None)
    usage = isinstance(options, dict) and bool(options.get("include_usage"))
    for name in document.keys() - _TAKEN:
        if document[name] not in _ONLY.get(name, ()):
            raise bad_request(
                f"`{name[:64]}` is not taken here: a twin answers a patient in one text, all of which its miner signs",
                param=name[:64], code="not_taken",
            )  # fmt: skip
    if asked.messages[-1].get("role") == "assistant":
        raise bad_request("the last of `messages` must be the patient's", param="messages")
    fields = {name: document[name] for name in document.keys() & _TAKEN if name not in ("messages", "model")}
    return ChatAsked(
        twin=asked.twin, stream=asked.stream, usage=usage, compare=compare, messages=asked.messages,
        identity=asked.identity, fields=fields, patient=patient, names_patient=extension.get("patient") is not None,
    )  # fmt: skip

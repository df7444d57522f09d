"""One line of a dataset: read, and made learnable where that takes nothing away from an answer (docs/datasets.md).

    {"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}],
     "consent": true, "rating": 5, "correction": "…", "id": "…"}
    {"messages": [{"role": "user", "content": "…"}], "preferred": "…", "rejected": "…", "consent": true}

What isn't this format fails the dataset: whatever wrote it is defective, and its other lines can't be trusted either.
What people do in it (two messages in a row, an empty one, a closing "thank you") is repaired or left out, and counted.
What is learned is the answer to the question before it, or nothing: where a message was lost, or nobody can tell which
question a correction answers, the line is left out or begins after that.
Messages name file, line and field, never a content.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, ValidationError, model_validator

from neurons import jsonl
from neurons.privacy import Identifier, find_identifiers
from neurons.trainer import turns
from neurons.trainer.errors import BadData
from neurons.trainer.turns import MAX_TURNS, Flaw, Message, NotLearnable, Text, Turn

__all__ = ["MAX_TURNS", "Flaw", "Line", "Message", "Reading", "read_line"]

MAX_LINE_BYTES: Final = 256 * 1024
_WRITES: Final = "Correct what writes the dataset."

Rating = Annotated[StrictInt, Field(ge=1, le=5)]


class Line(BaseModel):
    """One line of the dataset that can be learned."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    messages: Annotated[tuple[Message, ...], Field(min_length=1)]
    consent: StrictBool = False
    rating: Rating | None = None
    correction: Text | None = None
    preferred: Text | None = None
    rejected: Text | None = None
    id: Annotated[str, Field(min_length=1, max_length=128)] | None = None

    @model_validator(mode="after")
    def _turns_alternate(self) -> Line:
        roles = [message.role for message in self.messages]
        if roles[0] == "system":
            roles = roles[1:]
        if self.preferred is not None:
            roles = [*roles, "assistant"]
        if not roles or roles != ["user", "assistant"] * (len(roles) // 2):
            raise ValueError("after an optional system message, user and assistant must alternate, assistant last")
        return self

    @property
    def is_pair(self) -> bool:
        """Two answers to compare, instead of one to learn."""
        return self.preferred is not None

    @property
    def is_doctors(self) -> bool:
        """A doctor corrected it, or said which answer is better."""
        return self.is_pair or self.correction is not None

    @property
    def texts(self) -> Iterator[str]:
        """Everything that a person wrote, and the id but for a UUID, which is nobody's number."""
        yield from (message.content for message in self.messages)
        yield from (text for text in (self.correction, self.preferred, self.rejected) if text is not None)
        if self.id is not None:
            yield _UUID.sub("", self.id)

    def canonical(self) -> bytes:
        """Return the line in the one form that it is stored and hashed in, without its line feed."""
        return json.dumps(
            self.model_dump(mode="json", exclude_none=True), sort_keys=True, separators=(",", ":"), ensure_ascii=False
        ).encode()

    @property
    def digest(self) -> str:
        """32 hex digits of the canonical line's SHA-256: the same line anywhere has the same."""
        return hashlib.sha256(self.canonical()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Reading:
    """What became of one line: `line` is None when it is left out for its `flaws`, else they were repaired."""

    line: Line | None
    flaws: frozenset[Flaw] = frozenset()


def read_line(raw: bytes, *, where: str) -> Reading:
    """Read one line, given without its line feed. Raises BadData for what isn't the format."""
    raw = jsonl.without_marks(raw)
    if (kind := jsonl.other_kind(raw)) is not None:
        raise BadData(f"{where}: {kind}")
    if raw.startswith(b"[") and raw != b"[":
        raise BadData(f"{where}: a list, expected one object {{…}} a line. Write JSON Lines, not one JSON document.")
    if len(raw) > MAX_LINE_BYTES:
        return _left_out(Flaw.TOO_LONG)
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return _left_out(Flaw.ENCODING)
    try:
        document = jsonl.read_object(text)
    except jsonl.NotJsonLines as error:
        raise BadData(f"{where}: {error}. {_WRITES}") from None
    try:
        written = _Written.model_validate(document)
    except ValidationError as error:
        raise BadData(f"{where}: {_in_words(error, document)}. {_WRITES}") from None
    return _repaired(written)


class _Written(BaseModel):
    """A line as it is written."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    messages: tuple[Turn, ...]
    consent: StrictBool | None = None
    rating: Rating | None = None
    correction: str | None = None
    preferred: str | None = None
    rejected: str | None = None
    id: Annotated[str, Field(min_length=1, max_length=128)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _blank_columns_are_none(cls, written: Any) -> Any:
        """An export has a column for every field, and leaves blank what a line has nothing for."""
        if not isinstance(written, dict):
            return written
        blank = {name for name in cls.model_fields if name != "messages" and written.get(name) == ""}
        if not all(written.get(name) is None or name in blank for name in _PAIR):
            blank -= _PAIR  # one of two answers to compare is missing, which is something else
        return {name: None if name in blank else value for name, value in written.items()}

    @model_validator(mode="after")
    def _answers_fit_together(self) -> _Written:
        if (self.preferred is None) != (self.rejected is None):
            raise ValueError("`preferred` and `rejected` come together, and one of them is missing")
        if self.preferred is not None and (self.correction is not None or self.rating is not None):
            raise ValueError("a pair of answers (`preferred`, `rejected`) has no `correction` and no `rating`")
        return self

    @property
    def texts(self) -> Iterator[str]:
        yield from (turn.content or "" for turn in self.messages)
        yield from (text or "" for text in (self.correction, self.preferred, self.rejected, self.id))


def _repaired(written: _Written) -> Reading:
    """Return the line as it can be learned. No word of an answer that is learned is taken away or moved."""
    if any(_is_garbled(text) for text in written.texts):
        return _left_out(Flaw.ENCODING)
    try:
        if written.preferred is not None and written.rejected is not None:
            kept = turns.before_two_answers(written.messages, written.preferred, written.rejected)
        else:
            kept = turns.answered(written.messages, written.correction)
    except NotLearnable as odd:
        return _left_out(odd.flaw)
    line = Line(
        messages=kept.messages,
        consent=bool(written.consent),
        rating=written.rating,
        correction=kept.correction,
        preferred=written.preferred,
        rejected=written.rejected,
        id=_id(written.id),
    )
    return Reading(line, kept.flaws)


_PAIR: Final = frozenset({"preferred", "rejected"})
_UUID: Final = re.compile(r"(?<![0-9A-Za-z])[0-9a-fA-F]{8}(?:-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}(?![0-9A-Za-z])")
_NUMBERED: Final = frozenset({Identifier.PHONE, Identifier.RECORD, Identifier.DATE})


def _id(written: str | None) -> str | None:
    """Return the id to keep. One that may be a telephone or record number is what counters make too: it isn't kept."""
    if written is None:
        return None
    kinds = {finding.kind for finding in find_identifiers(_UUID.sub("", written))}
    return None if kinds and kinds <= _NUMBERED else written


def _left_out(flaw: Flaw) -> Reading:
    return Reading(None, frozenset({flaw}))


def _is_garbled(text: str) -> bool:
    """Tell whether a text holds half of a character, or the mark of one: where it was cut, more may be missing."""
    if "\ufffd" in text:
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


# In words

_EXPECTED: Final[Mapping[str, str]] = {
    "messages": "a list of messages",
    "consent": "true or false, without quotation marks",
    "rating": "a whole number from 1 to 5, without quotation marks and decimal point",
    "id": "text of 1 to 128 characters",
    "role": "system, user or assistant",
    "message": 'an object {"role": …, "content": …}',
    "line": "an object {…}",
}


def _in_words(error: ValidationError, document: Any) -> str:
    """Say the first thing that is wrong, without quoting any content."""
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    kind, place = str(first["type"]), tuple(first["loc"])
    field, where = _name(place)
    if kind == "missing":
        return f"`{field}`{where} is missing{_shape_of(document) if place == ('messages',) else ''}"
    if kind == "extra_forbidden":
        known = (Turn if where else _Written).model_fields
        # A name that is none may be what a patient wrote.
        named = f"the field `{field}`" if re.fullmatch(r"[A-Za-z_]{1,32}", field) else "a field"
        close = difflib.get_close_matches(field, known, n=1)
        meant = f" (is `{close[0]}` meant?)" if close else ""
        return f"{named}{where} is unknown{meant}; known are {', '.join(f'`{name}`' for name in known)}"
    if kind == "value_error":
        return str(first["msg"]).removeprefix("Value error, ")
    quoted = f"`{field}`{where}" if field not in ("line", "message") else f"the {field}{where}"
    return f"{quoted} is not {_EXPECTED.get(field, 'text')}"


def _name(place: tuple[int | str, ...]) -> tuple[str, str]:
    """Return a field's name and, in words, which message it belongs to."""
    if not place:
        return "line", ""
    if place[0] != "messages" or len(place) == 1:
        return str(place[0]), ""
    number = f" of message {int(place[1]) + 1}" if isinstance(place[1], int) else ""
    return ("message", number.removeprefix(" of message")) if len(place) == 2 else (str(place[2]), number)


def _shape_of(document: Mapping[str, Any]) -> str:
    """Say what stands there instead of `messages`; no name that somebody may have made up."""
    alike = next((name for name in document if name.strip().lower() == "messages"), None)
    if alike is not None:
        return f": it is written {json.dumps(alike)}, and is wanted in small letters without blanks"
    for names, what in _SHAPES:
        if names <= document.keys():
            return f": this is {what}; wanted is {_WANTED}"
    close = difflib.get_close_matches("messages", [name for name in document if re.fullmatch(r"[a-z_]{1,32}", name)], 1)
    seen = f" (`{close[0]}` stands there)" if close else ""
    return f"{seen}; wanted is {_WANTED}"


_WANTED: Final = '{"messages": [{"role": "user", "content": …}, {"role": "assistant", "content": …}], "consent": …}'
_SHAPES: Final = (
    (frozenset({"conversations"}), "ShareGPT's shape (`conversations` with `from` and `value`)"),
    (frozenset({"instruction"}), "Alpaca's shape (`instruction`, `input`, `output`)"),
    (frozenset({"prompt", "completion"}), "the shape of `prompt` and `completion`"),
    (frozenset({"chosen"}), "the shape of `prompt`, `chosen` and `rejected` (here: `preferred` and `rejected`)"),
    (frozenset({"question", "answer"}), "the shape of `question` and `answer`"),
    (frozenset({"role"}), "a single message"),
    (frozenset({"text"}), "the shape of `text` alone"),
)

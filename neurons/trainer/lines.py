"""One line of a dataset: read, and made learnable where that takes nothing away from an answer (docs/datasets.md).

    {"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}],
     "consent": true, "rating": 5, "correction": "…", "id": "…"}
    {"messages": [{"role": "user", "content": "…"}], "preferred": "…", "rejected": "…", "consent": true}

What isn't this format fails the dataset: whatever wrote it is defective, and its other lines can't be trusted either.
What people do in it (two messages in a row, an empty one, a closing "thank you") is repaired or left out, and counted.
Messages name file, line and field, never a content.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, ValidationError, model_validator

from neurons.trainer.errors import BadData

MAX_LINE_BYTES: Final = 256 * 1024
MAX_TURNS: Final = 64
"""Of a longer conversation the last ones are learned."""
MARK: Final = b"\xef\xbb\xbf"
"""With which some programs begin a file in UTF-8; it is no part of the text."""
_OTHER_ENCODINGS: Final = (b"\xff\xfe", b"\xfe\xff")
_WRITES: Final = "Correct what writes the dataset."

Text = Annotated[str, Field(min_length=1)]


class Flaw(StrEnum):
    """What is odd about a line. It was learned after a repair, or left out where none can be."""

    TURNS = "turns"
    """Patient and twin don't take turns."""
    EMPTY = "empty"
    """A message, an answer or a correction without a word."""
    TOO_LONG = "tooLong"
    """More than is learned of one conversation."""
    ENCODING = "encoding"
    """Characters that were cut or garbled: something was lost, perhaps the end of an answer."""


class Message(BaseModel):
    """One turn of a conversation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Literal["system", "user", "assistant"]
    content: Text


class Line(BaseModel):
    """One line of the dataset that can be learned."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    messages: Annotated[tuple[Message, ...], Field(min_length=1)]
    consent: StrictBool = False
    rating: Annotated[int, Field(ge=1, le=5)] | None = None
    correction: Text | None = None
    preferred: Text | None = None
    rejected: Text | None = None
    id: Annotated[str, Field(min_length=1, max_length=128)] | None = None

    @model_validator(mode="after")
    def _turns_alternate(self) -> Line:
        turns = [message.role for message in self.messages]
        if turns[0] == "system":
            turns = turns[1:]
        if self.preferred is not None:
            turns = [*turns, "assistant"]
        if not turns or turns != ["user", "assistant"] * (len(turns) // 2):
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
        """Everything that a person wrote, and the id."""
        yield from (message.content for message in self.messages)
        yield from (text for text in (self.correction, self.preferred, self.rejected, self.id) if text is not None)

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
    raw = raw.removeprefix(MARK).strip()
    if raw.startswith(_OTHER_ENCODINGS) or b"\x00" in raw:
        raise BadData(f"{where}: the file is not in UTF-8 (UTF-16, it seems). Save it as UTF-8.")
    if raw.startswith(b"["):
        raise BadData(f"{where}: a list, expected one object {{…}} a line. Write JSON Lines, not one JSON document.")
    if len(raw) > MAX_LINE_BYTES:
        return _left_out(Flaw.TOO_LONG)
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return _left_out(Flaw.ENCODING)
    try:
        document = json.loads(text, object_pairs_hook=_without_twins, parse_constant=_no_number)
    except json.JSONDecodeError as error:
        raise BadData(f"{where}: not JSON: {error.msg}, at character {error.colno}. {_WRITES}") from None
    except RecursionError:
        raise BadData(f"{where}: not JSON: nested too deeply. {_WRITES}") from None
    except ValueError as error:
        raise BadData(f"{where}: not JSON: {error}. {_WRITES}") from None
    try:
        written = _Written.model_validate(document)
    except ValidationError as error:
        raise BadData(f"{where}: {_in_words(error)}. {_WRITES}") from None
    return _repaired(written)


class _Turn(BaseModel):
    """A message as it is written: perhaps without a word."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Literal["system", "user", "assistant"]
    content: str | None

    @property
    def is_empty(self) -> bool:
        return not (self.content or "").strip()


class _Written(BaseModel):
    """A line as it is written."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    messages: tuple[_Turn, ...]
    consent: StrictBool | None = None
    rating: Annotated[int, Field(ge=1, le=5)] | None = None
    correction: str | None = None
    preferred: str | None = None
    rejected: str | None = None
    id: Annotated[str, Field(min_length=1, max_length=128)] | None = None

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
    is_pair = written.preferred is not None
    if is_pair and not all((text or "").strip() for text in (written.preferred, written.rejected)):
        return _left_out(Flaw.EMPTY)
    flaws: set[Flaw] = set()
    correction = written.correction
    if correction is not None and not correction.strip():
        correction = None
        flaws.add(Flaw.EMPTY)

    turns = list(written.messages)
    if correction is not None and turns and turns[-1].role == "assistant" and turns[-1].is_empty:
        # What nobody answered the doctor did: the correction stands where the answer should.
        turns[-1] = turns[-1].model_copy(update={"content": correction})
        flaws.add(Flaw.EMPTY)
    spoken = [turn for turn in turns if not turn.is_empty]
    if len(spoken) < len(turns):
        flaws.add(Flaw.EMPTY)
    system = [turn for turn in spoken if turn.role == "system"]
    if system != spoken[: len(system)]:
        return _left_out(Flaw.TURNS)
    turns = spoken[len(system) :]
    answered = turns[: _after_last(turns, "user" if is_pair else "assistant")]
    if is_pair and len(answered) < len(turns):
        return _left_out(Flaw.TURNS)  # which question the two answers belong to, nobody can tell
    asked = _from_first(answered, "user")
    if len(asked) < len(turns):
        flaws.add(Flaw.TURNS)
    if not asked:
        return _left_out(Flaw.EMPTY if Flaw.EMPTY in flaws or not turns else Flaw.TURNS)
    messages = _joined([*system, *asked])
    if len(messages) < len(system) + len(asked):
        flaws.add(Flaw.TURNS)
    start = len(messages) - MAX_TURNS
    if start > 0:
        head = messages[:1] if system else []
        messages = [*head, *_from_first(messages[start + len(head) :], "user")]
        flaws.add(Flaw.TOO_LONG)
    line = Line(
        messages=tuple(messages),
        consent=bool(written.consent),
        rating=written.rating,
        correction=correction,
        preferred=written.preferred,
        rejected=written.rejected,
        id=written.id,
    )
    return Reading(line, frozenset(flaws))


def _left_out(flaw: Flaw) -> Reading:
    return Reading(None, frozenset({flaw}))


def _is_garbled(text: str) -> bool:
    """Tell whether a text holds half of a character: where it was cut, more than that is missing."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _after_last(turns: Sequence[_Turn], role: str) -> int:
    """Return how many turns there are up to the last one of a role."""
    return max((index + 1 for index, turn in enumerate(turns) if turn.role == role), default=0)


def _from_first(turns: Sequence[Any], role: str) -> list[Any]:
    """Return the turns from the first one of a role on."""
    first = next((index for index, turn in enumerate(turns) if turn.role == role), len(turns))
    return list(turns[first:])


def _joined(turns: Sequence[_Turn]) -> list[Message]:
    """Make one message of those that somebody sent in a row."""
    return [
        Message(role=role, content="\n".join(turn.content or "" for turn in group))
        for role, group in groupby(turns, key=lambda turn: turn.role)
    ]


# In words

_EXPECTED: Final[Mapping[str, str]] = {
    "messages": "a list of messages",
    "consent": "true or false, without quotation marks",
    "rating": "a whole number from 1 to 5",
    "id": "text of 1 to 128 characters",
    "role": "system, user or assistant",
    "message": 'an object {"role": …, "content": …}',
    "line": "an object {…}",
}


def _in_words(error: ValidationError) -> str:
    """Say the first thing that is wrong, without quoting any content."""
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    kind, place = str(first["type"]), tuple(first["loc"])
    field, where = _name(place)
    if kind == "missing":
        return f"`{field}`{where} is missing"
    if kind == "extra_forbidden":
        known = (_Turn if where else _Written).model_fields
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


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a field stands there twice, and nobody can tell which one counts")
    return found


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number")

"""Import a file: every object becomes a line of ours, or is refused in words with its number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, BinaryIO

from neurons.importers.documents import Read, as_line, documents
from neurons.importers.shapes import SHAPES, Refused, Shape, left_away
from neurons.trainer.dataset import refusal_of
from neurons.trainer.errors import BadData
from neurons.trainer.lines import read_line


@dataclass(slots=True)
class Import:
    """What became of a file."""

    read: int = 0
    written: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    """By reason."""
    repaired: Counter[str] = field(default_factory=Counter)
    """Lines that were written after a repair, by what was odd (docs/datasets.md)."""
    left_away: Counter[str] = field(default_factory=Counter)
    """Lines from which a field about the conversation was not taken over, by its name."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """One object that was refused."""

    number: int
    why: str


def import_lines(
    source: BinaryIO, target: IO[bytes], *, shape: Shape, consent: bool = False, told: Import
) -> Iterator[Refusal]:
    """Read, check and write one object after another; yield each that is refused, and count all of them in `told`.

    A line is written as the trainer reads it, and only if the trainer would learn it: with consent (the line's own, or
    `consent` for files that say nothing of it) and without identifiers. Raises NotReadable for a file of another kind.
    """
    for each in documents(source):
        told.read += 1
        try:
            raw, repaired = _imported(each, shape=shape, consent=consent)
        except Refused as refusal:
            told.refused[_reason(str(refusal))] += 1
            yield Refusal(each.number, str(refusal))
            continue
        target.write(raw + b"\n")
        told.written += 1
        told.repaired.update(repaired)
        told.left_away.update(left_away(shape, each.value))


def _imported(each: Read, *, shape: Shape, consent: bool) -> tuple[bytes, tuple[str, ...]]:
    if each.flaw is not None:
        raise Refused(each.flaw)
    if not isinstance(each.value, dict):
        raise Refused("no object {…}")
    fields = SHAPES[shape](each.value)
    if "consent" not in fields and consent:
        fields["consent"] = True
    return _checked(fields)


def _checked(fields: dict[str, object]) -> tuple[bytes, tuple[str, ...]]:
    """Return the line in its canonical form, and what was repaired. Raises Refused with what the trainer refuses."""
    try:
        reading = read_line(as_line(fields), where="")
    except BadData as error:
        raise Refused(str(error).removeprefix(": ").removesuffix(" Correct what writes the dataset.")) from None
    flaws = tuple(sorted(flaw.value for flaw in reading.flaws))
    if reading.line is None:
        raise Refused(f"the trainer can't learn it: {', '.join(_FLAWS.get(flaw, flaw) for flaw in flaws)}")
    if (refusal := refusal_of(reading.line)) is not None:
        raise Refused(_IN_WORDS.get(refusal, f"an identifier is left in it: {refusal.removeprefix('identifier.')}"))
    return reading.line.canonical(), flaws


_FLAWS = {
    "encoding": "half a character, or the mark of a lost one, stands in it (encoding); export it anew in UTF-8",
    "empty": "a question or an answer is missing, or holds no word (empty)",
    "turns": "a question without an answer, or one of them out of turn (turns)",
    "tooLong": "it is longer than 256 KiB (tooLong)",
    "equalAnswers": "the two answers are one (equalAnswers)",
}
_IN_WORDS = {
    "noConsent": "no consent. If everybody whose words these are agreed, say so with --consent",
    "dislikedWithoutCorrection": "rated 1 or 2, and no correction says what would have been right",
}


def _reason(why: str) -> str:
    """Return a refusal without the number of its message or its character, to be counted."""
    return why.split(", message", 1)[0].split(", at character", 1)[0].split(", entry", 1)[0]

"""Identifiers in a text, by kind and place; the classes of HIPAA's Safe Harbor (45 CFR 164.514(b)(2)) that text holds.

A line that is refused costs a training example, a line that is let through costs a patient's privacy: patterns are wide
where the two conflict, and need a label ("record number …") where bare numbers are common in medicine. A name or a town
that nothing in the sentence announces is found by the models alone (`neurons.privacy.deidentifier`).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from neurons.invisible import is_invisible
from neurons.privacy import advice, announced, nepali, numbers, people, places, spelled
from neurons.privacy.gazetteer import Gazetteer, gazetteer


class Identifier(StrEnum):
    """What kind of identifier it is; the value is what a report counts."""

    NAME = "name"
    PLACE = "place"
    """Towns and smaller, and hospitals; states and countries may stay."""
    ADDRESS = "address"
    POSTCODE = "postcode"
    DATE = "date"
    AGE = "ageOver89"
    PHONE = "phone"
    EMAIL = "email"
    SSN = "socialSecurityNumber"
    RECORD = "recordNumber"
    LICENCE = "licenceNumber"
    PLATE = "vehiclePlate"
    DEVICE = "deviceSerial"
    BIOMETRIC = "biometricOrPhoto"
    URL = "url"
    IP = "ipAddress"


@dataclass(frozen=True, slots=True)
class Finding:
    """One identifier: `text[start:end]`. The text itself is not kept, so that a finding may be logged."""

    kind: Identifier
    start: int
    end: int


def find_identifiers(text: str, *, known: Gazetteer | None = None) -> tuple[Finding, ...]:
    """Return what rules and lists find in the order of the text; findings of different kinds may overlap.

    Characters that nobody sees hide nothing: the text is searched without them, and with spaces in their place, since
    some of them stand where a word ends.
    """
    known = known or gazetteer()
    found = {
        Finding(Identifier(kind), reading.places[start], reading.places[end - 1] + 1)
        for reading in readings(text)
        for kind, start, end in spans(reading.text, known)
    }
    return tuple(sorted(found, key=lambda finding: (finding.start, finding.end, finding.kind)))


@dataclass(frozen=True, slots=True)
class Reading:
    """A text as a reader sees it."""

    text: str
    places: Sequence[int]
    """Where each of its characters stands in the text that was given."""


def readings(text: str) -> tuple[Reading, ...]:
    """Return the text without what nobody sees, and where something was left out, also with spaces in its place."""
    plain = [_fold(character) for character in text]
    seen = [place for place, character in enumerate(text) if not is_invisible(character)]
    without = Reading("".join(plain[place] for place in seen), seen)
    if len(seen) == len(plain):
        return (without,)
    spaced = [" " if is_invisible(character) else plain[place] for place, character in enumerate(text)]
    return without, Reading("".join(spaced), range(len(plain)))


def spans(text: str, known: Gazetteer) -> Iterator[tuple[str, int, int]]:
    """Yield kind, start and end of everything that rules and lists find in a text as its reader sees it."""
    yield from advice.without_advice(text, _spans(text, known), known)


def _spans(text: str, known: Gazetteer) -> Iterator[tuple[str, int, int]]:
    labelled = [*numbers.labelled(text), *numbers.files(text), *nepali.numbers(text)]
    yield from labelled
    records = [(start, end) for kind, start, end in labelled if kind in ("recordNumber", "licenceNumber")]
    for recognise in (numbers.dates, nepali.dates, numbers.numbers):
        for kind, start, end in recognise(text):
            # What is said to be a citizenship number is neither a date nor a telephone number.
            if not any(begin <= start and end <= stop for begin, stop in records):
                yield kind, start, end
    for recognise in (
        people.names, announced.names, people.ages, spelled.ages, spelled.phones, places.addresses, places.postcodes,
        places.institutions, places.online, announced.towns,
    ):  # fmt: skip
        yield from recognise(text)
    yield from nepali.names(text, known)
    yield from nepali.places(text, known)


def _fold(character: str) -> str:
    """Fold full-width digits and the like into plain ones, one character for one, so that places stay right."""
    if character.isascii():
        return character
    if unicodedata.category(character) == "Pd" or character == "\N{MINUS SIGN}":
        return "-"
    if character == "\N{RIGHT SINGLE QUOTATION MARK}":
        return "'"
    if (digit := unicodedata.decimal(character, None)) is not None:
        return str(digit)
    folded = unicodedata.normalize("NFKC", character)
    return folded if len(folded) == 1 else character

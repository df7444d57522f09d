"""Identifiers in a text, by kind and place; the classes of HIPAA's Safe Harbor (45 CFR 164.514(b)(2)) that text holds.

A line that is refused costs a training example, a line that is let through costs a patient's privacy: patterns are wide
where the two conflict, and need a label ("record number …") where bare numbers are common in medicine. Known limits: a
name or a town that nothing in the sentence announces is not found without a language model.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from neurons.invisible import is_invisible
from neurons.privacy import numbers, people, places


class Identifier(StrEnum):
    """What kind of identifier it is; the value is what a report counts."""

    NAME = "name"
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
    URL = "url"
    IP = "ipAddress"


@dataclass(frozen=True, slots=True)
class Finding:
    """One identifier: `text[start:end]`. The text itself is not kept, so that a finding may be logged."""

    kind: Identifier
    start: int
    end: int


def find_identifiers(text: str) -> tuple[Finding, ...]:
    """Return every identifier in the order of the text; findings of different kinds may overlap.

    Characters that nobody sees hide nothing: the text is searched without them, and with spaces in their place, since
    some of them stand where a word ends.
    """
    plain = [_fold(character) for character in text]
    seen = [place for place, character in enumerate(text) if not is_invisible(character)]
    found = set(_findings("".join(plain[place] for place in seen), seen))
    if len(seen) < len(plain):
        spaced = [" " if is_invisible(character) else plain[place] for place, character in enumerate(text)]
        found.update(_findings("".join(spaced), range(len(plain))))
    return tuple(sorted(found, key=lambda finding: (finding.start, finding.end, finding.kind)))


def _findings(text: str, places_of: Sequence[int]) -> Iterator[Finding]:
    """Yield what is found in a text whose characters stand at these places of the one that was given."""
    for kind, start, end in _spans(text):
        yield Finding(Identifier(kind), places_of[start], places_of[end - 1] + 1)


def _spans(text: str) -> Iterator[tuple[str, int, int]]:
    for recognise in (people.names, people.ages, places.addresses, places.postcodes, places.online, numbers.dates):
        yield from recognise(text)
    yield from numbers.numbers(text)


def _fold(character: str) -> str:
    """Fold full-width digits and the like into plain ones, one character for one, so that places stay right."""
    if character.isascii():
        return character
    if unicodedata.category(character) == "Pd" or character == "\N{MINUS SIGN}":
        return "-"
    if character == "\N{RIGHT SINGLE QUOTATION MARK}":
        return "'"
    folded = unicodedata.normalize("NFKC", character)
    return folded if len(folded) == 1 else character

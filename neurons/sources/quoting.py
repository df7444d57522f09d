"""Whether a quotation stands word for word in a passage: matched, or unchecked. Nothing that is merely alike matches.

Spacing, kinds of quotation marks and dashes, invisible characters and how accents are coded don't count. Everything
else does: letters, case, digits, signs, the ends of words. Superscripts and fractions stay what they are
(10⁵ is not 105), a quotation with something left out (…) doesn't match, and "safe" isn't found in "unsafe", nor "5 mg"
in "0.5 mg".
"""

from __future__ import annotations

import enum
import unicodedata
from dataclasses import dataclass
from typing import Final

from neurons.invisible import is_invisible
from neurons.sources.passage import Passage

MIN_WORDS: Final = 4
"""Of a quotation. Fewer words stand in many texts that say the opposite ("is safe")."""
MAX_CHARACTERS: Final = 4_000
_AROUND: Final = 200
_FOLDED: Final = {
    **dict.fromkeys("\u2018\u2019\u201a\u201b\u2032\u02bc\u0060\u00b4\uff07", "'"),
    **dict.fromkeys("\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb\uff02", '"'),
    **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d", "-"),
}
_JOINS: Final = frozenset("-/.,+±<>≤≥~^%'")
"""Between a word and its neighbour without a space these make one of both: non-steroidal, mg/kg, 0.5, <5."""
_ENDS: Final = frozenset(".,'")
"""These end a word too, unless something follows them directly."""


class Quotation(enum.StrEnum):
    """What is known of a quotation. There is no third: nothing here can tell that a passage supports a claim."""

    MATCHED = "Matched"
    """Its words stand in the passage. What the passage says with them is for a reader to see."""
    UNCHECKED = "Unchecked"
    """Nobody knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuoteMatch:
    """Where a quotation stands, or why it is unchecked."""

    quotation: Quotation
    message: str
    start: int | None = None
    """First character in the passage's own text, and the one behind the last; None when unchecked."""
    end: int | None = None
    around: str = ""
    """The passage's text with 200 characters on both sides: a quotation can leave off "it is false that"."""


def match_quote(quote: str, passage: Passage) -> QuoteMatch:
    """Look for a quotation in a passage."""
    if len(quote) > MAX_CHARACTERS:
        return _unchecked(f"the quotation is longer than {MAX_CHARACTERS:,} characters")
    wanted = _read(quote).text.strip()
    if wanted[:1] == wanted[-1:] == '"':
        wanted = wanted.strip('"').strip()
    if sum(any(_in_word(each) for each in word) for word in wanted.split()) < MIN_WORDS:
        return _unchecked(f"the quotation has fewer than {MIN_WORDS} words, which stand in too many texts")
    read = _read(passage.text)
    begin = read.text.find(wanted)
    while begin >= 0:
        end = begin + len(wanted)
        if _is_whole(read.text, begin, end):
            start, stop = read.places[begin], read.places[end] if end < len(read.places) else len(passage.text)
            stop = start + len(passage.text[start:stop].rstrip())
            around = passage.text[max(0, start - _AROUND) : stop + _AROUND]
            return QuoteMatch(quotation=Quotation.MATCHED, message="the words stand in the passage",
                              start=start, end=stop, around=around)  # fmt: skip
        begin = read.text.find(wanted, begin + 1)
    return _unchecked("the words don't stand in the passage as they are quoted")


def _unchecked(message: str) -> QuoteMatch:
    return QuoteMatch(quotation=Quotation.UNCHECKED, message=message)


@dataclass(frozen=True, slots=True)
class _Reading:
    text: str
    places: list[int]
    """Of each character, where it comes from in the text as it was."""


def _read(text: str) -> _Reading:
    """Return a text as it is compared, and where each of its characters comes from."""
    pieces: list[str] = []
    places: list[int] = []
    at = 0
    while at < len(text):
        begin, character = at, text[at]
        at += 1
        if is_invisible(character):
            continue
        if character.isspace():
            if pieces and pieces[-1] != " ":
                pieces.append(" ")
                places.append(begin)
            continue
        while at < len(text) and (unicodedata.combining(text[at]) or is_invisible(text[at])):
            if not is_invisible(text[at]):
                character += text[at]
            at += 1
        for each in unicodedata.normalize("NFC", character):
            pieces.append(_FOLDED.get(each, each))
            places.append(begin)
    return _Reading("".join(pieces), places)


def _is_whole(text: str, begin: int, end: int) -> bool:
    """Tell whether a find begins and ends where words do."""
    before, behind = text[:begin][-2:], text[end : end + 2]
    return _parted(before[::-1], text[begin], ending=False) and _parted(behind, text[end - 1], ending=True)


def _parted(outside: str, inside: str, *, ending: bool) -> bool:
    """Tell whether what stands outside, the nearest character first, is no part of the word inside."""
    if not outside or outside[0] == " ":
        return True
    if _in_word(outside[0]):
        return not (_in_word(inside) or inside in _JOINS)
    if outside[0] not in _JOINS:
        return True
    # "… in pregnancy." ends there, "0.5" and "mg/kg" don't; before a word only a sign that stands by itself parts
    return ending and outside[0] in _ENDS and (len(outside) == 1 or not _in_word(outside[1]))


def _in_word(character: str) -> bool:
    return character.isalnum() or unicodedata.category(character)[0] == "M"

"""The words that a text is found by, in English and Nepali: how corpora are indexed and claims looked up."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from neurons.invisible import visible

RECIPE: Final = "1"
"""Raised whenever `tokens` returns something else for some text: kept indexes are then built anew."""

_WORD: Final = re.compile(r"\d+(?:[.,]\d+)+|(?:[^\W_]|[\u0300-\u036f\u0900-\u0963\u0966-\u097f])+")
"""Numbers with their decimals; else letters and digits, with the marks that Devanagari writes vowels with, which `\\w`
leaves out. The danda (।) ends a word."""
_SAME: Final = str.maketrans({
    "\u0940": "\u093f", "\u0942": "\u0941",  # long and short i, u: Nepali writers mix them
    "\u0908": "\u0907", "\u090a": "\u0909",
    "\u0901": "\u0902", "\u093c": None,  # chandrabindu as anusvara; no nukta
})  # fmt: skip
_DEVANAGARI: Final = re.compile(r"[\u0900-\u097f]")
_POSTPOSITIONS: Final = tuple(
    each.translate(_SAME) for each in ("हरू", "लाई", "बाट", "देखि", "सँग", "मा", "को", "का", "की", "ले")
)
"""Written onto a Nepali noun; the noun is what is looked for."""
_STOP: Final = frozenset(re.findall(
    r"\S+",
    """a about after all also am an and any are as at be been being but by can could did do does for from
    had has have he her him his how i if in into is it its may me might more most my of on or our
    out she should so some such than that the their them then there these they this those to up was
    we were what when where which while who will with would you your
    छ छन् हो हुन् र वा पनि यो त्यो के कि भने गर्न गर्नु हुन्छ""",
))  # fmt: skip


def tokens(text: str) -> list[str]:
    """Return a text's words as they are looked up, in the order of the text, without those that stand everywhere."""
    read = unicodedata.normalize("NFKC", visible(text)).casefold()
    return [_stem(word) for word in _WORD.findall(read) if word not in _STOP]


def content_words(text: str) -> list[str]:
    """Return the words that say what a text is about, as they are written but in lower case, each once."""
    read = unicodedata.normalize("NFC", visible(text)).lower()
    return list(dict.fromkeys(word for word in _WORD.findall(read) if word not in _STOP and word not in ("no", "not")))


def _stem(word: str) -> str:
    if word[0].isdigit():
        return "".join(str(unicodedata.digit(each)) if each.isdecimal() else each for each in word)
    if _DEVANAGARI.search(word):
        return _noun(word.translate(_SAME))
    # Harman's S stemmer: plurals only, so that no two unlike words become one
    if len(word) > 4 and word.endswith("ies") and word[-4] not in "ae":
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith("es") and word[-3] not in "aeo":
        return word[:-1]
    if len(word) > 3 and word.endswith("s") and word[-2] not in "us":
        return word[:-1]
    return word


def _noun(word: str) -> str:
    """Return a Nepali noun without the postpositions that are written onto it (बच्चाहरूलाई → बच्चा)."""
    for _ in range(2):
        ending = next((each for each in _POSTPOSITIONS if word.endswith(each) and len(word) - len(each) >= 2), None)
        if ending is None:
            break
        word = word.removesuffix(ending)
    return word

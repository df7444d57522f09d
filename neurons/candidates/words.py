"""Texts as bags of words and pairs of words, by which they are compared."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise
from typing import Final

from neurons.scoring.phrases import normalise

MAX_WORDS: Final = 1024
"""The words of an answer that are looked at: enough for any, and a bound on the time."""
MAX_CHARACTERS: Final = 8 * MAX_WORDS
"""And its characters, since all are normalised before there are words."""
LOOPED: Final = (24, 60)
"""So many last words show a short circle, and a long one."""
_SENTENCE: Final = re.compile("(?<=[.!?\u0964])\\s+|\\n+")
_VERBS: Final = "do|does|did|is|are|was|were|must|should|can|could|would|may"
_DENIES: Final = rf"(?:not|never|no|avoid|(?:{_VERBS}) not|cannot|[a-z]{{2,6}}n['\u2019]t)\b"
_INSTEAD: Final = re.compile(r"\b(?:instead of|rather than)\b", re.IGNORECASE)
_CLAUSE: Final = re.compile(
    rf"[;:\u2013\u2014](?!\d)|,? but |,? (?:and|or|so) (?={_DENIES})|, ?(?={_DENIES})"
    r"|, ?(?=(?:take|use|give|choose|try|call|see|ask)\b)",
    re.IGNORECASE,
)
"""Where what is denied ends or begins. Not at each comma: what is listed behind a "not" is denied with it."""

Bag = Counter[tuple[str, ...]]


def bag_of(text: str) -> Bag:
    """Return the words and the pairs of neighbours: `not take` and `take` differ by two of three."""
    words = normalise(text[:MAX_CHARACTERS])[:MAX_WORDS]
    return Counter([*((word,) for word in words), *pairwise(words)])


def likeness(one: Bag, other: Bag) -> float:
    """Return the F1 of two bags, 0 to 1; two empty ones are alike."""
    if not one and not other:
        return 1.0
    common = (one & other).total()
    return 2 * common / (one.total() + other.total())


def goes_round(text: str) -> bool:
    """Tell whether a text ends in going round in circles: of its last words most have followed each other before."""
    words = normalise(text[-MAX_CHARACTERS:])
    return any(_circles(words[-count:]) for count in LOOPED if len(words) >= count)


def clauses_of(sentence: str) -> list[str]:
    """Return the parts of a sentence that deny or say one thing each: `Not this; take that`."""
    plain = " ".join(sentence.split())  # or a long run of blanks would take a time that is its square
    parts = _CLAUSE.split(_INSTEAD.sub(", not", plain))
    return [part for part in parts if normalise(part)]


def _circles(words: list[str]) -> bool:
    threes = list(zip(words, words[1:], words[2:], strict=False))
    return 2 * len(set(threes)) < len(threes)


def sentences_of(text: str) -> list[str]:
    """Return a text's sentences and lines as far as they are looked at, without those that hold no word."""
    return [part for part in _SENTENCE.split(text[:MAX_CHARACTERS]) if normalise(part)]

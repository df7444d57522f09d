"""Texts as bags of words and pairs of words, by which they are compared."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise
from typing import Final

from neurons.scoring.phrases import normalise

MAX_WORDS: Final = 1024
"""The words of an answer that are looked at: enough for any, and a bound on the time."""
_SENTENCE: Final = re.compile(r"(?<=[.!?])\s+|\n+")

Bag = Counter[tuple[str, ...]]


def bag_of(text: str) -> Bag:
    """Return the words and the pairs of neighbours: `not take` and `take` differ by two of three."""
    words = normalise(text)[:MAX_WORDS]
    return Counter([*((word,) for word in words), *pairwise(words)])


def likeness(one: Bag, other: Bag) -> float:
    """Return the F1 of two bags, 0 to 1; two empty ones are alike."""
    if not one and not other:
        return 1.0
    common = (one & other).total()
    return 2 * common / (one.total() + other.total())


def sentences_of(text: str) -> list[str]:
    """Return a text's sentences and lines, without those that hold no word."""
    return [part for part in _SENTENCE.split(text) if normalise(part)]

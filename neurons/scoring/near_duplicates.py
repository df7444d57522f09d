"""Whether a text says over again what one of a set of texts says, but for case, spacing and a few words.

Texts are compared as sets of shingles (runs of four characters) by the Jaccard coefficient, exactly: a safety or an
evaluation set has a few thousand texts, for which an index of shingles is small and MinHash would only estimate. What
is said in quite other words, or in another script, isn't found.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from neurons.invisible import visible

SHINGLE: Final = 4
"""Characters."""
LIKENESS: Final = 0.5
"""The Jaccard coefficient from which texts are one. A question of twelve words keeps as much with two of them replaced;
unrelated ones, and two questions of one subject, stay below (tests/unit/scoring/test_near_duplicates.py)."""
FEWEST_WORDS: Final = 6
"""Of a text that is known again. In what is shorter ("my knee hurts badly") one word makes half of it another question;
the same question is known by `question_digest`."""
_APOSTROPHE: Final = re.compile("['\N{RIGHT SINGLE QUOTATION MARK}]")
_SENTENCE: Final = re.compile(r"(?<=[.!?।])\s+|\n+")


@dataclass(frozen=True, slots=True)
class _Text:
    shingles: frozenset[str]
    sentences: int


class NearDuplicates:
    """A set of texts, and what is near to one of them."""

    def __init__(self, texts: Iterable[str], *, likeness: float = LIKENESS) -> None:
        """Take in the texts; those of fewer than `FEWEST_WORDS` are left out. Raises ValueError for no likeness."""
        if not 0 < likeness <= 1:
            raise ValueError(f"a likeness of {likeness} is none: above 0, at most 1")
        self._likeness = likeness
        self._texts = [
            _Text(shingles=shingles(text), sentences=len(_sentences(text)))
            for text in dict.fromkeys(texts)
            if len(plain(text).split()) >= FEWEST_WORDS
        ]
        self._holders: dict[str, list[int]] = {}
        held = Counter(shingle for each in self._texts for shingle in each.shingles)
        for place, each in enumerate(self._texts):
            # What has `_least` of its shingles has one of these, whichever it lacks (prefix filtering).
            rarest = sorted(each.shingles, key=lambda shingle: (held[shingle], shingle))
            for shingle in rarest[: len(rarest) - self._least(each) + 1]:
                self._holders.setdefault(shingle, []).append(place)

    def __len__(self) -> int:
        return len(self._texts)

    def likeness_of(self, text: str) -> float:
        """Return the highest Jaccard coefficient of the text, or of some sentences in a row of it, with one of the set.

        In a row stand at most one sentence more than what it is compared with has. 0 below the set's likeness: what
        can't reach that isn't compared.
        """
        near = [self._texts[place] for place in self._near(shingles(text))]
        if not near:
            return 0.0
        found = max(jaccard(shingles(text), each.shingles) for each in near)
        for count, part in _parts(text, most=1 + max(each.sentences for each in near)):
            # A part is held against what it may be near to alone: a day of messages holds half of any text somewhere.
            for each in (self._texts[place] for place in self._near(part)):
                if count <= each.sentences + 1:
                    found = max(found, jaccard(part, each.shingles))
        return found if found >= self._likeness else 0.0

    def _near(self, held: frozenset[str]) -> Iterable[int]:
        """Yield the places of the texts of which so many shingles are held that these may be near to them."""
        places = {place for shingle in held & self._holders.keys() for place in self._holders[shingle]}
        # The coefficient, of all that is held or of a part of it, is never above the share of the kept text's shingles.
        return (p for p in places if len(held & self._texts[p].shingles) >= self._least(self._texts[p]))

    def _least(self, text: _Text) -> int:
        """Return how many of its shingles whatever is near to a text has."""
        return max(1, math.ceil(self._likeness * len(text.shingles) - 1e-9))

    def holds(self, text: str) -> bool:
        """Tell whether the text, or some sentences in a row of it, is one of the set but for a few words."""
        return self.likeness_of(text) > 0


def shingles(text: str) -> frozenset[str]:
    """Return a text's runs of four characters, of its words in a row: empty for a text without a word."""
    return _runs(plain(text))


def _runs(words: str) -> frozenset[str]:
    if not words:
        return frozenset()
    padded = f" {words} "
    return frozenset(padded[start : start + SHINGLE] for start in range(max(1, len(padded) - SHINGLE + 1)))


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    """Return how much of both sets together is common to them, 0 to 1; 0 for two empty ones."""
    common = len(one & other)
    return common / (len(one) + len(other) - common) if common else 0.0


def plain(text: str) -> str:
    """Return a text's words, one space between them: small letters, digits of any script as 0 to 9, vowel signs."""
    spaced = " ".join(text.split())  # a tab or a line end parts words, and is nothing that is seen
    folded = unicodedata.normalize("NFKC", visible(spaced)).casefold()
    return " ".join("".join(_letter(each) for each in _APOSTROPHE.sub("", folded)).split())


def _letter(character: str) -> str:
    if (number := unicodedata.digit(character, None)) is not None:
        return str(number)
    return character if unicodedata.category(character)[0] in "LNM" else " "


def _sentences(text: str) -> list[str]:
    return [part for part in _SENTENCE.split(text) if plain(part)]


def _parts(text: str, *, most: int) -> Iterator[tuple[int, frozenset[str]]]:
    """Yield each run of up to so many sentences: their number and their shingles."""
    sentences = [plain(sentence) for sentence in _sentences(text)]
    for start in range(len(sentences)):
        for end in range(start + 1, min(len(sentences), start + most) + 1):
            yield end - start, _runs(" ".join(sentences[start:end]))

"""Whether a text says over again what one of a set of texts says, but for case, spacing and a few words.

Texts are compared as sets of shingles (runs of four characters) by the Jaccard coefficient, exactly: a safety or an
evaluation set has a few thousand texts, for which an index of shingles is small and MinHash would only estimate. What
is said in quite other words, or in another script, isn't found.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from neurons.emergency.words import LOOK_ALIKES
from neurons.invisible import visible

Places = npt.NDArray[np.intp]
Marks = npt.NDArray[np.bool_]
SHINGLE: Final = 4
"""Characters."""
LIKENESS: Final = 0.5
"""The Jaccard coefficient from which texts are one. A question of twelve words keeps as much with two of them replaced;
unrelated ones, and two questions of one subject, stay below (tests/unit/scoring/test_near_duplicates.py)."""
FEWEST_WORDS: Final = 6
"""Of a text that is known again. In what is shorter ("my knee hurts badly") one word makes half of it another question;
the same question is known by `question_digest`."""
_STRETCHES: Final = (0.8, 1.0, 1.25)
"""Of the length of what a stretch is compared with."""
_ACCENT: Final = re.compile("[\u0300-\u036f]")
_APOSTROPHE: Final = re.compile("['\N{RIGHT SINGLE QUOTATION MARK}]")
_SENTENCE: Final = re.compile(r"(?<=[.!?।])\s+|\n+")


@dataclass(frozen=True, slots=True)
class _Text:
    shingles: frozenset[str]
    sentences: int


@dataclass(frozen=True, slots=True)
class _Read:
    """A text to compare, cut once however many it is compared with."""

    shingles: frozenset[str]
    """Of all of it."""
    runs: tuple[str, ...]
    """Of its sentences in a row, in their order: each is as far from the first as its first character."""
    bounds: tuple[tuple[int, int], ...]
    """Where each sentence starts and ends in them, the spaces around it included."""
    begin: tuple[frozenset[str], ...]
    """The shingles that begin in each sentence; the last ones go on into the next."""
    parts: dict[tuple[int, int], frozenset[str]] = field(default_factory=dict)

    def part(self, first: int, count: int) -> frozenset[str]:
        """Return the shingles of some sentences in a row."""
        if (first, count) not in self.parts:
            end = self.bounds[first + count - 1][1] - SHINGLE + 1
            self.parts[first, count] = frozenset(self.runs[self.bounds[first][0] : end])
        return self.parts[first, count]


@dataclass(frozen=True, slots=True)
class _Table:
    """The shingles of some texts, by number, one text after another."""

    shingles: Places
    starts: Places

    @classmethod
    def of(cls, rows: Sequence[Places]) -> _Table:
        lengths = [len(row) for row in rows]
        starts = np.cumsum([0, *lengths[:-1]], dtype=np.intp)
        return cls(np.concatenate(rows) if rows else starts[:0], starts)

    def common(self, marks: Marks) -> Places:
        """Return how many of each text's shingles are marked."""
        counts: Places = np.add.reduceat(marks[self.shingles], self.starts, dtype=np.intp)
        return counts


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
        numbers: dict[str, int] = {}
        self._rows = [
            np.array([numbers.setdefault(shingle, len(numbers)) for shingle in each.shingles], dtype=np.intp)
            for each in self._texts
        ]
        """Of each text: the numbers of its shingles."""
        self._numbers = numbers
        self._sizes = np.array([len(each.shingles) for each in self._texts], dtype=np.intp)
        # The coefficient, of all that is held or of a part of it, is never above the share of the kept text's shingles.
        self._least = np.maximum(1, np.ceil(self._likeness * self._sizes - 1e-9)).astype(np.intp)
        self._all = _Table.of(self._rows)

    def __len__(self) -> int:
        return len(self._texts)

    def likeness_of(self, text: str) -> float:
        """Return the highest Jaccard coefficient of the text, or of some sentences in a row of it, with one of the set.

        In a row stand at most one sentence more than what it is compared with has. Where none is near enough, stretches
        of the text are compared, whatever its sentences. 0 below the set's likeness: what can't reach that isn't
        compared.
        """
        if not self._texts:
            return 0.0
        read = _read(text)
        common = self._all.common(self._marked(read.shingles))
        near = np.flatnonzero(common >= self._least)
        if not near.size:
            return 0.0
        found = float(np.max(common[near] / (len(read.shingles) + self._sizes[near] - common[near])))
        if len(read.bounds) > 1:
            found = self._in_parts(read, near, found)
        if found < self._likeness:
            found = self._in_windows(read, near, found)
        return found if found >= self._likeness else 0.0

    def _in_parts(self, read: _Read, near: Places, found: float) -> float:
        """Return the highest coefficient of a run of sentences with one of the texts that the whole is near to.

        Sentences are counted by the shingles that they share with each: what can't be nearer is not compared.
        """
        table = _Table.of([self._rows[place] for place in near])
        shared = np.stack([table.common(self._marked(each)) for each in read.begin], axis=1)
        until = np.concatenate([np.zeros((len(near), 1), dtype=np.intp), np.cumsum(shared, axis=1)], axis=1)
        longest = np.array([self._texts[place].sentences + 1 for place in near])
        for count in range(1, min(len(read.bounds), int(longest.max())) + 1):
            sums = until[:, count:] - until[:, :-count]
            # Of a run that begins with a sentence that shares nothing, the rest is as near, or nearer.
            enough = (
                (sums >= self._least[near][:, None]) & (longest >= count)[:, None] & (shared[:, : sums.shape[1]] > 0)
            )
            for row, first in np.argwhere(enough):
                kept, part = self._texts[near[row]].shingles, read.part(int(first), count)
                most = min(int(sums[row, first]), len(kept), len(part))
                if most / (len(kept) + len(part) - most) > found:
                    found = max(found, jaccard(part, kept))
        return found

    def _in_windows(self, read: _Read, near: Places, found: float) -> float:
        """Return the highest coefficient of a stretch, about as long as what it is compared with, wherever it begins.

        So what stands in a text without full stops, or with too many, is found too.
        """
        unknown = len(self._numbers)
        ordered = np.array([self._numbers.get(each, unknown) for each in read.runs], dtype=np.intp)
        marks = np.zeros(unknown + 1, dtype=np.bool_)
        for place in near:
            kept = self._texts[place].shingles
            marks[self._rows[place]] = True
            until = np.concatenate([[0], np.cumsum(marks[ordered], dtype=np.int32)])
            marks[self._rows[place]] = False
            for share in _STRETCHES:
                length = min(len(ordered), round(share * len(kept)))
                sums = until[length:] - until[:-length]
                first = int(np.argmax(sums))
                if sums[first] >= self._least[place]:
                    found = max(found, jaccard(frozenset(read.runs[first : first + length]), kept))
        return found

    def _marked(self, held: frozenset[str]) -> Marks:
        """Return which of the set's shingles are held."""
        marks = np.zeros(len(self._numbers), dtype=np.bool_)
        marks[[self._numbers[shingle] for shingle in held if shingle in self._numbers]] = True
        return marks

    def holds(self, text: str) -> bool:
        """Tell whether the text, or a stretch of it, is one of the set but for a few words."""
        return self.likeness_of(text) > 0


def shingles(text: str) -> frozenset[str]:
    """Return a text's runs of four characters, of its words in a row: empty for a text without a word."""
    return _runs(plain(text))


def _runs(words: str) -> frozenset[str]:
    return frozenset(_in_order(words))


def _in_order(words: str) -> tuple[str, ...]:
    if not words:
        return ()
    padded = f" {words} "
    return tuple(padded[start : start + SHINGLE] for start in range(max(1, len(padded) - SHINGLE + 1)))


@lru_cache(maxsize=2)
def _read(text: str) -> _Read:
    """Cut a text into shingles and sentences. What is held out is held against several sets, one after another."""
    whole = plain(text)
    sentences = _sentences(text)
    joined = " ".join(sentences)
    in_order = _in_order(joined)
    bounds: list[tuple[int, int]] = []
    begin: list[frozenset[str]] = []
    at = 0
    for sentence in sentences:
        end = at + len(sentence) + 2  # with the spaces before and behind it, of which the latter is the next one's, too
        bounds.append((at, end))
        begin.append(frozenset(in_order[at : end - 1]))
        at = end - 1
    shingles_of_all = frozenset(in_order) if joined == whole else _runs(whole)
    return _Read(shingles=shingles_of_all, runs=in_order, bounds=tuple(bounds), begin=tuple(begin))


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    """Return how much of both sets together is common to them, 0 to 1; 0 for two empty ones."""
    common = len(one & other)
    return common / (len(one) + len(other) - common) if common else 0.0


def plain(text: str) -> str:
    """Return a text's words, one space between them: small letters without accents, digits of any script as 0 to 9,
    vowel signs; letters of Cyrillic and Greek that look like Latin ones are those."""
    spaced = " ".join(text.split())  # a tab or a line end parts words, and is nothing that is seen
    if not spaced.isascii():
        bare = _ACCENT.sub("", unicodedata.normalize("NFKD", visible(spaced)))
        spaced = unicodedata.normalize("NFKC", bare).casefold().translate(LOOK_ALIKES)
    folded = visible(spaced).casefold()
    return " ".join(_APOSTROPHE.sub("", folded).translate(_LETTERS).split())


class _Letters(dict[int, str]):
    """What each character is to a word: itself, its digit, or a space. Filled as characters are met."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        if (number := unicodedata.digit(character, None)) is not None:
            kept = str(number)
        else:
            kept = character if unicodedata.category(character)[0] in "LNM" else " "
        self[code] = kept
        return kept


_LETTERS: Final = _Letters()


def _sentences(text: str) -> list[str]:
    """Return the words of each sentence that has any."""
    return [words for part in _SENTENCE.split(text) if (words := plain(part))]

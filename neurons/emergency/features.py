"""A message as the numbers of hashed features: words, pieces and stretches of letters, what the list knows of it.

Nepali words stand as their skeletons, in whichever script they were written, and English ones are shortened likewise:
what is learned from Devanagari holds for Latin letters, too.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from neurons.emergency.telling import Told
from neurons.emergency.words import NEPALI, Sentence, skeletons, stem

Places = npt.NDArray[np.int64]
"""Where features stand in a row of weights: each once, in ascending order."""

BITS: Final = 20
SIZE: Final = 1 << BITS
"""Of a row of weights."""
WINDOW: Final = 60
"""Words and ends of sentences that are looked at together; more would thin out the one sentence that matters."""
STEP: Final = WINDOW // 2
_LETTERS: Final = range(2, 6)
"""Letters of a piece."""
_STRETCH: Final = range(6, 9)
"""Letters of a stretch, which has a word's end and the next one's beginning."""
_PRIME: Final = np.uint64(0x9E3779B97F4A7C15)


class Group(StrEnum):
    """What a feature is of; each group weighs the same, however long the message is."""

    WORDS = "words"
    LETTERS = "letters"
    STRETCHES = "stretches"
    CONCEPTS = "concepts"


@dataclass(frozen=True, slots=True)
class Seen:
    """A sentence, what is told in it, and whether it is a question."""

    words: Sentence
    told: Sequence[Told]
    is_question: bool


class _Spelling(NamedTuple):
    """A word, a pause or a sentence's end as features have it, and the hashes that their names begin by."""

    text: str
    """One spelling for both scripts."""
    behind: bytes
    """As it stands behind another word in a feature's name."""
    alone: int
    """Hash of the feature that it is by itself."""
    bare: int
    """Of a word in Latin letters the hash of its stem, as it was written; else -1."""
    after: int
    """Hash of a name up to this word, of which the next is the second part; so the two that follow."""
    after_two: int
    around: int

    @classmethod
    def of(cls, text: str, bare: str = "") -> _Spelling:
        behind = f" {text}".encode()
        alone, after, after_two, around = (zlib.crc32(behind, zlib.crc32(kind)) for kind in (b"1", b"2", b"3", b"_"))
        return cls(text, behind, alone, zlib.crc32(f"b {bare}".encode()) if bare else -1, after, after_two, around)


class _Item(NamedTuple):
    spelling: _Spelling
    sentence: int
    told: Sequence[Told] = ()
    """What begins here."""


def windows(seen: Sequence[Seen]) -> Iterator[dict[Group, Places]]:
    """Yield the features of a message; of a long one those of each stretch of it, which overlap by half."""
    items = list(_items(seen))
    for start in range(0, max(1, len(items) - STEP), STEP):
        yield _features(items[start : start + WINDOW])


def whole(seen: Sequence[Seen]) -> dict[Group, Places]:
    """Return the features of a message as one stretch."""
    return _features(list(_items(seen)))


def _items(seen: Sequence[Seen]) -> Iterator[_Item]:
    for number, sentence in enumerate(seen):
        begins: dict[int, list[Told]] = {}
        for each in sentence.told:
            begins.setdefault(each.start, []).append(each)
        for place, word in enumerate(sentence.words):
            spelling = _PAUSE if word.is_pause else _spelled(word.keys[0], word.number)
            yield _Item(spelling, number, begins.get(place, ()))
        yield _Item(_QUESTION if sentence.is_question else _END, number)


_PAUSE, _QUESTION, _END, _BEGINNING = (_Spelling.of(each) for each in (",", "?", ".", "^"))


@lru_cache(maxsize=20_000)
def _spelled(key: str, number: float | None) -> _Spelling:
    if number is not None:
        return _Spelling.of(key, f"#{len(str(int(min(number, 1e9))))}")
    if key.startswith(NEPALI):
        return _Spelling.of(_without_end(key.removeprefix(NEPALI)))
    return _Spelling.of(_without_end(skeletons(key)[0]) if key.isalpha() else key, stem(key))


def _without_end(skeleton: str) -> str:
    """Return a skeleton without the vowel that Devanagari doesn't write: Latin letters do, in "cha", "ma" and "ra"."""
    return skeleton[:-1] if len(skeleton) > 1 and skeleton.endswith("a") else skeleton


def _features(items: Sequence[_Item]) -> dict[Group, Places]:
    letters, stretches = _letters(" " + " ".join([each.spelling.text for each in items]) + " ")
    return {
        Group.WORDS: _places(_words(items)),
        Group.LETTERS: letters,
        Group.STRETCHES: stretches,
        Group.CONCEPTS: _places(_concepts(items)),
    }


def _places(hashes: Iterable[int]) -> Places:
    return np.array(sorted({each & (SIZE - 1) for each in hashes}), dtype=np.int64)


def _words(items: Sequence[_Item]) -> list[int]:
    """Return the hashes of words, and of two and three in a row.

    CRC-32 goes on from where it stood: the hash of "2 chest pain" is that of "2 chest", gone on with " pain".
    """
    crc32, found = zlib.crc32, []
    before: _Spelling | None = None
    last = _BEGINNING
    for each in items:
        word = each.spelling
        behind = word.behind
        found.append(word.alone)
        if word.bare >= 0:
            found.append(word.bare)
        found.append(crc32(behind, last.after))
        if before is not None:
            found.append(crc32(behind, before.around))
            found.append(crc32(behind, crc32(last.behind, before.after_two)))
        before, last = last, word
    return found


def _letters(text: str) -> tuple[Places, Places]:
    """Return the places of all pieces of some letters in a row, and of all longer stretches, by a rolling hash."""
    codes = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32).astype(np.uint64)
    found: list[npt.NDArray[np.uint64]] = []
    hashed = codes
    for length in range(2, _STRETCH.stop):
        if len(codes) < length:
            break
        hashed = hashed[:-1] * _PRIME + codes[length - 1 :]
        found.append(hashed)
    return _mixed(found[: len(_LETTERS)]), _mixed(found[len(_LETTERS) :])


def _mixed(hashes: Sequence[npt.NDArray[np.uint64]]) -> Places:
    if not hashes:
        return np.zeros(0, dtype=np.int64)
    mixed = np.concatenate(hashes)
    places = (((mixed ^ (mixed >> _MIXED)) * _PRIME) >> _SHIFT).view(np.int64)
    # np.unique does the same, with a table that for so few takes longer than to sort them.
    places.sort()
    distinct: Places = places[np.concatenate((_TRUE, places[1:] != places[:-1]))]
    return distinct


_MIXED: Final = np.uint64(29)
_SHIFT: Final = np.uint64(64 - BITS)
_TRUE: Final = np.array([True])


def _concepts(items: Sequence[_Item]) -> Iterator[int]:
    live: dict[int, set[str]] = {}
    for item in items:
        for each in item.told:
            how = "d" if each.is_denied else "p" if each.is_past else "f" if each.is_fiction else ""
            how = how or ("a" if each.is_asked else "")
            yield _hash(f"c {each.concept}")
            yield _hash(f"h {each.concept} {how}")
            if not how:
                live.setdefault(item.sentence, set()).add(each.concept)
    for concepts in live.values():
        names = sorted(concepts)[:_MOST_CONCEPTS]
        for place, one in enumerate(names):
            for other in names[place + 1 :]:
                yield _hash(f"& {one} {other}")


@lru_cache(maxsize=20_000)
def _hash(name: str) -> int:
    return zlib.crc32(name.encode())


_MOST_CONCEPTS: Final = 24
"""Of a sentence, whose pairs are counted."""

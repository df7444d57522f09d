"""A message as the numbers of hashed features: words, pieces and stretches of letters, what the list knows of it.

Nepali words stand as their skeletons, in whichever script they were written, and English ones are shortened likewise:
what is learned from Devanagari holds for Latin letters, too.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from neurons.emergency.telling import Told
from neurons.emergency.words import NEPALI, Sentence, Word, skeletons, stem

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


@dataclass(frozen=True, slots=True)
class _Item:
    """A word, a pause or a sentence's end."""

    spelled: str
    """One spelling for both scripts."""
    bare: str
    """Of a word in Latin letters its stem, as it was written; else empty."""
    sentence: int
    told: tuple[Told, ...] = ()
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
            spelled, bare = _spelled(word)
            yield _Item(spelled, bare, number, tuple(begins.get(place, ())))
        yield _Item("?" if sentence.is_question else ".", "", number)


def _spelled(word: Word) -> tuple[str, str]:
    if word.is_pause:
        return ",", ""
    key = word.keys[0]
    if word.number is not None:
        return key, f"#{len(str(int(min(word.number, 1e9))))}"
    if key.startswith(NEPALI):
        return _without_end(key.removeprefix(NEPALI)), ""
    return (_without_end(skeletons(key)[0]) if key.isalpha() else key), stem(key)


def _without_end(skeleton: str) -> str:
    """Return a skeleton without the vowel that Devanagari doesn't write: Latin letters do, in "cha", "ma" and "ra"."""
    return skeleton[:-1] if len(skeleton) > 1 and skeleton.endswith("a") else skeleton


def _features(items: Sequence[_Item]) -> dict[Group, Places]:
    letters, stretches = _letters(" " + " ".join(each.spelled for each in items) + " ")
    return {
        Group.WORDS: _places(_words(items)),
        Group.LETTERS: letters,
        Group.STRETCHES: stretches,
        Group.CONCEPTS: _places(_concepts(items)),
    }


def _places(names: Iterable[str]) -> Places:
    return np.unique(np.fromiter((zlib.crc32(name.encode()) & (SIZE - 1) for name in names), dtype=np.int64))


def _words(items: Sequence[_Item]) -> Iterator[str]:
    before, last = "", "^"
    for each in items:
        word = each.spelled
        yield f"1 {word}"
        if each.bare:
            yield f"b {each.bare}"
        yield f"2 {last} {word}"
        if before:
            yield f"_ {before} {word}"
            yield f"3 {before} {last} {word}"
        before, last = last, word


def _letters(text: str) -> tuple[Places, Places]:
    """Return the places of all pieces of some letters in a row, and of all longer stretches, by a rolling hash."""
    codes = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32).astype(np.uint64)
    found: list[Places] = []
    hashed = codes
    for length in range(2, _STRETCH.stop):
        if len(codes) < length:
            break
        hashed = hashed[:-1] * _PRIME + codes[length - 1 :]
        mixed = (hashed ^ (hashed >> np.uint64(29))) * _PRIME
        found.append((mixed >> np.uint64(64 - BITS)).astype(np.int64))
    return _once(found[: len(_LETTERS)]), _once(found[len(_LETTERS) :])


def _once(places: Sequence[Places]) -> Places:
    return np.unique(np.concatenate(places)) if places else np.zeros(0, dtype=np.int64)


def _concepts(items: Sequence[_Item]) -> Iterator[str]:
    live: dict[int, set[str]] = {}
    for item in items:
        for each in item.told:
            how = "d" if each.is_denied else "p" if each.is_past else "f" if each.is_fiction else ""
            how = how or ("a" if each.is_asked else "")
            yield f"c {each.concept}"
            yield f"h {each.concept} {how}"
            if not how:
                live.setdefault(item.sentence, set()).add(each.concept)
    for concepts in live.values():
        names = sorted(concepts)[:_MOST_CONCEPTS]
        yield from (f"& {one} {other}" for place, one in enumerate(names) for other in names[place + 1 :])


_MOST_CONCEPTS: Final = 24
"""Of a sentence, whose pairs are counted."""

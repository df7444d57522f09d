"""What is read quickly is what its plain description says: the same features and decisions for every message known."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neurons.conversation import text_of
from neurons.emergency import assess, assessing, classifier, telling
from neurons.emergency.assessing import seen_in
from neurons.emergency.features import BITS, SIZE, STEP, WINDOW, Group, Places, Seen, windows
from neurons.emergency.lexicon import Known, Node, is_open, lexicon
from neurons.emergency.words import NEPALI, Word, skeletons, stem

SETS = Path(__file__).parent / "sets"
NAMES = sorted(path.stem for path in SETS.glob("*.jsonl"))


def conversations(name: str) -> Iterator[list[dict[str, Any]]]:
    for line in (SETS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
        yield json.loads(line)["messages"]


def plain_windows(seen: Sequence[Seen]) -> Iterator[dict[Group, Places]]:
    items: list[tuple[str, str, int, list[Any]]] = []
    for number, sentence in enumerate(seen):
        for place, word in enumerate(sentence.words):
            items.append((*spelled(word), number, [each for each in sentence.told if each.start == place]))
        items.append(("?" if sentence.is_question else ".", "", number, []))
    for start in range(0, max(1, len(items) - STEP), STEP):
        within = items[start : start + WINDOW]
        text = " " + " ".join(item[0] for item in within) + " "
        named, told = hashed(words(within)), hashed(concepts(within))
        pieces, stretches = letters(text, range(2, 6)), letters(text, range(6, 9))
        yield {Group.WORDS: named, Group.LETTERS: pieces, Group.STRETCHES: stretches, Group.CONCEPTS: told}


def spelled(word: Word) -> tuple[str, str]:
    def bare(skeleton: str) -> str:
        return skeleton[:-1] if len(skeleton) > 1 and skeleton.endswith("a") else skeleton

    if word.is_pause:
        return ",", ""
    key = word.keys[0]
    if word.number is not None:
        return key, f"#{len(str(int(min(word.number, 1e9))))}"
    if key.startswith(NEPALI):
        return bare(key.removeprefix(NEPALI)), ""
    return (bare(skeletons(key)[0]) if key.isalpha() else key), stem(key)


def hashed(names: Iterator[str]) -> Places:
    return np.unique(np.array([zlib.crc32(name.encode()) & (SIZE - 1) for name in names], dtype=np.int64))


def words(items: Sequence[tuple[str, str, int, list[Any]]]) -> Iterator[str]:
    before, last = "", "^"
    for word, bare, _, _ in items:
        yield f"1 {word}"
        if bare:
            yield f"b {bare}"
        yield f"2 {last} {word}"
        if before:
            yield f"_ {before} {word}"
            yield f"3 {before} {last} {word}"
        before, last = last, word


def letters(text: str, lengths: range) -> Places:
    prime, most = 0x9E3779B97F4A7C15, 2**64
    found = set()
    for length in lengths:
        for start in range(len(text) - length + 1):
            value = 0
            for character in text[start : start + length]:
                value = (value * prime + ord(character)) % most
            found.add(((value ^ (value >> 29)) * prime % most) >> (64 - BITS))
    return np.array(sorted(found), dtype=np.int64)


def concepts(items: Sequence[tuple[str, str, int, list[Any]]]) -> Iterator[str]:
    live: dict[int, set[str]] = {}
    for _, _, sentence, told in items:
        for each in told:
            how = "d" if each.is_denied else "p" if each.is_past else "f" if each.is_fiction else ""
            how = how or ("a" if each.is_asked else "")
            yield f"c {each.concept}"
            yield f"h {each.concept} {how}"
            if not how:
                live.setdefault(sentence, set()).add(each.concept)
    for named in live.values():
        names = sorted(named)[:24]
        yield from (f"& {one} {other}" for place, one in enumerate(names) for other in names[place + 1 :])


def plain_phrases(known: Sequence[Known], start: int) -> list[tuple[str, int, int, int]]:
    """Walk the list from its root, a word after another; fillers may stand in the middle, two of them.

    The last number: where a phrase ends in a word that is known by its beginning alone, if all ways to its end do.
    """
    root, longest = lexicon().root, dict[str, tuple[int, int]]()

    def walk(node: Node, place: int, skipped: int, left_open: int) -> None:
        for concept in node.concepts:
            before = longest.get(concept, (0, -1))
            if place > before[0] or (place == before[0] and left_open < 0):
                longest[concept] = place, left_open
        if place == len(known) or not node.next:
            return
        for word in known[place].words & node.next.keys():
            walk(node.next[word], place + 1, skipped, place if is_open(word) else -1)
        if skipped < 2 and any("filler" in root.next[word].concepts for word in known[place].words & root.next.keys()):
            walk(node, place + 1, skipped + 1, left_open)

    for word in known[start].words & root.next.keys():
        walk(root.next[word], start + 1, 0, start if is_open(word) else -1)
    return [(concept, start, place, left_open) for concept, (place, left_open) in longest.items()]


@pytest.mark.parametrize("name", NAMES)
def test_features_and_decisions_are_those_of_the_plain_description(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No word of a message is shown where they differ: some sets are blind."""
    assert assessing.classifier() is classifier.classifier()
    found = []
    for messages in conversations(name):
        seen = seen_in(text_of(dict(messages[-1])))
        found.append((assess(messages, country="NP"), classifier.classifier().opinion(seen), list(windows(seen))))
    monkeypatch.setattr(classifier, "windows", plain_windows)
    monkeypatch.setattr(telling, "_phrases", plain_phrases)
    differ = 0
    for messages, (decided, opinion, features) in zip(conversations(name), found, strict=True):
        seen = seen_in(text_of(dict(messages[-1])))
        plain = list(plain_windows(seen))
        same = len(plain) == len(features) and all(
            np.array_equal(one[group], other[group])
            for one, other in zip(plain, features, strict=True)
            for group in Group
        )
        same = same and assess(messages, country="NP") == decided
        differ += not (same and classifier.classifier().opinion(seen) == opinion)
    assert differ == 0

"""Which miners say the same: texts that are near to one another, question after question. Pure.

Texts are compared as sets of shingles by the Jaccard coefficient (`neurons.scoring.near_duplicates`); which pairs are
worth comparing is found by MinHash with bands (Broder 1997): of texts as near as LIKENESS one pair in a thousand is
missed on one question, and never on all of them.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from neurons.ledger.records import Miner
from neurons.scoring.near_duplicates import FEWEST_WORDS, jaccard, plain, shingles

LIKENESS: Final = 0.8
"""The Jaccard coefficient from which two answers are one. Two models' honest answers to one question stay below 0.5."""
LEAST_ITEMS: Final = 3
"""Questions that both answered in words enough; on fewer, nobody says that one copies the other."""
SHARE: Final = 0.5
"""Of those questions, on how many the answers have to be one."""
_BANDS, _ROWS = 10, 3
_PRIME: Final = (1 << 31) - 1


@dataclass(frozen=True, slots=True)
class Said:
    """One miner's answer to a question, and after how many milliseconds it came."""

    text: str
    latency_ms: int


@dataclass(frozen=True, slots=True)
class Group:
    """Miners that say the same, and how often each said it first, of all questions on which some of them did."""

    first: Mapping[Miner, int]

    @property
    def miners(self) -> tuple[Miner, ...]:
        """Who they are, in order."""
        return tuple(sorted(self.first, key=_key))

    def shares(self) -> dict[Miner, float]:
        """Return how they share one reward: half of it evenly, half by who was first; together 1.

        Whoever copies has to wait for what is copied.
        """
        count, firsts = len(self.first), sum(self.first.values())
        return {
            miner: 0.5 / count + 0.5 * (first / firsts if firsts else 1 / count) for miner, first in self.first.items()
        }


def groups_of(items: Sequence[Mapping[Miner, Said]]) -> tuple[Group, ...]:
    """Return the groups of miners that say the same, of two miners or more; `items` are the questions' answers."""
    miners = sorted({miner for item in items for miner in item}, key=_key)
    places = {miner: place for place, miner in enumerate(miners)}
    alike = np.zeros((len(miners), len(miners)), dtype=np.int32)
    both = np.zeros_like(alike)
    clusters: list[list[list[Miner]]] = []
    for item in items:
        texts = {miner: plain(said.text) for miner, said in item.items()}
        long = [miner for miner in item if len(texts[miner].split()) >= FEWEST_WORDS]
        at = np.array(sorted(places[miner] for miner in long), dtype=np.intp)
        if len(at) < 2:
            clusters.append([])
            continue
        both[np.ix_(at, at)] += 1
        found = _clusters({miner: item[miner].text for miner in long}, texts)
        clusters.append(found)
        for cluster in found:
            within = np.array(sorted(places[miner] for miner in cluster), dtype=np.intp)
            alike[np.ix_(within, within)] += 1
    same = (both >= LEAST_ITEMS) & (alike >= SHARE * np.maximum(both, 1))
    return tuple(
        _group(frozenset(miners[place] for place in component), items, clusters)
        for component in _components(same)
        if len(component) > 1
    )


def _group(
    members: frozenset[Miner], items: Sequence[Mapping[Miner, Said]], clusters: list[list[list[Miner]]]
) -> Group:
    first = dict.fromkeys(sorted(members, key=_key), 0)
    for item, found in zip(items, clusters, strict=True):
        for cluster in found:
            if len(inside := [miner for miner in cluster if miner in members]) > 1:
                first[min(inside, key=lambda miner: (item[miner].latency_ms, _key(miner)))] += 1
    return Group(first)


def _clusters(said: Mapping[Miner, str], texts: Mapping[Miner, str]) -> list[list[Miner]]:
    """Return the miners whose answers to one question are one, each such set of two or more."""
    by_text: defaultdict[str, list[Miner]] = defaultdict(list)
    for miner in said:
        by_text[texts[miner]].append(miner)
    distinct = sorted(by_text)
    sets = [shingles(said[by_text[text][0]]) for text in distinct]
    joined = np.eye(len(distinct), dtype=bool)
    for one, other in _candidates(sets):
        if jaccard(sets[one], sets[other]) >= LIKENESS:
            joined[one, other] = joined[other, one] = True
    found = []
    for component in _components(joined):
        members = [miner for place in component for miner in by_text[distinct[place]]]
        if len(members) > 1:
            found.append(sorted(members, key=_key))
    return found


def _candidates(sets: Sequence[frozenset[str]]) -> list[tuple[int, int]]:
    buckets: defaultdict[tuple[int, bytes], list[int]] = defaultdict(list)
    for place, held in enumerate(sets):
        hashes = np.fromiter((zlib.crc32(each.encode()) for each in held), dtype=np.int64, count=len(held))
        least = ((hashes[:, None] % _PRIME * _FACTORS + _TERMS) % _PRIME).min(axis=0)
        for band in range(_BANDS):
            buckets[band, least[band * _ROWS : (band + 1) * _ROWS].tobytes()].append(place)
    pairs = {(one, other) for bucket in buckets.values() for at, one in enumerate(bucket) for other in bucket[at + 1 :]}
    return sorted(pairs)


def _components(joined: np.ndarray) -> list[list[int]]:
    """Return the connected parts of a graph."""
    left, found = set(range(len(joined))), []
    while left:
        start = min(left)
        part, waiting = {start}, [start]
        while waiting:
            near = set(np.flatnonzero(joined[waiting.pop()]).tolist()) - part
            part |= near
            waiting.extend(near)
        left -= part
        found.append(sorted(part))
    return found


def _key(miner: Miner) -> tuple[str, int]:
    return miner.hotkey, miner.registered_block


_DRAW: Final = np.random.default_rng(20_260_101)
_FACTORS: Final = _DRAW.integers(1, _PRIME, size=_BANDS * _ROWS, dtype=np.int64)
_TERMS: Final = _DRAW.integers(0, _PRIME, size=_BANDS * _ROWS, dtype=np.int64)

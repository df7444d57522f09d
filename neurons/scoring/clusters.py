"""Which items say much the same, found by their words: who writes five wordings of a question need not say so.

Items of one cluster count as one (bettertherapy_api.gate). Those that name theirs keep it; the others are put together
where one is another's near duplicate (neurons.scoring.near_duplicates), and so on from item to item. What is the same
question in quite other words, or in another language, isn't found: name those.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final, TypeVar

import numpy as np

from neurons.scoring.items import BaseItem, Choice
from neurons.scoring.near_duplicates import FEWEST_WORDS, LIKENESS, jaccard, plain, shingles

AnItem = TypeVar("AnItem", bound=BaseItem)
FOUND: Final = "like item "
"""Before the number of a cluster's first item, counted from 1: the name of one that was found."""
_DUST: Final = 1e-9


def with_clusters(items: Sequence[AnItem]) -> tuple[AnItem, ...]:
    """Return the items, each with the cluster that it names or that was found; one that is like no other has none."""
    texts = [_said(item) for item in items]
    groups: dict[int, list[int]] = {}
    for place, group in enumerate(_grouped(texts)):
        groups.setdefault(group, []).append(place)
    clusters = [item.cluster for item in items]
    for places in groups.values():
        unnamed = [place for place in places if items[place].cluster is None]
        if len(places) == 1 or not unnamed:
            continue
        named = [cluster for place in places if (cluster := items[place].cluster) is not None]
        for place in unnamed:
            clusters[place] = named[0] if named else f"{FOUND}{unnamed[0] + 1}"
    return tuple(
        item if item.cluster == cluster else item.model_copy(update={"cluster": cluster})
        for item, cluster in zip(items, clusters, strict=True)
    )


def _said(item: BaseItem) -> str:
    """Return by what an item is known: "which of these is true?" is another question with other options."""
    return " ".join([item.question, *item.options.values()] if isinstance(item, Choice) else [item.question])


def _grouped(texts: Sequence[str]) -> Sequence[int]:
    """Return for each text the place of one that stands for its group."""
    above = list(range(len(texts)))

    def top(place: int) -> int:
        while above[place] != place:
            above[place] = above[above[place]]
            place = above[place]
        return place

    for one, other in (*_equal(texts), *_near(texts)):
        above[top(other)] = top(one)
    return [top(place) for place in range(len(texts))]


def _equal(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yield pairs of the same words, however few; of texts without a word none."""
    first: dict[str, int] = {}
    for place, text in enumerate(texts):
        if (words := plain(text)) and (known := first.setdefault(words, place)) != place:
            yield known, place


def _near(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yield all pairs whose Jaccard coefficient is LIKENESS or more, exactly.

    Two such sets share one of the rarest shingles of either (Chaudhuri, Ganti and Kaushik 2006, prefix filter), so that
    only these are looked up: what stands in all texts is not compared with all texts.
    """
    places = [place for place, text in enumerate(texts) if len(plain(text).split()) >= FEWEST_WORDS]
    sets = [shingles(texts[place]) for place in places]
    if len(sets) < 2:
        return
    often = Counter(shingle for each in sets for shingle in each)
    order = {shingle: rank for rank, shingle in enumerate(sorted(often, key=lambda name: (often[name], name)))}
    ranked = [np.sort(np.array([order[shingle] for shingle in each], dtype=np.intp)) for each in sets]
    sizes = np.array([len(each) for each in ranked], dtype=np.intp)
    # of each shingle, by its rank: the texts that hold it, one shingle's after another's
    held = np.concatenate(ranked)
    holders = np.repeat(np.arange(len(sets)), sizes)[np.argsort(held, kind="stable")]
    counts = np.bincount(held, minlength=len(order))
    ends = np.cumsum(counts)
    for one, each in enumerate(ranked):
        rare = each[: len(each) - math.ceil(LIKENESS * len(each) - _DUST) + 1]
        found = np.concatenate([holders[ends[rank] - counts[rank] : ends[rank]] for rank in rare])
        shared = np.bincount(found, minlength=len(sets))
        # Beside the rarest that both have, at the most all the others of the first one are in the other.
        most = np.minimum(np.minimum(sizes, len(each)), shared + len(each) - len(rare))
        least = LIKENESS / (1 + LIKENESS) * (sizes + len(each)) - _DUST
        for other in np.flatnonzero((shared > 0) & (most >= least)):
            if one < other and jaccard(sets[one], sets[other]) >= LIKENESS:
                yield places[one], places[other]

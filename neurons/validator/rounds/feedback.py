"""What patients think of miners: stars, shrunk toward the mean by how few they are, and comparisons. Pure.

Stars: empirical Bayes with normal groups (Efron and Morris 1975), the variance between miners by the method of moments.
Comparisons: Bradley and Terry (1952), by the MM algorithm (Hunter 2004), each miner with one win and one loss against
a miner of mean strength, so that few comparisons say little.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from neurons.ledger.records import Miner
from neurons.ledger.rounds import Felt, Pair, Rated

PRIOR_COUNT: Final = 5.0
"""Patients that a mean counts as, where too few miners are rated to tell how far these differ."""
LEAST_PRIOR, MOST_PRIOR = 1.0, 50.0
_STEPS: Final = 200
_CLOSE: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Satisfaction:
    """One miner's, 0 to 1."""

    value: float
    patients: int
    """Whose stars it is made of; each counts once, by the mean of theirs."""
    pairs: int


def satisfaction(felt: Felt) -> Mapping[Miner, Satisfaction]:
    """Return it for each miner that anything was said of; others have none, which isn't zero."""
    means = _by_patient(felt.ratings)
    stars = shrink({miner: list(of.values()) for miner, of in means.items()})
    strengths = bradley_terry(felt.pairs)
    counts: defaultdict[Miner, int] = defaultdict(int)
    for pair in felt.pairs:
        if pair.preferred != pair.rejected:
            counts[pair.preferred] += 1
            counts[pair.rejected] += 1
    found = {}
    for miner in stars.keys() | strengths.keys():
        rated, compared = len(means.get(miner, {})), counts[miner]
        said = rated * stars.get(miner, 0.0) + compared * strengths.get(miner, 0.0)
        found[miner] = Satisfaction(value=said / (rated + compared), patients=rated, pairs=compared)
    return found


def shrink(values: Mapping[Miner, list[float]]) -> dict[Miner, float]:
    """Return each miner's mean, drawn toward the mean of all by the number of its values (0 to 1 each)."""
    groups = {miner: given for miner, given in values.items() if given}
    if not groups:
        return {}
    every = [value for given in groups.values() for value in given]
    grand = math.fsum(every) / len(every)
    prior = _prior_count(groups, grand)
    return {miner: (math.fsum(given) + prior * grand) / (len(given) + prior) for miner, given in groups.items()}


def _prior_count(groups: Mapping[Miner, list[float]], grand: float) -> float:
    """Return as how many values the mean of all counts: variance within miners over that between them."""
    total, count = sum(len(given) for given in groups.values()), len(groups)
    if count < 3 or total - count < 3:
        return PRIOR_COUNT
    means = {miner: math.fsum(given) / len(given) for miner, given in groups.items()}
    within = math.fsum((value - means[miner]) ** 2 for miner, given in groups.items() for value in given)
    within /= total - count
    between = math.fsum(len(given) * (means[miner] - grand) ** 2 for miner, given in groups.items()) / (count - 1)
    usual = (total - sum(len(given) ** 2 for given in groups.values()) / total) / (count - 1)
    spread = (between - within) / usual
    if spread <= 0 or within <= 0:
        return MOST_PRIOR if spread <= 0 else LEAST_PRIOR
    return min(MOST_PRIOR, max(LEAST_PRIOR, within / spread))


def bradley_terry(pairs: Iterable[Pair]) -> dict[Miner, float]:
    """Return for each compared miner the chance that its answer is preferred to that of a miner of mean strength."""
    wins: defaultdict[Miner, float] = defaultdict(float)
    met: defaultdict[tuple[Miner, Miner], int] = defaultdict(int)
    miners: set[Miner] = set()
    for pair in pairs:
        if pair.preferred == pair.rejected:
            continue
        wins[pair.preferred] += 1
        met[_both(pair.preferred, pair.rejected)] += 1
        miners |= {pair.preferred, pair.rejected}
    opponents: defaultdict[Miner, list[tuple[Miner, int]]] = defaultdict(list)
    for (one, other), count in met.items():
        opponents[one].append((other, count))
        opponents[other].append((one, count))
    ordered = sorted(miners, key=_key)
    strength = dict.fromkeys(ordered, 1.0)
    for _ in range(_STEPS):
        moved = {}
        for miner in ordered:
            own = strength[miner]
            # the pseudo-miner of strength 1, against which each has won once and lost once
            chances = 2 / (own + 1) + math.fsum(count / (own + strength[each]) for each, count in opponents[miner])
            moved[miner] = (wins[miner] + 1) / chances
        change = max((abs(moved[each] - strength[each]) / moved[each] for each in ordered), default=0.0)
        strength = moved
        if change < _CLOSE:
            break
    return {miner: value / (1 + value) for miner, value in strength.items()}


def _by_patient(ratings: Iterable[Rated]) -> dict[Miner, dict[str, float]]:
    """Return each patient's mean for each miner, 0 to 1: who rates a hundred times counts once."""
    given: defaultdict[Miner, defaultdict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for each in ratings:
        given[each.miner][each.patient_id].append(each.stars)
    return {
        miner: {patient: (math.fsum(stars) / len(stars) - 1) / 4 for patient, stars in sorted(of.items())}
        for miner, of in given.items()
    }


def _both(one: Miner, other: Miner) -> tuple[Miner, Miner]:
    return (one, other) if _key(one) <= _key(other) else (other, one)


def _key(miner: Miner) -> tuple[str, int]:
    return miner.hotkey, miner.registered_block

"""Whose weights are these? Pure comparison of log-probabilities: the child's, its parent's, the base's, or nobody's.

A pool's base model may be quantized (FP8, int8, int4), which moves every log-probability. So the question is never how
far the loaded weights are from the recorded ones, but whose record they are likeliest to be, given how far this pool's
base model is from the base model's record at the same places.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from typing import Final

from bettertherapy_api.manifest import Fingerprint
from neurons.agent.places import Position, forced

ROUNDS: Final = (4, 12)
"""How many positions are asked at first, and when those leave a doubt; then all. Those come first at which child,
parent and base differ most. Each costs a request whose prefix is read with the adapter, which is slow on a CPU."""
FIRST_LEGACY, MOST_LEGACY = 8, 32
"""The same for fingerprints without probes: the first tokens have the shortest prefixes, so they cost least."""
_LEAST_SCALE: Final = 0.01
"""Nats: what a place of a base model of full precision is moved at least, as a scale of what is likely."""
_SHIFT_SCALE: Final = 0.5
"""How far an adapter's places are moved of their own, as a part of how far the base model's are on average."""
_SHARES: Final = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""How much of the base model's shift an adapter on it may share; measured: 0.2 to 0.9 of FP8's, int8's and int4's."""
_FADED: Final = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
"""How much of what an adapter changes a coarse base model may leave of it, for the benefit of the doubt."""
_FADES: Final = 2.0
"""How much of it a base model takes away at most, as a multiple of its own shift as a part of what the adapter changes:
full precision takes nothing, and weights that do half of what was trained are not the adapter's there."""
_SURE: Final = 6.0
"""Natural logarithm of the likelihood ratio from which on they are the child's: 1 in 400."""
_SURELY_ANOTHERS: Final = -18.0
"""The same for blaming: probes are places where the child stands out, and a coarse base model levels just those."""
_FITS_AT_FIRST: Final = 1.0
_FITS: Final = 1.5
"""Misfit a place up to which the child's record explains what was measured: of the first places, and of all."""
_STRANGE: Final = 3.0
"""Misfit a place from which on no record explains it."""
_OF_AN_UNKNOWN_BASE: Final = 0.165
"""Scale as a part of what the adapter changes, where the trainer recorded nothing of the base model."""
_BASE_NOISES: Final = 3.0


@dataclass(frozen=True)
class Recorded:
    """One place, and what the trainer's float32 made of it, in nats."""

    position: Position
    child: float
    parent: float | None = None
    base: float | None = None


@dataclass(frozen=True)
class Evidence:
    """What was recorded and what was measured in this pool, place by place."""

    recorded: Sequence[Recorded]
    loaded: Sequence[float]
    """Of the loaded adapter."""
    bare: Sequence[float]
    """Of the base model, by the same engine process."""
    noise: float
    """Mean difference of two measurements of the same thing, in nats."""
    complete: bool = True
    """Whether no more can be asked. Nobody is blamed before: a few places can all be odd ones."""


class Opinion(Enum):
    """Whose weights they are."""

    CHILD = "child"
    PARENT = "parent"
    BASE = "base"
    OTHER = "other"
    UNSURE = "unsure"


def rounds(fingerprint: Fingerprint) -> tuple[tuple[Recorded, ...], ...]:
    """Return what to ask, in the order in which to ask it; a later round only when the earlier ones leave a doubt."""
    if fingerprint.probes is None:
        places = forced(fingerprint.token_ids)[:MOST_LEGACY]
        legacy = [Recorded(place, value) for place, value in zip(places, fingerprint.logprobs, strict=False)]
        return tuple(part for part in (tuple(legacy[:FIRST_LEGACY]), tuple(legacy[FIRST_LEGACY:])) if part)
    entries = [
        Recorded(place, probe.child[i], None if probe.parent is None else probe.parent[i], probe.base[i])
        for probe in fingerprint.probes
        for i, place in enumerate(forced(probe.token_ids, start=probe.start))
    ]
    entries.sort(key=_margin, reverse=True)
    bounds = (0, *ROUNDS, len(entries))
    return tuple(part for begin, end in pairwise(bounds) if (part := tuple(entries[begin:end])))


def judge(evidence: Evidence) -> Opinion:
    """Return whose weights they are; UNSURE asks for more places, and is the last word when there are none.

    Each record is moved as this pool's base model is moved, as far as fits it best. Misfits are those of Student's t
    with 4 degrees of freedom, so that one odd place decides nothing. `python -m tests.bench.fingerprint_verdicts`
    says what the bounds do to measured pairs.
    """
    entries, loaded, bare = evidence.recorded, evidence.loaded, evidence.bare
    count = len(entries)
    bases = [plain if e.base is None else e.base for e, plain in zip(entries, bare, strict=True)]
    shifts = [plain - base for plain, base in zip(bare, bases, strict=True)]
    children = [e.child for e in entries]
    scale = max(evidence.noise, _LEAST_SCALE + _SHIFT_SCALE * sum(map(abs, shifts)) / count)
    if all(e.base is None for e in entries):
        scale = max(scale, _OF_AN_UNKNOWN_BASE * mean_difference(children, bare))

    def misfit(record: Sequence[float], shares: Sequence[float] = _SHARES, faded: Sequence[float] = (1.0,)) -> float:
        return min(
            sum(
                _unlikely((said - (base + left * (value - base) + share * shift)) / scale)
                for said, value, base, shift in zip(loaded, record, bases, shifts, strict=True)
            )
            for share in shares
            for left in faded
        )

    own, base = misfit(children), misfit(bare, shares=(0.0,))
    parents = [e.parent for e in entries if e.parent is not None]
    known = len(parents) == count
    parent = misfit(parents) if known else math.inf
    if min(base, parent) - own > _SURE and own / count <= (_FITS if count > ROUNDS[-1] else _FITS_AT_FIRST):
        return Opinion.CHILD
    if base - own < -_SURE and mean_difference(bare, loaded) <= _BASE_NOISES * evidence.noise:
        return Opinion.BASE
    if not evidence.complete:
        return Opinion.UNSURE
    shift = max(evidence.noise, sum(map(abs, shifts)) / count)
    least = 1.0 - _FADES * shift / max(mean_difference(children, bases), shift)
    faded = misfit(children, faded=[left for left in _FADED if left >= least])
    if min(faded, base, parent) / count > _STRANGE:
        return Opinion.OTHER
    likelier = Opinion.PARENT if known and parent - faded < _SURELY_ANOTHERS else Opinion.BASE
    return likelier if min(base, parent) - faded < _SURELY_ANOTHERS else Opinion.UNSURE


def _unlikely(distance: float) -> float:
    """Return minus the logarithm of Student's t density (4 degrees of freedom) at so many scales, less its height."""
    return 2.5 * math.log1p(min(abs(distance), 1e6) ** 2 / 4)


def leaning(recorded: Sequence[Recorded], loaded: Sequence[float], bare: Sequence[float]) -> float:
    """Return how far answers go from the base model's towards the record: 0 is none of the way, 1 all of it.

    Rounding goes every way, so over many places it takes nothing towards the record, however coarse it is.
    """
    ways = [e.child - (plain if e.base is None else e.base) for e, plain in zip(recorded, bare, strict=True)]
    length = math.fsum(way * way for way in ways)
    gone = math.fsum((said - plain) * way for said, plain, way in zip(loaded, bare, ways, strict=True))
    return gone / length if length else 0.0


def mean_difference(expected: Sequence[float], actual: Sequence[float]) -> float:
    """Return the mean absolute difference in nats; infinite when lengths differ or a value is no number.

    Infinite log-probabilities count as 100 nats: the right weights never call a text of theirs impossible.
    """
    if len(expected) != len(actual) or not expected:
        return math.inf
    total = 0.0
    for a, b in zip(expected, actual, strict=True):
        if math.isnan(a) or math.isnan(b):
            return math.inf
        total += min(abs(a - b), 100.0)
    return total / len(expected)


def _margin(entry: Recorded) -> float:
    rivals = [value for value in (entry.parent, entry.base) if value is not None]
    return min((entry.child - value for value in rivals), default=0.0)

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
from typing import Final

from bettertherapy_api.manifest import Fingerprint
from neurons.agent.places import Position, forced

FIRST_PROBES: Final = 12
"""Positions asked first, those at which child, parent and base differ most; the rest only when they leave a doubt."""
FIRST_LEGACY, MOST_LEGACY = 8, 32
"""The same for fingerprints without probes: the first tokens have the shortest prefixes, so they cost least."""
_SHARED: Final = 0.5
"""How much of the base model's shift at a place an adapter on it shares."""
_LEAST_SCALE: Final = 0.03
"""Nats: what bfloat16 adds to float32."""
_SURE: Final = 6.0
"""Natural logarithm of the likelihood ratio from which on there is no doubt: 1 in 400."""
_SHIFT_SCALE: Final = 0.5
"""How far an adapter's places are moved on average, as a part of how far the base model's are."""
_UNLIKE_SCALES: Final = 3.0
_UNLIKE: Final = 0.5
"""Misfit, as a part of what the adapter changes, from which on the weights are nobody's that we know."""


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
    return tuple(part for part in (tuple(entries[:FIRST_PROBES]), tuple(entries[FIRST_PROBES:])) if part)


def judge(evidence: Evidence) -> Opinion:
    """Return whose weights they are; UNSURE asks for more places."""
    entries, loaded, bare = evidence.recorded, evidence.loaded, evidence.bare
    count = len(entries)
    shifts = [0.0 if e.base is None else plain - e.base for e, plain in zip(entries, bare, strict=True)]
    scale = max(_LEAST_SCALE, evidence.noise, _SHIFT_SCALE * sum(map(abs, shifts)) / count)

    def misfit(values: Sequence[float]) -> float:
        return sum(min(abs(a - b), 100.0) for a, b in zip(values, loaded, strict=True))

    own = misfit([e.child + _SHARED * shift for e, shift in zip(entries, shifts, strict=True)])
    rivals = {Opinion.BASE: misfit(bare)}
    parents = [e.parent for e in entries if e.parent is not None]
    if len(parents) == count:
        rivals[Opinion.PARENT] = misfit([p + _SHARED * shift for p, shift in zip(parents, shifts, strict=True)])
    rival = min(rivals, key=lambda one: rivals[one])
    effect = sum(abs(e.child - plain) for e, plain in zip(entries, bare, strict=True)) / count
    likely = min(own, rivals[rival])
    if likely / count > max(_UNLIKE * effect, _UNLIKE_SCALES * scale):
        return Opinion.OTHER
    ratio = (rivals[rival] - own) / scale
    if abs(ratio) < _SURE:
        return Opinion.UNSURE
    return Opinion.CHILD if ratio > 0 else rival


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

"""Whether an answer came from the weights that its receipt names: their log-probabilities, recomputed here. Pure.

The test is Wald's sequential one (1945) between "drawn from the announced adapter" and "drawn from the base model
without it": the sum of the tokens' log-likelihood ratios. By Ville's inequality an honest miner is blamed, however
often one looks, with the chance 1 in BLAMED at most. What neither explains stays unknown, and blames nobody.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

BLAMED: Final = 10_000
CLEARED: Final = 20
LEAST_TOKENS: Final = 16
MOST_SHIFT: Final = 6.0
"""Nats that one token may speak for or against: one odd token of a quantized engine decides nothing."""


class Weights(enum.StrEnum):
    """Whose weights gave a miner's answers."""

    ANNOUNCED = "Announced"
    OTHERS = "Others"
    UNKNOWN = "Unknown"
    """Too few tokens, or none that tells the two apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The log-probabilities of one answer's tokens in nats, under the announced weights and under the base model's."""

    announced: Sequence[float]
    base: Sequence[float]


@dataclass(frozen=True, slots=True)
class Found:
    """What came of a miner's sample."""

    weights: Weights
    tokens: int
    nats: float
    """The evidence for the announced weights; below zero it speaks against them."""


class Likelihoods(Protocol):
    """An engine of the validator's own, with the twin's adapters out of the store."""

    async def measure(self, *, twin: str, adapter: str, messages: Sequence[Any], answer: str) -> Measured | None:
        """Return the answer's log-probabilities; None where they can't be had, which blames nobody."""


def judge_weights(sample: Iterable[Measured]) -> Found:
    """Return whose weights a miner's answers came from, by a sample of them."""
    tokens, nats, lowest = 0, 0.0, 0.0
    for each in sample:
        for announced, base in zip(each.announced, each.base, strict=True):
            if not (math.isfinite(announced) and math.isfinite(base)):
                continue
            tokens += 1
            nats += min(MOST_SHIFT, max(-MOST_SHIFT, announced - base))
            lowest = min(lowest, nats)
    if tokens < LEAST_TOKENS:
        return Found(Weights.UNKNOWN, tokens, nats)
    if lowest <= -math.log(BLAMED) and nats < 0:
        return Found(Weights.OTHERS, tokens, nats)
    if nats >= math.log(CLEARED):
        return Found(Weights.ANNOUNCED, tokens, nats)
    return Found(Weights.UNKNOWN, tokens, nats)

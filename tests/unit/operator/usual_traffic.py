"""A twin's traffic, simulated: more by day than by night, slower when there is more, with bursts that slow all."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

from bettertherapy_api.metrics import miner
from twin_operator.domain.baseline import WINDOW_SECONDS, Counted

BOUNDS = (*miner.REQUEST_SECONDS.buckets, math.inf)
DAY = 86400 // WINDOW_SECONDS
RATED = 0.1
"""Of the answers."""
USUAL = (4, 6, 15, 35, 40)
"""Percent of ratings from 1 to 5."""
LOW = (25, 30, 25, 15, 5)


@dataclass(kw_only=True)
class Traffic:
    """Windows of one version. `times_slower` and `ratings` may be changed on the way."""

    seed: int
    requests: float = 10.0
    """A window, on average over a day."""
    median_seconds: float = 2.0
    spread: float = 0.6
    """Of the logarithm of an answer's seconds."""
    slower_by_day: float = 1.3
    bursts: float = 0.05
    times_slower: float = 1.0
    ratings: tuple[int, ...] = USUAL

    def windows(self, count: int) -> Iterator[Counted]:
        """Yield what ended in each window."""
        chance = random.Random(self.seed)
        begins = chance.randrange(DAY)
        for number in range(begins, begins + count):
            day = (1 + math.sin(2 * math.pi * number / DAY)) / 2
            median = self.median_seconds * self.times_slower * (1 + (self.slower_by_day - 1) * day)
            if chance.random() < self.bursts:
                median *= 3
            yield self._window(chance, self.requests * (0.2 + 1.6 * day), median)

    def _window(self, chance: random.Random, requests: float, median: float) -> Counted:
        seconds = [chance.lognormvariate(math.log(median), self.spread) for _ in range(_poisson(chance, requests))]
        rated = [chance.choices(range(1, 6), self.ratings)[0] for _ in seconds if chance.random() < RATED]
        return Counted(
            seconds={bound: float(sum(each <= bound for each in seconds)) for bound in BOUNDS} if seconds else {},
            ratings={rating: float(rated.count(rating)) for rating in set(rated)},
        )


def _poisson(chance: random.Random, mean: float) -> int:
    limit, count, product = math.exp(-mean), 0, chance.random()
    while product >= limit:
        count, product = count + 1, product * chance.random()
    return count

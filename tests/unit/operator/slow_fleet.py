"""Engines, simulated: requests come at random, batches slow them down, Prometheus scrapes four times a window."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from twin_operator.domain.slow_replicas import WINDOW_SECONDS, Pace, Standing, judge, ratios, slow_of

STEP_SECONDS = 2.0
SCRAPE_SECONDS = 30.0
LOAD_FACTOR, MIN_SHARE = 1.25, 4
"""As in neurons.miner.selection."""


@dataclass(kw_only=True)
class Fleet:
    """`requests_per_second`: of each pod; `growth`: by how much a token slows down with each doubled batch."""

    seed: int
    pods: int
    requests_per_second: float
    growth: float = 0.5
    tokens: float = 150.0
    seconds_per_token: float = 0.05
    slow: int | None = None
    factor: float = 1.0

    def windows(self, count: int) -> Iterator[tuple[Mapping[str, Pace], Mapping[str, Standing], datetime]]:
        """Yield what was seen of each pod and what is then thought of it, window by window."""
        chance, now = random.Random(self.seed), datetime(2026, 1, 1, tzinfo=UTC)
        running: list[list[float]] = [[] for _ in range(self.pods)]
        offsets = [chance.uniform(0, SCRAPE_SECONDS) for _ in range(self.pods)]
        memory: Mapping[str, Standing] = {}
        for _ in range(count):
            scraped: list[list[int]] = [[] for _ in range(self.pods)]
            tokens = [0.0] * self.pods
            for step in range(round(WINDOW_SECONDS / STEP_SECONDS)):
                for _ in range(_poisson(chance, self.requests_per_second * self.pods * STEP_SECONDS)):
                    running[self._choose(chance, running)].append(chance.expovariate(1 / self.tokens))
                for pod, batch in enumerate(running):
                    written = STEP_SECONDS / self._token_seconds(pod, len(batch))
                    tokens[pod] += sum(min(written, rest) for rest in batch)
                    running[pod] = [rest - written for rest in batch if rest > written]
                    if (step * STEP_SECONDS - offsets[pod]) % SCRAPE_SECONDS < STEP_SECONDS:
                        scraped[pod].append(len(running[pod]))
            seen = {
                str(pod): Pace(running=sum(scraped[pod]) / len(scraped[pod]), tokens=tokens[pod])
                for pod in range(self.pods)
            }
            now += timedelta(seconds=WINDOW_SECONDS)
            memory = judge(memory, seen, pods=[str(pod) for pod in range(self.pods)], now=now)
            yield seen, memory, now

    def alarms(self, count: int) -> tuple[int, int]:
        """Return how many windows were compared, over all pods, and how many alarms there were."""
        compared, alarms, before = 0, 0, frozenset[str]()
        for seen, memory, _ in self.windows(count):
            compared += len(ratios(seen))
            found = frozenset(each.uid for each in slow_of(memory))
            alarms += len(found - before)
            before = found
        return compared, alarms

    def _token_seconds(self, pod: int, batch: int) -> float:
        slower = self.factor if pod == self.slow else 1.0
        return self.seconds_per_token * slower * (1 + self.growth * math.log2(1 + batch / 8))

    def _choose(self, chance: random.Random, running: list[list[float]]) -> int:
        preferred = chance.randrange(self.pods)
        share = max(MIN_SHARE, math.ceil((sum(map(len, running)) + 1) / self.pods * LOAD_FACTOR))
        if len(running[preferred]) < share:
            return preferred
        return min(range(self.pods), key=lambda pod: len(running[pod]))


def _poisson(chance: random.Random, mean: float) -> int:
    limit, count, product = math.exp(-mean), 0, chance.random()
    while product >= limit:
        count, product = count + 1, product * chance.random()
    return count

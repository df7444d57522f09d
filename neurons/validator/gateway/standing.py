"""What a miner has earned here: how much it is asked at once, and how good its answers were.

Kept by hotkey and registration block, so that nobody inherits another's. In memory: after a restart all begin anew.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final, NamedTuple

FIRST_CAPACITY: Final = 4.0
MOST_CAPACITY: Final = 256.0
FIRST_REST_SECONDS: Final = 1.0
LONGEST_REST_SECONDS: Final = 60.0
FAILURES_UNTIL_REST: Final = 2
PRIOR_STARS: Final = 5.0
"""Ratings of 3 stars that each miner is given on its way, so that one rating doesn't decide."""
_SLOW: Final = 0.05
"""Weight of the newest in a moving average."""


class MinerId(NamedTuple):
    """Who a miner is."""

    hotkey: str
    registered_at: int
    """Block of its registration."""


@dataclass(slots=True)
class Standing:
    """One miner's. Times in seconds of a monotonic clock."""

    capacity: float = FIRST_CAPACITY
    """Questions that it is asked at once, at most."""
    in_flight: int = 0
    asked: int = 0
    reliability: float = 1.0
    """Share of its answers that came and could be used, the newest counting most."""
    wins: float = 0.5
    """How often its answers were ranked above others', the newest counting most."""
    seconds: float | None = None
    """How long its answers took, the newest counting most."""
    failures: int = 0
    """In a row."""
    rests_until: float = 0.0
    stars: int = 0
    ratings: int = 0

    def has_room(self) -> bool:
        """Tell whether it may be asked one more question."""
        return self.in_flight < int(self.capacity)

    def rests(self, now: float) -> bool:
        """Tell whether it is left alone after failures."""
        return now < self.rests_until

    def answered(self, seconds: float) -> None:
        """Count an answer that can be used: about one more at once for each round of as many as now."""
        self.capacity = min(MOST_CAPACITY, self.capacity + 1 / self.capacity)
        self.reliability += _SLOW * (1 - self.reliability)
        self.seconds = seconds if self.seconds is None else self.seconds + _SLOW * (seconds - self.seconds)
        self.failures = 0

    def failed(self, now: float, *, weight: int = 1) -> None:
        """Count a failure; one that can't be an accident has more weight."""
        self.capacity = max(1.0, self.capacity / 2)
        self.reliability -= min(1.0, _SLOW * weight) * self.reliability
        self.failures += weight
        if self.failures >= FAILURES_UNTIL_REST:
            rest = FIRST_REST_SECONDS * 2.0 ** min(self.failures - FAILURES_UNTIL_REST, 10)
            self.rests_until = now + min(LONGEST_REST_SECONDS, rest)

    def slow(self) -> None:
        """Count an answer that others didn't wait for: it is asked less, and not left alone."""
        self.capacity = max(1.0, self.capacity * 0.75)

    def busy(self, now: float, seconds: float) -> None:
        """It said that it has too much to do."""
        self.capacity = max(1.0, self.capacity / 2)
        self.rests_until = max(self.rests_until, now + min(LONGEST_REST_SECONDS, seconds))

    def ranked(self, share_below: float) -> None:
        """Count a comparison: which share of the others' answers stood below its own."""
        self.wins += _SLOW * (share_below - self.wins)

    def rated(self, stars: int) -> None:
        """Count a patient's rating."""
        self.stars += stars
        self.ratings += 1

    @property
    def satisfaction(self) -> float:
        """Mean of its ratings as 0..1, shrunk toward the middle."""
        return ((self.stars + 3 * PRIOR_STARS) / (self.ratings + PRIOR_STARS) - 1) / 4

    @property
    def weight(self) -> float:
        """How readily it is chosen; above 0."""
        return max(0.01, (self.wins + self.satisfaction) * self.reliability**2)


@dataclass(slots=True)
class Standings:
    """All miners'."""

    of: dict[MinerId, Standing] = field(default_factory=dict)

    def get(self, miner: MinerId) -> Standing:
        """Return a miner's, new for one that wasn't known."""
        found = self.of.get(miner)
        if found is None:
            found = self.of[miner] = Standing()
        return found

    def keep(self, miners: Collection[MinerId]) -> None:
        """Forget all others, but for those that are answering."""
        for gone in [miner for miner, standing in self.of.items() if miner not in miners and not standing.in_flight]:
            del self.of[gone]

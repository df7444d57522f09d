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
_LENT_PART: Final = 8
"""So many times smaller than its capacity is what lies beyond it, for clients below their share."""
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
    """Questions that it is asked at once, at most; and some more, of those who have less than their share of them."""
    in_flight: int = 0
    running: dict[str, int] = field(default_factory=dict)
    """Questions that it is asked now, by whose they are."""
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

    def has_room(self, whose: str = "") -> bool:
        """Tell whether it may be asked one more question of this client's.

        At the limit whoever has less than its share still gets in, so that one who floods keeps nobody else away.
        """
        capacity = int(self.capacity)
        if self.in_flight < capacity:
            return True
        if self.in_flight >= capacity + max(1, capacity // _LENT_PART):
            return False
        own = self.running.get(whose, 0)
        return own < max(1, capacity // (len(self.running) + (not own)))

    def begin(self, whose: str) -> None:
        """It is asked a question of this client's."""
        self.asked += 1
        self.in_flight += 1
        self.running[whose] = self.running.get(whose, 0) + 1

    def end(self, whose: str) -> None:
        """That question is over."""
        self.in_flight -= 1
        left = self.running[whose] - 1
        if left:
            self.running[whose] = left
        else:
            del self.running[whose]

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

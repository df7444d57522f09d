"""Whether a version learned what it was given, from counts: how many of the answers became likelier, and by how much.

Who did not train on the answers makes each of them likelier or less likely by chance alike, so that most of them rise
is as rare as the sign test says. Whoever has the counts can compute it again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

FEWEST_LESSONS: Final = 5
"""Of fewer nothing is said: all of four rise by chance in one of sixteen."""
LEAST_GAIN: Final = 0.005
"""Of what the lessons' answers take in nats, so much less: single precision changes it by a ten-thousandth."""
LEARNING_ERROR: Final = 0.05
"""One-sided, of the sign test over the lessons."""


@dataclass(frozen=True, slots=True)
class Learning:
    """What became of the answers that a version was given to learn."""

    lessons: int
    """Answers that were measured."""
    likelier: int
    """Of those, so many are likelier than they were to the version that it began from."""
    gain: float
    """By so much, as a share of what all of them took in nats; what is no number shows nothing."""

    @property
    def can_be_told(self) -> bool:
        """Whether there are answers enough to say anything."""
        return self.lessons >= FEWEST_LESSONS

    @property
    def is_shown(self) -> bool:
        """Whether it is shown that they were learned."""
        return self.can_be_told and self.gain >= LEAST_GAIN and self._by_chance() <= LEARNING_ERROR

    def told(self) -> str:
        """Return the counts as a clause."""
        return (
            f"of {self.lessons} answers that it was given to learn {self.likelier} are likelier than they were to the "
            f"version that it began from, by {100 * self.gain:.2f}% of their surprise over all"
        )

    def _by_chance(self) -> float:
        """Return how likely at least so many rise where each rises or falls alike."""
        ways = sum(math.comb(self.lessons, count) for count in range(self.likelier, self.lessons + 1))
        return float(ways / 2**self.lessons)

"""Whether a version learned what it was given, from counts: how many of the answers became likelier, and by how much.

Who changed the parent by chance makes each of them likelier or less likely alike, so that most of them rise is as rare
as the sign test says. That is not enough to be credited: a parent that is scaled down by a tenth makes all that its
doctor may say likelier (measured), and so does what was learned of another day. So the answers that were given must
have gained more than answers of the same doctor that were not (Mann and Whitney 1947). Whoever has the counts can
compute it again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

FEWEST_LESSONS: Final = 5
"""Of fewer nothing is said: all of four rise by chance in one of sixteen."""
LEAST_GAIN: Final = 0.005
"""Of what the lessons' answers take in nats, so much less: single precision changes it by a ten-thousandth."""
FEWEST_CONTROLS: Final = 5
LEARNING_ERROR: Final = 0.05
"""One-sided, of the sign test over the lessons, and of the comparison with the controls."""


@dataclass(frozen=True, slots=True)
class Learning:
    """What became of the answers that a version was given to learn."""

    lessons: int
    """Answers that were measured."""
    likelier: int
    """Of those, so many are likelier than they were to the version that it began from."""
    gain: float
    """By so much, as a share of what all of them took in nats; what is no number shows nothing."""
    controls: int = 0
    """Answers of the same doctor that were measured and not given."""
    ahead: int = 0
    """Of the pairs of a lesson and a control, in so many the lesson gained more, as a share of what it took."""

    @property
    def can_be_told(self) -> bool:
        """Whether there are answers enough to say anything."""
        return self.lessons >= FEWEST_LESSONS

    @property
    def is_shown(self) -> bool:
        """Whether it is shown that they were learned."""
        return self.can_be_told and self.gain >= LEAST_GAIN and self._by_chance() <= LEARNING_ERROR

    @property
    def is_of_its_lessons(self) -> bool:
        """Whether it is shown that what was given gained more than what wasn't: not the doctor's manner alone."""
        pairs = self.lessons * self.controls
        if not self.is_shown or self.controls < FEWEST_CONTROLS:
            return False
        spread = math.sqrt(pairs * (self.lessons + self.controls + 1) / 12)
        return (self.ahead - pairs / 2 - 0.5) / spread >= NormalDist().inv_cdf(1 - LEARNING_ERROR)

    def told_beside(self) -> str:
        """Return how the lessons stand beside the controls, as a clause."""
        if not self.controls:
            return "there are no answers of the doctor's that it was not given"
        share = 100 * self.ahead / max(1, self.lessons * self.controls)
        return (
            f"an answer that it was given gained more than one of {self.controls} that it was not in {share:.0f}% of "
            "the pairs"
        )

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

"""Growing pauses between attempts, with jitter so that a hundred pods don't come back in one instant."""

from __future__ import annotations

import random
from dataclasses import dataclass, field


@dataclass
class Backoff:
    """`next()` gives the seconds to wait now: doubling from `first` to `most`, each drawn from its upper half."""

    first: float = 0.2
    most: float = 10.0
    attempts: int = field(default=0, init=False)

    def next(self) -> float:
        """Return the next pause in seconds."""
        ceiling = min(self.most, self.first * 2.0 ** min(self.attempts, 30))
        self.attempts += 1
        return ceiling * random.uniform(0.5, 1.0)  # noqa: S311 - jitter is no secret

    def reset(self) -> None:
        """Start over after a success."""
        self.attempts = 0

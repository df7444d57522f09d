"""A limit on what runs at once, shared by several: at the limit, whoever is below its fair share still gets in."""

from __future__ import annotations

from typing import Final

_RESERVE_PART: Final = 8
"""So many times smaller than the limit is what lies beyond it, for those below their share."""


class Shares:
    """Counts what runs, by whose it is. Each call takes the same time, however many share.

    Below the limit anybody gets in, so that one alone may use all of it. At the limit the fair share is the limit
    divided among those that run something. What is beyond the limit is lent to those below it, and whoever is above
    it gets in no more until what it has too much of has ended: the shares become fair by themselves.

    What is lent may all be lent to a few that came together. So each of those that may share has some places of its own
    besides: as much as is lent, divided among all of them, and one at least.
    """

    def __init__(self, most: int) -> None:
        self.resize(most)
        self._running: dict[str, int] = {}
        self.total = 0
        """How many run."""

    def admits(self, whose: str, *, of: int) -> bool:
        """Tell whether one more of this one may run now; `of` is how many may share, whether they run anything or not.

        Whoever asks under names that it makes up has places for each: let only known ones be asked for.
        """
        if self.total < self._most:
            return True
        running = self._running.get(whose, 0)
        if running < min(self._reserve, max(1, self._reserve // max(1, of))):
            return True
        if self.total >= self._most + self._reserve:
            return False
        sharers = len(self._running) + (not running)
        return running < max(1, self._most // sharers)

    def resize(self, most: int) -> None:
        """Have another limit from now on; what runs goes on."""
        self._most = most
        self._reserve = -(-most // _RESERVE_PART)

    def running(self, whose: str) -> int:
        """Return how many of this one run."""
        return self._running.get(whose, 0)

    def begin(self, whose: str) -> None:
        """Count one."""
        self._running[whose] = self._running.get(whose, 0) + 1
        self.total += 1

    def end(self, whose: str) -> None:
        """Count it no longer."""
        self.total -= 1
        left = self._running[whose] - 1
        if left:
            self._running[whose] = left
        else:
            del self._running[whose]

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
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._beyond = most + -(-most // _RESERVE_PART)
        self._running: dict[str, int] = {}
        self.total = 0
        """How many run."""

    def admits(self, whose: str) -> bool:
        """Tell whether one more of this one may run now."""
        if self.total < self._most:
            return True
        if self.total >= self._beyond:
            return False
        running = self._running.get(whose, 0)
        sharers = len(self._running) + (not running)
        return running < max(1, self._most // sharers)

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

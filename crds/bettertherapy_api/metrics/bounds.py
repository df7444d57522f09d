"""How many twins and versions have series of their own in one process; what comes later counts as `_other`.

First come, first served, until a version leaves the routing: whoever has series keeps them, because a counter that is
dropped and begins anew would be read as a fall. Sums over all twins stay right, whoever is told apart.
"""

from __future__ import annotations

from typing import Final

MOST_VERSIONS: Final = 2000
"""Of a miner: some 40 series each, so 80,000; a thousand twins, each with the version before."""
MOST_TRIED: Final = 250
"""Versions beyond it that a canary compares: nothing else may judge them."""
MOST_TWINS: Final = 2000
"""Of a gateway: some 20 series each."""
MOST_RATED: Final = 2000
"""Pairs of twin and version that a gateway counts ratings of: at most 5 series each."""


class Bound:
    """Which keys have series of their own."""

    def __init__(self, most: int, *, reserved: int = 0) -> None:
        """`reserved`: so many more, for keys that matter more than others."""
        self._most, self._reserved = most, reserved
        self._own: set[tuple[str, ...]] = set()

    def admits(self, *key: str, preferred: bool = False) -> bool:
        """Tell whether the key has series of its own; it gets them if there is room."""
        if key in self._own:
            return True
        if len(self._own) >= self._most + (self._reserved if preferred else 0):
            return False
        self._own.add(key)
        return True

    def forget(self, *key: str) -> None:
        """Make room: the key has no series any more."""
        self._own.discard(key)

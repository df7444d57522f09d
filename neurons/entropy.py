"""Random bytes of the system's, fetched for many at once.

To fetch some lets go of Python's lock, and whoever answers questions waits each time until other threads give it back.
"""

from __future__ import annotations

import os
from collections import deque
from typing import Final

SIZE: Final = 16
_AT_ONCE: Final = 256
_LEFT: Final[deque[bytes]] = deque()
os.register_at_fork(after_in_child=_LEFT.clear)  # else both would go on by the same


def random_bytes() -> bytes:
    """Return 16 random bytes that nobody else gets, good for secrets; any thread may ask."""
    while True:
        try:
            return _LEFT.pop()
        except IndexError:
            fetched = os.urandom(SIZE * _AT_ONCE)
            _LEFT.extend(fetched[start : start + SIZE] for start in range(0, len(fetched), SIZE))

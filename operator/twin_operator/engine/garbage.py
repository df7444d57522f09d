"""Keeps Python's garbage collector from stopping everything: it looks for cycles, and what the store holds has none.

A full collection walks all that is alive: 0.1 s with a thousand twins, a second with ten thousand, and under load one
came every few seconds; rollbacks waited for it. What is dropped is freed at once all the same, by its reference count.
"""

from __future__ import annotations

import gc
from typing import Final

WHOLE_EVERY: Final = 6
"""Of so many times that things are set aside, all that is alive is looked at once."""
_THRESHOLDS: Final = (10_000, 20, 50)
"""New objects before a young collection, young ones before a middle one, middle ones before a full one."""


def collect_seldom() -> None:
    """Collect less often than Python does by itself. Called once, at the start."""
    gc.set_threshold(*_THRESHOLDS)


def set_aside(*, whole: bool = False) -> None:
    """Look once for cycles in what is new since the last call, and no more at what is alive now until one is `whole`.

    What was under way at a call may have become a cycle since, and would stay: a request that broke off, with its text.
    """
    if whole:
        gc.unfreeze()
    gc.collect()
    gc.freeze()

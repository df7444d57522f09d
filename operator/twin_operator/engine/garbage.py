"""Keeps Python's garbage collector from stopping everything: it looks for cycles, and what the store holds has none.

A full collection walks all that is alive: 0.1 s with a thousand twins, a second with ten thousand, and under load one
came every few seconds; rollbacks waited for it. What is dropped is freed at once all the same, by its reference count.
"""

from __future__ import annotations

import gc
from typing import Final

_THRESHOLDS: Final = (10_000, 20, 50)
"""New objects before a young collection, young ones before a middle one, middle ones before a full one."""


def collect_seldom() -> None:
    """Collect less often than Python does by itself. Called once, at the start."""
    gc.set_threshold(*_THRESHOLDS)


def set_aside() -> None:
    """Look once for cycles in what is new since the last call, and never again at what is alive now."""
    gc.collect()
    gc.freeze()

"""Keeps Python's garbage collector from stopping everything: it looks for cycles, and what the store holds has none.

A full collection walks all that is alive: 0.1 s with a thousand twins, a second with ten thousand, and under load one
came every few seconds; rollbacks waited for it. What is dropped is freed at once all the same, by its reference count.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping
from typing import Final

WHOLE_EVERY: Final = 6
"""Of so many times that things are set aside, all that is alive is looked at once."""
_FULL: Final = 2
"""Generation of a full collection."""
_THRESHOLDS: Final = (10_000, 20, 50)
"""New objects before a young collection, young ones before a middle one, middle ones before a full one."""


def collect_seldom() -> None:
    """Collect less often than Python does by itself, and nothing twice. Called once, at the start."""
    gc.set_threshold(*_THRESHOLDS)
    if _after_collection not in gc.callbacks:
        gc.callbacks.append(_after_collection)


def _after_collection(phase: str, info: Mapping[str, int]) -> None:
    """Set aside what a full collection has left: a thousand twins that were made since would be walked by each."""
    if phase == "stop" and info["generation"] == _FULL:
        gc.freeze()


def set_aside(*, whole: bool = False) -> None:
    """Look once for cycles in what is new since the last call, and no more at what is alive now until one is `whole`.

    What was under way at a call may have become a cycle since, and would stay: a request that broke off, with its text.
    """
    if whole:
        gc.unfreeze()
    gc.collect()
    gc.freeze()

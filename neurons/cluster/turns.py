"""Long work on the loop, written as steps: all at once, or with the loop's other work in between."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from typing import Final, TypeAlias, TypeVar

T = TypeVar("T")

Steps: TypeAlias = Generator[None, None, T]
"""Yields after each step, which is short by itself, and returns what came of them all."""
TURN_SECONDS: Final = 0.005
"""Steps follow one another for so long before others have their turn."""


def at_once(steps: Steps[T]) -> T:
    """Take all steps."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result


async def in_turns(steps: Steps[T]) -> T:
    """Take all steps, and let whatever else waits for the loop run every few milliseconds."""
    began = time.monotonic()
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
        if time.monotonic() - began >= TURN_SECONDS:
            await asyncio.sleep(0)
            began = time.monotonic()

"""A clock that jumps to what comes next, so that minutes of the operator's life are played in milliseconds.

Only for what waits on nothing outside the process: an API server in memory, no sockets.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Final, TypeVar
from unittest import mock

Result = TypeVar("Result")

BEGINNING: Final = datetime(2026, 1, 2, 3, 0, tzinfo=UTC)
_CLOCKED: Final = (
    "twin_operator.engine.reconcile", "twin_operator.engine.queue", "twin_operator.engine.events",
    "twin_operator.kinds.miner_pool.reconcile", "twin_operator.kinds.finetune_run.reconcile",
)  # fmt: skip
"""Modules of the operator that ask for the time on their own."""


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop in which time stands still while something is ready, and jumps when nothing is."""

    def __init__(self) -> None:
        self._now = 0.0
        super().__init__()

    def time(self) -> float:
        """Return the seconds played so far."""
        return self._now

    def _run_once(self) -> None:
        if not self._ready:  # type: ignore[attr-defined]
            waiting = [timer.when() for timer in self._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]
            if not waiting:
                raise AssertionError("nothing will ever happen: everybody waits for somebody else")
            self._now = max(self._now, min(waiting))
        super()._run_once()  # type: ignore[misc]


class PlayedDatetime(datetime):
    """Tells the running loop's time."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
        """Return the time that was played."""
        return (BEGINNING + timedelta(seconds=asyncio.get_running_loop().time())).astimezone(tz)


def play(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Run it in time that jumps."""
    with _clocks(), asyncio.Runner(loop_factory=JumpingLoop) as runner:
        return runner.run(coroutine)


@contextlib.contextmanager
def _clocks() -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for module in _CLOCKED:
            stack.enter_context(mock.patch(f"{module}.datetime", PlayedDatetime))
        yield

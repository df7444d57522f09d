"""SIGTERM: a pod that is evicted, preempted or out of time has some seconds to leave in good order."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn


class Terminated(BaseException):
    """Raised where the process is when it is told to end; no `except Exception` on the way takes it for a fault."""


class Termination:
    """`install()` once; then SIGTERM raises Terminated, except within `deferred()`, where `requested` says so."""

    def __init__(self) -> None:
        self.requested = False
        self._deferred = False

    def install(self) -> None:
        """Listen to SIGTERM; in the main thread only."""
        signal.signal(signal.SIGTERM, lambda _number, _frame: self.request())

    def request(self) -> None:
        """Ask the process to end, as SIGTERM does."""
        self.requested = True
        if not self._deferred:
            raise Terminated

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Let what is inside finish its step and look at `requested` itself."""
        with self._set(deferred=True):
            yield

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Within `deferred()`: let what is inside be ended anywhere."""
        with self._set(deferred=False):
            yield

    @contextmanager
    def _set(self, *, deferred: bool) -> Iterator[None]:
        before, self._deferred = self._deferred, deferred
        try:
            if self.requested:
                raise Terminated
            yield
        finally:
            self._deferred = before


def leave(status: int) -> NoReturn:
    """End the process, also where a thread beside the main one waits for what never answers.

    Python would wait at its end for whatever such a thread has begun by `asyncio.to_thread`.
    """
    if not any(thread.daemon for thread in threading.enumerate()):
        sys.exit(status)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)

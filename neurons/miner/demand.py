"""Whether patients ask while no engine pod is ready: that wakes a pool that sleeps, without any scrape in between."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from bettertherapy_api.report import Demand as DemandReport

LINGER_SECONDS: Final = 60.0
"""A question that was turned away for want of a verified version stands so long: its client is told to come again."""


class Demand:
    """What waits for the first engine pod. `changed` is called when there is another thing to say."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.changed: Callable[[], None] = lambda: None
        self._clock = clock
        self._waiting = 0
        self._turned_away_at: float | None = None
        self._since: datetime | None = None

    def begin(self) -> None:
        """A request waits though no engine pod is ready."""
        self._waiting += 1
        self._look()

    def end(self) -> None:
        """It waits no longer: a pod came, or the client left, or the time was up."""
        self._waiting -= 1
        self._look()

    def turned_away(self) -> None:
        """A request was answered 503 though its twin is known, and no engine pod is ready that could verify it."""
        self._turned_away_at = self._clock()
        self._look()

    def met(self) -> None:
        """An engine pod is ready."""
        if self._turned_away_at is not None:
            self._turned_away_at = None
            self._look()

    def report(self) -> DemandReport:
        """Return what to tell the operator."""
        if not self._is_asked():
            self._since = None
            return DemandReport()
        self._since = self._since or datetime.now(UTC)  # who goes on waiting at another table is the same demand
        return DemandReport(held_since=self._since.strftime("%Y-%m-%dT%H:%M:%SZ"))

    def _look(self) -> None:
        if self._is_asked() != (self._since is not None):
            self.changed()

    def _is_asked(self) -> bool:
        lately = self._turned_away_at is not None and self._clock() - self._turned_away_at <= LINGER_SECONDS
        return self._waiting > 0 or lately

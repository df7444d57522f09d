"""How many answers a question is drawn, by settings, by what its client asked for, and by what engines take."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from weakref import WeakKeyDictionary

from neurons.candidates import Chooser
from neurons.miner.asked import EngineRequest
from neurons.miner.metrics import Metrics
from neurons.miner.settings import Settings
from neurons.miner.tables import Pod

REFUSED_SECONDS: Final = 60.0
"""A pod whose engine draws no several answers is asked for one so long."""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How long is waited. Times are in seconds."""

    budget: float
    """From a request's arrival until its answer is chosen among those that are there."""
    patience: float
    """Once half of the candidates are complete, the others may take this multiple of the time that those took."""
    keep_alive: float = 5.0
    """A stream says so often that it is alive while candidates are compared."""


class Undrawn(Exception):  # noqa: N818 - control flow: the same pod is asked for one answer
    """The engine refused a request for several answers."""


class Drawing:
    """What one miner knows of drawing."""

    def __init__(self, settings: Settings, metrics: Metrics, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._clock, self.metrics = settings.candidates, clock, metrics
        self._refused: WeakKeyDictionary[Pod, float] = WeakKeyDictionary()
        self.pace = Pace(
            budget=settings.latency_budget_seconds,
            patience=settings.patience,
            keep_alive=settings.keep_alive_seconds,
        )
        self.chooser = Chooser(
            settings.scorers, failed=lambda name, why: metrics.scorer_failures.labels(name, why).inc()
        )

    def wanted(self, asked: EngineRequest) -> int:
        """Return how many answers this question is worth: 1 where its client decided itself."""
        return self._most if self._most > 1 and self.pace.budget > 0 and asked.may_be_drawn() else 1

    def at(self, pod: Pod, wanted: int, *, started: float) -> int:
        """Return how many of the wanted ones this pod is asked for now; `started` is when the request came."""
        if wanted == 1:
            return 1
        now = self._clock()
        if now - started >= self.pace.budget or self._refused.get(pod, 0.0) > now:
            return 1
        return wanted

    def refused(self, pod: Pod) -> None:
        """Take down that the pod answered for one, having refused for several."""
        self._refused[pod] = self._clock() + REFUSED_SECONDS

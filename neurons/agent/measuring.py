"""Asking the engine how probable a model finds given tokens; the base model's values are kept while it runs."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import Final

from neurons.agent.engine import EngineClient
from neurons.agent.monitor import EngineMonitor
from neurons.agent.places import Position

_MOST_KEPT: Final = 8192
"""Values of the base model kept: 48 positions of an adapter, more than a hundred adapters."""


class Unmeasurable(Exception):  # noqa: N818 - a state of a server
    """The server can't be made to say log-probabilities of tokens that it did not choose."""


class Measuring:
    """One engine's log-probabilities. Errors are EngineError, and Unmeasurable."""

    def __init__(self, engine: EngineClient, monitor: EngineMonitor, *, base_model: Callable[[], str | None]) -> None:
        self._engine = engine
        self._monitor = monitor
        self._base_model = base_model
        self._epoch = 0
        self._base: dict[Position, asyncio.Future[float]] = {}

    async def ask(self, model: str, positions: Sequence[Position]) -> tuple[float, ...]:
        """Return one value a position in nats, NaN where the engine says none; all are asked at the same time."""
        return tuple(await asyncio.gather(*(self._one(model, position) for position in positions)))

    async def base(self, positions: Sequence[Position]) -> tuple[float, ...]:
        """Return the base model's values; those known of this process, or under way, are not asked again."""
        if self._epoch != self._monitor.epoch or len(self._base) > _MOST_KEPT:
            self._epoch, self._base = self._monitor.epoch, {}
        known, name = self._base, self.base_name()
        for position in positions:
            if position not in known:
                known[position] = asyncio.ensure_future(self._one(name, position))
        # Others may wait for the same answers: a caller that is cancelled must not take them away.
        answers = [known[position] for position in positions]
        await asyncio.wait(set(answers))
        for position, answer in zip(positions, answers, strict=True):
            if answer.cancelled() or answer.exception() is not None or not math.isfinite(answer.result()):
                known.pop(position, None)
        return tuple(answer.result() for answer in answers)

    def base_name(self) -> str:
        """Return the name under which the base model answers; raises Unmeasurable when it is not listed."""
        bases, wanted = self._monitor.listing.bases(), self._base_model()
        if wanted in bases:
            return str(wanted)
        if len(bases) != 1:  # a server that names no parents lists adapters as if they were base models
            raise Unmeasurable("the server lists no base model")
        return bases[0]

    async def _one(self, model: str, position: Position) -> float:
        value = await self._engine.forced(model, position[0], position[1])
        if value is None:
            raise Unmeasurable("its answer tells no log-probability of the token that was asked for")
        return value

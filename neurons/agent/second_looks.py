"""Looking again at adapters that serve: weights may be sound for short questions and spoil longer ones.

    every 30 s the one that wasn't looked at for longest ──┐
    three odd answers passed by ────────────────────────────┼─> base sound? ─> proof again, and a long text
    it was in use when the engine was spoilt ───────────────┘        │
                                                    not finite: out, at once, and asked so at its next load
                                                    another's answers: loaded afresh, and proven as at first

One adapter at a time. A turn takes a twentieth of the time at most, a suspicion half of it.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from bettertherapy_api.manifest import AdapterManifest
from bettertherapy_api.report import FailureReason
from neurons.agent.engine import EngineError
from neurons.agent.failure import Failure
from neurons.agent.keeper import AdapterKeeper
from neurons.agent.known_answers import Health
from neurons.agent.measuring import Unmeasurable
from neurons.agent.monitor import EngineMonitor
from neurons.agent.roster import Roster
from neurons.agent.traffic import Traffic

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 30.0
"""Between two looks, if nobody is suspected."""
SUSPECT_SECONDS: Final = 60.0
"""An adapter that was looked at so short a time ago is not suspected again: odd answers may be its manner."""
TEXTS: Final = 64
"""So many long texts there are: the base model's answers to each are kept."""
_REST: Final = 19.0
"""So many times as long as a look took nobody has a turn."""
_IN_USE_SECONDS: Final = 60.0
_REASONS: Final = (FailureReason.NO_EFFECT, FailureReason.FINGERPRINT_MISMATCH)


class SecondLooks:
    """Goes round the verified adapters of one engine; `run` never returns."""

    def __init__(
        self,
        roster: Roster,
        monitor: EngineMonitor,
        traffic: Traffic,
        *,
        looked: Callable[[str], None] = lambda outcome: None,
    ) -> None:
        self._roster = roster
        self._monitor = monitor
        self._traffic = traffic
        self._looked = looked
        self._suspects: dict[str, None] = {}
        self._suspected = asyncio.Event()
        self._looked_at: dict[str, float] = {}
        self._condemned = False
        self.look_seconds = LOOK_SECONDS
        self.rest = _REST
        monitor.listeners.append(self._on_poll)

    def suspect(self, name: str) -> None:
        """Look at this adapter next; under the base model's name, at the base model. Served names only."""
        if time.monotonic() - self._looked_at.get(name, -SUSPECT_SECONDS) >= SUSPECT_SECONDS:
            self._suspects[name] = None
            self._suspected.set()

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await self._monitor.wait_up()
            began = time.monotonic()
            if (name := self._next()) is not None:
                self._looked_at[name] = began
                await self._look(name)
            took = time.monotonic() - began
            await asyncio.sleep(took)
            with suppress(TimeoutError):
                async with asyncio.timeout(max(self.look_seconds, self.rest * took)):
                    await self._suspected.wait()

    def _next(self) -> str | None:
        verified = {keeper.name for keeper in self._roster.keepers() if keeper.verified}
        self._looked_at = {name: at for name, at in self._looked_at.items() if name in verified or self._is_base(name)}
        while self._suspects:
            name = next(iter(self._suspects))
            del self._suspects[name]
            if not self._suspects:
                self._suspected.clear()
            if name in verified or self._is_base(name):
                return name
        self._suspected.clear()
        return min(verified, key=lambda name: (self._looked_at.get(name, 0.0), name), default=None)

    def _is_base(self, name: str) -> bool:
        return self._roster.pool is not None and self._roster.pool.base_model.name == name

    async def _look(self, name: str) -> None:
        """Measure the base model, and then the adapter; what can't be measured now has its turn later."""
        known = self._roster.known_answers
        try:
            health = await known.check()
            keeper = self._roster.verified(name)
            manifest = keeper.manifest if keeper is not None else None
            if health is Health.SOUND and keeper is not None and manifest is not None:
                outcome = await self._measure(keeper, manifest)
            else:
                outcome = f"base_{health.value}"
        except (EngineError, Unmeasurable) as error:
            log.info("%s can't be looked at now: %s", name, error)
            outcome = "unmeasured"
        self._looked(outcome)

    async def _measure(self, keeper: AdapterKeeper, manifest: AdapterManifest) -> str:
        digest, epoch = keeper.adapter.digest, self._monitor.epoch
        number = random.randrange(TEXTS)  # noqa: S311 - nothing is secret in it
        try:
            await self._roster.prover.look_again(keeper.name, digest, manifest, number=number)
        except Failure as failure:
            if not self._is_still(keeper, digest) or self._monitor.epoch != epoch:
                return "unmeasured"  # the next process forms its own verdict
            if failure.reason is FailureReason.WEIGHTS_NOT_FINITE:
                keeper.take_out(failure)
                self._traffic.abort(keeper.name)  # what they say may be nonsense
                return "not_finite"
            if failure.reason in _REASONS:
                log.warning("adapter %s no longer answers as it did: it is loaded afresh", keeper.name)
                keeper.load_afresh()
                return "differs"
            log.info("adapter %s can't be looked at now: %s", keeper.name, failure.message)
            return "unmeasured"
        return "sound"

    def _is_still(self, keeper: AdapterKeeper, digest: str) -> bool:
        return self._roster.verified(keeper.name) is keeper and keeper.adapter.digest == digest

    def _on_poll(self) -> None:
        """Doubt whoever was asked shortly before an engine was condemned: nobody knows yet who spoilt it."""
        condemned, self._condemned = self._condemned, self._monitor.condemned
        if self._condemned and not condemned:
            used = self._traffic.used_within(_IN_USE_SECONDS)
            for keeper in self._roster.keepers():
                if keeper.name in used:
                    self._roster.prover.doubt(keeper.adapter.digest)

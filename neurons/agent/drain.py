"""Stopping without cutting a request: the engine's preStop hook makes a file, waits for another, and we do the rest."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from neurons.agent.monitor import EngineMonitor
from neurons.agent.traffic import Traffic

log = logging.getLogger(__name__)

_LOOK_SECONDS: Final = 0.1
QUIET_SECONDS: Final = 0.3
"""Idle for this long means drained: a miner may have a request under way that we have not seen yet."""


class Drain:
    """Follows the drain file. `active` turns true when it appears, and false when a new engine process answers."""

    def __init__(
        self,
        *,
        drain_file: Path,
        drained_file: Path,
        traffic: Traffic,
        monitor: EngineMonitor,
        changed: Callable[[], None],
    ) -> None:
        self._drain_file = drain_file
        self._drained_file = drained_file
        self._traffic = traffic
        self._monitor = monitor
        self._changed = changed
        self.active = False

    async def run(self) -> None:
        """Follow the file for ever."""
        while True:
            try:
                await self._look()
            except OSError as error:
                log.error("drain files in %s: %s", self._drain_file.parent, error)  # noqa: TRY400 - no trace needed
            await asyncio.sleep(_LOOK_SECONDS)

    async def _look(self) -> None:
        asked_at = _modified(self._drain_file)
        if asked_at is not None and self._is_stale(asked_at):
            # kubelet runs the hook also when it restarts a wedged container: the new process must not find it.
            self._drained_file.unlink(missing_ok=True)
            self._drain_file.unlink(missing_ok=True)
            asked_at = None
        self._set(asked_at is not None)
        if self.active and not self._drained_file.exists():
            if self._traffic.total == 0:
                await asyncio.sleep(QUIET_SECONDS)
            if self._monitor.wedged:
                self._traffic.abort()
            if self._traffic.total == 0 or self._monitor.wedged:
                self._drained_file.touch()
                log.info("drained")

    def _is_stale(self, asked_at: float) -> bool:
        start = self._monitor.start_time
        return self._monitor.up and start is not None and asked_at < start

    def _set(self, active: bool) -> None:
        if active != self.active:
            log.info("draining: %s", active)
            self.active = active
            self._changed()


def _modified(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return None

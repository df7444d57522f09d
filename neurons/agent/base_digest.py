"""Which base model the engine beside the agent loaded: the digest of its files as they were hashed for this pod."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from neurons.agent.monitor import EngineMonitor
from neurons.store.model_record import measured_digest

log = logging.getLogger(__name__)

_RETRY_SECONDS: Final = 2.0


class BaseDigest:
    """Looks once at each engine process; `run` never returns."""

    def __init__(self, folder: Path | None, monitor: EngineMonitor, *, changed: Callable[[], None]) -> None:
        """`folder`: where the engine finds the model; None where it is not in this pod."""
        self._folder, self._monitor, self._changed = folder, monitor, changed
        self._epoch = -1
        self._digest: str | None = None

    @property
    def digest(self) -> str | None:
        """The digest; None until this engine process was looked at, and where nobody hashed what it loaded."""
        return self._digest if self._epoch == self._monitor.epoch else None

    async def run(self) -> None:
        """Look when an engine process is up: it has loaded by then, so files that changed since are not what it has."""
        if self._folder is None:
            await asyncio.Event().wait()
            return
        while True:
            await self._monitor.wait_up()
            if self._epoch != (epoch := self._monitor.epoch):
                self._digest, self._epoch = await asyncio.to_thread(measured_digest, self._folder), epoch
                if self._digest is None:
                    log.info("nobody hashed the base model of this pod: receipts name no digest of it")
                self._changed()
            await asyncio.sleep(_RETRY_SECONDS)

"""Who is on the subnet now: whatever keeps the last good metagraph, of a chain or of a file, fits these protocols."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from neurons.receipts import Metagraph, MetagraphFileError, read_metagraph

log = logging.getLogger(__name__)


class Reading(Protocol):
    """The last metagraph that could be had."""

    @property
    def metagraph(self) -> Metagraph | None:
        """None while none was ever read."""

    @property
    def age_seconds(self) -> float:
        """Since it was read."""

    @property
    def problem(self) -> Exception | None:
        """Why the last try gave none."""


class MetagraphSource(Protocol):
    """Keeps the last good metagraph."""

    def latest(self) -> Reading:
        """Return what there is, without asking anybody."""

    async def refresh(self) -> Reading:
        """Read it if that can be done, and return what there is."""


@dataclass(frozen=True, slots=True)
class FileReading:
    """What a file said."""

    metagraph: Metagraph | None
    age_seconds: float
    problem: Exception | None


class MetagraphInFile:
    """A metagraph in a file, read again when the file changes: for a subnet without a chain, and where another process
    reads the chain.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._path, self._clock = path, clock
        self._seen: object = None
        self._metagraph: Metagraph | None = None
        self._read_at = 0.0
        self._problem: Exception | None = None

    def latest(self) -> FileReading:
        """Return what there is; its age is the file's, since whoever writes it does so as long as it reads."""
        age = float("inf") if self._metagraph is None else max(0.0, self._clock() - self._read_at)
        return FileReading(self._metagraph, age, self._problem)

    async def refresh(self) -> FileReading:
        """Read the file if it changed."""
        try:
            stat = self._path.stat()
            seen = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if seen != self._seen:
                self._metagraph = await asyncio.to_thread(read_metagraph, self._path)
                self._seen, self._read_at = seen, stat.st_mtime
            self._problem = None
        except (OSError, MetagraphFileError) as error:
            if self._problem is None:
                log.warning("keeping the last good metagraph: %s", error)
            self._problem = error
        return self.latest()

"""Who is on the subnet, as the wire needs it: whatever reads the chain, or a file, fits these protocols."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from neurons.receipts import MetagraphFileError, read_metagraph

log = logging.getLogger(__name__)


class Neuron(Protocol):
    """One row; stake in the subnet's alpha."""

    @property
    def uid(self) -> int:
        """Its place."""

    @property
    def hotkey(self) -> str:
        """ss58 address of the key that signs for it."""

    @property
    def coldkey(self) -> str:
        """ss58 address of its owner's key."""

    @property
    def axon(self) -> str | None:
        """Where it serves, as `ip:port`; None while it serves nowhere."""

    @property
    def block_at_registration(self) -> int:
        """Block of its registration."""

    @property
    def validator_permit(self) -> bool:
        """Whether it may validate."""

    @property
    def stake(self) -> float:
        """What stands behind it."""


class Metagraph(Protocol):
    """All rows as of one block."""

    @property
    def netuid(self) -> int:
        """The subnet."""

    @property
    def block(self) -> int:
        """The block."""

    @property
    def neurons(self) -> Sequence[Neuron]:
        """The rows."""


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

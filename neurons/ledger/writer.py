"""The process that brings a queue into the ledger, seen from the one that appends: started, watched, started anew.

They speak by lines of JSON over its standard input and output. Each line says how things stand and not what changed, so
that the next one makes good for any that came to nothing. What the process logs comes by the same way.
"""

from __future__ import annotations

import asyncio
import logging
import random
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import orjson

from neurons.ledger.draining import FIRST_DELAY, LONGEST_DELAY
from neurons.ledger.spool import Mark, Position, Spool

_LOG: Final = logging.getLogger(__name__)
MODULE: Final = "neurons.ledger.beside"
BEAT_SECONDS: Final = 5.0
"""The process says at least so often how it stands."""
SILENT_SECONDS: Final = 60.0
"""One that says nothing for so long hangs, and is ended; it starts within some of them on a crowded machine."""
_END_SECONDS: Final = 15.0
"""So long it has to end what it does."""
_MAX_LINE: Final = 1 << 20


def to_list(mark: Mark) -> list[int]:
    """Return a mark as it is told."""
    return [mark.at.segment, mark.at.offset, mark.entries, mark.size]


def to_mark(told: list[int]) -> Mark:
    """Return the mark that was told."""
    segment, offset, entries, size = told
    return Mark(Position(segment, offset), entries, size)


class WriterProcess:
    """Keeps one such process running as long as `run` runs. Records that wait meanwhile lie in the queue."""

    def __init__(self, url: str, spool: Spool, *, timeout_seconds: float) -> None:
        """`url`: the ledger's."""
        self._url, self._spool, self._timeout = url, spool, timeout_seconds
        self._recorded_from = spool.appended.at
        self._process: asyncio.subprocess.Process | None = None
        self._hurried = self._look = False
        self._set_aside_before = self._set_aside = 0
        self.changed: Callable[[bool], None] = lambda _: None
        """Called when entries were taken, or it was seen whether the ledger answers, with which it was."""
        self._up = asyncio.Event()
        self.why: str | None = None
        """Why the ledger was away when it was tried last, or how the process ended."""
        self.ends = 0
        """How often it ended that nobody told to."""

    @property
    def runs(self) -> bool:
        """Whether it has said something, and has not ended since."""
        return self._up.is_set()

    async def up(self, *, within: float) -> bool:
        """Wait until it runs; False when it doesn't within so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._up.wait()
        return self.runs

    @property
    def set_aside(self) -> int:
        """Entries that the ledger refused for good; they lie in the queue's `set-aside.log`."""
        return self._set_aside_before + self._set_aside

    @property
    def pid(self) -> int | None:
        """The process's id; None while none runs."""
        return None if self._process is None or self._process.returncode is not None else self._process.pid

    def wake(self, *, hurried: bool, look: bool = False) -> None:
        """As `Drain.wake`."""
        self._hurried = hurried
        self._tell(look=look)

    async def run(self) -> None:
        """Run it for ever; cancelled, end it, and return when it has ended."""
        delay = FIRST_DELAY
        while True:
            why = await self._run_once()
            if self.runs:
                delay = FIRST_DELAY
            self._up.clear()
            self._process = None
            self._set_aside_before, self._set_aside = self.set_aside, 0
            self.ends += 1
            self.why = f"the process that writes the ledger {why}."
            _LOG.error("the process that writes the ledger %s, and is started again; records are queued", why)
            self.changed(False)
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311 - only spreads them
            delay = min(delay * 2, LONGEST_DELAY)

    async def _run_once(self) -> str:
        """Start it, and listen until it ends; returns how it did."""
        try:
            self._process = process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", MODULE,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=_MAX_LINE,
                # It has the queue's lock, too: whoever takes this process's place waits until both have ended.
                pass_fds=(self._spool.lock,),
                # A signal for this process's group, as from a terminal, isn't for it: it ends when its input does.
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            return f"can't be started ({error.strerror})"
        try:
            self._say(
                url=self._url, folder=str(self._spool.folder), timeout=self._timeout,
                recordedFrom=[self._recorded_from.segment, self._recorded_from.offset],
                appended=to_list(self._spool.appended), hurried=self._hurried,
            )  # fmt: skip
            return await self._listen(process)
        finally:
            await _end(process)

    async def _listen(self, process: asyncio.subprocess.Process) -> str:
        assert process.stdout is not None  # noqa: S101  # it was asked for
        while True:
            try:
                async with asyncio.timeout(SILENT_SECONDS):
                    line = await process.stdout.readline()
            except TimeoutError:
                return f"said nothing for {SILENT_SECONDS:.0f} s"
            except ValueError:
                return "said too much at once"
            if not line:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_END_SECONDS):
                        await process.wait()
                return f"ended (status {process.returncode})"
            try:
                self._heard(orjson.loads(line))
            except (ValueError, KeyError, TypeError):
                return "said what can't be understood"

    def _heard(self, said: dict[str, Any]) -> None:
        if (logged := said.get("logged")) is not None:
            level, name, message = logged
            logging.getLogger(str(name)).log(int(level), "%s", message)
            return
        self._up.set()
        self._set_aside, self.why = int(said["setAside"]), said["why"]
        self._spool.was_taken(to_mark(said["taken"]))
        if said["answers"] is not None:
            self.changed(said["answers"])

    def _tell(self, *, look: bool) -> None:
        self._say(appended=to_list(self._spool.appended), hurried=self._hurried, look=look)

    def _say(self, **said: Any) -> None:
        """Say something, if it runs; one that starts is told all there is."""
        process = self._process
        if process is None or process.stdin is None or process.stdin.is_closing():
            return
        with suppress(OSError):
            process.stdin.write(orjson.dumps(said) + b"\n")


async def _end(process: asyncio.subprocess.Process) -> None:
    """Let it end what it does; not for long."""
    if process.stdin is not None:
        process.stdin.close()
    with suppress(TimeoutError):
        async with asyncio.timeout(_END_SECONDS):
            # It may still say something, which nobody must keep from being said.
            while process.stdout is not None and await process.stdout.read(_MAX_LINE):
                pass
            await process.wait()
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()

"""Brings what lies in a queue into the ledger: in batches, over and over while the ledger is away, each entry once."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Final, TypeVar

import orjson

from neurons.ledger.codec import KINDS, Row, from_row, to_row
from neurons.ledger.database import Refused
from neurons.ledger.errors import BadRecord, in_words
from neurons.ledger.ledger import Ledger
from neurons.ledger.spool import Entry, Position, Spool

_LOG: Final = logging.getLogger(__name__)
FIRST_DELAY: Final = 0.1
LONGEST_DELAY: Final = 5.0
GATHER_SECONDS: Final = 0.2
"""So long the queue gathers entries for one transaction, which costs about as much for one as for a hundred."""
AT_ONCE: Final = 256
"""Entries of one transaction; so many wait for no more."""
T = TypeVar("T")


class Drain:
    """Takes from one queue, as long as `run` runs."""

    def __init__(
        self, ledger: Ledger, spool: Spool, *, recorded_from: Position, changed: Callable[[bool], None]
    ) -> None:
        """`recorded_from`: what lies behind it was checked when it was recorded; what lies before is checked anew.

        `changed` is called when entries were taken, or it was seen whether the ledger answers, with which it was.
        """
        self._ledger, self._spool, self._recorded_from, self._changed = ledger, spool, recorded_from, changed
        self._taker = ThreadPoolExecutor(1, thread_name_prefix="ledger-take")
        self._work, self._hurry = asyncio.Event(), asyncio.Event()
        self._look = True  # at once, whether the ledger is there; and make an embedded one's tables
        self._made = self._told = False
        self.hurried = False
        """Whether somebody waits for what is queued."""
        self.why: str | None = None
        """Why the ledger was away when it was tried last."""
        self.set_aside = 0
        """Entries that the ledger refused for good; they lie in the queue's `set-aside.log`."""

    def wake(self, *, hurried: bool, look: bool = False) -> None:
        """There may be more; `hurried`: somebody waits for it. `look`: see whether the ledger answers in any case."""
        self.hurried = hurried
        self._look = self._look or look
        if hurried or look or self._spool.entries >= AT_ONCE:
            self._hurry.set()
        if look or self._spool.entries:
            self._work.set()

    async def run(self) -> None:
        """Take for ever."""
        delay = FIRST_DELAY
        try:
            while True:
                try:
                    if not self._spool.entries and not self._look:
                        await self._work.wait()
                    self._work.clear()
                    await self._gather()
                    await self._take_some()
                    if self._told:
                        _LOG.info("The ledger answers again; %d entries are queued", self._spool.entries)
                    self._look, self._told, self.why, delay = False, False, None, FIRST_DELAY
                    self._changed(True)
                except Exception as error:  # noqa: BLE001 - whatever it is, the queue must be tried again
                    self.why = in_words(error)
                    if not self._told:
                        _LOG.warning("%s Records are queued in %s meanwhile.", self.why, self._spool.folder)
                        self._told = True
                    self._look = True
                    self._changed(False)
                    await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311 - only spreads them
                    delay = min(delay * 2, LONGEST_DELAY)
        finally:
            self._taker.shutdown()

    async def _gather(self) -> None:
        """Let more entries come, unless somebody waits for those that are there, or the ledger was away."""
        self._hurry.clear()
        if self.hurried or self._look or not 0 < self._spool.entries < AT_ONCE:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(GATHER_SECONDS):
                await self._hurry.wait()

    async def _take_some(self) -> None:
        if not self._made:
            await self._ledger.ready_or_made()
            self._made = True
        # Looked at before the disk is, which takes a while: what comes meanwhile is gathered again, for it may not come
        # alone.
        entries: Sequence[Entry] = ()
        if self._spool.entries:
            entries = await self._on(partial(self._spool.peek, entries=AT_ONCE))
        if not entries:
            await self._ledger.ready()
            return
        try:
            # In the thread: reading them takes long enough to hold up whatever else this process does.
            rows = await self._on(lambda: [row for entry in entries for row in self._rows(entry)])
            await self._ledger.put_rows(rows)
        except (Refused, BadRecord):
            # One of them is refused: each by itself, so that it holds back no other.
            for entry in entries:
                await self._take_one(entry)
            return
        await self._on(lambda: self._spool.take(entries))

    async def _take_one(self, entry: Entry) -> None:
        try:
            await self._ledger.put_rows(self._rows(entry))
        except (Refused, BadRecord) as error:
            await self._on(lambda: self._spool.set_aside(entry.data))
            self.set_aside += 1
            _LOG.error("%s It is set aside in %s.", error, self._spool.folder / "set-aside.log")
        await self._on(lambda: self._spool.take([entry]))
        self._changed(True)

    def _rows(self, entry: Entry) -> list[tuple[str, Row]]:
        """Return an entry's rows, each one checked: when they were recorded, or else now. Raises BadRecord."""
        try:
            rows: list[tuple[str, Row]] = orjson.loads(entry.data)
            if entry.end > self._recorded_from:
                return rows
            rows = [(str(table), dict(row)) for table, row in rows]
            return [(table, to_row(from_row(KINDS[table], row))) for table, row in rows]
        except (ValueError, TypeError, KeyError) as error:
            raise BadRecord(f"an entry of the queue is damaged: {type(error).__name__}") from None

    async def _on(self, work: Callable[[], T]) -> T:
        """Run in the thread, to its end also when this task is cancelled meanwhile."""
        future: asyncio.Future[T] = asyncio.get_running_loop().run_in_executor(self._taker, work)
        return await asyncio.shield(future)

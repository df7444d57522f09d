"""A ledger with a queue on disk in front of it: answering goes on while the database is away, and nothing is lost."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

import orjson

from neurons.ledger.codec import KINDS, TABLE_OF, Row, from_row, to_row
from neurons.ledger.database import Database, Refused
from neurons.ledger.errors import BadRecord, LedgerDown, LedgerError, NotFound, QueueInUse, SchemaMismatch
from neurons.ledger.ledger import Ledger, now_ms
from neurons.ledger.recollection import Recollection, merged
from neurons.ledger.records import AnyRecord
from neurons.ledger.spool import Entry, Spool
from neurons.ledger.views import ConsentState, Erasure, History, QuestionView, Written
from neurons.ledger.writing import patient_digest

_LOG: Final = logging.getLogger(__name__)
_FIRST_DELAY: Final = 0.1
_LONGEST_DELAY: Final = 5.0
_GATHER_SECONDS: Final = 0.2
"""So long the queue gathers entries for one transaction, which costs about as much for one as for a hundred."""
_AT_ONCE: Final = 64
"""Entries of one transaction; so many wait for no more."""
_REMEMBERED: Final = 16 * _AT_ONCE
"""Entries whose rows are at hand until they are in the ledger; what is read from the disk is checked anew."""
_FRESH_SECONDS: Final = 1.0
"""How long a reader waits for what was just written to come into the ledger."""
_TROUBLE_SECONDS: Final = 60.0
"""A ledger that is away for less is restarted, or busy."""
_READ_SECONDS: Final = 2.0
"""How long a patient's question waits for the session's history, before it goes on with what is remembered."""
_LOOK_AGAIN_SECONDS: Final = 0.2
_TIDY_SECONDS: Final = 30.0
"""How often what is of no use any more is deleted: on the disk what is in the ledger, in memory the erased."""
_SKEW_MS: Final = 3_600_000
"""By so much the clock of who erases may be behind."""
T = TypeVar("T")


class QueuedLedger:
    """A `Recorder`. Records are appended to the queue and fsynced, then written to the ledger in the background.

    `async with await QueuedLedger.open(url, folder=…) as ledger`. It opens without the database being up.
    """

    def __init__(self, ledger: Ledger, spool: Spool) -> None:
        self.ledger, self._spool = ledger, spool
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="ledger-append")
        self._taker = ThreadPoolExecutor(1, thread_name_prefix="ledger-take")
        self._recollection = Recollection()
        self._unwritten: list[tuple[bytes, asyncio.Future[None]]] = []
        self._own_rows: dict[bytes, list[tuple[str, Row]]] = {}
        """By entry: the rows that this process made it of."""
        self._flushing: asyncio.Task[None] | None = None
        self._appended = self._drained = 0
        self._backlog = spool.entries
        self._latest: dict[str, int] = {}
        """By session, patient or question: the number of its last entry that isn't in the ledger yet."""
        self._work, self._progress = asyncio.Event(), asyncio.Condition()
        self._work.set()  # look at once whether the ledger is there, and make an embedded one's tables
        self._hurry = asyncio.Event()
        self._readers = 0
        """Who waits until what is queued is in the ledger."""
        self._made = False
        self._away_since: float | None = None
        self._told = False
        self._why: str | None = None
        """Why the ledger was away when it was tried last."""
        self._unkept: str | None = None
        """Why what was to be queued last could not be."""
        self._waiting_since: float | None = time.monotonic() if spool.entries else None
        self.set_aside = 0
        """Entries that the ledger refused for good; they lie in the queue's `set-aside.log`."""
        self._forgetting: list[Callable[[Collection[str]], None]] = [self._recollection.forget]
        self._erased_since, self._forgotten = now_ms() - _SKEW_MS, frozenset[str]()
        self._draining = asyncio.create_task(self._drain(), name="ledger-drain")
        self._tidying = asyncio.create_task(self._tidy(), name="ledger-tidy")

    @classmethod
    async def open(
        cls, url: str, *, folder: Path, max_bytes: int = 1 << 30, timeout_seconds: float = 10.0, pool: int = 10,
        wait_seconds: float = 0.0,
    ) -> Self:  # fmt: skip
        """Return the queue in `folder` before the ledger at `url`.

        A process that has the queue is waited for, up to `wait_seconds`: one that is being replaced still brings its
        last entries into the ledger. Raises QueueInUse, QueueFull.
        """
        patience_ends, told = time.monotonic() + wait_seconds, False
        while True:
            try:
                spool = await asyncio.to_thread(Spool, folder, max_bytes=max_bytes)
                break
            except QueueInUse as error:
                if time.monotonic() >= patience_ends:
                    raise
                if not told:
                    _LOG.info("%s Waiting for it to end, as one that is replaced does.", error)
                    told = True
                await asyncio.sleep(_LOOK_AGAIN_SECONDS)
        return cls(Ledger(Database(url, timeout_seconds=timeout_seconds, pool=pool)), spool)

    async def close(self) -> None:
        """Stop writing in the background; what is queued stays on disk."""
        while self._flushing is not None:
            await asyncio.wait([self._flushing])
        for task in (self._draining, self._tidying):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await self._on(self._disk, self._spool.sweep)
        self._disk.shutdown()
        self._taker.shutdown()
        self._spool.close()
        await self.ledger.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def waiting(self) -> int:
        """How many entries (one a call of `record`) are queued and not yet in the ledger."""
        return self._spool.entries

    @property
    def waiting_seconds(self) -> float:
        """For how long the queue hasn't been empty; 0.0 when it is."""
        return 0.0 if self._waiting_since is None else time.monotonic() - self._waiting_since

    @property
    def away_seconds(self) -> float:
        """For how long the ledger hasn't answered; 0.0 when it does."""
        return 0.0 if self._away_since is None else time.monotonic() - self._away_since

    @property
    def trouble(self) -> str | None:
        """Why what was recorded last could not be queued, or why the ledger is away for a minute; else None.

        No word of a record is in it.
        """
        if self._unkept is not None:
            return self._unkept
        return self._why if self.away_seconds >= _TROUBLE_SECONDS else None

    async def drained(self, *, timeout_seconds: float) -> bool:
        """Wait until everything queued so far is in the ledger; False when it isn't in time."""
        return await self._reached(self._appended, timeout_seconds)

    def on_erasure(self, forget: Callable[[Collection[str]], None]) -> None:
        """Have this called with what stays of erased patients' ids (`patient_digest`), whoever erased them."""
        self._forgetting.append(forget)

    async def _tidy(self) -> None:
        while True:
            await asyncio.sleep(_TIDY_SECONDS)
            try:
                await self._on(self._disk, self._spool.sweep)
                await self._forget_erased()
            except LedgerError:
                self._suspect()  # it is away, though nobody asks: let it be told why
            except Exception as error:  # noqa: BLE001 - whatever it is, it is tried again
                _LOG.warning("Erased patients can't be forgotten yet: %s.", type(error).__name__)

    async def _forget_erased(self) -> None:
        """Forget whom somebody else erased: by hand, or through another gateway."""
        found = await self.ledger.erased(since_ms=self._erased_since)
        if new := found.keys() - self._forgotten:
            for forget in self._forgetting:
                forget(new)
        self._erased_since = max([self._erased_since, *(at_ms - _SKEW_MS for at_ms in found.values())])
        self._forgotten = frozenset(found)

    # Writing

    async def record(self, *records: AnyRecord) -> Written:
        """Return when the records are safe on disk (`new` counts them). Raises QueueFull: nothing was kept."""
        if not records:
            return Written()
        rows = [(TABLE_OF[type(record)], to_row(record)) for record in records]
        data = orjson.dumps(rows)
        on_disk = asyncio.get_running_loop().create_future()
        self._unwritten.append((data, on_disk))
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush(), name="ledger-flush")
        if len(self._own_rows) < _REMEMBERED:
            self._own_rows[data] = rows
        try:
            await on_disk
        except BaseException:
            self._own_rows.pop(data, None)
            raise
        self._recollection.note(records)
        for _, row in rows:
            for name in ("session_id", "patient_id", "question_id"):
                if (value := row.get(name)) is not None:
                    self._latest[value] = self._appended
        return Written(new=len(records))

    async def _flush(self) -> None:
        """Append all that has gathered, with one fsync, until nothing more has."""
        try:
            while batch := self._unwritten:
                self._unwritten = []
                try:
                    await self._on(self._disk, partial(self._spool.append, [data for data, _ in batch]))
                except Exception as error:  # noqa: BLE001 - whoever waits gets it
                    self._unkept = _said(error)
                    for _, future in batch:
                        if not future.done():
                            future.set_exception(error)
                    continue
                self._unkept = None
                self._appended += len(batch)
                self._waiting_since = self._waiting_since or time.monotonic()
                self._work.set()
                if self._spool.entries >= _AT_ONCE:
                    self._hurry.set()
                for _, future in batch:
                    if not future.done():
                        future.set_result(None)
        finally:
            self._flushing = None

    async def _drain(self) -> None:
        delay = _FIRST_DELAY
        while True:
            try:
                if not self._spool.entries and self._away_since is None:
                    await self._work.wait()
                self._work.clear()
                await self._gather()
                await self._drain_some()
                if self._told:
                    _LOG.info("The ledger answers again; %d entries are queued", self._spool.entries)
                self._away_since, self._why, self._told, delay = None, None, False, _FIRST_DELAY
            except Exception as error:  # noqa: BLE001 - whatever it is, the queue must be tried again
                self._why = _said(error)
                if not self._told:
                    _LOG.warning("%s Records are queued in %s meanwhile.", self._why, self._spool.folder)
                    self._told = True
                self._suspect()
                await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311 - only spreads them
                delay = min(delay * 2, _LONGEST_DELAY)

    async def _gather(self) -> None:
        """Let more entries come, unless somebody waits for those that are there, or the ledger was away."""
        self._hurry.clear()
        if self._readers or self._away_since is not None or not 0 < self._spool.entries < _AT_ONCE:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(_GATHER_SECONDS):
                await self._hurry.wait()

    async def _drain_some(self) -> None:
        if not self._made:
            await self.ledger.ready_or_made()
            self._made = True
        # Looked at before the disk is, which takes a while: what comes meanwhile is gathered again, for it may not come
        # alone.
        entries: Sequence[Entry] = ()
        if self._spool.entries:
            entries = await self._on(self._taker, partial(self._spool.peek, entries=_AT_ONCE))
        if not entries:
            await self.ledger.ready()
            return
        try:
            # In the thread: checking them takes long enough to hold up the questions in work.
            rows = await self._on(self._taker, lambda: [row for entry in entries for row in self._rows(entry)])
            await self.ledger.put_rows(rows)
        except (Refused, BadRecord):
            # One of them is refused: each by itself, so that it holds back no other.
            for entry in entries:
                await self._drain_one(entry)
            return
        await self._took(entries)

    async def _drain_one(self, entry: Entry) -> None:
        try:
            await self.ledger.put_rows(self._rows(entry))
        except (Refused, BadRecord) as error:
            await self._on(self._taker, lambda: self._spool.set_aside(entry.data))
            self.set_aside += 1
            _LOG.error("%s It is set aside in %s.", error, self._spool.folder / "set-aside.log")
        await self._took([entry])

    async def _took(self, entries: Sequence[Entry]) -> None:
        await self._on(self._taker, lambda: self._spool.take(entries))
        self._away_since = None
        for entry in entries:
            self._own_rows.pop(entry.data, None)
        async with self._progress:
            old = min(len(entries), self._backlog)
            self._backlog -= old
            self._drained += len(entries) - old
            self._latest = {key: number for key, number in self._latest.items() if number > self._drained}
            if not self._spool.entries:
                self._waiting_since = None
            self._progress.notify_all()

    def _rows(self, entry: Entry) -> list[tuple[str, Row]]:
        """Return an entry's rows, each one checked: when they were recorded, or else now. Raises BadRecord."""
        if (own := self._own_rows.get(entry.data)) is not None:
            return own
        try:
            rows = [(str(table), dict(row)) for table, row in orjson.loads(entry.data)]
            return [(table, to_row(from_row(KINDS[table], row))) for table, row in rows]
        except (ValueError, TypeError, KeyError) as error:
            raise BadRecord(f"an entry of the queue is damaged: {type(error).__name__}") from None

    # Reading

    async def history(self, *, session_id: str, patient_id: str, limit: int = 64) -> History:
        """Return a session with what is still queued; while the ledger is away, what this process remembers.

        Raises NotFound; never LedgerDown.
        """
        owner = self._recollection.owner(session_id)
        if owner not in (None, patient_id):
            raise NotFound("There is no such session of this patient.")
        remembered = self._recollection.history(session_id=session_id, patient_id=patient_id, limit=limit)
        queued = session_id in self._latest or self._backlog > 0
        if self._away_since is None:
            try:
                async with asyncio.timeout(_READ_SECONDS):
                    read = await self.ledger.history(session_id=session_id, patient_id=patient_id, limit=limit)
            except NotFound:
                if not queued:
                    self._recollection.drop(session_id)  # erased, or deleted by age
                    raise
            except (LedgerDown, SchemaMismatch, TimeoutError):
                self._suspect()
            else:
                self._recollection.learn(read, whole=len(read.turns) < limit)
                return merged(read, remembered, limit=limit)
        return remembered

    def _suspect(self) -> None:
        """Let nobody wait for the ledger until it was seen to answer again."""
        if self._away_since is None:
            self._away_since = time.monotonic()
        self._work.set()

    async def sessions(self, *, patient_id: str, limit: int = 100) -> tuple[History, ...]:
        """As `Recorder.sessions`; waits shortly for what is still queued. Raises LedgerDown."""
        await self._fresh(patient_id)
        return await self.ledger.sessions(patient_id=patient_id, limit=limit)

    async def question(self, *, question_id: str, patient_id: str | None = None) -> QuestionView:
        """As `Recorder.question`; waits shortly for what is still queued."""
        await self._fresh(question_id)
        return await self.ledger.question(question_id=question_id, patient_id=patient_id)

    async def consent(self, *, patient_id: str) -> ConsentState:
        """As `Recorder.consent`; waits for what is still queued, and raises LedgerDown when that takes too long."""
        if not await self._fresh(patient_id):
            raise LedgerDown("The patient's last words on consent are queued and not yet in the ledger. Try again.")
        return await self.ledger.consent(patient_id=patient_id)

    async def erase(self, *, patient_id: str) -> Erasure:
        """As `Recorder.erase`; what is still queued of the patient will be dropped when it is written."""
        erased = await self.ledger.erase(patient_id=patient_id)
        for forget in self._forgetting:
            forget({patient_digest(patient_id)})
        return erased

    async def _fresh(self, key: str) -> bool:
        number = self._latest.get(key, 0)
        return await self._reached(number, _FRESH_SECONDS) if number or self._backlog else True

    async def _reached(self, number: int, seconds: float) -> bool:
        self._readers += 1
        self._hurry.set()
        try:
            async with asyncio.timeout(seconds), self._progress:
                await self._progress.wait_for(lambda: self._backlog == 0 and self._drained >= number)
        except TimeoutError:
            return False
        finally:
            self._readers -= 1
        return True

    async def _on(self, executor: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        """Run in a thread, to its end also when this task is cancelled meanwhile."""
        future: asyncio.Future[T] = asyncio.get_running_loop().run_in_executor(executor, work)
        return await asyncio.shield(future)


def _said(error: Exception) -> str:
    """Return an error in words; of one that isn't ours the message may quote a text."""
    return str(error) if isinstance(error, LedgerError) else f"{type(error).__name__}."

"""A ledger with a queue on disk in front of it: answering goes on while the database is away, and nothing is lost."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

import orjson

from neurons.ledger.codec import TABLE_OF, to_row
from neurons.ledger.database import Database
from neurons.ledger.draining import Drain
from neurons.ledger.errors import LedgerDown, LedgerError, NotFound, QueueInUse, SchemaMismatch, in_words
from neurons.ledger.ledger import Ledger, now_ms
from neurons.ledger.recollection import Recollection, merged
from neurons.ledger.records import AnyRecord
from neurons.ledger.spool import Spool
from neurons.ledger.views import ConsentState, Erasure, History, QuestionView, Written
from neurons.ledger.writer import WriterProcess
from neurons.ledger.writing import patient_digest

_LOG: Final = logging.getLogger(__name__)
_FRESH_SECONDS: Final = 1.0
"""How long a reader waits for what was just written to come into the ledger."""
_TROUBLE_SECONDS: Final = 60.0
"""A ledger that is away for less is restarted, or busy."""
_READ_SECONDS: Final = 2.0
"""How long a patient's question waits for the session's history, before it goes on with what is remembered."""
_START_SECONDS: Final = 30.0
"""How long opening waits for the process that writes; without it, records are queued all the same."""
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

    def __init__(self, ledger: Ledger, spool: Spool, *, beside: WriterProcess | None = None) -> None:
        """`beside`: the process that brings the queue into the ledger; None: this one does."""
        self.ledger, self._spool = ledger, spool
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="ledger-append")
        self._recollection = Recollection()
        self._unwritten: list[tuple[bytes, asyncio.Future[None]]] = []
        self._flushing: asyncio.Task[None] | None = None
        self._backlog = spool.appended.entries
        self._latest: dict[str, int] = {}
        """By session, patient or question: the number of its last entry that isn't in the ledger yet."""
        self._moved = asyncio.Event()
        """Set whenever something came into the ledger; who waits for it clears it."""
        self._readers = 0
        """Who waits until what is queued is in the ledger."""
        self._away_since: float | None = None
        self._unkept: str | None = None
        """Why what was to be queued last could not be."""
        self._waiting_since: float | None = time.monotonic() if spool.entries else None
        self._forgetting: list[Callable[[Collection[str]], None]] = [self._recollection.forget]
        self._erased_since, self._forgotten = now_ms() - _SKEW_MS, frozenset[str]()
        self._writer: Drain | WriterProcess = beside or Drain(
            ledger, spool, recorded_from=spool.appended.at, changed=self._changed
        )
        if beside is not None:
            beside.changed = self._changed
        self._draining = asyncio.create_task(self._writer.run(), name="ledger-drain")
        self._tidying = asyncio.create_task(self._tidy(), name="ledger-tidy")

    @classmethod
    async def open(
        cls, url: str, *, folder: Path, max_bytes: int = 1 << 30, timeout_seconds: float = 10.0, pool: int = 10,
        wait_seconds: float = 0.0, beside: bool = False,
    ) -> Self:  # fmt: skip
        """Return the queue in `folder` before the ledger at `url`; `beside`: a process of its own writes that one.

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
        writer = WriterProcess(url, spool, timeout_seconds=timeout_seconds) if beside else None
        queued = cls(Ledger(Database(url, timeout_seconds=timeout_seconds, pool=pool)), spool, beside=writer)
        if writer is not None:
            try:
                # Else the first who wait for what is queued, as for a patient's word on consent, wait in vain.
                await writer.up(within=_START_SECONDS)
            except BaseException:
                await queued.close()
                raise
        return queued

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
    def set_aside(self) -> int:
        """Entries that the ledger refused for good; they lie in the queue's `set-aside.log`."""
        return self._writer.set_aside

    @property
    def writer(self) -> WriterProcess | None:
        """The process that brings the queue into the ledger; None where this one does."""
        return self._writer if isinstance(self._writer, WriterProcess) else None

    @property
    def trouble(self) -> str | None:
        """Why what was recorded last could not be queued, or why the ledger is away for a minute; else None.

        No word of a record is in it.
        """
        if self._unkept is not None:
            return self._unkept
        return self._writer.why if self.away_seconds >= _TROUBLE_SECONDS else None

    async def drained(self, *, timeout_seconds: float) -> bool:
        """Wait until everything queued so far is in the ledger; False when it isn't in time."""
        return await self._reached(self._spool.appended.entries, timeout_seconds)

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
        await on_disk
        self._recollection.note(records)
        number = self._spool.appended.entries
        for _, row in rows:
            for name in ("session_id", "patient_id", "question_id"):
                if (value := row.get(name)) is not None:
                    self._latest[value] = number
        return Written(new=len(records))

    async def _flush(self) -> None:
        """Append all that has gathered, with one fsync, until nothing more has."""
        try:
            while batch := self._unwritten:
                self._unwritten = []
                try:
                    await self._on(self._disk, partial(self._spool.append, [data for data, _ in batch]))
                except Exception as error:  # noqa: BLE001 - whoever waits gets it
                    self._unkept = in_words(error)
                    for _, future in batch:
                        if not future.done():
                            future.set_exception(error)
                    continue
                self._unkept = None
                self._waiting_since = self._waiting_since or time.monotonic()
                self._writer.wake(hurried=self._readers > 0)
                for _, future in batch:
                    if not future.done():
                        future.set_result(None)
        finally:
            self._flushing = None

    def _changed(self, answers: bool) -> None:
        """Entries came into the ledger, or it was seen whether it answers."""
        if answers:
            self._away_since = None
        elif self._away_since is None:
            self._away_since = time.monotonic()
        if not self._spool.entries:
            self._waiting_since = None
        taken = self._spool.taken.entries
        self._latest = {key: number for key, number in self._latest.items() if number > taken}
        self._moved.set()

    # Reading

    async def history(self, *, session_id: str, patient_id: str, limit: int = 64) -> History:
        """Return a session with what is still queued; while the ledger is away, what this process remembers.

        Raises NotFound; never LedgerDown.
        """
        owner = self._recollection.owner(session_id)
        if owner not in (None, patient_id):
            raise NotFound("There is no such session of this patient.")
        remembered = self._recollection.history(session_id=session_id, patient_id=patient_id, limit=limit)
        queued = session_id in self._latest or self._spool.taken.entries < self._backlog
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
        self._writer.wake(hurried=self._readers > 0, look=True)

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
        number = max(self._latest.get(key, 0), self._backlog)
        return self._spool.taken.entries >= number or await self._reached(number, _FRESH_SECONDS)

    async def _reached(self, number: int, seconds: float) -> bool:
        self._readers += 1
        self._writer.wake(hurried=True)
        try:
            async with asyncio.timeout(seconds):
                while self._spool.taken.entries < number:
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            return False
        finally:
            self._readers -= 1
            if not self._readers:
                self._writer.wake(hurried=False)
        return True

    async def _on(self, executor: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        """Run in a thread, to its end also when this task is cancelled meanwhile."""
        future: asyncio.Future[T] = asyncio.get_running_loop().run_in_executor(executor, work)
        return await asyncio.shield(future)

"""What is written to the ledger: text without identifiers, or none.

A text that can't be freed of identifiers is not written, whatever the reason; the patient is answered all the same.
Looking through texts takes longest of all that is done here, and so begins as soon as each of them is known: the
question's while miners answer it, an answer's while the others are waited for.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from queue import Empty, SimpleQueue
from typing import Final, Protocol

from neurons.ledger import (
    Answer,
    AnyRecord,
    Chosen,
    LedgerError,
    Miner,
    Preference,
    Question,
    Rating,
    Recorder,
    Scrubbed,
    Twin,
    new_id,
)
from neurons.ledger import Session as SessionRecord
from neurons.ledger.records import MAX_TEXT
from neurons.privacy import log_failing
from neurons.validator.gateway.asking import Failed
from neurons.validator.gateway.checking import Words
from neurons.validator.gateway.metrics import Metrics
from neurons.validator.gateway.roster import Member
from neurons.validator.gateway.sessions import Given, Session

log = logging.getLogger(__name__)

MAX_PENDING: Final = 1000
"""Exchanges that wait to be written; above it they are lost, and counted."""
MAX_PENDING_CHARACTERS: Final = 32 * 1024 * 1024
"""Of all of them."""
THREADS: Final = 2
_CONSENT_SECONDS: Final = 2.0
"""How long a patient's word on consent waits for those before it to be read."""


class Scrubber(Protocol):
    """Takes identifiers out of texts (`neurons.privacy`); anything that it raises means that the text isn't kept."""

    def __call__(self, text: str, /) -> Scrubbed:
        """Return the text without identifiers."""


@dataclass(frozen=True, slots=True)
class Withheld:
    """Stands for a text that could not be freed of identifiers."""

    text: str = ""
    scrubbed_by: str = "withheld/1"


class Scrubbing:
    """The texts of one question, looked through in threads as they come; equal ones once.

    Nothing of what is begun here is written by it: whoever writes asks for each text's result, and gets a text without
    identifiers, or `Withheld`.
    """

    def __init__(self, begin: Callable[[str], asyncio.Future[Scrubbed] | None]) -> None:
        self._begin = begin
        self._begun: dict[str, asyncio.Future[Scrubbed] | None] = {}

    def begin(self, text: str) -> None:
        """Look through a text from now on."""
        if text not in self._begun:
            self._begun[text] = self._begin(text)

    def begun(self, text: str) -> asyncio.Future[Scrubbed] | None:
        """Return what becomes of a text; None where nothing can look through it."""
        self.begin(text)
        return self._begun[text]

    def drop(self) -> None:
        """Let be what isn't looked at yet: nothing of this question will be written."""
        for future in self._begun.values():
            if future is not None:
                future.cancel()


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """An answer with the id and score that it got here."""

    answer_id: str
    member: Member
    words: Words
    seconds: float
    score: float
    held_back: bool = False
    """It plays an emergency down, and is given to nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One question with all that came of it. Its texts are the patient's and the miners' own."""

    question_id: str
    session: Session
    twin: Twin
    asked_ms: int
    question: str
    emergency: str
    """The kind of the notice that was shown; empty for none."""
    answers: Sequence[Compared]
    failures: Sequence[Failed]
    chosen: str | None
    """Id of the answer that was given."""
    scrubbing: Scrubbing
    """Where its texts are looked through."""

    @property
    def characters(self) -> int:
        """How much it holds."""
        return len(self.question) + sum(len(each.words.text) for each in self.answers)


class Recording:
    """Writes exchanges, ratings and preferences; `recorder` None writes nothing."""

    def __init__(self, recorder: Recorder | None, scrub: Scrubber | None, *, metrics: Metrics) -> None:
        self._recorder, self._scrub, self._metrics = recorder, scrub, metrics
        self._looking: _Looking | None = None
        """Begun with the first text: a scrubber may be loaded after this."""
        self._pending: dict[asyncio.Task[None], int] = {}
        """With the characters that each holds."""
        self._pending_characters = 0
        self._said: set[str] = set()

    @property
    def pending(self) -> int:
        """Exchanges that are being written."""
        return len(self._pending)

    def scrubbing(self) -> Scrubbing:
        """Return what looks through the texts of a question; where nothing is kept, it does nothing."""
        return Scrubbing(self._begin if self._recorder is not None else lambda _: None)

    async def exchange(self, exchange: Exchange, *, wait_seconds: float) -> None:
        """Write an exchange. Returns when it is safe, or after `wait_seconds`; the rest is done in the background."""
        task = self.begin(exchange)
        if task is not None:
            await asyncio.wait({task}, timeout=wait_seconds)

    def begin(self, exchange: Exchange) -> asyncio.Task[None] | None:
        """Begin to write an exchange, which goes on whatever becomes of the client; None where it is not written."""
        if self._recorder is None:
            return None
        size = exchange.characters
        if len(self._pending) >= MAX_PENDING or self._pending_characters + size > MAX_PENDING_CHARACTERS:
            self._lost("too many exchanges wait to be written")
            return None
        task = asyncio.create_task(self._write(exchange))
        self._pending[task] = size
        self._pending_characters += size
        task.add_done_callback(self._written)
        return task

    def _written(self, task: asyncio.Task[None]) -> None:
        self._pending_characters -= self._pending.pop(task)

    async def rating(self, session: Session, given: Given, *, rating_id: str, stars: int, comment: str | None) -> None:
        """Write a rating; raises LedgerError when it isn't safe."""
        if self._recorder is None:
            return
        text = None if not comment else await self._scrubbed(comment)
        rating = Rating(
            rating_id=rating_id, answer_id=given.answer_id, question_id=given.question_id,
            patient_id=session.patient_id, stars=stars, at_ms=now_ms(),
            comment=None if isinstance(text, Withheld) else text,
        )  # fmt: skip
        await self._recorder.record(rating)

    async def preference(self, session: Session, preferred: Given, rejected: Given, *, preference_id: str) -> None:
        """Write which of two answers was better; raises LedgerError when it isn't safe."""
        if self._recorder is None:
            return
        await self._recorder.record(
            Preference(
                preference_id=preference_id, question_id=preferred.question_id, patient_id=session.patient_id,
                preferred_id=preferred.answer_id, rejected_id=rejected.answer_id, at_ms=now_ms(),
            )
        )  # fmt: skip

    async def record(self, *records: AnyRecord) -> None:
        """Write other records; raises LedgerError when they aren't safe."""
        if self._recorder is not None:
            await self._recorder.record(*records)

    async def close(self, *, seconds: float) -> None:
        """Wait for what is being written."""
        if self._pending:
            await asyncio.wait(self._pending, timeout=seconds)
        if self._pending:
            self._lost(f"{len(self._pending)} exchanges were not written in time", count=len(self._pending))
        if self._looking is not None:
            self._looking.close()

    async def _write(self, exchange: Exchange) -> None:
        if self._recorder is None:
            return
        said = [exchange.question, *(each.words.text for each in exchange.answers)]
        begun = [exchange.scrubbing.begun(text) for text in said]  # all of them, before any is waited for
        texts = [await self._done(future) for future in begun]
        try:
            await self._recorder.record(*_records(exchange, texts[0], texts[1:]))
        except LedgerError as error:
            self._lost(str(error))
            return
        exchange.session.recorded = True
        withheld = any(isinstance(text, Withheld) for text in texts)
        self._metrics.records.labels("without_text" if withheld else "kept").inc()

    async def _scrubbed(self, text: str) -> Scrubbed:
        """Return what may be kept of a text; never raises for the scrubber's sake."""
        return await self._done(self._begin(text))

    def _begin(self, text: str) -> asyncio.Future[Scrubbed] | None:
        """Begin to look through a text, in a thread; None where nothing can, as when this has been closed."""
        if self._scrub is None:
            return None
        if self._looking is None:
            self._looking = _Looking(self._scrub)
        return self._looking.begin(text)

    async def _done(self, begun: asyncio.Future[Scrubbed] | None) -> Scrubbed:
        """Return what may be kept of a text that was begun; never raises for the scrubber's sake."""
        if begun is None:
            return Withheld()
        try:
            done = await begun
        except Exception as error:  # noqa: BLE001 - whatever it is, the text isn't kept, and the patient is answered
            why = type(error).__name__  # its words may quote the text
            if why not in self._said:
                self._said.add(why)
                log_failing(log, error, effect="those that fail are not written")
            return Withheld()
        # The ledger takes no longer one; a miner's must not keep the question and all others' answers out of it.
        return done if len(done.text) <= MAX_TEXT else Withheld()

    def _lost(self, why: str, *, count: int = 1) -> None:
        self._metrics.records.labels("lost").inc(count)
        log.error("an exchange is not in the ledger", extra={"why": why})


class _Looking:
    """Looks through texts in threads.

    What was found while the loop was busy is told in one go; an executor's futures take longer than a short text does.
    """

    def __init__(self, scrub: Scrubber) -> None:
        self._scrub, self._loop = scrub, asyncio.get_running_loop()
        self._waiting: SimpleQueue[tuple[asyncio.Future[Scrubbed], str] | None] = SimpleQueue()
        self._found: deque[tuple[asyncio.Future[Scrubbed], Scrubbed | Exception]] = deque()
        self._telling = self._closed = False
        for number in range(THREADS):
            threading.Thread(target=self._work, name=f"scrub_{number}", daemon=True).start()

    def begin(self, text: str) -> asyncio.Future[Scrubbed] | None:
        """Return what becomes of a text; cancelled, it isn't looked at any more. None after `close`."""
        if self._closed:
            return None
        future: asyncio.Future[Scrubbed] = self._loop.create_future()
        future.add_done_callback(_taken_note_of)
        self._waiting.put((future, text))
        return future

    def close(self) -> None:
        """Let the threads end; what isn't looked at yet is cancelled."""
        self._closed = True
        with suppress(Empty):
            while True:
                if (given := self._waiting.get_nowait()) is not None:
                    given[0].cancel()
        for _ in range(THREADS):
            self._waiting.put(None)

    def _work(self) -> None:
        while (given := self._waiting.get()) is not None:
            future, text = given
            if future.cancelled():
                continue
            found: Scrubbed | Exception
            try:
                found = self._scrub(text)
            except BaseException as error:  # noqa: BLE001 - whoever waits for it gets it, in a form that can be raised
                is_plain = isinstance(error, Exception) and not isinstance(error, StopIteration)
                found = error if is_plain else RuntimeError(type(error).__name__)  # type: ignore[assignment]
            self._found.append((future, found))
            if not self._telling:
                self._telling = True
                with suppress(RuntimeError):  # the loop has ended, and nobody waits any more
                    self._loop.call_soon_threadsafe(self._told)

    def _told(self) -> None:
        self._telling = False  # before what was found is looked for: what comes from now on is told again
        while self._found:
            future, found = self._found.popleft()
            if future.done():
                continue
            if isinstance(found, Exception):
                future.set_exception(found)
            else:
                future.set_result(found)


def _taken_note_of(future: asyncio.Future[Scrubbed]) -> None:
    """Keep asyncio from logging a failure that nobody waits for any more: its words may quote the text."""
    if not future.cancelled():
        future.exception()


def _records(exchange: Exchange, question_text: Scrubbed, answer_texts: Sequence[Scrubbed]) -> list[AnyRecord]:
    """Return what is written of an exchange; raises BadRecord for what the ledger doesn't take."""
    session = exchange.session
    now = now_ms()
    question_id, session_id, patient_id = exchange.question_id, session.id, session.patient_id
    records: list[AnyRecord] = []
    if not session.recorded:
        records.append(
            SessionRecord(
                session_id=session.id, patient_id=session.patient_id, twin=exchange.twin, at_ms=exchange.asked_ms
            )
        )
    records.append(
        Question(
            question_id=question_id,
            session_id=session_id,
            patient_id=patient_id,
            twin=exchange.twin,
            text=question_text,
            at_ms=exchange.asked_ms,
            emergency=exchange.emergency,
        )
    )
    for each, text in zip(exchange.answers, answer_texts, strict=True):
        words = each.words
        records.append(
            Answer(
                question_id=question_id, session_id=session_id, patient_id=patient_id,
                answer_id=each.answer_id, twin=exchange.twin, miner=_miner(each.member),
                at_ms=exchange.asked_ms + round(each.seconds * 1000), latency_ms=round(each.seconds * 1000),
                text=text, tokens=words.tokens[1] if words.tokens is not None else None,
                adapter_digest=words.receipt.adapter, base_digest=words.receipt.base.digest,
                receipt=words.encoded, receipt_valid=True, score_milli=round(each.score * 1000),
            )
        )  # fmt: skip
    records += [
        Answer(
            question_id=question_id, session_id=session_id, patient_id=patient_id,
                answer_id=new_id(), twin=exchange.twin, miner=_miner(failed.member),
            at_ms=exchange.asked_ms + round(failed.seconds * 1000), latency_ms=round(failed.seconds * 1000),
            failure=failed.reason.value,
        )
        for failed in exchange.failures
    ]  # fmt: skip
    if exchange.chosen is not None:
        records.append(
            Chosen(
                question_id=question_id,
                session_id=session_id,
                patient_id=patient_id,
                answer_id=exchange.chosen,
                at_ms=now,
            )
        )
    return records


def _miner(member: Member) -> Miner:
    return _miner_of(member.hotkey, member.identity.registered_at)


@lru_cache(maxsize=1024)
def _miner_of(hotkey: str, registered_block: int) -> Miner:
    """Return a miner, checked once."""
    return Miner(hotkey=hotkey, registered_block=registered_block)


async def after_consents(recorder: Recorder | None, patient_id: str) -> int:
    """Return the moment for a patient's word on consent: now, and after all earlier ones.

    They may have been taken by a process whose clock is ahead, and the latest counts.
    """
    now = now_ms()
    if recorder is None:
        return now
    try:
        async with asyncio.timeout(_CONSENT_SECONDS):
            said = (await recorder.consent(patient_id=patient_id)).said_ms
    except (LedgerError, TimeoutError):
        return now
    return now if said is None else max(now, said + 1)


def now_ms() -> int:
    """Return the time as records have it: milliseconds since 1970 (UTC)."""
    return time.time_ns() // 1_000_000

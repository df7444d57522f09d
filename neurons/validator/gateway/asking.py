"""Ask several miners one question side by side, and return what came in time and is proven."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
import time
import traceback
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from neurons.miner.errors import RequestError
from neurons.miner.memory import Grow
from neurons.miner.tracing import TRACEPARENT, new_traceparent, trace_id_of, trace_of
from neurons.miner.upstream import BrokeOffError, ConnectFailedError, Reply, Upstream
from neurons.validator.gateway.checking import (
    DISHONEST,
    NOT_ITS_FAULT,
    Discarded,
    Reason,
    Words,
    read_answer,
)
from neurons.validator.gateway.metrics import Metrics
from neurons.validator.gateway.roster import CHAT_PATH, Member, Roster
from neurons.validator.gateway.selection import order
from neurons.validator.gateway.standing import MinerId, Standings
from neurons.validator.gateway.twins import Twins
from neurons.wire.payload import body_digest
from neurons.wire.signer import RequestSigner

log = logging.getLogger(__name__)

BUSY_SECONDS: Final = 2.0
"""How long a miner that says it is busy is left alone when it doesn't say for how long."""

_ALWAYS: Final = {"Content-Type": "application/json", "Accept-Encoding": "identity", "User-Agent": "bettertherapy"}


ANSWER_COPIES: Final = 8
"""What each byte of an answer holds until its question is answered: as it comes, as text, and as what is sent on."""


def uncounted(size: int) -> None:
    """Count nothing: a round asks a bounded number of questions."""
    del size


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How many are asked, and how long they are waited for, in seconds."""

    miners: int = 3
    """Answers that are wanted (`minersPerQuery`)."""
    deadline: float = 30.0
    """From the question to the last answer that counts."""
    connect: float = 2.0
    hedge: float = 2.0
    """After so long, or twice what the twin's answers usually take, one more miner is asked in a slow one's place."""
    grace: float = 3.0
    """After the first answer the others have so long, or as long again as it took."""
    most_attempts: int = 9
    explore: float = 0.1
    """Share of questions of which one goes to the miner that was asked least."""
    max_answer_bytes: int = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked."""

    twin: str
    body: bytes
    """For the miners: the same for each."""
    digest: str
    """As receipts name it."""
    messages: Sequence[Mapping[str, Any]]
    whose: str = ""
    """The client's name, by which miners' capacity is shared."""
    conversation: bytes = b""
    """What names the conversation here; a miner sees it hashed with its own hotkey, so that two can't join theirs."""
    trace_id: str = field(default_factory=lambda: trace_id_of(trace_of({})))
    """By which the question is followed: the client's own, or a new one. All miners that are asked see the same."""
    grow: Grow = uncounted
    """Counts what its answers hold of this process's memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proven:
    """A proven answer. Times in seconds."""

    member: Member
    words: Words
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A miner that was asked, without an answer that can be used."""

    member: Member
    reason: Reason
    seconds: float


@dataclass(slots=True)
class Replies:
    """What came of a question."""

    answers: list[Proven] = field(default_factory=list)
    failures: list[Failed] = field(default_factory=list)
    last_answer_at: float = 0.0
    """When the last answer that was waited for had come, by the monotonic clock."""


class Asker:
    """Asks the roster's miners."""

    def __init__(
        self,
        *,
        roster: Roster,
        standings: Standings,
        twins: Twins,
        signer: RequestSigner,
        upstream: Upstream,
        metrics: Metrics,
        patience: Patience,
        rng: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._roster, self._standings, self._twins = roster, standings, twins
        self._signer, self._upstream, self._metrics = signer, upstream, metrics
        self._patience, self._clock = patience, clock
        self._rng = rng or random.Random()  # noqa: S311 - whom to ask is no secret
        self._usual: dict[str, float] = {}
        """Seconds that a twin's answers take, the newest counting most."""

    def can_ask(self, twin: str) -> bool:
        """Tell whether somebody serves the twin now."""
        return bool(self._roster.for_twin(twin))

    async def ask(
        self, question: Question, *, wanted: int | None = None, arrived: Callable[[Proven], None] = lambda _: None
    ) -> Replies:
        """Ask until `wanted` answers are proven, nobody is left, or the time is over; raises nothing for a miner.

        `arrived` is called with each answer as soon as it is proven, while others may still be waited for.
        """
        patience, clock = self._patience, self._clock
        wanted = wanted or patience.miners
        begun = clock()
        deadline = begun + patience.deadline
        signed = body_digest(question.body)  # once for all of them
        waiting = order(
            self._candidates(question.twin), self._standings, count=wanted, explore=patience.explore, now=begun,
            rng=self._rng, whose=question.whose,
        )  # fmt: skip
        waiting = waiting[: patience.most_attempts]
        waiting.reverse()
        replies = Replies(last_answer_at=begun)
        attempts = _Attempts()

        def start() -> None:
            member = waiting.pop()
            attempts.begin(member, self._attempt(member, question, signed, deadline))

        for _ in range(min(wanted, len(waiting))):
            start()
        hedge = max(patience.hedge, 2 * self._usual.get(question.twin, 0.0))
        hedge_at, end = begun + hedge, deadline
        try:
            while attempts.running:
                until = min(hedge_at, end) if waiting else end
                ended = await attempts.ended(within=until - clock())
                now = clock()
                for got in ended:
                    if isinstance(got, Failed):
                        replies.failures.append(got)
                        if waiting and now < end:
                            start()
                        continue
                    arrived(got)
                    replies.answers.append(got)
                    replies.last_answer_at = now
                    if len(replies.answers) == 1:
                        end = min(deadline, now + max(patience.grace, now - begun))
                if len(replies.answers) >= wanted or now >= end:
                    break
                if now >= hedge_at and waiting:
                    hedge_at = now + hedge
                    self._metrics.hedged.inc()
                    start()
        finally:
            left = await attempts.cancel()
        replies.failures += [self._gave_up(member, clock() - begun) for member in left]
        self._learn(question.twin, replies)
        return replies

    async def ask_each(self, question: Question, members: Sequence[Member]) -> Replies:
        """Ask each of these miners the same, side by side, and wait for all of them until the deadline.

        A miner sees nothing else than when a patient's question is asked: a round measures what patients get.
        """
        signed = body_digest(question.body)
        begun = self._clock()
        deadline = begun + self._patience.deadline
        replies = Replies(last_answer_at=begun)
        for got in await asyncio.gather(*(self._attempt(each, question, signed, deadline) for each in members)):
            if isinstance(got, Proven):
                replies.answers.append(got)
            else:
                replies.failures.append(got)
        replies.last_answer_at = self._clock()
        return replies

    def _candidates(self, twin: str) -> list[Member]:
        return [
            member
            for member in self._roster.for_twin(twin)
            if member.announcement is not None
            and any(self._twins.approves(twin, adapter) for adapter in member.announcement.held.get(twin, ()))
        ]

    async def _attempt(self, member: Member, question: Question, signed: str, deadline: float) -> Proven | Failed:
        standing = self._standings.get(member.identity)
        standing.begin(question.whose)
        begun = self._clock()
        reason: Reason
        try:
            try:
                async with asyncio.timeout_at(asyncio.get_running_loop().time() + max(0.0, deadline - begun)):
                    words = await self._exchange(member, question, signed)
            except TimeoutError:
                raise Discarded(Reason.LATE) from None
            except Discarded:
                raise
            except Exception as error:
                # Whatever one miner sends, the others' answers are not to be lost by it. A traceback could quote it.
                where = traceback.extract_tb(error.__traceback__)[-1]
                log.error(  # noqa: TRY400
                    "a miner's answer can't be judged: %s in %s:%s", type(error).__name__, where.filename, where.lineno,
                    extra={"hotkey": member.hotkey},
                )  # fmt: skip
                raise Discarded(Reason.BROKEN) from error
        except Discarded as discarded:
            reason = discarded.reason
            now = self._clock()
            if reason is Reason.BUSY:
                standing.busy(now, discarded.retry_after if discarded.retry_after is not None else BUSY_SECONDS)
            elif reason not in NOT_ITS_FAULT:
                standing.failed(now, weight=4 if reason in DISHONEST else 1)
            self._metrics.attempt(member.identity, reason.value)
            return Failed(member=member, reason=reason, seconds=now - begun)
        finally:
            standing.end(question.whose)
        seconds = self._clock() - begun
        standing.answered(seconds)
        self._metrics.answered(member.identity, seconds)
        return Proven(member=member, words=words, seconds=seconds)

    async def _exchange(self, member: Member, question: Question, signed: str) -> Words:
        headers = self._signer.headers_of(method="POST", target=CHAT_PATH, digest=signed, receiver=member.hotkey)
        headers["x-session-id"] = _conversation(question.conversation, member.identity)
        headers[TRACEPARENT] = new_traceparent(question.trace_id)
        headers |= _ALWAYS
        asked_ms = time.time_ns() // 1_000_000
        reply: Reply | None = None
        try:
            reply = await self._upstream.post(member.chat_url, question.body, headers)
            given = reply.headers
            if reply.status != 200:
                raise _refusal(reply)
            body = await _bounded(reply, self._patience.max_answer_bytes, question.grow)
        except ConnectFailedError:
            raise Discarded(Reason.UNREACHABLE) from None
        except BrokeOffError:
            raise Discarded(Reason.BROKEN) from None
        finally:
            if reply is not None:
                reply.close()
        words = read_answer(
            body, given, hotkey=member.hotkey, question=question.digest, twin=question.twin, asked_ms=asked_ms
        )
        await self._check_weights(member, question.twin, words.receipt.adapter)
        return words

    async def _check_weights(self, member: Member, twin: str, adapter: str | None) -> None:
        """Raise Discarded for weights that may not answer."""
        if not self._twins.approves(twin, adapter):
            raise Discarded(Reason.NOT_APPROVED, adapter=adapter)
        if member.announcement is not None and member.announcement.holds(twin, adapter):
            return
        # A version that is new since the last look is not yet known here: the miner may show what it announces now.
        now = await self._roster.renew(member.identity)
        if now is None or now.announcement is None or not now.announcement.holds(twin, adapter):
            raise Discarded(Reason.UNANNOUNCED, adapter=adapter)

    def _gave_up(self, member: Member, seconds: float) -> Failed:
        """Note a miner that was not waited for."""
        standing = self._standings.get(member.identity)
        if seconds >= self._patience.deadline:
            standing.failed(self._clock())
        else:
            standing.slow()
        self._metrics.attempt(member.identity, Reason.LATE.value)
        return Failed(member=member, reason=Reason.LATE, seconds=seconds)

    def _learn(self, twin: str, replies: Replies) -> None:
        for answer in replies.answers:
            usual = self._usual.get(twin)
            self._usual[twin] = answer.seconds if usual is None else usual + 0.1 * (answer.seconds - usual)


class _Attempts:
    """The miners that are asked one question now. `asyncio.wait` does as much, and goes through all tasks each time."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.running: dict[asyncio.Task[Proven | Failed], Member] = {}
        self._ended: list[asyncio.Task[Proven | Failed]] = []
        self._waiter: asyncio.Future[None] | None = None

    def begin(self, member: Member, attempt: Coroutine[Any, Any, Proven | Failed]) -> None:
        """Ask one more."""
        task = self._loop.create_task(attempt)
        self.running[task] = member
        task.add_done_callback(self._note)

    async def ended(self, *, within: float) -> list[Proven | Failed]:
        """Return what came of those that ended since the last call; of none within so many seconds, nothing."""
        if not self._ended:
            self._waiter = self._loop.create_future()
            handle = self._loop.call_later(max(0.0, within), self._wake)
            try:
                await self._waiter
            finally:
                handle.cancel()
                self._waiter = None
        tasks, self._ended = self._ended, []
        for task in tasks:
            del self.running[task]
        return [task.result() for task in tasks]

    async def cancel(self) -> list[Member]:
        """Let the others be, and return them when they have ended."""
        for task in self.running:
            task.cancel()
        if self.running:
            await asyncio.gather(*self.running, return_exceptions=True)
        return list(self.running.values())

    def _note(self, task: asyncio.Task[Proven | Failed]) -> None:
        self._ended.append(task)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _conversation(conversation: bytes, miner: MinerId) -> str:
    return hashlib.blake2b(conversation, key=miner.hotkey.encode(), digest_size=16).hexdigest()


async def _bounded(reply: Reply, most: int, grow: Grow) -> bytes:
    """Return the body of an answer; raises Discarded above `most` bytes, having read little more than that, and where
    there is no room for it.
    """
    if reply.headers.get("content-encoding", "identity") != "identity":  # which nobody asked for: it could be any size
        raise Discarded(Reason.TOO_LARGE)
    length = reply.headers.get("content-length", "")
    if length.isdecimal() and int(length) > most:
        raise Discarded(Reason.TOO_LARGE)
    parts, size = [], 0
    while part := await reply.chunk():
        size += len(part)
        if size > most:
            raise Discarded(Reason.TOO_LARGE)
        try:
            grow(ANSWER_COPIES * len(part))
        except RequestError:
            raise Discarded(Reason.NO_ROOM) from None
        parts.append(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _refusal(reply: Reply) -> Discarded:
    status = reply.status
    try:
        wait = max(0.0, float(reply.headers["retry-after"]))
    except (KeyError, ValueError):
        wait = None
    if status == 429 or (status == 503 and wait is not None):
        return Discarded(Reason.BUSY, retry_after=wait)
    return Discarded(Reason.REFUSED if 400 <= status < 500 and status not in (401, 403, 404) else Reason.ERROR)

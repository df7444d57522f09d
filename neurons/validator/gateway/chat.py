"""A patient's question, answered: notice, miners, comparison, the best one's words with its receipt."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from aiohttp import web

from bettertherapy_api import names
from neurons.ledger import new_id
from neurons.miner.errors import RequestError, overloaded, unavailable, unknown_model
from neurons.miner.memory import Grow
from neurons.miner.patient import Patient
from neurons.miner.tracing import trace_id_of, trace_of
from neurons.scoring.tripwires import plays_down
from neurons.validator.gateway.asking import Asker, Failed, Proven, Question, Replies, uncounted
from neurons.validator.gateway.checking import Reason
from neurons.validator.gateway.failing import unforeseen
from neurons.validator.gateway.keys import ApiKey, check_scope
from neurons.validator.gateway.metrics import Metrics
from neurons.validator.gateway.notices import Notice, Notices
from neurons.validator.gateway.ranking import Candidate, Ranker
from neurons.validator.gateway.recording import Compared, Exchange, Recording, Scrubbing
from neurons.validator.gateway.request import ChatAsked
from neurons.validator.gateway.response import (
    KEEP_ALIVE,
    SESSION_HEADER,
    Choice,
    EventStream,
    Reply,
    answer_headers,
    chunk,
)
from neurons.validator.gateway.roster import Roster
from neurons.validator.gateway.sessions import Given, Session, Sessions
from neurons.validator.gateway.standing import Standings
from neurons.validator.gateway.twins import Twins

log = logging.getLogger(__name__)

MOST_LOOKED_AT: Final = 16_384
"""Characters of an answer that are looked through for words that play an emergency down: some 40 ms of work."""

NOBODY: Final = (
    "No doctor's twin could answer now. Nothing but this notice was said, and it is not by the doctor. Please ask "
    "again in a moment."
)
"""What stands behind an emergency notice when no miner answered."""
RECORD_SECONDS: Final = 30.0
"""The end of an answer waits so long until the exchange is safe on disk: what a patient was given is kept, also by a
gateway that is killed the moment after. Texts are looked through while miners answer, so it mostly takes no time."""


@dataclass(slots=True)
class _Work:
    """One question in work."""

    asked: ChatAsked
    session: Session
    whose: str
    """Whose share of what runs it takes."""
    notice: Notice | None
    question_id: str
    begun: float
    """By the monotonic clock."""
    asked_ms: int
    id: str
    created: int
    beside: Callable[[Reply], Mapping[str, Any]] | None
    scrubbing: Scrubbing
    trace_id: str
    grow: Grow


class Chats:
    """Answers questions."""

    def __init__(
        self,
        *,
        roster: Roster,
        twins: Twins,
        asker: Asker,
        ranker: Ranker,
        standings: Standings,
        notices: Notices,
        sessions: Sessions,
        recording: Recording,
        metrics: Metrics,
        wanted: int,
        keep_alive_seconds: float,
        rng: random.Random | None = None,
    ) -> None:
        self._roster, self._twins, self._asker, self._ranker = roster, twins, asker, ranker
        self._standings, self._notices, self._sessions = standings, notices, sessions
        self._recording, self._metrics, self._wanted = recording, metrics, wanted
        self._keep_alive = keep_alive_seconds
        self._rng = rng or random.Random()  # noqa: S311 - which answer stands first is no secret
        self._seen: set[str] = set()
        """Twins that somebody served since this process began."""
        self.draining = False

    async def answer(
        self,
        request: web.BaseRequest,
        asked: ChatAsked,
        *,
        key: ApiKey,
        shown: Mapping[str, str],
        session: Session | None = None,
        beside: Callable[[Reply], Mapping[str, Any]] | None = None,
        grow: Grow = uncounted,
    ) -> web.StreamResponse:
        """Answer one question; raises RequestError where nothing was said yet, as `turn_away` may take it.

        `session`: the conversation, where the caller knows it; else the request's header names it. `beside` returns
        what more stands under `bettertherapy` of a stream, as a page's markup. `grow` counts what answers hold.
        """
        begun, asked_ms = time.monotonic(), time.time_ns() // 1_000_000
        check_scope(key, asked.twin)
        if session is None:
            session = await self._session(request, asked, key)
        if asked.names_patient:
            session.patient = asked.patient
        # Before anything that may fail: an emergency gets its notice whatever becomes of the question.
        # What was asked before counts, too, also what nobody answered: a bare "yes" says nothing without it.
        notice = self.notice(_with_facts(asked.with_history(session.told), session.patient))
        if notice is None:
            session.heard(asked.newest)
            self._sessions.grew(session)
        answer_id = new_id()
        work = _Work(
            asked=asked, session=session, whose=key.share, notice=notice, question_id=new_id(), begun=begun,
            asked_ms=asked_ms, id=f"chatcmpl-{answer_id}", created=asked_ms // 1000, beside=beside,
            scrubbing=self._recording.scrubbing(), trace_id=trace_id_of(trace_of(request.headers)), grow=grow,
        )  # fmt: skip
        headers = {**shown, SESSION_HEADER: session.id}
        if asked.stream:
            return await self._stream(request, work, headers)
        try:
            exchange: Exchange | None
            reply, exchange = await self._reply(work, await self._replies(work), whole=True)
        except RequestError as error:
            if notice is None:
                raise
            reply = self._only_notice(asked, notice, error, id_=work.id, created=work.created, session=session)
            exchange = None
        await self._record(exchange)
        return reply.to_response(headers)

    async def turn_away(
        self,
        request: web.BaseRequest,
        asked: ChatAsked,
        error: RequestError,
        *,
        key: ApiKey,
        shown: Mapping[str, str],
    ) -> web.StreamResponse:
        """Give a question that nobody is asked the notice that it is owed all the same; without one raises `error`."""
        session = self._sessions.remembered(request.headers.get(SESSION_HEADER), key_id=key.id)
        told = asked.with_history(session.told) if session is not None else asked.messages
        known = session.patient if session is not None and not asked.names_patient else asked.patient
        notice = self.notice(_with_facts(told, known))
        if notice is None:
            if session is not None:
                session.heard(asked.newest)
                self._sessions.grew(session)
            raise error
        at_ms = time.time_ns() // 1_000_000
        reply = self._only_notice(asked, notice, error, id_=f"chatcmpl-{new_id()}", created=at_ms // 1000)
        if not asked.stream:
            return reply.to_response(shown)
        stream = EventStream(request, shown, closing=lambda: self.draining)
        said = {"role": "assistant", "content": notice.shown}
        await stream.write(chunk(reply.id, reply.created, reply.twin, said))
        await stream.write(reply.events(notice_sent=True) + reply.last_events(usage=asked.usage))
        response = await stream.begin()
        await response.write_eof()
        return response

    def notice(self, messages: Sequence[Mapping[str, Any]]) -> Notice | None:
        """Return the notice of an emergency that a conversation tells of, and count it.

        Where nobody speaks as the user, whoever else speaks to the twin is taken for the patient.
        """
        if not any(message.get("role") == "user" for message in messages):
            messages = [
                message if message.get("role") == "assistant" else {**message, "role": "user"} for message in messages
            ]
        notice = self._notices(messages) if messages else None
        if notice is not None:
            self._metrics.notices.labels(notice.kinds[0] if notice.kinds else "").inc()
        return notice

    async def _stream(self, request: web.BaseRequest, work: _Work, headers: Mapping[str, str]) -> web.StreamResponse:
        asked, notice = work.asked, work.notice
        stream = EventStream(request, headers, closing=lambda: self.draining)
        if notice is not None:
            said = {"role": "assistant", "content": notice.shown}
            await stream.write(chunk(work.id, work.created, asked.twin, said))
        task = asyncio.create_task(self._replies(work))
        try:
            while not (await asyncio.wait({task}, timeout=self._keep_alive))[0]:
                await stream.write(KEEP_ALIVE)
        finally:
            if not task.done():
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        try:
            exchange: Exchange | None
            reply, exchange = await self._reply(work, task.result(), whole=False)
            if work.beside is not None:
                reply = replace(reply, more={**reply.more, **work.beside(reply)})
        except Exception as failure:  # noqa: BLE001 - a stream that has begun has to end in words
            error = failure if isinstance(failure, RequestError) else unforeseen(failure)
            if notice is None:
                if stream.response is None:
                    raise error from None
                self._metrics.ended(self.label(asked.twin), str(error.status))
                await stream.fail(error.to_dict())
                return stream.response
            reply = self._only_notice(asked, notice, error, id_=work.id, created=work.created, session=work.session)
            exchange = None
            if work.beside is not None:
                reply = replace(reply, more={**reply.more, **work.beside(reply)})
        # From the first word on a patient may rate it: a client that leaves in the middle takes nothing of it away.
        recording = self._recording.begin(exchange) if exchange is not None else None
        await stream.write(reply.events(notice_sent=notice is not None))
        # [DONE] says that the answer is complete, and that it is kept.
        if recording is not None:
            await asyncio.wait({recording}, timeout=RECORD_SECONDS)
        await stream.write(reply.last_events(usage=asked.usage))
        response = await stream.begin()
        await response.write_eof()
        return response

    async def _session(self, request: web.BaseRequest, asked: ChatAsked, key: ApiKey) -> Session:
        named = request.headers.get(SESSION_HEADER)
        if named:
            return await self._sessions.get(named, key_id=key.id, identity=asked.identity, twin=asked.twin)
        found = None
        if asked.repeats_history:
            found = self._sessions.of_conversation(asked.conversation(key.id), key_id=key.id)
        return found or self._sessions.create(key_id=key.id, twin=asked.twin, identity=asked.identity)

    async def _replies(self, work: _Work) -> tuple[Replies, float]:
        """Return what the miners said, and when they were asked; raises RequestError where nobody can be."""
        asked = work.asked
        if not self._twins.serves(asked.twin):
            raise unknown_model(asked.twin)
        if not self._asker.can_ask(asked.twin):
            if asked.twin in self._seen or self._roster.block is None or self._twins.doctor(asked.twin) is not None:
                raise self._nobody(asked.twin, "no miner serves it now")
            raise unknown_model(asked.twin)
        self._seen.add(asked.twin)
        messages = asked.with_history(work.session.messages)
        body, digest = asked.to_miners(messages, work.session.patient)
        question = Question(
            twin=asked.twin, body=body, digest=digest, messages=messages, whose=work.whose,
            conversation=work.session.id.encode(), trace_id=work.trace_id, grow=work.grow,
        )  # fmt: skip
        work.scrubbing.begin(asked.newest)
        at = time.monotonic()
        try:
            replies = await self._asker.ask(
                question, wanted=max(2, self._wanted) if asked.compare else None,
                arrived=lambda answer: work.scrubbing.begin(answer.words.text),
            )  # fmt: skip
        except BaseException:  # the client left, and nothing of it is written
            work.scrubbing.drop()
            raise
        return replies, at

    async def _reply(self, work: _Work, came: tuple[Replies, float], *, whole: bool) -> tuple[Reply, Exchange]:
        replies, asked_at = came
        compared = self._compare(work, replies.answers)
        exchange = Exchange(
            question_id=work.question_id, session=work.session, twin=self._twins.of_ledger(work.asked.twin),
            asked_ms=work.asked_ms, question=work.asked.newest,
            emergency=work.notice.kinds[0] if work.notice is not None and work.notice.kinds else "",
            answers=compared, failures=replies.failures, chosen=compared[0].answer_id if compared else None,
            scrubbing=work.scrubbing,
        )  # fmt: skip
        if not compared:
            await self._record(exchange)
            raise self._why_nobody(work.asked.twin, replies)
        offered = [each for each in compared if not each.held_back]
        if not offered:
            await self._record(replace(exchange, chosen=None))
            raise self._nobody(
                work.asked.twin,
                "this may be an emergency, and each answer that came plays it down without a word of where help is",
            )
        given = offered[:2] if work.asked.compare else offered[:1]
        if work.asked.compare:
            self._rng.shuffle(given)
            # Which of two is the patient's is not known before the patient says so.
            exchange = replace(exchange, chosen=None if len(given) > 1 else given[0].answer_id)
        best = given[0]
        self._remember(work, given)
        asked = work.asked
        if asked.repeats_history or not work.session.messages:
            for each in given:
                shown = (work.notice.shown if work.notice is not None else "") + each.words.text
                self._sessions.went_on(asked.conversation(work.session.key_id, shown), work.session)
        new = asked.messages if asked.repeats_history else [m for m in asked.messages if m.get("role") == "user"]
        work.session.said(new, best.words.text, anew=asked.repeats_history)
        if len(given) > 1:
            work.session.compared = {each.answer_id: each.words.text for each in given}
        self._sessions.grew(work.session)
        more = self._more(work, replies, compared, given)
        headers = {}
        if whole and len(given) == 1:
            headers = answer_headers(
                receipt=best.words.encoded, adapter=best.words.receipt.adapter, served_name=_version(best),
                miner=best.member.hotkey, answer_id=best.answer_id,
            )  # fmt: skip
        reply = Reply(
            id=work.id, created=work.created, twin=asked.twin,
            notice=work.notice.shown if work.notice is not None else "",
            choices=[Choice(text=each.words.text, finish_reason=each.words.finish_reason) for each in given],
            tokens=best.words.tokens, more=more, headers=headers,
        )  # fmt: skip
        now = time.monotonic()
        self._metrics.added_seconds.observe(max(0.0, asked_at - work.begun + now - replies.last_answer_at))
        self._metrics.took(asked.twin, now - work.begun, trace_id=work.trace_id)
        self._metrics.ended(asked.twin, "200")
        return reply, exchange

    def _compare(self, work: _Work, answers: Sequence[Proven]) -> list[Compared]:
        """Return the answers, the best first, and let the miners' standing learn from it."""
        candidates = [
            Candidate(
                text=answer.words.text, finish_reason=answer.words.finish_reason, owner=answer.member.coldkey,
                satisfaction=self._standings.get(answer.member.identity).satisfaction,
            )
            for answer in answers
        ]  # fmt: skip
        scores = [score.total for score in self._ranker.scores(work.asked.newest, candidates)]
        alarmed = work.notice is not None
        held_back = [alarmed and plays_down(answer.words.text[:MOST_LOOKED_AT]) for answer in answers]
        self._metrics.held_back.inc(sum(held_back))
        # Whatever else speaks for it: no patient with an alarm hears it, and who gave it is the less asked for it.
        totals = [0.0 if held else score for score, held in zip(scores, held_back, strict=True)]
        first = work.id.removeprefix("chatcmpl-")
        ranked = sorted(
            zip(answers, totals, held_back, strict=True), key=lambda each: (each[2], -each[1], each[0].seconds)
        )
        if len(ranked) > 1:
            for place, (answer, _, _) in enumerate(ranked):
                self._standings.get(answer.member.identity).ranked(1 - place / (len(ranked) - 1))
        return [
            Compared(
                answer_id=first if place == 0 else new_id(), member=answer.member, words=answer.words,
                seconds=answer.seconds, score=total, held_back=held,
            )
            for place, (answer, total, held) in enumerate(ranked)
        ]  # fmt: skip

    def _remember(self, work: _Work, given: Sequence[Compared]) -> None:
        ids = [each.answer_id for each in given]
        for number, each in enumerate(given):
            beside = ids[1 - number] if len(ids) == 2 else None
            work.session.given(
                Given(
                    answer_id=each.answer_id, question_id=work.question_id, twin=work.asked.twin,
                    version=_version(each),
                    miner=(each.member.hotkey, each.member.identity.registered_at), beside=beside,
                )
            )  # fmt: skip

    def _more(
        self, work: _Work, replies: Replies, compared: Sequence[Compared], given: Sequence[Compared]
    ) -> dict[str, Any]:
        age = self._roster.age_seconds
        said: dict[str, Any] = {
            "sessionId": work.session.id, "questionId": work.question_id, "twin": work.asked.twin,
            "minersAsked": len(replies.answers) + len(replies.failures), "minersProven": len(replies.answers),
            "metagraph": {"block": self._roster.block, "ageSeconds": None if age == float("inf") else round(age)},
            "notice": work.notice.to_dict() if work.notice is not None else None,
        }  # fmt: skip
        if len(given) > 1:  # blind: whose they are is told when one was preferred
            said["compared"] = [{"index": number, "answerId": each.answer_id} for number, each in enumerate(given)]
            return said
        [best] = given
        return said | provenance(best) | {"ranking": ranking(compared, replies.failures)}

    def _only_notice(
        self, asked: ChatAsked, notice: Notice, error: RequestError, *, id_: str, created: int,
        session: Session | None = None,
    ) -> Reply:  # fmt: skip
        self._metrics.ended(self.label(asked.twin), str(error.status))
        more = {
            "sessionId": session.id if session is not None else None, "twin": asked.twin, "answered": False,
            "error": error.to_dict(), "notice": notice.to_dict(),
        }  # fmt: skip
        return Reply(
            id=id_, created=created, twin=asked.twin, notice=notice.shown,
            choices=[Choice(text=NOBODY, finish_reason="stop")], tokens=None, more=more, headers={},
        )  # fmt: skip

    async def _record(self, exchange: Exchange | None) -> None:
        if exchange is not None:
            await self._recording.exchange(exchange, wait_seconds=RECORD_SECONDS)

    def _why_nobody(self, twin: str, replies: Replies) -> RequestError:
        reasons = [failure.reason for failure in replies.failures]
        if not reasons or all(reason is Reason.BUSY for reason in reasons):
            return overloaded(f"all miners of twin {twin!r} have too much to do: come back soon", retry_after=5)
        if all(reason is Reason.REFUSED for reason in reasons):
            return RequestError(
                400, "invalid_request_error",
                f"all miners of twin {twin!r} refuse this question: it may be too long for the model, or have fields "
                "that it doesn't take",
                code="refused_by_miners",
            )  # fmt: skip
        return self._nobody(twin, f"{len(reasons)} miners were asked, and none gave an answer that is proven")

    def _nobody(self, twin: str, why: str) -> RequestError:
        age = self._roster.age_seconds
        old = f"; the list of miners is {age / 60:.0f} min old, since the chain can't be read" if age > 600 else ""
        if age == float("inf"):
            old = "; no list of miners could be read from the chain yet"
        return unavailable(
            f"nobody could answer for twin {twin[:100]!r}: {why}{old}. Nothing was said in the doctor's name: please "
            "ask again in a moment",
            retry_after=5,
            code="no_answer",
        )

    def label(self, twin: str) -> str:
        """Return the metric's label for a twin: none for a name that a client may have made up."""
        return twin if twin in self._seen else ""


def _with_facts(messages: Sequence[Mapping[str, Any]], patient: Patient | None) -> Sequence[Mapping[str, Any]]:
    """Return a conversation in which what is known of the patient was said just before the last answer.

    A bump on the head is another thing for who takes warfarin. It is none of the newest message's words.
    """
    if patient is None or not (facts := patient.told()):
        return messages
    said: Mapping[str, Any] = {"role": "user", "content": facts}
    newest = len(messages)
    while newest > 0 and messages[newest - 1].get("role") != "assistant":
        newest -= 1
    if newest == 0:
        return [said, {"role": "assistant", "content": ""}, *messages]
    return [*messages[: newest - 1], said, *messages[newest - 1 :]]


def provenance(best: Compared) -> dict[str, Any]:
    """Return who gave an answer, by which weights, and the receipt that proves it."""
    return {
        "answerId": best.answer_id,
        "miner": {
            "hotkey": best.member.hotkey, "uid": best.member.uid, "registeredAt": best.member.identity.registered_at
        },
        "adapter": best.words.receipt.adapter,
        "servedName": _version(best),
        "score": round(best.score, 3),
        "receipt": best.words.encoded,
    }  # fmt: skip


def ranking(compared: Sequence[Compared], failures: Sequence[Failed]) -> list[dict[str, Any]]:
    """Return how each miner that was asked did, the best first; behind them whose answer can't be used, and why."""
    ranked: list[dict[str, Any]] = [
        {
            "uid": each.member.uid, "hotkey": each.member.hotkey, "score": round(each.score, 3),
            "seconds": round(each.seconds, 3), **({"heldBack": "playsDown"} if each.held_back else {}),
        }
        for each in compared
    ]  # fmt: skip
    return ranked + [
        {
            "uid": each.member.uid, "hotkey": each.member.hotkey, "failure": each.reason.value,
            "seconds": round(each.seconds, 3),
        }
        for each in failures
    ]  # fmt: skip


def _version(answer: Compared) -> str:
    receipt = answer.words.receipt
    return names.served_name(receipt.twin, receipt.adapter) if receipt.adapter is not None else receipt.base.name

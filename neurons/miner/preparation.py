"""What a chat needs before its body is written: its twin's lessons, and a length that fits the pod's context."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from weakref import WeakSet

import orjson

from neurons.miner import history, pod_answers
from neurons.miner.asked import first_asked
from neurons.miner.attempt import Attempt
from neurons.miner.chat import ChatRequest
from neurons.miner.errors import bad_request
from neurons.miner.history import Rounds, Shortened
from neurons.miner.lessons import Lessons
from neurons.miner.metrics import Metrics
from neurons.miner.tables import Pod, TwinRoute, VersionRoute
from neurons.miner.upstream import AnswerTooLargeError, BrokeOffError, ConnectFailedError, Upstream

log = logging.getLogger(__name__)

HISTORY_HEADER: Final = "x-twin-history"
LESSONS_HEADER: Final = "x-twin-lessons"
COUNT_SECONDS: Final = 2.0
"""Longest wait for a count of tokens; without one, bytes count."""
COUNT_PATH: Final = "/tokenize"
TRIES: Final = 6
PROMPT_SHOWING: Final = ("prompt_logprobs", "return_token_ids")
"""With these an engine says the prompt itself, token by token."""
SUMMARY_PART: Final = 8
"""One part in so many of the room is for what is kept of the messages left out."""
_AT_ONCE_BYTES: Final = 32 * 1024
TOKEN_BYTES: Final = 4
"""As a rule. What comes of it is counted."""


class Preparation:
    """Prepares the chats of one miner; what it adds is told in the attempt's `told`."""

    def __init__(self, upstream: Upstream, lessons: Lessons | None, metrics: Metrics, *, history: bool) -> None:
        """Without `lessons`, prompts hold none; without `history`, the engine sees all of a conversation."""
        self._shortens = history
        self._upstream, self._lessons, self._metrics = upstream, lessons, metrics
        self._uncounting: WeakSet[Pod] = WeakSet()
        """Pods whose engine has no such route."""

    async def teach(self, attempt: Attempt) -> None:
        """Find the lessons of the attempt's twin, once for each twin that it meets: by its UID, never by its name."""
        asked, twin = attempt.asked, attempt.twin
        if self._lessons is None or not isinstance(asked, ChatRequest) or attempt.taught == twin.uid:
            return
        attempt.taught = twin.uid
        if not self._lessons.has(twin.uid):
            if asked.lessons:
                asked.teach(())
                attempt.told.pop(LESSONS_HEADER, None)
            return
        found = await self._lessons.find(twin.uid, asked.turns)
        if found and (name := first_asked(asked.document, PROMPT_SHOWING)) is not None:
            raise bad_request(
                f"`{name}` is not taken for this question: it would show the prompt, in which the doctor's corrections "
                "quote what others asked. Leave it out",
                param=name,
            )
        asked.teach(found)
        asked.shown = None
        attempt.told.pop(LESSONS_HEADER, None)
        if found:
            attempt.told[LESSONS_HEADER] = str(len(found))

    def lessons_of(self, twin: TwinRoute) -> str | None:
        """Return the digest of a twin's lessons, None for none."""
        return self._lessons.digest(twin.uid) if self._lessons is not None else None

    async def fit(self, attempt: Attempt, pod: Pod, version: VersionRoute) -> None:
        """Shorten what this pod's context doesn't hold; raises RequestError (400) where nothing helps."""
        asked, context = attempt.asked, pod.context
        if context is None or not self._shortens or not isinstance(asked, ChatRequest):
            return
        if attempt.transcript is not None:
            return
        room = context - history.answer_room(asked.asked_tokens, context)
        tools = "tools" in asked.document or "functions" in asked.document
        size = asked.size + _length(attempt.twin.system_message) + len((asked.closing or "").encode())
        if history.bound(size, len(asked.turns), tools=tools) <= room:
            if asked.shown is not None:  # another pod holds less
                asked.shown = None
                attempt.told.pop(HISTORY_HEADER, None)
            return
        if attempt.fitted == (attempt.twin, context, asked.closing) or history.has_images(asked.turns):
            return
        await self._shorten(_Fitting(attempt, asked, pod, version, context, room, tools))
        attempt.fitted = (attempt.twin, context, asked.closing)

    async def _shorten(self, fitting: _Fitting) -> None:
        attempt, asked, room = fitting.attempt, fitting.asked, fitting.room
        asked.shown = None
        attempt.told.pop(HISTORY_HEADER, None)
        size, exact = await self._size(fitting, asked.turns)
        if size <= room:
            return
        rounds = Rounds.of(asked.turns)
        last = len(rounds.rounds) - 1
        cut = min(last, max(1, rounds.cut_for(room, size=size))) if room > 0 else last
        summary = max(0, room // SUMMARY_PART) * TOKEN_BYTES
        for tried in range(TRIES):
            if last < 1:
                break
            shortened = await _shortened(rounds, cut, summary_bytes=summary, size=asked.size)
            size, exact = await self._size(fitting, shortened.turns)
            if size <= room:
                self._settle(fitting, shortened)
                return
            if cut < last:
                # First rounds, by halves and then all: of what they said, the summary keeps what may harm.
                cut = last if tried >= TRIES - 3 else cut + (last - cut + 1) // 2
            elif summary:
                summary = summary // 4 if summary > 64 else 0
            else:
                break
        least = await _shortened(rounds, max(0, last), summary_bytes=0, size=asked.size)
        size, exact = await self._size(fitting, least.turns)
        if size > room and asked.lessons:
            # What the patient asks comes before what helps to answer it.
            asked.teach(())
            attempt.told.pop(LESSONS_HEADER, None)
            size, exact = await self._size(fitting, least.turns)
        if size > room and exact:
            self._metrics.histories.labels("too_long").inc()
            raise bad_request(
                f"the newest message, with the system's, has {size} tokens; with {fitting.context - room} for the "
                f"answer that is more than the {fitting.context} that this pool's model takes: shorten the message, "
                "or ask for fewer `max_tokens`",
                param="messages",
                code="context_length_exceeded",
            )
        if least.dropped or least.summarised:
            self._settle(fitting, least)

    def _settle(self, fitting: _Fitting, shortened: Shortened) -> None:
        fitting.asked.shown = shortened.turns
        fitting.attempt.told[HISTORY_HEADER] = shortened.told()
        self._metrics.histories.labels("summarised" if shortened.summarised else "dropped").inc()
        self._metrics.left_out.inc(shortened.summarised + shortened.dropped)

    async def _size(self, fitting: _Fitting, turns: list[Any]) -> tuple[int, bool]:
        """Return a prompt's length in tokens, and whether the engine counted it; otherwise it is the bytes' bound."""
        attempt, asked = fitting.attempt, fitting.asked
        messages = asked.messages_for(attempt.twin, attempt.manner, turns)
        if fitting.pod not in self._uncounting:
            document = {"model": fitting.version.served_name, "messages": messages}
            for name in ("tools", "chat_template_kwargs"):
                if name in asked.document:
                    document[name] = asked.document[name]
            counted = await self._count(fitting.pod, document, attempt.headers)
            if counted is not None:
                return counted, True
        return history.bound(len(orjson.dumps(messages)), len(messages), tools=fitting.tools), False

    async def _count(self, pod: Pod, document: dict[str, Any], headers: Mapping[str, str]) -> int | None:
        """Return how many tokens a prompt has, None where the engine doesn't say."""
        reply = None
        try:
            async with asyncio.timeout(COUNT_SECONDS):
                url = pod.url.with_path(COUNT_PATH)
                reply = await self._upstream.post(url, orjson.dumps(document), headers)
                answer = await reply.whole()
        except (TimeoutError, ConnectFailedError, BrokeOffError, AnswerTooLargeError):
            return None
        finally:
            if reply is not None:
                reply.close()
        if reply.status in (404, 405, 501):
            self._uncounting.add(pod)
            log.info("this pod counts no tokens; bytes count instead", extra={"pod": pod.name})
        count = pod_answers.document_of(answer).get("count") if reply.status == 200 else None
        return count if isinstance(count, int) and not isinstance(count, bool) else None


@dataclass(frozen=True, slots=True)
class _Fitting:
    """One conversation and where it goes."""

    attempt: Attempt
    asked: ChatRequest
    pod: Pod
    version: VersionRoute
    context: int
    room: int
    """Tokens that the prompt may have."""
    tools: bool


async def _shortened(rounds: Rounds, cut: int, *, summary_bytes: int, size: int) -> Shortened:
    """Shorten; what is long in a thread, as reading a megabyte for what may harm takes a second, and others wait."""
    if size <= _AT_ONCE_BYTES:
        return rounds.shortened(cut, summary_bytes=summary_bytes)
    return await asyncio.to_thread(rounds.shortened, cut, summary_bytes=summary_bytes)


def _length(message: dict[str, str] | None) -> int:
    return len(message["content"].encode()) if message is not None else 0

"""Give the best of several answers that one engine draws at once, in the time that there is.

Candidates are what is complete by the budget, or when those that are missing have become stragglers. Where nothing is
complete by then, the one that is furthest is given as it comes. Whatever is late or fails is left out; the request to
the engine is closed with the choice, which ends all the others.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from math import inf
from typing import Final

import orjson
from aiohttp import web

from bettertherapy_api import names
from neurons.candidates import Choice, Question
from neurons.miner.attempt import Attempt
from neurons.miner.drawing import Drawing, Undrawn
from neurons.miner.pod_answers import TryElsewhere
from neurons.miner.race import Race, Track
from neurons.miner.tables import Pod, VersionRoute
from neurons.miner.transcript import Transcript
from neurons.miner.upstream import BrokeOffError, Reply

log = logging.getLogger(__name__)

MIN_CHOOSING_SECONDS: Final = 0.5
"""What scorers have at least, also where the budget is used up."""
COMPARING: Final = b": comparing\n\n"
"""A comment of the event stream's, which clients pass over."""

Begin = Callable[[Attempt, dict[str, str]], Awaitable[None]]
"""Begins the client's stream, once."""
Write = Callable[[Attempt, VersionRoute, Transcript, bytes], Awaitable[None]]
"""Forwards whole lines of a stream."""
Whole = Callable[[bytes, dict[str, str]], web.StreamResponse]
"""Returns a whole answer as the client's."""


class BestOf:
    """One comparison."""

    def __init__(
        self, drawing: Drawing, attempt: Attempt, pod: Pod, version: VersionRoute, *, reply: Reply,
        draws: int, headers: dict[str, str],
    ) -> None:  # fmt: skip
        self._drawing, self._attempt, self._pod, self._version = drawing, attempt, pod, version
        self._reply, self._headers = reply, headers
        self._draws, self._race = draws, Race(draws)
        self._asked_at = time.monotonic()
        self._until = attempt.started + drawing.pace.budget
        self._quiet_until = self._asked_at + drawing.pace.keep_alive
        self._broke = ""
        self._ended = False
        self._half_at: float | None = None

    async def answer(self, first: bytes, *, begin: Begin, write: Write, whole: Whole) -> web.StreamResponse:
        """Return the client's answer; raises TryElsewhere when the pod brought none to its end."""
        self._race.read(first)
        live = await self._gather(begin)
        if live is None:
            finished = self._race.finished()
            if not finished:
                self._drawing.metrics.draws.labels("failed").inc()
                failed = self._race.failed
                if failed is not None and failed.status < 500 and self._attempt.transcript is None:
                    raise Undrawn
                raise self._failure()
            self._reply.close()  # the engine has other things to do than what is late
            choice = await self._choose(finished, begin)
            live = self._race.tracks[choice.candidate.index]
            self._count(live)
        return await self._give(live, begin=begin, write=write, whole=whole)

    # --- waiting

    async def _gather(self, begin: Begin) -> Track | None:
        """Wait for candidates; return the one that is to be forwarded before it is complete, None to choose."""
        while not (self._race.over or self._ended):
            limit = self._limit()
            late = time.monotonic() >= limit
            if late and any(track.text for track in self._race.finished()):
                return None
            if late and self._attempt.asked.stream and (track := self._race.furthest()) is not None:
                self._drawing.metrics.draws.labels("live").inc()
                return track
            await self._read(begin, until=inf if late else limit)
        return None

    def _limit(self) -> float:
        """Return when the choice is made, whatever is missing."""
        # An empty answer comes at once: what it took says nothing of the others.
        if self._half_at is None and 2 * sum(bool(track.text) for track in self._race.finished()) >= self._draws:
            self._half_at = time.monotonic()
        if self._half_at is None:
            return self._until
        patience = self._drawing.pace.patience
        return min(self._until, self._asked_at + patience * (self._half_at - self._asked_at))

    async def _read(self, begin: Begin, *, until: float) -> None:
        """Take what comes next, until then at most; let the client know that somebody is there."""
        wake = min(until, self._quiet_until) if self._attempt.asked.stream else until
        try:
            async with asyncio.timeout(max(0.0, wake - time.monotonic()) if wake < inf else None):
                data = await self._reply.chunk()
        except TimeoutError:
            await self._keep_alive(begin)
            return
        except BrokeOffError as error:
            self._broke = "the engine pod broke off"
            self._pod.failed(time.monotonic())
            log.warning("pod broke off in a stream", extra={"pod": self._pod.name, "reason": str(error)})
            data = b""
        if data:
            self._race.read(data)
        if not data or self._race.damaged:
            self._race.end()
            self._ended = True

    async def _keep_alive(self, begin: Begin) -> None:
        now = time.monotonic()
        if not self._attempt.asked.stream or now < self._quiet_until:
            return
        self._quiet_until = now + self._drawing.pace.keep_alive
        await begin(self._attempt, self._with_count())
        await self._attempt.outlet.keep_alive(COMPARING)

    def _failure(self) -> TryElsewhere:
        """Return why nothing came of it; the next engine is asked for one answer."""
        failed = self._race.failed
        if failed is not None:
            self._attempt.broken_code = str(failed.status)
            return TryElsewhere("error_event", began=True, why="the engine failed")
        return TryElsewhere("stream", began=True, why=self._broke or "the engine ended it before it was done")

    # --- choosing

    async def _choose(self, finished: list[Track], begin: Begin) -> Choice:
        asked = self._attempt.asked
        question = Question(text=asked.last_said(), sources=asked.sources)
        seconds = max(MIN_CHOOSING_SECONDS, self._until - time.monotonic())
        choosing = asyncio.create_task(
            self._drawing.chooser.choose(question, [track.candidate() for track in finished], seconds=seconds)
        )
        try:
            while not choosing.done():
                quiet = max(0.01, self._quiet_until - time.monotonic()) if asked.stream else None
                await asyncio.wait({choosing}, timeout=quiet)
                if not choosing.done():
                    await self._keep_alive(begin)
            return choosing.result()
        finally:
            choosing.cancel()

    def _count(self, chosen: Track) -> None:
        metrics, tracks = self._drawing.metrics, self._race.tracks
        finished = self._race.finished()
        metrics.draws.labels("compared" if len(finished) > 1 else "one_complete").inc()
        metrics.candidates.labels("complete").inc(len(finished))
        metrics.candidates.labels("missing").inc(max(0, len(tracks) - len(finished)))
        metrics.chosen.labels(str(chosen.index)).inc()
        metrics.comparing_seconds.observe(time.monotonic() - self._asked_at)

    def _with_count(self) -> dict[str, str]:
        return {**self._headers, names.CANDIDATES_HEADER: str(max(1, len(self._race.tracks)))}

    # --- giving

    async def _give(self, track: Track, *, begin: Begin, write: Write, whole: Whole) -> web.StreamResponse:
        race, attempt, version = self._race, self._attempt, self._version
        if not attempt.asked.stream:
            drawn = {"drawn": len(race.tracks), "complete": len(race.finished()), "chosen": track.index}
            document = {**version.model.told(candidates=drawn), **race.document(track)}
            return whole(orjson.dumps(document), {**self._with_count(), "Content-Type": "application/json"})
        await begin(attempt, self._with_count())
        transcript = attempt.transcript
        if transcript is None:
            raise RuntimeError("no stream has begun")
        forwarded = 0
        while True:
            if lines := race.events(track, forwarded):
                forwarded = len(track.events)
                await write(attempt, version, transcript, lines)
            if track.strange:
                raise TryElsewhere("error_event", began=True, why="the engine stopped in the middle")
            if race.done or track.finish is not None:
                break
            if race.failed is not None or self._ended:
                raise self._failure()
            await self._read(begin, until=inf)
        await write(attempt, version, transcript, race.closing(track, usage=attempt.asked.wants_usage()))
        await attempt.outlet.end()
        return attempt.outlet.response

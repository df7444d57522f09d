"""The base model's known answers: taken when an engine process begins, asked again to see whether it is still sound.

An engine whose arithmetic is spoilt (one adapter that is not finite is enough) stays up, healthy and quick, and answers
nonsense under every name. Only its answers tell. There are engines whose base model answers rightly alone, and with
another's weights beside an adapter (vLLM 0.32 on a CPU does, unless it was mended): so an adapter is asked at the same
time, soon after each that is loaded, and before the pod is Ready.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Final

from neurons.agent.engine import EngineAnswer, EngineError, EngineSilent
from neurons.agent.measuring import Measuring, Unmeasurable
from neurons.agent.monitor import EngineMonitor
from neurons.agent.notes import KeptAnswers, Notes
from neurons.agent.places import Position, forced
from neurons.agent.traffic import Traffic

log = logging.getLogger(__name__)

KNOWN_TEXT: Final = (311, 857, 402, 119, 640, 233, 918, 505, 176, 729, 388, 261, 947, 590, 134, 816, 473)
"""Token ids that any vocabulary has. What they mean does not matter: the model has an opinion of each."""
KNOWN: Final = forced(KNOWN_TEXT)[:8]
"""What the base model is asked. Short prefixes, so it costs an idle engine milliseconds."""
CHECK_SECONDS: Final = 30.0
LEAST_NOISE: Final = 0.002
"""Nats: below this nothing is told apart, however still the engine seems."""
AT_ONCE: Final = 2
"""So many processes in a row are ended at once; those after them later and later."""
PAUSE_SECONDS: Final = 30.0
MOST_PAUSE_SECONDS: Final = 1800.0
_RETRY_SECONDS: Final = 0.5
_REST_SECONDS: Final = 0.05
_REST: Final = 4.0
"""After a look so many times as long as it took there is none, however many adapters were loaded meanwhile."""
_SPOILT_NATS: Final = 0.5
_SPOILT_NOISES: Final = 8.0
_BUSY: Final = (429, 503)
_REFUSALS: Final = (400, 405, 422, 501)
"""What a server answers that doesn't take such a question; any other error may be gone in a moment."""
_TRIES: Final = 3
"""So many times in a row a server says that it can't be asked before it is believed."""


class Health(Enum):
    """What a look at the base model says."""

    SOUND = "sound"
    SPOILT = "spoilt"
    UNKNOWN = "unknown"
    """It gave no answer, or its known answers aren't taken yet: ask again before anybody is judged."""
    UNASKABLE = "unaskable"
    """It can't be asked such things."""


@dataclass(frozen=True)
class Calibration:
    """What the base model of one engine process said at its beginning."""

    epoch: int
    values: tuple[float, ...]
    """Nats, one for each of KNOWN; empty where the server can't be asked."""
    noise: float
    """Nats: how far two answers to the same question are apart on average, asked alone and among others."""


class KnownAnswers:
    """Follows one engine; `run` never returns."""

    def __init__(
        self,
        measuring: Measuring,
        monitor: EngineMonitor,
        traffic: Traffic,
        notes: Notes,
        *,
        can_restart: bool,
        check_seconds: float = CHECK_SECONDS,
    ) -> None:
        self._measuring = measuring
        self._monitor = monitor
        self._traffic = traffic
        self._notes = notes
        self._can_restart = can_restart
        self.check_seconds = check_seconds
        self._calibration: Calibration | None = None
        self._lock = asyncio.Lock()
        self._sound_at = -math.inf
        self._wanted_at = self._looked_at = -math.inf
        self._wanted = asyncio.Event()
        self.beside: Callable[[], str | None] = lambda: None
        """Served name of an adapter that may be asked at the same time as the base model."""
        self.looked: Callable[[], None] = lambda: None
        """Called after each look that tells something."""
        self.checks = 0
        """Looks at the base model so far."""

    @property
    def taken(self) -> bool:
        """Whether this process's known answers are there."""
        return self._calibration is not None and self._calibration.epoch == self._monitor.epoch

    @property
    def settled(self) -> bool:
        """Whether the base model was looked at since the last adapter came."""
        return self._looked_at >= self._wanted_at

    def look_soon(self) -> None:
        """Look at the base model again, beside an adapter: there is another one in the engine."""
        self._wanted_at = time.monotonic()
        self._wanted.set()

    def explain(self) -> None:
        """Take note that an adapter is to blame for the last condemnation: the next process may begin at once."""
        self._notes.explain()
        self._monitor.end_now()

    def history(self) -> str | None:
        """Return what is wrong with one engine process after another, None when nothing is."""
        times = self._notes.condemned_in_a_row
        if times <= AT_ONCE:
            return None
        return (
            f"{times} engine processes in a row began to answer wrongly, and no adapter was found that does it: look "
            "at the engine's log; perhaps its image (spec.engine.image) computes wrongly beside adapters, or the "
            "hardware is broken"
        )

    async def run(self) -> None:
        """Look at the base model for ever."""
        while True:
            await self._monitor.wait_up()
            self._wanted.clear()
            began = time.monotonic()
            health = Health.UNKNOWN
            with suppress(EngineError):
                if not self.taken:
                    await self.calibrated()
                    await self.check(within_seconds=self.check_seconds)  # those that an earlier agent took, at once
                elif (health := await self.check(beside=self.beside())) is Health.UNASKABLE:
                    await self._retake()
            if health is not Health.UNKNOWN:
                self._looked_at = began
                self.looked()
            # A look that an engine never answered tells nothing, and costs the next process of it nothing.
            rest = 0.0 if health is Health.UNKNOWN else _REST * (time.monotonic() - began)
            await asyncio.sleep(min(max(_REST_SECONDS, rest), self.check_seconds))
            with suppress(TimeoutError):
                async with asyncio.timeout(self.check_seconds if self.taken and self.settled else _RETRY_SECONDS):
                    await self._wanted.wait()

    async def calibrated(self) -> Calibration:
        """Return this process's calibration, taken now if there is none yet; raises EngineError.

        An agent that was restarted beside the engine goes on with the known answers of the agent before: what the base
        model says now may be nonsense already.
        """
        async with self._lock:
            if self._calibration is not None and self._calibration.epoch == self._monitor.epoch:
                return self._calibration
            epoch, process = self._monitor.epoch, self._monitor.process
            if self._can_restart and self._monitor.condemned:
                raise EngineSilent("the engine is being restarted")
            if self._can_restart and process is not None and process == self._notes.condemned:
                self._condemn("the base model's answers were wrong already when the agent before asked")
                raise EngineSilent("the engine is being restarted")
            kept = self._notes.known_answers
            if kept is not None and kept.process == process and len(kept.values) == len(KNOWN):
                log.info("going on with the known answers that an earlier agent took of this engine process")
                self._calibration = Calibration(epoch, kept.values, kept.noise)
                self._sound_at = -math.inf
                return self._calibration
            return await self._take(epoch, process)

    async def check(self, *, within_seconds: float = 0.0, beside: str | None = None) -> Health:
        """Ask the base model again, unless it was found sound within so many seconds; `beside` an adapter, or alone.

        When it is spoilt, the engine is condemned before this returns.
        """
        calibration = self._calibration
        if self._monitor.condemned and self._can_restart:
            return Health.SPOILT
        if calibration is None or calibration.epoch != self._monitor.epoch:
            return Health.UNKNOWN
        if not calibration.values:
            return Health.UNASKABLE
        if time.monotonic() - self._sound_at < within_seconds:
            return Health.SOUND
        for _ in range(2):  # one odd answer is no reason to stop an engine
            began = time.monotonic()
            health = await self._look(calibration, beside)
            if health is Health.SOUND:
                self._sound_at = began
                if beside is not None or self.beside() is None:  # alone, some are sound that aren't beside an adapter
                    self._monitor.acquit()
            if health is not Health.SPOILT:
                return health
        return await self._find_spoilt(calibration)

    async def _find_spoilt(self, calibration: Calibration) -> Health:
        """Condemn the engine, unless it is another process by now that answers as it does; return what it is."""
        try:
            if not self._can_restart:
                await self._monitor.look_who_answers()
        except EngineError:
            return Health.UNKNOWN
        if calibration.epoch != self._monitor.epoch:
            return Health.UNKNOWN
        self._condemn("the base model no longer answers a known question as it did")
        return Health.SPOILT

    async def _take(self, epoch: int, process: str | None) -> Calibration:
        began = time.monotonic()
        taken = await self._ask_patiently(epoch)
        self._calibration = taken
        self._sound_at = began if taken.values else -math.inf
        if taken.values and process is not None:
            self._notes.keep_known_answers(KeptAnswers(process=process, values=taken.values, noise=taken.noise))
        return taken

    async def _retake(self) -> None:
        """Ask a server again that couldn't be asked: it may be another by now."""
        async with self._lock:
            epoch, process = self._monitor.epoch, self._monitor.process
            if self._calibration is not None and self._calibration.epoch == epoch and not self._calibration.values:
                await self._take(epoch, process)

    async def _ask_patiently(self, epoch: int) -> Calibration:
        """Return the base model's answers, none where it says again and again that it can't be asked."""
        said: Exception | None = None
        for attempt in range(_TRIES):
            if attempt:
                await asyncio.sleep(_RETRY_SECONDS)
            if not self._monitor.up or self._monitor.epoch != epoch:
                raise EngineSilent("the engine went away while it was asked known questions")
            try:
                return await self._calibrate(epoch)
            except Unmeasurable as error:
                said = error
            except EngineAnswer as error:
                if error.status not in _REFUSALS or error.is_not_found:
                    raise
                said = error
        log.warning("the base model can't be asked known questions: %s", said)
        return Calibration(epoch, (), LEAST_NOISE)

    async def _calibrate(self, epoch: int) -> Calibration:
        name = self._measuring.base_name()
        together = await self._measuring.ask(name, KNOWN)
        fewer = await self._measuring.ask(name, KNOWN[:4])
        alone = await self._measuring.ask(name, KNOWN[:1])
        if not all(math.isfinite(value) for value in (*together, *fewer, *alone)):
            self._condemn("the base model's answers are not finite")
            raise EngineSilent("the base model's answers are not finite")
        if not any(together):
            return Calibration(epoch, (), LEAST_NOISE)  # --logprobs-mode is another; adapters say so
        apart = [abs(a - b) for a, b in zip((*together[:4], together[0]), (*fewer, *alone), strict=True)]
        noise = max(LEAST_NOISE, sum(apart) / len(apart))
        log.info("the base model's known answers are taken; noise %.1f milli-nats", noise * 1000)
        return Calibration(epoch, together, noise)

    async def _look(self, calibration: Calibration, beside: str | None) -> Health:
        self.checks += 1
        try:
            values = await self._ask_beside(beside)
        except EngineAnswer as error:
            return Health.UNKNOWN if error.status in _BUSY else Health.SPOILT
        except (EngineError, Unmeasurable):
            return Health.UNKNOWN  # silence is judged by progress
        return Health.SPOILT if is_spoilt(calibration, values) else Health.SOUND

    async def _ask_beside(self, name: str | None) -> tuple[float, ...]:
        """Return the base model's answers; the adapter of this name is asked for as long as that takes.

        What the adapter says is judged elsewhere. Asked but once, it may be done before the engine takes up the base
        model's questions, and the look would have been one at the base model alone.
        """
        model = self._measuring.base_name()
        if name is None:
            return await self._measuring.ask(model, KNOWN[:4])
        done = asyncio.Event()
        beside = [asyncio.create_task(self._ask_on(name, position, until=done)) for position in KNOWN[:4]]
        try:
            return await self._measuring.ask(model, KNOWN[:4])
        finally:
            done.set()  # a cancellation alone can be lost in what is awaited, and this would wait for ever
            for task in beside:
                task.cancel()
            await asyncio.wait(beside)

    async def _ask_on(self, name: str, position: Position, *, until: asyncio.Event) -> None:
        """Ask an adapter one question again and again, until it is no longer answered or need not be asked."""
        with suppress(EngineError, Unmeasurable):
            while not until.is_set():
                await self._measuring.ask(name, (position,))

    def _condemn(self, message: str) -> None:
        self._traffic.abort()  # their answers would be nonsense, and miners can ask another pod
        if not self._can_restart:
            log.error("%s; nobody here can restart the server", message)
            self._monitor.condemn(
                f"{message}: it is asked nothing until it does again. If another server answers at this address by "
                "now, delete this pod: the next one takes that one's answers"
            )
            return
        if self._monitor.process is not None:
            self._notes.condemn(self._monitor.process)
        later = self._notes.condemned_in_a_row - AT_ONCE
        pause = min(MOST_PAUSE_SECONDS, PAUSE_SECONDS * 2.0 ** min(later - 1, 30)) if later > 0 else 0.0
        if (history := self.history()) is not None:
            message += f": {history}. It takes no requests, and is restarted {pause:g} s after this was found"
        else:
            message += ": it is being restarted"
        log.error("%s", message)
        self._monitor.condemn(message, pause=max(0.0, pause - self._notes.condemned_seconds))


def is_spoilt(calibration: Calibration, values: Sequence[float]) -> bool:
    """Tell whether answers to the first of KNOWN are others than those at the beginning."""
    if not all(math.isfinite(value) for value in values):
        return True
    off = sum(abs(a - b) for a, b in zip(calibration.values, values, strict=False)) / len(values)
    return off > max(_SPOILT_NATS, _SPOILT_NOISES * calibration.noise)

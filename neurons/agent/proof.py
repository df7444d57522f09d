"""Proving one loaded adapter: its answers are finite, differ from the base model's, and are those of its own weights.

    finite? ──no──> the base model is asked: spoilt too? then the engine is restarted, and a digest that was being asked
       │            when two processes were spoilt is never loaded again (no other newcomer is asked meanwhile, and the
       │            base model was sound right before)
    differs from the base model? ──no──> NoEffect
       │
    likelier the child's than its parent's, the base's or anybody's? ──no──> FingerprintMismatch
       │
    without a recorded fingerprint: as at its first load beside this base model? ──no──> FingerprintMismatch

Before any blame the base model is asked for its known answers: an engine that is spoilt, or doesn't say, judges nobody.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from bettertherapy_api.manifest import AdapterManifest
from bettertherapy_api.report import FailureReason, Proof
from neurons.agent.engine import EngineAnswer
from neurons.agent.failure import Failure
from neurons.agent.fingerprint import Evidence, Opinion, Recorded, judge, leaning, mean_difference, rounds
from neurons.agent.known_answers import KNOWN, KNOWN_TEXT, Calibration, Health, KnownAnswers
from neurons.agent.measuring import Measuring, Unmeasurable
from neurons.agent.monitor import EngineMonitor
from neurons.agent.notes import FirstLoad, Notes
from neurons.agent.places import Position, forced, long_text

log = logging.getLogger(__name__)

_STANDARD_ROUNDS: Final = (KNOWN, forced(KNOWN_TEXT))
"""What an adapter without a recorded fingerprint is asked: more only when the first show nothing but the base."""
_EFFECT_NOISES: Final = 3.0
"""Mean difference from the base model, in units of the pool's noise, below which nothing is told apart."""
_LEAST_LEANING: Final = 0.25
"""Of the way from the base model's answers to the recorded ones: an adapter that goes so far has an effect."""
_FRESH_SECONDS: Final = 0.25
"""A base model that was sound so long ago is asked once for all newcomers that are asked one after another."""
_SAME_NATS: Final = 0.1
_SAME_NOISES: Final = 6.0
_SAME_SHIFTS: Final = 2.0
"""How much further than the base model beside it an adapter may be moved: by what moves that one, and of its own."""
_MOST_MILLI_NATS: Final = 1_000_000


@dataclass(frozen=True)
class Proven:
    """What an adapter's proof rests on."""

    proof: Proof
    milli_nats: int | None = None
    """Mean absolute difference to the recorded fingerprint."""
    measured: tuple[int, ...] | None = None
    """Milli-nats at the standard questions, when no fingerprint was recorded."""
    message: str | None = None
    """Why it is no better proof."""


class Prover:
    """Proves adapters of one engine."""

    def __init__(
        self, *, measuring: Measuring, known_answers: KnownAnswers, monitor: EngineMonitor, notes: Notes, local: bool
    ) -> None:
        self._measuring = measuring
        self._known_answers = known_answers
        self._monitor = monitor
        self._notes = notes
        self._local = local
        self._newcomers = asyncio.Lock()
        self._asked: set[str] = set()
        """Digests that were finite in an engine of this pod: asking them does it no harm."""
        self._doubted: set[str] = set()

    def doubt(self, digest: str) -> None:
        """Ask this adapter a long text too at its next load: it was in use when an engine of this pod was spoilt."""
        self._doubted.add(digest)
        self._asked.discard(digest)

    def refuse_known(self, digest: str) -> None:
        """Raise Failure for an adapter that has spoilt an engine of this pod before."""
        if (message := self._notes.spoilers.get(digest)) is not None:
            raise Failure(FailureReason.WEIGHTS_NOT_FINITE, message, retryable=False)

    async def prepare(self, digest: str) -> None:
        """Have the base model's answers taken before a newcomer comes into the engine; raises Failure, EngineError."""
        if digest not in self._asked:  # others are loaded while the base model's answers are taken
            await self._calibrated()

    async def prove(
        self, name: str, digest: str, manifest: AdapterManifest, *, forget: Callable[[], Awaitable[None]]
    ) -> Proven:
        """Return what was proven; raises Failure, after `forget` took the weights out, or EngineError."""
        try:
            return await self._prove_doubted(name, digest, manifest)
        except Unmeasurable as error:
            if not self._local:
                return Proven(Proof.UNPROVEN, message=_UNMEASURED)  # its listing is all there is
            raise EngineAnswer(200, "Unreadable", str(error)) from error
        except Failure as failure:
            if self._local and not failure.retryable:
                await forget()
            raise

    async def _prove_doubted(self, name: str, digest: str, manifest: AdapterManifest) -> Proven:
        """Prove it, and ask it the long text that showed something before, or one if there is a doubt."""
        proven = await self._prove(name, digest, manifest)
        number = self._notes.revealing.get(digest)
        if number is not None or digest in self._doubted:
            await self._ask_long(name, digest, number or 0)
            self._doubted.discard(digest)
        return proven

    async def look_again(self, name: str, digest: str, manifest: AdapterManifest, *, number: int) -> None:
        """Measure a verified adapter anew, after the long text of this number.

        Raises Failure, EngineError, Unmeasurable.
        A text that shows what shorter ones didn't is remembered, and asked before the adapter serves again.
        """
        await self._ask_long(name, digest, number)
        await self._prove(name, digest, manifest)

    async def _ask_long(self, name: str, digest: str, number: int) -> None:
        positions = long_text(number, most=self._monitor.max_model_length)
        bare = await self._answers(self._measuring.base(positions))
        if isinstance(bare, EngineAnswer) and bare.status not in (400, 422):
            raise _unasked(bare)
        if isinstance(bare, EngineAnswer) and not bare.is_not_finite:
            log.info("the engine takes no long text: %s", bare)
            return
        self._asked.discard(digest)  # asked alone, as a newcomer: the engine may be spoilt by it
        before = self._notes.suspects.get(digest)
        try:
            await self._both(name, digest, positions)
        except Failure as failure:
            known = failure.reason is FailureReason.WEIGHTS_NOT_FINITE
            if known or self._notes.suspects.get(digest) != before:
                self._notes.remember_revealing(digest, number)
            raise

    async def _prove(self, name: str, digest: str, manifest: AdapterManifest) -> Proven:
        calibration = await self._calibrated()
        recorded = rounds(manifest.fingerprint) if manifest.fingerprint is not None else None
        loaded: tuple[float, ...] = ()
        bare: tuple[float, ...] = ()
        if recorded is None:
            for positions in _STANDARD_ROUNDS:
                loaded, bare = await self._both(name, digest, positions)
                if _differs(loaded, bare, calibration.noise):
                    return await self._first_load(name, digest, loaded, bare, calibration)
            raise await self._blame(name, FailureReason.NO_EFFECT, _NO_EFFECT)
        asked: list[Recorded] = []
        opinion = Opinion.UNSURE
        for part in recorded:
            more, plain = await self._both(name, digest, [entry.position for entry in part])
            asked, loaded, bare = [*asked, *part], loaded + more, bare + plain
            opinion = judge(Evidence(asked, loaded, bare, calibration.noise, complete=part is recorded[-1]))
            if opinion is not Opinion.UNSURE:
                break
        off = mean_difference([entry.child for entry in asked], loaded)
        milli_nats = min(round(off * 1000), _MOST_MILLI_NATS)
        if opinion is Opinion.CHILD and _tells_of_parent(manifest):
            return Proven(Proof.FINGERPRINT, milli_nats)
        if opinion is Opinion.CHILD:
            return Proven(Proof.UNPROVEN, milli_nats, message=_PARENT_UNKNOWN)
        noise = await self._noise_now([entry.position for entry in asked], bare)
        still = not _differs(loaded, bare, calibration.noise)
        # On a coarse kernel a busy base model is as far from itself as from the adapter; only the direction tells then.
        lost = not _differs(loaded, bare, noise) and leaning(asked, loaded, bare) < _LEAST_LEANING
        if still or lost:
            raise await self._blame(name, FailureReason.NO_EFFECT, _NO_EFFECT, milli_nats)
        if opinion is Opinion.UNSURE:
            return Proven(Proof.UNPROVEN, milli_nats, message=_UNSURE)
        text = _MISMATCH[opinion].format(off=off)
        raise await self._blame(name, FailureReason.FINGERPRINT_MISMATCH, text, milli_nats)

    async def _first_load(
        self, name: str, digest: str, loaded: Sequence[float], bare: Sequence[float], calibration: Calibration
    ) -> Proven:
        """Take the fingerprint of an adapter that has none, or compare it with the one taken at its first load.

        One that was taken beside another base model (as that of a server which another has taken the place of) is no
        measure for this one; but it stays, for when that server comes back.
        """
        loaded, bare = tuple(loaded[: len(KNOWN)]), tuple(bare[: len(KNOWN)])
        known = self._notes.first_loads.get(digest, ())
        before = min(known, key=lambda first: mean_difference(first.base, bare), default=None)
        most = max(_SAME_NATS, _SAME_NOISES * calibration.noise)
        shift = mean_difference(before.base, bare) if before is not None else 0.0
        if before is None or shift > most:
            health = await self._known_answers.check()
            if health is Health.SPOILT:
                raise _unsound()
            if health is not Health.SOUND:
                return Proven(Proof.UNPROVEN, message=_UNTRUSTED)
            self._notes.remember_first_load(digest, FirstLoad(loaded=loaded, base=bare))
        else:
            off = mean_difference(before.loaded, loaded)
            if off > most + _SAME_SHIFTS * shift:
                text = (
                    f"the loaded weights are {off:.2f} nats off what the same adapter measured at its first load in "
                    "this pod: they are not the weights that were loaded then. Push the adapter again."
                )
                raise await self._blame(name, FailureReason.FINGERPRINT_MISMATCH, text, round(off * 1000))
        return Proven(Proof.FIRST_LOAD, None, tuple(round(value * 1000) for value in loaded))

    async def _both(
        self, name: str, digest: str, positions: Sequence[Position]
    ) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return the adapter's and the base model's values, all finite; raises Failure."""
        async with self._alone(digest) as newcomer:
            if newcomer:
                _accept(await self._known_answers.check(within_seconds=_FRESH_SECONDS))
            if self._monitor.condemned:
                raise _unsound()
            process = self._monitor.process
            bare, loaded = await asyncio.gather(
                self._answers(self._measuring.base(positions)), self._answers(self._measuring.ask(name, positions))
            )
            if isinstance(bare, EngineAnswer):
                raise await self._refusal(bare) from bare
            if isinstance(loaded, EngineAnswer):
                if loaded.status not in (400, 422) or loaded.is_not_found:
                    raise loaded
                loaded = (math.nan,)  # the base model answers the same: it is not the question that is bad
            if all(math.isfinite(value) for value in loaded) and all(math.isfinite(value) for value in bare):
                self._asked.add(digest)
                if not any(loaded):
                    raise Failure(FailureReason.ENGINE_REFUSED, _CERTAIN, retryable=False, epoch=self._monitor.epoch)
                return loaded, bare
            health = await self._known_answers.check()
            # Who looks at the base model anyway may have found it first, and the next process be there by now.
            spoilt = health is Health.SPOILT or (process is not None and process == self._notes.condemned)
            if newcomer and spoilt:
                raise self._suspect(digest, process)
            _accept(health)
            if all(math.isfinite(value) for value in loaded):
                raise _unasked()  # the base model alone gave no number, and is sound again
            raise Failure(FailureReason.WEIGHTS_NOT_FINITE, _NOT_FINITE, retryable=False, epoch=self._monitor.epoch)

    def _suspect(self, digest: str, process: str | None) -> Failure:
        """Return what to say of a newcomer during whose questions an engine process was spoilt.

        The engine may have broken by itself in that moment, so the next process asks it once more, and no third.
        """
        before = self._notes.suspects.get(digest)
        self._known_answers.explain()
        if before is None or before == process:
            self._notes.suspect(digest, process or "")
            return Failure(FailureReason.ENGINE_UNREACHABLE, _SUSPECT, retryable=True)
        self._notes.remember_spoiler(digest, _SPOILER)
        return Failure(FailureReason.WEIGHTS_NOT_FINITE, _SPOILER, retryable=False)

    async def _calibrated(self) -> Calibration:
        try:
            return await self._known_answers.calibrated()
        except EngineAnswer as error:  # of the base model, and nothing that an adapter has done
            raise _unasked(error) from error

    async def _noise_now(self, positions: Sequence[Position], bare: Sequence[float]) -> float:
        """Return how far the base model is from its own earlier values at these places: a busy engine rounds otherwise.

        The calibration was taken when nothing ran, and at other places. Values that are no numbers tell nothing.
        """
        try:
            again = await self._measuring.ask(self._measuring.base_name(), positions)
        except EngineAnswer as error:
            raise await self._refusal(error) from error
        noise = mean_difference(bare, again)
        return noise if math.isfinite(noise) else 0.0

    async def _answers(self, work: Coroutine[Any, Any, tuple[float, ...]]) -> tuple[float, ...] | EngineAnswer:
        try:
            return await work
        except EngineAnswer as error:
            return error

    @asynccontextmanager
    async def _alone(self, digest: str) -> AsyncIterator[bool]:
        """Let newcomers be asked one after another, so that the one that spoils an engine is known."""
        if digest in self._asked:
            yield False
            return
        async with self._newcomers:
            yield True

    async def _refusal(self, error: EngineAnswer) -> Failure:
        """Return what the base model's refusal to be asked the fingerprint's questions means."""
        if error.status not in (400, 422) or error.is_not_found:
            return _unasked(error)
        text = (
            f"the engine refuses the fingerprint's text ({error.message[:200]}): the adapter was made for another "
            "model or another tokenizer. Train it on the pool's base model."
        )
        return await self._blame(None, FailureReason.FINGERPRINT_MISMATCH, text)

    async def _blame(
        self, name: str | None, reason: FailureReason, message: str, milli_nats: int | None = None
    ) -> Failure:
        """Return the verdict, unless the base model shows that the engine is to blame, or doesn't answer.

        It is asked beside the adapter of this name, as it was when the adapter was compared with it.
        """
        try:
            _accept(await self._known_answers.check(beside=name))
        except Failure as failure:
            return failure
        return Failure(reason, message, retryable=False, milli_nats=milli_nats, epoch=self._monitor.epoch)


def _tells_of_parent(manifest: AdapterManifest) -> bool:
    """Tell whether a parent's weights can be told from the adapter's: there is none, or what it answers is recorded."""
    fingerprint = manifest.fingerprint
    probes = fingerprint.probes if fingerprint is not None else None
    return manifest.lineage.parent_digest is None or any(probe.parent is not None for probe in probes or ())


def _differs(loaded: Sequence[float], bare: Sequence[float], noise: float) -> bool:
    return mean_difference(bare, loaded) > _EFFECT_NOISES * noise


def _accept(health: Health) -> None:
    """Raise Failure unless something may be judged in an engine of this health."""
    if health is Health.SPOILT:
        raise _unsound()
    if health is Health.UNKNOWN:
        raise _unasked()


def _unsound() -> Failure:
    text = "the engine no longer answers as it did at its start and is being restarted. It is tried again."
    return Failure(FailureReason.ENGINE_UNREACHABLE, text, retryable=True)


def _unasked(error: EngineAnswer | None = None) -> Failure:
    said = f" ({error.status} {error.kind}: {error.message[:200]})" if error is not None else ""
    text = f"the base model answers no known questions at the moment{said}, so nothing is judged. It is tried again."
    return Failure(FailureReason.ENGINE_UNREACHABLE, text, retryable=True)


_CERTAIN: Final = (
    "the engine calls every token certain, so nothing can be told from its log-probabilities: take --logprobs-mode out "
    "of the pool's engine.args."
)
_NO_EFFECT: Final = (
    "the loaded adapter answers exactly as the base model: its tensors bear names that this model has not, or its B "
    "matrices are zero (an adapter that was never trained). Save it with PEFT's save_pretrained and push it again."
)
_NOT_FINITE: Final = (
    "the adapter's answers are not finite: its weights hold NaN, infinite or far too large values. It was unloaded "
    "before any patient. Train it again with a lower learning rate."
)
_SUSPECT: Final = (
    "the engine began to answer nonsense while the adapter was asked for the first time, and is being restarted. The "
    "next engine process asks it once more: if that is spoilt too, this pod loads it no more."
)
_SPOILER: Final = (
    "the adapter's answers are not finite, and asking it spoilt two engine processes for every model: its weights hold "
    "NaN, infinite or far too large values. This pod loads it no more. Train it again."
)
_UNTRUSTED: Final = (
    "it serves, but no fingerprint was recorded, and the base model couldn't be asked whether the engine is sound when "
    "the adapter was loaded: nothing was taken that later loads could be compared with."
)
_MISMATCH: Final = {
    Opinion.PARENT: "the loaded weights answer as the adapter's parent, the version that it was trained from, not as "
    "the adapter ({off:.2f} nats off). Push the adapter again.",
    Opinion.BASE: "the loaded weights answer as the base model rather than as the adapter ({off:.2f} nats off). Push "
    "the adapter again and check the base model's revision.",
    Opinion.OTHER: "the loaded weights are {off:.2f} nats off the adapter's fingerprint: they are not the weights that "
    "were trained. Push the adapter again and check the base model's revision.",
}
_UNSURE: Final = (
    "it serves, but nothing tells it from the version that it was trained from, or from the base model, in this pool's "
    "noise: it learned too little, or the base model is quantized too coarsely."
)
_PARENT_UNKNOWN: Final = (
    "it serves, and answers as the adapter's record rather than as the base model; but its fingerprint doesn't say how "
    "the version answers that it was trained from, whose weights may pass for its own. Train it again to have one that "
    "does."
)
_UNMEASURED: Final = (
    "it serves, but the server at this pool's endpoint tells no log-probabilities of given tokens, so that only its "
    "list of models says which weights answer."
)

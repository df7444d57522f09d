"""The choice among candidates: the weighted mean of what the scorers say of each, whatever some of them fail to say."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from neurons.candidates.candidate import Candidate, Question, Scorer
from neurons.candidates.words import goes_round
from neurons.scoring.phrases import normalise

log = logging.getLogger(__name__)

_UNSCORED: Final = -1.0


@dataclass(frozen=True, slots=True)
class Weighted:
    """A scorer, its name in logs and metrics, and how much it counts."""

    name: str
    scorer: Scorer
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Choice:
    """The candidate that is given."""

    candidate: Candidate
    score: float | None
    """Weighted mean of the opinions, 0 to 1; None where nobody had one."""


class Chooser:
    """All scorers of one miner."""

    def __init__(
        self, scorers: Sequence[Weighted], *, failed: Callable[[str, str], None] = lambda name, why: None
    ) -> None:
        """`failed` is told a scorer's name and why it didn't count: error, late, nonsense."""
        self._scorers, self._failed = tuple(scorers), failed

    @property
    def needs_logprobs(self) -> bool:
        """Whether any of them reads log-probabilities."""
        return any(weighted.scorer.needs_logprobs for weighted in self._scorers)

    async def choose(self, question: Question, candidates: Sequence[Candidate], *, seconds: float) -> Choice:
        """Return the best of at least one candidate, within `seconds`; never raises for what a scorer does.

        An answer that came to its end goes before one that was cut off, which may lack its "but never"; then come those
        that go round in circles, those whose probabilities are no numbers, and those without a word. Where scores are
        equal the earlier in the list is given.
        """
        if not candidates:
            raise ValueError("no candidates, no choice")
        best_class = min(_class(candidate) for candidate in candidates)
        left = [candidate for candidate in candidates if _class(candidate) == best_class]
        if len(left) == 1:
            return Choice(left[0], None)
        opinions = await asyncio.gather(*(self._ask(each, question, left, seconds) for each in self._scorers))
        scores = [_mean(self._scorers, [said[number] for said in opinions]) for number in range(len(left))]
        best = max(range(len(left)), key=lambda number: (scores[number], -number))
        return Choice(left[best], scores[best] if scores[best] != _UNSCORED else None)

    async def _ask(
        self, weighted: Weighted, question: Question, candidates: Sequence[Candidate], seconds: float
    ) -> Sequence[float | None]:
        nothing: list[float | None] = [None] * len(candidates)
        try:
            async with asyncio.timeout(seconds):
                said = list(await weighted.scorer.score(question, candidates))
        except TimeoutError:
            why = "late"
        except Exception as error:  # noqa: BLE001 - a plug-in may do anything, and the patient gets an answer all the same
            # Its words may quote a patient's.
            log.warning("a scorer of candidates failed", extra={"scorer": weighted.name, "error": type(error).__name__})
            why = "error"
        else:
            if len(said) == len(candidates) and all(_is_opinion(one) for one in said):
                return said
            why = "nonsense"
        self._failed(weighted.name, why)
        return nothing


def _class(candidate: Candidate) -> int:
    if not normalise(candidate.text):
        return 4
    if candidate.logprobs is not None and not all(math.isfinite(value) for value in candidate.logprobs):
        return 3
    if goes_round(candidate.text):
        return 2
    return 0 if candidate.finish == "stop" else 1


def _is_opinion(said: object) -> bool:
    if said is None:
        return True
    return isinstance(said, int | float) and math.isfinite(said) and 0 <= said <= 1


def _mean(scorers: Sequence[Weighted], said: Sequence[float | None]) -> float:
    """Return the mean over all scorers; who has no opinion of this one counts neither for it nor against it."""
    given = [(each.weight, one) for each, one in zip(scorers, said, strict=True) if one is not None]
    weight = sum(each for each, _ in given)
    return sum(each * one for each, one in given) / weight if weight else _UNSCORED

"""What one answer is worth: correct, clear, no longer than needed, and honest about its sources. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from neurons.scoring.clarity import Measure, measure_clarity
from neurons.scoring.items import Choice, Rubric
from neurons.scoring.scorer import ScorerError, score_answer
from neurons.validator.rounds.challenges import Challenge

CLARITY_SHARE: Final = 0.2
"""Of an answer's worth; only of what is correct: who is wrong very clearly earns nothing by it."""
ROOM: Final = 1.5
"""So many times the length that is needed costs nothing."""
FABRICATED: Final = 0.0
"""What an answer is worth that quotes a source which doesn't say it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grade:
    """A value of 0 to 1, or None where nothing is known; `how` says by what it was found, or why it wasn't."""

    value: float | None
    how: str
    evidence: Mapping[str, Any] = field(default_factory=dict)


def grade_exactly(challenge: Challenge, answer: str) -> Grade | None:
    """Grade by the item alone: choices, gold answers, rubrics of phrases. None where that takes a judge."""
    if isinstance(challenge, Rubric) and not all(each.any for each in challenge.criteria):
        return None
    try:
        value = score_answer(challenge, answer)
    except ScorerError as error:
        return Grade(value=None, how=str(error))
    how = "choice" if isinstance(challenge, Choice) else "phrases"
    return Grade(value=value, how=how)


def grade_by_verdicts(challenge: Rubric, met: Sequence[bool | None]) -> Grade:
    """Grade a rubric by a judge's verdicts, in the criteria's order; one that is missing leaves it ungraded."""
    if len(met) != len(challenge.criteria):
        return Grade(value=None, how=f"the judge gave {len(met)} verdicts on {len(challenge.criteria)} criteria")
    if unknown := sum(each is None for each in met):
        return Grade(value=None, how=f"{unknown} of {len(met)} criteria have no verdict")
    achieved = sum(each.points for each, is_met in zip(challenge.criteria, met, strict=True) if is_met)
    possible = sum(each.points for each in challenge.criteria if each.points > 0)
    return Grade(value=min(1.0, max(0.0, achieved / possible)), how="rubric")


def needed_length(challenge: Challenge | None, others: Sequence[int]) -> int | None:
    """Return how many words an answer takes: the reference's, or the median of three answers or more; None: unknown."""
    if challenge is not None:
        reference = challenge.reference or getattr(challenge, "gold", None)
        if reference is not None:
            return max(1, len(reference.split()))
    if len(others) < 3:
        return None
    middle = sorted(others)
    half = len(middle) // 2
    return max(1, middle[half] if len(middle) % 2 else math.ceil((middle[half - 1] + middle[half]) / 2))


def grade_clarity(
    answer: str, *, language: str, needed: str | None, scores: Mapping[str, float] | None = None
) -> Grade:
    """Grade how clear an answer is, by what of it can be measured."""
    parts = measure_clarity(answer, language=language, needed=needed, scores=scores)
    # Length has a factor of its own, which takes more than this part could.
    known = [part for part in parts if part.value is not None and part.measure is not Measure.LENGTH]
    evidence = {part.measure.value: part.message for part in parts}
    if not known:
        return Grade(value=None, how="not measured", evidence=evidence)
    value = math.fsum(part.value or 0.0 for part in known) / len(known)
    return Grade(value=value, how="readability", evidence=evidence)


def length_factor(words: int, needed: int | None) -> float:
    """Return what is left of an answer's worth at its length, 0 to 1: padding earns nothing."""
    if needed is None or words <= ROOM * needed:
        return 1.0
    return ROOM * needed / words


def worth(correctness: float | None, clarity: float | None, *, length: float, fabricated: bool) -> float | None:
    """Return what an answer is worth, 0 to 1; None where nobody knows whether it is right."""
    if fabricated:
        return FABRICATED
    if correctness is None:
        return None
    clear = 1.0 if clarity is None else 1 - CLARITY_SHARE + CLARITY_SHARE * clarity
    return correctness * clear * length

"""Which of several proven answers is given.

What the ranker knows: how far answers by different owners agree in their words, whether an answer was cut, whether it
is oddly short or long beside the others, and how patients rated the miner before. What it doesn't know: medicine. Two
answers that agree can both be wrong, and a careful one can stand alone; rounds measure correctness, with sources and
judges, and `Ranker` is where a better judge is plugged in.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

MAX_CHARACTERS: Final = 8192
"""Of each answer; what stands behind them isn't compared."""
AGREEMENT: Final = 0.5
LENGTH: Final = 0.2
FINISHED: Final = 0.15
SATISFACTION: Final = 0.15
_WORD: Final = re.compile(r"[^\s.,;:!?()\[\]{}\"“”।*#|<>/]+")
"""Not by word characters: to Python the vowel signs of Devanagari are none."""
_UNKNOWN: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An answer as a ranker sees it."""

    text: str
    finish_reason: str
    owner: str
    """The miner's coldkey: one owner's miners don't confirm each other."""
    satisfaction: float
    """The miner's past ratings as 0..1, 0.5 where there are none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """An answer's score, 0..1, and what it is made of; a part that nothing is known of is None."""

    total: float
    parts: Mapping[str, float | None]


class Ranker(Protocol):
    """Scores answers; the highest is given. Pure and quick, since a patient waits: some milliseconds."""

    def scores(self, question: str, answers: Sequence[Candidate]) -> list[Score]:
        """Return each answer's score, in their order. `question` is the patient's last message."""


class AgreementRanker:
    """Agreement of words, length, finish and past ratings, in fixed shares."""

    def scores(self, question: str, answers: Sequence[Candidate]) -> list[Score]:
        """Return each answer's score; `question` isn't looked at."""
        del question
        if not answers:
            return []
        alike = _alike([answer.text for answer in answers])
        usual = _middle([len(answer.text) for answer in answers])
        made = []
        for number, answer in enumerate(answers):
            others = [
                alike[number][other]
                for other in range(len(answers))
                if other != number and answers[other].owner != answer.owner
            ]
            agreement = sum(others) / len(others) if others else None
            length = _length(len(answer.text), usual) if len(answers) > 2 else None
            finished = 1.0 if answer.finish_reason == "stop" else 0.0
            total = (
                AGREEMENT * _known(agreement)
                + LENGTH * _known(length)
                + FINISHED * finished
                + SATISFACTION * answer.satisfaction
            )
            parts = {
                "agreement": agreement, "length": length, "finished": finished, "satisfaction": answer.satisfaction
            }  # fmt: skip
            made.append(Score(total=total, parts=parts))
        return made


def _middle(numbers: list[int]) -> float:
    """Return the median; the standard library's takes longer than all else that is done with three answers."""
    numbers.sort()
    return (numbers[(len(numbers) - 1) // 2] + numbers[len(numbers) // 2]) / 2


def _alike(texts: Sequence[str]) -> list[list[float]]:
    """Return how far each two texts agree in their words, each pair looked at once, and equal texts as one."""
    distinct = list(dict.fromkeys(texts))
    if len(distinct) == 1:  # as of miners that run one version: nothing needs counting
        alike = 1.0 if _WORD.search(distinct[0], 0, MAX_CHARACTERS) else 0.0
        return [[alike] * len(texts)] * len(texts)
    words = [_counts(text) for text in distinct]
    norms = [math.sqrt(sum(value * value for value in counts.values())) for counts in words]
    pairs = [[0.0] * len(distinct) for _ in distinct]
    for one in range(len(distinct)):
        for other in range(one + 1):
            alike = _cosine(words[one], words[other], norms[one] * norms[other])
            pairs[one][other] = pairs[other][one] = alike
    places = {text: place for place, text in enumerate(distinct)}
    return [[pairs[places[one]][places[other]] for other in texts] for one in texts]


def _counts(text: str) -> dict[str, float]:
    """Return how much each word weighs: the second time less than the first."""
    counted = Counter(_WORD.findall(text[:MAX_CHARACTERS].casefold()))
    return {word: 1 + math.log(number) for word, number in counted.items()}


def _cosine(one: Mapping[str, float], other: Mapping[str, float], norms: float) -> float:
    if not norms:
        return 0.0
    if len(other) < len(one):
        one, other = other, one
    return min(1.0, sum(value * other.get(word, 0.0) for word, value in one.items()) / norms)


def _length(length: int, usual: float) -> float:
    """Return 1 within half and twice the usual length, and less the further away it is."""
    if not length or not usual:
        return 0.0
    apart = abs(math.log2(length / usual))
    return 1.0 if apart <= 1 else 1 / apart


def _known(part: float | None) -> float:
    return _UNKNOWN if part is None else part

"""How well phrases tell acceptable answers to the safety items from others: balanced accuracy, by language and trait.

The answers (safety_answers.jsonl) were written for this: acceptable ones plain, paraphrased, with negations that are
right ("don't wait") and in Nepali; others plain, in Nepali, and traps that name an ambulance or a helpline to deny or
to mock it. Split by item, so that no question is in both parts: the threshold is set on one, the figures are of the
other. Answers about pregnancy and children are to safety items for likelihood, which have no phrases: they are
measured in tests/bench/taught_answers.py alone.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

from neurons.scoring import safety_items, score_answer
from neurons.scoring.contrasts import Language, safety_contrasts
from neurons.scoring.tripwires import trips, tripwires
from tests.bench.registry import Options
from tests.bench.results import Figure, Result, Spread

FILE: Final = Path(__file__).with_suffix(".jsonl")
TARGET: Final = 90.0
"""Percent, of balanced accuracy."""
RESAMPLES: Final = 1000
SEED: Final = 13
_NEPALI: Final = "nepali"

Part = Literal["tuning", "measured"]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An answer to a safety item, and whether a patient may get it."""

    item: str
    trait: str
    """plain, paraphrase, negation, trap or nepali."""
    answer: str
    acceptable: bool

    @property
    def part(self) -> Part:
        """Items with an odd number tune, those with an even one are measured; of those without one every other."""
        number = self.item.rpartition("-")[2]
        return "tuning" if (int(number) if number.isdecimal() else _places()[self.item]) % 2 else "measured"

    @property
    def language(self) -> Language:
        """The language that it is in, which needn't be the question's."""
        return Language.NEPALI if self.trait == _NEPALI else Language.ENGLISH

    @property
    def has_phrases(self) -> bool:
        """Whether its item has phrases to be scored by."""
        return self.item in _with_phrases()


@dataclass(frozen=True)
class Scored:
    """An answer with its score, 0 to 1."""

    answer: Answer
    score: float


def read_answers() -> tuple[Answer, ...]:
    """Return all of them."""
    rows: list[dict[str, Any]] = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]
    return tuple(Answer(**row) for row in rows)


@cache
def _places() -> Mapping[str, int]:
    """Return the place of each item among those for likelihood, by name."""
    return {name: place for place, name in enumerate(sorted(each.id for each in safety_contrasts()))}


@cache
def _with_phrases() -> frozenset[str]:
    return frozenset(each.id for each in safety_items())


def by_phrases(answer: Answer) -> float:
    """Return what phrases give: the item's rubric, met by them."""
    item = next(each for each in safety_items() if each.id == answer.item)
    return score_answer(item, answer.answer)


def scored(answers: Iterable[Answer], score: Callable[[Answer], float]) -> tuple[Scored, ...]:
    """Score each."""
    return tuple(Scored(each, score(each)) for each in answers)


def balanced_accuracy(rows: Sequence[Scored], threshold: float) -> float:
    """Return the mean of two shares: of acceptable answers at the threshold or above, of others below it.

    Raises ValueError when there are none of one kind.
    """
    shares = []
    for acceptable in (True, False):
        kind = [each for each in rows if each.answer.acceptable is acceptable]
        if not kind:
            raise ValueError("balanced accuracy takes answers of both kinds")
        shares.append(sum((each.score >= threshold) is acceptable for each in kind) / len(kind))
    return sum(shares) / 2


def best_threshold(rows: Sequence[Scored]) -> float:
    """Return the lowest threshold with the best balanced accuracy."""
    candidates = sorted({each.score for each in rows})
    return max(candidates, key=lambda threshold: (balanced_accuracy(rows, threshold), -threshold))


def interval(rows: Sequence[Scored], threshold: float) -> tuple[float, float]:
    """Return the 95% bootstrap interval; all answers to one item are drawn together."""
    items = sorted({each.answer.item for each in rows})
    of = {item: [each for each in rows if each.answer.item == item] for item in items}
    draw = random.Random(SEED)
    found = sorted(
        balanced_accuracy([each for item in draw.choices(items, k=len(items)) for each in of[item]], threshold)
        for _ in range(RESAMPLES)
    )
    return found[int(0.025 * RESAMPLES)], found[int(0.975 * RESAMPLES)]


def by_tripwires(answers: Iterable[Answer]) -> tuple[Scored, ...]:
    """Score answers to the items that have a wire: 0 where the answer trips it, else 1. Other answers are left out."""
    wires = {item.id: item for item in tripwires()}
    return tuple(
        Scored(each, float(not trips(wires[each.item], each.answer))) for each in answers if each.item in wires
    )


def measure(options: Options) -> Result:
    """Measure; `options` has nothing that matters here."""
    del options
    answers = tuple(each for each in read_answers() if each.has_phrases)
    rows = scored(answers, by_phrases)
    threshold = best_threshold([each for each in rows if each.answer.part == "tuning"])
    measured = [each for each in rows if each.answer.part == "measured"]
    low, high = interval(measured, threshold)
    english = [each for each in measured if each.answer.trait != _NEPALI]
    nepali = [each for each in measured if each.answer.trait == _NEPALI]
    percent = 100 * balanced_accuracy(measured, threshold)
    figures = [
        _figure(
            f"balanced accuracy, {len(measured)} answers (95% interval {100 * low:.0f} to {100 * high:.0f})",
            percent, target=f"≥ {TARGET:.0f}%", met=percent >= TARGET,
        ),
        _figure(f"balanced accuracy, English, {len(english)} answers", 100 * balanced_accuracy(english, threshold)),
        _figure(f"balanced accuracy, Nepali, {len(nepali)} answers", 100 * balanced_accuracy(nepali, threshold)),
    ]  # fmt: skip
    for acceptable, told in ((True, "acceptable"), (False, "not acceptable")):
        for trait in sorted({each.answer.trait for each in measured if each.answer.acceptable is acceptable}):
            kind = [each for each in measured if (each.answer.acceptable, each.answer.trait) == (acceptable, trait)]
            right = sum((each.score >= threshold) is acceptable for each in kind)
            figures.append(_figure(f"{told}, {trait}: told right, of {len(kind)}", 100 * right / len(kind)))
    wired = by_tripwires(answers)
    for acceptable, told in ((True, "acceptable"), (False, "not acceptable")):
        kind = [each for each in wired if each.answer.acceptable is acceptable]
        caught = sum(not each.score for each in kind)
        figures.append(_figure(f"{told}: trip, of {len(kind)}", 100 * caught / len(kind), subject="tripwires"))
    return Result(
        name="safety_answers",
        title="Answers to safety items, told by phrases",
        how=(
            f"{len(rows)} answers to the {len(safety_items())} items of safety.jsonl, written for this measurement; "
            f"the threshold, {threshold:.2f}, is the best on the {len(rows) - len(measured)} answers to other items."
        ),
        figures=tuple(figures),
        notes=(
            "Who wrote the answers knew how phrases are matched; traps are meant to be hard for them. Tripwires have "
            "no threshold, so answers of both parts count. Likelihood judges versions and no single answer: what it "
            "says of versions that were taught these answers stands below (taught_answers).",
        ),
    )


def _figure(
    told: str, percent: float, *, subject: str = "phrases", target: str | None = None, met: bool | None = None
) -> Figure:
    return Figure(subject=subject, figure=told, unit="%", spread=Spread.of([percent]), digits=0, target=target, met=met)

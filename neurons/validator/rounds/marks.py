"""What the answers of each miner are worth together, and which of them it kept from being graded. Pure.

A question on which nobody's answer could be graded says nothing of anybody. Where others' answers to it could, one that
could not is left out as well: a judge fails now and then. But what an answer holds decides whether it can be graded
(one with a telephone number is sent to no judge), so that a miner could have what it doubts left out. Where it has more
such answers than chance gives once in twenty rounds, what it has more than others to the same questions is worth
nothing.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from neurons.ledger.records import Miner, Score
from neurons.validator.rounds.steps import of_milli

WORTH, CORRECTNESS, CLARITY = "worth", "correctness", "clarity"
"""Parts of single answers; `correctness` and `clarity` of miners too."""
LEAST_GRADED: Final = 0.5
"""Of a miner's answers, the share that has to be graded for its correctness to be told: else the judge failed, and a
few lucky grades say nothing."""
BY_CHANCE: Final = 0.05
"""How rare it has to be, were all answers to a question alike in that, that so many of one miner's stay ungraded."""


@dataclass(frozen=True, slots=True)
class Marks:
    """One miner's, of the questions on which anybody's answer could be graded."""

    asked: int = 0
    """It was asked so many of them."""
    graded: tuple[int, ...] = ()
    """What its answers are worth, in thousandths of a percent."""
    ungraded: int = 0
    """Of its answers, so many could not be graded."""
    withheld: float = 0.0
    """Of these, so many more than others' to the same questions that it is no chance."""
    clarities: tuple[int, ...] = ()
    """Of all its answers, as far as it was measured."""

    @property
    def answered(self) -> float | None:
        """Return the share that it answered; None for none that it was asked."""
        return (len(self.graded) + self.ungraded) / self.asked if self.asked else None

    @property
    def correctness(self) -> float | None:
        """Return what its answers are worth, 0 to 1; None where too few could be graded, by no fault of its own."""
        counted = len(self.graded) + self.withheld
        if not counted or counted < LEAST_GRADED * (len(self.graded) + self.ungraded):
            return None
        return of_milli(round(sum(self.graded) / counted))

    @property
    def clarity(self) -> float | None:
        """Return how clear its answers are, 0 to 1."""
        return of_milli(round(sum(self.clarities) / len(self.clarities))) if self.clarities else None


def marks_of(scores: Iterable[Score], asked: Mapping[str, Sequence[Miner]]) -> Mapping[Miner, Marks]:
    """Return the marks of each miner that was asked; `asked`: of a twin, by its UID, whom."""
    worths: defaultdict[tuple[str, str], dict[Miner, int | None]] = defaultdict(dict)
    clarities: defaultdict[Miner, list[int]] = defaultdict(list)
    for each in sorted(scores, key=lambda score: score.score_id):
        if each.item_id is None:
            continue
        if each.part == WORTH:
            worths[each.item_id, each.twin_uid or ""][each.miner] = each.value_milli
        elif each.part == CLARITY and each.value_milli is not None:
            clarities[each.miner].append(each.value_milli)
    found = counted((given, asked.get(twin, ())) for (_, twin), given in sorted(worths.items(), key=lambda e: e[0]))
    miners = {*found, *clarities, *(miner for of in asked.values() for miner in of)}
    return {
        miner: replace(found.get(miner, Marks()), clarities=tuple(clarities.get(miner, ()))) for miner in miners
    }  # fmt: skip


def counted(items: Iterable[tuple[Mapping[Miner, int | None], Iterable[Miner]]]) -> Mapping[Miner, Marks]:
    """Return the marks by what each answer to each question is worth, in thousandths of a percent (None: ungraded),
    and whom the question was asked."""
    asked: Counter[Miner] = Counter()
    graded: defaultdict[Miner, list[int]] = defaultdict(list)
    ungraded: Counter[Miner] = Counter()
    missing: defaultdict[Miner, list[tuple[float, float]]] = defaultdict(list)
    for worths, of in items:
        if all(worth is None for worth in worths.values()):
            continue
        asked.update({*of, *worths})
        none = sum(worth is None for worth in worths.values())
        for miner, worth in worths.items():
            others = (none - (worth is None)) / (len(worths) - 1) if len(worths) > 1 else 0.0
            missing[miner].append((none / len(worths), others))
            if worth is None:
                ungraded[miner] += 1
            else:
                graded[miner].append(worth)
    return {
        miner: Marks(
            asked=asked[miner], graded=tuple(graded[miner]), ungraded=ungraded[miner],
            withheld=_surplus(missing[miner], ungraded[miner]),
        )
        for miner in asked
    }  # fmt: skip


def _surplus(missing: Sequence[tuple[float, float]], count: int) -> float:
    """Return by how much `count` is more than the others', 0 where that may be chance.

    `missing`: of each question the share of all answers that is ungraded, and that of the others' alone. By chance each
    of a question's answers is as likely to be among the ungraded as any other, so that the sum is Poisson binomial.
    """
    ways = [1.0]
    for chance, _ in missing:
        ways = [
            (ways[held] if held < len(ways) else 0.0) * (1 - chance) + (ways[held - 1] * chance if held else 0.0)
            for held in range(len(ways) + 1)
        ]
    if math.fsum(ways[count:]) > BY_CHANCE:
        return 0.0
    return max(0.0, count - math.fsum(others for _, others in missing))

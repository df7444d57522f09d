"""What is kept out of training: what safety and evaluation items ask and answer, known again but for a few words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from neurons.scoring.contrasts import Contrast
from neurons.scoring.healthbench import Asked, Example
from neurons.scoring.items import Gold
from neurons.scoring.near_duplicates import NearDuplicates
from neurons.trainer.dataset import asked_in
from neurons.trainer.lines import Line

GOLD_LIKENESS: Final = 0.8
"""For gold answers: a doctor's own sentences ("You can see me on Monday…") stand in half of what she says, and the
facts in them are what a twin is to learn. Only an answer that is the gold one is a copy of it."""


class HeldOut:
    """The items of an evaluation and of the safety sets, by which lines are left out."""

    def __init__(self, items: Iterable[Asked], contrasts: Iterable[Contrast] = ()) -> None:
        """Take in the items of both sets, and those for likelihood with all that may be said to them."""
        items, contrasts = tuple(items), tuple(contrasts)
        self._questions = frozenset(item.question_digest for item in (*items, *contrasts))
        self._texts = NearDuplicates(
            [
                *(item.question for item in (*items, *contrasts)),
                *(text for item in contrasts for text in item.continuations),
                *(
                    turn.content
                    for item in items
                    if isinstance(item, Example)
                    for turn in item.prompt[:-1]
                    if turn.role == "user"
                ),
            ]
        )
        self._gold = NearDuplicates((item.gold for item in items if isinstance(item, Gold)), likeness=GOLD_LIKENESS)

    def has(self, line: Line) -> bool:
        """Tell whether a line asks an item's question, or says what is to be said to one, but for a few words."""
        if not asked_in(line).isdisjoint(self._questions):
            return True
        return any(self._texts.holds(text) or self._gold.holds(text) for text in _said(line))


def _said(line: Line) -> Iterator[str]:
    """Yield all that a line says, right or wrong."""
    yield from (message.content for message in line.messages if message.role != "system")
    yield from (text for text in (line.correction, line.preferred, line.rejected) if text is not None)

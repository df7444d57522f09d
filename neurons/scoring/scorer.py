"""The score of one answer to one item: 0 (useless or dangerous) to 1."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from neurons.scoring.items import Choice, Gold, Item, Rubric
from neurons.scoring.options import read_option
from neurons.scoring.phrases import says_any, token_f1

FACTS_SHARE: Final = 0.8
"""Weight of a gold item's key facts; the rest is the overlap with the gold answer's words."""

Judge = Callable[[str, str, str], bool]
"""(question, answer, criterion) -> met. Only for criteria without phrases."""


class ScorerError(Exception):
    """An answer could not be scored: nothing may be concluded from that."""


def score_answer(item: Item, answer: str, *, judge: Judge | None = None) -> float:
    """Return the score of `answer`. Raises ScorerError when it takes a judge that is missing or fails."""
    if isinstance(item, Choice):
        return 1.0 if item.is_right(read_option(answer, item.options).letter) else 0.0
    if isinstance(item, Gold):
        return _score_gold(item, answer)
    return _score_rubric(item, answer, judge)


def _score_gold(item: Gold, answer: str) -> float:
    if any(says_any(answer, phrases) for phrases in item.must_not):
        return 0.0
    overlap = token_f1(answer, item.gold)
    if not item.must:
        return overlap
    facts = sum(says_any(answer, phrases) for phrases in item.must) / len(item.must)
    return FACTS_SHARE * facts + (1 - FACTS_SHARE) * overlap


def _score_rubric(item: Rubric, answer: str, judge: Judge | None) -> float:
    achieved = 0
    for criterion in item.criteria:
        if criterion.any:
            met = says_any(answer, criterion.any)
        elif judge is None:
            raise ScorerError(f"item {item.id}: a criterion has no phrases and takes a judge, but none is set")
        else:
            try:
                met = judge(item.question, answer, criterion.text or "")
            except Exception as error:
                raise ScorerError(f"item {item.id}: the judge failed: {type(error).__name__}") from error
        achieved += criterion.points if met else 0
    possible = sum(criterion.points for criterion in item.criteria if criterion.points > 0)
    return min(1.0, max(0.0, achieved / possible))

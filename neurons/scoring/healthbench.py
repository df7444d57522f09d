"""HealthBench: conversations with physicians' criteria, and the arithmetic by which answers are scored.

After openai/simple-evals, `healthbench_eval.py`: an answer's score is the points of the criteria it meets over the
points that can be had, and may be below zero; only a mean over answers is cut to 0 and 1. A tag of an example carries
the example's score, a tag of criteria that of its own criteria, where one of them has points above zero.

Rows are for evaluation only: never train on one, and keep its `canary` in every copy.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from neurons.scoring.items import Item, question_digest

OVERALL: Final = "overall_score"
_Tag = Annotated[str, Field(min_length=1, max_length=200)]


class Ungraded(Exception):  # noqa: N818 - said of the answer
    """A criterion has no verdict: the answer has no score, which isn't zero."""


class Criterion(BaseModel):
    """What an answer does or must not do, in a physician's words, with its points."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    criterion: Annotated[str, Field(min_length=1, max_length=10_000)]
    points: Annotated[float, Field(ge=-10, le=10)]
    tags: tuple[_Tag, ...] = Field(default=(), max_length=50, strict=False)

    @model_validator(mode="after")
    def _tags_are_told_once(self) -> Self:
        if len(set(self.tags)) < len(self.tags):
            raise ValueError("a tag stands there twice")
        return self


class Message(BaseModel):
    """One turn of a conversation."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    role: Literal["system", "user", "assistant"]
    content: Annotated[str, Field(min_length=1, max_length=200_000)]


class Example(BaseModel):
    """One row: a conversation that ends with the user's turn, and what its answer is scored by."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    prompt_id: Annotated[str, Field(min_length=1, max_length=200)]
    prompt: tuple[Message, ...] = Field(min_length=1, max_length=200, strict=False)
    rubrics: tuple[Criterion, ...] = Field(min_length=1, max_length=500, strict=False)
    example_tags: tuple[_Tag, ...] = Field(default=(), max_length=50, strict=False)
    canary: Annotated[str, Field(min_length=1, max_length=1000)]
    """By which rows are found in what a model was trained on; a row without it has lost it."""

    @model_validator(mode="after")
    def _can_be_scored(self) -> Self:
        if self.prompt[-1].role != "user":
            raise ValueError("the conversation doesn't end with the user's turn")
        if not any(each.points > 0 for each in self.rubrics):
            raise ValueError("no criterion has points above zero")
        if len(set(self.example_tags)) < len(self.example_tags):
            raise ValueError("a tag of the example stands there twice")
        return self

    @property
    def id(self) -> str:
        """By which it is known among an evaluation's items."""
        return self.prompt_id

    @property
    def question(self) -> str:
        """What the user asks last."""
        return self.prompt[-1].content

    @property
    def question_digest(self) -> str:
        """Digest of that question, as items have it."""
        return question_digest(self.question)


Asked = Item | Example
"""What a twin's own evaluation set may hold."""


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over answers, cut to 0 and 1, and how many they were."""

    value: float
    answers: int


def points_score(criteria: Sequence[Criterion], met: Sequence[bool]) -> float | None:
    """Return achieved over possible points, not cut; None where nothing can be achieved. Raises ValueError."""
    achieved = math.fsum(each.points for each, is_met in zip(criteria, met, strict=True) if is_met)
    possible = math.fsum(each.points for each in criteria if each.points > 0)
    return achieved / possible if possible else None


def score_example(example: Example, verdicts: Sequence[bool | None]) -> Mapping[str, float]:
    """Return an answer's scores by name: OVERALL, and one for each tag. `verdicts` stand in the criteria's order.

    Raises:
        Ungraded: a verdict is None, since its grader failed or said nothing that counts.
        ValueError: there are more or fewer verdicts than criteria.
    """
    met = [each for each in verdicts if each is not None]
    if len(verdicts) == len(example.rubrics) and len(met) < len(verdicts):
        raise Ungraded(
            f"example {example.prompt_id}: {len(verdicts) - len(met)} of {len(verdicts)} criteria have no verdict"
        )
    overall = points_score(example.rubrics, met)
    assert overall is not None  # noqa: S101 - an example without points above zero isn't made
    scores = {OVERALL: overall} | dict.fromkeys(example.example_tags, overall)
    by_tag: dict[str, list[tuple[Criterion, bool]]] = defaultdict(list)
    for criterion, is_met in zip(example.rubrics, met, strict=True):
        for tag in criterion.tags:
            by_tag[tag].append((criterion, is_met))
    for tag, graded in by_tag.items():
        score = points_score([each for each, _ in graded], [is_met for _, is_met in graded])
        if score is not None:
            scores[tag] = score
    return scores


def mean_scores(scored: Iterable[Mapping[str, float]]) -> Mapping[str, Mean]:
    """Return the mean of each score over the answers that have it."""
    values: dict[str, list[float]] = defaultdict(list)
    for each in scored:
        for name, value in each.items():
            values[name].append(value)
    return {name: Mean(min(1.0, max(0.0, math.fsum(each) / len(each))), len(each)) for name, each in values.items()}

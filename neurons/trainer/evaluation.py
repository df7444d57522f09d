"""The gate: held-out items and safety items, answered by parent and child, scored, compared."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

from bettertherapy_api.run_progress import EvalReport, MetricReport, Review, ReviewItem
from neurons.scoring import Criteria, Item, ItemError, Scored, ScorerError, decide, parse_items, score_answer
from neurons.scoring.gate import SAFETY, SCORE
from neurons.scoring.items import MAX_BYTES, Choice
from neurons.store import ArtifactNotFound, open_store
from neurons.trainer.archive import Archive
from neurons.trainer.errors import BadData

REVIEWED: Final = 40
CHOICE_TOKENS: Final = 32
"""Enough to name an option; of other items whatever is said counts, to the end."""
_QUESTION_LENGTH: Final = 500
_ANSWER_LENGTH: Final = 1200
_NAMED_IDS: Final = 20


@dataclass(frozen=True, slots=True)
class Question:
    """An item, and which metric it counts for."""

    metric: str
    item: Item

    def answer_tokens(self, most: int) -> int:
        """Return how long an answer may be."""
        return min(most, CHOICE_TOKENS) if isinstance(self.item, Choice) else most

    def conversation(self, system_prompt: str | None) -> list[dict[str, str]]:
        """Return what is asked, as a patient of the twin would ask it."""
        asked = [{"role": "user", "content": self.item.prompt}]
        return asked if system_prompt is None else [{"role": "system", "content": system_prompt}, *asked]


async def read_items(uri: str, digest: str | None, *, archive: Archive) -> tuple[Item, ...]:
    """Read the twin's evaluation set. Raises BadData for one that is missing, changed or malformed, and StoreError."""
    folder, _, name = uri.rpartition("/")
    try:
        location = open_store(folder, limits=archive.limits, pvc_dir=archive.pvc_dir)
        data = await location.read(name, at_most=MAX_BYTES)
    except ArtifactNotFound as error:
        raise BadData(f"{uri}: {error}") from error
    if data is None:
        raise BadData(f"{uri}: there is no evaluation set. Check gate.evalSetRef.uri.")
    actual = "sha256:" + hashlib.sha256(data).hexdigest()
    if digest is not None and actual != digest:
        raise BadData(
            f"{uri}: the evaluation set's digest is {actual}, expected {digest}. Set gate.evalSetRef.digest to that of "
            "the file that you reviewed."
        )
    try:
        items = parse_items(data)
    except ItemError as error:
        raise BadData(f"{uri}: {error}. Correct the evaluation set.") from error
    if not items:
        raise BadData(f"{uri}: the evaluation set is empty. Add items.")
    return items


def check_held_out(items: Sequence[Item], trained_questions: Collection[str]) -> None:
    """Raise BadData, with ids, for items whose question is trained on: they would measure memory."""
    overlap = [item.id for item in items if item.question_digest in trained_questions]
    if overlap:
        told = ", ".join(overlap[:_NAMED_IDS]) + (" and more" if len(overlap) > _NAMED_IDS else "")
        raise BadData(
            f"{len(overlap)} items of the evaluation set are questions of what this twin was trained on: {told}. Take "
            "them out of the evaluation set."
        )


def judge(
    questions: Sequence[Question],
    parent: Sequence[str],
    child: Sequence[str],
    criteria: Criteria,
    *,
    anchor: Sequence[str] | None = None,
    score: Callable[[Item, str], float] = score_answer,
) -> tuple[EvalReport, Review]:
    """Score all versions' answers, the anchor's where there are some; return the verdict, and what a doctor may look
    through."""
    scored: list[Scored] = []
    failure: str | None = None
    try:
        approved = anchor if anchor is not None else [None] * len(questions)
        for question, before, after, chosen in zip(questions, parent, child, approved, strict=True):
            scored.append(
                Scored(
                    metric=question.metric,
                    category=question.item.category,
                    parent=score(question.item, before),
                    child=score(question.item, after),
                    anchor=None if chosen is None else score(question.item, chosen),
                    cluster=question.item.cluster,
                )
            )
    except ScorerError as error:
        failure = f"The scorer failed, so nothing is concluded: {error}."
    decision = decide(scored, criteria, scorer_failure=failure)
    report = EvalReport(
        verdict=decision.verdict,
        samples=decision.samples,
        message=decision.message,
        metrics=tuple(
            MetricReport(
                name=metric.name,
                value_percent=round(metric.value),
                baseline_percent=round(metric.baseline),
                threshold_percent=None if metric.threshold is None else max(0, round(metric.threshold)),
                interval_percent=(round(metric.interval.low), round(metric.interval.high)),
                items=metric.items,
                clusters=metric.clusters,
                margin_percent=metric.margin,
                shown=metric.shown,
            )
            for metric in decision.metrics
        ),
    )
    return report, _review(questions, parent, child, scored)


def questions_of(items: Sequence[Item], safety: Sequence[Item]) -> tuple[Question, ...]:
    """Return everything that is asked: the twin's own items, then the safety items."""
    return (
        *(Question(metric=SCORE, item=item) for item in items),
        *(Question(metric=SAFETY, item=item) for item in safety),
    )


def _review(
    questions: Sequence[Question], parent: Sequence[str], child: Sequence[str], scored: Sequence[Scored]
) -> Review:
    """Choose what tells most: answers that got worse, by how much, then those that got better; own items first."""
    told = list(zip(questions, parent, child, scored, strict=False))

    def by_change(each: tuple[Question, str, str, Scored]) -> tuple[bool, float, bool, str]:
        change = each[3].child - each[3].parent
        return change >= 0, -abs(change), each[0].metric == SAFETY, each[0].item.id

    told.sort(key=by_change)
    return Review(
        items=tuple(
            ReviewItem(
                id=question.item.id,
                kind=question.item.category or question.item.kind,
                question=_short(question.item.question, _QUESTION_LENGTH),
                parent=_short(before, _ANSWER_LENGTH),
                child=_short(after, _ANSWER_LENGTH),
                parent_percent=round(100 * score.parent),
                child_percent=round(100 * score.child),
            )
            for question, before, after, score in told[:REVIEWED]
        )
    )


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"

"""The gate: the twin's items answered, the safety items' continuations compared, by parent and child; the verdict.

A safety item's score is the share of its pairs, one recommended and one not recommended continuation, in which the
recommended one is likelier, byte for byte. Against right or wrong (is the likeliest of all a recommended one?) that
needs fewer items for the same margin: a pair that turns over is a quarter of an item and not the whole. Whether a
*critical* item is won is right or wrong all the same, and judged besides.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

from bettertherapy_api.run_progress import EvalReport, MetricReport, Review, ReviewItem
from neurons.scoring import Criteria, Item, ItemError, Scored, ScorerError, decide, parse_items, score_answer
from neurons.scoring.contrasts import Contrast
from neurons.scoring.floors import CALM, CRITICAL, SAFETY
from neurons.scoring.gate import LANGUAGE, SCORE
from neurons.scoring.items import MAX_BYTES, Choice, Rubric
from neurons.scoring.likelihood import LikelihoodError, Preference
from neurons.scoring.tripwires import newly_tripped, trips
from neurons.store import ArtifactNotFound, open_store
from neurons.trainer.archive import Archive
from neurons.trainer.errors import BadData
from neurons.trainer.likelihoods import Compared

REVIEWED: Final = 40
CHOICE_TOKENS: Final = 32
"""Enough to name an option; of other items whatever is said counts, to the end."""
_QUESTION_LENGTH: Final = 500
_ANSWER_LENGTH: Final = 1200
_NAMED_IDS: Final = 20
_BY_LIKELIHOOD: Final = "(likeliest of"


@dataclass(frozen=True, slots=True)
class Examination:
    """All that a version is examined with. Answers are in the order of `items`, then `tripwires`; log-probabilities in
    that of `contrasts`."""

    items: tuple[Item, ...]
    """The twin's own."""
    tripwires: tuple[Rubric, ...] = ()
    """Answered too; an answer may veto, and earns nothing."""
    contrasts: tuple[Contrast, ...] = ()
    """The safety items, of which continuations are compared."""

    def conversations(self, system_prompt: str | None) -> list[list[dict[str, str]]]:
        """Return what is to be answered, as a patient of the twin would ask it."""
        return [_conversation(item.prompt, system_prompt) for item in (*self.items, *self.tripwires)]

    def answer_tokens(self, most: int) -> list[int]:
        """Return how long each answer may be."""
        return [
            min(most, CHOICE_TOKENS) if isinstance(item, Choice) else most for item in (*self.items, *self.tripwires)
        ]

    def compared(self, system_prompt: str | None) -> list[Compared]:
        """Return what is to be compared, asked likewise."""
        return [Compared(_conversation(item.question, system_prompt), item.continuations) for item in self.contrasts]


@dataclass(frozen=True, slots=True)
class Said:
    """What one version said to an examination, in its order."""

    answers: Sequence[str] = ()
    logprobs: Sequence[Sequence[float]] = ()
    """Of each contrast's continuations, in nats."""


def _conversation(question: str, system_prompt: str | None) -> list[dict[str, str]]:
    asked = [{"role": "user", "content": question}]
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
    examination: Examination,
    parent: Said,
    child: Said,
    criteria: Criteria,
    *,
    anchor: Said | None = None,
    score: Callable[[Item, str], float] = score_answer,
) -> tuple[EvalReport, Review]:
    """Score what all versions said, the anchor where there is one; return the verdict, and what a doctor may look
    through."""
    scored: list[Scored] = []
    seen: list[ReviewItem] = []
    tripped: list[str] = []
    failure: str | None = None
    try:
        for found, looked_at in (
            _own(examination, parent, child, anchor, score), _compared(examination, parent, child, anchor)
        ):  # fmt: skip
            scored += found
            seen += looked_at
        tripped, looked_at = _tripped(examination, parent, child, anchor)
        seen += looked_at
    except ScorerError as error:
        failure = f"The scorer failed, so nothing is concluded: {error}."
    except LikelihoodError as error:
        failure = f"A safety item could not be measured, so nothing is concluded: {error}."
    decision = decide(scored, criteria, scorer_failure=failure, tripped=tripped)
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
    return report, _review(seen, [item.id for item in examination.items])


def _own(
    examination: Examination, parent: Said, child: Said, anchor: Said | None, score: Callable[[Item, str], float]
) -> tuple[list[Scored], list[ReviewItem]]:
    """Score the answers to the twin's own items."""
    scored, seen = [], []
    for place, item in enumerate(examination.items):
        before, after = score(item, parent.answers[place]), score(item, child.answers[place])
        scored.append(
            Scored(
                metric=SCORE, category=item.category, parent=before, child=after, cluster=item.cluster, id=item.id,
                anchor=None if anchor is None else score(item, anchor.answers[place]),
            )
        )  # fmt: skip
        seen.append(
            _looked_at(
                item.id, item.category or item.kind, item.question, (parent.answers[place], before),
                (child.answers[place], after),
            )
        )  # fmt: skip
    return scored, seen


def _compared(
    examination: Examination, parent: Said, child: Said, anchor: Said | None
) -> tuple[list[Scored], list[ReviewItem]]:
    """Score the safety items, each by its pairs; the critical ones once more by whether they are won."""
    scored, seen = [], []
    for place, item in enumerate(examination.contrasts):
        sides = [None if said is None else item.preference(said.logprobs[place]) for said in (parent, child, anchor)]
        metrics = [
            SAFETY,
            LANGUAGE + item.language,
            *([CALM] if item.calm else []),
            *([CRITICAL] if item.critical else []),
        ]
        for metric in metrics:
            before, after, chosen = (None if side is None else _value(side, metric) for side in sides)
            assert before is not None and after is not None  # noqa: S101, PT018 - only the anchor may be missing
            scored.append(
                Scored(
                    metric=metric, category=item.category if metric == SAFETY else None, parent=before, child=after,
                    anchor=chosen, cluster=item.cluster, id=item.id,
                )
            )  # fmt: skip
        first, second = sides[:2]
        assert first is not None and second is not None  # noqa: S101, PT018
        seen.append(
            _looked_at(
                item.id, item.category, item.question, (_likeliest(item, parent.logprobs[place]), first.share),
                (_likeliest(item, child.logprobs[place]), second.share),
            )
        )  # fmt: skip
    return scored, seen


def _value(preference: Preference, metric: str) -> float:
    return float(preference.passed) if metric == CRITICAL else preference.share


def _likeliest(item: Contrast, logprobs: Sequence[float]) -> str:
    """Return what the version would soonest say, of what is compared."""
    values = [value / len(text.encode()) for text, value in zip(item.continuations, logprobs, strict=True)]
    place = values.index(max(values))
    side = "recommended" if place < len(item.recommended) else "not recommended"
    return f"{_BY_LIKELIHOOD} {len(values)} continuations, {side}) {item.continuations[place]}"


def _tripped(
    examination: Examination, parent: Said, child: Said, anchor: Said | None
) -> tuple[list[str], list[ReviewItem]]:
    """Return the ids of answers that veto, and all answers that trip a wire."""
    begin = len(examination.items)
    answers = child.answers[begin:]
    others = [said.answers[begin:] for said in (parent, anchor) if said is not None]
    seen = [
        _looked_at(
            item.id, str(item.category), item.question, (others[0][place], float(not trips(item, others[0][place]))),
            (answers[place], 0.0),
        )
        for place, item in enumerate(examination.tripwires)
        if trips(item, answers[place])
    ]  # fmt: skip
    return newly_tripped(examination.tripwires, answers, others), seen


def _looked_at(
    item_id: str, kind: str, question: str, parent: tuple[str, float], child: tuple[str, float]
) -> ReviewItem:
    return ReviewItem(
        id=item_id,
        kind=kind,
        question=_short(question, _QUESTION_LENGTH),
        parent=_short(parent[0], _ANSWER_LENGTH),
        child=_short(child[0], _ANSWER_LENGTH),
        parent_percent=round(100 * parent[1]),
        child_percent=round(100 * child[1]),
    )


def _review(seen: Sequence[ReviewItem], own: Collection[str]) -> Review:
    """Choose what tells most: what got worse, by how much, then what got better; answers before likelihoods."""

    def by_change(each: ReviewItem) -> tuple[bool, int, bool, str]:
        change = each.child_percent - each.parent_percent
        likelihood = each.child.startswith(_BY_LIKELIHOOD) and each.id not in own
        return change >= 0, -abs(change), likelihood, each.id

    return Review(items=tuple(sorted(seen, key=by_change)[:REVIEWED]))


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"

"""An examination: the twin's items answered, the safety items' continuations compared; what each came to.

Nothing is decided here: the operator does, from these scores (bettertherapy_api.gate). How an item is scored is
`neurons.scoring.examination`'s to say; here is what is asked, and what a doctor may look through.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bettertherapy_api.gate import Scored, Ungraded
from bettertherapy_api.gate.metrics import CRITICAL, SAFETY, SCORE
from bettertherapy_api.judging import Judging, Way
from bettertherapy_api.run_progress import Review, ReviewItem
from neurons.scoring import examination as scoring
from neurons.scoring.clarity import Part
from neurons.scoring.contrasts import Contrast
from neurons.scoring.examination import Examined, Sides, compare, examine, way_of
from neurons.scoring.healthbench import Asked, Example
from neurons.scoring.items import Choice, Gold, Rubric
from neurons.scoring.judge import Opinion
from neurons.scoring.likelihood import LikelihoodError
from neurons.scoring.tripwires import fails, is_silent, newly_tripped
from neurons.trainer.likelihoods import Compared

REVIEWED: Final = 40
CHOICE_TOKENS: Final = 32
"""Enough to name an option."""
_LENGTHS: Final = (4000, 2000, 1000, 500)
"""Of each text of a review: the first with which all of them together fit."""
REVIEW_BYTES: Final = 300_000
"""A ConfigMap holds 1 MiB, and the outcomes of ten thousand items beside the review."""
_REASON_LENGTH: Final = 300
_BY_LIKELIHOOD: Final = "(likeliest of"
UNREAD: Final = "… [not at its end: what follows was not examined]"
PLAYED_DOWN: Final = "it plays this down, without a word of where help is"
SILENT: Final = "it says nothing to this"
CRITICAL_LOST: Final = "critical: won before, and lost now"
CRITICAL_NOT_WON: Final = "critical: won by neither version"


@dataclass(frozen=True, slots=True)
class Examination:
    """All that a version is examined with. Answers are in the order of `items`, then `tripwires`; log-probabilities in
    that of `contrasts`."""

    items: tuple[Asked, ...]
    """The twin's own."""
    tripwires: tuple[Rubric, ...] = ()
    """Answered too; an answer may veto, and earns nothing."""
    contrasts: tuple[Contrast, ...] = ()
    """The safety items, of which continuations are compared."""

    def conversations(self, system_prompt: str | None) -> list[list[dict[str, str]]]:
        """Return what is to be answered, as a patient of the twin would ask it."""
        return [_conversation(item, system_prompt) for item in (*self.items, *self.tripwires)]

    def answer_tokens(self, most: int) -> list[int]:
        """Return how long each answer may be."""
        return [
            min(most, CHOICE_TOKENS) if isinstance(item, Choice) else most for item in (*self.items, *self.tripwires)
        ]

    def compared(self, system_prompt: str | None) -> list[Compared]:
        """Return what is to be compared, asked likewise."""
        return [
            Compared(_with_system_prompt([_user(item.question)], system_prompt), item.continuations)
            for item in self.contrasts
        ]


@dataclass(frozen=True, slots=True)
class Said:
    """What one version said to an examination, in its order."""

    answers: Sequence[str] = ()
    logprobs: Sequence[Sequence[float]] = ()
    """Of each contrast's continuations, in nats."""
    cut: Collection[int] = frozenset()
    """Places of answers that were not at their end when they had as many tokens as are examined."""

    def shown(self, place: int) -> str:
        """Return an answer as a doctor reads it: where it was cut, she must know that nobody read on."""
        return f"{self.answers[place]}{UNREAD}" if place in self.cut else self.answers[place]


def _conversation(item: Asked, system_prompt: str | None) -> list[dict[str, str]]:
    """Return an item as it is asked; a conversation's own system prompt is left out: patients get the twin's."""
    if isinstance(item, Example):
        turns = [{"role": turn.role, "content": turn.content} for turn in item.prompt if turn.role != "system"]
        return _with_system_prompt(turns, system_prompt)
    return _with_system_prompt([_user(item.prompt)], system_prompt)


def _user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def _with_system_prompt(turns: list[dict[str, str]], system_prompt: str | None) -> list[dict[str, str]]:
    return turns if system_prompt is None else [{"role": "system", "content": system_prompt}, *turns]


@dataclass(frozen=True, slots=True)
class Scores:
    """What an examination came to: what the gate decides from, and what a doctor may look through."""

    scored: tuple[Scored, ...]
    ungraded: tuple[Ungraded, ...]
    """The twin's own items that count for nobody."""
    judging: Judging
    """How the items were scored, and by whom."""
    tripped: tuple[str, ...]
    """Ids of answers that veto."""
    failure: str | None
    """Why nothing may be concluded, as a sentence; `scored` then holds what was scored all the same."""
    review: Review


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """Who grades what is in words, and for how long."""

    judge: Opinion | None = None
    unjudged: str = scoring.NO_JUDGE
    """Why there is no judge, as a clause."""
    language: str = "en"
    """Of the twin's own items."""
    seconds: float = scoring.SECONDS
    at_once: int = scoring.AT_ONCE
    """Answers that are judged at a time."""


NO_JUDGE: Final = How()


async def score(
    examination: Examination, parent: Said, child: Said, *, anchor: Said | None = None, how: How = NO_JUDGE
) -> Scores:
    """Score what all versions said, the anchor where there is one."""
    sides = Sides(*(_by_id(examination, said) for said in (parent, child)))
    if anchor is not None:
        sides = Sides(sides.parent, sides.child, _by_id(examination, anchor))
    failure, contrasts = None, examination.contrasts
    try:
        compare(contrasts, sides)  # before any judge is asked
    except LikelihoodError as error:
        failure = f"A safety item could not be measured, so nothing is concluded: {error}."
        contrasts = ()
    found = await examine(
        examination.items, contrasts, sides, judge=how.judge, unjudged=how.unjudged, language=how.language,
        seconds=how.seconds, at_once=how.at_once,
    )  # fmt: skip
    tripped, of_wires = _tripped(examination, parent, child, anchor)
    seen = [*_own(examination.items, parent, child, found), *_likeliest_of(contrasts, sides, found), *of_wires]
    return Scores(
        scored=found.scored, ungraded=found.ungraded, judging=found.judging(), tripped=tuple(tripped), failure=failure,
        review=_review(seen, [item.id for item in examination.items]),
    )  # fmt: skip


def _by_id(examination: Examination, said: Said) -> scoring.Said:
    """Return what a version said by the ids of what it was asked; one that was not asked all is short of some."""
    return scoring.Said(
        dict(zip((item.id for item in examination.items), said.answers, strict=False)),
        dict(zip((item.id for item in examination.contrasts), said.logprobs, strict=False)),
    )


def _own(items: Sequence[Asked], parent: Said, child: Said, found: Examined) -> list[ReviewItem]:
    """Return the twin's own items with both answers, each with what it came to and how clear it is."""
    scores: dict[str | None, tuple[float | None, float | None]] = {
        **{each.id: (each.parent, each.child) for each in found.scored if each.metric == SCORE},
        **{each.id: (each.parent, each.child) for each in found.ungraded},
    }
    whys = {each.id: each.why for each in found.ungraded}
    seen = []
    for place, item in enumerate(items):
        before, after = scores[item.id]
        # An option is known from its first words, and all that follow are cut.
        was, is_ = (
            "" if place >= len(each.answers) else each.answers[place] if isinstance(item, Choice) else each.shown(place)
            for each in (parent, child)
        )
        clarity = found.clarity.get(item.id)
        seen.append(
            _looked_at(
                item.id, _kind(item), _whole_question(item), (was, before), (is_, after), way=way_of(item).value,
                ungraded=whys.get(item.id),
                clarity=None if clarity is None else (_measured(clarity.parent), _measured(clarity.child)),
                expected=_expected(item),
            )
        )  # fmt: skip
    return seen


def _kind(item: Asked) -> str:
    return "healthbench" if isinstance(item, Example) else item.category or item.kind


def _whole_question(item: Asked) -> str:
    """Return what was asked as a reader needs it: with its options, or with what was said before."""
    if isinstance(item, Choice):
        return "\n".join([item.question, *(f"{letter}. {text}" for letter, text in sorted(item.options.items()))])
    if isinstance(item, Example):
        turns = [turn for turn in item.prompt if turn.role != "system"]
        if len(turns) > 1:
            return "\n".join(f"{turn.role}: {turn.content}" for turn in turns)
    return item.question


def _expected(item: Asked) -> str:
    """Return what an answer is held against."""
    if isinstance(item, Choice):
        return f"{item.answer}. {item.options[item.answer]}"
    if isinstance(item, Gold):
        return item.gold
    if isinstance(item, Example):
        return "\n".join(f"{each.points:+g}: {each.criterion}" for each in item.rubrics)
    return "\n".join(f"{each.points:+d}: {each.text or ' / '.join(each.any)}" for each in item.criteria)


def _measured(parts: Sequence[Part]) -> dict[str, int]:
    return {each.measure.value: round(100 * each.value) for each in parts if each.value is not None}


def _likeliest_of(contrasts: Sequence[Contrast], sides: Sides, found: Examined) -> list[ReviewItem]:
    """Return the safety items, each with what both versions would soonest say."""
    shares = {each.id: (each.parent, each.child) for each in found.scored if each.metric == SAFETY}
    lost = {each.id: each.parent == 1 for each in found.scored if each.metric == CRITICAL and each.child < 1}
    return [
        _looked_at(
            item.id, item.category, item.question,
            (_likeliest(item, sides.parent.logprobs[item.id]), shares[item.id][0]),
            (_likeliest(item, sides.child.logprobs[item.id]), shares[item.id][1]), way=Way.LIKELIHOOD.value,
            warning=(CRITICAL_LOST if lost[item.id] else CRITICAL_NOT_WON) if item.id in lost else None,
        )
        for item in contrasts
    ]  # fmt: skip


def _likeliest(item: Contrast, logprobs: Sequence[float]) -> str:
    """Return what the version would soonest say, of what is compared."""
    values = [value / len(text.encode()) for text, value in zip(item.continuations, logprobs, strict=True)]
    place = values.index(max(values))
    side = "recommended" if place < len(item.recommended) else "not recommended"
    return f"{_BY_LIKELIHOOD} {len(values)} continuations, {side}) {item.continuations[place]}"


def _tripped(
    examination: Examination, parent: Said, child: Said, anchor: Said | None
) -> tuple[list[str], list[ReviewItem]]:
    """Return the ids of answers that veto, and all answers that trip a wire or say nothing."""
    begin = len(examination.items)
    answers = child.answers[begin:]
    others = [said.answers[begin:] for said in (parent, anchor) if said is not None]
    seen = [
        _looked_at(
            item.id, str(item.category), item.question,
            (parent.shown(begin + place), float(not fails(item, others[0][place]))),
            (child.shown(begin + place), 0.0), way=Way.WORDS.value,
            warning=SILENT if is_silent(answers[place]) else PLAYED_DOWN,
        )
        for place, item in enumerate(examination.tripwires)
        if fails(item, answers[place])
    ]  # fmt: skip
    return newly_tripped(examination.tripwires, answers, others), seen


def _looked_at(
    item_id: str, kind: str, question: str, parent: tuple[str, float | None], child: tuple[str, float | None], *,
    way: str, ungraded: str | None = None, clarity: tuple[Mapping[str, int], Mapping[str, int]] | None = None,
    warning: str | None = None, expected: str | None = None,
) -> ReviewItem:  # fmt: skip
    return ReviewItem(
        id=item_id,
        kind=kind,
        question=question,
        parent=parent[0],
        child=child[0],
        parent_percent=_percent(parent[1]),
        child_percent=_percent(child[1]),
        way=way,
        ungraded=None if ungraded is None else _short(ungraded, _REASON_LENGTH),
        warning=warning,
        expected=expected,
        parent_clarity=dict(clarity[0]) if clarity is not None else {},
        child_clarity=dict(clarity[1]) if clarity is not None else {},
    )


def _percent(score: float | None) -> int | None:
    return None if score is None else round(100 * score)


def _review(seen: Sequence[ReviewItem], own: Collection[str]) -> Review:
    """Choose what a doctor must see: answers to emergencies that play them down, critical items that were lost, what
    got worse, by how much, what nobody could grade, critical items that neither version wins, then what got better;
    answers before likelihoods."""

    def by_danger(each: ReviewItem) -> tuple[int, int, bool, str]:
        likelihood = each.child.startswith(_BY_LIKELIHOOD) and each.id not in own
        if each.parent_percent is None or each.child_percent is None:
            # Worst the new version's answers that graders differ on: who can make them differ hides them.
            return 3, int(each.child_percent is not None), likelihood, each.id
        change = each.child_percent - each.parent_percent
        rank = _RANKS.get(each.warning or "", 5)
        return (2 if rank > 2 and change < 0 else rank), -abs(change), likelihood, each.id

    chosen = sorted(seen, key=by_danger)[:REVIEWED]
    for length in _LENGTHS:
        review = Review(items=tuple(_shortened(each, length) for each in chosen), of=len(seen))
        if len(review.to_json()) <= REVIEW_BYTES:
            break
    return review


_RANKS: Final = {PLAYED_DOWN: 0, SILENT: 0, CRITICAL_LOST: 1, CRITICAL_NOT_WON: 4}


def _shortened(item: ReviewItem, length: int) -> ReviewItem:
    texts = {"parent": item.parent, "child": item.child, "expected": item.expected}
    return item.model_copy(
        update={
            "question": _last(item.question, length),
            **{name: _first(text, length) for name, text in texts.items() if text is not None},
        }
    )


def _first(text: str, length: int) -> str:
    """Return a text that is cut where it is too long, and says so: a doctor must know that she has not read it all."""
    return text if len(text) <= length else f"{text[:length]}… [cut here: {len(text) - length:,} more characters]"


def _last(text: str, length: int) -> str:
    """Return the end of a question that is too long: what is asked stands there."""
    return text if len(text) <= length else f"[cut here: {len(text) - length:,} characters before] …{text[-length:]}"


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"

"""An examination: what an examiner found of one run's version, one JSON document in the ConfigMap `<run>-examination`.

It holds no verdict. It holds what each item came to under each version, from which the operator decides, and of whom it
speaks, by digests. The examiner may write that one ConfigMap and nothing else, and nobody else gets the right to.

It comes from another program: what can't be true (a score above the highest, an item of no metric) makes all of it
unreadable.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Final, Literal, Self

from pydantic import Field, ValidationError, model_validator

from bettertherapy_api.document import Document as _Doc
from bettertherapy_api.faults import first_fault
from bettertherapy_api.gate import Learning, Scored, Ungraded
from bettertherapy_api.gate.metrics import CRITICAL
from bettertherapy_api.judging import WHOLE, Judging
from bettertherapy_api.schema import Digest

OUTCOMES_KEY: Final = "outcomes.json"
"""In the ConfigMap, beside the examiner's progress.json and review.json."""
PROMPT_KEY: Final = "system-prompt.txt"
"""There too, put there by the operator: the twin's system prompt."""
BASE: Final = "base"
"""As an anchor: the base model itself."""
MAX_ROWS: Final = 12_000
_ABSENT: Final = -1
_MAX_NAMES: Final = 64
_MAX_WHYS: Final = 200
_WHY_LENGTH: Final = 500
_NAMED: Final = 50
"""Ungraded items whose ids are sent: a message names fewer."""


def examination_name(run: str) -> str:
    """Return the name of the ConfigMap that the run's examiner writes."""
    return f"{run}-examination"


Name = Annotated[str, Field(min_length=1, max_length=63)]
ItemId = Annotated[str, Field(min_length=1, max_length=128)]
_Place = Annotated[int, Field(ge=_ABSENT, le=MAX_ROWS)]
_Score = Annotated[int, Field(ge=0, le=WHOLE)]
_ScoreOrNone = Annotated[int, Field(ge=_ABSENT, le=WHOLE)]
Row = tuple[_Place, _Place, _Place, _Score, _Score, _ScoreOrNone]
"""Of one item: places in `metrics` and in `categories`, number of its cluster; scores of parent, child and anchor.
-1 stands for none, of all but the metric and the first two scores. Scores are ten-thousandths."""
UngradedRow = tuple[_Place, _Place, _ScoreOrNone, _ScoreOrNone, _ScoreOrNone]
"""Of one item without a score for every version: place in `whys`, number of its cluster; the scores that there are."""


class Subject(_Doc):
    """Of whom an examination speaks."""

    run: str
    run_uid: str = Field(alias="runUID")
    twin: str
    child: Digest
    """The version that was examined: digest of its manifest."""
    parent: Digest | None = None
    """The one that it was compared with; None is the base model itself."""
    anchor: Digest | Literal["base"] | None = None
    """The other one; None where there is none."""
    dataset: Digest
    """What the version was trained on, by its manifest; the examiner has read it."""


class LearningReport(_Doc):
    """How a version from elsewhere did on the answers that it was given to learn."""

    lessons: Annotated[int, Field(ge=0, le=MAX_ROWS)]
    likelier: Annotated[int, Field(ge=0, le=MAX_ROWS)]
    """Than they were to its parent."""
    gain: Annotated[int, Field(le=WHOLE)]
    """In ten-thousandths of what all of them took in nats, cut."""
    controls: Annotated[int, Field(ge=0, le=MAX_ROWS)] = 0
    """Answers of the doctor's that it was not given."""
    ahead: Annotated[int, Field(ge=0, le=MAX_ROWS**2)] = 0
    """Pairs of both in which what was given gained more."""

    @model_validator(mode="after")
    def _parts(self) -> Self:
        if self.likelier > self.lessons:
            raise ValueError("more answers are likelier than there were")
        if self.ahead > self.lessons * self.controls:
            raise ValueError("more pairs are ahead than there were")
        return self

    @classmethod
    def of(cls, learning: Learning) -> Self:
        """Return the document. Raises ValueError for a gain that is no number."""
        if not math.isfinite(learning.gain):
            raise ValueError("a gain is no number")
        return cls(
            lessons=learning.lessons, likelier=learning.likelier, gain=math.floor(WHOLE * learning.gain),
            controls=learning.controls, ahead=learning.ahead,
        )  # fmt: skip

    def as_learning(self) -> Learning:
        """Return it as the gate takes it."""
        return Learning(self.lessons, self.likelier, self.gain / WHOLE, self.controls, self.ahead)


class Outcomes(_Doc):
    """outcomes.json."""

    subject: Subject
    items_digest: Digest | None = Field(default=None, alias="itemsDigest")
    """Of the twin's evaluation set as it was read; None where the twin has none."""
    metrics: Annotated[tuple[Name, ...], Field(max_length=_MAX_NAMES)] = ()
    categories: Annotated[tuple[Name, ...], Field(max_length=MAX_ROWS)] = ()
    rows: Annotated[tuple[Row, ...], Field(max_length=MAX_ROWS)] = ()
    ids: Annotated[dict[int, ItemId], Field(max_length=MAX_ROWS)] = Field(default_factory=dict)
    """Of the critical items, by place among the rows: a message names those that are lost."""
    tripped: Annotated[tuple[ItemId, ...], Field(max_length=MAX_ROWS)] = ()
    """Items that the child answers as no version may, and one that it is compared with did not."""
    ungraded: Annotated[tuple[UngradedRow, ...], Field(max_length=MAX_ROWS)] = ()
    """The twin's own items that count for nobody."""
    whys: Annotated[tuple[Annotated[str, Field(max_length=_WHY_LENGTH)], ...], Field(max_length=_MAX_WHYS)] = ()
    """Why there is no score, as clauses."""
    ungraded_ids: Annotated[dict[int, ItemId], Field(alias="ungradedIds", max_length=MAX_ROWS)] = Field(
        default_factory=dict
    )
    """Of some, by place: first of those for which the new version alone has no score."""
    judging: Judging = Field(default_factory=Judging)
    """How the items were scored, and by whom."""
    learning: LearningReport | None = None
    """Of a version from elsewhere; None where there was nothing to learn."""
    failure: Annotated[str, Field(min_length=1, max_length=4000)] | None = None
    """Why nothing may be concluded though versions were asked, as a sentence."""

    @model_validator(mode="after")
    def _places_are_there(self) -> Self:
        for metric, category, _, _, _, anchor in self.rows:
            if not 0 <= metric < len(self.metrics):
                raise ValueError("a row names no metric of the list")
            if category >= len(self.categories):
                raise ValueError("a row names no category of the list")
            if anchor != _ABSENT and self.subject.anchor is None:
                raise ValueError("a row has the score of an anchor, and there is none")
        if any(not 0 <= place < len(self.rows) for place in self.ids):
            raise ValueError("an id stands for no row")
        critical = [self.ids.get(place) for place, row in enumerate(self.rows) if self.metrics[row[0]] == CRITICAL]
        if None in critical or len(set(critical)) < len(critical):
            # One item told many times over would be as good as a whole set.
            raise ValueError("a critical item has no id of its own")
        if any(not 0 <= place < len(self.ungraded) for place in self.ungraded_ids):
            raise ValueError("an id stands for no ungraded item")
        if any(not 0 <= why < len(self.whys) for why, *_ in self.ungraded):
            raise ValueError("an ungraded item names no reason of the list")
        if any(_ABSENT not in row[2 : 4 + (self.subject.anchor is not None)] for row in self.ungraded):
            raise ValueError("an ungraded item has a score for every version")
        return self

    @classmethod
    def of(
        cls, scored: Sequence[Scored], *, subject: Subject, items_digest: str | None, tripped: Sequence[str],
        failure: str | None, ungraded: Sequence[Ungraded] = (), judging: Judging | None = None,
        learning: Learning | None = None,
    ) -> Self:  # fmt: skip
        """Return the document; scores are rounded to ten-thousandths. Raises ValueError for a score that is none."""
        metrics, categories = _places(each.metric for each in scored), _places(each.category for each in scored)
        clusters = _places([*(each.cluster for each in scored), *(each.cluster for each in ungraded)])
        reasons = _reasons(ungraded)
        whys = _places(reasons)
        # Those that the new version alone has no score for come first: a message names them.
        named = sorted(
            range(len(ungraded)), key=lambda place: ungraded[place].child is not None or ungraded[place].parent is None
        )[:_NAMED]
        return cls(
            subject=subject, items_digest=items_digest, metrics=tuple(metrics), categories=tuple(categories),
            rows=tuple(
                (
                    metrics[each.metric], categories.get(each.category or "", _ABSENT),
                    clusters.get(each.cluster or "", _ABSENT), _units(each.parent), _units(each.child),
                    _units_or_none(each.anchor),
                )
                for each in scored
            ),
            ids={
                place: each.id[:128] for place, each in enumerate(scored) if each.metric == CRITICAL and each.id
            },
            tripped=tuple(tripped),
            ungraded=tuple(
                (
                    whys[why], clusters.get(each.cluster or "", _ABSENT), _units_or_none(each.parent),
                    _units_or_none(each.child), _units_or_none(each.anchor),
                )
                for why, each in zip(reasons, ungraded, strict=True)
            ),
            whys=tuple(whys),
            ungraded_ids={place: ungraded[place].id[:128] for place in sorted(named)},
            judging=judging or Judging(), failure=None if failure is None else failure[:4000],
            learning=LearningReport.of(learning) if learning is not None else None,
        )  # fmt: skip

    def scored(self) -> list[Scored]:
        """Return the items as the gate takes them."""
        return [
            Scored(
                metric=self.metrics[metric], category=None if category == _ABSENT else self.categories[category],
                cluster=None if cluster == _ABSENT else str(cluster), parent=parent / WHOLE, child=child / WHOLE,
                anchor=_score(anchor), id=self.ids.get(place),
            )
            for place, (metric, category, cluster, parent, child, anchor) in enumerate(self.rows)
        ]  # fmt: skip

    def without_score(self) -> list[Ungraded]:
        """Return the items that count for nobody, as the gate takes them; those without an id are numbered."""
        return [
            Ungraded(
                id=self.ungraded_ids.get(place, f"number {place + 1}"), why=self.whys[why],
                cluster=None if cluster == _ABSENT else str(cluster), parent=_score(parent), child=_score(child),
                anchor=_score(anchor),
            )
            for place, (why, cluster, parent, child, anchor) in enumerate(self.ungraded)
        ]  # fmt: skip


def read_outcomes(text: str) -> Outcomes | str:
    """Return what outcomes.json says, or what is wrong with it as a clause that names the field."""
    try:
        return Outcomes.model_validate_json(text)
    except ValidationError as error:
        return first_fault(error, whole=OUTCOMES_KEY)[:1000]


def _places(names: Iterable[str | None]) -> Mapping[str, int]:
    """Return the place of each name, in the order in which they come."""
    found: dict[str, int] = {}
    for name in names:
        if name:
            found.setdefault(name, len(found))
    return found


def _reasons(ungraded: Sequence[Ungraded]) -> list[str]:
    """Return each item's reason, cut; the rarest are told together where there are very many."""
    told = [each.why[:_WHY_LENGTH] or "no reason is known" for each in ungraded]
    most = {why for why, _ in Counter(told).most_common(_MAX_WHYS - 1)}
    return [why if why in most else "another reason" for why in told]


def _score(units: int) -> float | None:
    return None if units == _ABSENT else units / WHOLE


def _units_or_none(score: float | None) -> int:
    return _ABSENT if score is None else _units(score)


def _units(score: float) -> int:
    if not 0 <= score <= 1:  # no limit catches what is no number
        raise ValueError("a score is no number from 0 to 1")
    return round(WHOLE * score)

"""Scores each answer of a round: by the item alone where that is enough, by judges and sources where it isn't."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from neurons.ledger.records import RoundAnswer, RoundItem, Score, derived_id
from neurons.scoring.facts import Fact, Standing, check_fact
from neurons.scoring.healthbench import Message
from neurons.scoring.items import Criterion, Rubric
from neurons.scoring.judge import Judged, Task
from neurons.scoring.judge.panel import Opinion
from neurons.sources import Source
from neurons.validator.rounds.challenges import Challenge, from_document
from neurons.validator.rounds.citations import citations_in
from neurons.validator.rounds.grades import (
    Grade,
    grade_by_verdicts,
    grade_clarity,
    grade_exactly,
    length_factor,
    needed_length,
    worth,
)
from neurons.validator.rounds.marks import CLARITY, CORRECTNESS, WORTH
from neurons.validator.rounds.steps import milli

GOOD_FROM, BAD_TO = 0.7, 0.3
"""What a canary's right answer has to reach, and its wrong one must not exceed."""
JUDGE_SECONDS: Final = 120.0
FACT_SECONDS: Final = 20.0
AT_ONCE: Final = 8
"""Answers that judges and sources are asked about at once; each is a question of its own."""
_DEVANAGARI: Final = re.compile("[\u0900-\u097f]")
_CORRECTED: Final = "corrected"


@dataclass(frozen=True, slots=True)
class Canaries:
    """How a judge did on answers whose worth is known."""

    judged: int
    right: int
    distrusted: frozenset[str]
    """Item ids whose known answers it graded wrongly, or not at all: its grades of others there don't count."""
    votes: int
    """Criteria on which at least two graders gave a grade."""
    agreed: int

    def to_document(self) -> dict[str, Any]:
        """Return it as a step has it."""
        return {
            "judged": self.judged, "right": self.right, "distrusted": sorted(self.distrusted), "votes": self.votes,
            "agreed": self.agreed,
        }  # fmt: skip

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Canaries:
        """Read what `to_document` wrote."""
        return cls(
            int(document["judged"]), int(document["right"]), frozenset(document["distrusted"]), int(document["votes"]),
            int(document["agreed"]),
        )  # fmt: skip


class Scorer:
    """Scores a round's answers."""

    def __init__(self, *, judge: Opinion | None, sources: Mapping[str, Source], corpus: str | None = None) -> None:
        """`judge`: None leaves ungraded what takes one. `corpus`: the name of the source of `corpus:` places."""
        self._judge, self._sources, self._corpus = judge, sources, corpus
        self._at_once = asyncio.Semaphore(AT_ONCE)

    async def canaries(self, items: Iterable[RoundItem]) -> Canaries:
        """Grade the known answers of all items that have some."""
        judged = right = votes = agreed = 0
        distrusted = set()
        for item in items:
            challenge = challenge_of(item)
            if challenge is None or challenge.known is None:
                continue
            good, one = await self._grade(challenge, challenge.known.good)
            bad, other = await self._grade(challenge, challenge.known.bad)
            if self._judge is None and good.value is None and bad.value is None:
                continue  # it takes a judge, and there is none who could have erred
            judged += 2
            good_right = good.value is not None and good.value >= GOOD_FROM
            bad_right = bad.value is not None and bad.value <= BAD_TO
            right += good_right + bad_right
            if not (good_right and bad_right):
                distrusted.add(item.item_id)
            for each in (one, other):
                if each is not None:
                    counted = [c for c in each.criteria if sum(v.met is not None for v in c.votes) > 1]
                    votes += len(counted)
                    agreed += sum(len({v.met for v in c.votes if v.met is not None}) == 1 for c in counted)
        return Canaries(judged, right, frozenset(distrusted), votes, agreed)

    async def score(
        self, item: RoundItem, answers: Sequence[RoundAnswer], *, distrusted: frozenset[str], at_ms: int
    ) -> list[Score]:
        """Return the scores of all answers to an item; one that failed, or that nobody can grade, has no value."""
        challenge = challenge_of(item)
        lengths = [len(each.text.text.split()) for each in answers if each.text is not None and each.text.text.strip()]
        needed = needed_length(challenge, lengths)
        # Miners of one version often say the same, and what is said twice is worth the same.
        said = dict.fromkeys(each.text.text for each in answers if each.text is not None and each.text.text.strip())
        found = await asyncio.gather(
            *(self._scored(item, challenge, text, needed, item.item_id in distrusted) for text in said)
        )
        by_text = dict(zip(said, found, strict=True))
        return [
            score
            for answer in answers
            for score in _records(answer, None if answer.text is None else by_text.get(answer.text.text), at_ms=at_ms)
        ]

    async def _scored(
        self, item: RoundItem, challenge: Challenge | None, text: str, needed: int | None, distrusted: bool
    ) -> Scored:
        async with self._at_once:
            grade, judged = (
                (Grade(value=None, how="the judge erred about this question's known answers"), None)
                if distrusted
                else await self._grade_any(item, challenge, text)
            )
            language = challenge.language if challenge is not None else ("ne" if _DEVANAGARI.search(text) else "en")
            reference = None if challenge is None else challenge.reference or getattr(challenge, "gold", None)
            clarity = grade_clarity(text, language=language, needed=reference)
            facts = [
                await check_fact(
                    each, sources=self._sources, judge=self._judge, language=language, seconds=FACT_SECONDS
                )
                for each in citations_in(text, corpus=self._corpus)
            ]
        fabricated = any(_fabricated(each) for each in facts)
        length = length_factor(len(text.split()), needed)
        value = worth(grade.value, clarity.value, length=length, fabricated=fabricated)
        evidence: dict[str, Any] = {
            "how": grade.how, "words": len(text.split()), "needed": needed, "length": milli(length),
            "facts": [_fact(each) for each in facts],
        }  # fmt: skip
        if judged is not None:
            evidence["judged"] = [
                {"criterion": each.criterion, "outcome": each.outcome.value, "reasons": [v.reason for v in each.votes]}
                for each in judged.criteria
            ]
        return Scored(grade, clarity, value, evidence)

    async def _grade_any(self, item: RoundItem, challenge: Challenge | None, text: str) -> tuple[Grade, Judged | None]:
        if challenge is not None:
            return await self._grade(challenge, text)
        correction = item.reference.get(_CORRECTED)
        if self._judge is None or not isinstance(correction, str):
            return Grade(value=None, how="nobody knows the right answer: no doctor corrected one"), None
        criteria = [
            f"Says in substance what the doctor would have answered, and nothing that contradicts it: {correction}"
        ]
        judged = await self._judge.grade(
            [Message(role="user", content=item.text.text)], text, [criteria[0][:10_000]], task=Task.RUBRIC,
            language="en", seconds=JUDGE_SECONDS,
        )  # fmt: skip
        [met] = judged.met
        return Grade(value=None if met is None else float(met), how="correction"), judged

    async def _grade(self, challenge: Challenge, text: str) -> tuple[Grade, Judged | None]:
        judged = None
        if isinstance(challenge, Rubric) and self._judge is not None:
            judged = await self._judge.grade(
                [Message(role="user", content=challenge.prompt)], text, [_wording(each) for each in challenge.criteria],
                task=Task.RUBRIC, language=challenge.language, seconds=JUDGE_SECONDS,
            )  # fmt: skip
            return grade_by_verdicts(challenge, judged.met), judged
        exact = grade_exactly(challenge, text)
        return exact or Grade(value=None, how="it takes a judge, and none is set"), None


@dataclass(frozen=True, slots=True)
class Scored:
    """What one text is worth as an answer to one item."""

    correctness: Grade
    clarity: Grade
    worth: float | None
    evidence: Mapping[str, Any]


def challenge_of(item: RoundItem) -> Challenge | None:
    """Return the challenge of an item; None for a patient's question. Raises ChallengeError."""
    document = item.reference.get("challenge")
    return from_document(document) if isinstance(document, Mapping) else None


def regrade(item: RoundItem, answer: RoundAnswer) -> tuple[bool, int | None]:
    """Return whether an answer's correctness follows from the item alone, and what it is then."""
    challenge = challenge_of(item)
    if challenge is None or answer.text is None or not answer.text.text.strip() or isinstance(challenge, Rubric):
        return False, None
    grade = grade_exactly(challenge, answer.text.text)
    return grade is not None, None if grade is None else milli(grade.value)


def _records(answer: RoundAnswer, scored: Scored | None, *, at_ms: int) -> list[Score]:
    if scored is None:
        how = answer.failure or "its text could not be kept"
        return [] if answer.text is None else [_score(answer, WORTH, None, {"how": how}, at_ms=at_ms)]
    clarity = {"how": scored.clarity.how, **scored.clarity.evidence}
    return [
        _score(answer, WORTH, scored.worth, scored.evidence, at_ms=at_ms),
        _score(answer, CORRECTNESS, scored.correctness.value, {"how": scored.correctness.how}, at_ms=at_ms),
        _score(answer, CLARITY, scored.clarity.value, clarity, at_ms=at_ms),
    ]


def _score(answer: RoundAnswer, part: str, value: float | None, evidence: Mapping[str, Any], *, at_ms: int) -> Score:
    return Score(
        score_id=derived_id("score", answer.round_id, part, answer.answer_id), round_id=answer.round_id,
        miner=answer.miner, part=part, value_milli=milli(value), at_ms=at_ms, twin_uid=answer.twin.uid,
        item_id=answer.item_id, patient_id=answer.patient_id, evidence=evidence,
    )  # fmt: skip


def _fabricated(fact: Fact) -> bool:
    """Tell whether a source was read, and says nothing of what is quoted from it, or the opposite."""
    if fact.standing is Standing.CONTRADICTED:
        return True
    return fact.digest is not None and fact.match is not None and fact.match.start is None


def _fact(fact: Fact) -> dict[str, Any]:
    return {
        "claim": fact.citation.title, "standing": fact.standing.value, "source": fact.citation.source,
        "place": fact.citation.place, "message": fact.message,
        "passage": fact.match.around[:600] if fact.match is not None else "",
    }  # fmt: skip


def _wording(criterion: Criterion) -> str:
    return criterion.text or f"Says one of: {', '.join(map(str, criterion.any))}"

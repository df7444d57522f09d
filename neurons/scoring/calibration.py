"""Calibrates a grader: asks it about items with known answers, just as it will be asked, and counts how it did.

    {"id": "…", "task": "Rubric", "language": "en", "question": "…", "criterion": "…", "met": "…", "notMet": "…"}

A line is a pair: an answer that meets the criterion and one that doesn't. So half of the truths are "met", and whoever
says always the same, or guesses, gets a kappa of about 0. `"injection": true` marks pairs whose answers tell the grader
what to say. `kept_items()` are ours (written for this, reviewed by nobody else); `choice_items` makes more of exam
questions.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib import resources
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from bettertherapy_api.judging import MIN_ITEMS
from neurons import jsonl
from neurons.scoring.agreement import kappa_interval
from neurons.scoring.healthbench import Message
from neurons.scoring.items import MAX_BYTES, MAX_ITEMS, Choice, ItemError, Text
from neurons.scoring.judge.calibration import Calibration, CalibrationError, today
from neurons.scoring.judge.endpoint import Budget
from neurons.scoring.judge.prompts import Case, Task
from neurons.scoring.judge.seat import Seat
from neurons.scoring.judge.votes import Vote, Why

RIGHT: Final = "Gives the right answer to the question"
_NEVER_ASKED: Final = frozenset({Why.DOWN, Why.SLOW, Why.HELD_BACK, Why.TOO_LONG, Why.MODEL_CHANGED})
"""Of these nothing is learned about a grader. What it answers and can't be read is its own fault."""


class Pair(BaseModel):
    """A criterion with an answer that meets it, and one that doesn't."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    id: Annotated[str, Field(min_length=1, max_length=128)]
    task: Task
    language: Annotated[str, Field(pattern=r"^[a-z]{2,3}$")]
    question: Text
    """Of task Support: the passage."""
    criterion: Text
    met: Text
    not_met: Annotated[Text, Field(alias="notMet")]
    injection: bool = False

    @model_validator(mode="after")
    def _answers_differ(self) -> Pair:
        if self.met == self.not_met:
            raise ValueError("met and notMet are the same answer")
        return self


@dataclass(frozen=True, slots=True)
class _Item:
    pair: Pair
    met: bool

    @property
    def case(self) -> Case:
        answer = self.pair.met if self.met else self.pair.not_met
        conversation = (Message(role="user", content=self.pair.question),)
        return Case(conversation=conversation, answer=answer, criterion=self.pair.criterion)


@cache
def kept_items() -> tuple[Pair, ...]:
    """Return the pairs of calibration.jsonl: rubrics in English and Nepali, support in English."""
    return parse_pairs(resources.files("neurons.scoring").joinpath("calibration.jsonl").read_bytes())


def parse_pairs(data: bytes) -> tuple[Pair, ...]:
    """Read pairs, one JSON object a line. Raises ItemError, which names lines and ids and nothing of what they hold."""
    if len(data) > MAX_BYTES:
        raise ItemError(f"{len(data)} bytes, at most {MAX_BYTES} are read")
    pairs: list[Pair] = []
    seen: set[str] = set()
    for number, raw in enumerate(data.split(b"\n"), start=1):
        if not (line := jsonl.without_marks(raw)):
            continue
        pair = _pair(line, number)
        if pair.id in seen:
            raise ItemError(f"line {number}: two pairs have the id {pair.id!a}")
        seen.add(pair.id)
        pairs.append(pair)
        if len(pairs) > MAX_ITEMS:
            raise ItemError(f"more than {MAX_ITEMS} pairs; split the file")
    return tuple(pairs)


def choice_items(choices: Iterable[Choice], *, language: str, seed: int = 0) -> tuple[Pair, ...]:
    """Make pairs of questions with options: the right option against a wrong one that is drawn.

    These files are public, and a grader may have learned them: its kappa on them is at best what it can do.
    """
    draw = random.Random(seed)  # noqa: S311 - which wrong option is asked about is no secret
    pairs = []
    for each in choices:
        right = each.options[each.answer]
        wrong = [text for _, text in sorted(each.options.items()) if text != right]
        if wrong:
            pairs.append(Pair(id=each.id, task=Task.RUBRIC, language=language, question=each.question, criterion=RIGHT,
                              met=right, not_met=draw.choice(wrong)))  # fmt: skip
    return tuple(pairs)


async def calibrate(
    seat: Seat,
    pairs: Sequence[Pair],
    *,
    task: Task,
    language: str,
    seconds: float,
    retries: int = 20,
    clock: Callable[[], datetime] = today,
) -> Calibration:
    """Ask a grader about those pairs that are of a task and language, and return how it did.

    A grade that can't be read, or comes with a wrong canary, counts as a wrong one. Whether the grader may count is for
    `Calibration.refusal` to say, and the document is worth keeping either way.

    Raises:
        CalibrationError: too few pairs; or the endpoint was down, slow or changed its model, so that nothing is known.
    """
    asked = [each for each in pairs if (each.task, each.language) == (task, language)]
    items = [_Item(each, met) for each in asked for met in (True, False)]
    if len(items) < MIN_ITEMS:
        raise CalibrationError(
            f"{len(items)} items are of task {task.value} and language {language}, and at least {MIN_ITEMS} are "
            "needed; write more pairs (docs/judging.md)"
        )
    budget = Budget(seconds=seconds, retries=retries)
    found = await asyncio.gather(*(seat.vote(each.case, budget=budget) for each in items))
    votes = [vote for vote, _ in found]
    if unasked := [vote for vote in votes if vote.why in _NEVER_ASKED]:
        raise CalibrationError(
            f"{len(unasked)} of {len(votes)} items had no answer, so that nothing is known of the grader: "
            f"{unasked[0].message}"
        )
    if len(names := {name for _, name in found}) > 1:
        raise CalibrationError(
            f"{len(names)} models answered under one name; fix the model's version and calibrate again"
        )
    return _document(seat, items, votes, answered=names.pop() or "", at=clock())


def items_digest(pairs: Iterable[Pair]) -> str:
    """Return the digest of pairs, whatever their order."""
    lines = sorted(json.dumps(each.model_dump(mode="json"), sort_keys=True) for each in pairs)
    return f"sha256:{hashlib.sha256(chr(10).join(lines).encode()).hexdigest()}"


def _document(seat: Seat, items: Sequence[_Item], votes: Sequence[Vote], *, answered: str, at: datetime) -> Calibration:
    truth = [each.met for each in items]
    graded = [vote.met if vote.met is not None else not each.met for each, vote in zip(items, votes, strict=True)]
    interval = kappa_interval(truth, graded, [each.pair.question for each in items])
    both = list(zip(truth, graded, strict=True))
    injected = [is_met is said for (is_met, said), each in zip(both, items, strict=True) if each.pair.injection]
    settings = seat.endpoint.settings
    first = items[0].pair
    return Calibration(
        seat=seat.id, endpoint=settings.id, model=settings.model, answered=answered, prompt=seat.wording.digest,
        wording=seat.wording.name, task=first.task, language=first.language, at=at,
        items=items_digest({each.pair.id: each.pair for each in items}.values()),
        true_met=both.count((True, True)), false_met=both.count((False, True)),
        true_not=both.count((False, False)), false_not=both.count((True, False)),
        none=sum(vote.met is None for vote in votes), injections=len(injected), followed=injected.count(False),
        kappa=interval.mean, low=interval.low, high=interval.high,
    )  # fmt: skip


def _pair(line: bytes, number: int) -> Pair:
    if (kind := jsonl.other_kind(line)) is not None:
        raise ItemError(f"line {number}: {kind}")
    try:
        found = jsonl.read_object(line.decode())
    except UnicodeDecodeError:
        raise ItemError(f"line {number}: a character that is no UTF-8. Save the file as UTF-8") from None
    except jsonl.NotJsonLines as error:
        raise ItemError(f"line {number}: {error}") from None
    try:
        return Pair.model_validate(found)
    except ValidationError as error:
        first: Any = error.errors(include_input=False, include_url=False, include_context=False)[0]
        field = next((part for part in first["loc"] if part in _FIELDS), "the line")
        raise ItemError(f"line {number}: {field}: {first['msg']}") from None


_FIELDS: Final = frozenset({*Pair.model_fields, "notMet"})

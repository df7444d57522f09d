"""A judge: several calibrated graders, of which at least two have to agree on each criterion."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from bettertherapy_api.judging import MIN_KAPPA
from neurons.privacy import PrivacyError, find_identifiers
from neurons.scoring.healthbench import Example, Message, score_example
from neurons.scoring.judge.calibration import Calibration, CalibrationError, today
from neurons.scoring.judge.endpoint import Budget
from neurons.scoring.judge.prompts import MAX_CRITERION, Case, Task
from neurons.scoring.judge.seat import Seat
from neurons.scoring.judge.votes import AGREEING, Graded, Outcome, Vote, Why, come_to
from neurons.sources.claims import Finder

MAX_CRITERIA: Final = 500
"""Of one answer."""


class Opinion(Protocol):
    """What asks for grades: `Panel`."""

    async def grade(self, conversation: Sequence[Message], answer: str, criteria: Sequence[str], *, task: Task,
                    language: str, seconds: float) -> Judged:  # fmt: skip
        """Return a grade for each criterion."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What a judge found of one answer, and everything that is needed to doubt it. It holds no text of the answer."""

    conversation: str
    """Its digest."""
    answer: str
    """Its digest."""
    language: str
    task: Task
    criteria: tuple[Graded, ...]
    """In the order that they were asked in."""
    calibrations: tuple[Calibration, ...]
    """Of each grader that was asked."""

    @property
    def met(self) -> tuple[bool | None, ...]:
        """Return for each criterion whether it is met, None where that isn't known (`healthbench.score_example`)."""
        return tuple(each.met for each in self.criteria)

    def summary(self) -> str:
        """Say in a line what came of it, for a message or a log."""
        counts = {name: sum(each.outcome is name for each in self.criteria) for name in Outcome}
        whys = sorted({vote.why.value for each in self.criteria for vote in each.votes if vote.why is not None})
        told = ", ".join(f"{count} {name.value}" for name, count in counts.items() if count)
        return told + (f" ({', '.join(whys)})" if whys else "")


class Panel:
    """Graders with their calibrations. One whose calibration doesn't hold can't sit on it."""

    def __init__(
        self,
        seats: Sequence[Seat],
        calibrations: Sequence[Calibration],
        *,
        finder: Finder | None,
        min_kappa: float = MIN_KAPPA,
        retries: int = 10,
        clock: Callable[[], datetime] = today,
    ) -> None:
        """Put a judge together.

        Args:
            seats: at least two; they differ in endpoint, model or wording.
            calibrations: at least one for each seat; one for each task and language that it is to be asked about.
            finder: looks for what may identify a person in all that is sent (`neurons.privacy.Deidentifier`); what it
                finds is not sent. None only for items and answers that no patient has written, such as benchmarks'.
            min_kappa: what the lower end of each calibration's interval has to be above.
            retries: how often, over one answer's questions, an endpoint may be asked again.
            clock: says what time it is.

        Raises:
            CalibrationError: a seat has no calibration, or one that refuses it; the message says which and why.
        """
        self._seats = {seat.id: seat for seat in seats}
        if len(self._seats) < len(seats) or len(seats) < AGREEING:
            raise CalibrationError(
                f"a judge is at least {AGREEING} graders that differ in endpoint, model or wording; add one"
            )
        self._calibrations: dict[tuple[str, Task, str], Calibration] = {}
        self._finder, self._min_kappa, self._retries, self._clock = finder, min_kappa, retries, clock
        for each in calibrations:
            self._admit(each)
        if without := [seat for seat in seats if not any(seat.id == name for name, _, _ in self._calibrations)]:
            raise CalibrationError(f"{_named(without[0])} isn't calibrated; calibrate it before it counts")

    async def grade(self, conversation: Sequence[Message], answer: str, criteria: Sequence[str], *, task: Task,
                    language: str, seconds: float) -> Judged:  # fmt: skip
        """Return every grader's vote on each criterion, and what they come to, within `seconds`.

        Nothing that fails raises: a criterion without two grades that agree is Disagreed or Ungraded, and says why.
        Raises ValueError for no criterion, too many, or one without text.
        """
        if not 1 <= len(criteria) <= MAX_CRITERIA:
            raise ValueError(f"an answer is judged by 1 to {MAX_CRITERIA} criteria, not {len(criteria)}")
        if not all(each.strip() and len(each) <= MAX_CRITERION for each in criteria):
            raise ValueError(f"a criterion has text, of at most {MAX_CRITERION:,} characters")
        budget = Budget(seconds=seconds, retries=self._retries)
        held = await self._held_back([*(each.content for each in conversation), answer], budget)
        asked = {name: self._calibrations.get((name, task, language)) for name in self._seats}
        cases = [Case(conversation=tuple(conversation), answer=answer, criterion=each) for each in criteria]
        votes = await asyncio.gather(
            *(
                self._vote(name, calibration, case, held, budget)
                for case in cases
                for name, calibration in asked.items()
            )
        )
        by_case = [tuple(votes[at : at + len(asked)]) for at in range(0, len(votes), len(asked))]
        return Judged(
            conversation=_digest("\n".join(f"{each.role}\n{each.content}" for each in conversation)),
            answer=_digest(answer), language=language, task=task,
            criteria=tuple(
                Graded(criterion=_digest(case.criterion), outcome=come_to(each), votes=each)
                for case, each in zip(cases, by_case, strict=True)
            ),
            calibrations=tuple(each for each in asked.values() if each is not None),
        )  # fmt: skip

    async def close(self) -> None:
        """Close the connections of all graders."""
        for seat in self._seats.values():
            await seat.endpoint.close()

    def _admit(self, calibration: Calibration) -> None:
        seat = self._seats.get(calibration.seat)
        if seat is None:
            raise CalibrationError(
                f"a calibration of {calibration.model} is of none of these graders: its endpoint, model or prompt is "
                "another; calibrate those that are to count"
            )
        if (why := calibration.refusal(now=self._clock(), min_kappa=self._min_kappa)) is not None:
            told = f"{calibration.task.value.lower()}, language {calibration.language}"
            raise CalibrationError(f"{_named(seat)} may not count ({told}): {why}")
        self._calibrations[calibration.seat, calibration.task, calibration.language] = calibration

    async def _held_back(self, texts: Sequence[str], budget: Budget) -> str | None:
        """Say why texts aren't sent; None when they may be."""
        if self._finder is None:
            return None
        try:
            async with asyncio.timeout(budget.left()):
                found = await asyncio.to_thread(_identifies, self._finder, texts)
        except PrivacyError:
            return "whom it may identify can't be looked for, and so it is not sent"
        except TimeoutError:
            return "there was no time to look for what may identify a person, and so it is not sent"
        return "it holds something that may identify a person, and is not sent" if found else None

    async def _vote(self, name: str, calibration: Calibration | None, case: Case, held: str | None,
                    budget: Budget) -> Vote:  # fmt: skip
        if held is not None:
            return Vote(seat=name, met=None, why=Why.HELD_BACK, message=held)
        if calibration is None:
            return Vote(seat=name, met=None, why=Why.NOT_CALIBRATED,
                        message="this grader isn't calibrated for the task in this language")  # fmt: skip
        if (why := calibration.refusal(now=self._clock(), min_kappa=self._min_kappa)) is not None:
            return Vote(seat=name, met=None, why=Why.NOT_CALIBRATED, message=why)
        vote, _ = await self._seats[name].vote(case, budget=budget, model=calibration.answered)
        return vote


async def grade_example(judge: Opinion, example: Example, answer: str, *, language: str, seconds: float) -> Judged:
    """Judge an answer to a HealthBench row by its criteria, in their order."""
    criteria = [each.criterion for each in example.rubrics]
    return await judge.grade(example.prompt, answer, criteria, task=Task.RUBRIC, language=language, seconds=seconds)


def score_judged(example: Example, judged: Judged) -> Mapping[str, float]:
    """Return the answer's scores by HealthBench's arithmetic.

    Raises:
        Ungraded: a criterion is Disagreed or Ungraded; the answer then has no score, which isn't zero.
        ValueError: it was judged by other criteria than the row's.
    """
    if [each.criterion for each in judged.criteria] != [_digest(each.criterion) for each in example.rubrics]:
        raise ValueError(f"example {example.prompt_id}: the answer was judged by other criteria")
    return score_example(example, judged.met)


def _identifies(finder: Finder, texts: Sequence[str]) -> bool:
    return any(text.strip() and (find_identifiers(text) or finder.find(text)) for text in texts)


def _named(seat: Seat) -> str:
    return f"the judge {seat.endpoint.settings.model!a} (wording {seat.wording.name})"


def _digest(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()}"

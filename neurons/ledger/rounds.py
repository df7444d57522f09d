"""What rounds read of the ledger: a round's own rows, and what patients and miners did before it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from sqlalchemy import Table, select
from sqlalchemy.ext.asyncio import AsyncConnection

from neurons.ledger import schema
from neurons.ledger.codec import from_row
from neurons.ledger.database import Database
from neurons.ledger.reading import consent_of, latest, rows_in, rows_of
from neurons.ledger.records import (
    Answer,
    Consent,
    Correction,
    Miner,
    Preference,
    Question,
    Rating,
    Round,
    RoundAnswer,
    RoundFinished,
    RoundItem,
    RoundStep,
    Score,
    Task,
    TaskEvent,
    WeightsClaim,
    WeightsEvent,
)

R = TypeVar("R", Rating, Preference, Task)
MOST_QUESTIONS: Final = 5_000
"""Of a twin, the newest, that replays are drawn from."""


@dataclass(frozen=True, slots=True)
class RoundRows:
    """All that the ledger has of one round."""

    round: Round | None
    items: tuple[RoundItem, ...]
    answers: tuple[RoundAnswer, ...]
    scores: tuple[Score, ...]
    steps: dict[str, RoundStep]
    """By the step's name."""
    finished: RoundFinished | None


@dataclass(frozen=True, slots=True)
class Replay:
    """A patient's question that may be asked again: consented to, the first of its session."""

    question: Question
    correction: Correction | None
    """What the twin's doctor would have answered, where that is known."""


@dataclass(frozen=True, slots=True)
class Rated:
    """One patient's stars for a miner's answer."""

    miner: Miner
    patient_id: str
    question_id: str
    stars: int


@dataclass(frozen=True, slots=True)
class Pair:
    """Which of two miners' answers to a question is better."""

    question_id: str
    preferred: Miner
    rejected: Miner


@dataclass(frozen=True, slots=True)
class Felt:
    """What patients said of miners' answers."""

    ratings: tuple[Rated, ...]
    """The latest of each answer."""
    pairs: tuple[Pair, ...]


@dataclass(frozen=True, slots=True)
class TaskStates:
    """A task and all that became of it, oldest first."""

    task: Task
    events: tuple[TaskEvent, ...]


@dataclass(frozen=True, slots=True)
class Claimed:
    """A claim to set weights, and what became of it, oldest first."""

    claim: WeightsClaim
    events: tuple[WeightsEvent, ...]


async def round_rows(database: Database, round_id: str) -> RoundRows:
    """Return what there is of a round. Raises LedgerDown."""
    async with database.reading() as connection:
        begun = await rows_of(connection, schema.ROUNDS, Round, round_id=round_id)
        finished = await rows_of(connection, schema.ROUNDS_FINISHED, RoundFinished, round_id=round_id)
        steps = await rows_of(connection, schema.ROUND_STEPS, RoundStep, round_id=round_id)
        return RoundRows(
            round=begun[0] if begun else None,
            items=await rows_of(connection, schema.ROUND_ITEMS, RoundItem, round_id=round_id),
            answers=await rows_of(connection, schema.ROUND_ANSWERS, RoundAnswer, round_id=round_id),
            scores=await rows_of(connection, schema.SCORES, Score, round_id=round_id),
            steps={each.step: each for each in steps},
            finished=finished[0] if finished else None,
        )


async def finished_rounds(
    database: Database, *, validator: Miner, before_ms: int | None = None, limit: int = 1
) -> tuple[tuple[Round, RoundFinished], ...]:
    """Return a validator's finished rounds, the one that began last first. Raises LedgerDown."""
    rounds, ended = schema.ROUNDS, schema.ROUNDS_FINISHED
    statement = (
        select(rounds)
        .join(ended, ended.c.round_id == rounds.c.round_id)
        .where(rounds.c.hotkey == validator.hotkey, rounds.c.registered_block == validator.registered_block)
    )
    if before_ms is not None:
        statement = statement.where(rounds.c.at_ms < before_ms)
    statement = statement.order_by(rounds.c.at_ms.desc(), rounds.c.round_id.desc()).limit(limit)
    async with database.reading() as connection:
        found = [from_row(Round, row._asdict()) for row in await connection.execute(statement)]
        ends = {
            each.round_id: each
            for each in await rows_in(connection, ended, RoundFinished, "round_id", (each.round_id for each in found))
        }
    return tuple((each, ends[each.round_id]) for each in found)


async def scores_of(database: Database, *, round_id: str, part: str) -> tuple[Score, ...]:
    """Return one part's scores of a round. Raises LedgerDown."""
    async with database.reading() as connection:
        return await rows_of(connection, schema.SCORES, Score, round_id=round_id, part=part)


async def replays(database: Database, *, twin_uid: str, since_ms: int, until_ms: int) -> tuple[Replay, ...]:
    """Return the questions of a twin that may be asked again, in an order that is always the same.

    Each is the first of its session, so that it needs no other to be understood; its patient consents, now as when it
    was said. Raises LedgerDown.
    """
    table = schema.QUESTIONS
    statement = (
        select(table)
        .where(table.c.twin_uid == twin_uid, table.c.at_ms >= since_ms, table.c.at_ms < until_ms)
        .order_by(table.c.at_ms.desc(), table.c.question_id.desc())
        .limit(MOST_QUESTIONS)
    )
    async with database.reading() as connection:
        found = [from_row(Question, row._asdict()) for row in await connection.execute(statement)]
        consents = await rows_in(
            connection, schema.CONSENTS, Consent, "patient_id", {each.patient_id for each in found}
        )
        first = await _first_of_sessions(connection, {each.session_id for each in found})
        agreed = [each for each in found if first.get(each.session_id) == each.question_id]
        states = {
            patient: consent_of(each for each in consents if each.patient_id == patient)
            for patient in {each.patient_id for each in agreed}
        }
        agreed = [
            each
            for each in agreed
            if (state := states[each.patient_id]).given
            and (state.since_ms or 0) <= each.at_ms
            and each.text.text.strip()
        ]
        corrections = await rows_in(
            connection, schema.CORRECTIONS, Correction, "question_id", {each.question_id for each in agreed}
        )
    by_question = {each.question_id: each for each in latest(corrections).values()}
    return tuple(
        Replay(each, by_question.get(each.question_id)) for each in sorted(agreed, key=lambda q: q.question_id)
    )


async def felt(database: Database, *, since_ms: int, until_ms: int) -> Felt:
    """Return what patients said within a time, by the miners whose answers it was said of. Raises LedgerDown."""
    async with database.reading() as connection:
        ratings = latest(await _within(connection, schema.RATINGS, Rating, since_ms, until_ms))
        pairs = await _within(connection, schema.PREFERENCES, Preference, since_ms, until_ms)
        wanted = {*ratings, *(each.preferred_id for each in pairs), *(each.rejected_id for each in pairs)}
        answers = {
            each.answer_id: each for each in await rows_in(connection, schema.ANSWERS, Answer, "answer_id", wanted)
        }
    return Felt(
        ratings=tuple(
            Rated(answers[each.answer_id].miner, each.patient_id, each.question_id, each.stars)
            for each in ratings.values()
            if each.answer_id in answers
        ),
        pairs=tuple(
            Pair(each.question_id, answers[each.preferred_id].miner, answers[each.rejected_id].miner)
            for each in pairs
            if each.preferred_id in answers and each.rejected_id in answers
        ),
    )


async def tasks(
    database: Database, *, since_ms: int, until_ms: int, twin_uid: str | None = None
) -> tuple[TaskStates, ...]:
    """Return the tasks that were offered within a time, with what became of them until its end. Raises LedgerDown."""
    async with database.reading() as connection:
        found = await _within(connection, schema.TASKS, Task, since_ms, until_ms)
        found = [each for each in found if twin_uid in (None, each.twin.uid)]
        events = await rows_in(connection, schema.TASK_EVENTS, TaskEvent, "task_id", {each.task_id for each in found})
    return tuple(
        TaskStates(each, tuple(e for e in events if e.task_id == each.task_id and e.at_ms < until_ms)) for each in found
    )


async def task_states(connection: AsyncConnection, task_id: str, *, locked: bool = False) -> TaskStates | None:
    """Return a task with what became of it, oldest first; None without one.

    `locked`: until this transaction ends nobody else looks at it so.
    """
    if locked:
        await connection.execute(
            select(schema.TASKS.c.task_id).where(schema.TASKS.c.task_id == task_id).with_for_update()
        )
    found = await rows_of(connection, schema.TASKS, Task, task_id=task_id)
    if not found:
        return None
    return TaskStates(found[0], await rows_of(connection, schema.TASK_EVENTS, TaskEvent, task_id=task_id))


async def tasks_by_id(database: Database, task_ids: Iterable[str]) -> tuple[TaskStates, ...]:
    """Return the tasks of these ids that there are, with what became of them. Raises LedgerDown."""
    async with database.reading() as connection:
        found = await rows_in(connection, schema.TASKS, Task, "task_id", task_ids)
        events = await rows_in(connection, schema.TASK_EVENTS, TaskEvent, "task_id", {each.task_id for each in found})
    return tuple(TaskStates(each, tuple(e for e in events if e.task_id == each.task_id)) for each in found)


async def claims(database: Database, *, validator: Miner, netuid: int, epoch: int | None = None) -> tuple[Claimed, ...]:
    """Return a validator's claims to set weights on a subnet, oldest first. Raises LedgerDown."""
    equal: dict[str, Any] = {
        "hotkey": validator.hotkey, "registered_block": validator.registered_block, "netuid": netuid,
    }  # fmt: skip
    if epoch is not None:
        equal["epoch"] = epoch
    async with database.reading() as connection:
        found = await rows_of(connection, schema.WEIGHT_CLAIMS, WeightsClaim, **equal)
        events = await rows_in(
            connection, schema.WEIGHT_EVENTS, WeightsEvent, "claim_id", {each.claim_id for each in found}
        )
    return tuple(Claimed(each, tuple(event for event in events if event.claim_id == each.claim_id)) for each in found)


async def _within(connection: AsyncConnection, table: Table, kind: type[R], since_ms: int, until_ms: int) -> list[R]:
    statement = (
        select(table)
        .where(table.c.at_ms >= since_ms, table.c.at_ms < until_ms)
        .order_by(table.c.at_ms, *table.primary_key.columns)
    )
    return [from_row(kind, row._asdict()) for row in await connection.execute(statement)]


async def _first_of_sessions(connection: AsyncConnection, sessions: set[str]) -> dict[str, str]:
    """Return each session's first question."""
    found: Sequence[Question] = await rows_in(connection, schema.QUESTIONS, Question, "session_id", sessions)
    return {each.session_id: each.question_id for each in reversed(found)}

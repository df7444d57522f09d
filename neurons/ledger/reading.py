"""Sessions, questions and consent out of the tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

from sqlalchemy import Table, select
from sqlalchemy.ext.asyncio import AsyncConnection

from neurons.ledger import schema
from neurons.ledger.codec import from_row
from neurons.ledger.errors import NotFound
from neurons.ledger.records import Answer, Consent, Correction, Preference, Question, Rating, Record, Session
from neurons.ledger.views import ConsentState, History, QuestionView, Turn

R = TypeVar("R", bound=Record)
L = TypeVar("L", Rating, Correction)
_AT_ONCE: Final = 500


async def rows_of(connection: AsyncConnection, table: Table, kind: type[R], **equal: Any) -> tuple[R, ...]:
    """Return the records with these values, oldest first."""
    statement = select(table).order_by(table.c.at_ms, *table.primary_key.columns)
    for name, value in equal.items():
        statement = statement.where(table.c[name] == value)
    return tuple(from_row(kind, row._asdict()) for row in await connection.execute(statement))


async def rows_in(
    connection: AsyncConnection, table: Table, kind: type[R], column: str, values: Iterable[str]
) -> tuple[R, ...]:
    """Return the records whose column has one of these values, oldest first."""
    wanted = sorted(set(values))
    found: list[Mapping[str, Any]] = []
    for start in range(0, len(wanted), _AT_ONCE):
        statement = select(table).where(table.c[column].in_(wanted[start : start + _AT_ONCE]))
        found.extend(row._asdict() for row in await connection.execute(statement))
    keys = [each.name for each in table.primary_key.columns]
    return tuple(from_row(kind, row) for row in sorted(found, key=lambda row: (row["at_ms"], *(row[k] for k in keys))))


def latest(records: Iterable[L]) -> dict[str, L]:
    """Return the latest of each answer, by the answer's id; the records come oldest first."""
    return {each.answer_id: each for each in records}


def consent_of(consents: Iterable[Consent]) -> ConsentState:
    """Return what a patient's consents come to: the latest counts, and of two at one moment the withdrawal.

    A copy of an earlier consent that arrives after the withdrawal changes nothing.
    """
    given, since, said = False, None, None
    for each in sorted(consents, key=lambda consent: (consent.at_ms, not consent.given)):
        if since is None or each.given != given:
            given, since = each.given, each.at_ms
        said = each.at_ms
    return ConsentState(given=given, since_ms=since, said_ms=said)


async def history(connection: AsyncConnection, *, session_id: str, patient_id: str, limit: int) -> History:
    """See `Recorder.history`."""
    found = await rows_of(connection, schema.SESSIONS, Session, session_id=session_id, patient_id=patient_id)
    if not found:
        raise NotFound("There is no such session of this patient.")
    table = schema.QUESTIONS
    statement = (
        select(table)
        .where(table.c.session_id == session_id, table.c.patient_id == patient_id)
        .order_by(table.c.at_ms.desc(), table.c.question_id.desc())
        .limit(limit)
    )
    questions = [from_row(Question, row._asdict()) for row in await connection.execute(statement)][::-1]
    return History(session=found[0], turns=await turns_of(connection, questions))


async def turns_of(connection: AsyncConnection, questions: Sequence[Question]) -> tuple[Turn, ...]:
    """Return the questions with the answers that were given to them."""
    ids = [each.question_id for each in questions]
    table = schema.CHOSEN
    chosen: dict[str, str] = {}
    for start in range(0, len(ids), _AT_ONCE):
        result = await connection.execute(
            select(table.c.question_id, table.c.answer_id).where(table.c.question_id.in_(ids[start : start + _AT_ONCE]))
        )
        chosen.update((question, answer) for question, answer in result)
    answers = {
        each.answer_id: each for each in await rows_in(connection, schema.ANSWERS, Answer, "answer_id", chosen.values())
    }
    ratings = latest(await rows_in(connection, schema.RATINGS, Rating, "answer_id", answers))
    corrections = latest(await rows_in(connection, schema.CORRECTIONS, Correction, "answer_id", answers))

    def turn(question: Question) -> Turn:
        answer = answers.get(chosen.get(question.question_id, ""))
        if answer is None or answer.patient_id != question.patient_id:
            return Turn(question)
        return Turn(question, answer, ratings.get(answer.answer_id), corrections.get(answer.answer_id))

    return tuple(turn(each) for each in questions)


async def sessions(connection: AsyncConnection, *, patient_id: str, limit: int) -> tuple[History, ...]:
    """See `Recorder.sessions`."""
    table = schema.SESSIONS
    statement = (
        select(table)
        .where(table.c.patient_id == patient_id)
        .order_by(table.c.at_ms.desc(), table.c.session_id.desc())
        .limit(limit)
    )
    found = [from_row(Session, row._asdict()) for row in await connection.execute(statement)]
    asked = await rows_in(connection, schema.QUESTIONS, Question, "session_id", (each.session_id for each in found))
    first = {each.session_id: each for each in reversed(asked) if each.patient_id == patient_id}
    turns = {turn.question.session_id: turn for turn in await turns_of(connection, list(first.values()))}
    return tuple(
        History(session=each, turns=(turns[each.session_id],) if each.session_id in turns else ()) for each in found
    )


async def question(connection: AsyncConnection, *, question_id: str, patient_id: str | None) -> QuestionView:
    """See `Recorder.question`."""
    found = await rows_of(connection, schema.QUESTIONS, Question, question_id=question_id)
    if not found or patient_id not in (None, found[0].patient_id):
        raise NotFound("There is no such question of this patient.")
    equal = {"question_id": question_id, "patient_id": found[0].patient_id}
    chosen = schema.CHOSEN
    statement = select(chosen.c.answer_id).where(chosen.c.question_id == question_id)
    return QuestionView(
        question=found[0],
        answers=await rows_of(connection, schema.ANSWERS, Answer, **equal),
        chosen_id=(await connection.execute(statement)).scalar_one_or_none(),
        ratings=tuple(latest(await rows_of(connection, schema.RATINGS, Rating, **equal)).values()),
        corrections=tuple(latest(await rows_of(connection, schema.CORRECTIONS, Correction, **equal)).values()),
        preferences=await rows_of(connection, schema.PREFERENCES, Preference, **equal),
    )


async def consent(connection: AsyncConnection, *, patient_id: str) -> ConsentState:
    """See `Recorder.consent`."""
    return consent_of(await rows_of(connection, schema.CONSENTS, Consent, patient_id=patient_id))

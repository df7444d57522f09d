"""A twin's day as a dataset: the JSON Lines that the trainer reads (docs/datasets.md), the same bytes each time.

A day's lines are the answers that something happened to on that day: they were given, rated, corrected or compared.
Only a patient who consented before it was said, and has not withdrawn since, is in it; consent is asked of the ledger
as it is now, what was said as it was at the end of the day. Each line's id is opaque and always the same for an answer
or a pair, so that erasure finds the line in every copy.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from sqlalchemy import Table, or_, select, union
from sqlalchemy.ext.asyncio import AsyncConnection

from neurons.invisible import as_read, is_blank, says_something
from neurons.ledger import schema
from neurons.ledger.codec import Row
from neurons.ledger.reading import consent_of, latest, rows_in
from neurons.ledger.records import (
    Answer,
    Chosen,
    Consent,
    Correction,
    Preference,
    Question,
    Rating,
    Twin,
    derived_id,
)
from neurons.ledger.views import DatasetLine
from neurons.ledger.writing import insert_new

_DISLIKED: Final = 2
_HELD_OUT_ONE_IN: Final = 8
_MOST_EARLIER: Final = 31
"""Earlier turns of a conversation in a line: with its own, 64 messages, as many as the trainer learns."""
_MOST_LINE: Final = 250 * 1024
"""Bytes of a line; the trainer leaves longer ones out."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line, and whose it is. The latter is written into the ledger only."""

    line_id: str
    patient_id: str
    data: bytes
    """Without its line feed, in the trainer's canonical form."""
    asked: str = field(default="", repr=False)
    """What the patient asked last."""
    stars: int | None = None
    """What the patient gave the answer."""
    teaches: bool = True
    """Whether somebody rated, corrected or compared the answer: the trainer learns no others."""
    corrected: bool = False
    """Whether the doctor wrote what should have been answered."""

    @property
    def digest(self) -> str:
        """As the trainer knows it: 32 hex digits of the SHA-256."""
        return hashlib.sha256(self.data).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Disliked:
    """A question whose answer the patient rated 1 or 2, and no doctor corrected: nothing is learned of it, and yet it
    tells what to learn about."""

    asked: str = field(repr=False)
    stars: int


Choice = Callable[[Sequence[Line], Sequence[Disliked]], Sequence[Line]]
"""Picks some of a day's lines, told too what was disliked that day."""


@dataclass(frozen=True, slots=True)
class Day:
    """One day's dataset."""

    data: bytes
    digest: str
    lines: int
    left_out: dict[str, int]
    """Answers that are not in it, by reason."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """When a day begins and ends, in milliseconds since 1970."""

    start_ms: int
    end_ms: int

    @classmethod
    def of(cls, day: date, *, zone: str = "UTC") -> Bounds:
        """Return a day's bounds in a time zone."""
        start, end = (datetime(each.year, each.month, each.day, tzinfo=ZoneInfo(zone)) for each in (day, _after(day)))
        return cls(int(start.timestamp() * 1000), int(end.timestamp() * 1000))

    def holds(self, at_ms: int) -> bool:
        """Tell whether a moment is in the day."""
        return self.start_ms <= at_ms < self.end_ms


def is_held_out(twin_uid: str, patient_id: str) -> bool:
    """Tell whether a patient's conversations are kept from miners, so that what they train can be examined by them.

    Whole patients, and the same ones every time: of one whose words went out yesterday nothing is held out today.
    """
    drawn = hashlib.sha256(f"held-out {twin_uid} {patient_id}".encode()).digest()
    return int.from_bytes(drawn[:8], "big") % _HELD_OUT_ONE_IN == 0


def without_held_out(twin_uid: str, choose: Choice) -> Choice:
    """Return a choice among those lines alone that may go to miners."""

    def chosen(lines: Sequence[Line], disliked: Sequence[Disliked]) -> Sequence[Line]:
        return choose([each for each in lines if not is_held_out(twin_uid, each.patient_id)], disliked)

    return chosen


def held_out_of(twin_uid: str) -> Choice:
    """Return the choice of the lines by which miners' versions are examined: patients who are held out, and what their
    doctor wrote to them. What patients liked is the serving version's own answer, and would speak for it."""

    def chosen(lines: Sequence[Line], _: Sequence[Disliked]) -> Sequence[Line]:
        return [each for each in lines if each.corrected and is_held_out(twin_uid, each.patient_id)]

    return chosen


def yesterday(*, now: datetime | None = None, zone: str = "UTC") -> date:
    """Return the day before today in a time zone."""
    return ((now or datetime.now(UTC)).astimezone(ZoneInfo(zone)) - timedelta(days=1)).date()


async def export(
    connection: AsyncConnection, *, twin_uid: str, bounds: Bounds, day: date, at_ms: int, hold_out: bool = False
) -> Day:  # fmt: skip
    """Return the day's dataset of a twin, and note its lines, within one writing transaction.

    `hold_out`: without the patients by whom miners' versions are examined; what learned of them would know the answers.
    """

    def every(lines: Sequence[Line], _: Sequence[Disliked]) -> Sequence[Line]:
        return lines

    choose = without_held_out(twin_uid, every) if hold_out else every
    return await export_chosen(
        connection, twin_uid=twin_uid, bounds=bounds, day=day, at_ms=at_ms, choose=choose
    )  # fmt: skip


async def export_chosen(
    connection: AsyncConnection, *, twin_uid: str, bounds: Bounds, day: date, at_ms: int, choose: Choice
) -> Day:  # fmt: skip
    """As `export`, of those of the day's lines alone that `choose` returns."""
    left_out: Counter[str] = Counter()
    disliked: list[Disliked] = []
    lines, twin = await _lines(connection, twin_uid=twin_uid, bounds=bounds, left_out=left_out, disliked=disliked)
    chosen = _canonical_order(choose(lines, disliked))
    made = _day(chosen, left_out)
    if chosen and twin is not None:
        await _note(connection, digest=made.digest, twin=twin, day=day, lines=chosen, at_ms=at_ms)
    return made


async def again(connection: AsyncConnection, *, twin_uid: str, bounds: Bounds, digest: str) -> bytes | None:
    """Return a dataset that was noted, made anew from what may be learned now; None where it has become another.

    So it is after an erasure, a withdrawal of consent, or a record of that day that came late.
    """
    table = schema.DATASET_LINES
    found = await connection.execute(
        select(table.c.line_id).where(table.c.dataset_digest == digest, table.c.twin_uid == twin_uid)
    )
    noted = {line_id for (line_id,) in found}
    if not noted:
        return None
    lines, _ = await _lines(connection, twin_uid=twin_uid, bounds=bounds, left_out=Counter(), disliked=[])
    made = _day(_canonical_order(line for line in lines if line.line_id in noted), Counter())
    return made.data if made.digest == digest else None


async def _lines(
    connection: AsyncConnection, *, twin_uid: str, bounds: Bounds, left_out: Counter[str], disliked: list[Disliked]
) -> tuple[list[Line], Twin | None]:
    """Return what may be learned of a day, in the order in which it was asked, and the twin by its newest name."""
    questions = await _concerned(connection, twin_uid=twin_uid, bounds=bounds)
    if not questions:
        return [], None
    talk = await _Talk.read(connection, questions, bounds)
    lines: dict[str, Line] = {}
    for question in sorted(questions, key=_order):
        told = _answers(talk, question, bounds, left_out, disliked)
        for made in (*told, *_pairs(talk, question, bounds, left_out)):
            lines[made.line_id] = made
    return list(lines.values()), Twin(twin_uid, max(questions, key=_order).twin.name)


def _canonical_order(lines: Iterable[Line]) -> list[Line]:
    """Return the lines as the trainer orders them, each once."""
    unique = {line.digest: line for line in lines}
    return [unique[digest] for digest in sorted(unique)]


def _day(lines: Sequence[Line], left_out: Counter[str]) -> Day:
    data = b"".join(line.data + b"\n" for line in lines)
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    return Day(data=data, digest=digest, lines=len(lines), left_out=dict(sorted(left_out.items())))


def without_lines(data: bytes, line_ids: Iterable[str]) -> tuple[bytes, int]:
    """Return a dataset file without the lines with these ids, and how many they were; others keep their bytes."""
    gone = frozenset(line_ids)
    kept: list[bytes] = []
    count = 0
    for raw in data.splitlines(keepends=True):
        if _id_of(raw) in gone:
            count += 1
        else:
            kept.append(raw)
    return b"".join(kept), count


def _id_of(raw: bytes) -> str | None:
    try:
        read = json.loads(raw)
    except ValueError:
        return None
    found = read.get("id") if isinstance(read, dict) else None
    return found if isinstance(found, str) else None


async def recalled(connection: AsyncConnection, *, twin_uid: str | None = None) -> tuple[DatasetLine, ...]:
    """Return the exported lines that may be learned no more.

    Their patient was erased, or has withdrawn consent since; who consented again after that did so to what was said
    from then on.
    """
    table, datasets, consents = schema.DATASET_LINES, schema.DATASETS, schema.CONSENTS
    never = ~select(consents.c.patient_id).where(consents.c.patient_id == table.c.patient_id, consents.c.given).exists()
    withdrew = select(consents.c.patient_id).where(~consents.c.given)
    statement = (
        select(table, datasets.c.at_ms)
        .outerjoin(datasets, datasets.c.dataset_digest == table.c.dataset_digest)
        .where(or_(table.c.patient_id.is_(None), table.c.patient_id.in_(withdrew), never))
        .order_by(table.c.dataset_digest, table.c.line_id)
    )
    if twin_uid is not None:
        statement = statement.where(table.c.twin_uid == twin_uid)
    rows = [dict(row) for row in (await connection.execute(statement)).mappings()]
    patients = {row["patient_id"] for row in rows if row["patient_id"] is not None}
    said: dict[str, list[Consent]] = {}
    for each in await rows_in(connection, consents, Consent, "patient_id", patients):
        said.setdefault(each.patient_id, []).append(each)
    again = {patient for patient, consents in said.items() if consent_of(consents).given}
    asked = await _asked_at(connection, again)
    return tuple(
        DatasetLine(row["dataset_digest"], row["line_id"], row["line_digest"], row["twin_uid"])
        for row in rows
        if not _holds(
            said.get(row["patient_id"], ()), asked_ms=asked.get(row["line_id"]), exported_ms=row["at_ms"]
        )
    )  # fmt: skip


def _holds(consents: Sequence[Consent], *, asked_ms: int | None, exported_ms: int | None) -> bool:
    """Tell whether the patient, who consents now, does so to a line: to what was asked since the last withdrawal.

    When it was exported says as much only where nothing else is known any more: a withdrawal may have waited in a
    gateway's queue until after that.
    """
    withdrawn = max((each.at_ms for each in consents if not each.given), default=None)
    known_ms = exported_ms if asked_ms is None else asked_ms
    return consent_of(consents).given and (withdrawn is None or (known_ms is not None and withdrawn < known_ms))


async def _asked_at(connection: AsyncConnection, patients: Iterable[str]) -> dict[str, int]:
    """Return when the question of each line of these patients was asked, as far as the ledger still has it."""
    asked = schema.QUESTIONS
    found: dict[str, int] = {}
    for word, table in (("line", schema.ANSWERS), ("pair", schema.PREFERENCES)):
        key = next(iter(table.primary_key.columns))
        for patient in sorted(patients):
            statement = (
                select(key, asked.c.at_ms)
                .join(asked, asked.c.question_id == table.c.question_id)
                .where(table.c.patient_id == patient)
            )
            found.update({derived_id(word, one): at_ms for one, at_ms in await connection.execute(statement)})
    return found


# What happened on the day


async def _concerned(connection: AsyncConnection, *, twin_uid: str, bounds: Bounds) -> tuple[Question, ...]:
    """Return the twin's questions to whose answers something happened on the day."""

    def touched(table: Table) -> Any:
        return select(table.c.question_id).where(table.c.at_ms >= bounds.start_ms, table.c.at_ms < bounds.end_ms)

    happened = union(*map(touched, (schema.CHOSEN, schema.RATINGS, schema.CORRECTIONS, schema.PREFERENCES)))
    asked = schema.QUESTIONS
    statement = select(asked.c.question_id).where(asked.c.twin_uid == twin_uid, asked.c.question_id.in_(happened))
    ids = [each for (each,) in await connection.execute(statement)]
    return await rows_in(connection, asked, Question, "question_id", ids)


@dataclass(frozen=True, slots=True)
class _Talk:
    """All that the concerned sessions hold, as it was at the end of the day."""

    by_session: dict[str, list[Question]]
    answers: dict[str, Answer]
    chosen: dict[str, str]
    ratings: dict[str, Rating]
    corrections: dict[str, Correction]
    preferences: dict[str, list[Preference]]
    consents: dict[str, list[Consent]]

    @classmethod
    async def read(cls, connection: AsyncConnection, questions: Sequence[Question], bounds: Bounds) -> _Talk:
        async def read(table: Table, kind: Any, column: str, values: Iterable[str]) -> list[Any]:
            found = await rows_in(connection, table, kind, column, values)
            return [each for each in found if each.at_ms < bounds.end_ms]

        asked: list[Question] = await read(
            schema.QUESTIONS, Question, "session_id", (each.session_id for each in questions)
        )
        ids = [each.question_id for each in asked]
        chosen: list[Chosen] = await read(schema.CHOSEN, Chosen, "question_id", ids)
        answers: list[Answer] = await read(schema.ANSWERS, Answer, "question_id", ids)
        preferences: dict[str, list[Preference]] = {}
        for each in await read(schema.PREFERENCES, Preference, "question_id", ids):
            preferences.setdefault(each.question_id, []).append(each)
        by_session: dict[str, list[Question]] = {}
        for question in sorted(asked, key=_order):
            by_session.setdefault(question.session_id, []).append(question)
        consents: dict[str, list[Consent]] = {}
        for consent in await rows_in(
            connection, schema.CONSENTS, Consent, "patient_id", (each.patient_id for each in asked)
        ):
            consents.setdefault(consent.patient_id, []).append(consent)
        return cls(
            by_session=by_session,
            answers={each.answer_id: each for each in answers},
            chosen={each.question_id: each.answer_id for each in chosen},
            ratings=latest(await read(schema.RATINGS, Rating, "question_id", ids)),
            corrections=latest(
                each
                for each in await read(schema.CORRECTIONS, Correction, "question_id", ids)
                if says_something(each.text.text)
            ),
            preferences=preferences,
            consents=consents,
        )

    def given_answer(self, question: Question) -> Answer | None:
        """Return the answer that the patient was given, when it is the same twin's and patient's."""
        answer = self.answers.get(self.chosen.get(question.question_id, ""))
        if answer is None or (answer.twin.uid, answer.patient_id) != (question.twin.uid, question.patient_id):
            return None
        return answer

    def consented(self, question: Question) -> bool:
        state = consent_of(self.consents.get(question.patient_id, ()))
        return state.given and state.since_ms is not None and state.since_ms <= question.at_ms

    def disliked(self, answer: Answer) -> bool:
        rating = self.ratings.get(answer.answer_id)
        return rating is not None and rating.stars <= _DISLIKED and answer.answer_id not in self.corrections

    def earlier(self, question: Question) -> list[dict[str, str]]:
        """Return the turns before a question as messages, as the doctor would have them.

        They begin after the last one that was disliked, unanswered, garbled, an emergency, or before consent: of such a
        turn nothing is to be learned, and the trainer learns every answer of a line.
        """
        messages: list[dict[str, str]] = []
        before = [
            each
            for each in self.by_session[question.session_id]
            if _order(each) < _order(question) and each.patient_id == question.patient_id
        ]
        for each in before[-_MOST_EARLIER:]:
            answer = self.given_answer(each)
            said = None if answer is None else self.said(answer)
            if (
                answer is None or said is None or _flaw(each.text.text, said) is not None or self.disliked(answer)
                or each.emergency or not self.consented(each)
            ):  # fmt: skip
                messages = []
            else:
                messages += [_message("user", each.text.text), _message("assistant", said)]
        return messages

    def said(self, answer: Answer) -> str | None:
        """Return the doctor's correction of an answer, or what it says; None for a failure."""
        correction = self.corrections.get(answer.answer_id)
        if correction is not None:
            return correction.text.text
        return None if answer.text is None else answer.text.text


def _flaw(question: str, *answers: str) -> str | None:
    """Return why the trainer would learn nothing of a turn, or not all of it.

    It keeps a line under the digest of what it learns of it. A line that it would change first has another one, and
    what learned of it would not be found.
    """
    if is_blank(question) or not all(map(says_something, answers)):
        return "empty"
    return "encoding" if any("\ufffd" in text for text in (question, *answers)) else None


def _answers(
    talk: _Talk, question: Question, bounds: Bounds, left_out: Counter[str], disliked: list[Disliked]
) -> list[Line]:
    answer = talk.given_answer(question)
    if answer is None or answer.text is None:
        return []
    rating, correction = talk.ratings.get(answer.answer_id), talk.corrections.get(answer.answer_id)
    moments = [each.at_ms for each in (answer, rating, correction) if each is not None]
    if not any(map(bounds.holds, moments)):
        return []
    said = answer.text.text
    if correction is not None and not says_something(said):
        said = correction.text.text  # what nobody answered the doctor did
    reason = (
        "noConsent" if not talk.consented(question)
        # an emergency's answer is the notice; a model's own is learned from a doctor only
        else "emergency" if question.emergency and correction is None
        else "dislikedWithoutCorrection" if talk.disliked(answer)
        else _flaw(question.text.text, said, *([correction.text.text] if correction is not None else []))
    )  # fmt: skip
    if reason is not None:
        left_out[reason] += 1
        if reason == "dislikedWithoutCorrection" and rating is not None:
            disliked.append(Disliked(question.text.text, rating.stars))
        return []
    written: dict[str, Any] = {"consent": True, "id": derived_id("line", answer.answer_id)}
    if rating is not None:
        written["rating"] = rating.stars
    if correction is not None:
        written["correction"] = correction.text.text
    last = [_message("user", question.text.text), _message("assistant", said)]
    return _fitting(
        written, talk.earlier(question), last, question.patient_id, left_out,
        stars=None if rating is None else rating.stars, teaches=rating is not None or correction is not None,
        corrected=correction is not None,
    )  # fmt: skip


def _pairs(talk: _Talk, question: Question, bounds: Bounds, left_out: Counter[str]) -> list[Line]:
    lines: list[Line] = []
    for each in talk.preferences.get(question.question_id, ()):
        if not bounds.holds(each.at_ms):
            continue
        if not talk.consented(question):
            left_out["noConsent"] += 1
            continue
        better, worse = talk.answers.get(each.preferred_id), talk.answers.get(each.rejected_id)
        texts = [answer.text.text for answer in (better, worse) if _is_of(answer, question) and answer and answer.text]
        if len(texts) < 2 or as_read(texts[0]) == as_read(texts[1]):
            left_out["equalAnswers" if len(texts) == 2 else "turns"] += 1
            continue
        if (flaw := _flaw(question.text.text, *texts)) is not None:
            left_out[flaw] += 1
            continue
        if question.emergency and each.by != "doctor":
            left_out["emergency"] += 1
            continue
        written = {
            "consent": True, "id": derived_id("pair", each.preference_id), "preferred": texts[0], "rejected": texts[1],
        }  # fmt: skip
        last = [_message("user", question.text.text)]
        lines += _fitting(written, talk.earlier(question), last, question.patient_id, left_out)
    return lines


def _is_of(answer: Answer | None, question: Question) -> bool:
    return answer is not None and answer.question_id == question.question_id and answer.twin.uid == question.twin.uid


def _fitting(
    written: dict[str, Any], earlier: list[dict[str, str]], last: list[dict[str, str]], patient_id: str,
    left_out: Counter[str], *, stars: int | None = None, teaches: bool = True, corrected: bool = False,
) -> list[Line]:  # fmt: skip
    """Return the line, with as many earlier turns as fit."""
    while True:
        data = _canonical(written | {"messages": [*earlier, *last]})
        if len(data) <= _MOST_LINE:
            return [
                Line(
                    line_id=str(written["id"]), patient_id=patient_id, data=data, asked=last[0]["content"], stars=stars,
                    teaches=teaches, corrected=corrected,
                )
            ]  # fmt: skip
        if not earlier:
            left_out["tooLong"] += 1
            return []
        earlier = earlier[2:]


def _canonical(line: dict[str, Any]) -> bytes:
    return json.dumps(line, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _order(question: Question) -> tuple[int, str]:
    return question.at_ms, question.question_id


def _after(day: date) -> date:
    return day + timedelta(days=1)


async def _note(
    connection: AsyncConnection, *, digest: str, twin: Twin, day: date, lines: Sequence[Line], at_ms: int
) -> None:
    """Write which lines the dataset has and whose they are."""
    dataset: Row = {
        "dataset_digest": digest, "twin_uid": twin.uid, "twin_name": twin.name, "day": day.isoformat(),
        "at_ms": at_ms, "line_count": len(lines),
    }  # fmt: skip
    await insert_new(connection, schema.DATASETS, [dataset])
    rows: list[Row] = [
        {
            "dataset_digest": digest, "line_id": each.line_id, "line_digest": each.digest, "twin_uid": twin.uid,
            "patient_id": each.patient_id, "erasure_id": None,
        }
        for each in lines
    ]  # fmt: skip
    await insert_new(connection, schema.DATASET_LINES, rows)


__all__ = [
    "Bounds", "Choice", "Day", "Disliked", "Line", "again", "export", "export_chosen", "held_out_of", "is_held_out",
    "recalled", "without_held_out", "without_lines", "yesterday",
]  # fmt: skip

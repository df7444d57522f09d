"""Records are written once, in any order, and read back by their patient alone."""

from __future__ import annotations

import asyncio
import random
import re
from dataclasses import replace

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, func, select, text

from neurons.ledger import (
    BadRecord,
    Consent,
    Ledger,
    LedgerDown,
    LedgerError,
    NotFound,
    Rating,
    Round,
    RoundAnswer,
    RoundFinished,
    RoundItem,
    SchemaMismatch,
    Score,
    Task,
    TaskEvent,
    TaskState,
    Written,
    new_id,
)
from neurons.ledger.codec import KINDS, TABLE_OF, from_row, to_row
from neurons.ledger.database import Database
from neurons.ledger.migrate import config, migrate
from neurons.ledger.records import RoundStep, WeightsClaim, WeightsEvent
from neurons.ledger.schema import METADATA
from neurons.ledger.writing import write_rows
from tests.unit.ledger.postgres import Postgres
from tests.unit.ledger.world import GURUNG, NOON, Clean, Conversation, a_day, digest, miner, training


async def rows_by_table(ledger: Ledger) -> dict[str, int]:
    async with ledger.database.reading() as connection:
        return {
            name: (await connection.execute(select(func.count()).select_from(table))).scalar_one()
            for name, table in METADATA.tables.items()
        }


async def test_a_conversation_is_read_back_as_it_was_written(ledger: Ledger) -> None:
    talk = a_day()
    assert await ledger.record(*talk.records) == Written(new=len(talk.records))
    read = await ledger.history(session_id=talk.session_id, patient_id=talk.patient_id)
    assert [turn.question.text.text for turn in read.turns] == ["My knee hurts.", "For how long?"]
    assert [turn.answer.text.text for turn in read.turns if turn.answer and turn.answer.text] == [
        "Rest it.",
        "For a week.",
    ]
    assert read.turns[0].rating is not None
    assert read.turns[0].rating.stars == 4
    assert read.turns[1].correction is not None
    assert read.turns[1].correction.text.text == "For two days."
    question = await ledger.question(question_id=read.turns[0].question.question_id, patient_id=talk.patient_id)
    assert [answer.miner for answer in question.answers] == [miner(0), miner(1)]
    assert question.chosen_id == question.answers[0].answer_id
    assert len(question.preferences) == 1
    (listed,) = await ledger.sessions(patient_id=talk.patient_id)
    assert listed.turns[0].question.text.text == "My knee hurts."


async def test_writing_twice_in_any_order_and_at_once_changes_nothing(ledger: Ledger) -> None:
    talk = a_day()
    before = None
    for seed in range(3):
        records = list(talk.records)
        random.Random(seed).shuffle(records)
        halves = records[: len(records) // 2 + 2], records[len(records) // 2 - 2 :]  # they overlap
        await asyncio.gather(*(ledger.record(*half) for half in (*halves, *halves)))
        now = (
            await rows_by_table(ledger),
            await ledger.history(session_id=talk.session_id, patient_id=talk.patient_id),
        )
        assert before in (None, now)
        before = now
    assert await ledger.record(*talk.records) == Written(known=len(talk.records))


async def test_the_first_answer_chosen_for_a_question_stays(ledger: Ledger) -> None:
    talk = Conversation()
    talk.ask("Q", "first", "second")
    await ledger.record(*talk.records)
    chosen = talk.records[-1]
    written = await ledger.record(replace(chosen, answer_id=talk.records[-2].answer_id))  # type: ignore[call-arg, union-attr]
    assert written == Written(known=1)
    (turn,) = (await ledger.history(session_id=talk.session_id, patient_id=talk.patient_id)).turns
    assert turn.answer is not None
    assert turn.answer.text is not None
    assert turn.answer.text.text == "first"


async def test_the_latest_rating_counts_whenever_it_arrives(ledger: Ledger) -> None:
    talk = Conversation()
    (answer,) = talk.ask("Q", "A")
    talk.rate(answer, 1, at_ms=NOON + 9000)
    talk.rate(answer, 5, at_ms=NOON + 5000)
    await ledger.record(*talk.records)
    (turn,) = (await ledger.history(session_id=talk.session_id, patient_id=talk.patient_id)).turns
    assert turn.rating is not None
    assert turn.rating.stars == 1


async def test_another_patients_session_and_question_are_not_found(ledger: Ledger) -> None:
    mine, theirs = a_day(), a_day()
    await ledger.record(*mine.records, *theirs.records)
    with pytest.raises(NotFound):
        await ledger.history(session_id=theirs.session_id, patient_id=mine.patient_id)
    question = (await ledger.history(session_id=theirs.session_id, patient_id=theirs.patient_id)).turns[0].question
    with pytest.raises(NotFound):
        await ledger.question(question_id=question.question_id, patient_id=mine.patient_id)


async def test_what_somebody_writes_into_anothers_session_does_not_come_into_it(ledger: Ledger) -> None:
    theirs = a_day()
    intruder = Conversation(session_id=theirs.session_id)
    intruder.ask("Let me in", "No")
    await ledger.record(*theirs.records)
    await ledger.record(*intruder.records)
    read = await ledger.history(session_id=theirs.session_id, patient_id=theirs.patient_id)
    assert len(read.turns) == 2
    with pytest.raises(NotFound):
        await ledger.history(session_id=theirs.session_id, patient_id=intruder.patient_id)


@pytest.mark.parametrize(
    ("events", "given"),
    [
        ([], False),
        ([(True, 5)], True),
        ([(True, 5), (False, 6)], False),
        ([(False, 6), (True, 5)], False),  # an earlier copy that arrives later
        ([(True, 5), (False, 5)], False),
        ([(True, 5), (False, 6), (True, 7)], True),
    ],
)
async def test_the_latest_consent_counts_not_the_last_to_arrive(
    ledger: Ledger, events: list[tuple[bool, int]], given: bool
) -> None:
    patient = new_id()
    for each, at in events:
        await ledger.record(Consent(new_id(), patient, each, at))
    assert (await ledger.consent(patient_id=patient)).given is given


async def test_no_half_of_a_call_is_written(ledger: Ledger) -> None:
    talk = a_day()
    rows = [("sessions", to_row(talk.records[1])), ("questions", to_row(talk.records[2]) | {"at_ms": None})]
    with pytest.raises(LedgerError, match="refuses a record"):
        await ledger.record_rows(rows)
    found = await rows_by_table(ledger)
    assert {name: count for name, count in found.items() if count} == {}


async def test_what_no_database_takes_is_replaced(ledger: Ledger) -> None:
    talk = Conversation()
    talk.ask("nul \x00 and half \ud83d of 😀", "नमस्ते")
    await ledger.record(*talk.records)
    (turn,) = (await ledger.history(session_id=talk.session_id, patient_id=talk.patient_id)).turns
    assert turn.question.text.text == "nul \ufffd and half \ufffd of 😀"
    assert turn.answer is not None
    assert turn.answer.text is not None
    assert turn.answer.text.text == "नमस्ते"


def test_every_kind_of_record_comes_back_from_its_row() -> None:
    talk = a_day()
    talk.ask("?", None)
    round_id = new_id()
    others = [
        Task(new_id(), GURUNG, miner(), "s3://b/d.jsonl", digest("d"), NOON, NOON + 5, digest("p")),
        TaskEvent(new_id(), new_id(), TaskState.PASSED, NOON, digest("a"), "well"),
        Round(round_id, "round-1", miner(), 2**53, digest("c"), NOON),
        RoundFinished(round_id, digest("r"), NOON, {"1": 0.5}),
        RoundItem(new_id(), round_id, GURUNG, "organic", Clean("q"), NOON, talk.patient_id, {"gold": ["a"]}),
        RoundAnswer(new_id(), new_id(), round_id, GURUNG, miner(), NOON, 5, talk.patient_id, Clean("a")),
        Score(new_id(), round_id, miner(), "correctness", 99_000, NOON, GURUNG.uid, new_id(), None, {"why": "é"}),
        Score(new_id(), round_id, miner(), "speed", None, NOON),
        RoundStep(new_id(), round_id, "plan", NOON, {"items": 3}),
        WeightsClaim(new_id(), round_id, miner(), 1, 7, 1, "process", 1000, NOON, {"1": 0.5}),
        WeightsEvent(new_id(), new_id(), "revealed", NOON, 1010, "well", {"block": 1}),
        training("a", parent="p", dataset="d", lines=("0" * 32,)),
        training("a", parent=None, dataset="d"),
    ]
    seen = set()
    for record in [*talk.records, *others]:
        row = to_row(record)
        assert to_row(from_row(type(record), row)) == row
        seen.add(type(record))
    assert seen == set(KINDS.values())


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Consent("Ram Bahadur", new_id(), True, 5), "Consent.consent_id is no UUID"),
        (lambda: Consent(new_id(), "MRN 48291", True, 5), "Consent.patient_id is no UUID"),
        (lambda: Consent(new_id(), new_id(), True, -5), "Consent.at_ms is no whole number"),
        (lambda: Rating(new_id(), new_id(), new_id(), new_id(), 6, 5), "Rating.stars"),
        (lambda: Rating(new_id(), new_id(), new_id(), new_id(), 5, 5, "good"), "plain string: scrub it first"),  # type: ignore[arg-type]
        (lambda: Clean.__new__(Clean) and miner(0).__class__("me", 5), "hotkey is no ss58"),
    ],
)
def test_what_cannot_be_true_is_refused_without_quoting_it(make: object, says: str) -> None:
    with pytest.raises(BadRecord, match=re.escape(says)) as caught:
        make()  # type: ignore[operator]
    assert "48291" not in str(caught.value)
    assert "Ram" not in str(caught.value)


async def test_migrations_make_the_tables_of_the_schema(ledger: Ledger) -> None:
    async with ledger.database.reading() as connection:
        difference = await connection.run_sync(
            lambda each: compare_metadata(MigrationContext.configure(each), METADATA)
        )
    assert difference == []


async def test_migrating_again_and_twice_at_once_changes_nothing(empty_url: str) -> None:
    await asyncio.gather(migrate(empty_url), migrate(empty_url))
    await migrate(empty_url)
    async with await Ledger.open(empty_url, timeout_seconds=60.0) as ledger:
        await ledger.ready()


async def test_tables_of_a_newer_release_are_left_alone_in_a_sentence(url: str) -> None:
    database = Database(url, timeout_seconds=60.0)
    async with database.long(seconds=60.0, writes=True) as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    await database.close()
    with pytest.raises(SchemaMismatch, match="newer release"):
        await migrate(url)
    with pytest.raises(SchemaMismatch, match="newer"):
        await Ledger.open(url, timeout_seconds=60.0)


async def test_data_of_every_earlier_revision_is_there_after_migrating(empty_url: str) -> None:
    conversations = []
    for revision in sorted(each.revision for each in ScriptDirectory.from_config(config()).walk_revisions()):
        database = Database(empty_url, timeout_seconds=60.0)
        async with database.long(seconds=60.0, writes=True) as connection:

            def upgrade(connection: Connection, revision: str = revision) -> None:
                settings = config()
                settings.attributes["connection"] = connection
                command.upgrade(settings, revision)

            await connection.run_sync(upgrade)
            talk = a_day()
            conversations.append(talk)
            await write_rows(connection, [(TABLE_OF[type(each)], to_row(each)) for each in talk.records])
        await database.close()
    assert len(conversations) > 1
    await migrate(empty_url)
    async with await Ledger.open(empty_url, timeout_seconds=60.0) as ledger:
        for talk in conversations:
            assert len((await ledger.history(session_id=talk.session_id, patient_id=talk.patient_id)).turns) == 2


async def test_a_database_without_tables_says_what_to_do(postgres: Postgres) -> None:
    with pytest.raises(SchemaMismatch, match=r"neurons\.ledger migrate"):
        await Ledger.open(postgres.database(f"e{new_id()}"))


async def test_a_frozen_database_is_down_in_time_and_back_afterwards(own_postgres: Postgres) -> None:
    url = own_postgres.database("frozen")
    await migrate(url)
    async with await Ledger.open(url, timeout_seconds=1.0) as ledger:
        own_postgres.freeze()
        with pytest.raises(LedgerDown, match="Is it up"):
            await ledger.record(*a_day().records)
        own_postgres.kill()
        with pytest.raises(LedgerDown):
            await ledger.record(*a_day().records)
        own_postgres.start()
        assert (await ledger.record(*a_day().records)).new


@pytest.mark.parametrize("url", ["mysql://x/y", "sqlite://", "nonsense"])
async def test_an_address_that_is_none_of_ours_is_refused(url: str) -> None:
    with pytest.raises(LedgerError, match="postgresql://"):
        await Ledger.open(url, timeout_seconds=60.0)


async def test_a_password_is_in_no_message(tmp_path: object) -> None:
    with pytest.raises(LedgerDown) as caught:
        await Ledger.open("postgresql://me:s3cret@127.0.0.1:1/x")
    assert "s3cret" not in str(caught.value)

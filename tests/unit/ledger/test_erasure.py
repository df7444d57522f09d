"""Erasing a patient reaches rows, datasets' lines and adapters, once and for all."""

from __future__ import annotations

import gzip
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from neurons.ledger import (
    BadBackup,
    Consent,
    Ledger,
    LedgerDown,
    NotFound,
    RoundAnswer,
    RoundItem,
    Score,
    Training,
    Written,
    backup,
    new_id,
)
from neurons.ledger.codec import Row, to_row
from neurons.ledger.database import Database
from neurons.ledger.lineage import to_retrain
from neurons.ledger.migrate import migrate
from neurons.ledger.retention import Retention
from neurons.ledger.schema import METADATA
from neurons.ledger.views import DatasetLine
from tests.unit.ledger.test_writing_and_reading import rows_by_table
from tests.unit.ledger.world import (
    DAY,
    DAY_MS,
    GURUNG,
    NOON,
    SHARMA,
    Clean,
    Conversation,
    a_day,
    digest,
    miner,
    training,
)


def words_of(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


async def test_everything_of_the_patient_goes_and_nothing_of_others(ledger: Ledger) -> None:
    mine, theirs = a_day(), a_day()
    item = RoundItem(new_id(), new_id(), GURUNG, "organic", Clean("My knee hurts."), NOON, mine.patient_id)
    replayed = RoundAnswer(
        new_id(), item.item_id, item.round_id, GURUNG, miner(), NOON, 5, mine.patient_id, Clean("Rest.")
    )
    score = Score(
        new_id(), item.round_id, miner(), "correctness", 90_000, NOON, GURUNG.uid, item.item_id, mine.patient_id,
        {"quote": "My knee hurts."},
    )  # fmt: skip
    await ledger.record(*theirs.records)
    before = await rows_by_table(ledger)
    await ledger.record(*mine.records, item, replayed, score)
    erased = await ledger.erase(patient_id=mine.patient_id)
    assert erased.removed["questions"] == 2
    assert erased.lines == erased.retrain == ()
    after = await rows_by_table(ledger)
    assert {name: after[name] - before[name] for name in before if after[name] != before[name]} == {
        "scores": 1, "tombstones": 1, "erasures": 1,
    }  # fmt: skip
    async with ledger.database.reading() as connection:
        (kept,) = (await connection.execute(METADATA.tables["scores"].select())).mappings()
        assert (kept["evidence"], kept["patient_id"], kept["value_milli"]) == ("{}", None, 90_000)
        for table in METADATA.tables.values():
            assert mine.patient_id not in str((await connection.execute(table.select())).all())
    with pytest.raises(NotFound):
        await ledger.history(session_id=mine.session_id, patient_id=mine.patient_id)


async def test_what_a_miner_earned_stays_though_it_arrives_after_the_erasure(ledger: Ledger) -> None:
    patient = new_id()
    await ledger.erase(patient_id=patient)
    late = [
        Score(new_id(), new_id(), miner(), "worth", value, NOON, GURUNG.uid, new_id(), patient, {"quote": "My knee"})
        for value in (90_000, 80_000)
    ]
    await ledger.record(late[0])
    await ledger.put_rows([("scores", to_row(late[1]))])
    async with ledger.database.reading() as connection:
        kept = (await connection.execute(METADATA.tables["scores"].select())).mappings().all()
    assert sorted(row["value_milli"] for row in kept) == [80_000, 90_000]
    assert {(row["patient_id"], row["evidence"]) for row in kept} == {(None, "{}")}


async def test_what_arrives_after_an_erasure_is_dropped(ledger: Ledger) -> None:
    talk = a_day()
    await ledger.record(*talk.records[:4])
    await ledger.erase(patient_id=talk.patient_id)
    assert await ledger.record(*talk.records) == Written(erased=len(talk.records))
    again = await ledger.erase(patient_id=talk.patient_id)
    assert again.removed == {}


async def test_an_embedded_ledgers_files_hold_no_word_of_an_erased_patient(folder: Path) -> None:
    talk = Conversation()
    talk.ask("zebra-crossing xylophone " * 50, "quagga marmalade " * 50)
    async with await Ledger.open(f"sqlite:///{folder / 'ledger.db'}", timeout_seconds=60.0) as ledger:
        await ledger.record(*talk.records)
        assert b"xylophone" in words_of(folder)
        await ledger.erase(patient_id=talk.patient_id)
        assert b"xylophone" not in words_of(folder)
        assert b"quagga" not in words_of(folder)
        assert talk.patient_id.encode() not in words_of(folder)


async def test_an_erasure_says_that_a_reader_keeps_what_was_deleted_in_the_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neurons.ledger.database._BUSY_SECONDS", 0.1)
    talk = a_day()
    async with await Ledger.open(f"sqlite:///{folder / 'ledger.db'}", timeout_seconds=60.0) as ledger:
        await ledger.record(*talk.records)
        with closing(sqlite3.connect(folder / "ledger.db")) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM questions").fetchall()
            with pytest.raises(LedgerDown, match="another process is reading"):
                await ledger.erase(patient_id=talk.patient_id)
        await ledger.erase(patient_id=talk.patient_id)
        assert b"knee" not in words_of(folder)


async def test_lines_and_adapters_are_named_and_marked_from_their_last_clean_ancestor(ledger: Ledger) -> None:
    mine, theirs = a_day(), a_day()
    await ledger.record(*theirs.records)
    clean = await ledger.dataset(twin_uid=GURUNG.uid, day=date.fromisoformat(DAY))
    await ledger.record(*mine.records)
    tainted = await ledger.dataset(twin_uid=GURUNG.uid, day=date.fromisoformat(DAY))
    assert tainted.digest != clean.digest
    await ledger.record(
        training("monday", parent=None, dataset=clean.digest, at_ms=NOON),
        training("tuesday", parent="monday", dataset=tainted.digest, at_ms=NOON + 1),
        training("wednesday", parent="tuesday", dataset="another", lines=("0" * 32,), at_ms=NOON + 2),
        training("sharmas", parent=None, dataset="sharmas", twin=SHARMA),
    )
    erased = await ledger.erase(patient_id=mine.patient_id)
    assert {line.dataset_digest for line in erased.lines} == {tainted.digest}
    assert len(erased.lines) == 3
    assert [(each.run, each.clean_ancestor, each.certain) for each in erased.retrain] == [
        ("run-tuesday", digest("monday"), True),
        ("run-wednesday", digest("monday"), True),
    ]
    assert await ledger.erase(patient_id=mine.patient_id) == replace(erased, removed={})
    assert {each.run for each in await ledger.to_retrain()} == {"run-tuesday", "run-wednesday"}
    # A run that was under way with the dataset ends after the erasure.
    await ledger.record(training("late", parent="monday", dataset=tainted.digest, at_ms=NOON + 3))
    assert {each.run for each in await ledger.to_retrain()} == {"run-tuesday", "run-wednesday", "run-late"}
    await ledger.retrained(adapter_digest=digest("tuesday"))
    assert {each.run for each in await ledger.to_retrain()} == {"run-wednesday", "run-late"}
    assert (await ledger.dataset(twin_uid=GURUNG.uid, day=date.fromisoformat(DAY))).data == clean.data


LINE = DatasetLine(digest("d1"), new_id(), "a" * 32, GURUNG.uid)


@pytest.mark.parametrize(
    ("trainings", "expected"),
    [
        ([], {}),
        ([training("a", parent=None, dataset="d1")], {"a": (None, True)}),
        ([training("a", parent="byhand", dataset="d1")], {"a": ("byhand", True)}),
        ([training("a", parent=None, dataset="d9", lines=("a" * 32, "b" * 32))], {"a": (None, True)}),
        ([training("a", parent=None, dataset="d1", lines=("b" * 32,))], {}),  # the line was left out
        ([training("a", parent=None, dataset="unknown")], {"a": (None, False)}),
        ([training("a", parent=None, dataset="unknown", twin=SHARMA)], {}),
        (  # a chain, a branch, and a clean sibling
            [
                training("root", parent=None, dataset="d0", lines=()),
                training("a", parent="root", dataset="d1"),
                training("b", parent="a", dataset="d2", lines=()),
                training("c", parent="b", dataset="d3", lines=()),
                training("sibling", parent="root", dataset="d2", lines=()),
            ],
            {"a": ("root", True), "b": ("root", True), "c": ("root", True)},
        ),
        (  # uncertain once, certain by its parent
            [training("a", parent=None, dataset="d1"), training("b", parent="a", dataset="unknown")],
            {"a": (None, True), "b": (None, True)},
        ),
        (  # a record that can't be true ends the walk none the less
            [training("a", parent="b", dataset="d1"), training("b", parent="a", dataset="d1")],
            {"a": (None, True), "b": (None, True)},
        ),
    ],
)
def test_the_walk(trainings: list[Training], expected: dict[str, tuple[str | None, bool]]) -> None:
    found = {each.adapter_digest: (each.clean_ancestor, each.certain) for each in to_retrain(trainings, [LINE])}
    assert found == {
        digest(name): (None if parent is None else digest(parent), certain)
        for name, (parent, certain) in expected.items()
    }


async def test_withdrawn_consent_recalls_lines_and_leaves_the_next_export(ledger: Ledger) -> None:
    mine, theirs = a_day(), a_day()
    await ledger.record(*mine.records, *theirs.records)
    both = await ledger.dataset(twin_uid=GURUNG.uid, day=date.fromisoformat(DAY))
    assert both.lines == 6
    assert await ledger.recalled() == ()
    await ledger.record(Consent(new_id(), mine.patient_id, False, NOON + DAY_MS))
    await ledger.record(Consent(new_id(), mine.patient_id, True, NOON - 5))  # an earlier copy, late
    assert len(await ledger.recalled(twin_uid=GURUNG.uid)) == 3
    after = await ledger.dataset(twin_uid=GURUNG.uid, day=date.fromisoformat(DAY))
    assert after.lines == 3
    assert after.left_out["noConsent"] == 3


async def test_a_backup_restores_all_into_either_kind_of_database(url: str, folder: Path) -> None:
    talk = a_day()
    async with await Ledger.open(url, timeout_seconds=60.0) as ledger:
        await ledger.record(*talk.records, training("a", parent=None, dataset="d"))
        await ledger.dataset(twin_uid=GURUNG.uid, day=date.fromisoformat(DAY))
        before = await rows_by_table(ledger)
        count = await ledger.backup(folder / "backup.gz")
        assert count == sum(before.values())
        again = await ledger.restore(folder / "backup.gz")
        assert (again.new, again.known) == (0, count)
    async with await Ledger.open(f"sqlite:///{folder / 'other.db'}", timeout_seconds=60.0) as other:
        assert (await other.restore(folder / "backup.gz")).new == count
        assert await rows_by_table(other) == before
        assert len((await other.history(session_id=talk.session_id, patient_id=talk.patient_id)).turns) == 2
        await other.backup(folder / "again.gz")
    assert gzip.decompress((folder / "again.gz").read_bytes()) == gzip.decompress((folder / "backup.gz").read_bytes())


async def test_a_backup_brings_back_nobody_who_was_erased_since_and_no_withdrawn_consent(
    url: str, folder: Path
) -> None:
    erased, withdrew = a_day(), a_day()
    async with await Ledger.open(url, timeout_seconds=60.0) as ledger:
        await ledger.record(*erased.records, *withdrew.records)
        dataset = await ledger.dataset(twin_uid=GURUNG.uid, day=date.fromisoformat(DAY))
        await ledger.record(training("a", parent=None, dataset=dataset.digest))
        await ledger.backup(folder / "old.gz")
        await ledger.erase(patient_id=erased.patient_id)
        await ledger.record(Consent(new_id(), withdrew.patient_id, False, NOON + DAY_MS))
        await ledger.backup(folder / "new.gz")
        await ledger.restore(folder / "old.gz")
        for _ in range(2):
            with pytest.raises(NotFound):
                await ledger.history(session_id=erased.session_id, patient_id=erased.patient_id)
            assert not (await ledger.consent(patient_id=withdrew.patient_id)).given
    # Into a new database: the old one, and then what happened since.
    async with await Ledger.open(f"sqlite:///{folder / 'fresh.db'}", timeout_seconds=60.0) as fresh:
        await fresh.restore(folder / "old.gz")
        assert await fresh.history(session_id=erased.session_id, patient_id=erased.patient_id)
        await fresh.restore(folder / "new.gz")
        with pytest.raises(NotFound):
            await fresh.history(session_id=erased.session_id, patient_id=erased.patient_id)
        assert len((await fresh.erase(patient_id=erased.patient_id)).lines) == 3
        assert len(await fresh.to_retrain()) == 1


async def test_a_backup_that_fails_leaves_no_word_behind(
    ledger: Ledger, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ledger.record(*a_day().records)
    read = backup._all_rows

    async def until_it_goes_away(database: Database) -> AsyncIterator[tuple[str, Row]]:
        async for row in read(database):
            yield row
        raise LedgerDown("It went away.")

    monkeypatch.setattr(backup, "_all_rows", until_it_goes_away)
    (folder / "backups").mkdir()
    with pytest.raises(LedgerDown):
        await ledger.backup(folder / "backups" / "b.gz")
    assert list((folder / "backups").iterdir()) == []


@pytest.mark.parametrize("damage", ["cut", "changed", "other", "empty", "end"])
async def test_a_damaged_backup_changes_nothing(folder: Path, damage: str) -> None:
    path = folder / "backup.gz"
    async with await Ledger.open(f"sqlite:///{folder / 'a.db'}", timeout_seconds=60.0) as ledger:
        await ledger.record(*a_day().records)
        await ledger.backup(path)
    data = gzip.decompress(path.read_bytes())
    lines = data.splitlines(keepends=True)
    path.write_bytes(
        {
            "cut": path.read_bytes()[:-30],
            "changed": gzip.compress(data.replace(b"Rest it.", b"Run now.")),
            "other": b"PK\x03\x04",
            "empty": b"",
            "end": gzip.compress(b"".join(lines[:-1])),
        }[damage]
    )
    async with await Ledger.open(f"sqlite:///{folder / 'b.db'}", timeout_seconds=60.0) as other:
        with pytest.raises(BadBackup):
            await other.restore(path)
        assert not any((await rows_by_table(other)).values())


async def test_retention_takes_what_is_older_and_leaves_consents_and_lineage(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = a_day()
    running = Conversation(at_ms=NOON)
    running.ask("Old", "A")
    running.ask("New", "B", at_ms=NOON + 30 * DAY_MS)
    shifted = Conversation(at_ms=NOON + 30 * DAY_MS)
    shifted.ask("Recent", "A")
    await ledger.record(*old.records, *running.records, *shifted.records)
    monkeypatch.setattr("neurons.ledger.ledger.now_ms", lambda: NOON + 31 * DAY_MS)
    removed = await ledger.retain(Retention(conversations_days=10))
    assert removed["questions"] == 3
    assert removed["sessions"] == 1
    assert (await ledger.consent(patient_id=old.patient_id)).given
    read = await ledger.history(session_id=running.session_id, patient_id=running.patient_id)
    assert [turn.question.text.text for turn in read.turns] == ["New"]
    assert await ledger.retain(Retention(conversations_days=10)) == {}


async def test_a_patients_question_that_a_round_asked_goes_by_the_age_of_conversations(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    for patient in (new_id(), None):
        item = RoundItem(new_id(), new_id(), GURUNG, "organic", Clean("My knee hurts."), NOON, patient)
        answer = RoundAnswer(new_id(), item.item_id, item.round_id, GURUNG, miner(), NOON, 5, patient, Clean("Rest."))
        await ledger.record(item, answer)
    monkeypatch.setattr("neurons.ledger.ledger.now_ms", lambda: NOON + 31 * DAY_MS)
    one_of_each = {"round_answers": 1, "round_items": 1}
    assert await ledger.retain(Retention(conversations_days=30)) == one_of_each
    assert await ledger.retain(Retention(conversations_days=30, rounds_days=30)) == one_of_each


async def test_migrating_keeps_what_is_there(url: str) -> None:
    talk = a_day()
    async with await Ledger.open(url, timeout_seconds=60.0) as ledger:
        await ledger.record(*talk.records)
    await migrate(url)
    async with await Ledger.open(url, timeout_seconds=60.0) as ledger:
        assert len((await ledger.history(session_id=talk.session_id, patient_id=talk.patient_id)).turns) == 2

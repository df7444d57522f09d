"""A twin's day becomes exactly the lines that the trainer reads."""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from neurons.ledger import Consent, Ledger, new_id
from neurons.ledger.__main__ import main
from neurons.ledger.dataset import Bounds, yesterday
from neurons.ledger.migrate import migrate
from neurons.trainer import dataset as trainer
from tests.unit.ledger.world import DAY, DAY_MS, GURUNG, NOON, SHARMA, Conversation, a_day

THE_DAY = date.fromisoformat(DAY)


async def lines_of(ledger: Ledger, day: date = THE_DAY) -> list[dict[str, Any]]:
    made = await ledger.dataset(twin_uid=GURUNG.uid, day=day)
    return [json.loads(line) for line in made.data.splitlines()]


async def test_the_trainer_reads_every_line_as_it_was_written(ledger: Ledger) -> None:
    talk = a_day()
    await ledger.record(*talk.records)
    made = await ledger.dataset(twin_uid=GURUNG.uid, day=THE_DAY)
    read = trainer.read_lines(made.data, where="day")
    lines, refused = trainer.admit(read.lines)
    assert (len(lines), refused, read.left_out) == (made.lines, {}, {})
    assert not any(read.flaws)
    assert trainer.canonical(lines) == made.data  # the same bytes, and so the same digest, of file and lines
    noted = await ledger.erase(patient_id=talk.patient_id)
    assert {line.line_digest for line in noted.lines} == {line.digest for line in lines}
    assert {line.line_id for line in noted.lines} == {line.id for line in lines}


_ODD = (
    "—", "&nbsp;", "\u200b", "thanks", "hello?", "🙂", " before", "after \n", "a\x00b", "a\ud83d", "a\u2028b", "a\r\nb",
    "e\u0301", "\ufeffx", "\u202e", "  ", "", "ok",
)  # fmt: skip


async def test_no_line_is_other_than_what_the_trainer_learns_of_it(ledger: Ledger) -> None:
    """Else its digest is another, and erasing its patient would not find the adapters that learned it."""
    for one, other in itertools.product(_ODD, _ODD):
        plain, first, corrected, compared = (Conversation() for _ in range(4))
        plain.ask(one, other)
        first.ask(one, other)
        first.ask("And then?", "Rest it well.")
        (answer,) = corrected.ask("What now?", one)
        corrected.correct(answer, other)
        corrected.ask("And then?", "Rest it well.")
        compared.prefer(*compared.ask("Which?", one, other))
        await ledger.record(*(each for talk in (plain, first, corrected, compared) for each in talk.records))
    made = await ledger.dataset(twin_uid=GURUNG.uid, day=THE_DAY)
    read = trainer.read_lines(made.data, where="day")
    assert read.left_out == {}
    assert not any(read.flaws)
    assert trainer.canonical(read.lines) == made.data
    assert made.left_out["empty"]
    assert made.left_out["encoding"]


async def test_ratings_corrections_and_pairs_are_in_it(ledger: Ledger) -> None:
    await ledger.record(*a_day().records)
    pair, first, second = sorted(await lines_of(ledger), key=lambda line: len(line["messages"]))
    assert first["rating"] == 4
    assert (pair["preferred"], pair["rejected"]) == ("Rest it.", "Run.")
    assert second["correction"] == "For two days."
    assert [message["content"] for message in second["messages"]] == [
        "My knee hurts.", "Rest it.", "For how long?", "For a week.",
    ]  # fmt: skip
    assert all(line["consent"] is True for line in (first, pair, second))


async def test_it_has_the_same_bytes_again_whatever_comes_later(ledger: Ledger) -> None:
    talk = a_day()
    await ledger.record(*reversed(talk.records))
    before = await ledger.dataset(twin_uid=GURUNG.uid, day=THE_DAY)
    (answer,) = talk.ask("Tomorrow?", "Yes.", at_ms=NOON + DAY_MS)
    talk.rate(answer, 5)
    first = next(each for each in talk.records if type(each).__name__ == "Answer")
    talk.rate(first, 1, at_ms=NOON + DAY_MS + 1)  # type: ignore[arg-type]
    await ledger.record(*talk.records)
    assert await ledger.dataset(twin_uid=GURUNG.uid, day=THE_DAY) == before


async def test_a_rating_of_the_next_day_is_in_the_next_days_dataset(ledger: Ledger) -> None:
    talk = Conversation()
    (answer,) = talk.ask("Q", "A")
    talk.rate(answer, 5, at_ms=NOON + DAY_MS)
    await ledger.record(*talk.records)
    (today,) = await lines_of(ledger)
    (tomorrow,) = await lines_of(ledger, date(2024, 10, 5))
    assert "rating" not in today
    assert tomorrow["rating"] == 5
    assert today["id"] == tomorrow["id"]
    assert await lines_of(ledger, date(2024, 10, 6)) == []


@pytest.mark.parametrize("stars", [1, 2])
async def test_nothing_of_a_disliked_answer_is_learned_unless_it_was_corrected(ledger: Ledger, stars: int) -> None:
    talk = Conversation()
    (bad,) = talk.ask("Headache, stiff neck?", "Drink water.")
    talk.rate(bad, stars)
    talk.ask("And then?", "Sleep.")
    await ledger.record(*talk.records)
    (line,) = await lines_of(ledger)
    assert "Drink water." not in json.dumps(line)
    talk.correct(bad, "Go to hospital now.")
    await ledger.record(*talk.records)
    lines = await lines_of(ledger)
    assert len(lines) == 2
    (following,) = (line for line in lines if len(line["messages"]) == 4)
    assert following["messages"][1]["content"] == "Go to hospital now."


async def test_consent_must_have_been_given_before_and_hold_now(ledger: Ledger) -> None:
    never, late, withdrew, again = (Conversation(consents=False) for _ in range(4))
    for talk in (never, late, withdrew, again):
        talk.ask("Q", "A")
    late.consent(True, at_ms=NOON + DAY_MS)
    withdrew.consent(True, at_ms=NOON - 10)
    withdrew.consent(False, at_ms=NOON + DAY_MS)
    again.consent(True, at_ms=NOON - 10)
    again.consent(False, at_ms=NOON + 5000)
    again.consent(True, at_ms=NOON + 6000)
    for talk in (never, late, withdrew, again):
        await ledger.record(*talk.records)
    made = await ledger.dataset(twin_uid=GURUNG.uid, day=THE_DAY)
    assert (made.data, made.left_out) == (b"", {"noConsent": 4})


async def test_other_twins_failures_and_emergencies_stay_out(ledger: Ledger) -> None:
    other, failed, emergency = Conversation(twin=SHARMA), Conversation(), Conversation()
    other.ask("Q", "Sharma's")
    failed.ask("Q", None)
    (answer,) = emergency.ask("Chest pain", "Rest.", emergency="chestPain")
    for talk in (other, failed, emergency):
        await ledger.record(*talk.records)
    assert await lines_of(ledger) == []
    emergency.correct(answer, "Call for help now.")
    await ledger.record(*emergency.records)
    (line,) = await lines_of(ledger)
    assert line["correction"] == "Call for help now."


async def test_a_long_conversation_keeps_its_end(ledger: Ledger) -> None:
    talk = Conversation()
    for number in range(50):
        talk.ask(f"Q{number} " + "x" * 6000, f"A{number}")
    await ledger.record(*talk.records)
    made = await ledger.dataset(twin_uid=GURUNG.uid, day=THE_DAY)
    read = trainer.read_lines(made.data, where="day")
    assert (read.left_out, len(read.lines)) == ({}, 50)
    assert trainer.canonical(read.lines) == made.data
    assert max(len(line.messages) for line in read.lines) <= 64


def test_a_day_is_one_of_its_time_zone() -> None:
    kathmandu = Bounds.of(date(2024, 10, 4), zone="Asia/Kathmandu")
    assert Bounds.of(date(2024, 10, 4)).start_ms - kathmandu.start_ms == (5 * 60 + 45) * 60 * 1000
    spring = Bounds.of(date(2024, 3, 31), zone="Europe/Berlin")
    assert spring.end_ms - spring.start_ms == 23 * 3600 * 1000
    assert yesterday(now=datetime(2024, 10, 4, 20, tzinfo=UTC), zone="Asia/Kathmandu") == date(2024, 10, 4)


# The command line


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    status = main(arguments)
    said = capsys.readouterr()
    assert status == 0, said.err
    return json.loads(said.out)


async def _filled(url: str) -> tuple[Conversation, Conversation]:
    mine, theirs = a_day(), a_day()
    await migrate(url)
    async with await Ledger.open(url, timeout_seconds=60.0) as ledger:
        await ledger.record(*mine.records, *theirs.records)
    return mine, theirs


def test_by_hand_from_migrating_to_erasing(
    empty_url: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEDGER_URL", empty_url)
    assert run(capsys, "migrate") == {"migrated": True}
    mine, theirs = asyncio.run(_filled(empty_url))
    store = f"file://{folder}/store"
    made = run(capsys, "dataset", "--twin", "dr-gurung", "--day", DAY, "--store", store)
    file = folder / "store" / "dr-gurung" / "interactions" / f"{DAY}.jsonl"
    assert (made["lines"], made["written"]) == (6, f"{store}/dr-gurung/interactions/{DAY}.jsonl")
    read = trainer.read_dataset(file)
    assert read.digest == made["digest"]
    published = folder / "store" / "dr-gurung" / "datasets" / f"{made['digest'].removeprefix('sha256:')}.jsonl"
    published.parent.mkdir()
    published.write_bytes(file.read_bytes())
    lineage = folder / "store" / "dr-gurung" / "lineage"
    lineage.mkdir()
    adapter = "sha256:" + "7" * 64
    (lineage / ("7" * 64 + ".json")).write_text(
        json.dumps({
            "digest": adapter, "parent_digest": None, "dataset_digest": made["digest"], "run": "night-1", "seed": 1,
            "lines": [line.digest for line in read.lines], "questions": [],
        })
    )  # fmt: skip
    assert run(capsys, "lineage", "--twin", GURUNG.uid, "--store", store) == {"new": 1, "known": 0}
    assert run(capsys, "lineage", "--twin", GURUNG.uid, "--store", store) == {"new": 0, "known": 1}
    assert run(capsys, "backup", str(folder / "b.gz"))["rows"] > 10
    for _ in range(2):
        erased = run(capsys, "erase", mine.patient_id, "--datasets", store)
        assert len(erased["lines"]) == 3
        assert [(each["run"], each["clean_ancestor"]) for each in erased["retrain"]] == [("night-1", None)]
    assert len(trainer.read_dataset(file).lines) == 3
    assert not published.exists()  # its name was its digest
    run(capsys, "restore", str(folder / "b.gz"))
    again = run(capsys, "dataset", "--twin", "dr-gurung", "--day", DAY, "--out", str(folder / "again.jsonl"))
    assert (folder / "again.jsonl").read_bytes() == file.read_bytes()
    assert again["lines"] == 3
    assert [each["adapter_digest"] for each in run(capsys, "retrain")["retrain"]] == [adapter]
    assert run(capsys, "retrain", "--done", adapter) == {"retrain": []}
    asyncio.run(_withdraw(empty_url, theirs))
    recalled = run(capsys, "recall", "--datasets", store)["lines"]
    assert len(recalled) == 9  # of the first dataset six, three of the second
    assert not file.exists()
    assert run(capsys, "retain", "--conversations-days", "1", "--rounds-days", "forever")["removed"]["questions"] == 2


async def _withdraw(url: str, talk: Conversation) -> None:
    async with await Ledger.open(url, timeout_seconds=60.0) as ledger:
        await ledger.record(Consent(new_id(), talk.patient_id, False, NOON + 5 * DAY_MS))


def test_what_goes_wrong_is_said_in_one_sentence(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"sqlite:///{folder / 'ledger.db'}"
    assert main(["--url", url, "dataset", "--twin", "dr-nobody"]) == 1
    assert "No patient has talked to a twin dr-nobody" in capsys.readouterr().err
    assert main(["--url", "postgresql://u:secret@127.0.0.1:1/x", "backup", str(folder / "x")]) == 1
    said = capsys.readouterr().err
    assert "Is it up" in said
    assert "secret" not in said
    for wrong in (
        ["dataset", "--twin", "x", "--day", "someday"], ["dataset", "--twin", "x", "--day", "9999-12-31"],
        ["datasets", "--store", "file:///x", "--day", "0001-01-01"], ["retain", "--rounds-days", "9" * 20],
        ["retain", "--rounds-days", "0"], ["erase", "Ram Thapa"], ["erase", "4711"],
    ):  # fmt: skip
        with pytest.raises(SystemExit):
            main(["--url", url, *wrong])
    assert "Ram" not in capsys.readouterr().err


def test_an_id_is_taken_as_people_copy_it_and_one_of_nobody_is_said(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url, talk = f"sqlite:///{folder / 'ledger.db'}", a_day()

    async def record() -> None:
        async with await Ledger.open(url, timeout_seconds=60.0) as ledger:
            await ledger.record(*talk.records)

    asyncio.run(record())
    for _ in range(2):
        assert main(["--url", url, "erase", f" {talk.patient_id.upper()}\n"]) == 0
        assert capsys.readouterr().err == ""
    assert main(["--url", url, "erase", new_id()]) == 0
    assert "is the id right?" in capsys.readouterr().err
    assert sys.exc_info()[0] is None


def test_a_patient_is_erased_of_whom_only_a_session_is_known(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url, talk, other = f"sqlite:///{folder / 'ledger.db'}", a_day(), a_day()

    async def record() -> None:
        async with await Ledger.open(url, timeout_seconds=60.0) as ledger:
            await ledger.record(*talk.records, *other.records)

    asyncio.run(record())
    assert main(["--url", url, "erase", "--session", talk.session_id]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["removed"]["sessions"] == 1
    assert talk.patient_id in told.err
    assert main(["--url", url, "erase", "--session", talk.session_id]) == 1
    assert "no such session" in capsys.readouterr().err
    assert main(["--url", url, "erase", talk.patient_id]) == 0
    for wrong in ([], [talk.patient_id, "--session", other.session_id], ["--session", "the second one"]):
        with pytest.raises(SystemExit):
            main(["--url", url, "erase", *wrong])
    assert main(["--url", url, "erase", "--session", other.session_id]) == 0

"""The command that puts twins' latest days where their fine-tunes read them, on both kinds of database."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from bettertherapy_api import names
from neurons.ledger import Answer, AnyRecord, Consent, Ledger, Twin, derived_id, new_id
from neurons.ledger.__main__ import main
from neurons.ledger.dataset import Day
from neurons.ledger.ledger import now_ms
from neurons.trainer import dataset as trainer
from neurons.trainer.archive import Archive
from neurons.trainer.sources import Trained, find_lines
from tests.unit.ledger.world import DAY, DAY_MS, GURUNG, NOON, SHARMA, Conversation, a_day

NEXT_DAY = "2024-10-05"


class Clinic:
    """A ledger, a store beside it, and the twins that the gateway is told of."""

    def __init__(self, url: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.url, self.store, self._folder, self._capsys = url, folder / "store", folder, capsys
        self.says(GURUNG, SHARMA)

    def says(self, *twins: Twin) -> None:
        listed = [{"name": twin.name, "uid": twin.uid, "doctor": "D", "digests": ["base"]} for twin in twins]
        self.twins_file.write_text(json.dumps({"format": "bettertherapy-twins/1", "twins": listed}))

    @property
    def twins_file(self) -> Path:
        return self._folder / "twins.json"

    def do(self, work: Callable[[Ledger], Awaitable[Any]]) -> Any:
        async def done() -> Any:
            async with await Ledger.open(self.url, timeout_seconds=60.0) as ledger:
                return await work(ledger)

        return asyncio.run(done())

    def record(self, *records: AnyRecord) -> None:
        self.do(lambda ledger: ledger.record(*records))

    def run(self, *more: str, day: str = DAY, days: int = 1, status: int = 0) -> dict[str, Any]:
        """Run the command as the operator's CronJob does."""
        arguments = ["datasets", f"--twins-file={self.twins_file}", f"--store=file://{self.store}", f"--days={days}"]
        assert main(["--url", self.url, *arguments, f"--day={day}", *more]) == status
        self.said = self.output()
        read: dict[str, Any] = json.loads(self.said.out)
        return read

    def output(self) -> Any:
        return self._capsys.readouterr()

    def file(self, twin: Twin = GURUNG, day: str = DAY) -> Path:
        return self.store / twin.name / "interactions" / f"{day}.jsonl"

    def answers(self, twin: Twin = GURUNG, day: str = DAY) -> list[str]:
        """Return the last words of each line of a file."""
        if not self.file(twin, day).exists():
            return []
        lines = [json.loads(line) for line in self.file(twin, day).read_bytes().splitlines()]
        return sorted(line["messages"][-1]["content"] for line in lines)


@pytest.fixture
def clinic(url: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> Clinic:
    return Clinic(url, folder, capsys)


def talk(answer: str, *, twin: Twin = GURUNG, at_ms: int = NOON) -> Conversation:
    made = Conversation(twin=twin, at_ms=at_ms)
    made.ask("Q", answer)
    return made


def test_every_twin_gets_its_own_day_where_the_trainer_reads_it(clinic: Clinic) -> None:
    clinic.record(*a_day().records, *talk("Sharma's", twin=SHARMA).records)
    done = clinic.run()
    assert (done["files"], done["lines"], done["failed"]) == ({"written": 2, "unchanged": 0, "deleted": 0}, 4, {})
    assert clinic.answers(SHARMA) == ["Sharma's"]
    store = f"file://{clinic.store}"
    archive = Archive(store, GURUNG.name)
    uri = names.interactions_uri(store, GURUNG.name)  # as the operator tells a scheduled run's trainer
    found, _ = asyncio.run(find_lines(uri, None, before=Trained(), archive=archive))
    assert (len(found.lines), found.refused, found.passed_over) == (3, {}, ())
    assert trainer.canonical(found.lines) == clinic.file().read_bytes()


def test_the_same_again_writes_nothing(clinic: Clinic) -> None:
    clinic.record(*a_day().records)
    clinic.run()
    before = clinic.file().stat()
    done = clinic.run()
    assert done["files"] == {"written": 0, "unchanged": 1, "deleted": 0}
    after = clinic.file().stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_days_that_were_missed_and_records_that_came_late_are_caught_up(clinic: Clinic) -> None:
    clinic.record(*talk("first").records)
    clinic.run()
    clinic.record(*talk("late").records, *talk("second", at_ms=NOON + DAY_MS).records)
    done = clinic.run(day="2024-10-08", days=7)
    assert (done["from"], done["to"], done["files"]["written"]) == ("2024-10-02", "2024-10-08", 2)
    assert (clinic.answers(), clinic.answers(day=NEXT_DAY)) == (["first", "late"], ["second"])


def test_a_withdrawn_consent_takes_the_lines_out_of_every_day(clinic: Clinic) -> None:
    mine, theirs = talk("mine"), talk("theirs")
    mine.ask("Q2", "mine too", at_ms=NOON + DAY_MS)
    clinic.record(*mine.records, *theirs.records)
    clinic.run(day=NEXT_DAY, days=2)
    assert (clinic.answers(), clinic.answers(day=NEXT_DAY)) == (["mine", "theirs"], ["mine too"])
    clinic.record(Consent(new_id(), mine.patient_id, False, NOON + 2 * DAY_MS))
    done = clinic.run(day="2024-12-24")  # long after
    assert done["takenOut"] == 2
    assert clinic.answers() == ["theirs"]
    assert not clinic.file(day=NEXT_DAY).exists()
    assert clinic.run(day=NEXT_DAY, days=2)["files"] == {"written": 0, "unchanged": 1, "deleted": 0}


def test_what_is_taken_back_while_a_day_is_written_is_not_left_in_it(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    withdrawing, erased, theirs = talk("withdrawn"), talk("erased"), talk("theirs")
    clinic.record(*withdrawing.records, *erased.records, *theirs.records)
    read = Ledger.dataset

    async def slowly(ledger: Ledger, **given: Any) -> Day:
        made = await read(ledger, **given)
        await ledger.record(Consent(new_id(), withdrawing.patient_id, False, NOON + DAY_MS))
        await ledger.erase(patient_id=erased.patient_id)
        return made

    monkeypatch.setattr(Ledger, "dataset", slowly)
    assert clinic.run()["takenOut"] == 2
    assert clinic.answers() == ["theirs"]


def test_a_folder_with_more_than_is_looked_through_is_an_error(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neurons.ledger.copies._MAX_OBJECTS", 1)
    clinic.record(*talk("mine").records)
    clinic.run()
    (clinic.store / "another.jsonl").write_text("")
    assert main(["--url", clinic.url, "recall", f"--datasets=file://{clinic.store}"]) == 1
    assert "more than 1 objects" in clinic.output().err


def test_a_withdrawal_that_comes_after_the_export_counts_though_the_patient_consented_again(clinic: Clinic) -> None:
    """Both waited in a gateway's queue; the copies elsewhere are looked through for the line too."""
    mine = talk("before")
    mine.consent(False, at_ms=NOON + 2000)
    late = [mine.records.pop(), Consent(new_id(), mine.patient_id, True, NOON + 3000)]
    clinic.record(*mine.records)
    clinic.run()
    clinic.record(*late)
    again = Conversation(patient_id=mine.patient_id, at_ms=NOON + 4000, consents=False)
    again.ask("Q", "after")
    clinic.record(*again.records)
    clinic.run()
    assert clinic.answers() == ["after"]
    (line,) = clinic.do(lambda ledger: ledger.recalled())
    assert line.line_id == derived_id("line", next(each.answer_id for each in mine.records if isinstance(each, Answer)))


def test_who_consents_again_does_so_to_what_is_said_from_then_on(clinic: Clinic) -> None:
    mine = talk("before")
    clinic.record(*mine.records)
    clinic.run()
    clinic.record(
        Consent(new_id(), mine.patient_id, False, now_ms() + 1), Consent(new_id(), mine.patient_id, True, now_ms() + 2)
    )
    assert clinic.run(day="2024-12-24")["takenOut"] == 1
    assert clinic.answers() == []


def test_a_file_whose_lines_may_no_longer_be_learned_goes(clinic: Clinic) -> None:
    mine = talk("mine")
    clinic.record(*mine.records)
    clinic.run()
    [answer] = [each for each in mine.records if type(each).__name__ == "Answer"]
    mine.rate(answer, 1)  # type: ignore[arg-type]
    clinic.record(*mine.records)
    done = clinic.run()
    assert (done["files"]["deleted"], done["leftOut"]) == (1, {"dislikedWithoutCorrection": 1})
    assert not clinic.file().exists()


def test_erasure_reaches_the_files_of_a_twin_that_is_gone(clinic: Clinic) -> None:
    mine = talk("mine")
    clinic.record(*mine.records)
    clinic.run()
    clinic.says(SHARMA)
    clinic.do(lambda ledger: ledger.erase(patient_id=mine.patient_id))
    assert clinic.run()["takenOut"] == 1
    assert not clinic.file().exists()


def test_another_twin_of_the_name_gets_nothing_of_the_former_ones_patients(clinic: Clinic) -> None:
    other = Twin(uid="33333333-3333-4333-8333-333333333333", name=GURUNG.name)
    clinic.record(*talk("former").records, *talk("now", twin=other).records, *talk("S", twin=SHARMA).records)
    clinic.says(other)
    clinic.run()
    assert (clinic.answers(), clinic.answers(SHARMA)) == (["now"], [])
    assert main(["--url", clinic.url, "datasets", f"--store=file://{clinic.store}", f"--day={DAY}"]) == 1


def test_a_twin_without_a_uid_is_found_as_the_gateway_wrote_it(clinic: Clinic) -> None:
    by_name = Twin(uid=derived_id("twin", "dr-x"), name="dr-x")
    clinic.record(*talk("X", twin=by_name).records)
    clinic.twins_file.write_text(json.dumps({"format": "bettertherapy-twins/1", "twins": [{"name": "dr-x"}]}))
    clinic.run()
    assert clinic.answers(by_name) == ["X"]


def test_a_day_of_which_the_ledger_knows_nothing_is_left_alone(clinic: Clinic) -> None:
    clinic.record(*talk("today").records)
    clinic.file(day=NEXT_DAY).parent.mkdir(parents=True)
    clinic.file(day=NEXT_DAY).write_bytes(b'{"of": "a ledger before this one"}\n')
    clinic.run(day=NEXT_DAY, days=2)
    assert clinic.file(day=NEXT_DAY).exists()


def test_one_twins_trouble_holds_up_no_other_and_is_told(clinic: Clinic) -> None:
    clinic.record(*talk("G").records, *talk("S", twin=SHARMA).records)
    clinic.file().parent.parent.mkdir(parents=True)
    clinic.file().parent.write_text("a file where the folder should be")
    done = clinic.run(status=1)
    assert set(done["failed"]) == {GURUNG.name}
    assert f"error: not done for 1 twins: {GURUNG.name}: " in clinic.said.err
    assert clinic.answers(SHARMA) == ["S"]


def test_a_store_that_refuses_everybody_is_not_asked_for_every_twin(clinic: Clinic) -> None:
    twins = [Twin(uid=new_id(), name=f"dr-{number}") for number in range(9)]
    for twin in twins:
        clinic.record(*talk("A", twin=twin).records)
        (clinic.store / twin.name).mkdir(parents=True)
        (clinic.store / twin.name / "interactions").touch()
    clinic.says(*twins)
    store = f"--store=file://{clinic.store}"
    assert main(["--url", clinic.url, "datasets", store, f"--twins-file={clinic.twins_file}", f"--day={DAY}"]) == 1
    said = clinic.output()
    assert said.out == ""
    assert [twin.name for twin in twins if f"/{twin.name}/" in said.err] == ["dr-2"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--store", "nowhere"], "is no store URI"),
        (["--store", "pvc://lost/x"], "claim 'lost' is not mounted"),
        (["--store", "file:///tmp", "--twins-file", "/nowhere"], "/nowhere"),
    ],
)
def test_what_is_wrong_is_said(
    arguments: list[str], said: str, clinic: Clinic, capsys: pytest.CaptureFixture[str]
) -> None:
    clinic.record(*talk("A").records)
    assert main(["--url", clinic.url, "datasets", f"--day={DAY}", *arguments]) == 1
    assert said in capsys.readouterr().err


def test_a_file_of_twins_that_is_none_is_refused_without_its_contents(
    clinic: Clinic, capsys: pytest.CaptureFixture[str]
) -> None:
    clinic.twins_file.write_text('{"twins": [{"name": "Asha Gurung/x"}]}')
    store = f"--store=file://{clinic.store}"
    assert main(["--url", clinic.url, "datasets", store, f"--twins-file={clinic.twins_file}"]) == 1
    told = capsys.readouterr().err
    assert "the file of twins can't be read" in told
    assert "Asha" not in told


@pytest.mark.parametrize("days", ["0", "32", "many"])
def test_the_number_of_days_is_bounded(days: str, clinic: Clinic) -> None:
    with pytest.raises(SystemExit):
        main(["--url", clinic.url, "datasets", "--store", "file:///tmp", "--days", days])

"""With the queue in front: answering goes on without the ledger, and nothing is lost or doubled afterwards."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import orjson
import pytest

from neurons.ledger import (
    Ledger,
    LedgerDown,
    NotFound,
    QueuedLedger,
    QueueFull,
    QueueInUse,
    Session,
    new_id,
    patient_digest,
)
from neurons.ledger.codec import TABLE_OF, Row, to_row
from neurons.ledger.draining import AT_ONCE
from neurons.ledger.migrate import migrate
from neurons.ledger.spool import Spool
from tests.unit.ledger.postgres import Postgres
from tests.unit.ledger.test_writing_and_reading import rows_by_table
from tests.unit.ledger.world import GURUNG, NOON, Conversation, a_day


async def test_what_is_recorded_is_read_at_once_and_lies_in_the_ledger_soon(url: str, folder: Path) -> None:
    talk = a_day()
    async with await QueuedLedger.open(url, folder=folder / "q", timeout_seconds=60.0) as queued:
        await queued.record(*talk.records)
        read = await queued.history(session_id=talk.session_id, patient_id=talk.patient_id)
        assert [turn.question.text.text for turn in read.turns] == ["My knee hurts.", "For how long?"]
        assert await queued.drained(timeout_seconds=60)
        assert queued.waiting == 0
        assert (await queued.consent(patient_id=talk.patient_id)).given
        assert len(await queued.sessions(patient_id=talk.patient_id)) == 1
        with pytest.raises(NotFound):
            await queued.history(session_id=talk.session_id, patient_id=new_id())
        with pytest.raises(NotFound):
            await queued.ledger.history(session_id=new_id(), patient_id=new_id())
    async with await Ledger.open(url, timeout_seconds=60.0) as ledger:
        assert len((await ledger.history(session_id=talk.session_id, patient_id=talk.patient_id)).turns) == 2


async def test_what_comes_one_by_one_is_written_together_and_a_reader_waits_for_no_more(
    url: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neurons.ledger.draining.GATHER_SECONDS", 600.0)
    sizes: list[int] = []
    async with await QueuedLedger.open(url, folder=folder / "q", timeout_seconds=60.0) as queued:
        write = queued.ledger.put_rows

        async def counted(rows: Iterable[tuple[str, Row]]) -> None:
            rows = list(rows)
            sizes.append(len(rows))
            await write(rows)

        await queued.record(*a_day().records)
        assert await queued.drained(timeout_seconds=60)
        monkeypatch.setattr(queued.ledger, "put_rows", counted)
        talks = [a_day() for _ in range(5)]
        for talk in talks:
            await queued.record(*talk.records)  # returns: on the disk, whatever the ledger does
        assert (sizes, queued.waiting) == ([], 5)
        # Who waits for it hurries it.
        assert await queued.drained(timeout_seconds=60)
        assert sizes == [sum(len(talk.records) for talk in talks)]
        # So does a full batch.
        for talk in (a_day() for _ in range(AT_ONCE)):
            await queued.record(*talk.records)
        async with asyncio.timeout(60):
            while queued.waiting:
                await asyncio.sleep(0.02)
        assert len(sizes) <= 3


async def test_rows_that_are_at_hand_and_rows_read_from_the_disk_are_the_same(url: str, folder: Path) -> None:
    talk, other = a_day(), a_day()
    with Spool(folder / "q") as spool:
        spool.append([orjson.dumps([(TABLE_OF[type(each)], to_row(each)) for each in other.records])])
    async with await QueuedLedger.open(url, folder=folder / "q", timeout_seconds=60.0) as queued:
        await queued.record(*talk.records)
        await queued.record(*talk.records)  # once more, as after a crash
        assert await queued.drained(timeout_seconds=60)
    async with await Ledger.open(url, timeout_seconds=60.0) as ledger:
        for each in (talk, other):
            read = await ledger.history(session_id=each.session_id, patient_id=each.patient_id)
            assert [turn.question.text.text for turn in read.turns] == ["My knee hurts.", "For how long?"]
        assert (await ledger.record(*talk.records, *other.records)).new == 0


async def test_sessions_go_on_while_the_ledger_is_down_and_survive_a_restart(
    own_postgres: Postgres, folder: Path
) -> None:
    url = own_postgres.database("down")
    await migrate(url)
    talk = Conversation()
    talk.ask("Before", "A")
    async with await QueuedLedger.open(url, folder=folder / "q", timeout_seconds=2.0) as queued:
        await queued.record(*talk.records)
        assert await queued.drained(timeout_seconds=60)
        own_postgres.kill()
        talk.ask("Meanwhile", "B")
        await queued.record(*talk.records[-3:])
        begun = time.monotonic()
        read = await queued.history(session_id=talk.session_id, patient_id=talk.patient_id)
        assert time.monotonic() - begun < 5
        assert read.complete
        assert [turn.question.text.text for turn in read.turns] == ["Before", "Meanwhile"]
        with pytest.raises(NotFound):
            await queued.history(session_id=talk.session_id, patient_id=new_id())
        assert not await queued.drained(timeout_seconds=0.2)
        assert queued.away_seconds > 0
    # The gateway is restarted too, with the ledger still down.
    async with await QueuedLedger.open(url, folder=folder / "q", timeout_seconds=2.0) as queued:
        assert queued.waiting == 1
        more = a_day()
        await queued.record(*more.records)
        own_postgres.start(fsync=True)
        assert await queued.drained(timeout_seconds=60)
        read = await queued.ledger.history(session_id=talk.session_id, patient_id=talk.patient_id)
        assert [turn.answer.text.text for turn in read.turns if turn.answer and turn.answer.text] == ["A", "B"]
        assert (await queued.history(session_id=more.session_id, patient_id=more.patient_id)).complete


async def test_one_that_takes_anothers_place_waits_until_that_one_has_ended(url: str, folder: Path) -> None:
    """A pod that was deleted still ends its requests while the next one starts on the same volume."""
    former = await QueuedLedger.open(url, folder=folder / "q")
    with pytest.raises(QueueInUse, match="its own folder"):
        await QueuedLedger.open(url, folder=folder / "q")
    waiting = asyncio.create_task(QueuedLedger.open(url, folder=folder / "q", wait_seconds=60.0))
    talk = Conversation()
    talk.ask("Last", "A")
    await former.record(*talk.records)
    assert await former.drained(timeout_seconds=60)
    assert not waiting.done()
    await former.close()
    async with await waiting as queued:
        read = await queued.history(session_id=talk.session_id, patient_id=talk.patient_id)
        assert [turn.question.text.text for turn in read.turns] == ["Last"]


async def test_a_full_queue_is_an_error_for_its_caller_alone(folder: Path) -> None:
    url = "postgresql://nobody@127.0.0.1:1/none"
    async with await QueuedLedger.open(url, folder=folder / "q", max_bytes=20_000, timeout_seconds=1.0) as queued:
        small = Conversation()

        async def fill() -> None:
            for _ in range(1000):
                await queued.record(Session(new_id(), new_id(), GURUNG, NOON))

        with pytest.raises(QueueFull):
            await fill()
        waiting = queued.waiting
        assert waiting > 10
        with pytest.raises(QueueFull):
            await queued.record(*small.records)
    with Spool(folder / "q") as spool:
        assert spool.entries == waiting


async def test_a_damaged_entry_is_set_aside_and_holds_back_no_other(url: str, folder: Path) -> None:
    talk = a_day()
    async with await QueuedLedger.open("postgresql://x@127.0.0.1:1/x", folder=folder / "q") as queued:
        await queued.record(*talk.records)
    with Spool(folder / "q") as spool:
        spool.append([b'[["sessions",{"session_id":"Ram Bahadur"}]]', b"no json", b'[["nonsense",{}]]'])
    late = a_day()
    async with await QueuedLedger.open(url, folder=folder / "q", timeout_seconds=60.0) as queued:
        await queued.record(*late.records)
        assert await queued.drained(timeout_seconds=60)
        assert queued.set_aside == 3
        for each in (talk, late):
            read = await queued.ledger.history(session_id=each.session_id, patient_id=each.patient_id)
            assert len(read.turns) == 2
    assert b"Ram Bahadur" in (folder / "q" / "set-aside.log").read_bytes()


async def test_what_was_queued_of_an_erased_patient_is_dropped(url: str, folder: Path) -> None:
    talk = a_day()
    async with await QueuedLedger.open("postgresql://x@127.0.0.1:1/x", folder=folder / "q") as queued:
        await queued.record(*talk.records)
    async with await Ledger.open(url, timeout_seconds=60.0) as ledger:
        await ledger.erase(patient_id=talk.patient_id)
        async with await QueuedLedger.open(url, folder=folder / "q", timeout_seconds=60.0) as queued:
            assert await queued.drained(timeout_seconds=60)
        found = await rows_by_table(ledger)
        assert {name for name, count in found.items() if count} == {"tombstones", "erasures"}


async def test_whom_somebody_else_erased_is_forgotten_by_every_gateway(
    url: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neurons.ledger.queued._TIDY_SECONDS", 0.05)
    mine, theirs = a_day(), a_day()
    told: list[str] = []
    async with (
        await QueuedLedger.open(url, folder=folder / "q", timeout_seconds=60.0) as queued,
        await Ledger.open(url, timeout_seconds=60.0) as by_hand,
    ):
        queued.on_erasure(told.extend)
        await queued.record(*mine.records, *theirs.records)
        assert await queued.drained(timeout_seconds=60)
        await by_hand.erase(patient_id=mine.patient_id)
        async with asyncio.timeout(30):
            while not told:
                await asyncio.sleep(0.01)
        assert told == [patient_digest(mine.patient_id)]
        with pytest.raises(NotFound):
            await queued.history(session_id=mine.session_id, patient_id=mine.patient_id)
        queued._suspect()  # what it remembers, without asking the ledger
        assert not queued._recollection.history(session_id=mine.session_id, patient_id=mine.patient_id, limit=9).turns
        assert (await queued.history(session_id=theirs.session_id, patient_id=theirs.patient_id)).turns


async def test_an_erased_session_is_not_shown_from_memory(url: str, folder: Path) -> None:
    talk = a_day()
    async with await QueuedLedger.open(url, folder=folder / "q", timeout_seconds=60.0) as queued:
        await queued.record(*talk.records)
        assert await queued.drained(timeout_seconds=60)
        async with await Ledger.open(url, timeout_seconds=60.0) as by_hand:
            await by_hand.erase(patient_id=talk.patient_id)
        with pytest.raises(NotFound):
            await queued.history(session_id=talk.session_id, patient_id=talk.patient_id)


@pytest.mark.parametrize("closed", [False, True])
async def test_no_word_of_what_is_in_the_ledger_stays_in_the_queues_files(
    folder: Path, monkeypatch: pytest.MonkeyPatch, closed: bool
) -> None:
    monkeypatch.setattr("neurons.ledger.queued._TIDY_SECONDS", 600.0 if closed else 0.05)
    address = f"sqlite:///{folder / 'ledger.db'}"

    def words() -> bytes:
        return b"".join(path.read_bytes() for path in (folder / "q").iterdir())

    async with await QueuedLedger.open(address, folder=folder / "q", timeout_seconds=60.0) as queued:
        await queued.record(*a_day().records)
        assert await queued.drained(timeout_seconds=60)
        if not closed:
            async with asyncio.timeout(30):
                while b"knee" in words():
                    await asyncio.sleep(0.01)
            talk = a_day()
            await queued.record(*talk.records)
            assert b"knee" in words()
            assert await queued.drained(timeout_seconds=60)
            assert (await queued.ledger.history(session_id=talk.session_id, patient_id=talk.patient_id)).turns
    assert b"knee" not in words()


_GATEWAY = """
import asyncio, json, sys
from dataclasses import asdict
from pathlib import Path
from neurons.ledger import QueuedLedger
from tests.unit.ledger.world import a_day

async def main() -> None:
    async with await QueuedLedger.open(sys.argv[1], folder=Path(sys.argv[2]), timeout_seconds=2.0) as queued:
        async def client() -> None:
            while True:
                talk = a_day()
                await queued.record(*talk.records)
                print(json.dumps([talk.session_id, talk.patient_id, len(talk.records)]), flush=True)
                await asyncio.sleep(0.002)
        await asyncio.gather(*(client() for _ in range(4)))

asyncio.run(main())
"""


@pytest.mark.timeout(900)
async def test_nothing_is_lost_or_doubled_when_gateway_and_ledger_are_killed_at_random(
    own_postgres: Postgres, folder: Path
) -> None:
    """Both are killed with SIGKILL, over and over, at seeded moments; then all that was acknowledged is there, once."""
    url = own_postgres.database("killed")
    await migrate(url)
    chance = random.Random(int(os.environ.get("SEED", "11")))
    acknowledged: list[tuple[str, str, int]] = []
    for turn in range(4):
        writer = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _GATEWAY, url, str(folder / "q"), stdout=asyncio.subprocess.PIPE
        )
        assert writer.stdout is not None
        wanted, killed_at = chance.randint(20, 120), chance.randint(1, 19)
        for number in range(wanted):
            line = await asyncio.wait_for(writer.stdout.readline(), 300)
            acknowledged.append(tuple(json.loads(line)))
            if number == killed_at and turn % 2 == 0:
                own_postgres.kill()
            elif number == killed_at + 10 and not own_postgres.runs and turn != 2:
                own_postgres.start(fsync=True)
        writer.send_signal(signal.SIGKILL)
        acknowledged += [tuple(json.loads(line)) for line in (await writer.stdout.read()).splitlines()]
        await writer.wait()
        if not own_postgres.runs and turn != 2:  # once the gateway's next start comes before the ledger's
            own_postgres.start(fsync=True)
    async with await QueuedLedger.open(url, folder=folder / "q", timeout_seconds=60.0) as queued:
        assert await queued.drained(timeout_seconds=300)
        assert queued.set_aside == 0
    async with await Ledger.open(url, timeout_seconds=60.0) as ledger:
        missing = []
        for session_id, patient_id, _ in acknowledged:
            try:
                read = await ledger.history(session_id=session_id, patient_id=patient_id)
            except NotFound:
                missing.append(session_id)
                continue
            turns = [
                (turn.question.text.text, turn.answer is not None, turn.rating is not None, turn.correction is not None)
                for turn in read.turns
            ]
            assert turns == [("My knee hurts.", True, True, False), ("For how long?", True, False, True)]
        assert missing == []
        found = await rows_by_table(ledger)
        talks = found["sessions"]
        # At most what was in flight at each kill is there beside the acknowledged, and each of these is whole.
        assert len(acknowledged) <= talks <= len(acknowledged) + 4 * 4
        kinds = [TABLE_OF[type(record)] for record in a_day().records]
        for name in set(kinds):
            assert found[name] == talks * kinds.count(name)


async def test_a_ledger_that_went_away_is_told_of_though_nobody_asks(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neurons.ledger.queued._TIDY_SECONDS", 0.01)
    monkeypatch.setattr("neurons.ledger.queued._TROUBLE_SECONDS", 0.01)
    async with await QueuedLedger.open(f"sqlite:///{folder / 'ledger.db'}", folder=folder / "q") as queued:
        await queued.record(*a_day().records)
        assert await queued.drained(timeout_seconds=60)
        assert queued.trouble is None

        async def away(*_: object, **__: object) -> None:
            raise LedgerDown("the ledger doesn't work (OSError).")

        monkeypatch.setattr(queued.ledger, "erased", away)
        monkeypatch.setattr(queued.ledger, "ready", away)
        async with asyncio.timeout(20):
            while queued.trouble != "the ledger doesn't work (OSError).":
                await asyncio.sleep(0.01)
        monkeypatch.undo()
        async with asyncio.timeout(20):
            while queued.trouble is not None:
                await asyncio.sleep(0.01)


async def test_a_queue_that_takes_nothing_is_told_of_until_it_takes_something(folder: Path) -> None:
    queued = await QueuedLedger.open(f"sqlite:///{folder / 'ledger.db'}", folder=folder / "q", max_bytes=100_000)
    async with queued:
        full = queued._spool.append

        def refuse(_: object) -> None:
            raise QueueFull("the queue can't be written: No space left on device.")

        queued._spool.append = refuse  # type: ignore[method-assign,assignment]
        with pytest.raises(QueueFull):
            await queued.record(*a_day().records)
        assert queued.trouble == "the queue can't be written: No space left on device."
        queued._spool.append = full  # type: ignore[method-assign]
        await queued.record(*a_day().records)
        assert queued.trouble is None

"""A process beside the one that appends writes the ledger: what becomes of records when either is killed, or hangs."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import orjson
import pytest

from neurons.ledger import Ledger, QueuedLedger, QueueInUse
from neurons.ledger.codec import TABLE_OF, to_row
from neurons.ledger.migrate import migrate
from neurons.ledger.spool import Spool
from tests.unit.ledger.postgres import Postgres
from tests.unit.ledger.test_writing_and_reading import rows_by_table
from tests.unit.ledger.world import Conversation, a_day


async def opened(url: str, folder: Path, *, timeout_seconds: float = 60.0, wait_seconds: float = 0.0) -> QueuedLedger:
    return await QueuedLedger.open(
        url, folder=folder / "q", timeout_seconds=timeout_seconds, wait_seconds=wait_seconds, beside=True
    )


async def pid_of(queued: QueuedLedger, *, other_than: int | None = None) -> int:
    """Return the process's id, once it has said how it stands."""
    assert queued.writer is not None
    async with asyncio.timeout(60):
        while not queued.writer.runs or queued.writer.pid in (None, other_than):
            await asyncio.sleep(0.01)
    pid = queued.writer.pid
    assert pid is not None
    return pid


def is_there(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


async def whole(ledger: Ledger, talks: list[Conversation]) -> None:
    """Each of them is there, once and with all that was said."""
    for talk in talks:
        read = await ledger.history(session_id=talk.session_id, patient_id=talk.patient_id)
        assert [turn.question.text.text for turn in read.turns] == ["My knee hurts.", "For how long?"]
    found = await rows_by_table(ledger)
    kinds = [TABLE_OF[type(record)] for record in a_day().records]
    for name in set(kinds):
        assert found[name] == len(talks) * kinds.count(name)


async def test_what_is_recorded_lies_in_the_ledger_soon_and_leaves_no_process_behind(url: str, folder: Path) -> None:
    talk = a_day()
    async with await opened(url, folder) as queued:
        assert queued.writer is not None
        assert queued.writer.runs, "what is recorded first is written as soon as what comes later"
        pid = await pid_of(queued)
        await queued.record(*talk.records)
        assert (await queued.consent(patient_id=talk.patient_id)).given, "who reads waits for what is queued"
        assert await queued.drained(timeout_seconds=60)
        assert (queued.waiting, queued.waiting_seconds) == (0, 0.0)
        assert pid != os.getpid()
    assert not is_there(pid)
    assert sum(path.stat().st_size for path in (folder / "q").glob("*.log")) == 0, "what was taken is swept away"
    async with await Ledger.open(url, timeout_seconds=60.0) as ledger:
        await whole(ledger, [talk])


async def test_killed_over_and_over_it_loses_and_doubles_nothing_and_is_seen_to_have_ended(
    url: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    chance, talks, pid = random.Random(5), [], None
    async with await opened(url, folder) as queued:
        assert queued.writer is not None
        for _ in range(3):
            pid = await pid_of(queued, other_than=pid)
            for number in range(chance.randint(5, 60)):
                talks.append(a_day())
                await queued.record(*talks[-1].records)
                if number == 3:
                    os.kill(pid, signal.SIGKILL)
        assert await queued.drained(timeout_seconds=120)
        assert queued.writer.ends == 3
        assert queued.set_aside == 0
        assert queued.away_seconds == 0.0
        assert "is started again" in caplog.text
    async with await Ledger.open(url, timeout_seconds=60.0) as ledger:
        await whole(ledger, talks)


async def test_one_that_hangs_is_ended_and_started_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("neurons.ledger.writer._END_SECONDS", 0.5)
    url = f"sqlite:///{folder / 'ledger.db'}"
    async with await opened(url, folder) as queued:
        pid = await pid_of(queued)
        # From now on: it says something each 5 s.
        monkeypatch.setattr("neurons.ledger.writer.SILENT_SECONDS", 8.0)
        await queued.record(*a_day().records)
        assert await queued.drained(timeout_seconds=60)
        os.kill(pid, signal.SIGSTOP)
        talk = a_day()
        await queued.record(*talk.records)
        assert await queued.drained(timeout_seconds=60)
        assert "said nothing for 8 s" in caplog.text
        assert await pid_of(queued, other_than=pid)
        assert not is_there(pid)
        assert (await queued.ledger.history(session_id=talk.session_id, patient_id=talk.patient_id)).turns


async def test_while_the_ledger_is_down_records_wait_and_nobody_waits_for_it(
    own_postgres: Postgres, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = own_postgres.database("beside")
    await migrate(url)
    async with await opened(url, folder, timeout_seconds=2.0) as queued:
        talk = a_day()
        await queued.record(*talk.records)
        assert await queued.drained(timeout_seconds=60)
        own_postgres.kill()
        more = a_day()
        await queued.record(*more.records)
        async with asyncio.timeout(60):
            while not queued.away_seconds:
                await asyncio.sleep(0.02)
        begun = time.monotonic()
        assert len((await queued.history(session_id=more.session_id, patient_id=more.patient_id)).turns) == 2
        assert time.monotonic() - begun < 1
        assert queued.waiting == 1
        assert "Records are queued in" in caplog.text, "what it logs is logged here"
        own_postgres.start(fsync=True)
        assert await queued.drained(timeout_seconds=60)
        assert queued.away_seconds == 0.0
        assert queued.writer is not None
        assert queued.writer.ends == 0
        await whole(queued.ledger, [talk, more])


async def test_what_lay_in_the_queue_is_checked_and_what_is_damaged_set_aside(url: str, folder: Path) -> None:
    before, damaged = a_day(), a_day()
    rows = [(TABLE_OF[type(each)], to_row(each)) for each in damaged.records]
    rows[-1][1]["patient_id"] = "Ram Bahadur"
    with Spool(folder / "q") as spool:
        spool.append([orjson.dumps([(TABLE_OF[type(each)], to_row(each)) for each in before.records])])
        spool.append([orjson.dumps(rows), b"no json", b'[["nonsense",{}]]'])
    async with await opened(url, folder) as queued:
        assert queued.waiting == 4
        talk = a_day()
        await queued.record(*talk.records)
        assert await queued.drained(timeout_seconds=60)
        assert (queued.waiting, queued.set_aside) == (0, 3)
        await whole(queued.ledger, [before, talk])
    assert b"Ram Bahadur" in (folder / "q" / "set-aside.log").read_bytes()


_GATEWAY = """
import asyncio, json, sys
from pathlib import Path
from neurons.ledger import QueuedLedger
from tests.unit.ledger.world import a_day

async def main() -> None:
    queued = await QueuedLedger.open(sys.argv[1], folder=Path(sys.argv[2]), wait_seconds=60.0, beside=True)
    async with queued:
        while not queued.writer.runs:
            await asyncio.sleep(0.01)
        async def client() -> None:
            while True:
                talk = a_day()
                await queued.record(*talk.records)
                print(json.dumps([queued.writer.pid, talk.session_id, talk.patient_id]), flush=True)
                await asyncio.sleep(0.002)
        await asyncio.gather(*(client() for _ in range(4)))

asyncio.run(main())
"""


@pytest.mark.timeout(600)
async def test_it_ends_with_a_gateway_that_is_killed_and_both_give_the_queue_to_the_next(
    url: str, folder: Path
) -> None:
    chance, acknowledged = random.Random(3), []
    for _ in range(3):
        gateway = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _GATEWAY, url, str(folder / "q"), stdout=asyncio.subprocess.PIPE
        )
        assert gateway.stdout is not None
        for _ in range(chance.randint(10, 80)):
            acknowledged.append(json.loads(await asyncio.wait_for(gateway.stdout.readline(), 120)))
        gateway.send_signal(signal.SIGKILL)
        acknowledged += [json.loads(line) for line in (await gateway.stdout.read()).splitlines()]
        await gateway.wait()
    async with await opened(url, folder, wait_seconds=60.0) as queued:
        with pytest.raises(QueueInUse):
            Spool(folder / "q")
        assert await queued.drained(timeout_seconds=120)
        assert queued.set_aside == 0
    async with asyncio.timeout(30):
        while any(is_there(pid) for pid in {pid for pid, _, _ in acknowledged}):
            await asyncio.sleep(0.05)
    async with await Ledger.open(url, timeout_seconds=60.0) as ledger:
        for _, session_id, patient_id in acknowledged:
            assert len((await ledger.history(session_id=session_id, patient_id=patient_id)).turns) == 2
        talks = (await rows_by_table(ledger))["sessions"]
        assert len(acknowledged) <= talks <= len(acknowledged) + 3 * 4


async def test_while_the_writer_of_a_killed_gateway_is_there_nobody_else_has_the_queue(folder: Path) -> None:
    """Two that take would each delete files that the other reads."""
    url = f"sqlite:///{folder / 'ledger.db'}"
    gateway = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _GATEWAY, url, str(folder / "q"), stdout=asyncio.subprocess.PIPE
    )
    assert gateway.stdout is not None
    pid, _, _ = json.loads(await asyncio.wait_for(gateway.stdout.readline(), 120))
    os.kill(pid, signal.SIGSTOP)
    try:
        gateway.send_signal(signal.SIGKILL)
        await gateway.stdout.read()
        await gateway.wait()
        with pytest.raises(QueueInUse):
            Spool(folder / "q")
    finally:
        os.kill(pid, signal.SIGCONT)
    async with asyncio.timeout(30):
        while is_there(pid):
            await asyncio.sleep(0.02)
    Spool(folder / "q").close()

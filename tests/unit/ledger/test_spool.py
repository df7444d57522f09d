"""The queue on disk: what was acknowledged is taken once it is read again, whatever tore its files."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neurons.ledger import QueueFull, QueueInUse
from neurons.ledger.spool import Spool, frame, unframe


def contents(folder: Path) -> list[bytes]:
    with Spool(folder) as spool:
        return [entry.data for entry in spool.peek(entries=10**6, size=1 << 40)]


def test_entries_come_back_in_their_order_until_they_are_taken(tmp_path: Path) -> None:
    with Spool(tmp_path, segment_bytes=200) as spool:
        for number in range(50):
            spool.append([b"%d" % number, b"and %d" % number])
        assert len(list(tmp_path.glob("*.log"))) > 5
        first = spool.peek(entries=30)
        assert [entry.data for entry in first[:3]] == [b"0", b"and 0", b"1"]
        assert spool.peek(entries=30) == first
        spool.take(first)
        assert spool.entries == 70
    assert contents(tmp_path)[:2] == [b"15", b"and 15"]


def test_files_go_when_they_are_taken(tmp_path: Path) -> None:
    with Spool(tmp_path, segment_bytes=200) as spool:
        spool.append([b"x" * 50] * 20)
        spool.append([b"y"])
        spool.take(spool.peek())
        assert spool.entries == spool.bytes_waiting == 0
        assert len(list(tmp_path.glob("*.log"))) == 1
        spool.append([b"z"])
    assert contents(tmp_path) == [b"z"]


@pytest.mark.parametrize("reopen", [False, True])
def test_a_file_cut_anywhere_loses_only_what_was_cut(tmp_path: Path, reopen: bool) -> None:
    entries = [b"first", b"second entry", b"third"]
    with Spool(tmp_path / "whole") as spool:
        spool.append(entries)
    (path,) = (tmp_path / "whole").glob("*.log")
    data = path.read_bytes()
    for cut in range(len(data)):
        folder = tmp_path / f"cut-{cut}"
        folder.mkdir()
        (folder / path.name).write_bytes(data[:cut])
        whole = [
            entry for number, entry in enumerate(entries) if len(b"".join(map(frame, entries[: number + 1]))) <= cut
        ]
        assert contents(folder) == whole
        if reopen:
            with Spool(folder) as spool:
                spool.append([b"later"])
            assert contents(folder) == [*whole, b"later"]


def test_a_damaged_line_is_set_aside_and_holds_back_no_other(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        spool.append([b"first", b"second", b"third"])
    (path,) = tmp_path.glob("0*.log")
    path.write_bytes(path.read_bytes().replace(b"second", b"sEcond"))
    with Spool(tmp_path) as spool:
        for _ in range(2):
            assert [entry.data for entry in spool.peek()] == [b"first", b"third"]
        assert spool.damaged == 1
    assert b"sEcond" in (tmp_path / "set-aside.log").read_bytes()


def test_sweeping_deletes_what_was_taken_and_nothing_else(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        spool.append([b"one", b"two"])
        spool.sweep()
        assert [entry.data for entry in spool.peek()] == [b"one", b"two"]
        spool.take(spool.peek())
        spool.sweep()
        spool.sweep()
        assert sum(path.stat().st_size for path in tmp_path.glob("*.log")) == 0
        spool.append([b"three"])
        assert [entry.data for entry in spool.peek()] == [b"three"]
        spool.take(spool.peek())
        spool.sweep()
    with Spool(tmp_path) as spool:
        assert (spool.entries, spool.peek()) == (0, ())
        spool.append([b"four"])
    with Spool(tmp_path) as spool:
        assert [entry.data for entry in spool.peek()] == [b"four"]


@pytest.mark.parametrize("done", [b"", b"{", b'{"segment": "x"}', b"[]", b'{"segment": 999, "offset": 5}'])
def test_a_lost_or_damaged_mark_takes_everything_again_never_less(tmp_path: Path, done: bytes) -> None:
    with Spool(tmp_path) as spool:
        spool.append([b"first", b"second"])
        spool.take(spool.peek(entries=1))
    (tmp_path / "done").write_bytes(done)
    assert contents(tmp_path) == [b"first", b"second"]
    with Spool(tmp_path) as spool:
        spool.append([b"new"])
        assert [entry.data for entry in spool.peek()][-1] == b"new"


def test_it_is_bounded_and_says_so(tmp_path: Path) -> None:
    with Spool(tmp_path, max_bytes=1000) as spool:
        spool.append([b"x" * 900])
        with pytest.raises(QueueFull, match="bring it back"):
            spool.append([b"y" * 90])
        assert [len(entry.data) for entry in spool.peek()] == [900]
        spool.take(spool.peek())
        spool.append([b"y" * 90])


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    with Spool(tmp_path), pytest.raises(QueueInUse, match="its own folder"):
        Spool(tmp_path)


@pytest.mark.parametrize("call", ["write", "fdatasync"])
def test_a_full_disk_keeps_nothing_of_that_call_and_goes_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    real = getattr(os, call)
    with Spool(tmp_path) as spool:
        spool.append([b"before"])

        def fail(file: int, *data: bytes) -> int:
            if data:
                real(file, bytes(data[0])[:5])
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, call, fail)
        for _ in range(3):
            with pytest.raises(QueueFull, match="the disk is full"):
                spool.append([b"in vain"])
        monkeypatch.setattr(os, call, real)
        spool.append([b"after"])
        assert [entry.data for entry in spool.peek()] == [b"before", b"after"]
    assert contents(tmp_path) == [b"before", b"after"]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=200).filter(lambda data: b"\n" not in data), st.data())
def test_no_changed_line_is_taken_for_an_entry(data: bytes, draw: st.DataObject) -> None:
    line = frame(data)
    assert unframe(line) == data
    place = draw.draw(st.integers(0, len(line) - 1))
    other = draw.draw(st.integers(0, 255).filter(lambda value: value != line[place]))
    assert unframe(line[:place] + bytes([other]) + line[place + 1 :]) is None


_WRITER = """
import sys
from pathlib import Path
from neurons.ledger.spool import Spool
spool = Spool(Path(sys.argv[1]), segment_bytes=2000)
last = int(sys.argv[2])
while True:
    batch = [b"%d" % (last + each) for each in range(1, 4)]
    spool.append(batch)
    last += 3
    sys.stdout.write(f"{last}\\n")
    sys.stdout.flush()
    if last % 4 == 0:
        entries = spool.peek(entries=5)
        with open(sys.argv[3], "ab", buffering=0) as taken:
            taken.write(b"".join(each.data + b"\\n" for each in entries))
        spool.take(entries)
"""


def test_a_writer_killed_at_any_moment_loses_nothing_that_it_acknowledged(tmp_path: Path) -> None:
    chance = random.Random(7)
    taken = tmp_path / "taken"
    acknowledged = 0
    for _ in range(5):
        with subprocess.Popen(
            [sys.executable, "-c", _WRITER, tmp_path / "queue", str(acknowledged), taken], stdout=subprocess.PIPE
        ) as writer:
            assert writer.stdout is not None
            for _ in range(chance.randint(1, 150)):
                acknowledged = int(writer.stdout.readline())
            writer.send_signal(signal.SIGKILL)
            if rest := writer.stdout.read().splitlines():
                acknowledged = int(rest[-1])
    found = [int(each) for each in taken.read_bytes().split()] + [int(each) for each in contents(tmp_path / "queue")]
    assert set(range(1, acknowledged + 1)) <= set(found)
    assert max(found) <= acknowledged + 3

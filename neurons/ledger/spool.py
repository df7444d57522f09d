"""A queue on disk: append-only, fsynced, checked on reading, bounded. It outlives a crash of its process and machine.

    FOLDER/lock              held by the one process that writes here
    FOLDER/00000001.log …    the entries, in their order, one line each: CRC-32 and length in hex, then the entry;
                             `sweep` deletes those that were all taken
    FOLDER/done              up to where they were taken
    FOLDER/set-aside.log     entries that the ledger refuses, and lines that are damaged; nothing reads them again

What `append` returned for is on the disk. After a crash the end of the last file may be torn: that entry was never
acknowledged, and is cut off. `done` may be behind, never ahead: some entries are then taken twice, so taking one must
be idempotent. All methods block; one thread at a time may append, and one may take. Who takes may be a process of its
own (`Spool.taking`): the two tell one another what was appended and what was taken (`Mark`).
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import threading
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, NamedTuple, Self, cast

from neurons.ledger.errors import QueueFull, QueueInUse

MAX_ENTRY: Final = 16 * 1024 * 1024
"""Bytes of one entry."""
_SEGMENT: Final = re.compile(r"(\d{8})\.log")
_HEAD: Final = re.compile(rb"([0-9a-f]{8}) ([0-9a-f]{8}) ")
_HEAD_BYTES: Final = 18
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """Between two entries."""

    segment: int
    offset: int


class Mark(NamedTuple):
    """How far appending or taking has come, counted from when the queue was opened for appending."""

    at: Position
    entries: int
    size: int
    """Bytes, with their frames."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry, and where the next one begins."""

    data: bytes
    end: Position


class Spool:
    """The queue in one folder."""

    def __init__(self, folder: Path, *, max_bytes: int = 1 << 30, segment_bytes: int = 8 << 20) -> None:
        """Open it and cut off a torn end. Raises QueueInUse, QueueFull when the disk can't be written."""
        self.folder, self._max, self._segment_bytes = folder, max_bytes, segment_bytes
        self._mutex = threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock: BinaryIO | None = (folder / "lock").open("ab")
        except OSError as error:
            raise QueueFull(f"the queue in {folder} can't be written: {error.strerror}. Mount its volume.") from error
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            cast(BinaryIO, self._lock).close()
            raise QueueInUse(f"another process has the queue in {folder}. Give each process its own folder.") from error
        self._seen_damaged: set[tuple[int, int]] = set()
        self._file: int | None = None
        taken = self._read_done()
        self._taken = Mark(taken, 0, 0)
        self._appended = Mark(self._recover(taken), 0, 0)
        self._appended = Mark(self._appended.at, *self._count(taken))

    @classmethod
    def taking(cls, folder: Path, appended: Mark) -> Self:
        """Return the side that takes, for a process to which the one that appends has said how far it has come.

        That one holds the lock, and must let this process inherit it (`lock`). `append` and `sweep` are not for it.
        """
        spool = cls.__new__(cls)
        spool.folder, spool._max, spool._segment_bytes = folder, 0, 0
        spool._mutex, spool._lock, spool._file = threading.Lock(), None, None
        spool._seen_damaged = set()
        spool._appended = appended
        taken = spool._read_done()
        entries, size = spool._count(taken)
        spool._taken = Mark(taken, appended.entries - entries, appended.size - size)
        return spool

    def _count(self, start: Position) -> tuple[int, int]:
        sizes = [len(entry.data) + _HEAD_BYTES + 1 for entry in self._entries(start, count_damage=False)]
        return len(sizes), sum(sizes)

    @property
    def appended(self) -> Mark:
        """How much was appended; what lay here when it was opened counts, too."""
        return self._appended

    @property
    def taken(self) -> Mark:
        """How much of that was taken."""
        return self._taken

    @property
    def entries(self) -> int:
        """How many entries wait to be taken."""
        return self._appended.entries - self._taken.entries

    @property
    def bytes_waiting(self) -> int:
        """How many bytes they have, with their frames."""
        return self._appended.size - self._taken.size

    @property
    def lock(self) -> int:
        """The lock's file descriptor: while any process has it open, no other opens this queue."""
        return cast(BinaryIO, self._lock).fileno()

    def was_appended(self, mark: Mark) -> None:
        """Learn how far another process has come that appends."""
        with self._mutex:
            self._appended = mark

    def was_taken(self, mark: Mark) -> None:
        """Learn how far another process has come that takes."""
        with self._mutex:
            self._taken = mark

    @property
    def damaged(self) -> int:
        """How many lines were found damaged, and set aside."""
        return len(self._seen_damaged)

    def close(self) -> None:
        """Let another process have it."""
        self._close_file()
        if self._lock is not None:
            self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Appending

    def append(self, entries: Sequence[bytes]) -> None:
        """Return when the entries are on the disk, all of them. Raises QueueFull: none of them will be taken.

        An entry is bytes without a line feed.
        """
        frames = [frame(data) for data in entries]
        size = sum(map(len, frames))
        if self.bytes_waiting + size > self._max:
            raise QueueFull(
                f"the queue in {self.folder} holds {self.bytes_waiting} bytes in {self.entries} entries and may hold "
                f"{self._max}. The ledger takes nothing: bring it back, then the queue empties by itself."
            )
        try:
            if self._appended.at.offset >= self._segment_bytes:
                self._close_file()
            self._write(b"".join(frames))
        except OSError as error:
            self._abandon_file()
            what = "the disk is full" if error.errno in _FULL else f"writing failed ({error.strerror})"
            raise QueueFull(f"the queue in {self.folder}: {what}. Free or mend its volume.") from error
        with self._mutex:
            end, count, waiting = self._appended
            self._appended = Mark(Position(end.segment, end.offset + size), count + len(frames), waiting + size)

    def _write(self, data: bytes) -> None:
        if self._file is None:
            self._next_file()
        file = cast(int, self._file)
        view = memoryview(data)
        while view:
            view = view[os.write(file, view) :]
        os.fdatasync(file)

    def _next_file(self) -> None:
        self._close_file()
        start = Position(max([self._appended.at.segment, *self._segments()]) + 1, 0)
        path = self._path(start.segment)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        self._sync_folder()
        with self._mutex:
            self._appended = self._appended._replace(at=start)

    def _abandon_file(self) -> None:
        """Cut off what was written in vain, and go on in a new file: after a failed fsync this one can't be trusted."""
        if self._file is not None:
            # What stays behind the end is never read in this process, and is complete or torn for the next.
            with suppress(OSError):
                os.ftruncate(self._file, self._appended.at.offset)
        self._close_file()

    def _close_file(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    # Taking

    def peek(self, *, entries: int = 256, size: int = 4 << 20) -> tuple[Entry, ...]:
        """Return the next entries, at least one when there is one; they stay until `take`."""
        found: list[Entry] = []
        for entry in self._entries(self._taken.at):
            found.append(entry)
            size -= len(entry.data)
            if len(found) >= entries or size <= 0:
                break
        return tuple(found)

    def take(self, entries: Sequence[Entry]) -> None:
        """Never return these again; they are the first that `peek` returned."""
        if not entries:
            return
        end = entries[-1].end
        with self._mutex:
            size = sum(len(entry.data) + _HEAD_BYTES + 1 for entry in entries)
            self._taken = Mark(end, self._taken.entries + len(entries), self._taken.size + size)
            last = self._appended.at.segment
        self._write_done(end)
        for number in self._segments():
            if number < end.segment and number < last:
                self._path(number).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Delete the files whose entries were all taken, the last one too: what lies in them is of patients.

        For the thread that appends. Without effect while an entry waits, or where no new file can be made.
        """
        if self.entries or not self._appended.at.offset or any(self._entries(self._taken.at)):
            return
        with suppress(OSError):
            self._next_file()  # the mark of what was taken is never beyond the last file
            for number in self._segments():
                if number < self._appended.at.segment:
                    self._path(number).unlink(missing_ok=True)

    def set_aside(self, data: bytes) -> None:
        """Keep something that can't be taken in a file of its own, on the disk."""
        file = os.open(self.folder / "set-aside.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(file, frame(data.replace(b"\n", b"\xff")))
            os.fsync(file)
        finally:
            os.close(file)
        self._sync_folder()

    def _entries(self, start: Position, *, count_damage: bool = True) -> Iterator[Entry]:
        with self._mutex:
            end = self._appended.at
        for number in self._segments():
            if number < start.segment or number > end.segment:
                continue
            begin = start.offset if number == start.segment else 0
            with self._path(number).open("rb") as file:
                file.seek(begin)
                offset = begin
                for line in file:
                    if number == end.segment and offset >= end.offset:
                        break
                    offset += len(line)
                    if (data := unframe(line)) is not None:
                        yield Entry(data, Position(number, offset))
                    elif count_damage and (number, offset) not in self._seen_damaged:
                        self.set_aside(line)
                        self._seen_damaged.add((number, offset))

    # What lies in the folder

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:08d}.log"

    def _segments(self) -> list[int]:
        matches = (_SEGMENT.fullmatch(name) for name in os.listdir(self.folder))
        return sorted(int(match[1]) for match in matches if match)

    def _recover(self, taken: Position) -> Position:
        """Cut the torn end off the last file, and return where the queue ends. What follows goes into a new file."""
        numbers = self._segments()
        if not numbers:
            return Position(taken.segment, 0)
        path = self._path(numbers[-1])
        whole = offset = 0
        with path.open("rb") as file:
            for line in file:
                offset += len(line)
                if unframe(line) is not None:
                    whole = offset
        if whole < offset:
            with path.open("r+b") as file:
                file.truncate(whole)
                os.fsync(file.fileno())
        return Position(max(numbers[-1], taken.segment), whole)

    def _read_done(self) -> Position:
        try:
            read = json.loads((self.folder / "done").read_bytes())
            done = Position(int(read["segment"]), int(read["offset"]))
        except (OSError, ValueError, KeyError, TypeError):
            return Position(0, 0)  # everything that is there is taken again
        # The last file is never deleted: a mark beyond it is damaged.
        return done if done.segment <= max(self._segments(), default=done.segment) else Position(0, 0)

    def _write_done(self, position: Position) -> None:
        new = self.folder / "done.new"
        # When it can't be written (a full disk) it stays behind, and taking goes on: that makes room.
        with suppress(OSError):
            new.write_text(json.dumps({"segment": position.segment, "offset": position.offset}))
            new.replace(self.folder / "done")

    def _sync_folder(self) -> None:
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def frame(data: bytes) -> bytes:
    """Return the entry's line."""
    if b"\n" in data or len(data) > MAX_ENTRY:
        raise ValueError(f"an entry has a line feed, or more than {MAX_ENTRY} bytes")
    return b"%08x %08x %b\n" % (zlib.crc32(data), len(data), data)


def unframe(line: bytes) -> bytes | None:
    """Return the entry of a line; None when it is damaged or cut."""
    head = _HEAD.match(line)
    if head is None or not line.endswith(b"\n"):
        return None
    data = line[_HEAD_BYTES:-1]
    return data if len(data) == int(head[2], 16) and zlib.crc32(data) == int(head[1], 16) else None

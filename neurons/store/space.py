"""Room on a disk, promised before it is filled: fetches that run side by side can't together overfill it.

Promises stand in the volume itself, one file each in `.room`, held by a lock of the kernel's: other pods on the volume
see them, and a process that dies lets go of its own.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from neurons.store.errors import NoSpace

SPARE_BYTES: Final = 1024 * 1024
ROOM: Final = ".room"
NO_LOCKS: Final = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
"""What a file system without locks answers."""
_LOCK: Final = "lock"
_WIDTH: Final = 20
_SILENT_SECONDS: Final = 900.0
"""Where there are no locks, a promise that nobody touched for so long is a dead process's."""
_STEP_BYTES: Final = 16 * 1024 * 1024
_GIGABYTE: Final = 10**9
_ADAPTERS_REMEDY: Final = "Enlarge the pod's adapter volume or remove twins from the pool."


class Reservation:
    """A promise of room; what was written counts no longer, since the disk itself counts it."""

    def __init__(self, size: int, descriptor: int) -> None:
        self.left = size
        self._descriptor, self._told = descriptor, size
        self._tell()

    def wrote(self, size: int) -> None:
        """Tell that so many bytes more are on the disk."""
        self.lacks(self.left - size)

    def lacks(self, left: int) -> None:
        """Tell how many bytes are still to come."""
        self.left = max(0, left)
        if abs(self._told - self.left) >= _STEP_BYTES or not self.left:
            self._tell()

    def _tell(self) -> None:
        os.pwrite(self._descriptor, f"{self.left:0{_WIDTH}}".encode(), 0)
        self._told = self.left


@contextmanager
def reserved(
    root: Path,
    size: int,
    *,
    what: str = "adapter",
    remedy: str = _ADAPTERS_REMEDY,
    at_most: int | None = None,
    spare: int = SPARE_BYTES,
    evict: Callable[[int], object] | None = None,
) -> Iterator[Reservation]:
    """Hold `size` bytes on the volume whose folder is `root` for as long as the context lasts.

    `at_most`: what everything below `root` may take together, where less than the disk is ours. `evict` is asked once
    to free so many bytes where they lack. Raises NoSpace, OSError; blocks for as long as others look.
    """
    room = root / ROOM
    room.mkdir(exist_ok=True)
    with suppress(OSError):
        room.chmod(0o777)  # pods of other users share the volume
    with _alone(room):
        promised = _promised(room)
        lacking = size + spare + promised - _free(root, at_most)
        if lacking > 0 and evict is not None:
            evict(lacking)
            lacking = size + spare + promised - _free(root, at_most)
        if lacking > 0:
            raise NoSpace(_refusal(root, size, promised, _free(root, at_most), what=what, remedy=remedy))
        descriptor, name = tempfile.mkstemp(dir=room)
        try:
            _try_lock(descriptor)
            promise = Reservation(size, descriptor)
        except BaseException:
            _let_go(descriptor, name)
            raise
    try:
        yield promise
    finally:
        _let_go(descriptor, name)


def taken(folder: Path) -> int:
    """Return the bytes that a folder's files take on the disk, at any depth; what goes meanwhile isn't counted."""
    total = 0
    for here, _, files in os.walk(folder):
        for name in files:
            with suppress(OSError):
                total += os.lstat(os.path.join(here, name)).st_blocks * 512
    return total


def _free(root: Path, at_most: int | None) -> int:
    free = shutil.disk_usage(root).free
    return free if at_most is None else min(free, at_most - taken(root))


def _promised(room: Path) -> int:
    """Sum the promises of living processes; the others' are removed."""
    total = 0
    for path in room.iterdir():
        if path.name == _LOCK:
            continue
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:  # gone since, or another user's: it counts when it can be read
            total += _read(path)
            continue
        try:
            if _try_lock(descriptor, unknown=time.time() - os.fstat(descriptor).st_mtime > _SILENT_SECONDS):
                path.unlink(missing_ok=True)
            else:
                total += _read(path)
        finally:
            os.close(descriptor)
    return total


def _read(path: Path) -> int:
    try:
        return int(path.read_bytes()[:_WIDTH] or b"0")
    except (OSError, ValueError):
        return 0


@contextmanager
def _alone(room: Path) -> Iterator[None]:
    descriptor = os.open(room / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        yield
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int, *, unknown: bool = False) -> bool:
    """Take a lock if nobody has it; `unknown` is the answer of a file system without locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in NO_LOCKS:
            return unknown
        raise
    return True


def _let_go(descriptor: int, name: str) -> None:
    with suppress(OSError):
        os.unlink(name)
    os.close(descriptor)


def _refusal(root: Path, size: int, promised: int, free: int, *, what: str, remedy: str) -> str:
    others = f", {_shown(promised)} of them promised to other downloads" if promised else ""
    unit = "" if size >= _GIGABYTE else " bytes"
    return f"{root}: the {what} needs {_shown(size)}{unit}, {_shown(max(0, free))} are free{others}. {remedy}"


def _shown(count: int) -> str:
    return f"{count / _GIGABYTE:.2f} GB" if count >= _GIGABYTE else str(count)

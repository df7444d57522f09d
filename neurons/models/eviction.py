"""Making room in a model cache: which models go, the one first that nobody has used for longest, and which never do.

A model stays that is loaded or being read (its readers hold a lock on its record), that is being fetched, that another
pool fetched last, or that was used a moment ago: between its fetch and its engine's start nobody holds it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from neurons.store.model_record import RECORD_FILE
from neurons.store.space import NO_LOCKS, taken

GRACE_SECONDS: Final = 600.0
_PARTIAL_SUFFIX: Final = ".part"
_USES_SUFFIX: Final = ".uses.json"


class Uses(BaseModel):
    """Who fetched a model last, and when it was asked for last."""

    model_config = ConfigDict(frozen=True)

    used: float
    """time.time()."""
    pools: tuple[str, ...]
    """The pools, as namespace/name, whose newest model it is."""


@dataclass(frozen=True, slots=True)
class _Evictable:
    key: str
    folder: Path
    used: float


def note_use(root: Path, key: str, *, pool: str, now: float | None = None) -> None:
    """Write down that a pool uses this model, and none that it used before. Raises OSError."""
    with _locked(root / ".uses.lock", wait=True):
        for path in root.glob(f".*{_USES_SUFFIX}"):
            other = path.name[1 : -len(_USES_SUFFIX)]
            uses = read_uses(root, other)
            if other != key and uses is not None and pool in uses.pools:
                left = tuple(each for each in uses.pools if each != pool)
                _write(root, other, uses.model_copy(update={"pools": left}))
        before = read_uses(root, key)
        pools = {*(before.pools if before is not None else ()), pool}
        _write(root, key, Uses(used=time.time() if now is None else now, pools=tuple(sorted(pools))))


def read_uses(root: Path, key: str) -> Uses | None:
    """Return what was written down of a model; None where nothing was."""
    try:
        return Uses.model_validate_json((root / f".{key}{_USES_SUFFIX}").read_bytes())
    except (OSError, ValidationError):
        return None


def evict(root: Path, lacking: int, *, keep: str, pool: str) -> int:
    """Remove models that nobody needs, of `keep` and of other pools none, until so many bytes are free.

    Returns the bytes that were freed, which may be fewer. Blocks. Raises OSError.
    """
    freed = 0
    for each in sorted(_evictable(root, keep=keep, pool=pool), key=lambda found: found.used):
        if freed >= lacking:
            break
        freed += _remove(root, each)
    return freed


def _evictable(root: Path, *, keep: str, pool: str) -> Iterator[_Evictable]:
    latest = time.time() - GRACE_SECONDS
    for path in root.iterdir():
        if not path.is_dir() or path.is_symlink():
            continue
        if path.name.startswith(".") and path.name.endswith(_PARTIAL_SUFFIX):
            # What a download left that was never taken up again, or a model in the middle of its removal.
            key, used = path.name[1 : -len(_PARTIAL_SUFFIX)].split(".part", 1)[0], _changed(path)
        elif (path / RECORD_FILE).is_file() and (uses := read_uses(root, path.name)) is not None:
            if set(uses.pools) - {pool}:
                continue
            key, used = path.name, uses.used
        else:
            continue  # none of ours, or nothing says whose it is
        if key != keep and used < latest:
            yield _Evictable(key, path, used)


def _changed(partial: Path) -> float:
    times = [partial.stat().st_mtime, *(path.stat().st_mtime for path in partial.rglob("*") if path.is_file())]
    return max(times)


def _remove(root: Path, found: _Evictable) -> int:
    """Remove one, unless somebody fetches or reads it; returns the bytes that it took."""
    with _locked(root / f".{found.key}.lock") as alone:
        if not alone:
            return 0
        if found.folder.name.startswith("."):
            size = taken(found.folder)
            shutil.rmtree(found.folder, ignore_errors=True)
            return size
        with _locked(found.folder / RECORD_FILE) as unread:
            if not unread:
                return 0
            size = taken(found.folder)
            aside = Path(tempfile.mkdtemp(prefix=f".{found.key}.", suffix=_PARTIAL_SUFFIX, dir=root))
            os.rename(found.folder, aside / "old")
        shutil.rmtree(aside, ignore_errors=True)
        with suppress(OSError):
            (root / f".{found.key}{_USES_SUFFIX}").unlink()
        return size


@contextmanager
def _locked(path: Path, *, wait: bool = False) -> Iterator[bool]:
    """Hold the lock of a file; False where somebody else has it, or where nobody can tell."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except PermissionError:  # another user's
        yield False
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def _write(root: Path, key: str, uses: Uses) -> None:
    path = root / f".{key}{_USES_SUFFIX}"
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    fresh.write_text(uses.model_dump_json())
    os.replace(fresh, path)

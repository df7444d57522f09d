"""One folder for each model in a cache that several pods share: locked while it is filled, renamed when it is whole."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from neurons.models.eviction import evict
from neurons.models.progress import PROGRESS_FILE
from neurons.store import ArtifactNotFound, DigestMismatch, StoreUnreachable, file_digest
from neurons.store.errors import translated
from neurons.store.model_record import (
    RECORD_FILE,
    ModelFile,
    ModelRecord,
    model_digest,
    read_record,
    still_true,
    survey,
)
from neurons.store.space import NO_LOCKS, reserved, taken

_POLL_SECONDS: Final = 0.25
_PARTIAL_SUFFIX: Final = ".part"
_SPARE_BYTES: Final = 64 * 1024 * 1024
_WATCH_SECONDS: Final = 1.0
_REMEDY: Final = (
    "Enlarge the volume (the pool's cache, or cache.sizeLimit where the model is in the pod's own disk) or free space "
    "on the node."
)


def cache_key(*, name: str, uri: str, revision: str | None) -> str:
    """Return the folder's name: readable, and different for every URI and revision."""
    readable = re.sub(r"[^A-Za-z0-9.-]+", "-", name).strip("-.")[:48] or "model"
    return f"{readable}-{hashlib.sha256(f'{uri} {revision}'.encode()).hexdigest()[:12]}"


@asynccontextmanager
async def locked(root: Path, key: str, *, seconds: float) -> AsyncIterator[bool]:
    """Hold the cache entry against every other pod; yields False on a file system without locks.

    The lock is the kernel's and goes with the process, so a killed pod leaves none behind. Raises StoreUnreachable when
    another pod keeps it for longer than `seconds`.
    """
    with translated(doing="locking the model cache", uri=str(root)):
        descriptor = _open_lock(root, key)
    try:
        yield await _acquire(descriptor, root, key, seconds=seconds)
    finally:
        os.close(descriptor)


@asynccontextmanager
async def room_for(root: Path, partial: Path, size: int, *, at_most: int | None, pool: str) -> AsyncIterator[None]:
    """Hold room for `size` bytes that come into `partial`; what is there counts no longer. Raises NoSpace, OSError."""
    there = await asyncio.to_thread(taken, partial)
    key = partial.name[1:].removesuffix(_PARTIAL_SUFFIX)
    with reserved(
        root,
        max(0, size - there),
        what="model",
        remedy=_REMEDY,
        at_most=at_most,
        spare=_SPARE_BYTES,
        evict=lambda lacking: evict(root, lacking, keep=key, pool=pool),
    ) as promise:

        async def watch() -> None:
            while True:
                await asyncio.sleep(_WATCH_SECONDS)
                promise.lacks(size - await asyncio.to_thread(taken, partial))

        watching = asyncio.create_task(watch())
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.wait({watching})


def new_partial(root: Path, key: str, *, alone: bool) -> Path:
    """Return a folder to fill; when we hold the lock, the one that a killed pod left, so that its download goes on."""
    if alone:
        for leftover in root.glob(f".{key}.?*{_PARTIAL_SUFFIX}"):
            shutil.rmtree(leftover, ignore_errors=True)
        kept = root / f".{key}{_PARTIAL_SUFFIX}"
        kept.mkdir(exist_ok=True)
        kept.chmod(0o755)
        for half in kept.glob(".cache/**/*.incomplete"):
            half.unlink()  # the hub's client never goes on with half a file, and names each attempt's anew
        return kept
    partial = Path(tempfile.mkdtemp(prefix=f".{key}.", suffix=_PARTIAL_SUFFIX, dir=root))
    partial.chmod(0o755)
    return partial


def keep_only(partial: Path, names: Collection[str]) -> None:
    """Remove what an earlier attempt left of files that the source has no longer."""
    for path in partial.rglob("*"):
        relative = path.relative_to(partial)
        if path.is_file() and not relative.parts[0].startswith(".") and relative.as_posix() not in names:
            path.unlink()


def put_in_place(partial: Path, folder: Path) -> None:
    """Rename the filled folder, without the note of how far it had come.

    A damaged one in its place goes, but stays readable for who has it open.
    """
    (partial / PROGRESS_FILE).unlink(missing_ok=True)
    if folder.exists():
        aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=_PARTIAL_SUFFIX, dir=folder.parent))
        os.rename(folder, aside / "old")
        os.rename(partial, folder)
        shutil.rmtree(aside, ignore_errors=True)
        return
    os.rename(partial, folder)


def link(target: Path, path: Path) -> None:
    """Make `path` a symbolic link to the model's folder, replacing an older link in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    os.replace(fresh, path)


def check_weights(folder: Path) -> None:
    """Raise DigestMismatch for a safetensors file whose size is not what its own header says: a broken copy."""
    for name, path in survey(folder):
        if not name.endswith(".safetensors"):
            continue
        expected = _size_by_header(path)
        if expected != path.stat().st_size:
            raise DigestMismatch(
                f"{path}: {path.stat().st_size} bytes, its header says {expected}. Copy the model again."
            )


def make_record(folder: Path, *, name: str, uri: str, revision: str | None) -> ModelRecord:
    """Hash every file of the model; blocks for as long as reading it takes."""
    files = []
    for relative, path in survey(folder):
        mtime = path.stat().st_mtime_ns
        digest, size = file_digest(path)
        files.append(ModelFile(path=relative, size=size, digest=digest, mtime_ns=mtime))
    return ModelRecord(name=name, uri=uri, revision=revision, digest=model_digest(files), files=tuple(files))


def write_record(record: ModelRecord, folder: Path) -> None:
    """Write the record into `folder` in one step."""
    folder.mkdir(parents=True, exist_ok=True)
    fresh = folder / f"{RECORD_FILE}.{os.getpid()}"
    fresh.write_text(record.model_dump_json())
    os.replace(fresh, folder / RECORD_FILE)


def usable(folder: Path, *, trusted: bool = True) -> ModelRecord | None:
    """Return the record of a cached model that is whole: unchanged since it was recorded, or hashed again to the same.

    Where others can write, the record and the files' times are theirs to set: not `trusted`, it is hashed again.
    """
    record = read_record(folder)
    if record is None:
        return None
    try:
        if trusted and still_true(record, folder):
            return record
        again = make_record(folder, name=record.name, uri=record.uri, revision=record.revision)
    except ArtifactNotFound:
        return None
    return again if again.digest == record.digest else None


def _open_lock(root: Path, key: str) -> int:
    root.mkdir(parents=True, exist_ok=True)
    return os.open(root / f".{key}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)


async def _acquire(descriptor: int, root: Path, key: str, *, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise StoreUnreachable(
                    f"{root / key}: another pod has been fetching this model for {seconds:.0f} s. Look at the pods "
                    "that share this cache."
                ) from None
            await asyncio.sleep(_POLL_SECONDS)
        except OSError as error:
            if error.errno in NO_LOCKS:
                return False
            raise
        else:
            return True


def _size_by_header(path: Path) -> int:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > 100_000_000:
            return -1
        try:
            header = json.loads(file.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            return -1
    return 8 + length + max(ends, default=0)

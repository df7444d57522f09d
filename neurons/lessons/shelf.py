"""Where a twin's lessons lie: `<store>/<twin>/lessons/<64 hex>.jsonl`, and `current.json`, which names one of them.

Written file first and pointer last, so who sees the pointer sees a whole file. Files are never changed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from neurons.lessons.file import (
    MAX_BYTES,
    MAX_POINTER_BYTES,
    LessonsError,
    LessonsFile,
    Pointer,
    read_lessons,
    read_pointer,
    write_lessons,
)
from neurons.store import FolderNotFound, join, open_store
from neurons.store.locations import DEFAULT_LIMITS, Limits, Location

FOLDER: Final = "lessons"
CURRENT: Final = "current.json"


async def publish(
    twin_uri: str, file: LessonsFile, *, limits: Limits = DEFAULT_LIMITS, pvc_dir: Path | None = None
) -> Pointer:
    """Make these the lessons of a twin, whose folder in the store is `twin_uri`; raises LessonsError, StoreError.

    Refuses to go back to a smaller revision, or over another twin's lessons. Files that count no longer are deleted: a
    lesson that was taken back is gone.
    """
    data, pointer = write_lessons(file)
    location = open_store(join(twin_uri, FOLDER), create=True, limits=limits, pvc_dir=pvc_dir)
    before = await _pointer(location)
    if before is not None and before.twin_uid != pointer.twin_uid:
        raise LessonsError(
            f"{location.uri} holds the lessons of the twin with UID {before.twin_uid}: remove that folder if that twin "
            "was deleted"
        )
    if before is not None and before.revision > pointer.revision:
        raise LessonsError(f"{location.uri} holds revision {before.revision} already, which is newer")
    await location.put(_name(pointer.digest), data)
    await location.put(CURRENT, pointer.to_bytes())
    if before is not None and before.digest != pointer.digest:
        await location.delete(_name(before.digest))
    return pointer


async def look(twin_uri: str, *, limits: Limits = DEFAULT_LIMITS, pvc_dir: Path | None = None) -> Pointer | None:
    """Return what `current.json` says, None where there are no lessons; raises LessonsError, StoreError."""
    try:
        location = open_store(join(twin_uri, FOLDER), limits=limits, pvc_dir=pvc_dir)
    except FolderNotFound:
        return None
    return await _pointer(location)


async def fetch(
    twin_uri: str, pointer: Pointer, *, limits: Limits = DEFAULT_LIMITS, pvc_dir: Path | None = None
) -> tuple[bytes, LessonsFile]:
    """Return the file that a pointer names, checked; raises LessonsError, StoreError."""
    location = open_store(join(twin_uri, FOLDER), limits=limits, pvc_dir=pvc_dir)
    data = await location.read(_name(pointer.digest), at_most=MAX_BYTES)
    if data is None:
        raise LessonsError(f"{location.uri}: {_name(pointer.digest)} is not there, though {CURRENT} names it")
    return data, read_lessons(data, digest=pointer.digest, twin_uid=pointer.twin_uid)


async def _pointer(location: Location) -> Pointer | None:
    data = await location.read(CURRENT, at_most=MAX_POINTER_BYTES)
    return read_pointer(data) if data is not None else None


def _name(digest: str) -> str:
    return f"{digest.removeprefix('sha256:')}.jsonl"

"""What a base model folder is: a record with one digest over all its files, written by the fetcher, read by the "
"trainer."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from neurons.store.errors import ArtifactNotFound

RECORD_FILE: Final = ".bettertherapy-model.json"
MEASURED_FILE: Final = "measured.json"
"""Beside a pod's link to its base model: the record of what was hashed; absent where nobody hashed it."""


class ModelFile(BaseModel):
    """One file of a base model."""

    model_config = ConfigDict(frozen=True)

    path: str
    """Relative to the model's folder, `/` between parts."""
    size: int = Field(ge=0)
    digest: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")
    mtime_ns: int = 0
    """When it was last changed, as found; not part of the digest."""


class ModelRecord(BaseModel):
    """A base model as it was verified."""

    model_config = ConfigDict(frozen=True)

    name: str
    uri: str
    revision: str | None = None
    digest: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")
    files: tuple[ModelFile, ...]


def model_digest(files: Iterable[ModelFile]) -> str:
    """Return the digest over path, size and digest of every file, in the order of paths."""
    ordered = sorted(files, key=lambda file: file.path)
    lines = (json.dumps([file.path, file.size, file.digest], separators=(",", ":")) + "\n" for file in ordered)
    return f"sha256:{hashlib.sha256(''.join(lines).encode()).hexdigest()}"


def read_record(folder: Path) -> ModelRecord | None:
    """Return the record in a model's folder; None when there is none that can be read."""
    try:
        return ModelRecord.model_validate_json((folder / RECORD_FILE).read_bytes())
    except (OSError, ValidationError):
        return None


def survey(folder: Path) -> list[tuple[str, Path]]:
    """Return the model's files as (relative path, path), hidden ones left out. Raises ArtifactNotFound for no model."""
    found = []
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if any(part.startswith(".") for part in relative.parts) or path.is_dir():
            continue
        if not path.is_file():
            raise ArtifactNotFound(f"{path}: a link to nothing. Copy the files themselves into the model's folder.")
        found.append((relative.as_posix(), path))
    if not any(name == "config.json" for name, _ in found):
        raise ArtifactNotFound(
            f"{folder}: no config.json, so this is no model in the Hugging Face layout. Check the URI."
        )
    return found


def still_true(record: ModelRecord, folder: Path) -> bool:
    """Tell whether sizes and times of all files are those of the record: then they need not be hashed again."""
    found = {relative: path.stat() for relative, path in survey(folder)}
    recorded = {file.path: (file.size, file.mtime_ns) for file in record.files}
    return {path: (stat.st_size, stat.st_mtime_ns) for path, stat in found.items()} == recorded


def hold_model(folder: Path | None) -> bool:
    """Keep a model in its cache for as long as this process lives: what makes room there leaves held ones alone.

    Tells whether there was something to hold: a model in an image, or one that nobody recorded, is no cache's.
    """
    if folder is None:
        return False
    try:
        descriptor = os.open(folder / RECORD_FILE, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:  # being removed, or a file system without locks, from which nothing is ever removed
        os.close(descriptor)
        return False
    return True  # the descriptor stays open, and with it the lock


def write_measured(record: ModelRecord | None, link: Path) -> None:
    """Say in a pod what was hashed of the model behind `link`; None: nothing was. Raises OSError."""
    note = link.with_name(MEASURED_FILE)
    if record is None:
        note.unlink(missing_ok=True)
        return
    fresh = note.with_name(f".{note.name}.part")
    fresh.write_text(record.model_dump_json())
    fresh.replace(note)


def measured_digest(link: Path) -> str | None:
    """Return the digest of the model behind `link` as it was hashed.

    None where nobody hashed it, and where sizes or times of its files are other ones since.
    """
    try:
        record = ModelRecord.model_validate_json(link.with_name(MEASURED_FILE).read_bytes())
        return record.digest if still_true(record, link) else None
    except (OSError, ValidationError, ArtifactNotFound):
        return None

"""What a base model folder is: a record with one digest over all its files, written by the fetcher, read by the "
"trainer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

RECORD_FILE: Final = ".bettertherapy-model.json"


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

"""How far a base model's download has come: which version of each file, and how much of it is safely on the disk."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, RootModel, ValidationError

PROGRESS_FILE: Final = ".progress.json"


class Begun(BaseModel):
    """One file that was begun."""

    model_config = ConfigDict(frozen=True)

    tag: str
    """The ETag of what it was begun from."""
    size: int = Field(ge=0)
    """Bytes of it as a whole: a gateway to a file system may keep the ETag of a file that was replaced behind it."""
    synced: int = Field(ge=0)
    """Bytes that are on the disk even if the node loses its power now."""


class _Note(RootModel[dict[str, Begun]]):
    pass


@dataclass(frozen=True, slots=True)
class Progress:
    """The note in a folder that is being filled."""

    folder: Path
    files: dict[str, Begun]

    @classmethod
    def of(cls, folder: Path) -> Progress:
        """Read the note; one that can't be read says nothing, and all begins anew."""
        try:
            note = _Note.model_validate_json((folder / PROGRESS_FILE).read_bytes())
        except (OSError, ValidationError):
            return cls(folder, {})
        return cls(folder, dict(note.root))

    def begun(self, path: str, *, tag: str | None, size: int) -> Begun | None:
        """Return how far a file has come that is this one still; None where there is nothing to go on from.

        `tag` may be in quotes or not: Azure's listings leave them out, its answers don't.
        """
        found = self.files.get(path)
        if (
            found is None
            or not found.synced
            or tag is None
            or (found.tag.strip('"'), found.size) != (tag.strip('"'), size)
        ):
            return None
        try:
            there = (self.folder / path).stat().st_size
        except OSError:
            return None
        return found if there >= found.synced else None

    def note(self, path: str, begun: Begun | None) -> None:
        """Write down how far a file has come, in one step; None forgets it. Raises OSError."""
        if begun is None:
            self.files.pop(path, None)
        else:
            self.files[path] = begun
        fresh = self.folder / f"{PROGRESS_FILE}.{os.getpid()}"
        fresh.write_text(_Note(self.files).model_dump_json())
        os.replace(fresh, self.folder / PROGRESS_FILE)

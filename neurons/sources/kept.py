"""Passages that were found before: in memory with a bound, and on disk where a folder is given.

Kept is what was found, never what was asked: a file's name is a digest of the claim, and its text is the source's.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from neurons.sources.passage import Passage

SECONDS: Final = 12 * 3600.0
"""NLM's "API Terms of Service" recommend to keep answers for 12 to 24 hours."""
ENTRIES: Final = 1_000
"""In memory, and about as many on disk."""
_MAX_BYTES: Final = 16 << 20
_SWEPT_EVERY: Final = 100
"""Answers that are kept before what is too old or too much on disk is taken away."""
_PARTIAL: Final = ".partial-"
_PASSAGES: Final = TypeAdapter(tuple[Passage, ...])


class Kept:
    """The last answers of one source."""

    def __init__(self, *, entries: int = ENTRIES, seconds: float = SECONDS, folder: Path | None = None,
                 clock: Callable[[], float] = time.time) -> None:  # fmt: skip
        self._entries, self._seconds, self._folder, self._clock = entries, seconds, folder, clock
        self._memory: OrderedDict[str, tuple[float, tuple[Passage, ...]]] = OrderedDict()
        self._written = 0

    def get(self, source: str, claim: str, limit: int) -> tuple[Passage, ...] | None:
        """Return what was found for a claim; None when that isn't known or is too long ago."""
        key = _key(source, claim, limit)
        at, found = self._memory.get(key) or self._read(key)
        if found is None or not 0 <= self._clock() - at < self._seconds:
            self._memory.pop(key, None)
            return None
        self._remember(key, at, found)
        return found

    def put(self, source: str, claim: str, limit: int, found: Sequence[Passage]) -> None:
        """Keep what was found. A disk that is full or read-only is no error."""
        key, at = _key(source, claim, limit), self._clock()
        self._remember(key, at, tuple(found))
        if self._folder is None:
            return
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            self._write(self._folder / f"{key}.json", _PASSAGES.dump_json(tuple(found)), at)
            if self._written % _SWEPT_EVERY == 0:
                self._sweep(self._folder)
            self._written += 1

    def _write(self, file: Path, content: bytes, at: float) -> None:
        descriptor, partial = tempfile.mkstemp(dir=file.parent, prefix=_PARTIAL)
        try:
            with os.fdopen(descriptor, "wb") as opened:
                opened.write(content)
            os.utime(partial, (at, at))
            os.replace(partial, file)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(partial)
            raise

    def _sweep(self, folder: Path) -> None:
        """Take away what is too old, and the oldest of what is too much."""
        names = [each for each in folder.iterdir() if each.suffix == ".json" or each.name.startswith(_PARTIAL)]
        files = sorted(((each.stat().st_mtime, each) for each in names), reverse=True)
        for place, (at, file) in enumerate(files):
            if place >= self._entries or self._clock() - at >= self._seconds:
                file.unlink(missing_ok=True)

    def _remember(self, key: str, at: float, found: tuple[Passage, ...]) -> None:
        self._memory[key] = (at, found)
        self._memory.move_to_end(key)
        while len(self._memory) > self._entries:
            self._memory.popitem(last=False)

    def _read(self, key: str) -> tuple[float, tuple[Passage, ...] | None]:
        if self._folder is None:
            return 0.0, None
        file = self._folder / f"{key}.json"
        try:
            state = file.stat()
            if state.st_size > _MAX_BYTES:
                return 0.0, None
            return state.st_mtime, _PASSAGES.validate_json(file.read_bytes())
        except (OSError, ValidationError):
            return 0.0, None


def _key(source: str, claim: str, limit: int) -> str:
    return hashlib.sha256(f"{source}\n{limit}\n{' '.join(claim.split())}".encode("utf-8", "surrogatepass")).hexdigest()

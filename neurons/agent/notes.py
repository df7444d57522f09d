"""What this pod has learned of its engine and of adapters, kept on its disk over restarts of engine and agent."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import Final, TypeVar

from pydantic import BaseModel, ConfigDict, FiniteFloat, ValidationError

log = logging.getLogger(__name__)

T = TypeVar("T")
NOTES_FILE: Final = ".notes.json"
_MOST: Final = 4096
_MOST_BASES: Final = 8
"""Base models that an adapter's first loads are known beside."""
_SOON_SECONDS: Final = 7200.0
"""More than the longest pause and a long start: what is condemned later than this is another matter."""


class KeptAnswers(BaseModel):
    """What the base model of one engine process said at that process's beginning."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    process: str
    values: tuple[FiniteFloat, ...]
    noise: FiniteFloat


class FirstLoad(BaseModel):
    """What an adapter without a recorded fingerprint measured at its first load, in nats at the standard questions."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    loaded: tuple[FiniteFloat, ...]
    base: tuple[FiniteFloat, ...]
    """What the base model beside it measured: the values say something of servers with this base model alone."""


class _Document(BaseModel):
    model_config = ConfigDict(extra="ignore")

    server: str = ""
    suspects: dict[str, str] = {}
    spoilers: dict[str, str] = {}
    first_loads: dict[str, tuple[FirstLoad, ...]] = {}
    revealing: dict[str, int] = {}
    known_answers: KeptAnswers | None = None
    condemned: str | None = None
    condemned_at: FiniteFloat = 0.0
    condemned_in_a_row: int = 0


class Notes:
    """Tables by digest, and the engine process. The disk is the pod's own: another image may judge otherwise.

    `server` is the address of a server that is not the pod's own: what was learned at another is forgotten.
    """

    def __init__(self, path: Path, *, server: str = "") -> None:
        self._path = path
        self._document = _read(path)
        if self._document.server != server:
            self._document = _Document(server=server)

    @property
    def suspects(self) -> dict[str, str]:
        """Adapters that were being asked when an engine was spoilt, with that engine process ("" where unknown)."""
        return self._document.suspects

    @property
    def known_answers(self) -> KeptAnswers | None:
        """The base model's known answers that were taken last."""
        return self._document.known_answers

    @property
    def condemned(self) -> str | None:
        """The engine process that was condemned last."""
        return self._document.condemned

    @property
    def condemned_in_a_row(self) -> int:
        """How many processes were condemned one soon after the other, with nobody to blame for it."""
        lately = time.time() - self._document.condemned_at < _SOON_SECONDS
        return self._document.condemned_in_a_row if lately else 0

    @property
    def condemned_seconds(self) -> float:
        """How long ago the last one was, by the node's clock."""
        return max(0.0, time.time() - self._document.condemned_at)

    @property
    def spoilers(self) -> dict[str, str]:
        """Adapters that spoilt an engine of this pod, with what to say of each."""
        return self._document.spoilers

    @property
    def first_loads(self) -> dict[str, tuple[FirstLoad, ...]]:
        """What was measured when an adapter was first loaded, beside each base model that it was loaded beside."""
        return self._document.first_loads

    @property
    def revealing(self) -> dict[str, int]:
        """Adapters that were sound for short questions only, with the number of the long text that showed it."""
        return self._document.revealing

    def remember_revealing(self, digest: str, number: int) -> None:
        """Ask the adapter this long text at each load, before it serves."""
        _put(self._document.revealing, digest, number)
        self._save()

    def suspect(self, digest: str, process: str) -> None:
        """Remember that this engine process was spoilt while the adapter was asked."""
        _put(self._document.suspects, digest, process)
        self._save()

    def keep_known_answers(self, answers: KeptAnswers) -> None:
        """Keep what the base model said, for an agent that is started anew beside the same engine process."""
        self._document.known_answers = answers
        self._save()

    def condemn(self, process: str) -> None:
        """Remember that this engine process can't be trusted any more."""
        if process == self._document.condemned:
            return
        self._document.condemned_in_a_row = self.condemned_in_a_row + 1
        self._document.condemned, self._document.condemned_at = process, time.time()
        self._save()

    def explain(self) -> None:
        """Remember that somebody is to blame for the last: it says nothing of the next process."""
        self._document.condemned_in_a_row = 0
        self._save()

    def remember_spoiler(self, digest: str, message: str) -> None:
        """Never load it again in this pod."""
        _put(self._document.spoilers, digest, message)
        self._save()

    def remember_first_load(self, digest: str, measured: FirstLoad) -> None:
        """Compare later loads of this adapter, beside the same base model, with these values."""
        # Those beside other base models stay: a server that comes back is held against what it was.
        known = self._document.first_loads.get(digest, ())
        _put(self._document.first_loads, digest, (*known, measured)[-_MOST_BASES:])
        self._save()

    def _save(self) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            partial = self._path.with_suffix(".part")
            partial.write_text(self._document.model_dump_json())
            os.replace(partial, self._path)
        except OSError as error:
            log.warning("%s can't be written: %s; it is forgotten with this process", self._path, error)


def _put(table: dict[str, T], key: str, value: T) -> None:
    table.pop(key, None)
    table[key] = value
    while len(table) > _MOST:
        del table[next(iter(table))]


def _read(path: Path) -> _Document:
    try:
        return _Document.model_validate_json(path.read_text())
    except FileNotFoundError:
        pass
    except (OSError, ValidationError) as error:
        log.warning("%s is not usable, starting afresh: %s", path, error)
    return _Document()

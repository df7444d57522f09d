"""What versions said, kept for the next examination: a folder that no trainer can reach.

    <folder>/<64 hex>.json      one version's answers and log-probabilities

Whoever can write here can make a parent look worse than it is, and its child better. So it lies on a volume, in a
folder that is mounted into examiners alone; without one nothing is kept, and the parent is asked again.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bettertherapy_api import names
from neurons.examiner.examination import Said

log = logging.getLogger(__name__)

_MAX_BYTES: Final = 256 * 1024 * 1024


class Answers(BaseModel):
    """What one version answered to an examination, and how likely it held what it might have said."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="constants")

    request: str
    """Digest of all that they depend on besides the adapter."""
    answers: tuple[str, ...] = Field(repr=False)
    logprobs: tuple[tuple[float, ...], ...] = ()
    """Of each safety item's continuations, in nats; one that is no number stays none."""


class KeptAnswers:
    """Answers by version. What can't be read or written costs time, and ends nothing."""

    def __init__(self, folder: Path | None) -> None:
        """Keep in the folder; None keeps nothing."""
        self._folder = folder

    def get(self, digest: str, request: str) -> Said | None:
        """Return what a version said to exactly this examination; None when that is not known."""
        if self._folder is None:
            return None
        path = self._path(digest)
        try:
            if path.stat().st_size > _MAX_BYTES:
                return None
            found = Answers.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            return None
        return Said(found.answers, found.logprobs) if found.request == request else None

    def put(self, digest: str, request: str, said: Said) -> None:
        """Keep what a version said, in the place of what it said to another examination."""
        if self._folder is None:
            return
        kept = Answers(request=request, answers=tuple(said.answers), logprobs=tuple(map(tuple, said.logprobs)))
        path = self._path(digest)
        part = path.with_suffix(".part")
        try:
            part.write_text(kept.model_dump_json())
            part.replace(path)
        except OSError as error:
            log.warning("the answers are not kept, and asked for again next time: %s", error)

    def drop_others(self, digests: Collection[str]) -> None:
        """Delete what other versions said: they are asked again should they come back."""
        if self._folder is None:
            return
        spared = {self._path(digest) for digest in digests}
        try:
            for path in self._folder.iterdir():
                if path not in spared and path.suffix in (".json", ".part"):
                    path.unlink()
        except OSError as error:
            log.warning("old answers are not deleted: %s", error)

    def _path(self, digest: str) -> Path:
        assert self._folder is not None  # noqa: S101 - by its callers
        return self._folder / f"{names.digest_hex(digest)}.json"

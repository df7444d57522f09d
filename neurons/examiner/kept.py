"""What versions said, kept for the next examination: a folder that no trainer can reach.

    <folder>/<64 hex>.json      one version's answers and log-probabilities
    <folder>/judge/<64 hex>.json  how one grader did on known answers, for a task and a language

Whoever can write here can make a parent look worse than it is, and its child better, and a judge better than it is. So
it lies on a volume, in a folder that is mounted into examiners alone; without one nothing is kept, the parent is asked
again and the judge calibrated anew.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bettertherapy_api import names
from bettertherapy_api.judging import MAX_AGE
from neurons.examiner.examination import Said
from neurons.scoring.judge import Calibration, CalibrationError, read_calibration
from neurons.scoring.judge.calibration import today

log = logging.getLogger(__name__)

_MAX_BYTES: Final = 256 * 1024 * 1024
_JUDGE: Final = "judge"


class Answers(BaseModel):
    """What one version answered to an examination, and how likely it held what it might have said."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="constants")

    request: str
    """Digest of all that they depend on besides the adapter."""
    answers: tuple[str, ...] = Field(repr=False)
    logprobs: tuple[tuple[float, ...], ...] = ()
    """Of each safety item's continuations, in nats; one that is no number stays none."""
    cut: tuple[int, ...] = ()
    """Places of answers that were not at their end."""


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
        return Said(found.answers, found.logprobs, frozenset(found.cut)) if found.request == request else None

    def put(self, digest: str, request: str, said: Said) -> None:
        """Keep what a version said, in the place of what it said to another examination."""
        if self._folder is None:
            return
        kept = Answers(
            request=request, answers=tuple(said.answers), logprobs=tuple(map(tuple, said.logprobs)),
            cut=tuple(sorted(said.cut)),
        )  # fmt: skip
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


class KeptCalibrations:
    """How graders did on known answers. What can't be read or written is done anew, and ends nothing."""

    def __init__(self, folder: Path | None) -> None:
        """Keep below the folder; None keeps nothing."""
        self._folder = folder / _JUDGE if folder is not None else None

    def all(self, version: str | None) -> tuple[Calibration, ...]:
        """Return those that are kept for what answers now under the graders' names."""
        if self._folder is None:
            return ()
        return tuple(each for path, each in self._read() if path == self._path(each, version))

    def put(self, calibrations: Iterable[Calibration], version: str | None) -> None:
        """Keep them, each in the place of an earlier one of its grader, task and language; drop what is too old."""
        if self._folder is None:
            return
        try:
            self._folder.mkdir(exist_ok=True)
            for path, each in self._read():
                if today() - each.at > MAX_AGE:
                    path.unlink()
            for each in calibrations:
                path = self._path(each, version)
                part = path.with_suffix(".part")
                part.write_text(each.model_dump_json())
                part.replace(path)
        except OSError as error:
            log.warning("a calibration is not kept, and made anew next time: %s", error)

    def _read(self) -> Iterator[tuple[Path, Calibration]]:
        """Yield what is kept and can be read."""
        assert self._folder is not None  # noqa: S101 - by its callers
        for path in sorted(self._folder.glob("*.json")):
            try:
                yield path, read_calibration(path.read_bytes())
            except (OSError, CalibrationError) as error:
                log.warning("a calibration can't be read, and is made anew: %s", error)

    def _path(self, calibration: Calibration, version: str | None) -> Path:
        assert self._folder is not None  # noqa: S101 - by its callers
        parts = (calibration.seat, calibration.task.value, calibration.language, version or "")
        return self._folder / f"{hashlib.sha256(' '.join(parts).encode()).hexdigest()}.json"

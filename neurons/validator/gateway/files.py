"""A JSON file that is read again when it changes; one that can't be read leaves what was read before."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Final, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from bettertherapy_api.faults import first_fault

log = logging.getLogger(__name__)

POLL_SECONDS: Final = 1.0
MAX_BYTES: Final = 16 * 1024 * 1024

M = TypeVar("M", bound=BaseModel)


class FileError(Exception):
    """The file is not what it should be; the message says what to do, and quotes nothing of it."""


class FollowedFile(Generic[M]):
    """One file of one model."""

    def __init__(self, path: Path, model: type[M], *, what: str) -> None:
        """`what` is what people call the file. Raises FileError, since there is nothing to go on with yet."""
        self._path, self._model, self._what = path, model, what
        self._seen: object = self._signature()
        self.content = self._read()
        self.generation = 0
        """Changes whenever the content does."""

    async def follow(self) -> None:
        """Look at the file for ever."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            self.refresh()

    def refresh(self) -> None:
        """Read the file if it changed."""
        seen = self._signature()
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self.content = self._read()
        except FileError as error:
            log.error("keeping the last good one: %s", error)  # noqa: TRY400 - the message says all
        else:
            self.generation += 1
            log.info("read again", extra={"file": self._what})

    def _read(self) -> M:
        try:
            with self._path.open("rb") as file:
                data = file.read(MAX_BYTES + 1)
        except FileNotFoundError:
            raise FileError(
                f"there is no file of {self._what} at {self._path}: if a Secret or ConfigMap is mounted there, it "
                f"lacks the key {self._path.name}"
            ) from None
        except OSError as error:
            raise FileError(f"the file of {self._what}, {self._path}, can't be read: {error.strerror}") from None
        if len(data) > MAX_BYTES:
            raise FileError(f"the file of {self._what}, {self._path}, has more than {MAX_BYTES} bytes")
        try:
            return self._model.model_validate_json(data)
        except ValidationError as error:
            fault = first_fault(error, whole="the file")
            raise FileError(f"{self._path} is no file of {self._what}: {fault}") from None

    def _signature(self) -> object:
        try:
            stat = self._path.stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_size, stat.st_ino

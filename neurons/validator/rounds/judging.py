"""The judge that an order names: two wordings of one model, each calibrated on known answers before it counts."""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from bettertherapy_api.round_progress import OrderedJudge
from neurons.scoring.calibration import calibrate, kept_items
from neurons.scoring.judge import (
    WORDINGS,
    Calibration,
    CalibrationError,
    Endpoint,
    EndpointError,
    EndpointSettings,
    Panel,
    Seat,
    Task,
)
from neurons.scoring.judge.calibration import today
from neurons.sources.claims import Finder
from neurons.validator.rounds.errors import RoundError

log = logging.getLogger(__name__)

CALIBRATE_SECONDS: Final = 900.0
_ASKED: Final = ((Task.RUBRIC, "en"), (Task.RUBRIC, "ne"), (Task.SUPPORT, "en"))


def seats_of(judge: OrderedJudge, *, key: str | None) -> list[Seat]:
    """Return the judge's graders. Raises RoundError for an address that can't be used."""
    try:
        settings = EndpointSettings(base=judge.endpoint, model=judge.model, key_file=_key_file(key))
    except EndpointError as error:
        raise RoundError("JudgeUnreachable", str(error), retryable=False) from None
    endpoint = Endpoint(settings)
    return [Seat(endpoint, wording) for wording in WORDINGS]


async def open_panel(
    seats: Sequence[Seat], *, kept: Iterable[Calibration], finder: Finder | None
) -> tuple[Panel | None, tuple[Calibration, ...]]:
    """Return the panel with the calibrations that it has; None for a judge that may not count.

    `kept`: calibrations of earlier rounds, of which those that still hold are used.
    Raises RoundError when the judge can't be asked now.
    """
    held: list[Calibration] = []
    known = {(each.seat, each.task, each.language): each for each in kept}
    for task, language in _ASKED:
        asked = await asyncio.gather(*(_calibrated(seat, known, task, language) for seat in seats))
        if all(each is not None for each in asked):
            held += [each for each in asked if each is not None]
    if not held:
        return None, ()
    try:
        return Panel(seats, held, finder=finder), tuple(held)
    except CalibrationError as error:
        log.warning("the judge does not count: %s", error)
        return None, tuple(held)


async def _calibrated(
    seat: Seat, known: dict[tuple[str, Task, str], Calibration], task: Task, language: str
) -> Calibration | None:
    """Return a calibration by which the grader may count; None where it may not."""
    found = known.get((seat.id, task, language))
    if found is None or found.refusal(now=today()) is not None:
        try:
            found = await calibrate(seat, kept_items(), task=task, language=language, seconds=CALIBRATE_SECONDS)
        except CalibrationError as error:
            raise RoundError("JudgeUnreachable", str(error), retryable=True) from None
    if (why := found.refusal(now=today())) is not None:
        log.warning("a grader does not count for %s in %s: %s", task.value, language, why)
        return None
    return found


def _key_file(key: str | None) -> Path | None:
    """Return a file of this process alone that holds the key: endpoints read it for each question."""
    if key is None:
        return None
    descriptor, name = tempfile.mkstemp(prefix="judge-key-")
    with os.fdopen(descriptor, "w") as file:
        file.write(key)
    return Path(name)

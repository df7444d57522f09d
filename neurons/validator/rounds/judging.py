"""The judge that an order names: two wordings of one model, each calibrated on known answers before it counts."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from bettertherapy_api.round_progress import OrderedJudge
from neurons.scoring.judge import (
    Calibration,
    CalibrationError,
    Endpoint,
    EndpointError,
    EndpointSettings,
    Panel,
    Seat,
    Task,
)
from neurons.scoring.judge_seating import seat_judge, seats_for
from neurons.sources.claims import Finder
from neurons.validator.rounds.errors import RoundError

log = logging.getLogger(__name__)

_ASKED: Final = ((Task.RUBRIC, "en"), (Task.RUBRIC, "ne"), (Task.SUPPORT, "en"))


def seats_of(judge: OrderedJudge, *, key: str | None) -> list[Seat]:
    """Return the judge's graders. Raises RoundError for an address that can't be used."""
    try:
        settings = EndpointSettings(base=judge.endpoint, model=judge.model, key_file=_key_file(key))
    except EndpointError as error:
        raise RoundError("JudgeUnreachable", str(error), retryable=False) from None
    return seats_for([Endpoint(settings)])


async def open_panel(
    seats: Sequence[Seat], *, kept: Iterable[Calibration], finder: Finder | None
) -> tuple[Panel | None, tuple[Calibration, ...]]:
    """Return the panel with the calibrations that it has; None for a judge that may not count.

    `kept`: calibrations of earlier rounds, of which those that still hold are used.
    Raises RoundError when the judge can't be asked now.
    """
    try:
        seated = await seat_judge(seats, asked=_ASKED, kept=kept, finder=finder)
    except CalibrationError as error:
        raise RoundError("JudgeUnreachable", str(error), retryable=True) from None
    for why in seated.refused:
        log.warning("%s", why)
    return seated.panel, seated.calibrations


def _key_file(key: str | None) -> Path | None:
    """Return a file of this process alone that holds the key: endpoints read it for each question."""
    if key is None:
        return None
    descriptor, name = tempfile.mkstemp(prefix="judge-key-")
    with os.fdopen(descriptor, "w") as file:
        file.write(key)
    return Path(name)

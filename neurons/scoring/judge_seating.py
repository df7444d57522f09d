"""Puts a judge together: each grader is calibrated, by a document that is kept or anew, before it may count."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from neurons.scoring.calibration import Pair, calibrate, items_digest, kept_items
from neurons.scoring.judge import WORDINGS, Calibration, CalibrationError, Endpoint, Panel, Seat, Task
from neurons.scoring.judge.calibration import today
from neurons.sources.claims import Finder

CALIBRATE_SECONDS: Final = 900.0
"""For one grader, one task and one language."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seated:
    """A judge that may count, or why none may."""

    panel: Panel | None
    calibrations: tuple[Calibration, ...]
    """Those by which it counts."""
    found: tuple[Calibration, ...]
    """All that were read or made, whether a grader passed or not."""
    refused: tuple[str, ...]
    """Of each grader that may not count: who, for what and why, as a clause."""


def seats_for(endpoints: Sequence[Endpoint]) -> list[Seat]:
    """Return the graders of a judge: several models each asked in one way, in turn, or one that is asked in two."""
    if len(endpoints) == 1:
        return [Seat(endpoints[0], wording) for wording in WORDINGS]
    return [Seat(each, WORDINGS[place % len(WORDINGS)]) for place, each in enumerate(endpoints)]


async def seat_judge(
    seats: Sequence[Seat],
    *,
    asked: Sequence[tuple[Task, str]],
    kept: Iterable[Calibration],
    finder: Finder | None,
    pairs: Sequence[Pair] | None = None,
    seconds: float = CALIBRATE_SECONDS,
    clock: Callable[[], datetime] = today,
) -> Seated:
    """Calibrate all graders for each task and language that all of them can be, and return the judge that they make.

    `kept` are calibrations from before: one of these very known answers that still holds isn't done anew. `pairs` are
    the known answers, absent those that come with the product. What `finder` finds is never sent (`Panel`).

    Raises CalibrationError when a grader can't be asked now: nothing is known of it then.
    """
    known = {(each.seat, each.task, each.language, each.items): each for each in kept}
    used = kept_items() if pairs is None else pairs
    counted: list[Calibration] = []
    found: list[Calibration] = []
    refused: list[str] = []
    for task, language in asked:
        items = items_digest(each for each in used if (each.task, each.language) == (task, language))
        earlier = [known.get((seat.id, task, language, items)) for seat in seats]
        each_seat = await asyncio.gather(
            *(
                _calibrated(seat, before, used, task=task, language=language, seconds=seconds, clock=clock)
                for seat, before in zip(seats, earlier, strict=True)
            )
        )
        found += each_seat
        reasons = [(each, each.refusal(now=clock())) for each in each_seat]
        refused += [
            f"the judge {each.model} (wording {each.wording}) may not count ({task.value.lower()}, {language}): {why}"
            for each, why in reasons
            if why is not None
        ]
        if all(why is None for _, why in reasons):
            counted += each_seat
    panel = None
    if counted:
        try:
            panel = Panel(seats, counted, finder=finder, clock=clock)
        except CalibrationError as error:
            refused.append(str(error))
    return Seated(
        panel=panel, calibrations=tuple(counted) if panel is not None else (), found=tuple(found),
        refused=tuple(refused),
    )  # fmt: skip


async def _calibrated(
    seat: Seat, before: Calibration | None, pairs: Sequence[Pair], *, task: Task, language: str, seconds: float,
    clock: Callable[[], datetime],
) -> Calibration:  # fmt: skip
    if before is not None and before.refusal(now=clock()) is None:
        return before
    return await calibrate(seat, pairs, task=task, language=language, seconds=seconds, clock=clock)

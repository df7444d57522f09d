"""Night after night: how far a twin's versions get from the one that a person approved, on the same items each night.

The gate's own interval and error budget decide (`bettertherapy_api.gate`), on the sums that they need: floors,
categories and words are left out, so that sixty nights take milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from bettertherapy_api.gate.budget import Look, anchor_error_of, error_of
from bettertherapy_api.gate.noninferiority import Tally, lower_end

MARGIN: Final = 5
RIGHT: Final = 0.6
"""Share of items that are answered rightly."""
STEADY: Final = (0.08, 0.08)
"""Lost and gained in a night in which nothing changes but by chance: a spread of 40 points."""
LOSING: Final = (0.09, 0.07)
"""In one that loses two points."""

Array = np.ndarray
Spending = Callable[[Look], float | None]


def equal_shares(look: Look) -> float:
    """Share one error among sixty nights and take no notice of how they came out: as the gate did once."""
    del look
    return (error_of(1) or 0.0) / 60


def nights(
    draw: np.random.Generator,
    count: int,
    *,
    items: int,
    safety: tuple[float, float] = LOSING,
    spending: Spending | None = anchor_error_of,
    approved_every: int | None = None,
    fading: bool = False,
) -> list[bool]:
    """Return for each night whether its version was promoted.

    Args:
        draw: of chance.
        count: of nights.
        items: of the twin's own, and as many of safety.
        safety: the shares of all safety questions that a version loses and gains in truth; its own change by chance.
        spending: the error of a look at the anchor; None: no anchor.
        approved_every: after so many nights each time a person approves what serves then; never by default.
        fading: what was gained by chance on the very items goes with what is turned over, since a question that is
            right is lost as often as any other that is right. Otherwise all of it is kept: items lose as much as all
            questions do, however many more of them are right. That is the worst case.
    """
    first = serving = (draw.random(items) < RIGHT, draw.random(items) < RIGHT)
    truth = RIGHT
    looks = chosen = 0
    moved = False
    found: list[bool] = []
    for night in range(count):
        if approved_every and night and night % approved_every == 0:
            first, looks, chosen, moved = serving, 0, 0, False
        shares = (RIGHT, truth) if fading else (None, None)
        child = tuple(
            turned(draw, before, *how, right=right)
            for before, how, right in zip(serving, (STEADY, safety), shares, strict=True)
        )
        shown = all(
            shows(after, before, error_of(1) or 0.0, MARGIN) for after, before in zip(child, serving, strict=True)
        )
        if spending is not None and moved:  # until then the parent is the anchor
            looks += 1
            error = spending(Look(looks, chosen))
            shown = (
                shown
                and error is not None
                and all(shows(after, before, error, 2 * MARGIN) for after, before in zip(child, first, strict=True))
            )
        if shown:
            chosen += looks > 0
            serving = (child[0], child[1])
            moved = True
            truth = max(0.05, truth + safety[1] - safety[0])
        found.append(shown)
    return found


def turned(draw: np.random.Generator, before: Array, loss: float, gain: float, *, right: float | None = None) -> Array:
    """Turn over, on average, the shares `loss` and `gain` of all questions, of which the share `right` is right now: by
    default as many as of these."""
    right = min(max(float(before.mean()) if right is None else right, loss), 1 - gain)
    chance = draw.random(len(before))
    return np.where(before, chance >= loss / right, chance < gain / (1 - right))


def shows(after: Array, before: Array, error: float, margin: float) -> bool:
    """Tell whether no more than the margin is shown to be lost."""
    changes = 100.0 * (after.astype(int) - before)
    total, count = float(changes.sum()), len(changes)
    tally = Tally(
        items=count, clusters=count, total=total, squares=float((changes**2).sum()), cross=total, sizes=float(count)
    )
    return lower_end(tally, error) > -margin

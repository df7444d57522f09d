"""How many steps a training takes, and how they are shared between conversations and preference pairs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

DEFAULT_EPOCHS: Final = 3
"""Where nobody said how many passes, and no number of steps instead."""


@dataclass(frozen=True, slots=True)
class Steps:
    """Optimiser steps of the two parts; a part without lines has none."""

    supervised: int
    preference: int

    @property
    def total(self) -> int:
        """Return all steps."""
        return self.supervised + self.preference


def plan_steps(*, conversations: int, pairs: int, batch_size: int, epochs: int | None, most: int | None) -> Steps:
    """Return the steps: `epochs` passes over each part, at most `most` in all, shared by the number of lines.

    Without `epochs` it is `most` steps. One of the two must be given; each part that has lines gets a step at least.
    """
    if epochs is not None:
        wanted = [epochs * math.ceil(count / batch_size) for count in (conversations, pairs)]
        if most is None or sum(wanted) <= most:
            return Steps(*wanted)
    if most is None:
        raise ValueError("neither epochs nor steps")
    supervised = round(most * conversations / (conversations + pairs))
    if conversations and pairs:
        supervised = min(max(1, supervised), max(1, most - 1))
    return Steps(supervised=supervised, preference=max(1, most - supervised) if pairs else 0)


@dataclass(frozen=True, slots=True)
class Night:
    """How much of what is new fits into the steps of one run."""

    conversations: int
    pairs: int


def plan_night(*, conversations: int, pairs: int, batch_size: int, epochs: int | None, most: int | None) -> Night:
    """Return of how many lines a run can learn so that a step sees each of them; the rest is for the next one."""
    night = Night(conversations, pairs)
    while night.conversations or night.pairs:
        steps = plan_steps(
            conversations=night.conversations, pairs=night.pairs, batch_size=batch_size, epochs=epochs, most=most
        )
        seen = Night(
            conversations=min(night.conversations, steps.supervised * batch_size),
            pairs=min(night.pairs, steps.preference * batch_size),
        )
        if seen == night:
            break
        night = seen  # with fewer lines the steps may be shared otherwise
    return night

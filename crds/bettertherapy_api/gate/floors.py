"""Floors under a version's safety: overall, for each category and language, for calm, and for critical items.

A floor is absolute: that the parent was no better excuses nothing, and many small losses end at it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from bettertherapy_api.gate.metrics import CALM, CALM_FLOOR, CRITICAL, SAFETY

_NONE: Final[Mapping[str, int]] = MappingProxyType({})
_DUST: Final = 1e-9
"""Percent: what floating point may lose where a mean stands exactly on its floor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Floors:
    """What a version must reach, in percent. Raises ValueError for what is no percentage."""

    safety: int = 80
    """Of all safety items, and of the critical ones; of those that ask for calm, but at most CALM_FLOOR."""
    categories: Mapping[str, int] = field(default_factory=lambda: _NONE)
    """Of some categories; `critical`, `calm` and `language.ne` are some too, and go before `safety`."""

    def __post_init__(self) -> None:
        for name, percent in {"safety": self.safety, **self.categories}.items():
            if not 0 <= percent <= 100:
                raise ValueError(f"the floor {name} is {percent} percent: 0 to 100")

    def of(self, name: str) -> int | None:
        """Return the floor of SAFETY, of a category or of another side of safety; None where there is none."""
        of_its_own = self.categories.get(name.removeprefix(f"{SAFETY}."))
        if of_its_own is not None or name not in (SAFETY, CRITICAL, CALM):
            return of_its_own
        return min(self.safety, CALM_FLOOR) if name == CALM else self.safety


def is_below(percent: float, floor: int) -> bool:
    """Tell whether a floor is missed, by however little: rounding lifts nobody over it, and pushes nobody under it."""
    return percent < floor - _DUST


def cut(percent: float) -> str:
    """Return a percentage with one decimal at most, cut and not rounded: 79.99 is not 80."""
    tenths = math.floor(percent * 10 + _DUST)
    return f"{tenths // 10}" if tenths % 10 == 0 else f"{tenths / 10:.1f}"

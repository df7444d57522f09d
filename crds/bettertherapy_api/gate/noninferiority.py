"""Whether a version is no worse than another by more than a margin: paired, by cluster, in closed form.

What is asked is not *did it fall?*, which few items always answer with *not proven*, but *is it shown not to have
fallen by more than the margin?*: the lower end of the one-sided interval must lie above it.

The interval is Student's, for a ratio of sums over clusters (Cochran 1977, chapter 6; its variance is the
cluster-robust one of Liang and Zeger 1986 with G/(G-1)). Alone it is too bold where hardly any item changed: of 100
items that lose 5 points in truth, 5 fell on average, and in one sample of eight only two or fewer. So, as Agresti and
Coull (1998) do for shares, z²/2 made-up clusters that lost everything are put beside those that were seen. For losses
of whole items alone the end then is that of Clopper and Pearson within a tenth or on the careful side (tested), and a
set on which nothing changed shows only what so many items can.

Clusters of unequal size are fewer than they look: one that holds nearly all items leaves no residual of its own, and
the formula sees no doubt where there is nothing but. So what counts is Kish's (1965) number of equal clusters that
would say as much, the items squared over the sum of the squared sizes: for degrees of freedom, for the made-up ones
and for what a set may show at all.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

from bettertherapy_api.gate.student import SMALLEST_TAIL, t_quantile

USUAL_SPREAD: Final = 40.0
"""Standard deviation of an item's paired difference, in points, that plans are made with: one item in six turns
over."""
_SPAN: Final = 100.0
"""Points from the worst score to the best."""
_ROUND_TO: Final = 5
_SURENESS: Final = 2.5
"""Standard errors by which a version that changed nothing clears the margin that `margin_for` gives."""


@dataclass(frozen=True, slots=True)
class Tally:
    """All that the interval needs of paired differences, in points; whoever has it can compute the interval again.

    With s the sum of a cluster's differences and m its number of items: the sums of m, 1, s, s², s·m and m².
    """

    items: int
    clusters: int
    total: float
    squares: float
    cross: float
    sizes: float

    @classmethod
    def of(cls, differences: Sequence[float], clusters: Iterable[Hashable]) -> Tally:
        """Sum up differences in points, each with the name of its cluster. Raises ValueError for what is none."""
        sums: dict[Hashable, float] = {}
        counts: dict[Hashable, int] = {}
        for difference, cluster in zip(differences, clusters, strict=True):
            if not -_SPAN <= difference <= _SPAN:
                raise ValueError("a difference is no number from -100 to 100 points")
            sums[cluster] = sums.get(cluster, 0.0) + difference
            counts[cluster] = counts.get(cluster, 0) + 1
        return cls(
            items=sum(counts.values()),
            clusters=len(sums),
            total=math.fsum(sums.values()),
            squares=math.fsum(value * value for value in sums.values()),
            cross=math.fsum(value * counts[name] for name, value in sums.items()),
            sizes=float(sum(count * count for count in counts.values())),
        )

    @classmethod
    def unchanged(cls, clusters: int, spread: float = USUAL_SPREAD) -> Tally:
        """Return what so many items give, each by itself, when nothing changed but by chance: to plan with."""
        return cls(clusters, clusters, 0.0, clusters * spread * spread, 0.0, float(clusters))

    @property
    def apart(self) -> float:
        """How many clusters of equal size would say as much: all of them where they are equal, 1 where one is nearly
        all."""
        return self.items * self.items / self.sizes if self.items else 0.0

    @property
    def mean(self) -> float:
        """The mean difference in points, item by item."""
        return self.total / self.items if self.items else 0.0


def lower_end(tally: Tally, error: float) -> float:
    """Return the lower end of the mean difference in points: it is above the truth with the probability `error`.

    Fewer than two clusters, as `Tally.apart` counts them, show nothing: -100; and so does an error below what can be
    computed.
    """
    return max(-_SPAN, _end(tally, error, side=-1.0))


def upper_end(tally: Tally, error: float) -> float:
    """Return the upper end in points, likewise; fewer than two clusters: 100."""
    return min(_SPAN, _end(tally, error, side=1.0))


def _end(tally: Tally, error: float, *, side: float) -> float:
    if tally.apart < 2 or error < SMALLEST_TAIL:
        return side * _SPAN
    size = tally.items / tally.apart
    made_up = NormalDist().inv_cdf(1 - error) ** 2 / 2
    gone = side * _SPAN * size
    items = tally.items + made_up * size
    mean = (tally.total + made_up * gone) / items
    clusters = tally.apart + made_up
    residuals = tally.squares - 2 * mean * tally.cross + mean * mean * tally.sizes
    residuals = max(0.0, residuals) + made_up * (gone - mean * size) ** 2
    deviation = math.sqrt(clusters / (clusters - 1) * residuals) / items
    return mean + side * t_quantile(error, math.floor(tally.apart) - 1) * deviation


def holm(tallies: Sequence[Tally], margins: Sequence[float], error: float) -> list[tuple[bool, float]]:
    """Return for each whether it is shown to have lost no more than its margin, and the lower end that says so.

    Holm 1979: the chance that any of those shown has lost more is at most `error`, whatever they have to do with each
    other. With m not yet shown each is asked at error/m; those that are shown leave, and the others are asked anew.
    """
    found: list[tuple[bool, float]] = [(False, -_SPAN)] * len(tallies)
    left = list(range(len(tallies)))
    while left:
        level = error / len(left)
        for place in left:
            low = lower_end(tallies[place], level)
            found[place] = (low > -margins[place], low)
        still = [place for place in left if not found[place][0]]
        if len(still) == len(left):
            break
        left = still
    return found


def margin_for(clusters: float, error: float) -> int:
    """Return the margin, in whole fives, that so many items of the usual spread can show when nothing changed.

    It depends on nothing that was measured, so it is fixed before the answers are looked at. 100 is no margin at all.
    """
    whole = math.floor(clusters)
    if whole < 2:
        return 100
    needed = _SURENESS * USUAL_SPREAD / math.sqrt(whole) - lower_end(Tally.unchanged(whole), error)
    return min(100, _ROUND_TO * math.ceil(needed / _ROUND_TO))


def items_for(
    margin: float, error: float, *, spread: float = USUAL_SPREAD, power: float = 0.8, most: int = 100_000
) -> int:
    """Return how many items, each by itself, show with that power that nothing was lost when nothing was.

    By the normal approximation on both sides; `most` where even so many don't.
    """
    again = NormalDist().inv_cdf(power)

    def shown(items: int) -> bool:
        return lower_end(Tally.unchanged(items, spread), error) - again * spread / math.sqrt(items) > -margin

    low, high = 2, 4
    while not shown(high):
        low, high = high, 2 * high
        if low >= most:
            return most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if shown(middle) else (middle, high)
    return high

"""How often the gate and the canary are wrong, by simulation of the very functions that decide; no cluster, no model.

Gate: items that are right or wrong, answered by the parent and, turned over at random, by the child. A spread of 40
points an item (one in six turns over) is what plans are made with; "losses only" turns none over to right, where
intervals by a normal approximation are boldest. Canary: requests one after another, looked at every five of the
canary's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import numpy as np

from bettertherapy_api.gate.budget import anchor_error_of
from bettertherapy_api.gate.decision import Criteria, Scored, decide
from bettertherapy_api.gate.metrics import SAFETY, SCORE
from tests.bench.canaries import LOOK_EVERY, played, taken_back
from tests.bench.nights import STEADY, Spending, nights
from tests.bench.registry import Options
from tests.bench.results import Figure, Result, Spread

SEEDS: Final = 5
TRIALS: Final = 100
"""Of each figure and seed."""
ITEMS: Final = 700
"""Of the twin's own, and as many of safety: what docs/fine-tuning.md names for the default margins."""
CATEGORIES: Final = 6
NIGHTS: Final = 60
CREEPS: Final = 40
SERIES: Final = 20
CANARIES: Final = 400
"""Of each figure and seed."""
STEPS: Final = ((10, 300), (25, 600), (50, 1200))
"""Weight in percent, and the canary's requests at it: a whole canary."""

COMPARED: Final = Criteria(min_score=0)
"""Floors are left out: what they do is plain."""

Draw = np.random.Generator


def turned(draw: Draw, before: np.ndarray, *, loss: float, gain: float) -> np.ndarray:
    """Return answers after a night: of all items the shares `loss` and `gain` are lost and gained, on average."""
    right = 0.6
    chance = draw.random(len(before))
    return np.where(before, chance >= loss / right, chance < gain / (1 - right))


def answered(draw: Draw, items: int, *, cluster: int = 1) -> np.ndarray:
    """Return which items the parent answers rightly: 60%; those of a cluster alike."""
    return np.repeat(draw.random(-(-items // cluster)) < 0.6, cluster)[:items]


def scored(own: tuple[np.ndarray, np.ndarray], safety: tuple[np.ndarray, np.ndarray]) -> list[Scored]:
    """Return the scores of the twin's own and of safety items: of parent and child."""
    return [
        Scored(
            metric=metric, category=f"c{number % CATEGORIES}" if metric == SAFETY else None, parent=float(was),
            child=float(now),
        )
        for metric, (before, after) in ((SCORE, own), (SAFETY, safety))
        for number, (was, now) in enumerate(zip(before.tolist(), after.tolist(), strict=True))
    ]  # fmt: skip


def promoted_percent(draw: Draw, *, loss: float, gain: float, items: int = ITEMS, trials: int = TRIALS) -> float:
    """Return how often a child is promoted of which safety loses and gains so much, its own items as by chance."""
    hits = 0
    for _ in range(trials):
        pairs = []
        for lost, gained in ((0.08, 0.08), (loss, gain)):
            before = answered(draw, items)
            pairs.append((before, turned(draw, before, loss=lost, gain=gained)))
        hits += decide(scored(pairs[0], pairs[1]), COMPARED).verdict == "Promote"
    return 100 * hits / trials


def crept(draw: Draw, *, spending: Spending | None) -> float:
    """Return what safety has truly lost after NIGHTS of two points each, in points: two for each that was promoted.

    All nights ask the same items, and what a promoted version happened to gain on them it keeps on them, though it lost
    of all questions that there are: nights are chosen by the items that judge them.
    """
    return 2.0 * sum(nights(draw, NIGHTS, items=ITEMS, spending=spending))


def steady_percent(draw: Draw, *, items: int, first: int, last: int, trials: int = SERIES) -> float:
    """Return how often a version is promoted that lost nothing, on the nights from `first` to `last` after an
    approval."""
    found = [nights(draw, last, items=items, safety=STEADY)[first - 1 :] for _ in range(trials)]
    return 100 * float(np.mean(found))


def taken_back_percent(
    draw: Draw, *, steps: Sequence[tuple[int, int]], failing: tuple[float, float], trials: int = CANARIES,
    before: bool = True, **how: Any,
) -> float:  # fmt: skip
    """Return how often a canary is taken back; `before`: whether the serving version had answered some before."""
    canary, serving = played(draw, trials, steps=steps, failing=failing, **how)
    return 100 * float((taken_back(canary, serving, before=failing[1] if before else None) >= 0).mean())


def measure(options: Options) -> Result:
    """Simulate all; `options` has nothing that matters here."""
    del options
    return Result(
        name="judging",
        title="How often the gate and the canary are wrong",
        how=f"Simulated, {SEEDS} seeds with {TRIALS} versions, {SERIES} series of nights or {CANARIES} canaries each: "
        f"{ITEMS} own and "
        f"{ITEMS} safety items in {CATEGORIES} categories, default margins; canaries of "
        f"{' + '.join(f'{each} requests at {weight}%' for weight, each in STEPS)}, looked at every {LOOK_EVERY} of "
        f"them. Creep: {CREEPS} series of nights.",
        figures=(*_gate(), *_canary()),
        command="make bench BENCH_ARGS=judging",
    )


def _gate() -> list[Figure]:
    def promoted(told: str, *, most: float | None = None, least: float | None = None, **how: Any) -> Figure:
        return _row("gate", f"{told}: promoted", lambda draw: promoted_percent(draw, **how), most=most, least=least)

    found = [
        promoted("safety loses 5 points in truth, spread 40", most=5, loss=0.105, gain=0.055),
        promoted("safety loses 5 points in truth, losses only", most=5, loss=0.05, gain=0.0),
        promoted("nothing lost, spread 40", least=80, loss=0.08, gain=0.08),
        promoted("nothing lost, half as many items", loss=0.08, gain=0.08, items=ITEMS // 2),
    ]
    for first, last, items in ((1, 2, ITEMS), (3, 28, ITEMS), (1, 7, 2 * ITEMS), (8, 28, 2 * ITEMS)):
        told = f"nothing lost, nights {first} to {last} after an approval, {items} and {items} items: promoted"
        found.append(_row("gate", told, partial(steady_percent, items=items, first=first, last=last)))
    for spending, told in ((anchor_error_of, "with the anchor"), (None, "without an anchor")):
        lost = [crept(np.random.default_rng(1000 + seed), spending=spending) for seed in range(CREEPS)]
        margin = COMPARED.anchor_margin
        found.append(
            Figure(
                subject="gate",
                figure=f"safety after {NIGHTS} nights that lose 2 points each, the same items each night, {told}: lost",
                unit="points",
                spread=Spread.of(lost),
                digits=0,
                target=f"at most {margin}" if spending else None,
                met=max(lost) <= margin if spending else None,
            )
        )
    return found


def _canary() -> list[Figure]:
    def row(told: str, *, most: float | None = None, least: float | None = None, **how: Any) -> Figure:
        return _row(
            "canary", f"{told}: taken back", lambda draw: taken_back_percent(draw, **how), most=most, least=least
        )

    whole = {"steps": STEPS, "rating": True}
    early, worse = ((10, 300),), (0.05, 0.01)
    return [
        *(
            row(f"{100 * share:g}% fail, as of what serves", most=5, failing=(share, share), **whole)
            for share in (0.002, 0.01, 0.05)
        ),
        row("5% fail instead of 1%, within 300 requests at 10%", least=90, steps=early, failing=worse),
        row("the same, of a serving version without requests before", steps=early, failing=worse, before=False),
        row("5% fail instead of 1%, within 300 requests at 50%", steps=((50, 300),), failing=worse),
        row("10% fail instead of 1%, within 100 requests at 10%", steps=((10, 100),), failing=(0.1, 0.01)),
        row("10% fail instead of 5%, within 600 requests at 10%", steps=((10, 600),), failing=(0.1, 0.05)),
        row("twice as slow, within 300 requests at 10%", steps=early, failing=(0.01, 0.01), slower=2.0),
        row("three times as slow, within 100 requests at 10%", steps=((10, 100),), failing=(0.01, 0.01), slower=3.0),
    ]


def _row(
    subject: str,
    figure: str,
    simulate: Callable[[Draw], float],
    *,
    most: float | None = None,
    least: float | None = None,
) -> Figure:
    spread = Spread.of([simulate(np.random.default_rng(seed)) for seed in range(SEEDS)])
    target = f"at most {most:g}%" if most is not None else f"at least {least:g}%" if least is not None else None
    met = spread.median <= most if most is not None else spread.median >= least if least is not None else None
    return Figure(subject=subject, figure=figure, unit="%", spread=spread, digits=1, target=target, met=met)

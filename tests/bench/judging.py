"""How often the gate and the canary are wrong, by simulation of the very functions that decide; no cluster, no model.

Gate: items that are right or wrong, answered by the parent and, turned over at random, by the child. A spread of 40
points an item (one in six turns over) is what plans are made with; "losses only" turns none over to right, where
intervals by a normal approximation are boldest. Canary: requests one after another, looked at every five of the
canary's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from bettertherapy_api.doctor_twin import Rollout
from neurons.miner.metrics import REQUEST_BUCKETS
from neurons.scoring.floors import SAFETY
from neurons.scoring.gate import SCORE, Criteria, Scored, decide
from tests.bench.registry import Options
from tests.bench.results import Figure, Result, Spread
from twin_operator.domain.canary_analysis import Measurement, Outlook, assess
from twin_operator.domain.pool_facts import PodFacts

SEEDS: Final = 5
TRIALS: Final = 100
"""Of each figure and seed."""
ITEMS: Final = 700
"""Of the twin's own, and as many of safety: what docs/fine-tuning.md names for the default margins."""
CATEGORIES: Final = 6
NIGHTS: Final = 60
CREEPS: Final = 10
MINER: Final = PodFacts(name="m", uid="u", component="miner", ready=True, leaving=False)
LOOK_EVERY: Final = 5
"""Requests of the canary between two looks."""
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


def scored(
    own: tuple[np.ndarray, np.ndarray], safety: tuple[np.ndarray, np.ndarray],
    anchor: tuple[np.ndarray, np.ndarray] | None = None,
) -> list[Scored]:  # fmt: skip
    """Return the scores of the twin's own and of safety items: of parent and child, and of the anchor."""
    made = []
    for place, (metric, (before, after)) in enumerate(((SCORE, own), (SAFETY, safety))):
        for number, (was, now) in enumerate(zip(before.tolist(), after.tolist(), strict=True)):
            made.append(
                Scored(
                    metric=metric, category=f"c{number % CATEGORIES}" if metric == SAFETY else None,
                    parent=float(was), child=float(now),
                    anchor=float(anchor[place][number]) if anchor is not None else None,
                )
            )  # fmt: skip
    return made


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


def crept(draw: Draw, *, anchored: bool, fresh: bool, items: int = ITEMS) -> float:
    """Return what safety has truly lost after NIGHTS of two points each, in points: two for each that was promoted.

    `fresh`: other questions each night. Else the same ones, and what a promoted version happened to gain on them it
    keeps on them, though it lost of all questions that there are: nights are chosen by the items that judge them.
    """
    first = _asked(draw, items)
    serving, promoted = first, 0
    for _ in range(NIGHTS):
        if fresh:
            first = serving = _asked(draw, items)
            for _ in range(promoted):
                serving = _crept_on(draw, serving)
        child = _crept_on(draw, serving)
        rows = scored((serving[0], child[0]), (serving[1], child[1]), first if anchored else None)
        if decide(rows, replace(COMPARED, anchored=anchored)).verdict == "Promote":
            serving, promoted = child, promoted + 1
    return 2.0 * promoted


def _asked(draw: Draw, items: int) -> tuple[np.ndarray, np.ndarray]:
    return answered(draw, items), answered(draw, items)


def _crept_on(draw: Draw, before: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    own, safety = before
    return _night(draw, own, loss=0.08, gain=0.08), _night(draw, safety, loss=0.09, gain=0.07)


def _night(draw: Draw, before: np.ndarray, *, loss: float, gain: float) -> np.ndarray:
    """Turn over as many as asked for, of what is right and wrong now."""
    right = min(max(float(before.mean()), loss), 1 - gain)
    chance = draw.random(len(before))
    return np.where(before, chance >= loss / right, chance < gain / (1 - right))


def canary(
    draw: Draw,
    *,
    steps: Sequence[tuple[int, int]],
    failing: tuple[float, float],
    slower: float = 1.0,
    rating: bool = False,
    before: bool = True,
) -> int | None:
    """Return after how many of the canary's requests it is taken back, None when it is not.

    `failing` are the true shares of failed requests of canary and serving version; answers are log-normal around 1.2 s,
    the canary's longer by the factor `slower`. One request in ten is rated, by the same taste. `before`: whether the
    serving version had answered 5,000 requests before.
    """
    counts = [np.zeros(2), np.zeros(2)]  # answered, failed
    seconds = [np.zeros(len(REQUEST_BUCKETS) + 1) for _ in range(2)]
    ratings = [np.zeros(5) for _ in range(2)]
    for weight, requests in steps:
        for _ in range(requests // LOOK_EVERY):
            others = draw.negative_binomial(LOOK_EVERY, weight / 100)
            for which, number in enumerate((LOOK_EVERY, others)):
                failed = draw.binomial(number, failing[which])
                counts[which] += (number - failed, failed)
                took = 1.2 * np.exp(0.6 * draw.standard_normal(number)) * (slower if which == 0 else 1.0)
                seconds[which] += np.bincount(
                    np.searchsorted(REQUEST_BUCKETS, took), minlength=len(REQUEST_BUCKETS) + 1
                )
                if rating:
                    ratings[which] += draw.multinomial(draw.binomial(number, 0.1), (0.04, 0.04, 0.12, 0.32, 0.48))
            found = Measurement(
                fresh_miners=frozenset({"m"}),
                requests=_codes(counts[0]), serving_requests=_codes(counts[1]),
                serving_before={"200": 5000 * (1 - failing[1]), "503": 5000 * failing[1]} if before else {},
                canary_seconds=_histogram(seconds[0]), serving_seconds=_histogram(seconds[1]),
                canary_ratings=_rated(ratings[0]), stable_ratings=_rated(ratings[1]),
            )  # fmt: skip
            if assess(found, Rollout(), miners=[MINER]).outlook is Outlook.WORSE:
                return int(counts[0].sum())
    return None


def _codes(counted: np.ndarray) -> dict[str, float]:
    return {"200": float(counted[0]), "503": float(counted[1])}


def _histogram(counted: np.ndarray) -> dict[float, float]:
    return dict(zip((*REQUEST_BUCKETS, math.inf), np.cumsum(counted).tolist(), strict=True))


def _rated(counted: np.ndarray) -> dict[int, float]:
    return {place + 1: count for place, count in enumerate(counted.tolist()) if count}


def taken_back_percent(draw: Draw, trials: int = TRIALS, **how: Any) -> float:
    """Return how often a canary is taken back."""
    return 100 * sum(canary(draw, **how) is not None for _ in range(trials)) / trials


def measure(options: Options) -> Result:
    """Simulate all; `options` has nothing that matters here."""
    del options
    return Result(
        name="judging",
        title="How often the gate and the canary are wrong",
        how=f"Simulated, {SEEDS} seeds with {TRIALS} trials each (whole canaries half as many): {ITEMS} own and "
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
    for anchored, fresh, told in (
        (True, True, "with the anchor, other items each night"),
        (True, False, "with the anchor, the same items each night"),
        (False, False, "without an anchor"),
    ):
        lost = [crept(np.random.default_rng(1000 + seed), anchored=anchored, fresh=fresh) for seed in range(CREEPS)]
        margin = COMPARED.anchor_margin
        found.append(
            Figure(
                subject="gate",
                figure=f"safety after {NIGHTS} nights that lose 2 points each, {told}: lost",
                unit="points",
                spread=Spread.of(lost),
                digits=0,
                target=f"at most {margin}" if anchored else None,
                met=max(lost) <= margin if anchored else None,
            )
        )
    return found


def _canary() -> list[Figure]:
    def taken_back(told: str, *, most: float | None = None, least: float | None = None, **how: Any) -> Figure:
        return _row(
            "canary", f"{told}: taken back", lambda draw: taken_back_percent(draw, **how), most=most, least=least
        )

    whole = {"trials": TRIALS // 2, "steps": STEPS, "rating": True}
    early, worse = ((10, 300),), (0.05, 0.01)
    return [
        *(
            taken_back(f"{100 * share:g}% fail, as of what serves", most=5, failing=(share, share), **whole)
            for share in (0.002, 0.01, 0.05)
        ),
        taken_back("5% fail instead of 1%, within 300 requests at 10%", least=90, steps=early, failing=worse),
        taken_back("the same, of a serving version without requests before", steps=early, failing=worse, before=False),
        taken_back("5% fail instead of 1%, within 300 requests at 50%", steps=((50, 300),), failing=worse),
        taken_back("10% fail instead of 1%, within 100 requests at 10%", steps=((10, 100),), failing=(0.1, 0.01)),
        taken_back("twice as slow, within 300 requests at 10%", steps=early, failing=(0.01, 0.01), slower=2.0),
        taken_back(
            "three times as slow, within 100 requests at 10%", steps=((10, 100),), failing=(0.01, 0.01), slower=3.0
        ),
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

"""How often the gate and the canary are wrong, by simulation of the very functions that decide; no cluster, no model.

Gate: items that are right or wrong, answered by the parent and, turned over at random, by the child. A spread of 40
points an item (one in six turns over) is what plans are made with; "losses only" turns none over to right, where
intervals by a normal approximation are boldest. Besides, what a statistician would attack it with: items that go
together, few of them, none that changes, one category alone, tries again. Canary: requests one after another, looked at
every five of the canary's; besides, failures that come in bursts, and ones that both versions have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import accumulate
from typing import Any, Final

import numpy as np

from bettertherapy_api.gate.budget import TRIES, anchor_error_of, error_of
from bettertherapy_api.gate.decision import Criteria, Scored, decide
from bettertherapy_api.gate.metrics import SAFETY, SCORE
from bettertherapy_api.gate.noninferiority import items_for
from neurons.scoring.inference import share_interval
from tests.bench.canaries import LOOK_EVERY, Failing, played, taken_back
from tests.bench.nights import LOSING, STEADY, Spending, nights
from tests.bench.registry import Options
from tests.bench.results import Curve, Figure, Result, Spread, percentile

SEEDS: Final = 5
TRIALS: Final = 100
"""Of each figure and seed."""
ITEMS: Final = 700
"""Of the twin's own, and as many of safety: what docs/fine-tuning.md names for the default margins."""
CATEGORIES: Final = 6
NIGHTS: Final = 60
CREEPS: Final = 400
SERIES: Final = 20
CANARIES: Final = 400
"""Of each figure and seed."""
STEPS: Final = ((10, 300), (25, 600), (50, 1200))
"""Weight in percent, and the canary's requests at it: a whole canary."""

CURVE_TRIALS: Final = 300
"""Of each point of a curve."""
KEPT, FADING, ALONE = "with the anchor, luck kept", "with the anchor, luck that fades", "without an anchor, luck kept"
JUDGED: Final = (KEPT, FADING)
DRAWN: Final = (FADING, KEPT, ALONE)
CREEPING: Final[dict[str, dict[str, Any]]] = {
    KEPT: {"spending": anchor_error_of},
    FADING: {"spending": anchor_error_of, "fading": True},
    "with the anchor, approved every seventh night, luck that fades": {
        "spending": anchor_error_of, "fading": True, "approved_every": 7,
    },
    ALONE: {"spending": None},
    "without an anchor, luck that fades": {"spending": None, "fading": True},
}  # fmt: skip
_AT: Final = np.arange(sum(requests for _, requests in STEPS) // LOOK_EVERY)[:, None] * LOOK_EVERY
"""The canary's requests before each look."""
LATER: Final = np.where(STEPS[0][1] + STEPS[1][1] > _AT, 0.01, 0.05)
RISING: Final = 0.01 + 0.01 * _AT / _AT.max()
OUTAGE: Final = np.where((_AT >= 100) & (_AT < 130), 1.0, 0.01)
LATE_OUTAGE: Final = np.where((_AT >= 1200) & (_AT < 1230), 1.0, 0.01)

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
    own: tuple[np.ndarray, np.ndarray], safety: tuple[np.ndarray, np.ndarray], *, cluster: int | None = None
) -> list[Scored]:
    """Return the scores of the twin's own and of safety items: of parent and child; so many each to a named cluster."""
    return [
        Scored(
            metric=metric, category=f"c{number // (cluster or 1) % CATEGORIES}" if metric == SAFETY else None,
            parent=float(was), child=float(now), cluster=str(number // cluster) if cluster else None,
        )
        for metric, (before, after) in ((SCORE, own), (SAFETY, safety))
        for number, (was, now) in enumerate(zip(before.tolist(), after.tolist(), strict=True))
    ]  # fmt: skip


def night(
    draw: Draw, *, loss: float, gain: float, items: int = ITEMS, together: int = 1, named: bool = True,
    own: tuple[float, float] = STEADY,
) -> list[Scored]:  # fmt: skip
    """Return what a night's examination says: safety loses and gains so much in truth, the twin's own items as `own`.

    `together` items of each sort are answered and turned over as one; `named`: the gate is told which.
    """
    pairs = []
    for lost, gained in (own, (loss, gain)):
        before = answered(draw, -(-items // together))
        after = turned(draw, before, loss=lost, gain=gained)
        pairs.append((np.repeat(before, together)[:items], np.repeat(after, together)[:items]))
    return scored(pairs[0], pairs[1], cluster=together if named and together > 1 else None)


def promoted_percent(
    draw: Draw, *, trials: int = TRIALS, criteria: Criteria = COMPARED, of: Callable[..., list[Scored]] = night,
    **how: Any,
) -> float:  # fmt: skip
    """Return how often a child is promoted, of nights that are `how`."""
    return 100 * float(np.mean([decide(of(draw, **how), criteria).verdict == "Promote" for _ in range(trials)]))


def one_sided(draw: Draw, *, items: int, lost: float, gained: float) -> list[Scored]:
    """Return a night in which one category of safety items loses so much in truth, and each other one gains so much."""
    own = answered(draw, items)
    before = answered(draw, items)
    one = np.arange(items) % CATEGORIES == 0
    after = np.where(
        one, turned(draw, before, loss=0.08 + lost, gain=0.08), turned(draw, before, loss=0.08, gain=0.08 + gained)
    )
    return scored((own, turned(draw, own, loss=STEADY[0], gain=STEADY[1])), (before, after))


def tried_again_percent(draw: Draw, *, loss: float, gain: float, trials: int = TRIALS) -> float:
    """Return how often any of TRIES versions that were trained on the same lines is promoted, all so much worse."""
    hits = 0
    for _ in range(trials):
        tries = (Criteria(min_score=0, attempt=attempt) for attempt in range(1, TRIES + 1))
        hits += any(decide(night(draw, loss=loss, gain=gain), each).verdict == "Promote" for each in tries)
    return 100 * hits / trials


def unchanged_percent(draw: Draw, *, items: int) -> float:
    """Return 100 when a child is promoted that answers each of so many items as its parent, and 0 when not."""
    own, safety = answered(draw, items), answered(draw, items)
    return 100.0 * (decide(scored((own, own), (safety, safety)), COMPARED).verdict == "Promote")


def crept(draw: Draw, *, spending: Spending | None, **how: Any) -> list[float]:
    """Return what safety has truly lost after each of NIGHTS of two points, in points: two for each that was promoted.

    All nights ask the same items, and versions are chosen by those: what each happened to gain on them it keeps on
    them, or loses again night by night where it is `fading`, though it lost of all questions that there are.
    """
    found = nights(draw, NIGHTS, items=ITEMS, spending=spending, **how)
    return [round(100 * (LOSING[0] - LOSING[1]) * kept, 6) for kept in accumulate(found)]


def steady_percent(draw: Draw, *, items: int, first: int, last: int, trials: int = SERIES) -> float:
    """Return how often a version is promoted that lost nothing, on the nights from `first` to `last` after an
    approval."""
    found = [nights(draw, last, items=items, safety=STEADY)[first - 1 :] for _ in range(trials)]
    return 100 * float(np.mean(found))


def taken_back_percent(
    draw: Draw, *, steps: Sequence[tuple[int, int]], failing: tuple[Failing, Failing], trials: int = CANARIES,
    before: bool = True, **how: Any,
) -> float:  # fmt: skip
    """Return how often a canary is taken back; `before`: whether the serving version had answered some before."""
    canary, serving = played(draw, trials, steps=steps, failing=failing, **how)
    usual = float(np.atleast_1d(failing[1])[0].mean())
    return 100 * float((taken_back(canary, serving, steps=steps, before=usual if before else None) >= 0).mean())


def bursting_percent(draw: Draw) -> float:
    """Return how often a canary is taken back when failures come five at a time, in each version by itself."""
    bursts = tuple((draw.random((len(_AT), CANARIES)) < 0.01).astype(float) for _ in range(2))
    return taken_back_percent(draw, steps=STEPS, failing=(bursts[0], bursts[1]))


def measure(options: Options) -> Result:
    """Simulate all; `options` has nothing that matters here."""
    del options
    creeps = {told: _creeps(**how) for told, how in CREEPING.items()}
    return Result(
        name="judging",
        title="How often the gate and the canary are wrong",
        how=f"Simulated, {SEEDS} seeds with {TRIALS} versions, {SERIES} series of nights or {CANARIES} canaries each: "
        f"{ITEMS} own and "
        f"{ITEMS} safety items in {CATEGORIES} categories, default margins; canaries of "
        f"{' + '.join(f'{each} requests at {weight}%' for weight, each in STEPS)}, looked at every {LOOK_EVERY} of "
        f"them. Creep: {CREEPS} series of nights, p99 of those; luck on the items is kept entirely, the worst case, or "
        f"fades as items are turned over.",
        figures=(*_gate(), *_creep(creeps), *_canary()),
        curves=(*_promotion_curves(), *_creep_curves(creeps), *_canary_curves()),
        command="make bench BENCH_ARGS=judging",
    )


def _gate() -> list[Figure]:
    def promoted(told: str, *, most: float | None = None, least: float | None = None, **how: Any) -> Figure:
        return _row("gate", f"{told}: promoted", lambda draw: promoted_percent(draw, **how), most=most, least=least)

    same, alone = {"loss": 0.08, "gain": 0.08}, Criteria(min_score=0, min_samples=10, margin=20)
    found = [
        promoted("safety loses 5 points in truth, spread 40", most=5, loss=0.105, gain=0.055),
        promoted("safety loses 5 points in truth, losses only", most=5, loss=0.05, gain=0.0),
        promoted("nothing lost, spread 40", least=80, **same),
        promoted("nothing lost, half as many items", **same, items=ITEMS // 2),
    ]
    for margin in (3, 10, 20):
        items, asked = items_for(margin, error_of(1) or 0.0, power=0.9), Criteria(min_score=0, margin=margin)
        told = f"margin {margin}, {items} and {items} items"
        found += [
            promoted(f"{told}: nothing lost", **same, items=items, criteria=asked),
            promoted(
                f"{told}: safety loses {margin} points in truth", most=5, items=items, criteria=asked,
                loss=max(0.08 + margin / 200, margin / 100), gain=max(0.0, 0.08 - margin / 200),
            ),
        ]  # fmt: skip
    found += [
        promoted(f"margin 20, {items} and {items} items: safety loses 20 points in truth", most=5, items=items,
                 criteria=alone, loss=0.25, gain=0.05)
        for items in (10, 20, 30)
    ]  # fmt: skip
    five = {"loss": 0.105, "gain": 0.055, "together": 5}
    found += [
        promoted("items turn over five by five, named as clusters, safety loses 5 points", most=5, **five),
        promoted("items turn over five by five, nobody says so, safety loses 5 points", **five, named=False),
        promoted("items turn over five by five, named as clusters, nothing lost, 3,500 and 3,500 items", **same,
                 together=5, items=5 * ITEMS),
        promoted("one category of six loses 30 points in truth, the others gain 6 each", of=one_sided, items=ITEMS,
                 lost=0.3, gained=0.06),
        promoted("margin 15, 138 and 138 items: one category of six loses 50 points, the others gain 10 each",
                 of=one_sided, items=138, lost=0.5, gained=0.1, criteria=Criteria(min_score=0, margin=15)),
        _row("gate", f"any of {TRIES} versions trained on the same lines, each loses 5 points: promoted",
             partial(tried_again_percent, loss=0.105, gain=0.055), most=5),
        _row("gate", "no answer changes, 73 and 73 items: promoted", partial(unchanged_percent, items=73), least=80),
        _row("gate", "no answer changes, 72 and 72 items: promoted", partial(unchanged_percent, items=72)),
    ]  # fmt: skip
    for first, last, items in ((1, 2, ITEMS), (3, 28, ITEMS), (1, 7, 2 * ITEMS), (8, 28, 2 * ITEMS)):
        told = f"nothing lost, nights {first} to {last} after an approval, {items} and {items} items: promoted"
        found.append(_row("gate", told, partial(steady_percent, items=items, first=first, last=last)))
    return found


def _creeps(**how: Any) -> np.ndarray:
    """Return what was lost, in points, by series and night."""
    return np.array([crept(np.random.default_rng(1000 + seed), **how) for seed in range(CREEPS)])


def _creep(creeps: Mapping[str, np.ndarray]) -> Iterator[Figure]:
    margin = COMPARED.anchor_margin
    for told, by_night in creeps.items():
        lost = by_night[:, -1].tolist()
        worst = percentile(lost, 99)
        judged = told in JUDGED
        yield Figure(
            subject="gate",
            figure=f"safety after {NIGHTS} nights that lose 2 points each, the same items each night, {told}: lost",
            unit="points",
            spread=Spread.of(lost),
            p99=worst,
            digits=0,
            target=f"at most {margin} in 99 of 100" if judged else None,
            met=worst <= margin if judged else None,
        )


def _promotion_curves() -> Iterator[Curve]:
    for items in (ITEMS // 2, ITEMS, 2 * ITEMS):
        points = []
        for points_lost in range(-2, 9):
            draw = np.random.default_rng(100 * items + points_lost + 2)
            change = points_lost / 200
            percent = promoted_percent(draw, loss=0.08 + change, gain=0.08 - change, items=items, trials=CURVE_TRIALS)
            points.append((0.0 - points_lost, *_share(percent, CURVE_TRIALS)))
        yield Curve(plot="promotion", name=f"{items:,} and {items:,} items", points=tuple(points))


def _creep_curves(creeps: Mapping[str, np.ndarray]) -> Iterator[Curve]:
    for told, by_night in creeps.items():
        if told in DRAWN:
            points = [(0.0, 0.0, 0.0, 0.0)]
            for number, lost in enumerate(by_night.T, start=1):
                low, middle, high = np.percentile(-lost, (5, 50, 95)).tolist()
                points.append((float(number), low, middle, high))
            yield Curve(plot="creep", name=told, points=tuple(points))


def _canary_curves() -> Iterator[Curve]:
    caught: dict[str, list[tuple[float, float, float, float]]] = {"within 300 requests at 10%": [], "ever": []}
    after = []
    for percent in (0.5, 1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10):
        draw = np.random.default_rng(int(10 * percent))
        canary, serving = played(draw, CANARIES, steps=STEPS, failing=(percent / 100, 0.01))
        looks = taken_back(canary, serving, steps=STEPS, before=0.01)
        requests = LOOK_EVERY * (looks[looks >= 0] + 1)
        early = 100 * float((requests <= STEPS[0][1]).sum()) / CANARIES
        for told, share in zip(caught, (early, 100 * len(requests) / CANARIES), strict=True):
            caught[told].append((percent, *_share(share, CANARIES)))
        if 2 * len(requests) >= CANARIES:
            low, middle, high = np.percentile(requests, (10, 50, 90)).tolist()
            after.append((percent, low, middle, high))
    for told, points in caught.items():
        yield Curve(plot="canary", name=told, points=tuple(points))
    yield Curve(plot="canary requests", name="requests until it is taken back", points=tuple(after))


def _share(percent: float, trials: int) -> tuple[float, float, float]:
    """Return the low end, the middle and the high end of a share in percent: Wilson's interval, 95%."""
    found = share_interval(round(percent * trials / 100), trials)
    return 100 * found.low, percent, 100 * found.high


def _canary() -> list[Figure]:
    def row(told: str, *, most: float | None = None, least: float | None = None, **how: Any) -> Figure:
        return _row(
            "canary", f"{told}: taken back", lambda draw: taken_back_percent(draw, **how), most=most, least=least
        )

    whole: dict[str, Any] = {"steps": STEPS, "rating": True}
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
        row("1% fail of both, and 5% of both once it has 50%", most=5, steps=STEPS, failing=(LATER, LATER)),
        row(
            "1% fail of both, and all for 30 of the canary's requests at 50%",
            most=5,
            steps=STEPS,
            failing=(LATE_OUTAGE, LATE_OUTAGE),
        ),
        row("1% to 2% fail of both, more and more", most=5, steps=STEPS, failing=(RISING, RISING)),
        row(
            "1% fail of both, and all for 30 of the canary's requests at 10%",
            most=5,
            steps=STEPS,
            failing=(OUTAGE, OUTAGE),
        ),
        _row(
            "canary",
            "in one look of a hundred all requests fail, in each version by itself: taken back",
            bursting_percent,
        ),
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

"""How miners of one task are credited, by simulation of the very functions that decide; no cluster, no model.

Several miners train on one dataset, one after another is examined. Honest ones lost nothing and learned what they were
given; of their items three in a hundred turn over, as of versions that answer nearly as their parent does. Besides,
those that no credit is due to: who learned and lost the margin, and who delivers the parent with some noise, whose
answers then are likelier or less likely by chance.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import numpy as np

from bettertherapy_api.gate import Learning, credit
from bettertherapy_api.gate.budget import TRIES
from bettertherapy_api.gate.decision import Criteria, Scored, decide
from tests.bench.judging import night
from tests.bench.registry import Options
from tests.bench.results import Figure, Result, Spread

SEEDS: Final = 5
TRIALS: Final = 200
"""Of each figure and seed."""
ITEMS: Final = 200
"""Of the twin's own, and as many of safety."""
TURNED: Final = 0.015
"""Share of the items that is lost, and as much gained, where nothing is lost on average: a spread of 17 points."""
MARGIN: Final = 5
MIN_SAMPLES: Final = 30
LEARNED: Final = Learning(40, 38, 0.2, 10, 360)
NOISE: Final = 0.02
"""Standard deviation of what noise changes of an answer's log-probability, as a share: as much as a night teaches."""
CONTROLS: Final = 10
"""Answers of the doctor's that no miner was given."""
MANNER: Final = 0.02
"""What a parent that is scaled down makes of all that its doctor may say."""
LESSONS: Final = (4, 5, 20, 64)
PLACES: Final = (1, 2, 3, TRIES)

Draw = np.random.Generator


def examined(draw: Draw, *, items: int = ITEMS, lost: float = 0.0) -> list[Scored]:
    """Return what a version's items come to; all of them lose so much in truth, as a share."""
    changed = (TURNED + lost, TURNED)
    return night(draw, loss=changed[0], gain=changed[1], own=changed, items=items)


def unlearned(draw: Draw, *, lessons: int, manner: float = 0.0) -> Learning:
    """Return what noise does to so many answers and to CONTROLS others, each by itself; `manner` is what all gain."""
    gains, others = (draw.normal(manner, NOISE, count) for count in (lessons, CONTROLS))
    ahead = int((gains[:, None] > others[None, :]).sum())
    return Learning(lessons, int((gains > 0).sum()), float(gains.mean()), CONTROLS, ahead)


def is_credited(scored: list[Scored], learning: Learning) -> bool:
    """Tell whether a miner is credited with a version."""
    return credit(scored, learning, margin=MARGIN, min_samples=MIN_SAMPLES).verdict == "Passed"


def is_promoted(scored: list[Scored], *, attempt: int) -> bool:
    """Tell whether the gate promotes a version that is examined as that one of its dataset."""
    criteria = Criteria(min_score=0, margin=MARGIN, min_samples=MIN_SAMPLES, attempt=attempt)
    return decide(scored, criteria).verdict == "Promote"


def promoted_percent(draw: Draw, *, attempt: int) -> float:
    """Return how often the gate promotes honest versions at that place."""
    return _percent(lambda: is_promoted(examined(draw), attempt=attempt))


def credited_percent(draw: Draw, *, lost: float = 0.0, items: int = ITEMS) -> float:
    """Return how often miners are credited whose versions learned and lost so much."""
    return _percent(lambda: is_credited(examined(draw, lost=lost, items=items), LEARNED))


def unlearned_percent(draw: Draw, *, lessons: int, manner: float = 0.0) -> float:
    """Return how often miners are credited that deliver the parent with some noise, or scaled."""
    return _percent(lambda: is_credited(examined(draw), unlearned(draw, lessons=lessons, manner=manner)))


def _percent(happens: Callable[[], bool]) -> float:
    return 100 * float(np.mean([happens() for _ in range(TRIALS)]))


def measure(options: Options) -> Result:
    """Simulate all; `options` has nothing that matters here."""
    del options
    return Result(
        name="credit",
        title="How miners of one task are credited",
        how=f"Simulated, {SEEDS} seeds with {TRIALS} versions each: {ITEMS} own and {ITEMS} safety items, "
        f"of which {200 * TURNED:g} in a hundred turn over, margin {MARGIN}. "
        "The gate's verdict depends on the place at which a version of a dataset is examined; a miner's credit has no "
        f"place. Noise changes the log-probability of each answer by itself, by {100 * NOISE:.0f}% of it.",
        figures=(
            *(
                _row("gate", f"nothing lost, examined as number {place} of its dataset: promoted",
                     partial(promoted_percent, attempt=place))
                for place in PLACES
            ),
            _row("credit", "nothing lost, at any place: passed", credited_percent, least=70),
            _row("credit", "nothing lost, 400 and 400 items: passed", partial(credited_percent, items=2 * ITEMS)),
            _row("credit", f"{MARGIN} points lost in truth: passed", partial(credited_percent, lost=MARGIN / 100),
                 most=5),
            *(
                _row("credit", f"the parent with noise, {lessons} answers to learn: passed",
                     partial(unlearned_percent, lessons=lessons), most=5)
                for lessons in LESSONS
            ),
            *(
                _row("credit", f"the parent scaled so that all becomes likelier, {lessons} answers to learn: passed",
                     partial(unlearned_percent, lessons=lessons, manner=MANNER), most=5)
                for lessons in LESSONS
            ),
        ),
        command="make bench BENCH_ARGS=credit",
    )  # fmt: skip


def _row(
    subject: str, figure: str, simulate: Callable[[Draw], float], *, most: float | None = None,
    least: float | None = None,
) -> Figure:  # fmt: skip
    spread = Spread.of([simulate(np.random.default_rng(seed)) for seed in range(SEEDS)])
    target = f"at most {most:g}%" if most is not None else f"at least {least:g}%" if least is not None else None
    met = spread.median <= most if most is not None else spread.median >= least if least is not None else None
    return Figure(subject=subject, figure=figure, unit="%", spread=spread, digits=1, target=target, met=met)

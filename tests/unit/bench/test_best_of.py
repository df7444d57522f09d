"""What the benchmark of candidates claims from few questions."""

from __future__ import annotations

import pytest

from neurons.miner.settings import DEFAULT_SCORERS
from tests.bench.best_of import GAIN, _of_draws
from tests.bench.redrawn import BEST, SCORERS, SIZES, Redrawn


def redrawn(number: int, *, better: float) -> Redrawn:
    chosen = {size: dict.fromkeys((*SCORERS, BEST), 40.0 + better) for size in SIZES}
    waited = dict.fromkeys(SIZES, 42.0)
    return Redrawn(item=f"q{number}", one=40.0, chosen=chosen, tokens_one=40.0, tokens_waited=waited)


@pytest.mark.parametrize("count", [1, 3])
def test_a_few_questions_prove_nothing_however_alike_they_are(count: int) -> None:
    """One question, or three that gained as much, had an interval of no width: `met`."""
    figures, _ = _of_draws([redrawn(number, better=5.0) for number in range(count)])
    default, gain = [figure for figure in figures if f"best of 4 by {DEFAULT_SCORERS}" in figure.subject]
    assert default.met is False
    assert (gain.figure, gain.spread.median) == (GAIN, pytest.approx(5.0))
    assert gain.spread.minimum < 5.0 < gain.spread.maximum


def test_many_that_gained_prove_it() -> None:
    figures, _ = _of_draws([redrawn(number, better=20.0 + number % 7) for number in range(40)])
    subject = f"best of 4 by {DEFAULT_SCORERS}"
    assert next(figure for figure in figures if subject in figure.subject).met is True

"""Simulated with the functions that decide: equals have equal chances at every place, and who did no work has few."""

from __future__ import annotations

import numpy as np
import pytest

from bettertherapy_api.gate import Learning, credit
from bettertherapy_api.gate.credit import CREDIT_ERROR
from tests.bench import credit as simulated
from tests.bench.credit import LEARNED, MANNER, examined, is_credited, is_promoted, unlearned

TRIALS = 300
ALLOWANCE = 0.04
"""Of TRIALS, three standard deviations of a share of one in twenty."""


def test_equal_honest_miners_have_equal_chances_whatever_their_place() -> None:
    draw = np.random.default_rng(3)
    places = (1, 2, 4)
    promoted, passed = dict.fromkeys(places, 0), dict.fromkeys(places, 0)
    for _ in range(100):
        for place in places:
            version = examined(draw)
            promoted[place] += is_promoted(version, attempt=place)
            passed[place] += is_credited(version, LEARNED)
    assert promoted[1] > 65
    assert promoted[4] == 0, "by the gate's verdict the fourth of equals would earn nothing"
    assert min(passed.values()) > 75
    assert max(passed.values()) - min(passed.values()) < 15, passed


@pytest.mark.parametrize("manner", [0.0, MANNER, 3 * MANNER])
@pytest.mark.parametrize("lessons", [5, 8, 20, 64])
def test_the_parent_with_some_noise_or_scaled_is_credited_once_in_twenty_at_most(lessons: int, manner: float) -> None:
    draw = np.random.default_rng(lessons)
    version = examined(np.random.default_rng(1), items=400)  # that it is no worse hides nothing
    assert is_credited(version, LEARNED)
    found = [is_credited(version, unlearned(draw, lessons=lessons, manner=manner)) for _ in range(TRIALS)]
    assert np.mean(found) <= CREDIT_ERROR + ALLOWANCE


def test_of_answers_too_few_to_tell_nobody_is_credited() -> None:
    version = examined(np.random.default_rng(1), items=400)
    assert not is_credited(version, Learning(4, 4, 0.5, 10, 40))
    assert not is_credited(version, Learning(40, 40, 0.5, 4, 160)), "nor of too few that it was not given"
    assert is_credited(version, Learning(40, 40, 0.5, 5, 200))
    said = credit(version, None, margin=5, min_samples=30)
    assert said.verdict == "Inconclusive"


def test_who_lost_the_margin_is_credited_once_in_twenty_at_most() -> None:
    draw = np.random.default_rng(5)
    found = [is_credited(examined(draw, lost=simulated.MARGIN / 100), LEARNED) for _ in range(TRIALS)]
    assert np.mean(found) <= CREDIT_ERROR + ALLOWANCE

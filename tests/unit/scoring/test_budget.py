"""What tries and nights may err together, whatever they have to do with each other."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from bettertherapy_api.gate.budget import (
    BUDGET,
    LOOKS,
    TRIES,
    Look,
    anchor_error_of,
    error_of,
)
from tests.bench.nights import STEADY, equal_shares, nights


def test_all_tries_on_the_same_lines_share_one_budget() -> None:
    shares = [error_of(attempt) for attempt in range(1, TRIES + 1)]
    assert all(share is not None for share in shares)
    assert 0.99 * BUDGET < sum(share or 0 for share in shares) <= BUDGET
    assert error_of(TRIES + 1) is None
    with pytest.raises(ValueError, match="counted from 1"):
        error_of(0)


def test_all_nights_with_one_anchor_share_one_budget() -> None:
    shares = [anchor_error_of(Look(number, number - 1)) for number in range(1, LOOKS + 1)]
    assert math.fsum(share or 0 for share in shares) == pytest.approx(BUDGET)
    assert anchor_error_of(Look(LOOKS + 1, LOOKS)) is None


def test_each_night_that_promoted_nothing_halves_the_share() -> None:
    shares = [anchor_error_of(Look(20, promoted)) or 0.0 for promoted in range(20)]
    assert all(more == pytest.approx(2 * less) for less, more in itertools.pairwise(shares))
    assert shares[-1] == anchor_error_of(Look())


@pytest.mark.parametrize(("number", "promoted"), [(0, 0), (1, 1), (3, -1)])
def test_what_can_have_been_no_look_is_refused(number: int, promoted: int) -> None:
    with pytest.raises(ValueError, match="can't have been promoted"):
        Look(number, promoted)


def test_small_losses_of_many_nights_stay_within_the_anchors_margin_though_all_ask_the_same_items() -> None:
    lost = [2 * sum(nights(np.random.default_rng(seed), 60, items=700)) for seed in range(12)]
    assert max(lost) <= 10, lost
    equal = [2 * sum(nights(np.random.default_rng(seed), 60, items=700, spending=equal_shares)) for seed in range(12)]
    assert max(equal) > 10, "sixty equal shares held too: the test shows nothing"


def test_a_twin_that_nobody_looks_at_goes_on_for_weeks() -> None:
    found = [nights(np.random.default_rng(seed), 28, items=1400, safety=STEADY) for seed in range(12)]
    assert float(np.mean(found)) >= 0.8


def test_who_approves_a_loss_has_it() -> None:
    def lost(**how: Any) -> float:
        return float(np.mean([2 * sum(nights(np.random.default_rng(seed), 60, items=700, **how)) for seed in range(6)]))

    assert lost(approved_every=7) > 1.5 * lost()


def test_luck_that_fades_ends_a_creep_that_no_anchor_stops() -> None:
    kept, fading = (
        sum(sum(nights(np.random.default_rng(seed), 60, items=700, spending=None, fading=how)) for seed in range(6))
        for how in (False, True)
    )
    assert fading < 0.6 * kept

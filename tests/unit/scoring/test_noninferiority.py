"""The interval that the gate judges by, against scipy's exact ones and against chance."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bettertherapy_api.gate.noninferiority import Tally, holm, items_for, lower_end, margin_for, upper_end
from bettertherapy_api.gate.student import t_quantile, t_tail


def lost(count: int, of: int) -> Tally:
    return Tally.of([-100.0] * count + [0.0] * (of - count), range(of))


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 7, 28, 29, 199, 1000])
def test_students_t_is_scipys(degrees: int) -> None:
    for value in (-3.0, 0.0, 0.5, 1.7, 4.0):
        assert t_tail(value, degrees) == pytest.approx(stats.t.sf(value, degrees), abs=1e-13)
    for tail in (0.5, 0.05, 0.04, 0.001, 1e-6):
        assert t_quantile(tail, degrees) == pytest.approx(stats.t.isf(tail, degrees), rel=1e-6, abs=1e-9)


def test_what_has_no_t_is_refused() -> None:
    for tail in (0.0, -1.0, 0.6, math.nan):
        with pytest.raises(ValueError, match="tail"):
            t_quantile(tail, 5)
    with pytest.raises(ValueError, match="degree"):
        t_tail(1.0, 0)


@pytest.mark.parametrize("error", [0.05, 0.04, 0.005, 0.0007])
@pytest.mark.parametrize("of", [30, 100, 700])
def test_of_losses_alone_it_says_what_the_exact_interval_says_or_less(of: int, error: float) -> None:
    for count in (0, 1, 2, 3, 5, 9, 15):
        exact = -100 * float(stats.beta.isf(error, count + 1, of - count))
        low = lower_end(lost(count, of), error)
        assert low <= exact + 0.03 * abs(exact), (count, low, exact)


def test_of_many_ordinary_differences_it_is_students() -> None:
    draw = random.Random(4)
    differences = [draw.gauss(1.0, 20.0) for _ in range(5000)]
    low = stats.ttest_1samp(differences, 0).confidence_interval(0.9).low
    assert lower_end(Tally.of(differences, range(5000)), 0.05) == pytest.approx(low, abs=0.06)


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=30), st.sampled_from([0.05, 0.001]))
def test_the_ends_hold_the_mean_and_stay_on_the_scale(differences: list[float], error: float) -> None:
    tally = Tally.of(differences, range(len(differences)))
    assert -100 <= lower_end(tally, error) <= tally.mean + 1e-6
    assert tally.mean - 1e-6 <= upper_end(tally, error) <= 100


def test_one_item_shows_nothing() -> None:
    one = Tally.of([100.0], ["a"])
    assert (lower_end(one, 0.05), upper_end(one, 0.05)) == (-100, 100)
    assert (lower_end(Tally.of([], []), 0.05), margin_for(1, 0.05)) == (-100, 100)


def test_copies_of_an_item_show_no_more_than_the_item() -> None:
    once = Tally.of([-100.0] + [0.0] * 99, range(100))
    copied = Tally.of(([-100.0] + [0.0] * 99) * 10, list(range(100)) * 10)
    assert (copied.items, copied.clusters) == (1000, 100)
    assert lower_end(copied, 0.05) == pytest.approx(lower_end(once, 0.05))


@pytest.mark.parametrize("odd", [math.nan, math.inf, 101.0, -100.5])
def test_what_is_no_difference_is_refused(odd: float) -> None:
    with pytest.raises(ValueError, match="no number from -100 to 100"):
        Tally.of([0.0, odd], range(2))


def test_holm_asks_the_surest_first_and_stops_at_the_first_that_is_not() -> None:
    sure, near, bad = lost(0, 500), lost(2, 160), lost(60, 100)
    found = holm([bad, near, sure], [5, 5, 5], 0.05)
    assert [shown for shown, _ in found] == [False, True, True]
    alone = lower_end(near, 0.05)
    assert found[1][1] < alone  # two were still asked
    marginal = next(tally for of in range(60, 400) if lower_end(tally := lost(0, of), 0.05) > -5)
    assert [shown for shown, _ in holm([marginal, bad], [5, 5], 0.05)] == [False, False]
    assert [shown for shown, _ in holm([marginal, sure], [5, 5], 0.05)] == [True, True]


def test_a_margin_is_one_that_the_items_can_show() -> None:
    for clusters in (30, 100, 1000):
        margin = margin_for(clusters, 0.01)
        assert margin % 5 == 0
        assert lower_end(Tally.unchanged(clusters), 0.01) > -margin
    assert margin_for(3, 0.001) == 100


def test_the_number_of_items_is_the_least_that_does() -> None:
    needed = items_for(5, 0.04)
    assert items_for(5, 0.04, spread=20) < needed / 2
    assert 400 < needed < 600
    assert items_for(0.001, 0.04) == 100_000


def test_the_end_lies_above_the_truth_about_as_often_as_it_says() -> None:
    draw = random.Random(9)
    above = 0
    for _ in range(1000):
        differences = draw.choices((-100.0, 0.0, 100.0), (0.105, 0.84, 0.055), k=300)
        above += lower_end(Tally.of(differences, range(300)), 0.05) > -5
    assert 15 <= above <= 65


def test_one_cluster_that_holds_nearly_all_items_shows_no_more_than_itself() -> None:
    """Its own mean is the mean of all, so that it leaves no residual: 300 others don't make it surer."""
    sizes = [10_000] + [1] * 300
    names = [name for name, size in enumerate(sizes) for _ in range(size)]
    unchanged = Tally.of([0.0] * len(names), names)
    assert unchanged.clusters == 301
    assert unchanged.apart == pytest.approx(1.06, abs=0.01)
    assert (lower_end(unchanged, 0.05), upper_end(unchanged, 0.05)) == (-100, 100)


def test_clusters_of_unequal_size_make_no_bolder_interval() -> None:
    """One cluster in ten is lost as a whole: ten points, and no more may be shown to be lost less often than said."""
    draw = random.Random(5)
    sizes = [100] + [1] * 100
    above = 0
    for _ in range(400):
        lost_ = [draw.random() < 0.1 for _ in sizes]
        sums = [-100.0 * size if gone else 0.0 for size, gone in zip(sizes, lost_, strict=True)]
        tally = Tally(
            items=sum(sizes), clusters=len(sizes), total=math.fsum(sums), squares=math.fsum(each * each for each in sums),
            cross=math.fsum(each * size for each, size in zip(sums, sizes, strict=True)),
            sizes=float(sum(size * size for size in sizes)),
        )  # fmt: skip
        above += lower_end(tally, 0.05) > -10
    assert above <= 28


def test_an_error_too_small_to_be_computed_shows_nothing() -> None:
    assert lower_end(lost(0, 100_000), 1e-15) == -100

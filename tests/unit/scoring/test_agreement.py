"""Cohen's kappa: published tables, what guessing gives, and intervals that few items make wide."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bettertherapy_api.judging import kappa_of
from neurons.scoring.agreement import kappa_interval
from neurons.scoring.inference import share_interval


def answers(true_met: int, false_met: int, true_not: int, false_not: int) -> tuple[list[bool], list[bool]]:
    rows = [(True, True)] * true_met + [(False, True)] * false_met
    rows += [(False, False)] * true_not + [(True, False)] * false_not
    return [truth for truth, _ in rows], [said for _, said in rows]


@pytest.mark.parametrize(("table", "kappa"), [
    # yes-yes, no-yes, no-no, yes-no; Wikipedia "Cohen's kappa" (2026), its three worked tables
    ((20, 10, 15, 5), 0.4), ((45, 25, 15, 15), 0.1304), ((25, 5, 35, 35), 0.2593),
    ((10, 0, 10, 0), 1.0), ((0, 10, 0, 10), -1.0), ((5, 5, 5, 5), 0.0), ((10, 0, 0, 0), 0.0),
])  # fmt: skip
def test_published_tables_give_their_kappa(table: tuple[int, int, int, int], kappa: float) -> None:
    assert kappa_of(*table) == pytest.approx(kappa, abs=5e-5)
    truth, said = answers(*table)
    if len(set(truth)) == 2:
        assert kappa_interval(truth, said, range(len(truth))).mean == pytest.approx(kappa, abs=5e-5)


def test_the_interval_is_near_the_exact_one_where_there_is_one() -> None:
    """Where half of the truths are "met", kappa is 2 × the share of right grades − 1."""
    truth, said = answers(45, 5, 45, 5)
    found = kappa_interval(truth, said, range(100))
    share = share_interval(90, 100)

    assert found.mean == pytest.approx(0.8)
    assert found.low == pytest.approx(2 * share.low - 1, abs=0.05)
    assert found.high == pytest.approx(2 * share.high - 1, abs=0.05)
    assert found == kappa_interval(truth, said, range(100)), "the same grades, the same interval"


def test_items_of_one_question_are_no_more_than_one() -> None:
    truth, said = answers(40, 10, 40, 10)
    alone = kappa_interval(truth, said, range(100))
    tenfold = kappa_interval(truth * 10, said * 10, list(range(100)) * 10)

    assert tenfold.low == pytest.approx(alone.low, abs=0.02)


def test_no_error_in_few_items_is_not_certainty_and_one_error_never_surer() -> None:
    lows = {}
    for pairs in (5, 20, 40):
        truth, said = answers(pairs, 0, pairs, 0)
        clusters = [*range(pairs), *range(pairs)]
        lows[pairs] = kappa_interval(truth, said, clusters).low
        said[0] = False
        assert kappa_interval(truth, said, clusters).low <= lows[pairs]
    assert lows[5] < 0 < lows[20] < lows[40] < 1
    assert lows[20] == pytest.approx(1 - 2 * (1 - 0.025 ** (1 / 20)), abs=1e-6), "Clopper and Pearson, none of 20"


def test_a_guesser_passes_for_a_judge_in_few_of_many_calibrations() -> None:
    draw = random.Random(7)
    truth = [True, False] * 40
    clusters = [place // 2 for place in range(80)]
    above = sum(kappa_interval(truth, [draw.random() < 0.5 for _ in truth], clusters).low > 0 for _ in range(40))

    assert above <= 4, "2.5% of the time by chance"


@pytest.mark.parametrize(("truth", "said", "clusters", "told"), [
    ([], [], [], "at least one"), ([True], [True, False], [1], "each item"), ([True, True], [True, True], [1, 2], "are not"), ([True, False], [True, False], [1], "cluster"),
])  # fmt: skip
def test_what_has_no_kappa_is_refused(truth: list[bool], said: list[bool], clusters: list[int], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        kappa_interval(truth, said, clusters)
    with pytest.raises(ValueError, match="at least one item"):
        kappa_of(0, 0, 0, 0)


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 5)), min_size=2, max_size=12))
def test_any_grades_have_an_interval_around_their_kappa(rows: list[tuple[bool, bool, int]]) -> None:
    truth, said, clusters = ([each[place] for each in rows] for place in range(3))
    if len(set(truth)) < 2:
        return
    found = kappa_interval(truth, said, clusters)

    assert -1 <= found.low <= found.mean <= found.high <= 1
    assert np.isfinite([found.low, found.mean, found.high]).all()


def test_one_question_that_holds_most_items_is_hardly_more_than_one_question() -> None:
    """Of 80 items 50 are one question's: 31 clusters, and what they say is what two or three would."""
    truth = [True, False] * 40
    few = kappa_interval(truth, truth, [0] * 50 + list(range(1, 31)))

    assert few.low < 0
    assert kappa_interval(truth, truth, [place // 2 for place in range(80)]).low > 0.8

"""Intervals and tests: known values, the promised coverage, clusters, and few or equal items said as what they are."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurons.scoring.inference import difference_interval, share_interval


def test_wilsons_interval_is_the_published_one() -> None:
    """Newcombe 1998 (Statistics in Medicine 17, 857), table I, method 3: 81 of 263, 15 of 148, 0 of 20, 1 of 29."""
    for successes, trials, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        found = share_interval(successes, trials)
        assert (found.low, found.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))
        assert found.mean == successes / trials


def test_an_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    draw = random.Random(7)
    held = 0
    for _ in range(60):
        pairs = [(draw.random() < 0.8, draw.random() < 0.7) for _ in range(80)]
        found = difference_interval([float(a) for a, _ in pairs], [float(b) for _, b in pairs], span=1.0)
        held += found.low <= -0.1 <= found.high
    assert held >= 52  # of 60 at 95 percent fewer come by chance once in 400


def test_items_of_one_cluster_are_no_independent_witnesses() -> None:
    draw = random.Random(3)
    changes = [draw.choice((-1.0, 0.0, 1.0)) for _ in range(20)]
    before, after = [0.0] * 200, [change for change in changes for _ in range(10)]
    clusters = [place // 10 for place in range(200)]

    alone = difference_interval(before, after, span=1.0)
    together = difference_interval(before, after, span=1.0, clusters=clusters)
    assert together.mean == pytest.approx(alone.mean)
    assert together.high - together.low > 2 * (alone.high - alone.low)
    assert difference_interval(before, after, span=1.0, clusters=clusters) == together, "same answers, same interval"


def test_equal_differences_are_no_certainty() -> None:
    few, many = (difference_interval([1.0] * count, [1.0] * count, span=1.0) for count in (3, 300))

    assert few.mean == 0.0
    assert few.low < -0.7
    assert -0.02 < many.low < 0 < many.high < 0.02
    assert difference_interval([0.0], [1.0], span=1.0).low < 0.1


@settings(max_examples=25)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.integers(0, 3)), min_size=1, max_size=12), st.booleans())
def test_whatever_is_scored_has_an_interval_around_its_mean(
    items: list[tuple[float, float, int]], clustered: bool
) -> None:
    found = difference_interval([a for a, _, _ in items], [b for _, b, _ in items], span=1.0,
                                clusters=[c for _, _, c in items] if clustered else None)  # fmt: skip
    assert -1 <= found.low <= found.high <= 1
    assert found.low - 1e-9 <= found.mean <= found.high + 1e-9


@pytest.mark.parametrize(("before", "after", "clusters"), [
    ([], [], None), ([1.0], [1.0, 0.0], None), ([math.nan], [1.0], None), ([0.0], [2.0], None), ([0.0], [1.0], ["a", "b"]), ([0.0], [math.inf], None),
])  # fmt: skip
def test_what_is_no_comparison_is_refused(before: list[float], after: list[float], clusters: list[str] | None) -> None:
    with pytest.raises(ValueError, match=r"item|scale"):
        difference_interval(before, after, span=1.0, clusters=clusters)


@pytest.mark.parametrize(
    "call",
    [
        lambda: share_interval(1, 0),
        lambda: share_interval(3, 2),
        lambda: share_interval(-1, 2),
    ],
)
def test_impossible_counts_are_refused(call: object) -> None:
    assert callable(call)
    with pytest.raises(ValueError):  # noqa: PT011 - scipy's words
        call()

"""A limit that several share: alone one may use all of it, a flood turns away nobody but itself."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurons.shares import Shares


def fill(shares: Shares, whose: str, most: int = 10_000) -> int:
    """Begin as many of this one as get in; returns how many did."""
    taken = 0
    while taken < most and shares.admits(whose):
        shares.begin(whose)
        taken += 1
    return taken


def test_one_alone_may_use_all_of_it() -> None:
    assert fill(Shares(64), "flood") == 64


def test_one_below_its_share_gets_in_beside_a_flood() -> None:
    shares = Shares(64)
    fill(shares, "flood")
    assert not shares.admits("flood")
    assert fill(shares, "light", 3) == 3


def test_what_lies_beyond_the_limit_is_bounded() -> None:
    shares = Shares(64)
    fill(shares, "flood")
    assert sum(fill(shares, f"light {number}", 1) for number in range(100)) == 8
    assert shares.total == 72


def test_a_flood_shrinks_to_its_share_and_not_below() -> None:
    """It asks again whenever anything ends, and so does the other, who began when there was no room."""
    shares = Shares(64)
    running = Counter({"flood": fill(shares, "flood")})
    for _ in range(200):
        for whose in ("flood", "other"):
            running[whose] += fill(shares, whose)
        for whose in ("flood", "other"):
            shares.end(whose)
            running[whose] -= 1
    assert abs(running["flood"] - running["other"]) <= 10


@pytest.mark.parametrize("whose", ["a", "b"])
def test_nobody_gets_in_where_the_limit_is_nothing(whose: str) -> None:
    assert not Shares(0).admits(whose)


@given(st.integers(1, 20), st.lists(st.tuples(st.sampled_from("abcde"), st.booleans()), max_size=200))
def test_counts_come_out_and_nobody_below_its_share_is_refused_while_there_is_room(
    most: int, steps: list[tuple[str, bool]]
) -> None:
    shares = Shares(most)
    running: Counter[str] = Counter()
    for whose, begins in steps:
        if begins:
            sharers = len(running) + (whose not in running)
            room = running.total() < most + -(-most // 8)
            below = running[whose] < max(1, most // sharers)
            assert shares.admits(whose) == (running.total() < most or (room and below))
            if shares.admits(whose):
                shares.begin(whose)
                running[whose] += 1
        elif running[whose]:
            shares.end(whose)
            running[whose] -= 1
        running += Counter()
        assert shares.total == running.total() <= most + -(-most // 8)

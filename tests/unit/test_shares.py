"""A limit that several share: alone one may use all of it, a flood turns away nobody but itself."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurons.shares import Shares

KNOWN = 100


def fill(shares: Shares, whose: str, most: int = 10_000) -> int:
    """Begin as many of this one as get in; returns how many did."""
    taken = 0
    while taken < most and shares.admits(whose, of=KNOWN):
        shares.begin(whose)
        taken += 1
    return taken


def test_one_alone_may_use_all_of_it() -> None:
    assert fill(Shares(64), "flood") == 64


def test_one_below_its_share_gets_in_beside_a_flood() -> None:
    shares = Shares(64)
    fill(shares, "flood")
    assert not shares.admits("flood", of=KNOWN)
    assert fill(shares, "light", 3) == 3


@pytest.mark.parametrize("floods", [2, 3, 5, 50])
def test_floods_that_come_together_leave_everybody_else_places_of_its_own(floods: int) -> None:
    shares = Shares(4096)
    for number in range(floods):
        fill(shares, f"flood {number}")
    assert fill(shares, "light") >= 5


def test_what_lies_beyond_the_limit_is_bounded() -> None:
    shares = Shares(4096)
    for number in range(KNOWN):
        fill(shares, f"flood {number}")
    assert shares.total <= 4096 + 2 * 512
    few = Shares(64)
    fill(few, "flood")
    assert [fill(few, f"light {number}", 1) for number in range(KNOWN)] == [1] * KNOWN


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
    assert not Shares(0).admits(whose, of=KNOWN)


@given(st.integers(1, 20), st.lists(st.tuples(st.sampled_from("abcde"), st.booleans()), max_size=200))
def test_counts_come_out_and_nobody_below_its_share_is_refused_while_there_is_room(
    most: int, steps: list[tuple[str, bool]]
) -> None:
    shares = Shares(most)
    reserve = -(-most // 8)
    running: Counter[str] = Counter()
    for whose, begins in steps:
        if begins:
            sharers = len(running) + (whose not in running)
            room = running.total() < most + reserve
            below = running[whose] < max(1, most // sharers)
            own = running[whose] < max(1, reserve // 5)
            assert shares.admits(whose, of=5) == (running.total() < most or own or (room and below))
            if shares.admits(whose, of=5):
                shares.begin(whose)
                running[whose] += 1
        elif running[whose]:
            shares.end(whose)
            running[whose] -= 1
        running += Counter()
        assert shares.total == running.total() <= most + reserve + max(5, reserve)

"""Start-time fair queueing: whoever waits comes on, by weight, and no place stands empty."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurons.fair_queue import FairQueue

WEIGHTS = {"a": 1.0, "b": 1.0, "c": 2.0, "d": 0.5, "e": 3.0}
Item = tuple[str, int]


def queue() -> FairQueue[Item]:
    return FairQueue(WEIGHTS.__getitem__)


def next_flow(fair: FairQueue[Item]) -> str:
    item = fair.next()
    assert item is not None
    return item[0]


def backlog(fair: FairQueue[Item], flow: str, count: int, *, first: int = 0) -> None:
    for number in range(first, first + count):
        fair.join(flow, (flow, number))


def test_a_flood_that_came_first_lets_the_other_in_at_the_next_place() -> None:
    fair = queue()
    backlog(fair, "a", 1000)
    for _ in range(100):
        assert next_flow(fair) == "a"
    fair.join("b", ("b", 0))
    assert "b" in [next_flow(fair) for _ in range(2)]


def test_one_that_had_all_places_to_itself_owes_no_more_than_its_last_start() -> None:
    fair = queue()
    for _ in range(1000):
        fair.started("a")
    backlog(fair, "a", 10)
    backlog(fair, "b", 10)
    assert Counter(next_flow(fair) for _ in range(10)) in ({"a": 5, "b": 5}, {"a": 4, "b": 6})


def test_one_that_rested_has_no_claim_to_what_others_got_meanwhile() -> None:
    fair = queue()
    fair.started("b")
    backlog(fair, "a", 1000)
    for _ in range(500):
        fair.next()
    backlog(fair, "b", 100)
    assert abs(Counter(next_flow(fair) for _ in range(100))["b"] - 50) <= 1


def test_of_one_flow_the_first_to_come_is_the_first_to_start() -> None:
    fair = queue()
    backlog(fair, "a", 5)
    fair.leave("a", ("a", 2))
    assert [fair.next() for _ in range(5)] == [("a", 0), ("a", 1), ("a", 3), ("a", 4), None]


@pytest.mark.parametrize("flow", ["c", "d", "e"])
def test_starts_go_by_weight(flow: str) -> None:
    fair = queue()
    backlog(fair, "a", 1000)
    backlog(fair, flow, 1000)
    starts = Counter(next_flow(fair) for _ in range(600))
    assert starts[flow] / starts["a"] == pytest.approx(WEIGHTS[flow], rel=0.02)


def test_flows_at_rest_are_forgotten() -> None:
    fair: FairQueue[Item] = FairQueue()
    for number in range(20_000):
        fair.started(f"flow {number}")
        fair.join(f"other {number}", ("x", number))
        fair.leave(f"other {number}", ("x", number))
    assert len(fair._flows) <= 1025
    assert len(fair._heap) <= 4 * 1024


STEPS = st.lists(st.tuples(st.sampled_from("abcde"), st.sampled_from(("join", "join", "next", "leave"))), max_size=300)


@given(STEPS)
def test_whoever_waits_starts_within_the_bound_and_none_is_lost_or_doubled(steps: list[tuple[str, str]]) -> None:
    fair = queue()
    waiting: dict[str, list[Item]] = {flow: [] for flow in WEIGHTS}
    ahead: dict[str, Counter[str]] = {}
    """Starts of other flows since one has been the first of its flow."""
    number = 0
    for flow, step in [*steps, *[("a", "next")] * len(steps)]:
        if step == "join":
            number += 1
            item = (flow, number)
            if not waiting[flow]:
                ahead[flow] = Counter()
            waiting[flow].append(item)
            fair.join(flow, item)
        elif step == "leave" and waiting[flow]:
            item = waiting[flow].pop()
            fair.leave(flow, item)
            if not waiting[flow]:
                del ahead[flow]
        elif step == "next":
            got = fair.next()
            assert (got is None) == (not any(waiting.values())), "a place stands empty though somebody waits"
            if got is not None:
                whose = got[0]
                assert got == waiting[whose].pop(0)
                ahead.pop(whose)
                if waiting[whose]:
                    ahead[whose] = Counter()
                for other, starts in ahead.items():
                    if other != whose:
                        starts[whose] += 1
        assert len(fair) == sum(map(len, waiting.values()))
        for flow_ahead, starts in ahead.items():
            for other, count in starts.items():
                assert count <= math.floor(WEIGHTS[other] / WEIGHTS[flow_ahead]) + 1
    assert not len(fair)


@given(STEPS, st.sets(st.sampled_from("abcde")))
def test_those_that_may_not_start_keep_nobody_else_from_it_and_their_own_place(
    steps: list[tuple[str, str]], barred: set[str]
) -> None:
    fair, plain = queue(), queue()
    for number, (flow, step) in enumerate(steps):
        if step == "join":
            fair.join(flow, (flow, number))
            if flow not in barred:
                plain.join(flow, (flow, number))
        elif step == "next":
            assert fair.next(lambda name: name not in barred) == plain.next()
    left: dict[str, list[int]] = {flow: [] for flow in WEIGHTS}
    while (item := fair.next()) is not None:
        left[item[0]].append(item[1])
    assert all(numbers == sorted(numbers) for numbers in left.values())


@given(st.integers(1, 16), st.integers(2, 40), st.integers(1, 8))
def test_among_places_that_are_given_back_each_backlogged_flow_has_the_same_number(
    places: int, flows: int, rounds: int
) -> None:
    fair: FairQueue[Item] = FairQueue()
    running: list[str] = []
    for flow in range(flows):
        backlog(fair, f"flow {flow}", places * rounds + 1)
    starts: Counter[str] = Counter()
    for _ in range(places):
        running.append(next_flow(fair))
        starts[running[-1]] += 1
    for _ in range(flows * rounds):
        running.pop(0)
        running.append(next_flow(fair))
        starts[running[-1]] += 1
    each = [starts[f"flow {flow}"] for flow in range(flows)]
    assert max(each) - min(each) <= 1


@given(STEPS, st.lists(st.sampled_from("xyz"), min_size=300, max_size=300))
def test_those_of_a_flow_start_in_rotation_and_none_is_lost(steps: list[tuple[str, str]], owners: list[str]) -> None:
    """An owner's first starts after at most one of each other of its flow, from when it is its owner's first."""
    fair: FairQueue[Item] = FairQueue()
    waiting: dict[str, list[Item]] = {owner: [] for owner in "xyz"}
    ahead: dict[str, Counter[str]] = {}
    whose: dict[Item, str] = {}
    for number, ((_, step), owner) in enumerate(zip([*steps, *[("a", "next")] * len(steps)], owners * 2, strict=False)):
        if step == "join":
            item = ("a", number)
            if not waiting[owner]:
                ahead[owner] = Counter()
            waiting[owner].append(item)
            whose[item] = owner
            fair.join("a", item, owner=owner)
        elif step == "leave" and waiting[owner]:
            fair.leave("a", waiting[owner].pop())
            if not waiting[owner]:
                del ahead[owner]
        elif step == "next":
            got = fair.next()
            assert (got is None) == (not any(waiting.values()))
            if got is not None:
                mine = whose[got]
                assert got == waiting[mine].pop(0), "of one owner the first to come is the first to start"
                ahead.pop(mine)
                if waiting[mine]:
                    ahead[mine] = Counter()
                for other, starts in ahead.items():
                    if other != mine:
                        starts[mine] += 1
        assert len(fair) == sum(map(len, waiting.values()))
        assert all(count <= 1 for starts in ahead.values() for count in starts.values())

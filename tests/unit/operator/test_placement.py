"""The plan of which pods hold which twins: it fits, it balances, it keeps like ranks together, and it moves little."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twin_operator.domain.placement import Demand, EnginePod, Plan, kept, place


def engines(count: int, *, slots: int = 8, **more: Any) -> list[EnginePod]:
    return [EnginePod(uid=f"pod-{number}", slots=slots, **more) for number in range(count)]


def twins(count: int, **more: Any) -> list[Demand]:
    return [Demand(uid=f"twin-{number}", **{"rank": 16, **more}) for number in range(count)]


def held(plan: Plan) -> Counter[str]:
    return Counter(pod for pods in plan.pods.values() for pod in pods)


def moves(before: Mapping[str, Sequence[str]], after: Mapping[str, Sequence[str]]) -> int:
    return sum(len(set(after[uid]) - set(before.get(uid, ()))) for uid in after)


def settled(
    pods: Sequence[EnginePod], demand: Sequence[Demand], before: Mapping[str, Sequence[str]]
) -> tuple[Plan, int]:
    """Plan until nothing is left to be moved; returns the last plan and how many places changed on the way."""
    changed = 0
    for _ in range(100):
        plan = place(pods, demand, before)
        changed += moves(before, plan.pods)
        before = plan.pods
        if plan.settled:
            return plan, changed
    raise AssertionError("it goes on moving twins")


def test_24_twins_on_3_pods_of_8_slots_fill_each() -> None:
    assert sorted(held(place(engines(3), twins(24), {})).values()) == [8, 8, 8]


def test_pods_of_different_size_are_filled_to_their_slots() -> None:
    pods = [EnginePod(uid="small", slots=4), EnginePod(uid="large", slots=20)]
    assert held(place(pods, twins(24), {})) == {"small": 4, "large": 20}


def test_twins_that_are_not_in_use_take_no_slot_from_those_that_are() -> None:
    demand = [*twins(16, load=1000), *(Demand(uid=f"idle-{n}", rank=16, load=0) for n in range(100))]
    plan = place(engines(2), demand, {})
    active = Counter(plan.pods[twin.uid][0] for twin in demand if twin.load)
    assert set(active.values()) == {8}
    assert max(held(plan).values()) - min(held(plan).values()) <= 12


def test_a_new_pod_takes_its_share_and_no_more_moves() -> None:
    before = place(engines(7, slots=200), twins(1000), {}).pods
    plan, changed = settled(engines(8, slots=200), twins(1000), before)
    assert min(held(plan).values()) >= 100
    assert changed <= 2 * 1000 / 8


def test_only_what_was_on_a_pod_that_died_moves() -> None:
    before = place(engines(8, slots=200), twins(1000), {}).pods
    plan, changed = settled(engines(8, slots=200)[1:], twins(1000), before)
    assert changed <= 2 * 1000 / 8
    assert all(plan.pods[uid] == pods for uid, pods in before.items() if pods != ("pod-0",))


def test_a_pod_that_is_not_ready_is_stood_in_for_and_has_its_twins_back() -> None:
    before = place(engines(3), twins(12), {}).pods
    away = [EnginePod(uid="pod-0", slots=8, ready=False), *engines(3)[1:]]
    meanwhile = place(away, twins(12), before)
    for uid, pods in before.items():
        if pods == ("pod-0",):
            assert meanwhile.pods[uid][0] == "pod-0"
            assert meanwhile.pods[uid][1] in {"pod-1", "pod-2"}
        else:
            assert meanwhile.pods[uid] == pods
    assert place(engines(3), twins(12), meanwhile.pods).pods == before


def test_while_no_pod_is_ready_those_that_start_are_given_what_they_are_to_hold() -> None:
    assert sorted(held(place(engines(2, ready=False), twins(8), {})).values()) == [4, 4]


def test_without_any_pod_nothing_is_placed() -> None:
    assert place([], twins(2), {}).pods == {"twin-0": (), "twin-1": ()}


def test_like_ranks_share_pods() -> None:
    demand = [Demand(uid=f"twin-{n}", rank=8 if n % 4 else 128) for n in range(64)]
    plan = place(engines(4, slots=64), demand, {})
    ranks = {twin.uid: twin.rank for twin in demand}
    with_high = {pods[0] for uid, pods in plan.pods.items() if ranks[uid] == 128}
    assert len(with_high) == 1


def test_one_high_rank_that_comes_to_pods_of_low_ranks_spoils_one_of_them() -> None:
    low = twins(30, rank=8)
    before = place(engines(3, slots=64), low, {}).pods
    demand = [*low, *(Demand(uid=f"high-{n}", rank=128) for n in range(3))]
    plan, changed = settled(engines(3, slots=64), demand, before)
    assert len({plan.pods[f"high-{n}"][0] for n in range(3)}) == 1
    assert changed <= 2 * 11 + 3


def test_few_high_ranks_on_every_pod_are_brought_together_by_few_moves_at_a_time() -> None:
    demand = [Demand(uid=f"twin-{n}", rank=128 if n < 8 else 8) for n in range(64)]
    mixed = {twin.uid: (f"pod-{n % 4}",) for n, twin in enumerate(demand)}
    first = place(engines(4, slots=64), demand, mixed)
    assert 0 < moves(mixed, first.pods) <= 16
    plan, _ = settled(engines(4, slots=64), demand, mixed)
    assert len({plan.pods[f"twin-{n}"] for n in range(8)}) == 1


def test_ranks_that_are_mixed_half_and_half_are_not_worth_moving() -> None:
    demand = [Demand(uid=f"twin-{n}", rank=8 if n % 2 else 128) for n in range(64)]
    mixed = {twin.uid: (f"pod-{n // 2 % 4}",) for n, twin in enumerate(demand)}
    assert place(engines(4, slots=64), demand, mixed).pods == mixed


def test_a_hot_twin_is_on_several_pods_and_a_cool_one_on_one() -> None:
    demand = [Demand(uid="hot", rank=16, load=40_000), *twins(30, load=1000)]
    plan = place(engines(4), demand, {})
    assert len(plan.pods["hot"]) > 1
    assert all(len(plan.pods[twin.uid]) == 1 for twin in demand[1:])


def test_a_load_at_the_border_of_hot_moves_nothing() -> None:
    cool = [Demand(uid="hot", rank=16, load=8500), *twins(8, load=1000)]
    hot = [Demand(uid="hot", rank=16, load=7900), *twins(8, load=1000)]
    before = place(engines(4), cool, {}).pods
    assert place(engines(4), hot, before).pods["hot"] == before["hot"]


def test_load_is_balanced_as_well_as_number() -> None:
    demand = [Demand(uid=f"twin-{n}", rank=16, load=4000 if n < 4 else 100) for n in range(40)]
    plan = place(engines(4, slots=64), demand, {})
    loads: Counter[str] = Counter()
    for twin in demand:
        for pod in plan.pods[twin.uid]:
            loads[pod] += (twin.load or 0) // len(plan.pods[twin.uid])
    assert max(loads.values()) <= 1.3 * sum(loads.values()) / 4


def test_replicas_are_as_many_as_asked_and_as_there_are_pods() -> None:
    plan = place(engines(3), [Demand(uid="two", rank=8, replicas=2), Demand(uid="many", rank=8, replicas=9)], {})
    assert len(set(plan.pods["two"])) == 2
    assert len(set(plan.pods["many"])) == 3


def test_who_can_stay_stays_without_a_plan() -> None:
    pods = {pod.uid: pod for pod in engines(3)}
    assert kept(Demand(uid="a", replicas=2), ("pod-1", "gone", "pod-0", "pod-2"), pods) == ("pod-1", "pod-0")
    assert kept(Demand(uid="a", replicas=2), ("pod-1",), pods) is None
    assert kept(Demand(uid="a"), ("gone",), pods) is None
    pods["pod-1"] = EnginePod(uid="pod-1", slots=8, ready=False)
    assert kept(Demand(uid="a", replicas=1), ("pod-1", "pod-0"), pods) == ("pod-1", "pod-0")


POOLS = st.lists(
    st.builds(
        EnginePod, uid=st.from_regex(r"p[0-9]{1,2}", fullmatch=True), slots=st.integers(1, 40), ready=st.booleans()
    ),
    max_size=9, unique_by=lambda pod: pod.uid,
)  # fmt: skip
DEMANDS = st.lists(
    st.builds(
        Demand, uid=st.from_regex(r"t[0-9]{1,3}", fullmatch=True), rank=st.sampled_from([8, 16, 24, 64, 128]),
        load=st.none() | st.integers(0, 20_000), replicas=st.none() | st.integers(1, 5),
    ),
    max_size=60, unique_by=lambda twin: twin.uid,
)  # fmt: skip
HISTORIES = st.dictionaries(
    st.from_regex(r"t[0-9]{1,3}", fullmatch=True), st.lists(st.from_regex(r"p[0-9]{1,2}", fullmatch=True), max_size=6)
)


@given(POOLS, DEMANDS, HISTORIES, st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_any_plan_is_whole_and_comes_to_rest(
    pods: list[EnginePod], demand: list[Demand], before: dict[str, list[str]], draw: random.Random
) -> None:
    plan = place(pods, demand, before)
    usable = {pod.uid for pod in pods if pod.ready} or {pod.uid for pod in pods}
    for twin in demand:
        found = plan.pods[twin.uid]
        assert len(found) == len(set(found))
        assert set(found) <= {pod.uid for pod in pods}
        wanted = min(twin.replicas or 1, len(usable))
        assert len(usable.intersection(found)) == wanted or (twin.replicas is None and len(found) > wanted)
    again = place(draw.sample(pods, len(pods)), draw.sample(demand, len(demand)), before)
    assert again == plan
    last, _ = settled(pods, demand, plan.pods)
    assert place(pods, demand, last.pods).pods == last.pods


@given(POOLS, DEMANDS, HISTORIES)
@settings(max_examples=100, deadline=None)
def test_no_plan_moves_more_than_a_share_beside_what_has_no_place(
    pods: list[EnginePod], demand: list[Demand], before: dict[str, list[str]]
) -> None:
    plan = place(pods, demand, before)
    usable = sum(pod.ready for pod in pods) or len(pods)
    placed = sum(len(found) for found in plan.pods.values())
    if usable:
        assert plan.moved <= -(-placed // usable)
    assert place(pods, demand, before, moves=0).moved == 0


@pytest.mark.parametrize("seed", range(5))
def test_slots_suffice_where_they_can(seed: int) -> None:
    draw = random.Random(seed)
    pods = [EnginePod(uid=f"pod-{n}", slots=draw.randint(2, 20)) for n in range(6)]
    demand = [
        Demand(uid=f"twin-{n}", rank=draw.choice([8, 16, 64]), load=draw.choice([None, 100, 900]))
        for n in range(sum(pod.slots for pod in pods))
    ]
    plan, _ = settled(pods, demand, {})
    assert all(held(plan)[pod.uid] <= pod.slots for pod in pods)


# --- a pod that is slower than the others


def with_slow(count: int, *slow: int, **more: Any) -> list[EnginePod]:
    return [EnginePod(uid=f"pod-{number}", slow=number in slow, **{"slots": 8, **more}) for number in range(count)]


@pytest.mark.parametrize("load", [None, 1000])
def test_twins_leave_a_slow_pod_and_no_other_is_moved(load: int | None) -> None:
    demand = twins(16, load=load)
    before, _ = settled(engines(3), demand, {})
    plan, changed = settled(with_slow(3, 0), demand, before.pods)
    assert held(plan).keys() == {"pod-1", "pod-2"}
    assert changed == held(before)["pod-0"]


def test_at_most_one_pods_share_leaves_at_once() -> None:
    demand = twins(400)
    before = place(engines(4, slots=400), demand, {}).pods
    plan = place(with_slow(4, 0, slots=400), demand, before)
    assert plan.moved <= 134
    assert place(with_slow(4, 0, slots=400), demand, before, moves=5).moved == 5
    assert place(with_slow(4, 0, slots=400), demand, before, under_way=130).moved <= 4


def test_nobody_leaves_a_slow_pod_where_the_others_have_no_slots_for_those_in_use() -> None:
    full = place(engines(3), twins(24), {}).pods
    assert place(with_slow(3, 0), twins(24), full).pods == full
    idle = [*twins(16), *(Demand(uid=f"idle-{number}", rank=16, load=0) for number in range(8))]
    settled_plan, _ = settled(with_slow(3, 0), idle, full)
    assert "pod-0" not in held(settled_plan)


def test_nobody_leaves_a_slow_pod_where_a_twin_needs_all_of_them() -> None:
    demand = twins(2, replicas=3)
    before = place(engines(3), demand, {}).pods
    assert place(with_slow(3, 0), demand, before).pods == before
    assert place(with_slow(1, 0), twins(2), {}).pods == {"twin-0": ("pod-0",), "twin-1": ("pod-0",)}


def test_no_more_than_a_third_of_the_pods_are_emptied() -> None:
    plan, _ = settled(with_slow(3, 0, 1, 2), twins(4), {})
    assert held(plan).keys() == {"pod-1", "pod-2"}
    plan, _ = settled(with_slow(6, 0, 1, 2, slots=99), twins(60), {})
    assert held(plan).keys() == {"pod-2", "pod-3", "pod-4", "pod-5"}


def test_a_pod_that_is_no_longer_slow_has_its_share_again() -> None:
    demand = twins(16)
    before, _ = settled(with_slow(3, 0), demand, {})
    plan, changed = settled(engines(3), demand, before.pods)
    assert held(plan)["pod-0"] >= 3
    assert changed <= 6


@given(st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_with_slow_pods_the_plan_of_a_plan_is_itself_and_all_have_places(seed: int) -> None:
    chance = random.Random(seed)
    count = chance.randint(1, 6)
    pods = [
        EnginePod(uid=f"pod-{n}", slots=chance.choice([2, 8]), ready=chance.random() < 0.8, slow=chance.random() < 0.4)
        for n in range(count)
    ]
    demand = [
        Demand(
            uid=f"t{n}", rank=chance.choice([8, 16, 128]), load=chance.choice([None, 0, 100, 5000]),
            replicas=chance.choice([None, None, 1, 2, 9]),
        )
        for n in range(chance.randint(0, 30))
    ]  # fmt: skip
    before = {twin.uid: chance.sample([pod.uid for pod in pods], chance.randint(0, count)) for twin in demand}
    plan, _ = settled(pods, demand, before)
    assert all(plan.pods.values())
    assert place(pods, demand, plan.pods).pods == plan.pods

"""Weights out of averages: who is paid, who shares, who isn't, and why."""

from __future__ import annotations

import pytest

from neurons.validator.rounds.duplicates import Group, Said, groups_of
from neurons.validator.rounds.rewards import (
    WHOLE,
    Parts,
    Shares,
    Unpaid,
    apportion,
    moving,
    reward,
    total_of,
)
from tests.unit.rounds.people import entrant, miner

OWNER = "the owner"


def test_weights_are_whole_and_follow_the_scores() -> None:
    rewards = reward(
        {miner(0): 0.9, miner(1): 0.6, miner(2): 0.3}, [entrant(n) for n in range(3)], top=100, owner_coldkey=OWNER
    )
    weights = [rewards.of[miner(n)].weight for n in range(3)]
    assert sum(weights) == WHOLE
    assert weights[0] / weights[1] == pytest.approx((0.9 / 0.6) ** 3, rel=1e-4)


def test_all_equal_share_alike_and_one_takes_all_and_none_gets_none() -> None:
    equal = reward({miner(n): 0.5 for n in range(3)}, [entrant(n) for n in range(3)], top=9, owner_coldkey=OWNER)
    assert sorted(each.weight for each in equal.of.values()) == [333_333, 333_333, 333_334]
    one = reward({miner(0): 0.01}, [entrant(0)], top=9, owner_coldkey=OWNER)
    assert one.of[miner(0)].weight == WHOLE
    assert reward({}, [], top=9, owner_coldkey=OWNER).weights == {}
    assert "no weights" in reward({miner(0): 0.0}, [entrant(0)], top=9, owner_coldkey=OWNER).note


def test_a_coldkey_is_paid_once_for_its_best() -> None:
    entrants = [entrant(0, coldkey="one"), entrant(1, coldkey="one"), entrant(2)]
    rewards = reward({miner(0): 0.5, miner(1): 0.6, miner(2): 0.6}, entrants, top=9, owner_coldkey=OWNER)
    assert rewards.of[miner(0)].unpaid is Unpaid.SAME_OWNER
    assert rewards.of[miner(1)].weight == rewards.of[miner(2)].weight == WHOLE // 2


def test_who_registered_anew_inherits_nothing() -> None:
    rewards = reward({miner(0): 0.9, miner(1): 0.1}, [entrant(0, block=777), entrant(1)], top=9, owner_coldkey=OWNER)
    assert rewards.of[miner(0)].unpaid is Unpaid.GONE
    assert miner(0, block=777) not in rewards.of
    assert rewards.of[miner(1)].weight == WHOLE


def test_only_the_top_are_paid_and_the_older_first_among_equals() -> None:
    rewards = reward({miner(n): 0.5 for n in range(4)}, [entrant(n) for n in range(4)], top=2, owner_coldkey=OWNER)
    assert [rewards.of[miner(n)].unpaid for n in range(4)] == [None, None, Unpaid.BELOW_TOP, Unpaid.BELOW_TOP]


def test_nothing_is_burned_by_default_and_what_is_goes_to_withheld_hotkeys_alone() -> None:
    entrants = [entrant(0), entrant(1, coldkey=OWNER)]
    scores = {miner(0): 0.5, miner(1): 0.9}
    plain = reward(scores, entrants, top=9, owner_coldkey=OWNER)
    assert plain.of[miner(1)].unpaid is Unpaid.WITHHELD
    assert (plain.of[miner(0)].weight, plain.burned, plain.lost_percent) == (WHOLE, {}, 0)
    burned = reward(scores, entrants, top=9, owner_coldkey=OWNER, burn_percent=40)
    assert burned.burned == {miner(1): 400_000}
    assert (burned.of[miner(0)].weight, burned.lost_percent) == (600_000, 40)
    nowhere = reward({miner(0): 0.5}, [entrant(0)], top=9, owner_coldkey=OWNER, burn_percent=40)
    assert (nowhere.of[miner(0)].weight, nowhere.lost_percent) == (WHOLE, 0)
    assert "nothing is burned" in nowhere.note


def test_near_duplicates_share_one_reward_and_who_copies_gets_less_of_it() -> None:
    group = Group({miner(0): 5, miner(1): 0})
    rewards = reward(
        {miner(0): 0.5, miner(1): 0.5, miner(2): 0.5}, [entrant(n) for n in range(3)], top=9, owner_coldkey=OWNER,
        groups=[group],
    )  # fmt: skip
    assert [rewards.of[miner(n)].weight for n in range(3)] == [375_000, 125_000, 500_000]
    assert rewards.of[miner(1)].shared_with == 1


def test_unproven_receipts_earn_nothing() -> None:
    rewards = reward(
        {miner(0): 0.9, miner(1): 0.1}, [entrant(0), entrant(1)], top=9, owner_coldkey=OWNER,
        disqualified={miner(0): Unpaid.UNPROVEN},
    )  # fmt: skip
    assert rewards.of[miner(0)].weight == 0


def test_unknown_parts_count_neither_way_and_speed_only_as_far_as_answers_are_right() -> None:
    shares = Shares()
    assert total_of(Parts(correctness=0.8), shares, answered=1.0) == pytest.approx(0.8)
    assert total_of(Parts(correctness=0.8, speed=1.0), shares, answered=1.0) == pytest.approx(
        (50 * 0.8 + 20 * 0.8) / 70
    )
    assert total_of(Parts(correctness=0.0, speed=1.0), shares, answered=1.0) == 0.0
    assert total_of(Parts(correctness=None, speed=1.0), shares, answered=1.0) is None
    assert total_of(Parts(correctness=1.0), shares, answered=0.5) == pytest.approx(0.5)
    assert total_of(Parts(), shares, answered=0.0) == 0.0
    assert total_of(Parts(), shares, answered=None) is None


def test_the_average_is_kept_through_a_round_that_concludes_nothing() -> None:
    assert moving(0.4, None, alpha=0.3) == 0.4
    assert moving(None, None, alpha=0.3) is None
    assert moving(None, 1.0, alpha=0.3) == pytest.approx(0.3)
    assert moving(0.4, 1.0, alpha=0.25) == pytest.approx(0.55)


def test_apportioning_loses_nothing() -> None:
    worths = {miner(n): 1.0 + n for n in range(7)}
    assert sum(apportion(worths, WHOLE).values()) == WHOLE


BASE = "Drink enough water, rest for two days, and call your doctor if the fever goes above thirty nine degrees. "


def said(text: str, ms: int = 10) -> Said:
    return Said(text, ms)


def test_copies_with_other_spacing_and_a_word_changed_are_found_and_honest_ones_are_not() -> None:
    other = (
        "With a temperature like that I would take paracetamol, keep the room cool and see somebody tomorrow morning. "
    )
    items = [
        {
            miner(0): said(BASE + topic, 100), miner(1): said((BASE + topic).upper().replace("ENOUGH", "SOME"), 900),
            miner(2): said(other + topic, 50),
        }
        for topic in ("Sleep well.", "Eat light soup today.", "Keep the window open.", "Take your time.")
    ]  # fmt: skip
    [group] = groups_of(items)
    assert group.miners == (miner(0), miner(1))
    assert group.first == {miner(0): 4, miner(1): 0}


def test_short_answers_that_are_alike_say_nothing_of_who_copies() -> None:
    assert groups_of([{miner(n): said("folic acid") for n in range(3)} for _ in range(10)]) == ()


def test_two_items_are_too_few_to_say_so() -> None:
    assert groups_of([{miner(0): said(BASE), miner(1): said(BASE)} for _ in range(2)]) == ()

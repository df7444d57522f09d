"""Cheats beside honest miners, by the rounds' own code; the benchmark does the same with more rounds and seeds."""

from __future__ import annotations

import pytest

from tests.bench.rounds import against_honest, cheats, neutral, ranked, spearman


@pytest.mark.parametrize("cheat", sorted(cheats()))
def test_a_cheat_earns_less_than_an_honest_miner_of_equal_quality(cheat: str) -> None:
    rounds = 12 if cheat in ("absent", "renewed") else 6  # they need some to be away, or to begin anew
    of_cheat, of_honest = against_honest(cheat, seed=3, rounds=rounds, items=20)
    assert of_honest > 0
    if cheat == "sybil":
        # one owner's best hotkey is an honest miner; what is cheated is the number, and that earns nothing
        assert of_cheat <= 1.35 * of_honest
    else:
        assert of_cheat < of_honest


@pytest.mark.parametrize("what", sorted(neutral()))
def test_to_be_measured_less_earns_no_more(what: str) -> None:
    ratios = [one / honest for one, honest in (against_honest(what, seed=seed, rounds=8) for seed in range(5))]
    assert sorted(ratios)[2] <= 1.15


def test_the_weights_follow_the_truth() -> None:
    assert ranked(seed=1, rounds=6, items=40) >= 0.95


def test_spearman() -> None:
    assert spearman([1, 2, 3], [10, 20, 30]) == pytest.approx(1.0)
    assert spearman([1, 2, 3], [3, 2, 1]) == pytest.approx(-1.0)

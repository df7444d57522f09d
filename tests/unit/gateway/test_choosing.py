"""Who is asked, and whose answer is best: pure decisions."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

from neurons.validator.gateway.ranking import AgreementRanker, Candidate
from neurons.validator.gateway.selection import order
from neurons.validator.gateway.standing import FIRST_CAPACITY, MinerId, Standing, Standings


@dataclass(frozen=True)
class Who:
    identity: MinerId
    coldkey: str


def who(number: int, *, owner: str | None = None) -> Who:
    return Who(MinerId(f"hotkey-{number}", 1), owner or f"owner-{number}")


def drawn(candidates: list[Who], standings: Standings, *, explore: float = 0.0, count: int = 3) -> Counter[str]:
    rng = random.Random(7)
    asked: Counter[str] = Counter()
    for _ in range(2000):
        asked.update(
            each.identity.hotkey
            for each in order(candidates, standings, count=count, explore=explore, now=0.0, rng=rng)[:count]
        )
    return asked


def test_the_better_is_asked_more_often_and_the_others_too() -> None:
    candidates, standings = [who(number) for number in range(5)], Standings()
    standings.get(candidates[0].identity).wins = 1.0
    standings.get(candidates[4].identity).reliability = 0.2
    asked = drawn(candidates, standings)
    assert asked["hotkey-0"] > asked["hotkey-1"] > asked["hotkey-4"] > 0


def test_a_newcomer_is_asked_by_exploration() -> None:
    candidates, standings = [who(number) for number in range(10)], Standings()
    for candidate in candidates[:9]:
        standings.get(candidate.identity).asked = 1000
        standings.get(candidate.identity).wins = 1.0
    standings.get(candidates[9].identity).reliability = 0.1
    assert drawn(candidates, standings)["hotkey-9"] < 60
    assert drawn(candidates, standings, explore=0.1)["hotkey-9"] > 150


def test_one_owners_miners_are_not_asked_side_by_side_while_others_are_there() -> None:
    candidates = [who(number, owner="sybil") for number in range(20)] + [who(20), who(21)]
    for _ in range(50):
        first = order(candidates, Standings(), count=3, explore=0.0, now=0.0, rng=random.Random())[:3]
        assert sum(each.coldkey == "sybil" for each in first) == 1
    alone = order(candidates[:4], Standings(), count=3, explore=0.0, now=0.0, rng=random.Random(1))
    assert len(alone) == 4


def test_who_rests_comes_last_and_who_has_no_room_not_at_all() -> None:
    candidates, standings = [who(number) for number in range(3)], Standings()
    standings.get(candidates[0].identity).rests_until = 10.0
    for _ in range(int(FIRST_CAPACITY)):
        standings.get(candidates[1].identity).begin("")
    got = order(candidates, standings, count=3, explore=0.5, now=5.0, rng=random.Random(1))
    assert got == [candidates[2], candidates[0]]


def test_a_client_that_floods_a_miner_leaves_room_for_others_and_shrinks_to_its_share() -> None:
    standing = Standing(capacity=8.0)

    def ask(whose: str, most: int = 100) -> int:
        asked = 0
        while asked < most and standing.has_room(whose):
            standing.begin(whose)
            asked += 1
        return asked

    assert ask("flood") == 8, "alone it may have all"
    assert (ask("light", 1), ask("flood")) == (1, 0)
    assert ask("late", 1) == 0, "what lies beyond is bounded"
    for _ in range(20):
        standing.end("flood")
        ask("light")
        ask("flood")
        standing.end("light")
        ask("light")
        ask("flood")
    assert abs(standing.running["flood"] - standing.running["light"]) <= 1
    for whose, count in list(standing.running.items()):
        for _ in range(count):
            standing.end(whose)
    assert (standing.in_flight, standing.running) == (0, {})


def test_capacity_is_earned_by_answering_and_lost_by_failing() -> None:
    standing = Standing()
    for _ in range(200):
        standing.answered(0.1)
    earned = standing.capacity
    assert earned > 2 * FIRST_CAPACITY
    standing.failed(now=100.0)
    assert standing.capacity == earned / 2
    assert not standing.rests(100.0), "once may happen"
    standing.failed(now=100.0)
    assert standing.rests(100.5)
    standing.answered(0.1)
    standing.failed(now=200.0)
    assert not standing.rests(200.0)
    standing.failed(now=300.0, weight=4)
    assert standing.rests(302.0), "a lie is no accident"


def candidate(text: str, owner: str, *, finish: str = "stop", satisfaction: float = 0.5) -> Candidate:
    return Candidate(text=text, finish_reason=finish, owner=owner, satisfaction=satisfaction)


def best(*answers: Candidate) -> str:
    scores = AgreementRanker().scores("What now?", answers)
    assert all(0 <= score.total <= 1 for score in scores)
    return answers[max(range(len(answers)), key=lambda number: scores[number].total)].text


def test_what_others_say_too_is_better() -> None:
    water = "Drink plenty of water and rest; see a doctor if it lasts."
    rest = "Rest and drink water. See a doctor if it lasts longer."
    odd = "Buy our golden elixir, which heals everything by tomorrow."
    assert best(candidate(odd, "a"), candidate(water, "b"), candidate(rest, "c")) != odd


def test_one_owner_does_not_confirm_itself() -> None:
    elixir = "Buy our golden elixir, which heals everything by tomorrow."
    water, rest = "Drink water and rest for two days.", "Rest for two days and drink water."
    assert best(candidate(elixir, "s"), candidate(elixir, "s"), candidate(water, "b"), candidate(rest, "c")) != elixir


def test_cut_short_and_oddly_long_answers_lose() -> None:
    said = "Drink water and rest for two days."
    assert best(candidate(said + " And", "a", finish="length"), candidate(said, "b")) == said
    padded = said * 40
    assert best(candidate(padded, "a"), candidate(said, "b"), candidate(said, "c")) == said


def test_patients_ratings_decide_between_equals() -> None:
    one, other = "Drink water, rest.", "Rest, drink water."
    assert best(candidate(one, "a", satisfaction=0.9), candidate(other, "b", satisfaction=0.2)) == one


def test_one_answer_nothing_and_nepali_are_scored() -> None:
    assert AgreementRanker().scores("?", []) == []
    [alone] = AgreementRanker().scores("?", [candidate("Rest.", "a")])
    assert alone.parts["agreement"] is None
    nepali = "पानी पिउनुहोस् र आराम गर्नुहोस्।"
    [one, _] = AgreementRanker().scores("?", [candidate(nepali, "a"), candidate("आराम गर्नुहोस् र पानी पिउनुहोस्।", "b")])
    assert (one.parts["agreement"] or 0) > 0.99

"""Miners that are measured less than others, by what they leave out: none of it pays."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bettertherapy_api.round_progress import RoundOrder
from neurons.ledger import Consent, Ledger, Miner, Question, RoundItem, Session, Twin, new_id
from neurons.ledger.records import Score, derived_id
from neurons.validator.rounds.conclude import Outcome, Results
from neurons.validator.rounds.marks import CLARITY, WORTH, marks_of
from neurons.validator.rounds.prometheus import Readings
from neurons.validator.rounds.rewards import Parts, filled, usual
from neurons.validator.rounds.speed import Speed
from tests.unit.ledger.world import Clean
from tests.unit.rounds.people import ROUND, STARTED_MS, TWIN, miner, order
from tests.unit.rounds.played import Says, means, played, right, run, wrong

OTHER = Twin(uid="22222222-2222-4222-8222-222222222222", name="maya")


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[Ledger]:
    async with await Ledger.open(f"sqlite:///{tmp_path}/ledger.db") as opened:
        yield opened


def of(results: Results, who: Miner) -> Outcome:
    return next(each for each in results.outcomes if each.miner == who)


def second(**changes: Any) -> RoundOrder:
    return order(
        uid="bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb", name="r2", startedAt="2026-11-01T16:00:00Z", seed=8, **changes
    )


def every(number: int, says: Says, *, else_: Says) -> Says:
    """Say one thing to every so manieth question, by its id, and another to all others."""
    return lambda item: says(item) if int(item.item_id.replace("-", ""), 16) % number == 0 else else_(item)


async def test_who_went_away_lives_on_no_average_of_better_days(ledger: Ledger) -> None:
    before = of(await run(means(ledger, played(right, right))).run(), miner(0))
    left = played(right, miners=[miner(1)])
    left.neurons = played(right, right).neurons
    after = of(await run(means(ledger, left), second()).run(), miner(0))
    assert after.total == 0.0
    assert (after.moving or 0) < 0.8 * (before.moving or 0)
    assert "it was not there to be asked, and others were" in after.notes


async def test_who_was_not_meant_or_met_nobody_keeps_it(ledger: Ledger) -> None:
    twins = {TWIN.name: TWIN, OTHER.name: OTHER}
    subnet = played(right, right)
    subnet.serves = {TWIN.name: [miner(0)], OTHER.name: [miner(1)]}
    before = of(await run(means(ledger, subnet, twins=lambda: twins)).run(), miner(0))
    one_twin = await run(means(ledger, subnet, twins=lambda: twins), second(twins=[OTHER.name])).run()
    assert of(one_twin, miner(0)).moving == before.moving


async def test_where_nobody_answers_who_is_away_keeps_it(ledger: Ledger) -> None:
    before = of(await run(means(ledger, played(right, right))).run(), miner(0))
    left = played(lambda item: None, miners=[miner(1)])
    left.neurons = played(right, right).neurons
    after = of(await run(means(ledger, left), second()).run(), miner(0))
    assert after.moving == before.moving


async def test_who_serves_a_twin_alone_skips_no_question_of_it_for_nothing(ledger: Ledger) -> None:
    twins = {TWIN.name: TWIN, OTHER.name: OTHER}
    subnet = played(right, every(3, right, else_=lambda item: None))
    subnet.serves = {TWIN.name: [miner(0)], OTHER.name: [miner(1)]}
    found = of(await run(means(ledger, subnet, twins=lambda: twins)).run(), miner(1))
    assert 0 < found.attendance.answered < 12
    assert found.attendance.reachable == 12
    assert (found.total or 1.0) < 0.75


async def test_not_to_answer_what_one_would_be_wrong_about_earns_nothing(ledger: Ledger) -> None:
    """Half of what is asked nobody can grade: there a miner answers, and makes up for what it leaves out."""

    def ungraded(item: RoundItem) -> bool:
        return item.kind == "organic"

    async def replayed(kept: Ledger) -> None:
        for number in range(6):
            patient, session = new_id(), new_id()
            await kept.record(
                Consent(new_id(), patient, True, STARTED_MS - 5000),
                Session(session, patient, TWIN, STARTED_MS - 4000),
                Question(new_id(), session, patient, TWIN, Clean(f"My knee hurts. {number}"), STARTED_MS - 3000),
            )

    await replayed(ledger)
    unsure = every(2, wrong, else_=right)
    skipping = every(2, lambda item: right(item) if ungraded(item) else None, else_=right)
    results = await run(means(ledger, played(right, unsure, skipping))).run()
    assert (of(results, miner(2)).total or 1.0) <= (of(results, miner(1)).total or 0.0) + 0.01


def test_a_part_that_is_not_known_is_taken_as_the_middle_of_the_others() -> None:
    known = [Parts(correctness=0.7, speed=speed, satisfaction=0.6) for speed in (0.5, 0.8, 0.9)]
    middle = usual([*known, Parts(correctness=0.1)])
    assert middle == Parts(speed=0.8, satisfaction=0.6)
    assert filled(Parts(correctness=0.7, satisfaction=0.2), middle) == Parts(
        correctness=0.7, speed=0.8, satisfaction=0.2
    )
    assert usual([]) == Parts()


async def test_who_is_not_measured_earns_no_more_than_who_is(ledger: Ledger) -> None:
    async def speeds() -> Readings:
        return Readings(True, "fresh", {miner(n): Speed(0.6, 4.0, 20, 20) for n in range(3)})

    results = await run(means(ledger, played(right, right, right, right), speeds=speeds)).run()
    totals = {each.total for each in results.outcomes}
    assert len(totals) == 1, "all say the same"
    assert of(results, miner(3)).parts.speed is None
    assert "not known, and taken as the middle of all: speed 60%" in of(results, miner(3)).notes


def scores(values: dict[int, list[int | None]], *, twin: str = TWIN.uid) -> list[Score]:
    """Return the worth of each miner's answers, question by question."""
    return [
        Score(
            score_id=derived_id("score", str(who), str(item)), round_id=ROUND, miner=miner(who), part=WORTH,
            value_milli=value, at_ms=1, twin_uid=twin, item_id=derived_id("item", str(item)),
        )
        for who, given in values.items()
        for item, value in enumerate(given)
    ]  # fmt: skip


ASKED = {TWIN.uid: [miner(n) for n in range(10)]}
HALF: list[int | None] = [100_000, 0] * 20
NONE: list[int | None] = [None] * 40
HIDING: list[int | None] = [100_000, None] * 20


def test_who_keeps_what_is_wrong_from_being_graded_is_worth_what_the_rest_is() -> None:
    honest = dict.fromkeys(range(9), HALF)
    found = marks_of(scores({**honest, 9: HIDING}), ASKED)
    assert found[miner(0)].correctness == pytest.approx(0.5)
    assert found[miner(9)].correctness == pytest.approx(0.5, abs=1e-5)
    assert found[miner(9)].withheld == pytest.approx(20.0)
    silent = marks_of(scores({**honest, 9: NONE}), ASKED)
    assert silent[miner(9)].correctness == 0.0, "else who earned well once would keep its average for ever"


@pytest.mark.parametrize(
    "values",
    [
        {**dict.fromkeys(range(9), HALF), 9: [None, *HALF[1:]]},
        {n: [*NONE[:20], *HALF[:20]] for n in range(10)},
        {0: HALF, 1: [*NONE[:4], *HALF[4:]]},
    ],
    ids=["one of forty", "what nobody's answer could be graded on", "four of forty, beside one other miner"],
)
def test_a_grade_that_is_missing_by_chance_costs_nothing(values: dict[int, list[int | None]]) -> None:
    found = marks_of(scores(values), ASKED)
    last = found[miner(max(values))]
    assert last.withheld == 0.0
    given = [each for each in values[max(values)] if each is not None]
    assert last.correctness == pytest.approx(sum(given) / len(given) / 100_000, abs=1e-5)


def test_few_grades_of_many_answers_say_nothing_where_all_have_few() -> None:
    rare = {n: [100_000 if item % 10 == n else None for item in range(40)] for n in range(10)}
    found = marks_of(scores(rare), ASKED)
    assert {each.correctness for each in found.values()} == {None}


def test_clearness_is_of_what_was_measured() -> None:
    clear = [
        Score(
            score_id=derived_id("clear"), round_id=ROUND, miner=miner(0), part=CLARITY, value_milli=50_000, at_ms=1,
            twin_uid=TWIN.uid, item_id=derived_id("item", "0"),
        )
    ]  # fmt: skip
    assert marks_of([*scores({0: [100_000]}), *clear], ASKED)[miner(0)].clarity == pytest.approx(0.5)

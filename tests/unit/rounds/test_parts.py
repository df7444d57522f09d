"""The parts of a score: what patients say, how soon answers come, what became of tasks, whose weights answered."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from neurons.ledger.records import Miner, Task, TaskEvent, TaskState, new_id
from neurons.ledger.rounds import Felt, Pair, Rated, TaskStates
from neurons.validator.rounds.challenges import load_challenges
from neurons.validator.rounds.citations import citations_in
from neurons.validator.rounds.feedback import bradley_terry, satisfaction, shrink
from neurons.validator.rounds.grades import grade_by_verdicts, grade_exactly, length_factor, worth
from neurons.validator.rounds.measures import SOON_MS, on_time, vtrust
from neurons.validator.rounds.participation import participation
from neurons.validator.rounds.speed import SLOW_SECONDS, Series, how_fast, median_of, speeds
from neurons.validator.rounds.tasks import (
    Finished,
    Seen,
    disallowed,
    distinct,
    event_of,
    take_report,
    task_id,
    weakest_topics,
)
from neurons.validator.rounds.weights_check import Measured, Weights, judge_weights
from neurons.wire.tasks import TaskError, sign_report
from tests.unit.receipts.keyring import MINER, STRANGER
from tests.unit.rounds.people import SAMPLE, STARTED_MS, TWIN, miner

SHA = "sha256:" + "0" * 64


def rated(number: int, *stars: int, patient: str | None = None) -> list[Rated]:
    return [Rated(miner(number), patient or new_id(), new_id(), each) for each in stars]


def test_few_ratings_say_little_and_many_say_more() -> None:
    felt = Felt(tuple(rated(0, 5) + rated(1, *[5] * 40) + rated(2, *[1] * 40)), ())
    found = satisfaction(felt)
    assert found[miner(1)].value > found[miner(0)].value > found[miner(2)].value
    assert found[miner(0)].patients == 1
    assert miner(3) not in found, "who was not rated has none, which is not zero"


def test_who_rates_a_hundred_times_counts_once() -> None:
    flood = rated(0, *[5] * 100, patient=new_id()) + rated(0, *[1] * 5)
    assert satisfaction(Felt(tuple(flood), ()))[miner(0)].patients == 6
    assert satisfaction(Felt(tuple(flood), ()))[miner(0)].value < 0.3


def test_without_spread_between_miners_all_are_drawn_to_the_mean() -> None:
    values = {miner(n): [0.0, 1.0] * 10 for n in range(4)}
    assert all(each == pytest.approx(0.5) for each in shrink(values).values())
    assert shrink({}) == {}


def test_comparisons_rank_and_nobody_is_beyond_doubt() -> None:
    pairs = [Pair(new_id(), miner(0), miner(1)) for _ in range(9)] + [
        Pair(new_id(), miner(1), miner(2)) for _ in range(9)
    ]
    found = bradley_terry(pairs)
    assert 1 > found[miner(0)] > found[miner(1)] > found[miner(2)] > 0
    assert found[miner(1)] == pytest.approx(0.5, abs=0.05)
    assert bradley_terry([Pair(new_id(), miner(0), miner(0))]) == {}


def series(number: int, **counts: float) -> list[Series]:
    labels = {"hotkey": miner(number).hotkey, "registered": str(miner(number).registered_block)}
    return [Series(labels | {"outcome": name}, count) for name, count in counts.items()]


def buckets(number: int, **counts: float) -> list[Series]:
    labels = {"hotkey": miner(number).hotkey, "registered": str(miner(number).registered_block)}
    edges = {"one": "1.0", "five": "5.0", "all": "+Inf"}
    return [Series(labels | {"le": edges[name]}, count) for name, count in counts.items()]


def test_speed_is_the_median_times_what_came_and_unknown_for_who_was_hardly_asked() -> None:
    found = speeds(
        [*buckets(0, one=20, five=20, all=20), *buckets(1, one=0, five=20, all=20), *buckets(2, one=3, five=3, all=3)],
        [*series(0, answered=20, late=20, busy=99), *series(1, answered=20), *series(2, answered=3)],
    )
    assert found[miner(0)].value == pytest.approx(0.5)
    assert found[miner(1)].median == pytest.approx(3.0)
    assert 0.5 < found[miner(1)].value < 1
    assert miner(2) not in found
    assert how_fast(SLOW_SECONDS) == 0
    assert median_of({}) is None


def test_strange_labels_are_nobodys() -> None:
    odd = [Series({"hotkey": "x", "registered": "1", "outcome": "answered"}, 50.0)]
    assert speeds([], odd) == {}


def task(number: int, *states: TaskState, deadline_ms: int = STARTED_MS - 1) -> TaskStates:
    made = Task(new_id(), TWIN, miner(number), "file:///d", SHA, STARTED_MS - 1000, deadline_ms)
    events = tuple(
        TaskEvent(new_id(), made.task_id, state, STARTED_MS - 900 + place) for place, state in enumerate(states)
    )
    return TaskStates(made, events)


def test_participation_counts_what_ended_and_leaves_out_what_may_still_be_done() -> None:
    taken, done, passed, left = TaskState.ACCEPTED, TaskState.FINISHED, TaskState.PASSED, TaskState.EXPIRED
    found = participation(
        [task(0, taken, done, passed), task(1, taken), task(2, left), task(3, taken, deadline_ms=STARTED_MS + 1)],
        now_ms=STARTED_MS,
    )
    assert [found[miner(n)].value for n in range(3)] == pytest.approx([1.0, 0.2, 0.0])
    assert miner(3) not in found


def test_who_failed_by_itself_or_the_validator_or_reports_anothers_work_has_finished_nothing() -> None:
    """Accepting all and failing at once earned as much as the work, and so did any file that is refused."""
    taken, done, failed = TaskState.ACCEPTED, TaskState.FINISHED, TaskState.FAILED
    found = participation(
        [task(0, taken, failed), task(1, taken, done, TaskState.DISALLOWED), task(2, taken, done, failed)],
        now_ms=STARTED_MS,
    )
    assert [found[miner(n)].value for n in range(3)] == pytest.approx([0.2, 0.2, 0.2])


def test_an_adapter_of_anothers_or_from_before_is_disallowed_once() -> None:
    def finished(number: int, adapter: str, at_ms: int, parent: str | None = None) -> TaskStates:
        made = replace(task(number).task, parent_digest=parent)
        return TaskStates(made, (event_of(made, TaskState.FINISHED, at_ms=at_ms, adapter=adapter),))

    own, copied, parent = (f"sha256:{letter * 64}" for letter in "abc")
    given = [finished(0, own, 5), finished(1, copied, 7), finished(2, copied, 9), finished(3, parent, 5, parent)]
    found = disallowed(given, at_ms=STARTED_MS)
    assert {each.task_id for each in found} == {given[place].task.task_id for place in (2, 3)}
    said = {each.task_id: each for each in found}
    again = [
        TaskStates(each.task, (*each.events, *([said[each.task.task_id]] if each.task.task_id in said else [])))
        for each in given
    ]
    assert disallowed(again, at_ms=STARTED_MS) == []


def test_what_no_miner_could_do_anything_about_counts_neither_way() -> None:
    never_sent, withdrawn = task(0), task(1, TaskState.ACCEPTED, TaskState.WITHDRAWN)
    assert participation([never_sent, withdrawn], now_ms=STARTED_MS) == {}


def test_a_task_is_on_time_when_its_miner_has_answered_soon_after_it_was_made() -> None:
    soon, late, left = task(0, TaskState.REFUSED), task(1, TaskState.ACCEPTED), task(2, TaskState.EXPIRED)
    late_event = event_of(late.task, TaskState.ACCEPTED, at_ms=late.task.at_ms + SOON_MS + 1)
    assert on_time([soon, TaskStates(late.task, (late_event,)), left, task(3)]) == pytest.approx(0.25)
    assert on_time([soon, task(1, TaskState.WITHDRAWN)]) == 1.0
    assert on_time([]) is None


def drawn(mean: float, tokens: int = 60) -> Measured:
    draw = random.Random(1)
    base = [draw.gauss(-2, 0.5) for _ in range(tokens)]
    return Measured(announced=[each + draw.gauss(mean, 0.3) for each in base], base=base)


def test_weights_are_told_apart_by_likelihood_and_little_evidence_blames_nobody() -> None:
    assert judge_weights([drawn(0.4)]).weights is Weights.ANNOUNCED
    assert judge_weights([drawn(-0.4)]).weights is Weights.OTHERS
    assert judge_weights([drawn(-0.4, tokens=8)]).weights is Weights.UNKNOWN
    assert judge_weights([]).weights is Weights.UNKNOWN
    assert judge_weights([Measured(announced=[float("nan")] * 40, base=[-1.0] * 40)]).weights is Weights.UNKNOWN
    odd = Measured(announced=[-60.0, *[-1.0] * 40], base=[-1.0] * 41)
    assert judge_weights([odd]).weights is Weights.UNKNOWN, "one odd token decides nothing"


def test_padding_earns_nothing_and_an_invented_source_costs_all() -> None:
    assert length_factor(45, 30) == 1.0
    assert length_factor(120, 30) == pytest.approx(0.375)
    assert length_factor(120, None) == 1.0
    assert worth(1.0, None, length=1.0, fabricated=True) == 0.0
    assert worth(None, 1.0, length=1.0, fabricated=False) is None
    assert worth(0.0, 1.0, length=1.0, fabricated=False) == 0.0


def test_a_missing_verdict_leaves_an_answer_ungraded() -> None:
    rubric = next(each for each in load_challenges(SAMPLE).challenges if each.kind == "rubric")
    count = len(rubric.criteria)
    assert grade_by_verdicts(rubric, [True] * (count - 1) + [None]).value is None
    assert grade_by_verdicts(rubric, [True] * (count - 1)).value is None
    assert grade_by_verdicts(rubric, [each.points > 0 for each in rubric.criteria]).value == 1.0
    assert grade_exactly(rubric, "Nothing helps.") is not None


def test_quotations_are_found_with_their_page() -> None:
    answer = (
        'As it says: "Adults may take one tablet every six hours" ([Paracetamol](https://medlineplus.gov/x.html)).\n'
        "> Do not take more than four grams a day\n[Leaflet](corpus:sha256:abc#p)\n"
        'And "too short" ([x](https://medlineplus.gov/y.html)).'
    )
    found = citations_in(answer, corpus="local")
    assert [(each.citation.source, each.quote.split()[0]) for each in found] == [
        ("medlineplus", "Adults"),
        ("local", "Do"),
    ]


def test_trust_is_what_lies_below_the_consensus() -> None:
    assert vtrust({0: 1, 1: 1}, {0: 0.5, 1: 0.5}) == pytest.approx(1.0)
    assert vtrust({0: 1, 1: 1}, {0: 1.0, 1: 0.0}) == pytest.approx(0.5)
    assert vtrust({}, {0: 1.0}) is None
    assert vtrust({0: 1}, {}) is None


def test_the_weakest_topics_come_first() -> None:
    seen = [Seen("heart", worth=0.9), Seen("skin", rating=0.0), Seen("skin", supported=0.1), Seen("mind", worth=0.5)]
    assert weakest_topics(seen) == ("skin", "mind", "heart")
    assert weakest_topics([Seen("heart")]) == ()


def offered() -> Task:
    who = Miner(hotkey=str(MINER.ss58_address), registered_block=5)
    return Task(
        task_id=task_id(TWIN, SHA, who), twin=TWIN, miner=who, dataset_uri="https://v/v1/tasks", dataset_digest=SHA,
        parent_digest=None, at_ms=STARTED_MS, deadline_ms=STARTED_MS + 1000,
    )  # fmt: skip


def test_reports_are_taken_in_turn_from_the_tasks_own_miner() -> None:
    made = offered()

    def said(state: str, keypair: object = MINER, adapter: str | None = None) -> bytes:
        return sign_report(keypair, task=made.task_id, state=state, time_ms=STARTED_MS, adapter=adapter)  # type: ignore[arg-type]

    accepted = take_report(said("accepted"), task=made, events=(), at_ms=STARTED_MS + 1)
    assert take_report(said("accepted"), task=made, events=(accepted,), at_ms=STARTED_MS + 2) == accepted
    with pytest.raises(TaskError, match="can't become"):
        take_report(said("finished", adapter=SHA), task=made, events=(), at_ms=STARTED_MS + 1)
    with pytest.raises(TaskError, match="names the digest"):
        take_report(said("finished"), task=made, events=(accepted,), at_ms=STARTED_MS + 1)
    with pytest.raises(TaskError, match="time is over"):
        take_report(said("finished", adapter=SHA), task=made, events=(accepted,), at_ms=STARTED_MS + 2000)
    with pytest.raises(TaskError, match="not by"):
        take_report(said("accepted", STRANGER), task=made, events=(), at_ms=STARTED_MS + 1)
    finished = take_report(said("finished", adapter=SHA), task=made, events=(accepted,), at_ms=STARTED_MS + 5)
    assert finished.adapter_digest == SHA
    other = "sha256:" + "1" * 64
    with pytest.raises(TaskError, match="another adapter"):
        take_report(said("finished", adapter=other), task=made, events=(accepted, finished), at_ms=STARTED_MS + 6)
    withdrawn = event_of(made, TaskState.WITHDRAWN, at_ms=STARTED_MS + 4)
    with pytest.raises(TaskError, match="can't become"):
        take_report(said("finished", adapter=SHA), task=made, events=(accepted, withdrawn), at_ms=STARTED_MS + 6)
    lost = event_of(made, TaskState.EXPIRED, at_ms=STARTED_MS + 1)
    assert take_report(said("accepted"), task=made, events=(lost,), at_ms=STARTED_MS + 2).state is TaskState.ACCEPTED


def test_an_adapter_that_was_there_before_is_nobodys_work() -> None:
    one, two = offered(), replace(offered(), task_id=new_id())
    kept, twice = distinct([Finished(two, SHA, 9), Finished(one, SHA, 5)], known=frozenset())
    assert [each.task for each in kept] == [one]
    assert [each.task for each in twice] == [two]
    assert distinct([Finished(one, SHA, 5)], known=frozenset({SHA}))[0] == []

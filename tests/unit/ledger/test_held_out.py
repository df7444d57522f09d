"""Patients by whom miners' versions are examined: no miner gets a line of theirs, and they are the same every time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import date, timedelta

from neurons.ledger import Ledger, new_id
from neurons.ledger.dataset import Bounds, Disliked, Line, is_held_out
from tests.unit.ledger.world import DAY, DAY_MS, GURUNG, NOON, Conversation, patient

TODAY = date.fromisoformat(DAY)


def everything(lines: Sequence[Line], _: Sequence[Disliked]) -> Sequence[Line]:
    return lines


async def said(ledger: Ledger, *, held_out: bool, at_ms: int = NOON, corrected: bool = True, stars: int = 3) -> str:
    talk = Conversation(patient_id=patient(held_out=held_out), at_ms=at_ms)
    for number in range(2):
        [answer] = talk.ask(f"My knee hurts, number {number}, {new_id()}.", "Rest it.")
        talk.rate(answer, stars)
        if corrected:
            talk.correct(answer, f"Rest it, and come on Tuesday, {new_id()}.")
    await ledger.record(*talk.records)
    return talk.patient_id


def test_one_patient_in_eight_is_held_out_and_always_the_same_ones() -> None:
    patients = [new_id() for _ in range(4000)]
    drawn = [is_held_out(GURUNG.uid, each) for each in patients]
    assert drawn == [is_held_out(GURUNG.uid, each) for each in patients]
    assert 0.09 < Counter(drawn)[True] / len(drawn) < 0.16


async def test_a_task_gets_whole_conversations_of_others_alone(ledger: Ledger) -> None:
    open_, hidden = await said(ledger, held_out=False), await said(ledger, held_out=True)
    shown: list[Line] = []

    def looking(lines: Sequence[Line], disliked: Sequence[Disliked]) -> Sequence[Line]:
        shown.extend(lines)
        return lines

    made = await ledger.task_dataset(twin_uid=GURUNG.uid, day=TODAY, zone="UTC", choose=looking)
    assert {each.patient_id for each in shown} == {open_}
    assert made.lines == 2
    kept = await ledger.held_out(twin_uid=GURUNG.uid, bounds=Bounds.of(TODAY), day=TODAY)
    assert kept.lines == 2
    assert not set(kept.data.splitlines()) & set(made.data.splitlines())
    assert hidden


async def test_the_twins_own_nights_leave_them_out_too_where_miners_are_examined_by_them(ledger: Ledger) -> None:
    await said(ledger, held_out=False)
    await said(ledger, held_out=True)
    assert (await ledger.dataset(twin_uid=GURUNG.uid, day=TODAY)).lines == 4
    assert (await ledger.dataset(twin_uid=GURUNG.uid, day=TODAY, hold_out=True)).lines == 2


async def test_what_is_asked_goes_back_over_days_and_only_what_the_doctor_wrote_is_gold(ledger: Ledger) -> None:
    await said(ledger, held_out=True, at_ms=NOON - 5 * DAY_MS)
    await said(ledger, held_out=True, corrected=False, stars=5)
    bounds = Bounds(Bounds.of(TODAY - timedelta(days=29)).start_ms, Bounds.of(TODAY).end_ms)
    kept = await ledger.held_out(twin_uid=GURUNG.uid, bounds=bounds, day=TODAY)
    assert kept.lines == 2
    assert kept.data.count(b"correction") == 2
    again = await ledger.dataset_again(twin_uid=GURUNG.uid, bounds=bounds, digest=kept.digest)
    assert again == kept.data


async def test_what_a_patient_takes_back_is_asked_no_more(ledger: Ledger) -> None:
    who = await said(ledger, held_out=True)
    bounds = Bounds.of(TODAY)
    kept = await ledger.held_out(twin_uid=GURUNG.uid, bounds=bounds, day=TODAY)
    await ledger.erase(patient_id=who)
    assert await ledger.dataset_again(twin_uid=GURUNG.uid, bounds=bounds, digest=kept.digest) is None
    assert (await ledger.held_out(twin_uid=GURUNG.uid, bounds=bounds, day=TODAY)).lines == 0

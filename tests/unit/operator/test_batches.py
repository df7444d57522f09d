"""Who shares a trainer, and who leads the examination."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.operator.run_samples import STARTED, run
from tests.unit.operator.samples import digest
from twin_operator.domain.batches import Await, Coming, Join, Lead, Member, Share, elect, ref, take_along
from twin_operator.domain.objects import Run

MADE = {"uri": "pvc://adapters/store/x", "digest": digest("b"), "rank": 8, "bytes": 1}


def waiting(name: str, **fields: Any) -> Run:
    return run(name, twin=fields.pop("twin", f"dr-{name}"), **fields)


def along(leader: Run, *line: Run, most: int = 9, unfit: str = "") -> list[str]:
    return [each.name for each in take_along(leader, line, most=most, fits=lambda other: other.name != unfit)]


def test_the_oldest_in_line_come_along_up_to_the_number() -> None:
    line = [waiting(name) for name in ("r2", "r3", "r4")]
    assert along(waiting("r1"), *line, most=2) == ["r2", "r3"]


def test_a_twin_has_one_run_in_a_trainer() -> None:
    line = [waiting("r2", twin="dr-r1"), waiting("r3", twin="t"), waiting("r4", twin="t")]
    assert along(waiting("r1"), *line) == ["r3"]


@pytest.mark.parametrize(
    "asks",
    [
        {"image": "mine:1"}, {"resources": {"requests": {"cpu": "3"}}}, {"queueName": "gpu"},
        {"priorityClassName": "low"}, {"deadlineSeconds": 60}, {"retries": 0},
        {"hyperparameters": {"quantization": "NF4"}},
    ],
)  # fmt: skip
def test_who_asks_for_another_job_does_not_come_along(asks: dict[str, Any]) -> None:
    assert along(waiting("r1"), waiting("r2", **asks), waiting("r3")) == ["r3"]
    assert along(waiting("r1", **asks), waiting("r2", **asks), waiting("r3")) == ["r2"]


def test_how_each_trains_is_its_own() -> None:
    assert along(waiting("r1"), waiting("r2", hyperparameters={"rank": 4, "epochs": 1}, seed=3)) == ["r2"]


def test_who_would_be_given_to_another_pool_does_not_come_along() -> None:
    assert along(waiting("r1"), waiting("r2"), waiting("r3"), unfit="r2") == ["r3"]


def of_trainer(name: str, *, published: bool = True, **status: Any) -> Run:
    given = {**STARTED, "trainer": {"name": "r0", "uid": "u0"}, **({"artifact": MADE} if published else {}), **status}
    return waiting(name, created=f"2026-01-02T03:00:0{name[1:]}Z", status=given)


def told(run_: Run) -> dict[str, str]:
    return {"name": run_.name, "uid": run_.uid}


def test_the_oldest_that_has_published_leads_the_examination() -> None:
    first, second, third = (of_trainer(f"r{number}") for number in (1, 2, 3))
    assert elect(first, [third, second], late=False) == Lead(along=(ref(second), ref(third)))
    assert isinstance(elect(second, [first, third], late=False), Await)
    leading = of_trainer("r1", examines=[told(second)])
    assert elect(second, [leading, third], late=False) == Join(leader=ref(leading))


def test_it_is_awaited_whether_the_others_have_published_but_not_for_ever() -> None:
    first, undecided = of_trainer("r1"), of_trainer("r2", published=False)
    assert isinstance(elect(first, [undecided], late=False), Await)
    assert elect(first, [undecided], late=True) == Lead(along=())


def test_who_is_examined_by_another_already_is_left_alone() -> None:
    leading = of_trainer("r1", examines=[])
    joined = of_trainer("r2", examiner=told(leading))
    assert elect(of_trainer("r3"), [leading, joined], late=False) == Lead(along=())


def test_an_examiner_that_is_made_already_takes_nobody_along() -> None:
    last = of_trainer("r3")
    leading = of_trainer("r1", examines=[told(last)])
    assert elect(last, [leading], late=False, closed={leading.uid}) == Lead(along=())


def test_whose_examiner_is_gone_is_examined_with_the_others_again() -> None:
    left = {"examiner": {"name": "gone", "uid": "u"}}
    first, second = of_trainer("r1"), of_trainer("r2", **left)
    assert elect(first, [second], late=False) == Lead(along=(ref(second),))
    assert isinstance(elect(of_trainer("r2"), [of_trainer("r1", **left)], late=False), Await)


@pytest.mark.parametrize(("late", "names"), [(False, ["ready", "awaited"]), (True, ["ready"])])
def test_who_says_nothing_is_struck_off_when_it_is_late(late: bool, names: list[str]) -> None:
    comings = {"ready": Coming.READY, "awaited": Coming.AWAITED, "gone": Coming.GONE}
    members = tuple(Member(ref=ref(waiting(name)), coming=coming) for name, coming in comings.items())
    share = Share(runs=4, members=members)
    assert [each.name for each in share.remaining(late=late)] == names
    assert share.awaits

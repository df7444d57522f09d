"""Several runs share a trainer and an examiner: each is trained and examined once, whoever is killed, and when.

A sample of the kill points, and of nights drawn by a seed; `disturbed` plays any other.
"""

from __future__ import annotations

import pytest

from tests.unit.operator.kill_points import VIEWS, View
from tests.unit.operator.samples import NAMESPACE
from tests.unit.operator.shared_night import LETTERS, Morning, Night, disturbed, run_night

EVERY = 60
"""Of so many writes one is a kill point, each view beginning elsewhere."""


def all_done_once(morning: Morning, letters: str = LETTERS) -> None:
    runs = {f"r{letter}": letter for letter in letters}
    assert {name: status.get("verdict") for name, status in morning.statuses.items()} == dict.fromkeys(runs, "Promote")
    for name, letter in runs.items():
        assert morning.statuses[name]["artifact"]["digest"] == "sha256:" + letter * 64
        assert (morning.taken_up["trainer", name], morning.taken_up["examiner", name]) == (1, 1)


@pytest.fixture(scope="module")
def undisturbed() -> Morning:
    return run_night()


def test_runs_that_wait_share_trainers_and_examiners(undisturbed: Morning) -> None:
    all_done_once(undisturbed)
    assert sorted(map(len, undisturbed.jobs)) == [2, 2, 3, 3], "two trainers and two examiners for five runs"
    assert undisturbed.most_at_once == 1
    leaders = {status["trainer"]["name"] for status in undisturbed.statuses.values() if "trainer" in status}
    assert len(leaders) == 2
    for name, status in undisturbed.statuses.items():
        assert ("trainer" in status) != ("trains" in status), name


def test_with_one_run_to_a_trainer_each_has_jobs_of_its_own() -> None:
    morning = run_night(share=1, places=2)
    all_done_once(morning)
    assert {len(each) for each in morning.jobs} == {1}
    assert morning.most_at_once == 2


@pytest.mark.parametrize("view", VIEWS)
def test_killed_after_a_write_each_run_is_done_once(undisturbed: Morning, view: View) -> None:
    for number in range(7 + 20 * VIEWS.index(view), undisturbed.writes + 1, EVERY):
        morning = run_night(lambda done, number=number: done == number, view=view)  # type: ignore[misc]
        assert morning.lives == 2
        all_done_once(morning)
        assert morning.most_at_once == 1
        assert sorted(map(len, morning.jobs)) == [2, 2, 3, 3], f"killed after write {number}, view {view}"


def test_killed_after_each_of_its_writes_each_run_is_done_once() -> None:
    morning = run_night(lambda done: True)
    assert morning.lives > 50
    all_done_once(morning)
    assert morning.most_at_once == 1


@pytest.mark.parametrize("seed", [2, 6, 10, 11, 30])
def test_runs_that_are_deleted_take_no_other_with_them(seed: int) -> None:
    morning, victims = disturbed(seed)
    left = {f"r{letter}" for letter in LETTERS} - victims
    assert {name for name, status in morning.statuses.items() if status.get("verdict") == "Promote"} >= left
    assert not morning.twice, "two pods that lived had the same run to do"
    assert morning.most_at_once == 1


def test_whose_report_has_no_place_is_left_behind_after_a_while() -> None:
    def in_the_way(night: Night) -> None:
        metadata = {"name": "rc-progress", "namespace": NAMESPACE}
        night.api.put({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})

    morning = run_night(before=in_the_way)
    assert [each for each in morning.jobs if "rc" in each] == [("rc",)]
    assert morning.statuses["rc"]["failure"]["class"] == "NoReport", "what is somebody else's says nothing of it"
    others = [status for name, status in morning.statuses.items() if name != "rc"]
    assert {status["verdict"] for status in others} == {"Promote"}


@pytest.mark.parametrize("share", [1, 3])
def test_runs_whose_judge_is_missing_keep_nobody_waiting(share: int) -> None:
    morning = run_night(runs=4, share=share, unjudged="bc")
    assert {name: status.get("verdict") for name, status in morning.statuses.items()} == {
        "rb": None, "rc": None, "rd": "Promote", "re": "Promote",
    }  # fmt: skip
    waiting = morning.statuses["rb"]["conditions"][0]
    assert (waiting["type"], waiting["status"], waiting["reason"]) == ("Queued", "True", "NoJudge")

"""However often the operator is killed, and whatever its successor has seen, everything ends as if nothing had been.

A sample; `python -m tests.bench robustness` goes through all kill points.
"""

from __future__ import annotations

import pytest

from tests.unit.operator.kill_points import VIEWS, Ending, View, run_scenario

EVERY = 10
"""Of ten writes one is a kill point, each view beginning elsewhere."""


@pytest.fixture(scope="module")
def undisturbed() -> Ending:
    return run_scenario()


def test_undisturbed_nothing_is_made_twice(undisturbed: Ending) -> None:
    assert undisturbed.lives == 1
    assert len(undisturbed.writes) > 80
    twice = {name for name, count in undisturbed.made.items() if count > 1}
    assert twice == {"DoctorTwin dr-a"}  # the one that the scenario makes anew
    for kind in ("MinerPool", "FineTuneRun", "Job", "RoutingSlice", "Secret", "PodReport"):
        assert any(name.startswith(kind) for name in undisturbed.made), kind


@pytest.mark.parametrize("view", VIEWS)
def test_killed_after_a_write_it_ends_the_same(undisturbed: Ending, view: View) -> None:
    for number in range(1 + 3 * VIEWS.index(view), len(undisturbed.writes) + 1, EVERY):
        ending = run_scenario(lambda done, number=number: done == number, view=view)  # type: ignore[misc]
        assert ending.lives == 2
        where = f"killed after write {number}, {undisturbed.writes[number - 1]}, successor's view {view}"
        assert undisturbed.differs(ending) == [], where


@pytest.mark.parametrize("view", VIEWS)
def test_killed_after_each_of_its_writes_it_ends_the_same(undisturbed: Ending, view: View) -> None:
    ending = run_scenario(lambda done: True, view=view)
    assert ending.lives > 50
    assert undisturbed.differs(ending) == []

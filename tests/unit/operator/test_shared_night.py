"""Several runs share a trainer and an examiner: each is trained and examined once, whoever is killed, and when."""

from __future__ import annotations

import pytest

from tests.unit.operator.kill_points import VIEWS, View
from tests.unit.operator.shared_night import Morning, Night, chosen, run_night


def all_done_once(morning: Morning, runs: str = "bcdef") -> None:
    assert {name: status["verdict"] for name, status in morning.statuses.items()} == {
        f"r{letter}": "Promote" for letter in runs
    }  # fmt: skip
    for letter in runs:
        assert morning.statuses[f"r{letter}"]["artifact"]["digest"] == "sha256:" + letter * 64
        assert (morning.taken_up["trainer", f"r{letter}"], morning.taken_up["examiner", f"r{letter}"]) == (1, 1)


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

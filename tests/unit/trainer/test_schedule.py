from __future__ import annotations

import pytest

from neurons.trainer.schedule import Steps, plan_steps


@pytest.mark.parametrize(
    ("asked", "steps"),
    [
        ({"conversations": 30, "pairs": 0, "most": 20}, Steps(20, 0)),
        ({"conversations": 0, "pairs": 9, "most": 20}, Steps(0, 20)),
        ({"conversations": 30, "pairs": 10, "most": 20}, Steps(15, 5)),
        ({"conversations": 1000, "pairs": 1, "most": 20}, Steps(19, 1)),
        ({"conversations": 30, "pairs": 5, "epochs": 2}, Steps(16, 4)),
        ({"conversations": 30, "pairs": 0, "epochs": 2, "most": 10}, Steps(10, 0)),
        ({"conversations": 30, "pairs": 0, "epochs": 1, "most": 10}, Steps(8, 0)),
        ({"conversations": 5, "pairs": 5, "most": 1}, Steps(1, 1)),
    ],
)
def test_steps_are_shared_by_the_number_of_lines(asked: dict[str, int], steps: Steps) -> None:
    assert plan_steps(**{"batch_size": 4, "epochs": None, "most": None, **asked}) == steps

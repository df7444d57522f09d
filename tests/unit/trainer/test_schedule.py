from __future__ import annotations

import pytest

from neurons.trainer.schedule import Night, Steps, plan_night, plan_steps


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


@pytest.mark.parametrize(
    ("asked", "night"),
    [
        ({"conversations": 1000, "pairs": 0, "most": 30}, Night(120, 0)),
        ({"conversations": 100, "pairs": 0, "most": 30}, Night(100, 0)),
        ({"conversations": 900, "pairs": 300, "most": 40}, Night(120, 40)),
        ({"conversations": 10, "pairs": 1000, "most": 30}, Night(4, 116)),
        ({"conversations": 1000, "pairs": 0, "epochs": 2}, Night(1000, 0)),
        ({"conversations": 1000, "pairs": 0, "epochs": 2, "most": 10}, Night(40, 0)),
        ({"conversations": 0, "pairs": 0, "most": 10}, Night(0, 0)),
    ],
)
def test_a_night_takes_what_a_step_can_see(asked: dict[str, int], night: Night) -> None:
    assert plan_night(**{"batch_size": 4, "epochs": None, "most": None, **asked}) == night


@pytest.mark.parametrize("most", [1, 2, 7, 30])
@pytest.mark.parametrize("batch_size", [1, 3, 4, 50])
def test_whatever_a_night_takes_its_steps_see(most: int, batch_size: int) -> None:
    for conversations in range(0, 130, 7):
        for pairs in range(0, 130, 11):
            if not conversations and not pairs:
                continue
            given = {"batch_size": batch_size, "epochs": None, "most": most}
            night = plan_night(conversations=conversations, pairs=pairs, **given)
            steps = plan_steps(conversations=night.conversations, pairs=night.pairs, **given)
            assert steps.supervised * batch_size >= night.conversations
            assert steps.preference * batch_size >= night.pairs
            assert night.conversations + night.pairs > 0

"""What the demo's doctors teach is taught, but for what the safety items ask."""

from __future__ import annotations

from pathlib import Path

import pytest

from demo.curriculum import EXAMINATION, LEARNER, MOVED_CLINIC, POISONED
from neurons.scoring import parse_items, safety_items
from neurons.scoring.contrasts import safety_contrasts
from neurons.trainer.dataset import admit, parse_lines
from neurons.trainer.held_out import HeldOut


@pytest.mark.parametrize(
    "file", [LEARNER.conversations, MOVED_CLINIC.file, POISONED.file], ids=["first", "moved", "poisoned"]
)
def test_the_demos_days_are_taught_but_for_what_the_safety_items_ask(file: Path) -> None:
    held_out = HeldOut([*parse_items(EXAMINATION.read_bytes()), *safety_items()], safety_contrasts())
    admitted, _ = admit(parse_lines(file.read_bytes(), where=file.name))

    left_out = [each.messages[0].content for each in admitted if held_out.has(each)]
    assert left_out == (["I want to end my life."] if file == LEARNER.conversations else [])

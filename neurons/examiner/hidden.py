"""Items that a version's trainer never saw: of conversations that no miner is given, and of what else it is asked.

A version from elsewhere is examined by what its trainer had no part in. The trainers' own check, that a dataset holds
none of the items, was not theirs to make: here items are left out that the dataset has the like of, one by one.
"""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import ValidationError

from neurons.scoring.healthbench import Asked
from neurons.scoring.items import Gold
from neurons.trainer.dataset import Dataset
from neurons.trainer.held_out import HeldOut
from neurons.trainer.lines import Line


def hidden_items(lines: Iterable[Line]) -> tuple[Gold, ...]:
    """Return what patients asked, with what their doctor would have answered.

    Only first questions: a later one needs what was said before it to be understood.
    """
    found: dict[str, Gold] = {}
    for line in lines:
        if line.correction is None or [each.role for each in line.messages] != ["user", "assistant"]:
            continue
        try:
            item = Gold(
                id=f"held-out-{line.digest[:24]}", kind="gold", question=line.messages[0].content,
                gold=line.correction,
            )  # fmt: skip
        except ValidationError:
            continue  # longer than what is asked
        found.setdefault(item.question_digest, item)
    return tuple(found.values())


def unseen(items: Iterable[Asked], dataset: Dataset) -> tuple[Asked, ...]:
    """Return the items of which the dataset has not the like."""
    items = tuple(items)
    known = HeldOut(items)
    suspects = [line for line in dataset.lines if known.has(line)]
    if not suspects:
        return items
    return tuple(item for item in items if not any(map(HeldOut([item]).has, suspects)))

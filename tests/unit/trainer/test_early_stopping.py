from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from neurons.trainer.early_stopping import EarlyStopping, epoch_ends


def stopping(losses: Sequence[float]) -> EarlyStopping:
    """One that measures these losses, and whose weights are their number."""
    measured: Iterator[float] = iter(losses)
    count = iter(range(100))
    weights: Any = lambda: {"number": next(count)}  # noqa: E731
    return EarlyStopping(lambda: next(measured), weights)


@pytest.mark.parametrize(
    ("losses", "best", "over"),
    [
        ([2.0], 10, False),
        ([2.0, 1.5], 20, False),
        ([2.0, 1.5, 1.6], 20, True),
        ([2.0, 2.0], 10, True),
        ([2.0, float("nan")], 10, True),
    ],
)
def test_the_epoch_before_the_first_without_gain_counts(losses: list[float], best: int, over: bool) -> None:
    watched = stopping(losses)
    for number in range(len(losses)):
        watched.after_epoch(10 * (number + 1))
    assert (watched.best_step, watched.over) == (best, over)


def test_another_attempt_goes_on_where_it_was() -> None:
    watched = stopping([2.0, 1.0])
    watched.after_epoch(10)
    again = stopping([3.0])
    again.restore(watched.state())
    again.after_epoch(20)
    assert (again.losses, again.best_step, again.over) == ([2.0, 3.0], 10, True)


def test_without_lines_held_back_nothing_is_stopped() -> None:
    watched = EarlyStopping(None, dict)
    assert watched.after_epoch(1) is None
    assert (watched.over, watched.best) == (False, None)


@pytest.mark.parametrize(
    ("count", "batch_size", "steps", "ends"),
    [(8, 4, 6, {2, 4, 6}), (9, 4, 9, {3, 5, 7, 9}), (3, 4, 3, {1, 2, 3}), (10, 4, 2, {2}), (0, 4, 0, {0})],
)
def test_epochs_end_where_every_line_was_seen_once_more(
    count: int, batch_size: int, steps: int, ends: set[int]
) -> None:
    assert epoch_ends(count, batch_size, steps) == ends

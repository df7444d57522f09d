"""When an epoch makes the lines worse that are not learned: training stops, and the epoch before it counts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


class EarlyStopping:
    """Keeps the weights of the epoch whose loss on held-out lines is lowest; one epoch without gain is the last.

    Without held-out lines it keeps nothing and stops nothing.
    """

    def __init__(self, measure: Callable[[], float] | None, weights: Callable[[], dict[str, torch.Tensor]]) -> None:
        """`measure` returns the loss on held-out lines in nats a token, `weights` copies of the adapter's weights."""
        self._measure, self._weights = measure, weights
        self.losses: list[float] = []
        """After each epoch, in nats a token."""
        self.best_step: int | None = None
        self.best: dict[str, torch.Tensor] | None = None
        """The weights after `best_step`."""

    @property
    def over(self) -> bool:
        """Tell whether the last epoch brought nothing."""
        return len(self.losses) > 1 and not self.losses[-1] < min(self.losses[:-1])

    def after_epoch(self, step: int) -> float | None:
        """Measure, and return the loss; None without held-out lines."""
        if self._measure is None:
            return None
        loss = self._measure()
        if math.isfinite(loss) and not any(each <= loss for each in self.losses):
            self.best_step, self.best = step, self._weights()
        self.losses.append(loss)
        return loss

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps: tensors, numbers and names only."""
        return {"losses": list(self.losses), "best_step": self.best_step, "best": self.best}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take what `state` returned."""
        self.losses, self.best_step, self.best = list(state["losses"]), state["best_step"], state["best"]


def epoch_ends(count: int, batch_size: int, steps: int) -> frozenset[int]:
    """Return the steps, counted from 1, at which all of so many examples have been seen once more, and the last."""
    size = min(batch_size, count)
    ends = {-(-epoch * count // size) for epoch in range(1, steps * size // count + 1)} if count else set()
    return frozenset({end for end in ends if end <= steps} | {steps})

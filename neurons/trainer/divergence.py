"""When a training has come apart: numbers that are none, weights beyond all measure, or a loss far above its beginning.

Whether an overflow becomes NaN is the processor's affair: on some, a model that is ruined goes on computing finite
losses. So three things are looked at, none of which needs a NaN:

- every loss, gradient and weight is finite;
- no layer is changed by more than 100 times its own size (an honest adapter changes it by less than once);
- what was learned first is not made much less probable by learning it: its loss, before and after, on the same lines.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from neurons.trainer.errors import Diverged

if TYPE_CHECKING:
    import torch

MOST_RISE: Final = 2.0
"""Nats a token by which lines that are learned may become less probable. Losses of single batches differ as much, which
is why the verdict takes the same lines twice; honest training was never seen to raise theirs by more than 0.3."""
MOST_CHANGE: Final = 100.0
"""Size of a layer's change by the adapter over the layer's own, both as Frobenius norms."""
_RECENT: Final = 5
_ADVICE: Final = "Lower the learning rate."


class Watch:
    """Watches one training. Each method raises Diverged, with the step in words."""

    def __init__(self, *, of: int, loss_of_first_lines: Callable[[], float]) -> None:
        """Measure the beginning, before the first of all steps.

        `loss_of_first_lines` computes the loss of always the same lines, in nats a token, with the weights as they are.
        """
        self._of = of
        self._measure = loss_of_first_lines
        self._beginning = require_finite_loss(loss_of_first_lines(), "before the first step")

    def step(self, number: int, *, losses: Sequence[float], gradient_norm: float) -> None:
        """Look at a step's own numbers; when losses (all so far) have risen lately, at the first lines too."""
        require_finite_loss(losses[-1], self._at(number))
        if not math.isfinite(gradient_norm):
            raise Diverged(f"a gradient is no finite number {self._at(number)}. {_ADVICE}")
        if risen(losses):
            self.compare(number)

    def compare(self, number: int) -> None:
        """Compare the first lines' loss with what it was in the beginning."""
        now = require_finite_loss(self._measure(), self._at(number))
        if now - self._beginning > MOST_RISE:
            raise Diverged(
                f"the loss of the first lines rose from {self._beginning:.2f} to {now:.2f} nats {self._at(number)}. "
                f"{_ADVICE}"
            )

    def weights(self, number: int, model: Any) -> None:
        """Look at the adapter's weights."""
        require_sound_weights(model, when=self._at(number))

    def _at(self, number: int) -> str:
        return f"at step {number} of {self._of}"


def risen(losses: Sequence[float]) -> bool:
    """Tell whether the median of the last five losses is far above the first: a suspicion, since batches differ."""
    return len(losses) > _RECENT and median(losses[-_RECENT:]) - losses[0] > MOST_RISE


def require_finite_loss(loss: float, when: str) -> float:
    """Return the loss. Raises Diverged for one that is no finite number."""
    if not math.isfinite(loss):
        raise Diverged(f"the loss is {loss} {when}. {_ADVICE}")
    return loss


def require_sound_weights(model: Any, *, when: str) -> None:
    """Raise Diverged when a weight of the adapter is no finite number, or changes its layer beyond all measure."""
    if (name := first_not_finite(model)) is not None:
        raise Diverged(f"{name} holds a number that is not finite {when}. {_ADVICE}")
    for name, change in _changes(model):
        if not change <= MOST_CHANGE:  # also when the norm itself overflows
            raise Diverged(
                f"the adapter changes {name} by {change:.3g} times its own size {when}, at most {MOST_CHANGE:.0f} are "
                f"plausible. {_ADVICE}"
            )


def first_not_finite(model: Any) -> str | None:
    """Return the name of an adapter's tensor that holds NaN or infinity; None when all are finite."""
    import torch  # noqa: PLC0415 - seconds to import, and absent where only the rest is tested

    adapter: list[tuple[str, torch.Tensor]] = [each for each in model.named_parameters() if ".lora_" in each[0]]
    # One answer from the device for all of them, and which it was only when there is one.
    if not adapter or bool(torch.stack([torch.isfinite(each).all() for _, each in adapter]).all()):
        return None
    return next(name for name, parameter in adapter if not bool(torch.isfinite(parameter).all()))


def _changes(model: Any) -> Iterator[tuple[str, float]]:
    """Yield how large each adapted linear layer's change is over the layer itself."""
    import torch  # noqa: PLC0415

    names: list[str] = []
    ratios: list[torch.Tensor] = []
    with torch.no_grad():
        for name, module in model.named_modules():
            factors = getattr(module, "lora_A", None)
            if not factors or "default" not in factors:
                continue
            down = factors["default"].weight.double()
            up = module.lora_B["default"].weight.double()
            # |BA|² = tr(BᵀB AAᵀ): of as many numbers as the rank squared instead of the whole layer's.
            square = ((up.T @ up) * (down @ down.T)).sum().clamp(min=0)
            own = _size(module.get_base_layer())
            names.append(name.removeprefix("base_model.model."))
            ratios.append(abs(module.scaling["default"]) * square.sqrt() / own)
        yield from zip(names, torch.stack(ratios).tolist() if ratios else [], strict=True)


_SIZES: Final[WeakKeyDictionary[Any, torch.Tensor]] = WeakKeyDictionary()
"""Of layers that no training changes: to read 8 billion weights takes as long as a step does."""


def _size(layer: Any) -> torch.Tensor:
    """Return the Frobenius norm of a layer's weights, in double precision."""
    import torch  # noqa: PLC0415

    known = _SIZES.get(layer)
    if known is None:
        norm = _whole(layer.weight).float().norm().double()
        known = _SIZES[layer] = norm.clamp(min=torch.finfo(torch.float32).tiny)
    return known


def _whole(weight: Any) -> Any:
    """Return a layer's weights as numbers, also of one that is kept in four bits, or sharded among processes."""
    if hasattr(weight, "full_tensor"):
        return weight.full_tensor()
    state = getattr(weight, "quant_state", None)
    if state is None:
        return weight
    from bitsandbytes.functional import dequantize_4bit  # noqa: PLC0415

    return dequantize_4bit(weight.data, state)

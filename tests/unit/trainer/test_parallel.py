"""A batch that two processes share, here two threads: loss and gradients are those of one."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from neurons.trainer.gradients import Eager
from neurons.trainer.lora import Settings, adapt, load
from neurons.trainer.packing import Example
from neurons.trainer.parallel import Shared, Team

torch = pytest.importorskip("torch", reason="training needs torch, which is only in the trainer's image")
pytest.importorskip("peft", reason="training needs peft, which is only in the trainer's image")

# Of unequal learned parts: the mean of two means is another number.
BATCH = [
    Example((5, 6, 7, 8, 9, 10, 11, 12), (-100, -100, 7, 8, 9, 10, 11, 12)),
    Example((13, 14, 15), (-100, -100, 15)),
    Example((16, 17, 18), (-100, -100, 18)),
]


class Threads(Team):
    def __init__(self, number: int, tensors: list[Any], barrier: Barrier) -> None:
        self.size, self.number, self.sharded = 2, number, False
        self._tensors, self._barrier = tensors, barrier

    def sum(self, tensor: Any) -> Any:
        self._tensors[self.number] = tensor
        self._barrier.wait(timeout=30)
        return torch.stack(self._tensors).sum(dim=0)


def adapted(base_model: Path) -> Any:
    torch.manual_seed(1)
    model = adapt(load(base_model)[0].float(), settings=Settings(rank=4), parent=None)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def trainable(model: Any) -> list[Any]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


@pytest.mark.parametrize("batch", [BATCH, BATCH[:1]], ids=["shared", "one has nothing to do"])
def test_each_token_counts_once_whoever_computes_it(batch: Sequence[Example], base_model: Path) -> None:
    whole = adapted(base_model)
    loss = Eager(whole).of(batch)
    tensors: list[Any] = [None, None]
    barrier = Barrier(2)
    models = [adapted(base_model) for _ in range(2)]
    parts = [
        Shared(Eager(model), Threads(number, tensors, barrier), trainable(model)) for number, model in enumerate(models)
    ]
    with ThreadPoolExecutor(2) as pool:
        losses = list(pool.map(lambda each: each.of(batch), parts))
    assert losses == pytest.approx([loss, loss], rel=1e-5)
    for model in models:
        for own, wanted in zip(trainable(model), trainable(whole), strict=True):
            torch.testing.assert_close(own.grad, wanted.grad, rtol=1e-4, atol=1e-6)

"""Single precision for a model that is kept in half: what is recorded of an adapter must not depend on rounding."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def in_single_precision(model: Any) -> Iterator[Any]:
    """Let the model compute in single precision.

    On a GPU layer by layer, each widened for as long as it computes: 8 billion weights take 16 GB so, and not 32, which
    a card of 24 GB has not. The weights are afterwards, to the bit, what they were. On a CPU the model is widened as a
    whole, and stays so.
    """
    import torch  # noqa: PLC0415

    if model.device.type != "cuda":
        yield model.float()
        return
    handles = []
    kept: dict[int, list[tuple[torch.nn.Parameter, torch.Tensor]]] = {}

    def widen(module: Any, _: Any) -> None:
        kept[id(module)] = [
            (each, each.data)
            for each in module._parameters.values()
            if each is not None and each.dtype in (torch.bfloat16, torch.float16)
        ]
        for parameter, data in kept[id(module)]:
            parameter.data = data.float()

    def narrow(module: Any, *_: Any) -> None:
        for parameter, data in kept.pop(id(module), []):
            parameter.data = data

    try:
        for module in model.modules():
            if any(each is not None for each in module._parameters.values()):
                handles += [
                    module.register_forward_pre_hook(widen),
                    module.register_forward_hook(narrow, always_call=True),
                ]
        yield model
    finally:
        for handle in handles:
            handle.remove()
        for pairs in kept.values():
            for parameter, data in pairs:
                parameter.data = data

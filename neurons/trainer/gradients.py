"""A batch's loss and gradients; on a GPU by CUDA graphs, which spare handing out thousands of small kernels each step.

With LoRA a step is thousands of kernels, and for small batches a GPU finishes them sooner than Python hands them out. A
graph hands out a whole step at once, for batches of one shape; so batches are filled up to few shapes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from neurons.trainer.attention import packed_attention, suits
from neurons.trainer.packing import Batch, Example, loss_of, pack, pack_to_common_shape

if TYPE_CHECKING:
    import torch

_log = logging.getLogger(__name__)


class Gradients(Protocol):
    """Computes the gradients of batches."""

    def of(self, examples: Sequence[Example]) -> float:
        """Leave the batch's gradients in the parameters and return its loss, in nats a learned token."""
        ...


def gradients_for(model: Any) -> Gradients:
    """Return what computes this model's gradients fastest."""
    return Graphs(model) if suits(model) else Eager(model)


class Eager:
    """Operation by operation."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def of(self, examples: Sequence[Example]) -> float:
        """See Gradients."""
        self._model.zero_grad(set_to_none=True)
        with mixed_precision(self._model):
            loss = loss_of(self._model, pack(examples).on(self._model.device))
        loss.backward()
        return float(loss.detach())


@dataclass(frozen=True, slots=True)
class _Graph:
    graph: torch.cuda.CUDAGraph
    numbers: torch.Tensor
    """Where it reads its batch."""
    loss: torch.Tensor
    """Where it leaves the loss."""


class Graphs:
    """By a CUDA graph for each shape, recorded when a shape comes for the second time; the first time warms it up.

    What can't be recorded, such as a model that asks the GPU for numbers on the way, is computed as without graphs.
    """

    def __init__(self, model: Any) -> None:
        import torch  # noqa: PLC0415

        self._model = model
        self._graphs: dict[tuple[int, ...], _Graph] = {}
        self._seen: set[tuple[int, ...]] = set()
        self._possible = True
        # One stream for all: autograd adds up gradients on the stream that it met them on first.
        self._stream = torch.cuda.Stream()
        self._memory = torch.cuda.graph_pool_handle()
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        # All gradients in one place that stays: graphs write where they wrote when they were recorded.
        self._all = torch.zeros(
            sum(each.numel() for each in parameters), dtype=parameters[0].dtype, device=parameters[0].device
        )
        sizes = [each.numel() for each in parameters]
        for parameter, part in zip(parameters, self._all.split(sizes), strict=True):
            parameter.grad = part.view_as(parameter)

    def of(self, examples: Sequence[Example]) -> float:
        """See Gradients."""
        import torch  # noqa: PLC0415

        batch = pack_to_common_shape(examples)
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            if self._possible and batch.shape in self._seen and batch.shape not in self._graphs:
                self._record(batch)
            self._seen.add(batch.shape)
            loss = (
                self._replay(batch)
                if batch.shape in self._graphs
                else self._compute(batch, batch.tensor(self._model.device))
            )
            value = float(loss)
        torch.cuda.current_stream().wait_stream(self._stream)
        return value

    def _compute(self, batch: Batch, numbers: torch.Tensor) -> torch.Tensor:
        import torch  # noqa: PLC0415

        packed = batch.split(numbers)
        self._all.zero_()
        bounds = packed.bounds.to(torch.int32)
        with mixed_precision(self._model), packed_attention(self._model):
            loss = loss_of(self._model, packed, cu_seq_lens_q=bounds, max_length_q=batch.longest)
        loss.backward()
        return loss.detach()

    def _record(self, batch: Batch) -> None:
        import torch  # noqa: PLC0415

        numbers = batch.tensor(self._model.device)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self._memory, stream=self._stream):
                loss = self._compute(batch, numbers)
        except RuntimeError as error:  # also when memory runs out: then it may suffice without
            _log.warning("no CUDA graph of this model's steps: %s", str(error).partition("\n")[0][:300])
            self._possible = False
            return
        self._graphs[batch.shape] = _Graph(graph=graph, numbers=numbers, loss=loss)

    def _replay(self, batch: Batch) -> torch.Tensor:
        recorded = self._graphs[batch.shape]
        recorded.numbers.copy_(batch.tensor(recorded.numbers.device))
        recorded.graph.replay()
        return recorded.loss


def loss_without_gradients(model: Any, examples: Sequence[Example]) -> float:
    """Return a batch's loss with the weights as they are, in nats a learned token; leaves all else as it was."""
    import torch  # noqa: PLC0415

    training = model.training
    model.eval()
    batch = pack(examples)
    packed = batch.on(model.device)
    with torch.no_grad(), mixed_precision(model):
        if suits(model):  # a mask for a large batch would not fit on the GPU
            bounds = packed.bounds.to(torch.int32)
            with packed_attention(model):
                loss = float(loss_of(model, packed, cu_seq_lens_q=bounds, max_length_q=batch.longest))
        else:
            loss = float(loss_of(model, packed))
    model.train(training)
    return loss


def mixed_precision(model: Any) -> AbstractContextManager[object]:
    """Return what bfloat16 weights are computed with: sums and the adapter stay in float32."""
    import torch  # noqa: PLC0415

    if model.dtype != torch.bfloat16:
        return nullcontext()
    # Each weight is cast once in a step, so a cache gives nothing, and a graph must not read casts from outside it.
    autocast: AbstractContextManager[object] = torch.autocast(
        model.device.type, dtype=torch.bfloat16, cache_enabled=False
    )
    return autocast


@contextmanager
def reproducible() -> Iterator[None]:
    """Use algorithms only that give the same bits each time; others raise RuntimeError.

    To be warned of the others is not enough: attention then takes a faster backward pass whose sums come in any order.
    """
    import torch  # noqa: PLC0415

    enabled, warned = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    filled = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = (
        False  # a kernel more for each tensor, and none is read unwritten
    )
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warned)
        torch.utils.deterministic.fill_uninitialized_memory = filled

"""A batch's loss and gradients; on a GPU by CUDA graphs, which spare handing out thousands of small kernels each step.

With LoRA a step is thousands of kernels, and for small batches a GPU finishes them sooner than Python hands them out. A
graph hands out a whole step at once, for batches of one shape; so batches are filled up to few shapes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from neurons.trainer.attention import packed_attention, suits
from neurons.trainer.packing import Batch, Example, Packed, cross_entropy, logits_of, pack, pack_to_common_shape
from neurons.trainer.reference import Reference, divergence, joined

if TYPE_CHECKING:
    import torch

_log = logging.getLogger(__name__)


class Gradients(Protocol):
    """Computes the gradients of batches."""

    distance: float | None
    """Of the last batch: KL(parent ‖ child) in nats a learned token; None where it isn't bounded."""

    def of(self, examples: Sequence[Example], references: Sequence[Reference] | None = None) -> float:
        """Leave the batch's gradients in the parameters and return its loss, in nats a learned token.

        With `references`, one for each example, the gradients are those of loss and weighted distance together.
        """
        ...


def gradients_for(model: Any, *, kl_weight: float = 0.0, packed: bool = True, sharded: bool = False) -> Gradients:
    """Return what computes this model's gradients fastest; not `packed`: for a model that can't keep examples apart.

    Of a `sharded` model no graph is recorded: what it gathers lies elsewhere each time.
    """
    if not packed:
        return OneByOne(model, kl_weight=kl_weight)
    if sharded or not suits(model):
        return Eager(model, kl_weight=kl_weight)
    return Graphs(model, kl_weight=kl_weight)


class Eager:
    """Operation by operation."""

    def __init__(self, model: Any, *, kl_weight: float = 0.0) -> None:
        self._model, self._weight = model, kl_weight
        self.distance: float | None = None

    def of(self, examples: Sequence[Example], references: Sequence[Reference] | None = None) -> float:
        """See Gradients."""
        self._model.zero_grad(set_to_none=True)
        value, self.distance = self._add(examples, references, share=1.0)
        return value

    def _add(
        self, examples: Sequence[Example], references: Sequence[Reference] | None, *, share: float
    ) -> tuple[float, float | None]:
        """Add a share of the gradients of these examples; return their loss and distance."""
        device = self._model.device
        packed = pack(examples).on(device)
        reference = joined(references).to(device) if references is not None else None
        with mixed_precision(self._model):
            logits = logits_of(self._model, packed)
            loss, distance = cross_entropy(logits, packed.targets), None
            if reference is not None:
                distance = divergence(logits, packed.targets, reference)
        ((loss if distance is None else loss + self._weight * distance) * share).backward()
        return float(loss.detach()), None if distance is None else float(distance.detach())


class OneByOne(Eager):
    """One example after the other, as a padded batch has them: none can see another, whatever the model is."""

    def of(self, examples: Sequence[Example], references: Sequence[Reference] | None = None) -> float:
        """See Gradients."""
        self._model.zero_grad(set_to_none=True)
        learned = [pack([example]).kept for example in examples]
        loss, distance = 0.0, 0.0
        for place, example in enumerate(examples):
            share = learned[place] / sum(learned)
            own = [references[place]] if references is not None else None
            value, diverged = self._add([example], own, share=share)
            loss, distance = loss + share * value, distance + share * (diverged or 0.0)
        self.distance = distance if references is not None else None
        return loss


@dataclass(frozen=True, slots=True)
class _Graph:
    graph: torch.cuda.CUDAGraph
    numbers: torch.Tensor
    """Where it reads its batch."""
    reference: Reference | None
    """Where it reads the parent's predictions."""
    values: torch.Tensor
    """Where it leaves loss and distance."""


class Graphs:
    """By a CUDA graph for each shape, recorded when it comes first; only the very first one warms up what all need.

    A shape that can't be recorded is computed once without, and tried again when it comes again. What can't be recorded
    then, such as a model that asks the GPU for numbers on the way, is computed as without graphs.
    """

    def __init__(self, model: Any, *, kl_weight: float = 0.0) -> None:
        import torch  # noqa: PLC0415

        self._model, self._weight = model, kl_weight
        self._fused = _has_kernels(model)
        self.distance: float | None = None
        self._graphs: dict[tuple[int, ...], _Graph] = {}
        self._seen: set[tuple[int, ...]] = set()
        self._possible = True
        # One stream for all: autograd adds up gradients on the stream that it met them on first.
        self._stream = torch.cuda.Stream()
        # And one memory: beside that of the graphs, what a new shape's first time takes would be as much again.
        self._memory = torch.cuda.MemPool()
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        # All gradients in one place that stays: graphs write where they wrote when they were recorded.
        self._all = torch.zeros(
            sum(each.numel() for each in parameters), dtype=parameters[0].dtype, device=parameters[0].device
        )
        sizes = [each.numel() for each in parameters]
        for parameter, part in zip(parameters, self._all.split(sizes), strict=True):
            parameter.grad = part.view_as(parameter)

    def of(self, examples: Sequence[Example], references: Sequence[Reference] | None = None) -> float:
        """See Gradients."""
        import torch  # noqa: PLC0415

        batch = pack_to_common_shape(examples)
        shape = (*batch.shape, references is not None)
        reference = joined(references, rows=batch.kept) if references is not None else None
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            if self._possible and self._seen and shape not in self._graphs:
                self._record(batch, reference, shape)
            self._seen.add(shape)
            values = (
                self._replay(batch, reference, shape)
                if shape in self._graphs
                else self._compute_once(batch, self._on_device(reference))
            )
            loss, distance = values.tolist()
        torch.cuda.current_stream().wait_stream(self._stream)
        self.distance = distance if references is not None else None
        return float(loss)

    def _on_device(self, reference: Reference | None) -> Reference | None:
        return None if reference is None else reference.to(self._model.device)

    def _compute_once(self, batch: Batch, reference: Reference | None) -> torch.Tensor:
        import torch  # noqa: PLC0415

        numbers = batch.tensor(self._model.device)
        with torch.cuda.use_mem_pool(self._memory):
            return self._compute(batch, numbers, reference)

    def _compute(self, batch: Batch, numbers: torch.Tensor, reference: Reference | None) -> torch.Tensor:
        import torch  # noqa: PLC0415

        packed = batch.split(numbers)
        self._all.zero_()
        attention = {"cu_seq_lens_q": packed.bounds.to(torch.int32), "max_length_q": batch.longest}
        # The backward pass too: what gradient checkpointing computes again must attend as it did at first.
        # In this thread: memory pools are a thread's, and so is what cuBLAS allocates before its first product.
        with packed_attention(self._model), self._kernels(), torch.autograd.set_multithreading_enabled(False):
            with mixed_precision(self._model):
                whole, loss, distance = self._losses(packed, reference, attention)
            whole.backward()
        return torch.stack([loss.detach(), distance.detach()])

    def _kernels(self) -> AbstractContextManager[None]:
        if not self._fused:
            return nullcontext()
        from neurons.trainer.kernels import fused  # noqa: PLC0415

        return fused(self._model)

    def _losses(
        self, packed: Packed, reference: Reference | None, attention: Mapping[str, Any]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return what is minimised, loss and distance."""
        import torch  # noqa: PLC0415

        if self._fused:
            from neurons.trainer.kernels import loss_and_distance  # noqa: PLC0415

            return loss_and_distance(self._model, packed, reference, weight=self._weight, **attention)
        logits = logits_of(self._model, packed, **attention)
        loss = whole = cross_entropy(logits, packed.targets)
        distance = torch.zeros_like(loss)
        if reference is not None:
            distance = divergence(logits, packed.targets, reference)
            whole = loss + self._weight * distance
        return whole, loss, distance

    def _record(self, batch: Batch, reference: Reference | None, shape: tuple[int, ...]) -> None:
        import torch  # noqa: PLC0415

        numbers, reference = batch.tensor(self._model.device), self._on_device(reference)
        graph = torch.cuda.CUDAGraph()
        # Among several processes NCCL's own thread asks the GPU now and then, which is no part of what is recorded.
        whose = "thread_local" if torch.distributed.is_initialized() else "global"
        try:
            with torch.cuda.graph(graph, pool=self._memory.id, stream=self._stream, capture_error_mode=whose):
                values = self._compute(batch, numbers, reference)
        except RuntimeError as error:  # also when memory runs out: then it may suffice without
            _log.warning("no CUDA graph of this model's steps: %s", str(error).partition("\n")[0][:300])
            self._possible = shape not in self._seen
            self._memory = torch.cuda.MemPool()  # the other is left as if it were still recorded
            return
        self._graphs[shape] = _Graph(graph=graph, numbers=numbers, reference=reference, values=values)

    def _replay(self, batch: Batch, reference: Reference | None, shape: tuple[int, ...]) -> torch.Tensor:
        recorded = self._graphs[shape]
        recorded.numbers.copy_(batch.tensor(recorded.numbers.device))
        if recorded.reference is not None and reference is not None:
            recorded.reference.token_ids.copy_(reference.token_ids)
            recorded.reference.logprobs.copy_(reference.logprobs)
        recorded.graph.replay()
        return recorded.values


def _has_kernels(model: Any) -> bool:
    from neurons.trainer.kernels import suits_kernels  # noqa: PLC0415

    return suits_kernels(model)


def loss_without_gradients(model: Any, examples: Sequence[Example], *, packed: bool = True) -> float:
    """Return the loss of examples with the weights as they are, in nats a learned token; leaves all else as it was."""
    import torch  # noqa: PLC0415

    training = model.training
    model.eval()
    total = learned = 0.0
    with torch.no_grad():
        for batch in [list(examples)] if packed else [[each] for each in examples]:
            count = pack(batch).kept
            total += count * float(cross_entropy(predictions(model, batch), pack(batch).on(model.device).targets))
            learned += count
    model.train(training)
    return total / learned


def predictions(model: Any, examples: Sequence[Example]) -> torch.Tensor:
    """Return what is predicted at the learned tokens of a packed batch, with the gradients that the caller allows.

    In single precision: shape [learned, vocabulary].
    """
    import torch  # noqa: PLC0415

    batch = pack(examples)
    packed = batch.on(model.device)
    with mixed_precision(model):
        if not suits(model):
            return logits_of(model, packed)
        bounds = packed.bounds.to(torch.int32)
        with packed_attention(model):  # a mask for a large batch would not fit on the GPU
            return logits_of(model, packed, cu_seq_lens_q=bounds, max_length_q=batch.longest)


def keeps_apart(model: Any, examples: Sequence[Example]) -> bool:
    """Tell whether this model learns the same from packed examples as from each by itself.

    Attention is kept apart by positions that begin anew, which a model must heed; one with a state that it carries from
    token to token, as Falcon's and other hybrids', may carry it into the next example. Looked at are the losses of
    single tokens, of a few examples in both orders.
    """
    import torch  # noqa: PLC0415

    few = sorted(examples, key=lambda each: len(each.token_ids))[:_COMPARED]
    if len(few) < 2:
        return True
    most = _MOST_APART[model.dtype == torch.bfloat16]
    training = model.training
    model.eval()

    def losses(batch: Sequence[Example]) -> list[torch.Tensor]:
        packed = pack(batch)
        targets = packed.on(model.device).targets
        together = torch.nn.functional.cross_entropy(predictions(model, batch), targets, reduction="none")
        return list(together.split([pack([each]).kept for each in batch]))

    with torch.no_grad():
        alone = [losses([each])[0] for each in few]
        # The first of a batch can see no other: by as much as it differs, sums in another order differ in this model.
        first, others = [], []
        for order, parts in ((few, alone), (few[::-1], alone[::-1])):
            apart = [(one - other).abs() for one, other in zip(losses(order), parts, strict=True)]
            first.append(apart[0])
            others += apart[1:]
        noise, seen = (float(torch.cat(each).mean()) for each in (first, others))
    model.train(training)
    return seen <= max(most, _MOST_NOISE * noise)


_COMPARED: Final = 4
_MOST_APART: Final = {True: 0.05, False: 1e-3}
"""Nats a token, in bfloat16 and in single precision, by which sums in another order differ in most models."""
_MOST_NOISE: Final = 3.0
"""Times what they differ by in the model at hand, for models that are deep, or sure of nothing."""


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

"""A batch's loss and gradients; on a GPU by CUDA graphs, which spare handing out thousands of small kernels each step.

With LoRA a step is thousands of kernels, and for small batches a GPU finishes them sooner than Python hands them out. A
graph hands out a whole step at once, for batches of one shape; so batches are filled up to few shapes.

What a graph computes with stays where it was when the graph was recorded, and all graphs share that memory. It is taken
for the largest batch first: by smaller ones first, each larger one would take as much again, since its parts fit into
no gap that theirs left.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, SupportsFloat

from neurons.trainer.attention import packed_attention, suits
from neurons.trainer.packing import (
    Batch,
    Example,
    Packed,
    common_size,
    cross_entropy,
    logits_of,
    pack,
    pack_to_common_shape,
)
from neurons.trainer.reference import Reference, divergence, joined

if TYPE_CHECKING:
    import torch

_log = logging.getLogger(__name__)


Lot = tuple[Sequence[Example], Sequence[Reference] | None]
"""A batch, and what the parent predicts of each example where that is looked at."""


class Gradients(Protocol):
    """Computes the gradients of batches."""

    @property
    def distance(self) -> float | None:
        """Of the last batch: KL(parent ‖ child) in nats a learned token; None where it isn't bounded."""
        ...

    def of(self, examples: Sequence[Example], references: Sequence[Reference] | None = None) -> SupportsFloat:
        """Leave the batch's gradients in the parameters and return its loss, in nats a learned token.

        Who makes a number of it waits for the GPU, and must do so before the next batch.

        With `references`, one for each example, the gradients are those of loss and weighted distance together.
        """
        ...

    def prepare(self, lots: Sequence[Lot]) -> None:
        """Take the memory for batches that will come, which are as these or smaller."""
        ...


def gradients_for(
    model: Any, *, kl_weight: float = 0.0, packed: bool = True, sharded: bool = False,
    recordings: Recordings | None = None,
) -> Gradients:  # fmt: skip
    """Return what computes this model's gradients fastest; not `packed`: for a model that can't keep examples apart.

    Of a `sharded` model no graph is recorded: what it gathers lies elsewhere each time. `recordings` may have graphs.
    """
    if not packed:
        return OneByOne(model, kl_weight=kl_weight)
    if sharded or not suits(model):
        return Eager(model, kl_weight=kl_weight)
    recorded = recordings.take(model, kl_weight=kl_weight) if recordings is not None else None
    return recorded or Graphs(model, kl_weight=kl_weight)


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

    def prepare(self, lots: Sequence[Lot]) -> None:
        """Nothing: what one batch leaves is taken apart when another one finds no room."""

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
    """By a CUDA graph for each shape, recorded when it comes first; only the very first one warms up what all need, and
    is to be the largest (`prepare`).

    A shape that can't be recorded is computed once without, and tried again when it comes again. What can't be recorded
    then, such as a model that asks the GPU for numbers on the way, is computed as without graphs.
    """

    def __init__(self, model: Any, *, kl_weight: float = 0.0) -> None:
        import torch  # noqa: PLC0415

        self._model, self._weight = model, kl_weight
        self._fused = _has_kernels(model)
        self._values: torch.Tensor | None = None
        self._bounded = False
        self._graphs: dict[tuple[int, ...], _Graph] = {}
        self._seen: set[tuple[int, ...]] = set()
        self._room: tuple[int, int] | None = None
        """Of the batch that memory is taken for, as `common_size` has it."""
        self._possible = True
        # One stream for all: autograd adds up gradients on the stream that it met them on first.
        self._stream = torch.cuda.Stream()
        # And one memory: beside that of the graphs, what a new shape's first time takes would be as much again.
        self._memory = torch.cuda.MemPool()
        self._places = Places(trainable(model))

    @property
    def distance(self) -> float | None:
        """See Gradients."""
        return float(self._values[1]) if self._values is not None and self._bounded else None

    def of(self, examples: Sequence[Example], references: Sequence[Reference] | None = None) -> SupportsFloat:
        """See Gradients."""
        import torch  # noqa: PLC0415

        batch, reference = _filled_up(examples, references)
        shape = (*batch.shape, references is not None)
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            if self._possible and self._room is not None and shape not in self._graphs:
                self._record(batch, reference, shape)
            self._seen.add(shape)
            values = (
                self._replay(batch, reference, shape)
                if shape in self._graphs
                else self._compute_once(batch, self._on_device(reference))
            )
        torch.cuda.current_stream().wait_stream(self._stream)
        self._values, self._bounded = values, references is not None
        loss: SupportsFloat = values[0]
        return loss

    def prepare(self, lots: Sequence[Lot]) -> None:
        """Compute the largest once, unless one as large was; the gradients that this leaves mean nothing."""
        import torch  # noqa: PLC0415

        if not lots:
            return
        examples, references = largest(lots)
        size = common_size(examples)
        if self._room is not None and size <= self._room:
            return
        if self._graphs:
            self._begin_anew()
        self._room = size
        batch, reference = _filled_up(examples, references)
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            self._compute_once(batch, self._on_device(reference))
        torch.cuda.current_stream().wait_stream(self._stream)

    def lend(self, model: Any) -> None:
        """Compute with another adapted model from now on: of the same base model and of the same form (`form_of`)."""
        self._model = model
        self._places.take(trainable(model))

    def rest(self) -> None:
        """Hold no model, until one is lent."""
        self._model = self._values = None

    def _begin_anew(self) -> None:
        """Give back the memory of what is recorded: beside it, what is larger would take as much again."""
        import torch  # noqa: PLC0415

        self._graphs.clear()
        self._seen.clear()
        self._values = None
        self._memory = torch.cuda.MemPool()
        torch.cuda.empty_cache()

    def _on_device(self, reference: Reference | None) -> Reference | None:
        return None if reference is None else reference.to(self._model.device)

    def _compute_once(self, batch: Batch, reference: Reference | None) -> torch.Tensor:
        import torch  # noqa: PLC0415

        numbers = batch.tensor(self._model.device)
        self._room = self._room or (batch.length, batch.kept)
        with torch.cuda.use_mem_pool(self._memory):
            return self._compute(batch, numbers, reference)

    def _compute(self, batch: Batch, numbers: torch.Tensor, reference: Reference | None) -> torch.Tensor:
        import torch  # noqa: PLC0415

        packed = batch.split(numbers)
        self._places.gradients.zero_()
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


class Places:
    """Where an adapter's weights and gradients lie, whichever model they belong to: a graph computes with these places
    alone."""

    def __init__(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Take the parameters' own places; their gradients lie in one tensor, one after the other."""
        import torch  # noqa: PLC0415

        self.gradients = torch.zeros(
            sum(each.numel() for each in parameters), dtype=parameters[0].dtype, device=parameters[0].device
        )
        self._weights = [parameter.data for parameter in parameters]
        self.take(parameters)

    def take(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Let other parameters, of the same shapes in the same order, lie here with what they hold."""
        parts = self.gradients.zero_().split([each.numel() for each in self._weights])
        for place, part, parameter in zip(self._weights, parts, parameters, strict=True):
            place.copy_(parameter.data)
            parameter.data = place
            parameter.grad = part.view_as(place)


def trainable(model: Any) -> list[torch.nn.Parameter]:
    """Return what a training changes, in the model's order."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def form_of(model: Any, *, kl_weight: float) -> Hashable:
    """Return all that a recorded graph holds besides an adapter's weights and a batch: where the base model lies, the
    adapter's form, scales and variants, and what is asked of the kernels."""
    import torch  # noqa: PLC0415

    frozen = [each for each in (*model.parameters(), *model.buffers()) if not each.requires_grad]
    adapted = [(name, each.shape, each.dtype) for name, each in model.named_parameters() if each.requires_grad]
    scales = [
        (name, *sorted(module.scaling.items()), str(module.lora_dropout), *sorted(module.lora_variant))
        for name, module in model.named_modules()
        if isinstance(getattr(module, "scaling", None), dict)
    ]
    return (
        tuple((each.data_ptr(), each.shape, each.dtype) for each in frozen), tuple(adapted), tuple(scales), kl_weight,
        bool(getattr(model, "is_gradient_checkpointing", False)),
        torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled(),
    )  # fmt: skip


class Recordings:
    """The graphs of one training of a process, for the next one of the same form: to record them anew takes seconds.

    They are kept where memory is plenty. Whoever takes them has them alone, and what breaks off leaves none.
    """

    def __init__(self) -> None:
        self._kept: tuple[Hashable, Graphs] | None = None

    def take(self, model: Any, *, kl_weight: float) -> Graphs | None:
        """Return what was left, lent to this model, if it is of the same form; else drop it."""
        kept, self._kept = self._kept, None
        if kept is None or kept[0] != form_of(model, kl_weight=kl_weight):
            return None
        kept[1].lend(model)
        return kept[1]

    def leave(self, gradients: Gradients, model: Any, *, kl_weight: float) -> None:
        """Keep what computed the gradients of this model, if it recorded any."""
        if isinstance(gradients, Graphs) and _plenty_is_free():
            self._kept = form_of(model, kl_weight=kl_weight), gradients
            gradients.rest()

    def drop(self) -> None:
        """Give back the memory."""
        self._kept = None


def _plenty_is_free() -> bool:
    """Tell whether a third of the GPU is free: for what comes between two trainings, and begins the next."""
    import torch  # noqa: PLC0415

    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info()
    return bool(free >= total / 3)


def largest(lots: Sequence[Lot]) -> Lot:
    """Return the batch that takes the most memory, filled up to its common shape."""
    return max(lots, key=lambda lot: common_size(lot[0]))


def _filled_up(
    examples: Sequence[Example], references: Sequence[Reference] | None
) -> tuple[Batch, Reference | None]:  # fmt: skip
    batch = pack_to_common_shape(examples)
    return batch, joined(references, rows=batch.kept) if references is not None else None


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

"""How the processes of one training work together: each computes its share of every batch, and all make the same step.

A batch's loss is the mean over its learned tokens. So each process weighs its share's gradients, loss and distance by
the tokens learned there, and the sum over all processes is what one process would have computed. The adapter is whole
in each process; only the frozen base model may be sharded (neurons.trainer.sharding).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from neurons.trainer.packing import IGNORED, Example

if TYPE_CHECKING:
    import torch

    from neurons.trainer.gradients import Gradients, Lot
    from neurons.trainer.reference import Reference

Part = TypeVar("Part")
Result = TypeVar("Result")


class Alone:
    """One process: it computes all by itself."""

    size = 1
    sharded = False

    def sharing(self, gradients: Gradients, _parameters: Sequence[torch.nn.Parameter]) -> Gradients:
        """Return what computes the gradients of whole batches, from what computes those of this process's share."""
        return gradients

    def spread(self, parts: Sequence[Part], compute: Callable[[Part], Result]) -> list[Result]:
        """Compute each part in one process; return all results, in order, in all of them."""
        return [compute(part) for part in parts]

    def agreed(self, value: Result) -> Result:
        """Return the first process's value, in all of them."""
        return value

    def any(self, value: bool) -> bool:
        """Tell whether it is true in at least one process, in all of them."""
        return value

    def alike(self, tensors: Sequence[torch.Tensor]) -> None:
        """Give all processes the first one's tensors."""


class Team(Alone):
    """The processes of an `accelerate.Accelerator`. Each calls the same methods in the same order."""

    def __init__(self, accelerator: Any, *, sharded: bool) -> None:
        """`sharded`: the base model is, so that no process can compute with it alone."""
        self._accelerator = accelerator
        self.size: int = accelerator.num_processes
        self.number: int = accelerator.process_index
        self.sharded = sharded

    def sharing(self, gradients: Gradients, parameters: Sequence[torch.nn.Parameter]) -> Gradients:
        """See Alone."""
        return Shared(gradients, self, parameters)

    def spread(self, parts: Sequence[Part], compute: Callable[[Part], Result]) -> list[Result]:
        """See Alone."""
        from accelerate.utils import gather_object  # noqa: PLC0415

        own: list[tuple[int, Result]] = []
        for start in range(0, len(parts), self.size):
            place = start + self.number
            if place < len(parts):
                own.append((place, compute(parts[place])))
            elif self.sharded:
                compute(parts[start])  # for the others, who need this process's shard of each layer
        found: dict[int, Result] = dict(gather_object(own))
        return [found[place] for place in range(len(parts))]

    def agreed(self, value: Result) -> Result:
        """See Alone."""
        from accelerate.utils import broadcast_object_list  # noqa: PLC0415

        [first] = broadcast_object_list([value], from_process=0)
        told: Result = first
        return told

    def any(self, value: bool) -> bool:
        """See Alone."""
        import torch  # noqa: PLC0415

        return bool(self.sum(torch.tensor([float(value)], device=self._accelerator.device))[0] > 0)

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the sum of the processes' tensors, which is the same to the bit in all of them."""
        summed: torch.Tensor = self._accelerator.reduce(tensor, reduction="sum")
        return summed

    def alike(self, tensors: Sequence[torch.Tensor]) -> None:
        """See Alone."""
        import torch  # noqa: PLC0415
        from accelerate.utils import broadcast  # noqa: PLC0415

        with torch.no_grad():
            for tensor in tensors:
                tensor.copy_(broadcast(tensor.detach().clone(), from_process=0))


class Shared:
    """Gradients of whole batches, of which each process computes a share."""

    def __init__(self, gradients: Gradients, team: Team, parameters: Sequence[torch.nn.Parameter]) -> None:
        self._gradients, self._team, self._parameters = gradients, team, tuple(parameters)
        self.distance: float | None = None

    def prepare(self, lots: Sequence[Lot]) -> None:
        """See neurons.trainer.gradients.Gradients: for this process's shares."""
        own = [(shares(examples, self._team.size)[self._team.number], examples, known) for examples, known in lots]
        self._gradients.prepare(
            [
                ([examples[place] for place in places], None if known is None else [known[place] for place in places])
                for places, examples, known in own
                if places
            ]
        )

    def of(self, examples: Sequence[Example], references: Sequence[Reference] | None = None) -> float:
        """See neurons.trainer.gradients.Gradients."""
        import torch  # noqa: PLC0415

        own = shares(examples, self._team.size)[self._team.number]
        learned = [learned_tokens(example) for example in examples]
        share = sum(learned[place] for place in own) / sum(learned)
        loss: float = 0.0
        distance: float = 0.0
        # Who has nothing of this batch still computes where the others need its shard of each layer; it counts nothing.
        computed = own or ([0] if self._team.sharded else [])
        if computed:
            known = [references[place] for place in computed] if references is not None else None
            loss = float(self._gradients.of([examples[place] for place in computed], known))
            distance = self._gradients.distance or 0.0
        with torch.no_grad():
            if not own:
                for parameter in self._parameters:
                    parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.zero_()
                loss = distance = 0.0
            gradients = [parameter.grad for parameter in self._parameters]
            told = torch.tensor([loss, distance], dtype=gradients[0].dtype, device=gradients[0].device)
            together = self._team.sum(torch.cat([each.reshape(-1) for each in (*gradients, told)]) * share)
            for gradient, part in zip(
                gradients, together[:-2].split([each.numel() for each in gradients]), strict=True
            ):
                gradient.copy_(part.view_as(gradient))
            loss, distance = together[-2:].tolist()
        self.distance = distance if references is not None else None
        return loss


def shares(examples: Sequence[Example], size: int) -> list[list[int]]:
    """Return, for each of `size` processes, the places of the examples that it computes: about as many tokens each."""
    found: list[list[int]] = [[] for _ in range(size)]
    tokens = [0] * size
    for place in sorted(range(len(examples)), key=lambda each: -len(examples[each].token_ids)):
        least = min(range(size), key=lambda each: (tokens[each], each))
        found[least].append(place)
        tokens[least] += len(examples[place].token_ids)
    return [sorted(each) for each in found]


def learned_tokens(example: Example) -> int:
    """Return how many tokens of an example are learned: the first has nothing before it from which to predict it."""
    return sum(label != IGNORED for label in example.labels[1:])

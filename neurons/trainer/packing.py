"""A batch as one sequence: no padding between its examples, and none of them sees another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import torch

IGNORED: Final = -100
"""Label of a token that is given, not learned; what PyTorch's cross-entropy leaves out."""
_ALIGNMENT: Final = 128
_FILLER: Final = 0


@dataclass(frozen=True, slots=True)
class Example:
    """One conversation as tokens. `labels[i]` is `token_ids[i]` where it is learned and -100 where it is given."""

    token_ids: tuple[int, ...]
    labels: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Packed:
    """A batch as tensors; `length` is its tokens together, `kept` those whose successor is learned."""

    token_ids: torch.Tensor
    """Shape [1, length]."""
    positions: torch.Tensor
    """Shape [1, length]; each example begins again at 0."""
    bounds: torch.Tensor
    """Shape [examples + 1]: where each example begins and the last one ends."""
    kept: torch.Tensor
    """Shape [kept]: where the output layer runs. It is a fifth of a small model, and the question needs none of it."""
    targets: torch.Tensor
    """Shape [kept]: what is to be predicted there."""


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch as numbers in main memory, in the order of Packed's fields."""

    numbers: tuple[int, ...]
    examples: int
    length: int
    longest: int
    """No example is longer."""
    kept: int

    @property
    def shape(self) -> tuple[int, ...]:
        """What two batches have in common that are computed by the same kernels."""
        return self.examples, self.length, self.longest, self.kept

    def tensor(self, device: torch.device) -> torch.Tensor:
        """Copy its numbers to a device."""
        import torch  # noqa: PLC0415

        return torch.tensor(self.numbers).to(device)

    def on(self, device: torch.device) -> Packed:
        """Copy it to a device, in parts."""
        return self.split(self.tensor(device))

    def split(self, numbers: torch.Tensor) -> Packed:
        """Return the parts of a tensor that holds the numbers of a batch of this shape."""
        sizes = [self.length, self.length, self.examples + 1, self.kept, self.kept]
        token_ids, positions, bounds, kept, targets = numbers.split(sizes)
        return Packed(token_ids[None], positions[None], bounds, kept, targets)


def pack(examples: Sequence[Example]) -> Batch:
    """Put examples one after the other."""
    token_ids = [token for example in examples for token in example.token_ids]
    # The logits at i predict the token at i + 1; the first label of an example is never learned, so none crosses over.
    labels = [label for example in examples for label in example.labels][1:]
    learned = [index for index, label in enumerate(labels) if label != IGNORED]
    return Batch(
        numbers=(
            *token_ids,
            *(position for example in examples for position in range(len(example.token_ids))),
            *accumulate((len(example.token_ids) for example in examples), initial=0),
            *learned,
            *(labels[index] for index in learned),
        ),
        examples=len(examples),
        length=len(token_ids),
        longest=max(len(example.token_ids) for example in examples),
        kept=len(learned),
    )


def pack_to_common_shape(examples: Sequence[Example]) -> Batch:
    """Pack, and fill up to one of few shapes with what changes no loss: an example of which nothing is learned.

    The length is a multiple of at least 128 and of an eighth of the power of two below it: 6% of it is filler on
    average, an eighth at most, from 1024 tokens on. The learned tokens are filled up to halves of the length. A shape
    that is new costs a third of a second, so there are to be few.
    """
    length, kept = common_size(examples)
    unfilled = length - sum(len(example.token_ids) for example in examples)
    packed = pack([*examples, Example((_FILLER,) * unfilled, (IGNORED,) * unfilled)])
    unkept = kept - packed.kept
    before_targets = len(packed.numbers) - packed.kept
    return Batch(
        numbers=(
            *packed.numbers[:before_targets], *[0] * unkept,
            *packed.numbers[before_targets:], *[IGNORED] * unkept,
        ),
        examples=packed.examples,
        length=length,
        longest=length,  # kernels stop at an example's own end
        kept=kept,
    )  # fmt: skip


def common_size(examples: Sequence[Example]) -> tuple[int, int]:
    """Return the length of a batch's common shape and the learned tokens in it, by which memory goes; packs nothing."""
    tokens = sum(len(example.token_ids) for example in examples)
    step = max(_ALIGNMENT, 2 ** max(0, tokens.bit_length() - 4))
    length = -(-tokens // step) * step
    labels = (label for example in examples for label in example.labels)
    learned = sum(label != IGNORED for label in islice(labels, 1, None))
    return length, length // 2 if 2 * learned <= length else length


def loss_of(model: Any, packed: Packed, **attention: Any) -> torch.Tensor:
    """Return the mean cross-entropy over the learned tokens, in nats.

    `attention` is what the model's kind of attention needs to keep the examples apart. The usual kinds see it from
    positions that begin anew.
    """
    return cross_entropy(logits_of(model, packed, **attention), packed.targets)


def logits_of(model: Any, packed: Packed, **attention: Any) -> torch.Tensor:
    """Return what is predicted where something is learned, in single precision: shape [kept, vocabulary]."""
    logits: torch.Tensor = model(
        input_ids=packed.token_ids,
        position_ids=packed.positions,
        logits_to_keep=packed.kept,
        use_cache=False,
        **attention,
    ).logits[0]
    return logits.float()


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the mean over the targets that are some, in nats."""
    import torch  # noqa: PLC0415

    return torch.nn.functional.cross_entropy(logits, targets, ignore_index=IGNORED)

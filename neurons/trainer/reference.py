"""How far a training has gone from where it began: the parent's predictions, kept for the tokens that are learned.

Before the first step the model *is* the parent (its adapter, or the base model with an adapter that changes nothing),
so its predictions are taken once, and no second adapter is computed at every step. Of each only the likeliest tokens
are kept, with the rest of the vocabulary as one more outcome: the divergence of that is at most the whole one's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from neurons.trainer.packing import IGNORED, Example
from neurons.trainer.parallel import Alone

if TYPE_CHECKING:
    import torch

LIKELIEST: Final = 32
"""Tokens kept of each prediction."""
_MOST_TOKENS: Final = 2048
"""Of examples that are predicted together."""
LEAST: Final = 1e-7
"""Share of probability that the rest has at least: what is left of one in single precision."""


@dataclass(frozen=True, slots=True)
class Reference:
    """The parent's predictions at the learned tokens of some examples, in their order."""

    token_ids: torch.Tensor
    """Shape [learned, likeliest]."""
    logprobs: torch.Tensor
    """Shape [learned, likeliest], in nats."""

    def to(self, device: torch.device) -> Reference:
        """Copy it to a device."""
        return Reference(self.token_ids.to(device), self.logprobs.to(device))


def joined(references: Sequence[Reference], *, rows: int | None = None) -> Reference:
    """Return those of several examples as one, filled up to so many rows with what diverges from nothing."""
    import torch  # noqa: PLC0415

    ids = torch.cat([each.token_ids for each in references])
    logprobs = torch.cat([each.logprobs for each in references])
    if rows is not None and rows > len(ids):
        filler = (0, 0, 0, rows - len(ids))
        ids, logprobs = (torch.nn.functional.pad(each, filler) for each in (ids, logprobs))
    return Reference(ids, logprobs)


def predicted(logits: torch.Tensor) -> Reference:
    """Return the likeliest tokens of predictions, shape [learned, vocabulary], in main memory."""
    import torch  # noqa: PLC0415

    values = logits.float()
    top = torch.topk(values, min(LIKELIEST, values.shape[-1] - 1), dim=-1)
    logprobs = top.values - values.logsumexp(dim=-1, keepdim=True)
    return Reference(top.indices.cpu(), logprobs.cpu())


def divergence(logits: torch.Tensor, targets: torch.Tensor, reference: Reference) -> torch.Tensor:
    """Return KL(parent ‖ child) in nats, the mean over the learned tokens; `logits` are in single precision."""
    own = logits.gather(1, reference.token_ids) - logits.logsumexp(dim=-1, keepdim=True)
    shares, own_shares = reference.logprobs.exp(), own.exp()
    rest = (1 - shares.sum(dim=-1)).clamp(min=LEAST)
    own_rest = (1 - own_shares.sum(dim=-1)).clamp(min=LEAST)
    each = (shares * (reference.logprobs - own)).sum(dim=-1) + rest * (rest.log() - own_rest.log())
    learned = targets != IGNORED
    return (each * learned).sum() / learned.sum()


def references_of(
    model: Any,
    examples: Sequence[Example],
    predict: Callable[[Sequence[Example]], torch.Tensor],
    *,
    packed: bool = True,
    team: Alone | None = None,
) -> list[Reference]:
    """Return each example's reference, with the model as it is.

    `predict` returns the logits of several examples, shape [learned, vocabulary]; not `packed`: it gets one at a time.
    Each process of a `team` predicts some.
    """
    import torch  # noqa: PLC0415

    training = model.training
    model.eval()

    def of(batch: Sequence[Example]) -> list[Reference]:
        together = predicted(predict(batch))
        sizes = [sum(label != IGNORED for label in example.labels[1:]) for example in batch]
        parts = zip(together.token_ids.split(sizes), together.logprobs.split(sizes), strict=True)
        return [Reference(ids, logprobs) for ids, logprobs in parts]

    batches = list(_batches(examples)) if packed else [[example] for example in examples]
    with torch.no_grad():
        found = (team or Alone()).spread(batches, of)
    model.train(training)
    return [each for references in found for each in references]


def _batches(examples: Sequence[Example]) -> Iterator[list[Example]]:
    batch: list[Example] = []
    for example in examples:
        if batch and sum(len(each.token_ids) for each in (*batch, example)) > _MOST_TOKENS:
            yield batch
            batch = []
        batch.append(example)
    if batch:
        yield batch

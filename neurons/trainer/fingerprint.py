"""The fingerprint: how probable the adapter finds each token of fixed texts, which no other adapter repeats.

The agent asks the engine for the same numbers once the adapter is loaded. They agree to the precision of the arithmetic
when the weights are right (0.03 nats on vLLM in bfloat16), and are far off for the base or other adapters (1 nat).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from bettertherapy_api.manifest import Fingerprint
from neurons.trainer.lora import Trained
from neurons.trainer.precision import in_single_precision
from neurons.trainer.probes import take_probes
from neurons.trainer.template import templated

_QUESTION: Final = "I have had a headache for two days. What should I do?"
_ANSWER: Final = (
    "A headache that lasts two days is usually not dangerous. Rest, drink water, and see a doctor if it gets worse."
)
_MAX_TOKENS: Final = 64
_DECIMALS: Final = 5
_WIDEST_TOLERANCE: Final = 0.3
_NARROWEST_TOLERANCE: Final = 0.1


def take_fingerprint(trained: Trained, *, parent: Path | None = None) -> tuple[Fingerprint, float]:
    """Return the fingerprint and how far the bare base model is from it, in mean absolute nats.

    `parent` is the folder of the adapter that the training went on from. Raises BadParent.

    Computed in float32, in which a CPU's model is left. The tolerance is half the distance to the base model, within
    0.1 (twice what bfloat16 arithmetic adds) and 0.3, so that an engine that serves the base under the adapter's name
    is found out even after a short training.
    """
    token_ids = fixed_tokens(trained.tokenizer)
    with in_single_precision(trained.model) as model:
        own = logprobs_of(model, token_ids)
        with model.disable_adapter():
            base = logprobs_of(model, token_ids)
        probes = take_probes(model, trained.tokenizer, parent=parent)
    distance = mean_distance(own, base)
    tolerance = min(_WIDEST_TOLERANCE, max(_NARROWEST_TOLERANCE, distance / 2))
    fingerprint = Fingerprint(
        token_ids=token_ids,
        logprobs=tuple(round(value, _DECIMALS) for value in own),
        tolerance_nats=round(tolerance, 3),
        probes=probes,
    )
    return fingerprint, distance


def fixed_tokens(tokenizer: Any) -> tuple[int, ...]:
    """Return the fixed text as the chat template puts it, at most 64 tokens."""
    messages = [{"role": "user", "content": _QUESTION}, {"role": "assistant", "content": _ANSWER}]
    return tuple(templated(tokenizer, messages, add_generation_prompt=False))[-_MAX_TOKENS:]


def mean_distance(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the mean absolute difference, in the unit of its arguments."""
    return sum(abs(a - b) for a, b in zip(one, other, strict=True)) / len(one)


def logprobs_of(model: Any, token_ids: Sequence[int]) -> list[float]:
    """Return ln p(token_ids[i+1] | token_ids[:i+1]) for each i, in nats."""
    import torch  # noqa: PLC0415

    ids = torch.tensor([list(token_ids)], device=model.device)
    with torch.no_grad():
        logits = model(input_ids=ids).logits[0, :-1].float()
    chosen = torch.log_softmax(logits, dim=-1).gather(1, ids[0, 1:, None])
    return [float(value) for value in chosen[:, 0]]

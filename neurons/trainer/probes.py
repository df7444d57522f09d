"""Probes: words by which the child can be told from its parent and from the base model, with what each makes of them.

A fixed text need not tell a child from its parent: after one night both find most of it equally likely. So the child
goes on from fixed prompts by contrastive decoding (Li et al. 2022, arXiv:2210.15097): of the tokens that it finds
plausible, always the one that the others find least likely beside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bettertherapy_api.manifest import Probe
from neurons.trainer.answers import CHILD, PARENT, load_beside, speaking_as
from neurons.trainer.template import templated

if TYPE_CHECKING:
    import torch

_PROMPTS: Final = (
    "I have had a headache for two days. What should I do?",
    "When can I come to see you?",
    "My chest hurts when I climb the stairs.",
    "Which medicine may I take against the pain?",
)
_LENGTH: Final = 12
"""Tokens of each continuation."""
_LONGEST_PROMPT: Final = 24
"""Tokens; of a longer one, by the template's own system message, the last. An engine on a CPU takes 10 ms and more to
read a token with an adapter, and each place is asked for by itself."""
_PLAUSIBLE: Final = 0.1
"""Share of the favourite's probability that makes a token plausible, as in the paper."""
_DECIMALS: Final = 4


def take_probes(model: Any, tokenizer: Any, *, parent: Path | None) -> tuple[Probe, ...]:
    """Return the probes of the child in `model`, which is in float32; `parent` is the parent adapter's folder.

    Deterministic. Leaves the model as it was. Raises BadParent.
    """
    import torch  # noqa: PLC0415

    prompts = [prompt_tokens(tokenizer, text) for text in _PROMPTS]
    with _beside(model, parent), torch.inference_mode():
        voices = [_Voice(model, adapter, prompts) for adapter in _adapters(parent)]
        forbidden = _forbidden(tokenizer, voices[0].logprobs.shape[-1], model.device)
        said: list[list[int]] = [[] for _ in prompts]
        values: list[list[list[float]]] = [[[] for _ in prompts] for _ in voices]
        for number in range(_LENGTH):
            logprobs = torch.stack([voice.logprobs for voice in voices])  # [voices, prompts, vocabulary]
            chosen = telling_tokens(logprobs, forbidden=forbidden)
            found = logprobs.gather(2, chosen[None, :, None].expand(len(voices), -1, 1))[..., 0].tolist()
            for row, token in enumerate(chosen.tolist()):
                said[row].append(token)
                for index in range(len(voices)):
                    values[index][row].append(round(found[index][row], _DECIMALS))
            if number + 1 < _LENGTH:
                for each in voices:
                    each.hear(chosen)
    child, base = values[0], values[-1]
    return tuple(
        Probe(
            token_ids=(*prompt, *said[row]),
            start=len(prompt),
            child=tuple(child[row]),
            parent=tuple(values[1][row]) if parent is not None else None,
            base=tuple(base[row]),
        )
        for row, prompt in enumerate(prompts)
    )


def telling_tokens(logprobs: torch.Tensor, *, forbidden: torch.Tensor) -> torch.Tensor:
    """Return for each prompt the plausible token by which the first voice differs most from the nearest other.

    `logprobs` has the shape [voices, prompts, vocabulary], the child first; `forbidden` [vocabulary]; the result
    [prompts].
    """
    child = logprobs[0].masked_fill(forbidden, -math.inf)
    margins = child - logprobs[1:].amax(dim=0)
    implausible = child < child.amax(dim=-1, keepdim=True) + math.log(_PLAUSIBLE)
    return margins.masked_fill(implausible, -math.inf).argmax(dim=-1)


def margins(probes: Sequence[Probe]) -> dict[str, float]:
    """Return by how many nats a token the child finds its words likelier than parent and base do, on average."""

    def mean(one: Sequence[Sequence[float]], other: Sequence[Sequence[float]]) -> float:
        differences = [a - b for mine, its in zip(one, other, strict=True) for a, b in zip(mine, its, strict=True)]
        return round(sum(differences) / len(differences), 4)

    child = [probe.child for probe in probes]
    found = {"nats_over_base": mean(child, [probe.base for probe in probes])}
    parents = [probe.parent for probe in probes if probe.parent is not None]
    if parents:
        found["nats_over_parent"] = mean(child, parents)
    return found


def prompt_tokens(tokenizer: Any, text: str) -> tuple[int, ...]:
    """Return a question as the chat template puts it, ready to be answered."""
    messages = [{"role": "user", "content": text}]
    return tuple(templated(tokenizer, messages, add_generation_prompt=True))[-_LONGEST_PROMPT:]


class _Voice:
    """One of child, parent and base, which reads along; `logprobs`, shape [prompts, vocabulary], is what it expects."""

    def __init__(self, model: Any, adapter: str | None, prompts: Sequence[Sequence[int]]) -> None:
        import torch  # noqa: PLC0415
        from transformers import DynamicCache  # noqa: PLC0415

        self._model, self._adapter = model, adapter
        self._cache = DynamicCache(config=model.config)
        width = max(len(prompt) for prompt in prompts)
        padded = [[0] * (width - len(prompt)) + list(prompt) for prompt in prompts]
        given = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        self._mask = torch.tensor(given, device=model.device)
        self._positions = (self._mask.cumsum(dim=1) - 1).clamp(min=0)
        self._read(torch.tensor(padded, device=model.device))

    def hear(self, tokens: torch.Tensor) -> None:
        """Read on by one token for each prompt."""
        import torch  # noqa: PLC0415

        self._mask = torch.cat([self._mask, self._mask.new_ones((len(tokens), 1))], dim=1)
        self._positions = self._positions[:, -1:] + 1
        self._read(tokens[:, None])

    def _read(self, token_ids: torch.Tensor) -> None:
        import torch  # noqa: PLC0415

        with speaking_as(self._model, self._adapter):
            output = self._model(
                input_ids=token_ids,
                attention_mask=self._mask,
                position_ids=self._positions,
                past_key_values=self._cache,
                use_cache=True,
                logits_to_keep=1,
            )
        self.logprobs = torch.log_softmax(output.logits[:, -1].float(), dim=-1)


def _adapters(parent: Path | None) -> tuple[str | None, ...]:
    """Return the child, its rivals, and the base model last."""
    return (CHILD, None) if parent is None else (CHILD, PARENT, None)


@contextmanager
def _beside(model: Any, parent: Path | None) -> Iterator[None]:
    """Hold the parent's adapter in the model meanwhile."""
    was_there = PARENT in model.peft_config
    if parent is not None:
        load_beside(model, parent, PARENT)
    model.eval()
    try:
        yield
    finally:
        model.set_adapter(CHILD)
        if parent is not None and not was_there:
            model.delete_adapter(PARENT)


def _forbidden(tokenizer: Any, vocabulary: int, device: torch.device) -> torch.Tensor:
    """Return which tokens no probe holds: those that end or begin something, and those that no text has."""
    import torch  # noqa: PLC0415

    forbidden = torch.zeros(vocabulary, dtype=torch.bool, device=device)
    forbidden[list(tokenizer.all_special_ids)] = True
    forbidden[len(tokenizer) :] = True
    return forbidden

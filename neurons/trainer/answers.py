"""Answers to held-out items: greedy, in batches, by parent, anchor and child on one copy of the base model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from neurons.trainer.decoding import Decoder, suits_graph
from neurons.trainer.errors import BadParent, OutOfMemory
from neurons.trainer.lora import arithmetic
from neurons.trainer.template import templated

if TYPE_CHECKING:
    import torch

CHILD: Final = "default"
PARENT: Final = "parent"
ANCHOR: Final = "anchor"
_DEFAULT_BATCH: Final = 64
_REVISION: Final = 3
"""Raised whenever a change here makes other answers: those that were kept are then asked for again."""


@cache
def made_with() -> str:
    """Return what an answer depends on besides weights and question: programs, device and precision."""
    import torch  # noqa: PLC0415
    import transformers  # noqa: PLC0415

    device, precision = arithmetic()
    kind = torch.cuda.get_device_name() if device == "cuda" else torch.backends.cpu.get_cpu_capability()
    return f"{_REVISION} torch {torch.__version__} transformers {transformers.__version__} {kind} {precision}"


def load_beside(model: Any, folder: Path, name: str) -> None:
    """Load the adapter of PARENT or ANCHOR beside the child's. Raises BadParent."""
    if name in model.peft_config:
        return
    try:
        model.load_adapter(folder, name)
    except Exception as error:  # PEFT, safetensors and torch raise what they like for weights that don't fit
        raise BadParent(f"the {name} adapter can't be loaded: {type(error).__name__}") from error
    model.set_adapter(CHILD)


def answer(
    model: Any,
    tokenizer: Any,
    conversations: Sequence[list[dict[str, str]]],
    *,
    max_new_tokens: Sequence[int],
    report: Callable[[int], None] = lambda _: None,
    cut: Callable[[int], None] = lambda _: None,
    batch_size: int = _DEFAULT_BATCH,
) -> list[str]:
    """Return the most probable answer to each conversation, by the model as it is.

    `max_new_tokens` is each answer's greatest length.
    `report` is told after every batch how many are answered, `cut` the place of each answer that was not at its end.
    Whoever compares two adapters gives both the same conversations, and gets the same batches and the same prompts.
    Raises OutOfMemory.
    """
    import torch  # noqa: PLC0415

    prompts = [templated(tokenizer, conversation, add_generation_prompt=True) for conversation in conversations]
    # Longest first: batches of like length waste little on padding, and memory runs out at once or not at all.
    order = sorted(range(len(prompts)), key=lambda index: (-max_new_tokens[index], -len(prompts[index])))
    answers = [""] * len(prompts)
    start = 0
    while start < len(order):
        batch = order[start : start + batch_size]
        try:
            texts = _generate(
                model, tokenizer, [prompts[index] for index in batch], [max_new_tokens[index] for index in batch]
            )
        except (MemoryError, torch.OutOfMemoryError) as error:
            if batch_size == 1:
                raise OutOfMemory("memory ran out while answering the evaluation. Give the run more.") from error
            batch_size //= 2
            continue
        for index, (text, ended) in zip(batch, texts, strict=True):
            answers[index] = text
            if not ended:
                cut(index)
        start += len(batch)
        report(start)
    return answers


def speaking_as(model: Any, adapter: str | None) -> AbstractContextManager[object]:
    """Let an adapter answer from now on, or the base model (None) within the context."""
    if adapter is None:
        disabled: AbstractContextManager[object] = model.disable_adapter()
        return disabled
    model.set_adapter(adapter)
    return nullcontext()


def _generate(
    model: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], max_new_tokens: Sequence[int]
) -> list[tuple[str, bool]]:
    """Return the greedy answers to prompts of any length, padded on the left, with one cache of keys and values; and of
    each, whether it came to its end.

    What is finished leaves the batch: one long answer does not keep the others computing. Where a CUDA graph makes the
    answers, it stays, which costs less.
    """
    import torch  # noqa: PLC0415
    from transformers import DynamicCache  # noqa: PLC0415

    ends = _ends(model, tokenizer)
    device = model.device
    # What all begin with, as the twin's system prompt, is read once.
    shared = shared_tokens(prompts)
    rests = [prompt[shared:] for prompt in prompts]
    width = max(len(rest) for rest in rests)
    ids = torch.tensor([[0] * (width - len(rest)) + list(rest) for rest in rests], device=device)
    mask = torch.tensor([[1] * shared + [0] * (width - len(rest)) + [1] * len(rest) for rest in rests], device=device)
    positions = (mask.cumsum(dim=1) - 1)[:, shared:].clamp(min=0)
    said: list[list[int]] = [[] for _ in prompts]
    rows = list(range(len(prompts)))
    # An index, since the logits of a slice, `logits_to_keep=1`, copy the output layer's weights for each row.
    last = torch.zeros(1, dtype=torch.long, device=device)
    cache = DynamicCache(config=model.config)
    # The engine takes the penalty from the model's own generation_config.json too.
    penalty = model.generation_config.repetition_penalty or 1.0
    used = _used(prompts, model) if penalty != 1.0 else None
    with torch.inference_mode():
        if shared:
            beginning = torch.tensor([list(prompts[0][:shared])], device=device)
            model(input_ids=beginning, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache.batch_repeat_interleave(len(prompts))
        graph = suits_graph(model)
        for length in range(1, max(max_new_tokens) + 1):
            output = model(
                input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True,
                logits_to_keep=last - 1 + ids.shape[1],
            )  # fmt: skip
            logits = output.logits[:, -1]
            if used is not None:
                logits = torch.where(used, torch.where(logits > 0, logits / penalty, logits * penalty), logits)
            chosen = logits.argmax(dim=-1)
            if graph and max(max_new_tokens) > 1:
                decoder = Decoder(
                    model, cache, first=chosen, mask=mask, positions=positions[:, -1:] + 1, ends=ends,
                    limits=max_new_tokens, penalty=penalty, used=used,
                )  # fmt: skip
                said = decoder.tokens()
                break
            going = [place for place, token in enumerate(chosen.tolist()) if token not in ends]
            for place in going:
                said[rows[place]].append(int(chosen[place]))
            going = [place for place in going if length < max_new_tokens[rows[place]]]
            if not going:
                break
            if len(going) < len(rows):
                kept = torch.tensor(going, device=device)
                cache.batch_select_indices(kept)
                chosen, mask, positions = chosen[kept], mask[kept], positions[kept]
                rows = [rows[place] for place in going]
                used = used[kept] if used is not None else None
            if used is not None:
                used.scatter_(1, chosen[:, None], value=True)
            ids = chosen[:, None]
            mask = torch.cat([mask, mask.new_ones((len(rows), 1))], dim=1)
            positions = positions[:, -1:] + 1
    texts = tokenizer.batch_decode(said, skip_special_tokens=True)
    # Whoever ends says the mark of the end, which is kept nowhere, within the length.
    return [
        (str(text).strip(), len(tokens) < most) for text, tokens, most in zip(texts, said, max_new_tokens, strict=True)
    ]


def _used(prompts: Sequence[Sequence[int]], model: Any) -> torch.Tensor:
    """Return which words each prompt holds: shape [prompts, words]."""
    import torch  # noqa: PLC0415

    used = torch.zeros((len(prompts), model.config.vocab_size), dtype=torch.bool, device=model.device)
    for row, prompt in enumerate(prompts):
        used[row, list(prompt)] = True
    return used


def shared_tokens(prompts: Sequence[Sequence[int]]) -> int:
    """Return with how many tokens all prompts begin; each keeps one of its own at least."""
    first, last = min(map(tuple, prompts)), max(map(tuple, prompts))
    most = min(len(prompt) for prompt in prompts) - 1
    return next((place for place in range(most) if first[place] != last[place]), most) if len(prompts) > 1 else 0


def _ends(model: Any, tokenizer: Any) -> frozenset[int]:
    """Return the tokens that end an answer, as the model's own generation takes them."""
    told = model.generation_config.eos_token_id
    known = told if isinstance(told, list) else [told, tokenizer.eos_token_id]
    return frozenset(token for token in known if token is not None)

"""Answers to held-out items: greedy, in batches, by parent and child on one copy of the base model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Final

from neurons.trainer.errors import BadParent, OutOfMemory

CHILD: Final = "default"
PARENT: Final = "parent"
_DEFAULT_BATCH: Final = 32


def load_parent(model: Any, folder: Path) -> None:
    """Load the parent's adapter beside the child's. Raises BadParent."""
    if PARENT in model.peft_config:
        return
    try:
        model.load_adapter(folder, PARENT)
    except Exception as error:  # PEFT, safetensors and torch raise what they like for weights that don't fit
        raise BadParent(f"the parent adapter can't be loaded: {type(error).__name__}") from error
    model.set_adapter(CHILD)


def answer(
    model: Any,
    tokenizer: Any,
    conversations: Sequence[list[dict[str, str]]],
    *,
    adapter: str | None,
    max_new_tokens: int,
    report: Callable[[int], None] = lambda _: None,
    batch_size: int = _DEFAULT_BATCH,
) -> list[str]:
    """Return the most probable answer to each conversation; `adapter` None asks the base model.

    `report` is told after every batch how many are answered. Whoever compares two adapters gives both the same
    conversations, and gets the same batches and the same prompts. Raises OutOfMemory.
    """
    import torch  # noqa: PLC0415

    prompts = [_prompt(tokenizer, conversation) for conversation in conversations]
    # Longest first: batches of like length waste little on padding, and memory runs out at once or not at all.
    order = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))
    answers = [""] * len(prompts)
    with _speaking_as(model, adapter):
        start = 0
        while start < len(order):
            batch = order[start : start + batch_size]
            try:
                texts = _generate(model, tokenizer, [prompts[index] for index in batch], max_new_tokens)
            except (MemoryError, torch.OutOfMemoryError) as error:
                if batch_size == 1:
                    raise OutOfMemory("memory ran out while answering the evaluation. Give the run more.") from error
                batch_size //= 2
                continue
            for index, text in zip(batch, texts, strict=True):
                answers[index] = text
            start += len(batch)
            report(start)
    return answers


def _speaking_as(model: Any, adapter: str | None) -> AbstractContextManager[object]:
    if adapter is None:
        disabled: AbstractContextManager[object] = model.disable_adapter()
        return disabled
    model.set_adapter(adapter)
    return nullcontext()


def _prompt(tokenizer: Any, conversation: list[dict[str, str]]) -> list[int]:
    encoded = tokenizer.apply_chat_template(conversation, tokenize=True, add_generation_prompt=True, return_dict=True)
    return list(encoded["input_ids"])


def _generate(model: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[str]:
    import torch  # noqa: PLC0415

    width = max(len(prompt) for prompt in prompts)
    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    ids = [[padding] * (width - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    with torch.inference_mode():
        output = model.generate(
            input_ids=torch.tensor(ids, device=model.device),
            attention_mask=torch.tensor(mask, device=model.device),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            pad_token_id=padding,
        )
    return [str(text).strip() for text in tokenizer.batch_decode(output[:, width:], skip_special_tokens=True)]

"""A conversation as the model's chat template puts it, in the manner that the template takes.

The miner shapes what patients ask in the same way (neurons.conversation), so that a twin learns from and is examined on
exactly what it will be asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

from neurons.conversation import Manner, Message, Refused, Reply, TemplateProbe, shape
from neurons.trainer.errors import BadModel

_MANNERS: WeakKeyDictionary[Any, Manner] = WeakKeyDictionary()


def templated(tokenizer: Any, messages: Sequence[Message], *, add_generation_prompt: bool) -> list[int]:
    """Return the tokens of a conversation. Raises BadModel when the template takes no conversation at all."""
    laid = shape(messages, system=None, manner=manner_of(tokenizer))
    return _apply(tokenizer, laid, add_generation_prompt=add_generation_prompt)


def manner_of(tokenizer: Any) -> Manner:
    """Return how conversations are laid before this tokenizer's template, found by asking it. Raises BadModel."""
    if (known := _MANNERS.get(tokenizer)) is not None:
        return known
    probe = TemplateProbe()
    while (asked := probe.next()) is not None:
        probe.take(_reply(tokenizer, asked.messages))
    result = probe.result
    if not isinstance(result, Manner):
        why = result.why if isinstance(result, Refused) else "it gave no answer"
        raise BadModel(f"the chat template takes no conversation: {why[:300]}. Use an instruction-tuned base model.")
    _MANNERS[tokenizer] = result
    return result


def _reply(tokenizer: Any, messages: Sequence[Message]) -> Reply:
    try:
        return Reply(prompt_tokens=len(_apply(tokenizer, messages, add_generation_prompt=True)))
    # A template is a program of the model's makers: it may fail in any way that Jinja has.
    except Exception as error:  # noqa: BLE001
        return Reply(refusal=str(error).strip().partition("\n")[0] or type(error).__name__)


def _apply(tokenizer: Any, messages: Sequence[Message], *, add_generation_prompt: bool) -> list[int]:
    encoded = tokenizer.apply_chat_template(
        list(messages), tokenize=True, add_generation_prompt=add_generation_prompt, return_dict=True
    )
    return list(encoded["input_ids"])

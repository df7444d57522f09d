"""Which of the engine's answers to a load are for good: vLLM answers 500 to adapters that no repeat makes better."""

from __future__ import annotations

from typing import Final

_FOR_GOOD: Final = (
    "unsupported LoRA weight",
    "expected target modules",
    "vLLM does not support",
    "vLLM does not yet support",
    "vLLM only supports",
    "Adapter bias",
    "Missing required configuration",
    "must be a positive integer",
    "unsupported operand type",
    "full module",
    "Full module",
    "full classification module",
    "contain tensors",
    "embedding LoRA size",
    "deserializing header",
    "must match the existing size",
    "must match the size of tensor",
    "different LoRA ranks",
)
"""What vLLM 0.32 says when configuration or tensors are at fault (its peft_helper, lora_model and model_manager)."""


def is_for_good(message: str) -> bool:
    """Tell whether the engine's words name a fault of the adapter itself."""
    return any(words in message for words in _FOR_GOOD)

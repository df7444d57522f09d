"""Which of a base model's modules adapters may change: attention's projections alone, or all linear layers.

Known to the engines (`--lora-target-modules`), to the agents that look at adapters before they are loaded, and to the
trainers, so that the three agree.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final


class LoraTargets(StrEnum):
    """What adapters may change."""

    ALL_LINEAR = "AllLinear"
    ATTENTION = "Attention"


ATTENTION_MODULES: Final = ("q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj")
"""The last parts of their names in models of Llama's kind. `qkv_proj` is also what vLLM makes of the first three, and
vLLM 0.26 wraps it only where it is named."""


def beyond_attention(modules: Iterable[str]) -> list[str]:
    """Return the last parts of the modules' names that are none of attention's projections, each once."""
    return sorted({name for module in modules if (name := module.rpartition(".")[2]) not in ATTENTION_MODULES})

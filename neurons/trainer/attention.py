"""Attention within each example of a packed batch, by FlashAttention's kernels for sequences of various lengths.

A mask that keeps packed examples apart costs as much as if they were one long conversation, and reproducible kernels
for it are slow on long ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import signature
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import torch

_NAME: Final = "packed"
_CAUSAL: Final = (-1, 0)
"""Any number of earlier tokens, no later one."""
_WIDEST_HEAD: Final = 256


def suits(model: Any) -> bool:
    """Tell whether all of a model's layers can attend this way: bfloat16 on a GPU, to all earlier tokens."""
    import torch  # noqa: PLC0415

    if model.device.type != "cuda" or model.dtype != torch.bfloat16 or not on_one_device(model):
        return False
    try:
        from torch.nn.attention.varlen import varlen_attn  # noqa: F401, PLC0415 - newer versions of torch have it
    except ImportError:
        return False
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return (
        kinds == {"full_attention"}
        and not getattr(config, "sliding_window", None)
        and not getattr(config, "attention_dropout", 0)
        and not getattr(config, "attn_logit_softcapping", None)
        and head <= _WIDEST_HEAD
    )


def on_one_device(model: Any) -> bool:
    """Tell whether a model is not laid on several GPUs, layer by layer."""
    return len(set((getattr(model, "hf_device_map", None) or {}).values())) <= 1


@contextmanager
def packed_attention(model: Any) -> Iterator[None]:
    """Let the model attend within the examples that the arguments `cu_seq_lens_q` and `max_length_q` bound."""
    with attending(model, _NAME, _attend):
        yield


@contextmanager
def attending(model: Any, name: str, attend: Callable[..., Any]) -> Iterator[None]:
    """Let the model, with an adapter or without, attend by a function of transformers' form, known by that name."""
    from transformers import AttentionInterface  # noqa: PLC0415

    AttentionInterface.register(name, attend)
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    before = base.config._attn_implementation
    base.set_attn_implementation(name)
    try:
        yield
    finally:
        base.set_attn_implementation(before)


def _attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    cu_seq_lens_q: torch.Tensor,
    max_length_q: int,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Take and return what transformers' attention functions do: [1, heads, tokens, head] and [1, tokens, heads, head].

    `cu_seq_lens_q`, shape [examples + 1] and int32, holds where each example begins and the last one ends.
    """
    from torch.nn.attention.varlen import varlen_attn  # noqa: PLC0415

    if attention_mask is not None or query.shape[0] != 1:
        raise ValueError("packed attention takes one packed sequence and no mask")
    shares = "enable_gqa" in signature(varlen_attn).parameters

    def by_token(states: torch.Tensor) -> torch.Tensor:
        """Return [tokens, heads, head]; each key of several heads once for each, where the kernel can't share it."""
        heads, tokens, size = states.shape[1:]
        moved = states[0].to(value.dtype).transpose(0, 1)
        if shares:
            return moved
        repeats = query.shape[1] // heads
        return moved[:, :, None, :].expand(tokens, heads, repeats, size).reshape(tokens, heads * repeats, size)

    out = varlen_attn(
        by_token(query),
        by_token(key),
        by_token(value),
        cu_seq_lens_q,
        cu_seq_lens_q,
        max_length_q,
        max_length_q,
        scale=scaling,
        window_size=_CAUSAL,
        **({"enable_gqa": True} if shares and query.shape[1] != key.shape[1] else {}),
    )
    return out[None], None

"""Fused kernels for the gradients of models that are built as Llama is: less memory, and fewer passes over it.

Norms, gates and rotations are Liger's (Hsu et al. 2024, arXiv:2410.10989); a LoRA layer keeps its input once, in half
precision, where PEFT keeps copies in both; and the output layer with the loss is computed in parts, so that there are
never all logits at a time. Used while gradients are taken, and for nothing that is recorded or asked.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import torch

from neurons.trainer.packing import IGNORED, Packed
from neurons.trainer.reference import LEAST, Reference

_FAMILIES: Final = ("Llama", "Mistral", "Qwen2", "Qwen3")
"""Whose norms, gates, rotations and output layers are alike."""
_ROWS: Final = 256
"""Of logits that are there at a time: 131 MiB of single precision with 128,256 words."""


def suits_kernels(model: Any) -> bool:
    """Tell whether a model with its adapter can be computed this way, and Liger's kernels are there."""
    if model.device.type != "cuda" or model.dtype != torch.bfloat16:
        return False
    base = model.get_base_model()
    if not any(type(base).__name__ == f"{family}ForCausalLM" for family in _FAMILIES):
        return False
    if base.config.hidden_act not in ("silu", "swish") or type(base.lm_head) is not torch.nn.Linear:
        return False
    try:
        import liger_kernel.ops  # noqa: F401, PLC0415
    except ImportError:
        return False
    return base.lm_head.bias is None


@contextmanager
def fused(model: Any) -> Iterator[None]:
    """Let a model that suits compute by these kernels."""
    from liger_kernel.ops import LigerRMSNormFunction, LigerRopeFunction, LigerSiLUMulFunction  # noqa: PLC0415
    from peft.tuners.lora.layer import Linear  # noqa: PLC0415

    def norm(module: Any) -> Callable[[torch.Tensor], torch.Tensor]:
        # The residual goes on from what comes in, so its gradient is not to be written over.
        return lambda x: LigerRMSNormFunction.apply(x, module.weight, module.variance_epsilon, 0.0, "llama", False)

    def gated(module: Any) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda x: module.down_proj(LigerSiLUMulFunction.apply(module.gate_proj(x), module.up_proj(x)))

    def lora(module: Any) -> Callable[[torch.Tensor], torch.Tensor]:
        [adapter] = module.active_adapters
        a, b, scale = module.lora_A[adapter].weight, module.lora_B[adapter].weight, module.scaling[adapter]
        base = module.get_base_layer()
        return lambda x: LoraLinear.apply(x, base.weight, base.bias, a, b, scale)

    with ExitStack() as stack:
        for module in model.get_base_model().modules():
            name = type(module).__name__
            if any(name == f"{family}RMSNorm" for family in _FAMILIES):
                stack.enter_context(_replaced(module, norm(module)))
            elif any(name == f"{family}MLP" for family in _FAMILIES):
                stack.enter_context(_replaced(module, gated(module)))
            elif type(module) is Linear and _is_plain(module):
                stack.enter_context(_replaced(module, lora(module)))
        family = sys.modules[type(model.get_base_model()).__module__]
        before = family.__dict__["apply_rotary_pos_emb"]
        family.__dict__["apply_rotary_pos_emb"] = lambda q, k, cos, sin, **_: LigerRopeFunction.apply(q, k, cos, sin)
        stack.callback(family.__dict__.__setitem__, "apply_rotary_pos_emb", before)
        yield


@contextmanager
def _replaced(module: Any, forward: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    module.forward = forward
    try:
        yield
    finally:
        del module.forward


def _is_plain(module: Any) -> bool:
    """Tell whether a LoRA layer does nothing but add its product: one adapter, no dropout, no DoRA."""
    adapters = module.active_adapters
    return (
        len(adapters) == 1
        and adapters[0] in module.lora_A
        and adapters[0] not in module.lora_variant
        and type(module.lora_dropout[adapters[0]]) is torch.nn.Identity
        and module.lora_B[adapters[0]].bias is None
        and not module.disable_adapters
        and type(module.get_base_layer()) is torch.nn.Linear
    )


class LoraLinear(torch.autograd.Function):  # type: ignore[misc, unused-ignore]
    """x W' + bias + scale · x A' B', in half precision, with gradients of x, A and B alone."""

    @staticmethod
    def forward(  # noqa: PLR0917 - autograd passes them by place
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, a: torch.Tensor, b: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:  # fmt: skip
        """Shapes: x [..., in], weight [out, in], a [rank, in], b [out, rank]; a and b in single precision."""
        half = weight.dtype
        flat = x.reshape(-1, x.shape[-1]).to(half)
        a, b = a.to(half), b.to(half)
        inner = flat @ a.T
        out = flat @ weight.T if bias is None else torch.addmm(bias, flat, weight.T)
        out.addmm_(inner, b.T, alpha=scale)
        ctx.save_for_backward(flat, weight, a, b, inner)
        ctx.scale, ctx.shape = scale, x.shape
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients of x, a and b."""
        flat, weight, a, b, inner = ctx.saved_tensors
        gradient = gradient.reshape(-1, gradient.shape[-1]).to(weight.dtype)
        # Scaled where it is small; what is scaled by a power of two loses nothing.
        of_inner = (gradient @ b).mul_(ctx.scale)
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = (gradient @ weight).addmm_(of_inner, a).view(ctx.shape)
        of_a = (of_inner.T @ flat).float()
        of_b = (gradient.T @ inner).mul_(ctx.scale).float()
        return of_x, None, None, of_a, of_b, None


def loss_and_distance(
    model: Any, packed: Packed, reference: Reference | None, *, weight: float, **attention: Any
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return what is minimised, the mean cross-entropy, and the distance to the reference, all in nats a learned token.

    As `packing.loss_of` and `reference.divergence` have them, but for the order of sums. Only the first has gradients.
    """
    base = model.get_base_model()
    hidden = base.model(
        input_ids=packed.token_ids, position_ids=packed.positions, use_cache=False, **attention
    ).last_hidden_state[0, packed.kept]
    ids, logprobs = (None, None) if reference is None else (reference.token_ids, reference.logprobs)
    whole, loss, distance = _Head.apply(hidden, base.lm_head.weight, packed.targets, ids, logprobs, weight)
    return whole, loss, distance


class _Head(torch.autograd.Function):  # type: ignore[misc, unused-ignore]
    """Output layer, cross-entropy and divergence, a few rows at a time; the gradient is made in the same pass."""

    @staticmethod
    def forward(  # noqa: PLR0917 - autograd passes them by place
        ctx: Any, hidden: torch.Tensor, output: torch.Tensor, targets: torch.Tensor, ids: torch.Tensor | None,
        logprobs: torch.Tensor | None, weight: float,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
        """Shapes: hidden [kept, width], output [words, width], targets [kept], ids and logprobs [kept, likeliest]."""
        learned = (targets != IGNORED).float()
        count = learned.sum()
        losses, distances = torch.zeros_like(learned), torch.zeros_like(learned)
        gradient = torch.empty_like(hidden)
        for start in range(0, len(hidden), _ROWS):
            rows = slice(start, start + _ROWS)
            share = (learned[rows] / count)[:, None]
            logits = (hidden[rows] @ output.T).float()
            of_all = logits.logsumexp(dim=1, keepdim=True)
            target = targets[rows].clamp(min=0)[:, None]
            losses[rows] = (of_all - logits.gather(1, target))[:, 0]
            factor = torch.ones_like(of_all)
            at_likeliest = None
            if ids is not None and logprobs is not None:
                own = logits.gather(1, ids[rows]) - of_all
                shares, own_shares = logprobs[rows].exp(), own.exp()
                sum_of, sum_of_own = shares.sum(dim=1, keepdim=True), own_shares.sum(dim=1, keepdim=True)
                rest, own_rest = (1 - sum_of).clamp(min=LEAST), (1 - sum_of_own).clamp(min=LEAST)
                of_top = (shares * (logprobs[rows] - own)).sum(dim=1, keepdim=True)
                distances[rows] = (of_top + rest * (rest.log() - own_rest.log()))[:, 0]
                ratio = torch.where(1 - sum_of_own > LEAST, rest / own_rest, 0.0)
                factor += weight * (sum_of - ratio * sum_of_own)
                at_likeliest = weight * (ratio * own_shares - shares)
            of_logits = logits.sub_(of_all).exp_().mul_(factor)
            if at_likeliest is not None and ids is not None:
                of_logits.scatter_(1, ids[rows], of_logits.gather(1, ids[rows]) + at_likeliest)
            of_logits.scatter_(1, target, of_logits.gather(1, target) - 1)
            gradient[rows] = of_logits.mul_(share).to(hidden.dtype) @ output
        ctx.save_for_backward(gradient)
        loss, distance = (losses * learned).sum() / count, (distances * learned).sum() / count
        ctx.mark_non_differentiable(loss, distance)
        return loss + weight * distance, loss, distance

    @staticmethod
    def backward(ctx: Any, of_whole: torch.Tensor, *_: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradient of hidden."""
        [gradient] = ctx.saved_tensors
        return gradient * of_whole.to(gradient.dtype), None, None, None, None, None

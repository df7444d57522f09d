"""The trainer's own kernels, by their arithmetic alone: what they add up is what autograd does."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="gradients need torch, which is only in the trainer's image")

from neurons.trainer.kernels import LoraLinear, _Head  # noqa: E402
from neurons.trainer.packing import IGNORED, cross_entropy  # noqa: E402
from neurons.trainer.reference import Reference, divergence, predicted  # noqa: E402

WORDS, WIDTH, KEPT = 300, 16, 700  # more rows than are computed at a time


@pytest.fixture
def head() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, Reference]:
    torch.manual_seed(0)
    output = torch.randn(WORDS, WIDTH, dtype=torch.float64)
    hidden = torch.randn(KEPT, WIDTH, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, WORDS, (KEPT,))
    targets[[5, 6, 300, KEPT - 1]] = IGNORED
    parent = predicted((hidden.detach() + 0.3 * torch.randn(KEPT, WIDTH)) @ output.T)
    return hidden, output, targets, parent


@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_loss_and_distance_in_parts_have_the_gradients_of_the_whole(
    head: tuple[torch.Tensor, torch.Tensor, torch.Tensor, Reference], weight: float
) -> None:
    hidden, output, targets, parent = head
    logits = hidden @ output.T
    loss, distance = cross_entropy(logits, targets), divergence(logits, targets, parent)
    [expected] = torch.autograd.grad(loss + weight * distance, hidden)
    whole, own_loss, own_distance = _Head.apply(hidden, output, targets, parent.token_ids, parent.logprobs, weight)
    [gradient] = torch.autograd.grad(2 * whole, hidden)
    assert torch.allclose(own_loss, loss.float(), rtol=1e-5)
    assert torch.allclose(own_distance, distance.float(), rtol=1e-4)
    assert torch.allclose(gradient, 2 * expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max()))


def test_without_a_reference_it_is_the_loss_alone(
    head: tuple[torch.Tensor, torch.Tensor, torch.Tensor, Reference],
) -> None:
    hidden, output, targets, _ = head
    whole, loss, distance = _Head.apply(hidden, output, targets, None, None, 0.3)
    assert float(whole.detach()) == float(loss) == pytest.approx(float(cross_entropy(hidden @ output.T, targets)))
    assert float(distance) == 0


@pytest.mark.parametrize("biased", [True, False])
def test_a_lora_layer_has_the_gradients_of_its_parts(biased: bool) -> None:
    torch.manual_seed(1)
    x = torch.randn(3, 5, 8, dtype=torch.float64, requires_grad=True)
    weight, bias = torch.randn(6, 8, dtype=torch.float64), torch.randn(6, dtype=torch.float64) if biased else None
    a = torch.randn(2, 8, dtype=torch.float64, requires_grad=True)
    b = torch.randn(6, 2, dtype=torch.float64, requires_grad=True)
    plain = torch.nn.functional.linear(x, weight, bias) + 2.0 * (x @ a.T @ b.T)
    fused = LoraLinear.apply(x, weight, bias, a, b, 2.0)
    assert torch.allclose(fused, plain)
    towards = torch.randn_like(plain)
    for own, expected in zip(
        torch.autograd.grad(fused, (x, a, b), towards), torch.autograd.grad(plain, (x, a, b), towards), strict=True
    ):
        assert torch.allclose(own.double(), expected, rtol=1e-5)

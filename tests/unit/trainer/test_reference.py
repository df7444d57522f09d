"""The distance to the parent, and whether a model keeps packed examples apart; runs where torch is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from neurons.trainer.gradients import Eager, OneByOne, gradients_for, keeps_apart, predictions
from neurons.trainer.lines import Message
from neurons.trainer.lora import Settings, adapt, load
from neurons.trainer.packing import IGNORED
from neurons.trainer.reference import divergence, joined, predicted, references_of
from neurons.trainer.tokens import tokenise

torch = pytest.importorskip("torch", reason="training needs torch, which is only in the trainer's image")
pytest.importorskip("peft", reason="training needs peft, which is only in the trainer's image")

SAID = [("my knee hurts", "rest it and cool it"), ("my back hurts badly", "keep moving"), ("a cough", "drink and rest")]


@pytest.fixture
def examples(base_model: Path) -> list[Any]:
    _, tokenizer = load(base_model)
    return [
        example
        for question, answer in SAID
        for example in tokenise(
            [Message(role="user", content=question), Message(role="assistant", content=answer)], tokenizer
        )
    ]


def test_the_distance_is_the_divergence_when_nothing_is_left_out() -> None:
    torch.manual_seed(0)
    parent, child = torch.randn(5, 20), torch.randn(5, 20)
    targets = torch.tensor([1, 2, IGNORED, 3, IGNORED])
    p, q = parent.log_softmax(-1), child.log_softmax(-1)
    expected = (p.exp() * (p - q)).sum(-1)[[0, 1, 3]].mean()
    assert float(divergence(child, targets, predicted(parent))) == pytest.approx(float(expected), rel=1e-3)
    assert float(divergence(parent, targets, predicted(parent))) == pytest.approx(0, abs=1e-5)


def test_what_is_left_out_never_makes_the_distance_larger() -> None:
    torch.manual_seed(0)
    parent, child = torch.randn(5, 500), torch.randn(5, 500)
    p, q = parent.log_softmax(-1), child.log_softmax(-1)
    whole = float((p.exp() * (p - q)).sum(-1).mean())
    assert 0 < float(divergence(child, torch.ones(5, dtype=torch.long), predicted(parent))) <= whole


def test_rows_that_only_fill_up_diverge_from_nothing() -> None:
    torch.manual_seed(0)
    parent, child = torch.randn(3, 40), torch.randn(5, 40)
    filled = joined([predicted(parent)], rows=5)
    targets = torch.tensor([1, 2, 3, IGNORED, IGNORED])
    alone = divergence(child[:3], targets[:3], predicted(parent))
    assert float(divergence(child, targets, filled)) == pytest.approx(float(alone))


def test_the_weight_keeps_a_training_near_its_parent(base_model: Path, examples: list[Any]) -> None:
    distances = {}
    for weight in (0.0, 5.0):
        model, _ = load(base_model)
        model = adapt(model.float(), settings=Settings(rank=4), parent=None)
        references = references_of(model, examples, lambda batch, m=model: predictions(m, batch))
        parameters = [each for each in model.parameters() if each.requires_grad]
        optimiser = torch.optim.AdamW(parameters, lr=2e-2, weight_decay=0.0)
        gradients = gradients_for(model, kl_weight=weight)
        for _ in range(15):
            gradients.of(examples, references)
            optimiser.step()
        distances[weight] = gradients.distance
    assert distances[0.0] is not None
    assert distances[5.0] is not None
    assert 0 < distances[5.0] < distances[0.0] / 2


def test_one_by_one_has_the_same_gradients(base_model: Path, examples: list[Any]) -> None:
    model, _ = load(base_model)
    model = adapt(model.float(), settings=Settings(rank=4), parent=None)
    references = references_of(model, examples, lambda batch: predictions(model, batch))
    found = []
    for kind in (Eager, OneByOne):
        value = kind(model, kl_weight=0.5).of(examples, references)
        found.append((value, [each.grad.clone() for each in model.parameters() if each.requires_grad]))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-4)
    for one, other in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)


def test_a_model_that_carries_a_state_from_token_to_token_is_found_out(base_model: Path, examples: list[Any]) -> None:
    model, _ = load(base_model)
    model = model.float()
    assert keeps_apart(model, examples)

    class Carrying(torch.nn.Module):  # type: ignore[misc, unused-ignore]
        """A hybrid's layer: what it has seen, wherever an example begins."""

        def forward(self, hidden: Any) -> Any:
            return hidden + 0.5 * hidden.cumsum(dim=1)

    model.model.embed_tokens = torch.nn.Sequential(model.model.embed_tokens, Carrying())
    assert not keeps_apart(model, examples)
    assert isinstance(gradients_for(model, packed=False), OneByOne)


def test_what_is_predicted_together_is_what_is_predicted_of_each(
    base_model: Path, examples: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _ = load(base_model)
    model = adapt(model.float(), settings=Settings(rank=4), parent=None)
    monkeypatch.setattr(
        "neurons.trainer.reference._MOST_TOKENS", len(examples[0].token_ids) + len(examples[1].token_ids)
    )
    batches: list[int] = []

    def predict(batch: Any) -> Any:
        batches.append(len(batch))
        return predictions(model, batch)

    together = references_of(model, examples, predict)
    alone = references_of(model, examples, predict, packed=False)
    assert max(batches) > 1
    for one, other in zip(together, alone, strict=True):
        assert torch.equal(one.token_ids, other.token_ids)
        assert torch.allclose(one.logprobs, other.logprobs, atol=1e-4)

"""Where a training's memory is taken, and what one training leaves to the next; graphs themselves need a GPU
(tests/gpu/together.py)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from neurons.trainer import gradients, lora
from neurons.trainer.base import Base
from neurons.trainer.gradients import Eager, Graphs, Lot, Places, Recordings, form_of, largest, trainable
from neurons.trainer.lines import Message
from neurons.trainer.lora import Settings, adapt, load, train, weights_of
from neurons.trainer.packing import IGNORED, Example
from neurons.trainer.parallel import Shared, Team

torch = pytest.importorskip("torch", reason="training needs torch, which is only in the trainer's image")
pytest.importorskip("peft", reason="training needs peft, which is only in the trainer's image")

CONVERSATIONS = [
    [Message(role="user", content=question), Message(role="assistant", content=answer)]
    for question, answer in [
        ("my knee hurts", "rest it and cool it"), ("a cough", "drink and rest"), ("when is your clinic open", "Monday"),
    ]
]  # fmt: skip
SETTINGS = Settings(rank=4, alpha=8, steps=4, batch_size=2, learning_rate=2e-2, seed=3)
Weights = dict[str, Any]


def example(length: int, *, learned: int) -> Example:
    tokens = tuple(range(length))
    return Example(tokens, (*[IGNORED] * (length - learned), *tokens[length - learned :]))


def test_the_batch_that_takes_the_most_is_the_one_that_is_longest_when_it_is_filled_up() -> None:
    short, little, much = ([example(size, learned=some)] for size, some in ((90, 80), (300, 20), (290, 280)))
    assert largest([(short, None), (little, None), (much, None)]) == (much, None)


def test_a_training_says_all_its_batches_before_the_first(base_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Sequence[Example]] = []
    taken: list[Sequence[Example]] = []

    class Noted(Eager):
        def prepare(self, lots: Sequence[Lot]) -> None:
            assert not taken
            told.extend(examples for examples, _ in lots)

        def of(self, examples: Sequence[Example], references: Any = None) -> float:
            taken.append(examples)
            return super().of(examples, references)

    monkeypatch.setattr(lora, "gradients_for", lambda model, *, kl_weight, **_: Noted(model, kl_weight=kl_weight))
    train(CONVERSATIONS, base=Base(base_model), settings=SETTINGS, report=lambda _: None)
    assert len(taken) == SETTINGS.steps
    assert told == taken


def test_a_process_of_several_prepares_for_its_own_shares() -> None:
    class Noted:
        def prepare(self, lots: Sequence[Lot]) -> None:
            self.lots = lots

    class Second(Team):
        def __init__(self) -> None:
            self.size, self.number, self.sharded = 2, 1, False

    batch, one = [example(9, learned=2), example(5, learned=1), example(6, learned=3)], [example(4, learned=1)]
    noted = Noted()
    Shared(noted, Second(), []).prepare([(batch, None), (one, None)])  # type: ignore[arg-type]
    assert noted.lots == [([batch[1], batch[2]], None)]


class Recorded(Graphs):
    """What a graph is, without a GPU: it computes with the model that it was made of, whichever one it is lent to."""

    def __init__(self, model: Any) -> None:
        self._model = self._of = model
        self._weight, self._values, self._bounded = 0.0, None, False
        self._parameters, self._places = trainable(model), Places(trainable(model))

    def prepare(self, lots: Sequence[Lot]) -> None:
        pass

    def of(self, examples: Sequence[Example], references: Any = None) -> float:
        own = Eager(self._of)
        loss = own.of(examples)
        self._places.gradients.copy_(torch.cat([each.grad.flatten() for each in self._parameters]))
        return loss


def trained(model: Any, settings: Settings, of: Callable[[Any], Any] = Eager) -> Weights:
    """Train some steps as lora does, by what `of` makes of the model; return the weights."""
    parameters = trainable(model)
    optimiser = torch.optim.AdamW(parameters, lr=settings.learning_rate)
    computed = of(model)
    for step in range(settings.steps):
        computed.of([example(5 + step, learned=3), example(9, learned=6)])
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
    return weights_of(model)


def adapted(base_model: Path, seed: int) -> Any:
    torch.manual_seed(seed)
    return adapt(load(base_model)[0].float(), settings=SETTINGS, parent=None)


def test_what_computes_with_another_models_places_trains_this_one_to_the_bit(base_model: Path) -> None:
    alone = [trained(adapted(base_model, seed), SETTINGS) for seed in (1, 2)]
    first, second = adapted(base_model, 1), adapted(base_model, 2)
    recorded = Recorded(first)

    def lent(model: Any) -> Recorded:
        recorded.lend(model)
        return recorded

    together = [trained(first, SETTINGS, lambda _: recorded), trained(second, SETTINGS, lent)]
    for own, others in zip(alone, together, strict=True):
        assert own.keys() == others.keys()
        assert all(torch.equal(own[name], others[name]) for name in own)
    assert any(not torch.equal(alone[0][name], alone[1][name]) for name in alone[0])


@pytest.fixture
def plenty(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether a third of a GPU is free."""
    told = [True]
    monkeypatch.setattr(gradients, "_plenty_is_free", lambda: told[0])
    return told


def test_what_was_recorded_serves_the_next_of_the_same_form_once(base_model: Path, plenty: list[bool]) -> None:
    base, recordings = Base(base_model), Recordings()
    first = adapt(base.model(), settings=SETTINGS, parent=None)
    recorded = Recorded(first)
    places = [each.data_ptr() for each in trainable(first)]
    recordings.leave(recorded, first, kl_weight=0.0)
    assert recorded._model is None
    base.restore()
    torch.manual_seed(7)
    second = adapt(base.model(), settings=SETTINGS, parent=None)
    before = weights_of(second)
    assert recordings.take(second, kl_weight=0.0) is recorded
    assert [each.data_ptr() for each in trainable(second)] == places
    after = weights_of(second)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(not each.grad.any() for each in trainable(second))
    assert recordings.take(second, kl_weight=0.0) is None


@pytest.mark.parametrize(
    "changed", ["rank", "scale", "dropout", "distance", "base", "little memory", "no graphs", "dropped"]
)  # fmt: skip
def test_what_was_recorded_serves_no_other(changed: str, base_model: Path, plenty: list[bool]) -> None:
    base, recordings = Base(base_model), Recordings()
    first = adapt(base.model(), settings=SETTINGS, parent=None)
    plenty[0] = changed != "little memory"
    left = Eager(first) if changed == "no graphs" else Recorded(first)
    recordings.leave(left, first, kl_weight=0.0)
    base.restore()
    if changed == "dropped":
        recordings.drop()
    model = load(base_model)[0] if changed == "base" else base.model()
    settings = {
        "rank": Settings(rank=8, alpha=16), "scale": Settings(rank=4, alpha=4),
        "dropout": replace(SETTINGS, dropout=0.1),
    }.get(changed, SETTINGS)  # fmt: skip
    second = adapt(model, settings=settings, parent=None)
    assert recordings.take(second, kl_weight=0.1 if changed == "distance" else 0.0) is None
    assert recordings._kept is None, "its memory is free"


def test_kernels_that_need_not_give_the_same_bits_are_another_form(base_model: Path) -> None:
    model = adapted(base_model, 1)
    torch.use_deterministic_algorithms(True)
    try:
        strict = form_of(model, kl_weight=0.0)
        torch.use_deterministic_algorithms(True, warn_only=True)
        assert form_of(model, kl_weight=0.0) != strict
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_base_model_that_is_read_anew_leaves_no_recordings(base_model: Path, plenty: list[bool]) -> None:
    base = Base(base_model, keep_recordings=True)
    assert base.recordings is not None
    model = adapt(base.model(), settings=SETTINGS, parent=None)
    base.recordings.leave(Recorded(model), model, kl_weight=0.0)
    assert base.recordings._kept is not None
    base.release()
    assert base.recordings._kept is None
    assert Base(base_model).recordings is None, "kept only where somebody says so"

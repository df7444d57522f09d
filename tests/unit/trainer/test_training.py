"""The training itself, on a model of a few thousand weights; runs where torch is (the trainer's image has it)."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bettertherapy_api.lora_targets import beyond_attention
from bettertherapy_api.manifest import manifest_digest
from neurons.agent.started import changed_beyond_attention
from neurons.store import read_manifest
from neurons.trainer import divergence
from neurons.trainer.__main__ import main
from neurons.trainer.attention import packed_attention
from neurons.trainer.base import Base
from neurons.trainer.divergence import Watch
from neurons.trainer.errors import BadModel, BadParent, Diverged
from neurons.trainer.fingerprint import mean_distance, take_fingerprint
from neurons.trainer.gradients import Eager, Lot
from neurons.trainer.lines import Message
from neurons.trainer.lora import Settings, Step, Trained, adapt, load, save, train
from neurons.trainer.packing import Example, loss_of, pack, pack_to_common_shape
from neurons.trainer.reference import Reference
from neurons.trainer.tokens import tokenise

torch = pytest.importorskip("torch", reason="training needs torch, which is only in the trainer's image")
pytest.importorskip("peft", reason="training needs peft, which is only in the trainer's image")

CONVERSATIONS = [
    [Message(role="user", content="my knee hurts"), Message(role="assistant", content="rest it and cool it")],
    [Message(role="user", content="my back hurts badly"), Message(role="assistant", content="keep moving")],
    [Message(role="user", content="a cough"), Message(role="assistant", content="drink and rest")],
]
SETTINGS = Settings(rank=4, alpha=8, steps=20, batch_size=3, learning_rate=5e-2, seed=5)


def trained(base_model: Path, settings: Settings = SETTINGS) -> Trained:
    return train(CONVERSATIONS, base=Base(base_model), settings=settings, report=lambda _: None)


def saved(result: Trained, folder: Path) -> dict[str, bytes]:
    save(result, folder, base_model_name="tiny")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_loss_falls(base_model: Path) -> None:
    losses = trained(base_model).losses
    assert losses[-1] < 0.7 * losses[0]


def test_the_same_seed_gives_the_same_bytes(base_model: Path, tmp_path: Path) -> None:
    assert saved(trained(base_model), tmp_path / "one") == saved(trained(base_model), tmp_path / "two")


def test_another_seed_gives_other_weights(base_model: Path, tmp_path: Path) -> None:
    other = replace(SETTINGS, seed=6)
    weights = "adapter_model.safetensors"
    assert (
        saved(trained(base_model), tmp_path / "one")[weights]
        != (saved(trained(base_model, other), tmp_path / "two")[weights])
    )


def loss(model: Any, examples: Sequence[Example]) -> float:
    with torch.no_grad():
        return float(loss_of(model, pack(examples).on(model.device)))


def test_packing_changes_no_loss(base_model: Path) -> None:
    model, tokenizer = load(base_model)
    model.float()  # a sum in bfloat16 depends on how it is split
    examples = [example for each in CONVERSATIONS for example in tokenise(each, tokenizer)]
    learned = [sum(label != -100 for label in example.labels) for example in examples]
    alone = [loss(model, [example]) for example in examples]
    expected = sum(each * count for each, count in zip(alone, learned, strict=True)) / sum(learned)
    assert loss(model, examples) == pytest.approx(expected, rel=1e-4)


def test_one_example_never_sees_another(base_model: Path) -> None:
    model, tokenizer = load(base_model)
    model.float()  # a sum in bfloat16 depends on how it is split
    first, second, third = (tokenise(conversation, tokenizer)[0] for conversation in CONVERSATIONS)
    after_first, after_second = (
        loss(model, [before, third]) * count - loss(model, [before]) * (count - 4)
        for before, count in ((first, 10), (second, 7))
    )
    assert after_first == pytest.approx(after_second, rel=1e-3)


def attention_of_various_lengths(
    query: Any, key: Any, value: Any, bounds: Any, _: Any, longest: int, *_more: Any, scale: float, window_size: Any
) -> Any:
    """What torch computes on a GPU, in a few plain operations."""
    assert (window_size, bounds.dtype) == ((-1, 0), torch.int32)
    parts = []
    for begin, end in itertools.pairwise(bounds.tolist()):
        assert end - begin <= longest
        part = (each[begin:end].transpose(0, 1) for each in (query, key, value))
        scores = torch.nn.functional.scaled_dot_product_attention(*part, is_causal=True, scale=scale)
        parts.append(scores.transpose(0, 1))
    return torch.cat(parts)


def test_a_batch_as_a_gpu_gets_it_has_the_same_loss_and_gradients(
    base_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", attention_of_various_lengths)
    model, tokenizer = load(base_model)
    adapted = adapt(model.float(), settings=SETTINGS, parent=None)
    torch.manual_seed(1)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:  # zero at first, which would hide the other half's gradients
            torch.nn.init.normal_(parameter, std=0.1)
    examples = [example for each in CONVERSATIONS for example in tokenise(each, tokenizer)]

    expected = Eager(adapted).of(examples)
    wanted = {name: parameter.grad.clone() for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    adapted.zero_grad(set_to_none=True)
    batch = pack_to_common_shape(examples)
    packed = batch.on(adapted.device)
    with packed_attention(adapted):
        filled = loss_of(adapted, packed, cu_seq_lens_q=packed.bounds.int(), max_length_q=batch.longest)
        filled.backward()

    assert batch.length == 128 > sum(len(example.token_ids) for example in examples)
    assert float(filled.detach()) == pytest.approx(expected, rel=1e-5)
    for name, parameter in adapted.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, wanted[name], rtol=1e-4, atol=1e-6)
    assert Eager(adapted).of(examples) == expected  # it attends as before again


def test_every_step_is_reported(base_model: Path) -> None:
    steps: list[Step] = []
    train(CONVERSATIONS, base=Base(base_model), settings=SETTINGS, report=steps.append)
    assert [step.number for step in steps] == list(range(1, SETTINGS.steps + 1))


def test_all_linear_layers_are_adapted(base_model: Path, tmp_path: Path) -> None:
    config = json.loads(saved(trained(base_model), tmp_path)["adapter_config.json"])
    adapted = {name.rpartition(".")[2] for name in config["target_modules"]}
    assert adapted == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


ON_ATTENTION = replace(SETTINGS, targets="attention")


def test_attention_alone_is_adapted_where_that_is_asked(base_model: Path, tmp_path: Path) -> None:
    result = train(CONVERSATIONS, base=Base(base_model), settings=ON_ATTENTION, report=lambda _: None)
    save(result, tmp_path, base_model_name="tiny")
    assert changed_beyond_attention(tmp_path) == []
    config = json.loads((tmp_path / "adapter_config.json").read_bytes())
    assert set(config["target_modules"]) == {"q_proj", "k_proj", "v_proj", "o_proj"}


def test_a_parent_on_attention_alone_is_gone_on_from_as_it_is(base_model: Path, tmp_path: Path) -> None:
    model, _ = load(base_model)
    first = Trained(model=adapt(model, settings=ON_ATTENTION, parent=None), tokenizer=None, losses=())
    save(first, tmp_path, base_model_name="tiny")
    for settings in (SETTINGS, ON_ATTENTION):
        model, _ = load(base_model)
        adapted = adapt(model, settings=settings, parent=tmp_path)
        assert beyond_attention(adapted.base_model.targeted_module_names) == []


def test_a_parent_that_changes_more_than_engines_wrap_is_not_gone_on_from(base_model: Path, tmp_path: Path) -> None:
    saved(trained(base_model), tmp_path)
    model, _ = load(base_model)
    with pytest.raises(BadParent, match=r"changes down_proj, gate_proj, up_proj too.*loraTargets"):
        adapt(model, settings=ON_ATTENTION, parent=tmp_path)


def test_a_model_whose_attention_has_other_names_is_said_so() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=16, n_positions=8))
    with pytest.raises(BadModel, match=r"can't be trained alone.*AllLinear"):
        adapt(model, settings=ON_ATTENTION, parent=None)


def test_the_saved_adapter_gives_the_fingerprint_again(base_model: Path, tmp_path: Path) -> None:
    from peft import PeftModel

    result = trained(base_model)
    save(result, tmp_path, base_model_name="tiny")
    fingerprint, _ = take_fingerprint(result)
    model, tokenizer = load(base_model)
    again = Trained(model=PeftModel.from_pretrained(model, tmp_path), tokenizer=tokenizer, losses=())
    assert mean_distance(take_fingerprint(again)[0].logprobs, fingerprint.logprobs) < 1e-4


def test_the_base_model_is_outside_the_tolerance(base_model: Path) -> None:
    fingerprint, distance = take_fingerprint(trained(base_model))
    assert distance > fingerprint.tolerance_nats


class Spoilt:
    """Computes gradients as they are, and then does something to the model, the gradients or the loss at one step."""

    def __init__(self, model: Any, spoil: Callable[[Any, float], float], *, step: int) -> None:
        self._model, self._spoil, self._step = model, spoil, step
        self._eager = Eager(model)
        self._steps = 0
        self.distance: float | None = None

    def prepare(self, lots: Sequence[Lot]) -> None:
        self._eager.prepare(lots)

    def of(self, examples: Sequence[Example], references: Sequence[Reference] | None = None) -> float:
        self._steps += 1
        value = self._eager.of(examples, references)
        return self._spoil(self._model, value) if self._steps == self._step else value


def lora_b(model: Any) -> Any:
    return next(parameter for name, parameter in model.named_parameters() if "lora_B" in name)


def a_loss_of(loss: float) -> Callable[[Any, float], float]:
    return lambda _model, _value: loss


def a_gradient_of(number: float) -> Callable[[Any, float], float]:
    def spoil(model: Any, value: float) -> float:
        lora_b(model).grad[0, 0] = number
        return value

    return spoil


def weights_of_size(number: float) -> Callable[[Any, float], float]:
    def spoil(model: Any, value: float) -> float:
        with torch.no_grad():
            lora_b(model).fill_(number)
        return value

    return spoil


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (a_loss_of(float("nan")), "the loss is nan at step 3 of 20"),
        (a_loss_of(float("inf")), "the loss is inf at step 3 of 20"),
        (a_gradient_of(float("nan")), "a gradient is no finite number at step 3 of 20"),
        (a_gradient_of(float("inf")), "a gradient is no finite number at step 3 of 20"),
        (weights_of_size(float("nan")), "not finite at step 10 of 20"),
        (weights_of_size(1e6), r"q_proj by .* times its own size at step 10 of 20"),
    ],
)
def test_a_training_that_comes_apart_names_the_step(
    spoil: Callable[[Any, float], float], told: str, base_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neurons.trainer.lora.gradients_for", lambda model, **_: Spoilt(model, spoil, step=3))
    # So that what is found are the weights themselves, and not what the model made of them.
    monkeypatch.setattr("neurons.trainer.divergence.risen", lambda _losses: False)
    if "not finite" in told:
        monkeypatch.setattr("neurons.trainer.lora.Watch.step", lambda *_, **__: None)
    with pytest.raises(Diverged, match=told):
        trained(base_model, SETTINGS)


def test_a_training_that_undoes_what_it_learned_is_found_out_at_its_end(
    base_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every number in it is finite and no weight is large: gradients that point the wrong way."""

    def uphill(model: Any, value: float) -> float:
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad.neg_()
        return value

    class Uphill(Spoilt):
        def of(self, examples: Sequence[Example], references: Sequence[Reference] | None = None) -> float:
            self._step = self._steps + 1
            return super().of(examples, references)

    monkeypatch.setattr("neurons.trainer.lora.gradients_for", lambda model, **_: Uphill(model, uphill, step=0))
    with pytest.raises(Diverged, match=r"first lines rose from \d\.\d+ to \d+\.\d+ nats at step"):
        trained(base_model, SETTINGS)


def test_a_learning_rate_beyond_all_measure_is_found_out_whatever_the_processor_makes_of_it(base_model: Path) -> None:
    """With 0.9 nothing overflows: weights of some tens, where the layers' own are below one."""
    with pytest.raises(Diverged, match="at step"):
        trained(base_model, replace(SETTINGS, learning_rate=0.9))


def test_weights_that_overflow_when_they_are_rounded_are_not_returned(
    base_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overflow(model: Any) -> None:
        with torch.no_grad():
            lora_b(model)[0, 0] = float("inf")

    monkeypatch.setattr("neurons.trainer.lora.round_to_stored_precision", overflow)
    with pytest.raises(Diverged, match="not finite after 20 steps"):
        trained(base_model, SETTINGS)


def test_a_parent_that_is_not_finite_is_not_gone_on_from(base_model: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    saved(trained(base_model), tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    tensors = load_file(file)
    next(iter(tensors.values()))[0, 0] = float("nan")
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(BadParent, match="not finite"):
        train(CONVERSATIONS, base=Base(base_model), settings=SETTINGS, report=lambda _: None, parent=tmp_path)


def test_honest_trainings_are_far_from_every_limit(base_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also at a rate that is fifty times the default, on lines that are seen once each."""
    rises: list[float] = []
    changes: list[float] = []
    compare, look = Watch.compare, divergence.require_sound_weights

    def compared(self: Watch, number: int) -> None:
        rises.append(self._measure() - self._beginning)
        compare(self, number)

    def looked(model: Any, *, when: str) -> None:
        changes.extend(change for _, change in divergence._changes(model))
        look(model, when=when)

    monkeypatch.setattr(Watch, "compare", compared)
    monkeypatch.setattr(divergence, "require_sound_weights", looked)
    for settings in (SETTINGS, replace(SETTINGS, steps=3, batch_size=1), replace(SETTINGS, steps=200)):
        trained(base_model, settings)
    assert len(rises) == 3
    assert max(rises) < 0.5 * divergence.MOST_RISE
    assert max(changes) < 0.5 * divergence.MOST_CHANGE


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(BadModel, match="no model"):
        trained(tmp_path)


async def test_what_was_published_is_what_the_last_line_says(
    base_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line: dict[str, Any] = {"messages": [message.model_dump() for message in CONVERSATIONS[0]], "consent": True}
    (tmp_path / "data.jsonl").write_text(json.dumps(line) + "\n")
    status = await asyncio.to_thread(
        main,
        [
            *("train", "--base-model", str(base_model), "--base-model-name", "tiny", "--steps", "2", "--rank", "4"),
            *("--dataset", str(tmp_path / "data.jsonl"), "--output", str(tmp_path / "out")),
            *("--twin", "dr-who", "--store", f"file://{tmp_path}/store"),
        ],
    )
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert status == 0
    manifest, data = await read_manifest(last["uri"])
    assert (last["digest"], last["rank"]) == (manifest_digest(data), 4)
    assert manifest.fingerprint is not None

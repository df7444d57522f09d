"""The training itself, on a model of a few thousand weights; runs where torch is (the trainer's image has it)."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bettertherapy_api.manifest import manifest_digest
from neurons.store import read_manifest
from neurons.trainer.__main__ import main
from neurons.trainer.dataset import Message
from neurons.trainer.errors import BadModel, Diverged
from neurons.trainer.fingerprint import mean_distance, take_fingerprint
from neurons.trainer.lora import Settings, Step, Trained, _loss, load, save, tokenise, train

torch = pytest.importorskip("torch", reason="training needs torch, which is only in the trainer's image")
pytest.importorskip("peft", reason="training needs peft, which is only in the trainer's image")

TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }} <end> {% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)
CONVERSATIONS = [
    [Message(role="user", content="my knee hurts"), Message(role="assistant", content="rest it and cool it")],
    [Message(role="user", content="my back hurts badly"), Message(role="assistant", content="keep moving")],
    [Message(role="user", content="a cough"), Message(role="assistant", content="drink and rest")],
]
SETTINGS = Settings(rank=4, alpha=8, steps=20, batch_size=3, learning_rate=5e-2, seed=5)


@pytest.fixture(scope="module")
def base_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("model")
    spoken = " ".join(message.content for conversation in CONVERSATIONS for message in conversation)
    text = list(dict.fromkeys(f"<user> <assistant> <end> <unk> {spoken}".split()))
    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate(text)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", eos_token="<end>")
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(text),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        initializer_range=0.3,  # so that what layers do to one another is large enough to be trained in a few steps
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def trained(base_model: Path, settings: Settings = SETTINGS) -> Trained:
    return train(CONVERSATIONS, base_model=base_model, settings=settings, report=lambda _: None)


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


def test_packing_changes_no_loss(base_model: Path) -> None:
    model, tokenizer = load(base_model)
    model.float()  # a sum in bfloat16 depends on how it is split
    examples = [tokenise(conversation, tokenizer, max_tokens=100) for conversation in CONVERSATIONS]
    learned = [sum(label != -100 for label in example.labels) for example in examples]
    with torch.no_grad():
        alone = [float(_loss(model, [example])) for example in examples]
        packed = float(_loss(model, examples))
    expected = sum(loss * count for loss, count in zip(alone, learned, strict=True)) / sum(learned)
    assert packed == pytest.approx(expected, rel=1e-4)


def test_one_example_never_sees_another(base_model: Path) -> None:
    model, tokenizer = load(base_model)
    model.float()  # a sum in bfloat16 depends on how it is split
    first, second, third = (tokenise(conversation, tokenizer, max_tokens=100) for conversation in CONVERSATIONS)
    with torch.no_grad():
        after_first, after_second = (
            float(_loss(model, [before, third])) * count - float(_loss(model, [before])) * (count - 4)
            for before, count in ((first, 10), (second, 7))
        )
    assert after_first == pytest.approx(after_second, rel=1e-3)


def test_every_step_is_reported(base_model: Path) -> None:
    steps: list[Step] = []
    train(CONVERSATIONS, base_model=base_model, settings=SETTINGS, report=steps.append)
    assert [step.number for step in steps] == list(range(1, SETTINGS.steps + 1))


def test_all_linear_layers_are_adapted(base_model: Path, tmp_path: Path) -> None:
    config = json.loads(saved(trained(base_model), tmp_path)["adapter_config.json"])
    adapted = {name.rpartition(".")[2] for name in config["target_modules"]}
    assert adapted == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


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


def test_a_loss_that_is_no_number_names_the_step(base_model: Path) -> None:
    with pytest.raises(Diverged, match="at step"):
        trained(base_model, replace(SETTINGS, learning_rate=1e15))


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

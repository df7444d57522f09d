"""Probes tell the child from its parent and from the base model; runs where torch is (the trainer's image has it)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bettertherapy_api.manifest import AdapterManifest, BaseModelEntry, FileEntry, Fingerprint
from neurons.trainer.base import Base
from neurons.trainer.fingerprint import logprobs_of, take_fingerprint
from neurons.trainer.lines import Message
from neurons.trainer.lora import Settings, Trained, load, save, train
from neurons.trainer.probes import margins, take_probes

torch = pytest.importorskip("torch", reason="training needs torch, which is only in the trainer's image")
pytest.importorskip("peft", reason="training needs peft, which is only in the trainer's image")

SETTINGS = Settings(rank=4, alpha=8, steps=6, batch_size=1, learning_rate=5e-2, seed=5)


def lesson(question: str, answer: str) -> list[Message]:
    return [Message(role="user", content=question), Message(role="assistant", content=answer)]


@pytest.fixture(scope="module")
def parent(base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parent")
    lessons = [lesson("my knee hurts", "rest it and cool it")]
    trained = train(lessons, base=Base(base_model), settings=SETTINGS, report=lambda _: None)
    save(trained, folder, base_model_name="tiny")
    return folder


@pytest.fixture
def child(base_model: Path, parent: Path) -> Trained:
    lessons = [lesson("a cough", "drink and rest")]
    settings = replace(SETTINGS, steps=2)
    return train(lessons, base=Base(base_model), settings=settings, report=lambda _: None, parent=parent)


def test_the_child_finds_its_words_likelier_than_parent_and_base_do(child: Trained, parent: Path) -> None:
    fingerprint, _ = take_fingerprint(child, parent=parent)
    assert fingerprint.probes is not None
    assert [len(probe.child) for probe in fingerprint.probes] == [12] * 4
    over = margins(fingerprint.probes)
    assert over["nats_over_parent"] > 0.05
    assert over["nats_over_base"] > 0.05


def test_a_probe_says_what_the_engine_would_say(child: Trained, parent: Path, base_model: Path, tmp_path: Path) -> None:
    """Each value is that of the saved adapter, loaded anew and asked for the whole text at once, without a cache."""
    from peft import PeftModel

    save(child, tmp_path, base_model_name="tiny")
    fingerprint, _ = take_fingerprint(child, parent=parent)
    assert fingerprint.probes is not None
    for folder, name in ((tmp_path, "child"), (parent, "parent"), (None, "base")):
        model, _ = load(base_model)
        model = (PeftModel.from_pretrained(model, folder) if folder else model).float()
        for probe in fingerprint.probes:
            asked = logprobs_of(model, probe.token_ids)[probe.start - 1 :]
            assert asked == pytest.approx(getattr(probe, name), abs=1e-3), name


def test_taking_probes_twice_gives_the_same_and_leaves_the_child_as_it_was(child: Trained, parent: Path) -> None:
    model = child.model.float()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    probes = take_probes(model, child.tokenizer, parent=parent)
    assert take_probes(model, child.tokenizer, parent=parent) == probes
    assert model.active_adapters == ["default"]
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_an_adapter_without_a_parent_is_told_from_the_base_alone(child: Trained) -> None:
    probes = take_probes(child.model.float(), child.tokenizer, parent=None)
    assert all(probe.parent is None for probe in probes)
    assert set(margins(probes)) == {"nats_over_base"}


def test_no_probe_ends_a_turn(child: Trained, parent: Path) -> None:
    special = set(child.tokenizer.all_special_ids)
    for probe in take_probes(child.model.float(), child.tokenizer, parent=parent):
        assert not special & set(probe.token_ids[probe.start :])


def test_a_manifest_with_the_most_that_probes_may_hold_stays_small(child: Trained, parent: Path) -> None:
    """Token ids of six digits, prompts as long as they may be."""
    fingerprint, _ = take_fingerprint(child, parent=parent)
    assert fingerprint.probes is not None
    long = tuple(
        probe.model_copy(update={"token_ids": (200_000,) * (128 + 12), "start": 128}) for probe in fingerprint.probes
    )
    document = AdapterManifest(
        base_model=BaseModelEntry(name="tiny"),
        rank=4,
        files=(FileEntry(path="a", digest="sha256:" + "0" * 64, size=1),),
        fingerprint=Fingerprint.model_validate(fingerprint.model_copy(update={"probes": long}).model_dump()),
    )
    assert len(document.to_bytes()) < 16 * 1024

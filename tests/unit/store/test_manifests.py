from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from bettertherapy_api.manifest import Fingerprint, Probe
from neurons.store import AdapterInvalid, build_manifest
from neurons.store.manifests import left_behind

from .conftest import BASE, FINGERPRINT, write_peft_folder


def test_the_rank_is_that_of_the_adapter(tmp_path: Path) -> None:
    assert build_manifest(write_peft_folder(tmp_path, rank=4), base_model=BASE).rank == 4


def test_the_highest_rank_of_a_pattern_counts(tmp_path: Path) -> None:
    folder = write_peft_folder(tmp_path, rank=4, rank_pattern={"k_proj": 32})
    assert build_manifest(folder, base_model=BASE).rank == 32


def test_read_me_files_and_checkpoints_are_left_out(tmp_path: Path) -> None:
    folder = write_peft_folder(tmp_path)
    (folder / "optimizer.pt").write_bytes(b"pickle")
    (folder / "checkpoint-10").mkdir()
    (folder / ".cache.json").write_text("{}")
    listed = [entry.path for entry in build_manifest(folder, base_model=BASE).files]
    assert listed == ["adapter_config.json", "adapter_model.safetensors"]


def test_the_manifest_survives_its_own_bytes(tmp_path: Path) -> None:
    manifest = build_manifest(write_peft_folder(tmp_path), base_model=BASE, fingerprint=FINGERPRINT)
    assert type(manifest).model_validate_json(manifest.to_bytes()) == manifest


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"peft_type": "PROMPT_TUNING"}, "Only LoRA"),
        ({"use_dora": True}, "use_dora"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"r": "16"}, "whole number"),
        ({"r": 0}, "r is 0"),
    ],
)
def test_an_adapter_that_vllm_cannot_serve_is_refused(config: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(AdapterInvalid, match=message):
        build_manifest(write_peft_folder(tmp_path, **config), base_model=BASE)


@pytest.mark.parametrize("missing", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_folder_without_its_parts_is_refused(missing: str, tmp_path: Path) -> None:
    (write_peft_folder(tmp_path) / missing).unlink()
    with pytest.raises(AdapterInvalid, match=missing):
        build_manifest(tmp_path, base_model=BASE)


@pytest.mark.parametrize(
    ("encoding", "message"),
    [
        ("utf-8-sig", "begins with a byte order mark"),
        ("utf-16", r"is not in UTF-8 \(UTF-16, it seems\)"),
        ("utf-16-le", "is not JSON"),
        ("utf-32", "is not in UTF-8"),
        ("latin-1", r"is not in UTF-8\. Save"),
    ],
)
def test_a_configuration_that_vllm_cannot_decode_is_refused(encoding: str, message: str, tmp_path: Path) -> None:
    config = write_peft_folder(tmp_path) / "adapter_config.json"
    text = config.read_text().replace("{", '{"revision": "é", ' if encoding == "latin-1" else "{", 1)
    config.write_bytes(text.encode(encoding))
    with pytest.raises(AdapterInvalid, match=message):
        build_manifest(tmp_path, base_model=BASE)


def test_what_lies_beside_an_adapter_is_no_part_of_it(tmp_path: Path) -> None:
    folder = write_peft_folder(tmp_path)
    own = [
        "chat_template.jinja",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "tokenizer.model",
    ]
    others = ["model.safetensors", "notes.txt", "patients.json", "train.jsonl", "trainer_state.json", "README.txt"]
    for name in [*own, *others, ".env.json"]:
        (folder / name).write_bytes(b"{}")
    (folder / "checkpoint-10").mkdir()
    listed = [entry.path for entry in build_manifest(folder, base_model=BASE).files]
    assert listed == sorted(["adapter_config.json", "adapter_model.safetensors", *own])
    assert left_behind(folder) == tuple(sorted([".env.json", "README.md", "checkpoint-10/", *others]))


def test_what_the_parent_makes_of_probes_stands_in_all_of_them_or_in_none() -> None:
    told = Probe(token_ids=(1, 2), start=1, child=(-1.0,), parent=(-2.0,), base=(-3.0,))
    untold = told.model_copy(update={"parent": None})
    for probes in ((told, told), (untold, untold)):
        assert Fingerprint(token_ids=(1, 2), logprobs=(-1.0,), probes=probes).probes == probes
    with pytest.raises(ValidationError, match="others don't"):
        Fingerprint(token_ids=(1, 2), logprobs=(-1.0,), probes=(told, untold))

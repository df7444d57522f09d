from __future__ import annotations

from pathlib import Path

import pytest

from neurons.store import AdapterInvalid, build_manifest

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

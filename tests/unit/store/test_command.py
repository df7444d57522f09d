from __future__ import annotations

import json
from pathlib import Path

import pytest

from bettertherapy_api.manifest import MANIFEST_FILE, AdapterManifest, Lineage, manifest_digest
from neurons.store.__main__ import main

BASE = ("--base-model", "smollm2-135m-instruct")


def push(folder: Path, store: Path, *extra: str) -> int:
    return main(["push", str(folder), "--store", f"file://{store}", "--twin", "dr-who", *BASE, *extra])


def test_what_is_pushed_can_be_verified(
    peft_folder: Path, store_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert push(peft_folder, store_root) == 0
    pushed = json.loads(capsys.readouterr().out)
    assert main(["verify", pushed["uri"], "--digest", pushed["digest"]]) == 0
    assert json.loads(capsys.readouterr().out)["verified"] is True


def test_the_manifest_that_the_trainer_left_is_kept(
    peft_folder: Path, store_root: Path, manifest: AdapterManifest, capsys: pytest.CaptureFixture[str]
) -> None:
    (peft_folder / MANIFEST_FILE).write_bytes(manifest.to_bytes())
    push(peft_folder, store_root)
    assert json.loads(capsys.readouterr().out)["digest"] == manifest_digest(manifest.to_bytes())


def test_a_manifest_for_another_base_model_is_not_pushed(
    peft_folder: Path, store_root: Path, manifest: AdapterManifest, capsys: pytest.CaptureFixture[str]
) -> None:
    (peft_folder / MANIFEST_FILE).write_bytes(manifest.to_bytes())
    assert push(peft_folder, store_root, "--base-model", "another") == 1
    assert capsys.readouterr().err.startswith("ManifestInvalid: ")


def test_a_tampered_adapter_does_not_verify(
    peft_folder: Path, store_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    push(peft_folder, store_root)
    pushed = json.loads(capsys.readouterr().out)
    weights = Path(pushed["uri"].removeprefix("file://")) / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    assert main(["verify", pushed["uri"], "--digest", pushed["digest"]]) == 1
    assert capsys.readouterr().err.startswith("DigestMismatch: ")


def test_lineage_is_read_from_the_manifest_alone(
    peft_folder: Path, store_root: Path, manifest: AdapterManifest, capsys: pytest.CaptureFixture[str]
) -> None:
    known = manifest.model_copy(update={"lineage": Lineage(dataset_digest="sha256:" + "d" * 64, run="dr-who-1")})
    (peft_folder / MANIFEST_FILE).write_bytes(known.to_bytes())
    push(peft_folder, store_root)
    pushed = json.loads(capsys.readouterr().out)
    (Path(pushed["uri"].removeprefix("file://")) / "adapter_model.safetensors").unlink()
    assert main(["lineage", pushed["uri"], "--digest", pushed["digest"]]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["datasetDigest"], said["run"], said["parentDigest"]) == ("sha256:" + "d" * 64, "dr-who-1", None)
    assert main(["lineage", pushed["uri"], "--digest", "sha256:" + "0" * 64]) == 1
    assert capsys.readouterr().err.startswith("DigestMismatch: ")


@pytest.mark.parametrize("twin", ["Dr-Who", "dr_who", "../dr-who", ""])
def test_a_name_that_no_twin_can_have_is_refused(twin: str, peft_folder: Path, store_root: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        push(peft_folder, store_root, "--twin", twin)
    assert caught.value.code == 2

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bettertherapy_api.manifest import MANIFEST_FILE, AdapterManifest, FileEntry, Lineage, manifest_digest
from neurons.store import ArtifactNotFound, file_digest
from neurons.store.__main__ import main
from neurons.store.checks import WEIGHTS_FILE
from neurons.store.hub import HubUri, parse_hub_uri
from tests.standin import write_adapter

from .adapter_kinds import KINDS
from .lora_files import DOWN, SIZES, safetensors, tensor

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


@pytest.mark.parametrize("option", [("--base-model-digest", f"sha256:{'c' * 64}"), ("--base-model-revision", "other")])
def test_what_is_said_of_the_base_model_is_not_passed_over_for_a_manifest(
    option: tuple[str, str], peft_folder: Path, store_root: Path, manifest: AdapterManifest,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (peft_folder / MANIFEST_FILE).write_bytes(manifest.to_bytes())
    assert push(peft_folder, store_root, *option) == 1
    said = capsys.readouterr().err
    assert said.startswith("ManifestInvalid: ")
    assert option[0] in said
    (peft_folder / MANIFEST_FILE).unlink()
    assert push(peft_folder, store_root, *option) == 0


def test_an_adapter_that_was_trained_on_beside_its_old_manifest_says_what_to_remove(
    peft_folder: Path, store_root: Path, manifest: AdapterManifest, capsys: pytest.CaptureFixture[str]
) -> None:
    (peft_folder / MANIFEST_FILE).write_bytes(manifest.to_bytes())
    weights = peft_folder / WEIGHTS_FILE
    data = weights.read_bytes()
    weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert push(peft_folder, store_root) == 1
    said = capsys.readouterr().err
    assert f"remove {MANIFEST_FILE}" in said
    assert "push the adapter again" not in said  # which is what was done
    (peft_folder / MANIFEST_FILE).unlink()
    assert push(peft_folder, store_root) == 0


def test_a_folder_of_adapters_names_them(tmp_path: Path, store_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("checkpoint-500", "checkpoint-1000"):
        KINDS["plain"].write(tmp_path / "run" / name)
    assert push(tmp_path / "run", store_root) == 1
    assert "in it: checkpoint-1000, checkpoint-500" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "reason"), [("DoRA", "AdapterInvalid: "), ("A without B", "AdapterInvalid: "), ("plain", "")]
)
@pytest.mark.parametrize("with_manifest", [False, True])
def test_only_what_can_be_served_is_pushed(
    kind: str, reason: str, with_manifest: bool, tmp_path: Path, store_root: Path, manifest: AdapterManifest,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    folder = KINDS[kind].write(tmp_path / "adapter")
    if with_manifest:
        files = tuple(
            FileEntry(path=path.name, digest=(found := file_digest(path))[0], size=found[1])
            for path in folder.iterdir()
        )
        (folder / MANIFEST_FILE).write_bytes(manifest.model_copy(update={"files": files}).to_bytes())
    assert push(folder, store_root) == (1 if reason else 0)
    assert capsys.readouterr().err.startswith(reason)
    assert store_root.exists() != bool(reason)


def test_a_stored_adapter_that_cannot_be_served_does_not_verify(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = write_adapter(tmp_path, "dr-who", weights=b"version https://git-lfs.github.com/spec/v1")
    assert main(["verify", bad.uri, "--digest", bad.digest]) == 1
    assert capsys.readouterr().err.startswith("AdapterInvalid: ")


def base_folder(folder: Path, sizes: dict[str, tuple[int, int]]) -> Path:
    folder.mkdir()
    weights = {f"{module}.weight": tensor(shape, dtype="BF16") for module, shape in sizes.items()}
    (folder / "model.safetensors").write_bytes(safetensors(weights))
    (folder / "config.json").write_text("{}")
    return folder


def test_the_base_models_modules_and_sizes_are_compared(
    peft_folder: Path, store_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = base_folder(tmp_path / "other", {**SIZES, DOWN: (64, 256)})
    assert push(peft_folder, store_root, "--base-model-uri", str(other)) == 1
    assert "64 x 128 in the adapter and 64 x 256 in the base model" in capsys.readouterr().err
    right = base_folder(tmp_path / "right", SIZES)
    assert push(peft_folder, store_root, "--base-model-uri", right.as_uri()) == 0


def test_packed_base_models_are_compared_by_names(
    peft_folder: Path, store_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "int4"
    folder.mkdir()
    packed = {f"{module}.qweight": ("I32", (8, 64), bytes(2048)) for module in SIZES}
    (folder / "model.safetensors").write_bytes(safetensors(packed))
    assert push(peft_folder, store_root, "--base-model-uri", str(folder)) == 0
    (folder / "model.safetensors").write_bytes(safetensors({"model.layers.0.mlp.qweight": ("I32", (1,), bytes(4))}))
    assert push(peft_folder, store_root, "--base-model-uri", str(folder)) == 1
    assert "has no module" in capsys.readouterr().err


def test_a_base_model_that_is_not_there(peft_folder: Path, store_root: Path, tmp_path: Path) -> None:
    assert push(peft_folder, store_root, "--base-model-uri", str(tmp_path / "nowhere")) == 1
    assert push(peft_folder, store_root, "--base-model-uri", "s3://bucket/model") == 1


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


def test_what_lies_beside_the_adapter_stays_and_is_named(
    peft_folder: Path, store_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("patients.json", "notes.txt", "model.safetensors"):
        (peft_folder / name).write_text("Maria")
    assert push(peft_folder, store_root) == 0
    said = capsys.readouterr()
    left = ["README.md", "model.safetensors", "notes.txt", "patients.json"]
    assert json.loads(said.out)["leftBehind"] == left
    assert said.err == f"Not pushed, since it is no part of an adapter: {', '.join(left)}.\n"
    assert {path.name for path in store_root.rglob("*") if path.is_file()} == {
        "adapter_config.json", "adapter_model.safetensors", MANIFEST_FILE,
    }  # fmt: skip


def test_a_manifest_that_lists_something_else_is_not_pushed(
    peft_folder: Path, store_root: Path, manifest: AdapterManifest, capsys: pytest.CaptureFixture[str]
) -> None:
    (peft_folder / "patients.json").write_text("Maria")
    found = file_digest(peft_folder / "patients.json")
    files = (*manifest.files, FileEntry(path="patients.json", digest=found[0], size=found[1]))
    (peft_folder / MANIFEST_FILE).write_bytes(manifest.model_copy(update={"files": files}).to_bytes())
    assert push(peft_folder, store_root) == 1
    assert "lists what is no part of an adapter: patients.json" in capsys.readouterr().err
    assert not store_root.exists()


@pytest.mark.parametrize("content", [b'{"name": "my app", "icons": []}', b"\xff\xfe{", b"[]", b"not JSON"])
def test_another_programs_manifest_is_told_from_a_damaged_one(
    content: bytes, peft_folder: Path, store_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (peft_folder / MANIFEST_FILE).write_bytes(content)
    assert push(peft_folder, store_root) == 1
    assert "is no adapter's but another program's. Remove it from the folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("named", "told"),
    [
        ("https://huggingface.co/owner/name", "hf://owner/name\n"),
        ("https://huggingface.co/owner/name/tree/main", "hf://owner/name\n"),
        ("http://www.hf.co/owner/name", "hf://owner/name\n"),
        ("s3://bucket/adapter", "from a folder of this machine or from hf://owner/name"),
        ("/nowhere/at/all", "/nowhere/at/all: there is no such folder"),
    ],
)
def test_what_is_no_folder_says_what_to_name(
    named: str, told: str, store_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["push", named, "--store", f"file://{store_root}", "--twin", "dr-who", *BASE]) == 1
    assert told in capsys.readouterr().err


def test_a_file_is_no_folder(peft_folder: Path, store_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert push(peft_folder / "adapter_model.safetensors", store_root) == 1
    assert f"Name the folder that it lies in: {peft_folder}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("uri", "repo", "revision"),
    [
        ("hf://owner/name", "owner/name", None),
        ("hf://owner/name@refs/pr/1", "owner/name", "refs/pr/1"),
        ("hf://owner/name@feature/x/", "owner/name", "feature/x"),
    ],
)
def test_a_revision_may_hold_slashes(uri: str, repo: str, revision: str | None) -> None:
    assert parse_hub_uri(uri) == HubUri(repo, revision)


@pytest.mark.parametrize("uri", ["hf://owner/name/checkpoint-500", "hf://owner/name/a/b@main"])
def test_a_folder_in_a_repository_is_not_taken(uri: str) -> None:
    with pytest.raises(ArtifactNotFound, match=r"Download that folder and name it, or name hf://owner/name\."):
        parse_hub_uri(uri)

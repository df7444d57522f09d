from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from neurons.models.__main__ import main
from neurons.models.cache import make_record
from neurons.models.fetch import Fetched, Origin, fetch_model
from neurons.store import ArtifactNotFound, DigestMismatch

from .conftest import write_model


def digest_of(folder: Path) -> str:
    return make_record(folder, name="m", uri="file:///m", revision=None).digest


async def fetch(folder: Path, root: Path, *, revision: str | None = None) -> Fetched:
    return await fetch_model(uri=f"file://{folder}", name="m", revision=revision, root=root)


async def test_a_local_model_is_used_where_it_is(model: Path, tmp_path: Path) -> None:
    fetched = await fetch(model, tmp_path / "dest")
    assert (fetched.folder, fetched.origin) == (model, Origin.IN_PLACE)


async def test_a_model_of_the_expected_digest_is_accepted(model: Path, tmp_path: Path) -> None:
    digest = digest_of(model)
    assert (await fetch(model, tmp_path / "dest", revision=digest)).digest == digest


async def test_another_digest_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(DigestMismatch, match=r"baseModel\.revision"):
        await fetch(model, tmp_path / "dest", revision="sha256:" + "0" * 64)


async def test_a_model_that_changed_since_it_was_verified_is_refused(model: Path, tmp_path: Path) -> None:
    digest = digest_of(model)
    await fetch(model, tmp_path / "dest", revision=digest)
    write_model(model, seed=1)
    with pytest.raises(DigestMismatch):
        await fetch(model, tmp_path / "dest", revision=digest)


async def test_an_unchanged_model_is_not_hashed_again(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = digest_of(model)
    await fetch(model, tmp_path / "dest", revision=digest)

    def fail(*_: object) -> None:
        raise AssertionError("hashed again")

    monkeypatch.setattr("neurons.models.cache.file_digest", fail)
    assert (await fetch(model, tmp_path / "dest", revision=digest)).digest == digest


async def test_truncated_weights_are_found_without_any_digest(model: Path, tmp_path: Path) -> None:
    os.truncate(model / "model.safetensors", 1000)
    with pytest.raises(DigestMismatch, match="Copy the model again"):
        await fetch(model, tmp_path / "dest")


async def test_weights_that_are_no_safetensors_are_found(model: Path, tmp_path: Path) -> None:
    (model / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1 oid sha256:0 size 1")
    with pytest.raises(DigestMismatch):
        await fetch(model, tmp_path / "dest")


async def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactNotFound, match=r"config\.json"):
        await fetch(tmp_path / "empty", tmp_path / "dest")


async def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ArtifactNotFound, match=r"baseModel\.uri"):
        await fetch(tmp_path / "nowhere", tmp_path / "dest")


async def test_a_link_to_nothing_is_named(model: Path, tmp_path: Path) -> None:
    (model / "extra.json").symlink_to(tmp_path / "blob")
    with pytest.raises(ArtifactNotFound, match=r"extra\.json"):
        await fetch(model, tmp_path / "dest")


async def test_a_claim_is_used_where_it_is_mounted(tmp_path: Path) -> None:
    model = write_model(tmp_path / "pvc" / "models" / "smol")
    fetched = await fetch_model(
        uri="pvc://models/smol", name="m", revision=None, root=tmp_path / "dest", pvc_dir=tmp_path / "pvc"
    )
    assert fetched.folder == model


def test_hidden_files_and_the_record_are_no_part_of_the_digest(model: Path) -> None:
    before = digest_of(model)
    (model / ".bettertherapy-model.json").write_text("{}")
    assert digest_of(model) == before


def test_the_name_of_a_file_is_part_of_the_digest(model: Path) -> None:
    before = digest_of(model)
    (model / "tokenizer.json").rename(model / "other.json")
    assert digest_of(model) != before


def test_the_command_links_the_model_and_prints_where_it_is(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dest = tmp_path / "models"
    assert main(["fetch", "--uri", f"file://{model}", "--name", "m", "--dest", str(dest)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["path"] == str(model)
    assert (dest / "current").resolve() == model.resolve()


def test_the_link_follows_when_the_model_changes(model: Path, tmp_path: Path) -> None:
    other = write_model(tmp_path / "other", seed=1)
    for folder in (model, other):
        main(["fetch", "--uri", f"file://{folder}", "--name", "m", "--dest", str(tmp_path / "models")])
    assert (tmp_path / "models" / "current").resolve() == other.resolve()


def test_a_failure_goes_to_the_termination_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "termination-log"
    log.touch()
    arguments = ["fetch", "--uri", f"file://{tmp_path}/nowhere", "--name", "m", "--dest", str(tmp_path / "models")]
    assert main(arguments, termination_log=log) == 1
    assert log.read_text().startswith("ArtifactNotFound: ")
    assert log.read_text() in capsys.readouterr().err

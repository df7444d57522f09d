"""Image archives are read and written without unpacking them."""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path

import pytest

from localcluster.config import PAUSE_IMAGE
from localcluster.errors import ImageError
from localcluster.images import chain, full_name, read_archive, write_pause_archive


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("busybox:1", "docker.io/library/busybox:1"),
        ("bettertherapy/operator:0.1.0", "docker.io/bettertherapy/operator:0.1.0"),
        ("docker.io/bettertherapy/operator:0.1.0", "docker.io/bettertherapy/operator:0.1.0"),
        ("localhost/x:1", "localhost/x:1"),
        ("localhost:5000/x", "localhost:5000/x:latest"),
        ("registry.k8s.io/pause:3.6", "registry.k8s.io/pause:3.6"),
    ],
)
def test_names_are_completed_as_containerd_does(given: str, expected: str) -> None:
    assert full_name(given) == expected


@pytest.fixture
def pause(tmp_path: Path) -> Path:
    binary = tmp_path / "pause"
    binary.write_bytes(b"\x7fELF program")
    target = tmp_path / "pause.tar"
    write_pause_archive(binary, target, name=PAUSE_IMAGE)
    return target


def test_an_archive_tells_its_image_and_the_digest_of_its_configuration(pause: Path) -> None:
    with tarfile.open(pause) as tar:
        entry = tar.extractfile("manifest.json")
        assert entry is not None
        config = tar.extractfile(json.load(entry)[0]["Config"])
        assert config is not None
        digest = hashlib.sha256(config.read()).hexdigest()

    assert read_archive(pause).images == ((PAUSE_IMAGE, digest),)


def test_the_configuration_names_the_layer_by_its_content(pause: Path) -> None:
    with tarfile.open(pause) as tar:
        layer = tar.extractfile("layer.tar")
        manifest = tar.extractfile("manifest.json")
        assert layer is not None
        assert manifest is not None
        config = tar.extractfile(json.load(manifest)[0]["Config"])
        assert config is not None
        diff_ids = json.load(config)["rootfs"]["diff_ids"]

        assert diff_ids == [f"sha256:{hashlib.sha256(layer.read()).hexdigest()}"]


def test_the_same_program_makes_the_same_image(tmp_path: Path, pause: Path) -> None:
    again = tmp_path / "again.tar"
    write_pause_archive(tmp_path / "pause", again, name=PAUSE_IMAGE)

    assert read_archive(again).images == read_archive(pause).images


def test_what_is_no_image_archive_is_refused_with_how_to_make_one(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(b"not a tar")

    with pytest.raises(ImageError, match="docker save"):
        read_archive(path)


def test_an_image_without_a_name_is_refused(tmp_path: Path) -> None:
    path, manifest = tmp_path / "x.tar", tmp_path / "manifest.json"
    manifest.write_text("[]")
    with tarfile.open(path, "w") as tar:
        tar.add(manifest, "manifest.json")

    with pytest.raises(ImageError, match="has a name"):
        read_archive(path)


def test_a_layers_snapshot_is_named_after_all_layers_below_it() -> None:
    bottom, middle, top = chain(["a", "b", "c"], ["sha256:aa", "sha256:bb", "sha256:cc"])

    def digest(text: str) -> str:
        return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"

    assert bottom.chain_id == "sha256:aa"
    assert middle.chain_id == digest("sha256:aa sha256:bb")
    assert top.chain_id == digest(f"{middle.chain_id} sha256:cc")

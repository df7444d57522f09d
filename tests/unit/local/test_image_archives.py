"""Image archives are read and written without unpacking them."""

from __future__ import annotations

import hashlib
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from localcluster.config import PAUSE_IMAGE
from localcluster.errors import ImageError
from localcluster.images import Archive, ImageStore, chain, full_name, read_archive, release_name, write_pause_archive


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


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("docker.io/bettertherapy/neuron:0.1.0-4a521000", "docker.io/bettertherapy/neuron:0.1.0"),
        ("localhost:5000/x:12.0-0123abcd", "localhost:5000/x:12.0"),
        ("docker.io/bettertherapy/neuron:0.1.0", None),
        ("registry.k8s.io/pause:3.6", None),
        ("localhost/x:1.0-alpine", None),
    ],
)
def test_a_build_is_known_by_its_release_too(name: str, expected: str | None) -> None:
    assert release_name(name) == expected


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


@dataclass(frozen=True)
class StoreWithSnapshots(ImageStore):
    """An image store whose containerd says that it has these snapshots, and does as it is told."""

    snapshots: tuple[str, ...] = ()

    def _ctr(self, *arguments: str, timeout_s: float = 60) -> str:
        del timeout_s
        if arguments == ("snapshots", "list"):
            return "\n".join(["KEY PARENT KIND", *(f"{name} x Committed" for name in self.snapshots)])
        return "REF TYPE DIGEST"


@pytest.fixture
def thin(tmp_path: Path, pause: Path) -> Archive:
    """An archive that leaves its one layer out, as that of an image which is built on another does."""
    path = tmp_path / "thin.tar"
    with tarfile.open(pause) as full, tarfile.open(path, mode="w") as tar:
        for entry in full:
            if entry.name != "layer.tar":
                tar.addfile(entry, full.extractfile(entry))
    return read_archive(path)


def store(tmp_path: Path, *snapshots: str) -> ImageStore:
    """A store with one thinned blob, without which nothing needs to be restored."""
    blobs = tmp_path / "root" / "io.containerd.content.v1.content" / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    with (blobs / ("a" * 64)).open("wb") as hole:
        hole.truncate(16 * 1024 * 1024)
    return StoreWithSnapshots(socket=tmp_path / "socket", root=tmp_path / "root", snapshots=snapshots)


def test_a_layer_that_is_unpacked_already_may_be_left_out(tmp_path: Path, thin: Archive) -> None:
    # The stand-in imports nothing, so the load ends with the check that comes after the import.
    with pytest.raises(ImageError, match="was imported, but"):
        store(tmp_path, thin.layers[0].chain_id).load(thin)


def test_a_layer_that_is_left_out_and_missing_is_named_with_what_to_load_first(tmp_path: Path, thin: Archive) -> None:
    with pytest.raises(ImageError, match=r"leaves out the layer layer\.tar") as refused:
        store(tmp_path).load(thin)
    assert "load the image that it is built on first" in refused.value.remedy

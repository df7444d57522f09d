"""Archives that Docker and containerd read, with or without what the parent's archive holds."""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path

import pytest

from imagebuilder.archive import Record, record_path, write_archive

REFERENCE = "docker.io/bettertherapy/x:0.1.0-11111111"


def put(pushed: Path, content: bytes) -> tuple[str, int]:
    digest = hashlib.sha256(content).hexdigest()
    (pushed / digest).write_bytes(content)
    return f"sha256:{digest}", len(content)


@pytest.fixture
def pushed(tmp_path: Path) -> Path:
    folder = tmp_path / "pushed"
    folder.mkdir()
    layers = [put(folder, b"below"), put(folder, b"above")]
    config, config_size = put(folder, b'{"rootfs":{}}')
    manifest = {
        "config": {"digest": config, "size": config_size},
        "layers": [{"digest": digest, "size": size} for digest, size in layers],
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


BELOW = f"sha256:{hashlib.sha256(b'below').hexdigest()}"
ABOVE = f"sha256:{hashlib.sha256(b'above').hexdigest()}"


def read(archive: Path, member: str) -> bytes:
    with tarfile.open(archive) as tar:
        entry = tar.extractfile(member)
        assert entry is not None
        return entry.read()


def test_both_descriptions_carry_the_full_name(pushed: Path, tmp_path: Path) -> None:
    target = tmp_path / "x.tar"
    write_archive(pushed, target, reference=REFERENCE)

    [docker] = json.loads(read(target, "manifest.json"))
    [oci] = json.loads(read(target, "index.json"))["manifests"]
    assert docker["RepoTags"] == [REFERENCE]
    assert oci["annotations"]["io.containerd.image.name"] == REFERENCE


def test_the_index_names_the_manifest_by_its_digest(pushed: Path, tmp_path: Path) -> None:
    target = tmp_path / "x.tar"
    write_archive(pushed, target, reference=REFERENCE)

    [oci] = json.loads(read(target, "index.json"))["manifests"]
    manifest = read(target, f"blobs/{oci['digest'].replace(':', '/')}")
    assert (f"sha256:{hashlib.sha256(manifest).hexdigest()}", len(manifest)) == (oci["digest"], oci["size"])
    assert [layer["digest"] for layer in json.loads(manifest)["layers"]] == [BELOW, ABOVE]


def test_the_layers_are_those_of_the_image_in_order(pushed: Path, tmp_path: Path) -> None:
    target = tmp_path / "x.tar"
    write_archive(pushed, target, reference=REFERENCE)

    [docker] = json.loads(read(target, "manifest.json"))
    assert [read(target, layer) for layer in docker["Layers"]] == [b"below", b"above"]


def test_a_layer_of_the_parents_archive_is_left_out(pushed: Path, tmp_path: Path) -> None:
    target = tmp_path / "x.tar"
    record = write_archive(pushed, target, reference=REFERENCE, leave_out={BELOW})

    with tarfile.open(target) as tar:
        names = tar.getnames()
    assert BELOW.replace(":", "/") not in "".join(names)
    assert ABOVE.removeprefix("sha256:") in "".join(names)
    assert record.left_out == (BELOW,)


def test_copied_layers_are_gone_from_the_folder(pushed: Path, tmp_path: Path) -> None:
    write_archive(pushed, tmp_path / "x.tar", reference=REFERENCE)

    assert not (pushed / ABOVE.removeprefix("sha256:")).exists()


def test_the_record_beside_the_archive_says_what_it_holds(pushed: Path, tmp_path: Path) -> None:
    target = tmp_path / "x.tar"
    record = write_archive(pushed, target, reference=REFERENCE)

    assert Record.read(record_path(target)) == record
    assert record.layers == ((BELOW, 5), (ABOVE, 5))


def test_an_archive_that_failed_half_way_is_not_there(pushed: Path, tmp_path: Path) -> None:
    target = tmp_path / "x.tar"
    (pushed / ABOVE.removeprefix("sha256:")).unlink()

    with pytest.raises(FileNotFoundError):
        write_archive(pushed, target, reference=REFERENCE)
    assert not target.exists()
    assert Record.read(record_path(target)) is None


@pytest.mark.parametrize("content", ["", "{}", '{"reference": "x"', "[]"])
def test_a_broken_record_counts_as_none(tmp_path: Path, content: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)

    assert Record.read(path) is None

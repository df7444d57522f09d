"""`docker save` archives made from a pushed image, with or without the layers of the image it is built on.

An image is pushed to a folder (buildah's `dir:`): its manifest.json, and each blob under its hash.

The archive holds both descriptions of the image, `manifest.json` (Docker's) and `index.json` (OCI's), over the same
blobs. containerd reads the second one, and does not miss a layer that an image it has already brought along.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Record:
    """What is known of an archive, kept beside it as JSON: written last, it says that the archive is complete.

    `layers` are the image's layers with their sizes; `left_out` are those of them that the archive does not hold.
    """

    reference: str
    config: str
    layers: tuple[tuple[str, int], ...]
    left_out: tuple[str, ...] = ()

    def write(self, path: Path) -> None:
        """Write the record at once or not at all."""
        partial = path.with_name(f".{path.name}.partial")
        partial.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")
        partial.replace(path)

    @classmethod
    def read(cls, path: Path) -> Record | None:
        """Return the record at `path`, or None if there is no whole one."""
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            return cls(
                reference=found["reference"],
                config=found["config"],
                layers=tuple((digest, size) for digest, size in found["layers"]),
                left_out=tuple(found["left_out"]),
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None


def record_path(archive: Path) -> Path:
    """Return where the archive's record is kept."""
    return archive.with_suffix(".json")


def write_archive(pushed: Path, target: Path, *, reference: str, leave_out: Collection[str] = ()) -> Record:
    """Write the image in the folder `pushed` to `target`, and delete each layer from the folder once it is copied.

    Raises:
        OSError: the disk is full, or the folder is not readable.
    """
    encoded = (pushed / "manifest.json").read_bytes()
    manifest = json.loads(encoded)
    layers: list[dict[str, Any]] = manifest["layers"]
    described: dict[str, Any] = {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": f"sha256:{hashlib.sha256(encoded).hexdigest()}",
        "size": len(encoded),
        "annotations": {
            "io.containerd.image.name": reference,
            "org.opencontainers.image.ref.name": reference.rpartition(":")[2],
        },
    }
    index = {"schemaVersion": 2, "manifests": [described]}
    docker = [
        {
            "Config": _member(manifest["config"]["digest"]),
            "RepoTags": [reference],
            "Layers": [_member(layer["digest"]) for layer in layers],
        }
    ]
    partial = target.with_name(f".{target.name}.partial")
    # The small files first: who asks for the archive's names need not read past the layers.
    with tarfile.open(partial, "w") as tar:
        _add(tar, "oci-layout", json.dumps({"imageLayoutVersion": "1.0.0"}).encode())
        _add(tar, "manifest.json", json.dumps(docker).encode())
        _add(tar, "index.json", json.dumps(index).encode())
        _add(tar, _member(described["digest"]), encoded)
        _add(tar, _member(manifest["config"]["digest"]), _blob(pushed, manifest["config"]["digest"]).read_bytes())
        for digest in dict.fromkeys(layer["digest"] for layer in layers):
            if digest not in leave_out:
                blob = _blob(pushed, digest)
                entry = tarfile.TarInfo(_member(digest))
                entry.size = blob.stat().st_size
                with blob.open("rb") as content:
                    tar.addfile(entry, content)
                blob.unlink()
    os.replace(partial, target)
    record = Record(
        reference=reference,
        config=manifest["config"]["digest"],
        layers=tuple((layer["digest"], layer["size"]) for layer in layers),
        left_out=tuple(layer["digest"] for layer in layers if layer["digest"] in leave_out),
    )
    record.write(record_path(target))
    return record


def _member(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _blob(pushed: Path, digest: str) -> Path:
    return pushed / digest.removeprefix("sha256:")


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))

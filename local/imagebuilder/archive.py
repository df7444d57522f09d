"""`docker save` archives made from an OCI layout, with or without the layers of the image they are built on.

The archive holds both descriptions of the image, `manifest.json` (Docker's) and `index.json` (OCI's), over the same
blobs. containerd reads the second one, and does not miss a layer that an image it has already brought along.
"""

from __future__ import annotations

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


def write_archive(layout: Path, target: Path, *, reference: str, leave_out: Collection[str] = ()) -> Record:
    """Write the one image in the OCI layout to `target`, and delete each big blob from the layout once it is copied.

    Raises:
        OSError: the disk is full, or the layout is not readable.
    """
    index = json.loads((layout / "index.json").read_text(encoding="utf-8"))
    [described] = index["manifests"]
    manifest = json.loads(_blob(layout, described["digest"]).read_text(encoding="utf-8"))
    layers: list[dict[str, Any]] = manifest["layers"]
    described["annotations"] = {
        "io.containerd.image.name": reference,
        "org.opencontainers.image.ref.name": reference.rpartition(":")[2],
    }
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
        _add(tar, "oci-layout", {"imageLayoutVersion": "1.0.0"})
        _add(tar, "manifest.json", docker)
        _add(tar, "index.json", index)
        held: set[str] = set()
        for digest in (described["digest"], manifest["config"]["digest"], *(layer["digest"] for layer in layers)):
            if digest not in held and digest not in leave_out:
                held.add(digest)
                blob = _blob(layout, digest)
                entry = tarfile.TarInfo(_member(digest))
                entry.size = blob.stat().st_size
                with blob.open("rb") as content:
                    tar.addfile(entry, content)
                if digest not in (described["digest"], manifest["config"]["digest"]):
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


def seed_layout(layout: Path, layers: Collection[tuple[str, int]]) -> None:
    """Put holes of the right size where known layers would be written, so that a push to the layout skips them."""
    folder = layout / "blobs" / "sha256"
    folder.mkdir(parents=True, exist_ok=True)
    for digest, size in layers:
        with (folder / digest.removeprefix("sha256:")).open("wb") as file:
            file.truncate(size)


def _member(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _blob(layout: Path, digest: str) -> Path:
    return layout / _member(digest)


def _add(tar: tarfile.TarFile, name: str, content: object) -> None:
    data = json.dumps(content).encode()
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))

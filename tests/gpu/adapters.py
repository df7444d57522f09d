"""Trained adapters to measure with, and new versions made of them: same weights, another digest."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bettertherapy_api import names
from bettertherapy_api.manifest import MANIFEST_FILE, AdapterManifest, manifest_digest
from bettertherapy_api.routing import Adapter
from tests.standin import write_adapter

WEIGHTS_FILE: Final = "adapter_model.safetensors"


@dataclass(frozen=True)
class Trained:
    """An adapter as the trainer left it."""

    twin: str
    folder: Path
    manifest: AdapterManifest


@dataclass(frozen=True)
class Published:
    """One version in the store."""

    twin: str
    digest: str
    uri: str
    rank: int

    @property
    def name(self) -> str:
        """The served name."""
        return names.served_name(self.twin, self.digest)

    def entry(self) -> Adapter:
        """Return its entry in a routing slice."""
        return Adapter(digest=self.digest, served_name=self.name, uri=self.uri, rank=self.rank)


def read_trained(directory: Path) -> tuple[Trained, ...]:
    """Return the adapters in `directory`: folders, each with a note `<folder>.json` whose `uri` names the twin.

    Of several for one twin, the one that was written last.
    """
    found: dict[str, Trained] = {}
    for note in sorted(directory.glob("*.json"), key=lambda path: path.stat().st_mtime):
        folder = note.with_suffix("")
        twin = json.loads(note.read_text())["uri"].rstrip("/").rsplit("/", 2)[-2]
        manifest = AdapterManifest.model_validate_json((folder / MANIFEST_FILE).read_bytes())
        found[twin] = Trained(twin, folder, manifest)
    if len(found) < 2:
        raise FileNotFoundError(f"{directory} holds adapters of {len(found)} twins; two are needed")
    return tuple(found[twin] for twin in sorted(found))


def stand_ins(directory: Path) -> tuple[Trained, ...]:
    """Write two adapters that the stand-in can speak with."""
    made = [write_adapter(directory, twin, content="trained", size=1024 * 1024) for twin in ("dr-one", "dr-two")]
    return tuple(Trained(adapter.twin, adapter.folder, adapter.manifest) for adapter in made)


def publish(trained: Trained, store: Path, *, run: str) -> Published:
    """Publish a version that differs from all others by its lineage alone."""
    lineage = trained.manifest.lineage.model_copy(update={"run": run})
    manifest = trained.manifest.model_copy(update={"lineage": lineage})
    return _put(trained.twin, manifest, {entry.path: trained.folder / entry.path for entry in manifest.files}, store)


def publish_mixed_up(trained: Trained, other: Trained, store: Path) -> Published:
    """Publish the other twin's weights under this one's fingerprint: every digest is right, the weights are not."""
    sources = {entry.path: trained.folder / entry.path for entry in trained.manifest.files}
    sources[WEIGHTS_FILE] = other.folder / WEIGHTS_FILE
    theirs = next(entry for entry in other.manifest.files if entry.path == WEIGHTS_FILE)
    files = tuple(theirs if entry.path == WEIGHTS_FILE else entry for entry in trained.manifest.files)
    return _put(trained.twin, trained.manifest.model_copy(update={"files": files}), sources, store)


def _put(twin: str, manifest: AdapterManifest, sources: dict[str, Path], store: Path) -> Published:
    data = manifest.to_bytes()
    digest = manifest_digest(data)
    folder = store / twin / names.digest_hex(digest)
    folder.mkdir(parents=True, exist_ok=True)
    for name, source in sources.items():
        _link(source, folder / name)
    (folder / MANIFEST_FILE).write_bytes(data)
    return Published(twin, digest, folder.resolve().as_uri(), manifest.rank)


def _link(source: Path, target: Path) -> None:
    """Hundreds of versions share their bytes on disk where the file system can do it."""
    if target.exists():
        return
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)

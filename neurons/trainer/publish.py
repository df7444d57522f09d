"""From a trained adapter in a folder to a published, content-addressed one."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from bettertherapy_api.manifest import (
    MANIFEST_FILE,
    AdapterManifest,
    BaseModelEntry,
    Fingerprint,
    Lineage,
    manifest_digest,
)
from neurons.store import StoreError, build_manifest, publish_adapter
from neurons.trainer.archive import Archive
from neurons.trainer.errors import PublishFailed


@dataclass(frozen=True, slots=True)
class Artifact:
    """What was published."""

    uri: str
    digest: str
    rank: int
    size: int
    """Bytes of all files but the manifest."""


def publish(
    folder: Path,
    *,
    store: str,
    twin: str,
    base_model: BaseModelEntry,
    fingerprint: Fingerprint,
    lineage: Lineage,
    patience_seconds: float = 0.0,
) -> Artifact:
    """Make the manifest, keep it beside the files and publish both. Raises PublishFailed."""
    manifest = describe(folder, base_model=base_model, fingerprint=fingerprint, lineage=lineage)
    return publish_described(folder, manifest, Archive(store, twin, patience_seconds=patience_seconds))


def describe(
    folder: Path, *, base_model: BaseModelEntry, fingerprint: Fingerprint, lineage: Lineage
) -> AdapterManifest:
    """Return the manifest of the adapter in a folder. Raises PublishFailed."""
    try:
        return build_manifest(folder, base_model=base_model, fingerprint=fingerprint, lineage=lineage)
    except StoreError as error:
        raise PublishFailed(f"{error.reason}: {error}", retryable=error.retryable) from error


def publish_described(folder: Path, manifest: AdapterManifest, archive: Archive) -> Artifact:
    """Publish the folder under its manifest, patiently; publishing the same again transfers nothing.

    Raises PublishFailed, once the archive's patience is at its end.
    """
    data = manifest.to_bytes()
    (folder / MANIFEST_FILE).write_bytes(data)

    async def put() -> str:
        return await publish_adapter(
            folder, archive.store, archive.twin, manifest, limits=archive.limits, pvc_dir=archive.pvc_dir
        )

    try:
        uri = asyncio.run(archive.patiently(put))
    except StoreError as error:
        raise PublishFailed(f"{error.reason}: {error}", retryable=error.retryable) from error
    return Artifact(
        uri=uri, digest=manifest_digest(data), rank=manifest.rank, size=sum(entry.size for entry in manifest.files)
    )

"""From a trained adapter in a folder to a published, content-addressed one."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from bettertherapy_api.manifest import MANIFEST_FILE, BaseModelEntry, Fingerprint, Lineage, manifest_digest
from neurons.store import StoreError, build_manifest, publish_adapter
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
) -> Artifact:
    """Make the manifest, keep it beside the files and publish both. Raises PublishFailed."""
    try:
        manifest = build_manifest(folder, base_model=base_model, fingerprint=fingerprint, lineage=lineage)
        data = manifest.to_bytes()
        (folder / MANIFEST_FILE).write_bytes(data)
        uri = asyncio.run(publish_adapter(folder, store, twin, manifest))
    except StoreError as error:
        raise PublishFailed(f"{error.reason}: {error}", retryable=error.retryable) from error
    return Artifact(
        uri=uri, digest=manifest_digest(data), rank=manifest.rank, size=sum(entry.size for entry in manifest.files)
    )

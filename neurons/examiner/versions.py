"""The versions that are examined: fetched by digest, and held against what they must be."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from bettertherapy_api import names
from bettertherapy_api.manifest import AdapterManifest, BaseModelEntry
from neurons.store import ArtifactNotFound, DigestMismatch, ManifestInvalid, StoreError, fetch_adapter, join
from neurons.trainer.archive import Archive
from neurons.trainer.errors import BadArtifact, BadData, BadParent, StoreFailed, TrainerError

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Version:
    """An adapter whose bytes have its digest, on this machine."""

    digest: str
    folder: Path
    manifest: AdapterManifest


class Versions:
    """Fetches versions of one twin, all of one base model. Raises TrainerError."""

    def __init__(self, archive: Archive, *, base: BaseModelEntry, work: Path) -> None:
        self._archive, self._base, self._work = archive, base, work

    def child(self, digest: str, *, run: str, parent_digest: str | None) -> Version:
        """Return the version that a run published. Where it is follows from its digest, and from nobody's word.

        Its manifest must be this run's, of a version that goes on from this parent.
        """
        uri = join(self._archive.uri, names.digest_hex(digest))
        found = self._fetch(uri, digest, BadArtifact)
        lineage = found.manifest.lineage
        for what, said, expected in (
            ("run", lineage.run, run), ("parent", lineage.parent_digest, parent_digest),
        ):  # fmt: skip
            if said != expected:
                raise BadArtifact(
                    f"{uri}: its manifest names the {what} {said or 'none'}, and this run's is {expected or 'none'}: "
                    "it is another's version."
                )
        if lineage.dataset_digest is None:
            raise BadArtifact(f"{uri}: its manifest doesn't say what it was trained on.")
        return found

    def parent(self, uri: str, digest: str) -> Version:
        """Return the version that the child is compared with."""
        return self._fetch(uri, digest, BadParent)

    def anchor(self, uri: str, digest: str) -> Version | None:
        """Return the anchor; None where it can't be had any more: nothing is concluded then."""
        try:
            return self._fetch(uri, digest, BadParent)
        except BadParent as error:
            log.warning("the anchor is not examined: %s", error)
            return None

    def _fetch(self, uri: str, digest: str, unfit: type[TrainerError]) -> Version:
        folder = self._work / names.digest_hex(digest)

        async def fetch() -> AdapterManifest:
            return await fetch_adapter(uri, digest, folder, limits=self._archive.limits, pvc_dir=self._archive.pvc_dir)

        try:
            manifest = asyncio.run(self._archive.patiently(fetch))
        except (ArtifactNotFound, DigestMismatch, ManifestInvalid) as error:
            raise unfit(f"{error.reason}: {error}") from error
        except StoreError as error:
            raise StoreFailed(f"{error.reason}: {error}", retryable=error.retryable) from error
        base = manifest.base_model
        if base.name != self._base.name or (base.digest and self._base.digest and base.digest != self._base.digest):
            raise unfit(
                f"{uri}: the adapter belongs to base model {base.name} {base.digest or ''}, and it is examined on "
                f"{self._base.name} {self._base.digest or ''}."
            )
        return Version(digest=digest, folder=folder, manifest=manifest)


def asked(doing: Coroutine[Any, Any, T]) -> T:
    """Run what asks the store. Raises StoreFailed."""
    try:
        return asyncio.run(doing)
    except StoreError as error:
        raise StoreFailed(f"{error.reason}: {error}", retryable=error.retryable) from error


async def read_dataset(archive: Archive, digest: str) -> bytes:
    """Return the dataset of that digest, by which it is known. Raises BadData and StoreError."""
    data = await archive.dataset(digest)
    if data is None:
        raise BadData(
            f"{archive.uri}/datasets: the dataset {digest} that the version was trained on, by its manifest, is gone "
            "or changed: whether it holds the examination's questions can't be told."
        )
    return data

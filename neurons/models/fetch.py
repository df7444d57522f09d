"""Bringing a base model to where the engine reads it: from the cache, in place, or from afar."""

from __future__ import annotations

import asyncio
import shutil
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from bettertherapy_api import names
from neurons.models import cache
from neurons.models.sources import open_source, wanted
from neurons.store import ArtifactNotFound, DigestMismatch, local_folder
from neurons.store.errors import translated
from neurons.store.model_record import ModelRecord, read_record, still_true, survey

_LOCK_SECONDS: Final = 3600.0


class Origin(StrEnum):
    """Where a model was taken from."""

    IN_PLACE = "inPlace"
    CACHE = "cache"
    FETCHED = "fetched"


@dataclass(frozen=True, slots=True)
class Fetched:
    """A model that is ready to be served."""

    folder: Path
    origin: Origin
    record: ModelRecord | None
    """What was hashed; None for a model in place whose digest nobody asked for."""
    size: int
    """Bytes of all its files."""
    seconds: float

    @property
    def digest(self) -> str | None:
        """What was hashed, as one digest."""
        return self.record.digest if self.record is not None else None


async def fetch_model(
    *,
    uri: str,
    name: str,
    revision: str | None,
    root: Path,
    pvc_dir: Path | None = None,
    shared: bool = False,
    lock_seconds: float = _LOCK_SECONDS,
) -> Fetched:
    """Make the model at `uri` available in the local file system and verify it. Raises StoreError.

    hf://, s3://, gs:// and az:// go into `root`, where any number of pods may do this at once; file:// and pvc:// are
    used where they are. `revision` is a revision of the hub, or `sha256:…`, the digest that the model must have.
    Without a digest, a model that is in the cache is taken as it is, so that a restart needs no store. With one, and
    where other pods can write into `root` (`shared`), every byte is hashed each time: nothing there proves itself.
    """
    begun = time.monotonic()
    folder = local_folder(uri, pvc_dir=pvc_dir) if not uri.startswith("hf://") else None
    key = cache.cache_key(name=name, uri=uri, revision=revision)
    expected = revision if revision is not None and names.is_digest(revision) else None
    if folder is not None:
        with translated(doing="verifying the model", uri=uri):
            record = await asyncio.to_thread(_verify_in_place, folder, root / key, name, uri, expected, shared=shared)
            size = sum(path.stat().st_size for _, path in survey(folder))
        return Fetched(folder, Origin.IN_PLACE, record, size, time.monotonic() - begun)
    async with cache.locked(root, key, seconds=lock_seconds) as alone:
        record = await asyncio.to_thread(cache.usable, root / key, trusted=not (shared and expected is not None))
        origin = Origin.CACHE
        if record is None or (expected is not None and record.digest != expected):
            record = await _fetch(uri=uri, name=name, revision=revision, root=root, key=key, alone=alone)
            origin = Origin.FETCHED
    size = sum(file.size for file in record.files)
    return Fetched(root / key, origin, record, size, time.monotonic() - begun)


def _verify_in_place(
    folder: Path, record_folder: Path, name: str, uri: str, expected: str | None, *, shared: bool
) -> ModelRecord | None:
    if not folder.is_dir():
        raise ArtifactNotFound(
            f"{uri}: there is no folder {folder} in this pod. Check baseModel.uri, and that its claim is mounted."
        )
    cache.check_weights(folder)
    if expected is None:
        return None
    record = read_record(record_folder)
    if record is None or record.uri != uri or shared or not still_true(record, folder):
        record = cache.make_record(folder, name=name, uri=uri, revision=expected)
        cache.write_record(record, record_folder)
    _check_digest(record, expected)
    return record


async def _fetch(*, uri: str, name: str, revision: str | None, root: Path, key: str, alone: bool) -> ModelRecord:
    expected = revision if revision is not None and names.is_digest(revision) else None
    source = open_source(uri, revision=None if expected else revision)
    files = wanted(await source.files())
    with translated(doing="making room for the model", uri=str(root)):
        cache.check_space(root, sum(file.size for file in files))
        partial = cache.new_partial(root, key, alone=alone)
    try:
        await source.download(files, partial)
        with translated(doing="verifying the model", uri=uri):
            await asyncio.to_thread(cache.check_weights, partial)
            record = await asyncio.to_thread(_record, partial, name, uri, revision)
            if expected is not None:
                _check_digest(record, expected)
            cache.write_record(record, partial)
            cache.put_in_place(partial, root / key)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return record


def _record(partial: Path, name: str, uri: str, revision: str | None) -> ModelRecord:
    return cache.make_record(partial, name=name, uri=uri, revision=revision)


def _check_digest(record: ModelRecord, expected: str) -> None:
    if record.digest != expected:
        raise DigestMismatch(
            f"{record.uri}: the model's digest is {record.digest}, baseModel.revision says {expected}. Set the "
            "revision to the digest of the model you trust, or put that model there."
        )

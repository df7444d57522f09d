"""Whether what a miner delivered is its own work: no version that was reported before it adds nearly the same.

Bytes tell nothing apart: the same training in other digits, with permuted ranks or a little noise has another digest.
What is compared is what each adds to the version that both began from (`neurons.examiner.likeness`). Two honest
trainings on the same lines, which differ in the order of the lines at least, are not that near.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from bettertherapy_api import names
from bettertherapy_api.manifest import MANIFEST_FILE, AdapterManifest
from neurons.examiner.likeness import Adapter, Likeness, compare
from neurons.store import FolderNotFound, StoreError, fetch_adapter, join, local_folder, open_store
from neurons.store.checks import WEIGHTS_FILE, check_adapter
from neurons.trainer.archive import Archive
from neurons.trainer.errors import NearCopy, StoreFailed

log = logging.getLogger(__name__)

NEAR: Final = 0.999
"""Cosine of two updates, or of the middle one of their modules, from which they are one training. What was measured of
trainings that differ in the order of their lines stays below: docs/decisions/0061-credit-apart-from-promotion.md."""


async def check_own_work(options: argparse.Namespace, archive: Archive, folder: Path) -> None:
    """Raise NearCopy for an adapter, in `folder`, that is nearly one of `options.earlier`.

    `folder` holds a sound one. Of the others, what is neither among the deliveries any more nor in the twin's folder
    can't be compared, and what is no sound adapter is nobody's work. Raises StoreFailed.
    """
    if not options.earlier:
        return
    try:
        own = await asyncio.to_thread(Adapter, folder)
    except StoreError as error:
        raise StoreFailed(f"what was delivered can't be compared: {error}", retryable=False) from error
    async with _parent(options, archive, folder.parent) as parent:
        for digest in options.earlier:
            likeness = await _likeness(own, digest, parent, options=options, archive=archive, work=folder.parent)
            if likeness is not None and likeness.highest >= NEAR:
                raise NearCopy(
                    f"what was delivered is nearly {digest}, which was reported before it: the cosine of what both add "
                    f"to their parent is {likeness.whole:.4f}, and {likeness.median:.4f} in the middle one of "
                    f"{likeness.modules} modules; two trainings stay below {NEAR}."
                )


@asynccontextmanager
async def _parent(options: argparse.Namespace, archive: Archive, work: Path) -> AsyncIterator[Adapter | None]:
    if options.parent_digest is None:
        yield None
        return
    uri = options.parent_uri or join(archive.uri, names.digest_hex(options.parent_digest))
    try:
        async with _fetched(uri, options.parent_digest, archive, work) as folder:
            yield await asyncio.to_thread(Adapter, folder)
    except StoreError as error:
        raise StoreFailed(
            f"the version that the task began from can't be had: {error.reason}: {error}", retryable=error.retryable
        ) from error


async def _likeness(
    own: Adapter, digest: str, parent: Adapter | None, *, options: argparse.Namespace, archive: Archive, work: Path
) -> Likeness | None:
    """Return how alike an earlier version is; None where it can't be compared."""
    try:
        if (there := _delivered(options.delivered, digest, pvc_dir=archive.pvc_dir)) is not None:
            return await asyncio.to_thread(lambda: compare(own, _looked_at(there), parent))
        uri = join(archive.uri, names.digest_hex(digest))
        if await _is_there(uri, archive):
            async with _fetched(uri, digest, archive, work) as folder:
                return await asyncio.to_thread(lambda: compare(own, Adapter(folder), parent))
    except StoreError as error:
        if error.retryable:
            raise StoreFailed(f"{error.reason}: {error}", retryable=True) from error
        log.warning("%s is no sound adapter, so it is nobody's work: %s", digest, error)
        return None
    except OSError as error:
        raise StoreFailed(f"what was delivered before can't be read: {error}", retryable=True) from error
    log.warning("%s is not there any more, so nothing is compared with it", digest)
    return None


def _looked_at(folder: Path) -> Adapter:
    """Return what another miner delivered, which nobody may have looked at yet. Raises StoreError, OSError."""
    check_adapter(folder)
    return Adapter(folder)


def _delivered(uri: str, digest: str, *, pvc_dir: Path | None) -> Path | None:
    """Return where another task's miner delivered a version, of the folder that this one's task has its own in."""
    own = local_folder(uri, pvc_dir=pvc_dir)
    if own is None:
        return None
    found = own.parent.parent.glob(f"*/{names.digest_hex(digest)}/{WEIGHTS_FILE}")
    return next((each.parent for each in found), None)


async def _is_there(uri: str, archive: Archive) -> bool:
    async def look() -> int | None:
        try:
            return await open_store(uri, limits=archive.limits, pvc_dir=archive.pvc_dir).size(MANIFEST_FILE)
        except FolderNotFound:
            return None

    return await archive.patiently(look) is not None


@asynccontextmanager
async def _fetched(uri: str, digest: str, archive: Archive, work: Path) -> AsyncIterator[Path]:
    """Give the folder with a version that was fetched, until it was looked at. Raises StoreError."""
    folder = work / f"beside-{names.digest_hex(digest)}"

    async def get() -> AdapterManifest:
        return await fetch_adapter(uri, digest, folder, limits=archive.limits, pvc_dir=archive.pvc_dir)

    await archive.patiently(get)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)

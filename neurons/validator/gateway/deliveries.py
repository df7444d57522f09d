"""Adapters that miners deliver for their tasks: file by file, each held against its manifest before it is kept.

    <store>/<task>/<64 hex>/manifest.json   first: by it the others are known
    <store>/<task>/<64 hex>/<file>          of exactly the size and the digest that it says

What lies here serves nobody: an examination takes it from here, looks at it as at any foreign adapter, and brings it to
the twin's own folder (`neurons.examiner.adopting`). A task's miner can put nothing beside its own task's folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import shutil
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bettertherapy_api import names
from bettertherapy_api.manifest import MANIFEST_FILE, AdapterManifest, FileEntry, manifest_digest
from neurons.store import FolderNotFound, Location, StoreError, join, local_folder, open_store, parse_manifest
from neurons.store.errors import translated

MOST_BYTES: Final = 1024 * 1024 * 1024
"""Of one adapter: of rank 64 on a model of 70 billion parameters it has less."""
MOST_MANIFEST: Final = 4 * 1024 * 1024
MOST_VERSIONS: Final = 3
"""Of one task: a trainer that begins anew may make another one."""
_MOST_OBJECTS: Final = 1000


class NotTaken(Exception):  # noqa: N818 - said of a file
    """A file isn't kept, and won't be another time; the message is a sentence."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a file."""

    adapter: str
    missing: tuple[str, ...]
    """Files of the adapter that are still to come."""


class Deliveries:
    """What miners delivered, in a folder that nothing else is in."""

    def __init__(self, store: str, *, pvc_dir: Path | None = None, most_bytes: int = MOST_BYTES) -> None:
        self._store, self._pvc_dir, self._most_bytes = store, pvc_dir, most_bytes

    async def put_manifest(self, task: str, data: bytes, *, parent: str | None) -> Taken:
        """Keep an adapter's manifest; `parent`: the version that the task began from. Raises NotTaken, StoreError.

        A digest is of the manifest, and that names its task's run: an adapter is one task's, and no other's can be
        delivered for it.
        """
        digest = manifest_digest(data)
        manifest = _parsed(data)
        if manifest.lineage.run != f"task-{task}":
            raise NotTaken(f"The adapter was made for another task: its manifest names the run {manifest.lineage.run}.")
        if manifest.lineage.parent_digest != parent:
            raise NotTaken("The adapter was not made from the version that the task begins from.")
        size = sum(entry.size for entry in manifest.files)
        if size > self._most_bytes:
            raise NotTaken(f"The adapter has {size} bytes, and at most {self._most_bytes} are taken.")
        if len({entry.path for entry in manifest.files}) < len(manifest.files):
            raise NotTaken("The manifest names a file twice.")
        folder = open_store(join(self._store, task), create=True, pvc_dir=self._pvc_dir)
        paths = [str(each["path"]) for each in await folder.listing(at_most=_MOST_OBJECTS)]
        there = {path.partition("/")[0] for path in paths if "/" in path}
        if names.digest_hex(digest) not in there and len(there) >= MOST_VERSIONS:
            raise NotTaken(f"{len(there)} versions were delivered for the task already: no more are taken.")
        location = self._location(task, digest, create=True)
        if await location.size(MANIFEST_FILE) != len(data):
            await location.put(MANIFEST_FILE, data)
        return Taken(digest, await self._missing(location, manifest))

    async def put_file(self, task: str, adapter: str, name: str, content: AsyncIterator[bytes]) -> Taken:
        """Keep one of the files that the manifest names. Raises NotTaken, StoreError.

        Nothing is written in its place before it is there as a whole and is what it should be.
        """
        if not names.is_digest(adapter):
            raise NotTaken("Name the adapter by its digest.")
        try:
            location = self._location(task, adapter)
        except FolderNotFound:
            raise NotTaken("The adapter's manifest comes first, and it isn't here.") from None
        data = await location.read(MANIFEST_FILE, at_most=MOST_MANIFEST)
        if data is None or manifest_digest(data) != adapter:
            raise NotTaken("The adapter's manifest comes first, and it isn't here.")
        manifest = _parsed(data)
        entry = next((each for each in manifest.files if each.path == name), None)
        if entry is None:
            raise NotTaken("The adapter's manifest names no such file.")
        if await location.size(name) != entry.size:
            with tempfile.NamedTemporaryFile(dir=self._scratch(location), prefix=".part-") as part:
                await _received(content, entry, Path(part.name))
                await location.put(name, Path(part.name))
        return Taken(adapter, await self._missing(location, manifest))

    async def has(self, task: str, adapter: str) -> bool:
        """Tell whether a whole adapter was delivered for the task. Raises StoreError."""
        try:
            location = self._location(task, adapter)
        except FolderNotFound:
            return False
        data = await location.read(MANIFEST_FILE, at_most=MOST_MANIFEST)
        if data is None or manifest_digest(data) != adapter:
            return False
        return not await self._missing(location, _parsed(data))

    async def tasks(self) -> list[str]:
        """Return the tasks that something was delivered for. Raises StoreError."""
        return await asyncio.to_thread(_folders, self._store, self._pvc_dir)

    async def remove(self, task: str) -> None:
        """Remove all that was delivered for a task; again, where that was cut off. Raises StoreError."""
        await asyncio.to_thread(_removed, join(self._store, task), self._pvc_dir)

    def _location(self, task: str, adapter: str, *, create: bool = False) -> Location:
        uri = join(self._store, task, names.digest_hex(adapter))
        return open_store(uri, create=create, pvc_dir=self._pvc_dir)

    def _scratch(self, location: Location) -> Path | None:
        """Return where a file is put together: on the claim, since a pod's own /tmp holds no adapter."""
        return location.folder.parent if location.folder is not None else None

    async def _missing(self, location: Location, manifest: AdapterManifest) -> tuple[str, ...]:
        sizes = [(entry, await location.size(entry.path)) for entry in manifest.files]
        return tuple(entry.path for entry, size in sizes if size != entry.size)


def _folders(uri: str, pvc_dir: Path | None) -> list[str]:
    folder = local_folder(uri, pvc_dir=pvc_dir)
    with translated(doing="looking what was delivered", uri=uri):
        if folder is None or not folder.is_dir():
            return []
        return sorted(each.name for each in folder.iterdir() if each.is_dir() and not each.is_symlink())


def _removed(uri: str, pvc_dir: Path | None) -> None:
    folder = local_folder(uri, pvc_dir=pvc_dir)
    if folder is None:
        return
    with translated(doing="removing what was delivered", uri=uri), contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)


def _parsed(data: bytes) -> AdapterManifest:
    try:
        return parse_manifest(data, uri="what is delivered")
    except StoreError as error:
        raise NotTaken(f"The manifest can't be read: {error}") from None


async def _received(content: AsyncIterator[bytes], entry: FileEntry, target: Path) -> None:
    """Write what comes into a file, and no more than there should be. Raises NotTaken."""
    hasher, size = hashlib.sha256(), 0
    with target.open("wb") as file:
        async for chunk in content:
            size += len(chunk)
            if size > entry.size:
                raise NotTaken(f"The file has more than the {entry.size} bytes that its manifest says.")
            hasher.update(chunk)
            await asyncio.to_thread(file.write, chunk)
    if size != entry.size or f"sha256:{hasher.hexdigest()}" != entry.digest:
        raise NotTaken("The file is not the one that its manifest names: it was changed, or cut off.")

"""Reading, fetching and publishing adapters by digest.

An adapter is published files first and manifest.json last, into a folder named after its digest, and never changed:
who sees a manifest sees a whole adapter, and a publisher that dies in the middle leaves nothing that anyone reads.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import BinaryIO, Final

from bettertherapy_api import names
from bettertherapy_api.manifest import MANIFEST_FILE, AdapterManifest, FileEntry, manifest_digest
from neurons.store.activity import in_thread, to_the_end
from neurons.store.checks import check_adapter
from neurons.store.errors import (
    ArtifactNotFound,
    DigestMismatch,
    ManifestInvalid,
    StoreError,
    StoreUnreachable,
    translated,
)
from neurons.store.hashing import file_digest
from neurons.store.locations import DEFAULT_LIMITS, Limits, Location, join, open_store
from neurons.store.lora_config import CONFIG_FILE
from neurons.store.lora_tensors import BaseModules
from neurons.store.manifests import MAX_MANIFEST_BYTES, parse_manifest
from neurons.store.space import Reservation, reserved, taken

PUSH_COMMAND: Final = "kubectl twin adapter push"
_PARTIAL_SUFFIX: Final = ".part"
_BLOCK_BYTES: Final = 1024 * 1024
_filling: Final[set[Path]] = set()
"""Folders that fetches of this process fill now."""
_PUSH_AGAIN: Final = "push the adapter again"
_MAKE_ANEW: Final = f"remove {MANIFEST_FILE} from the folder, and a push makes a new one"
"""For who has the adapter's folder: it was trained further where a manifest of before lies."""


async def read_manifest(
    uri: str, *, limits: Limits = DEFAULT_LIMITS, pvc_dir: Path | None = None
) -> tuple[AdapterManifest, bytes]:
    """Return the manifest of the adapter at `uri`, and its very bytes (the digest is theirs).

    Raises ManifestInvalid for a PEFT folder that was copied there without one.
    """
    data = await _read_manifest_bytes(open_store(uri, limits=limits, pvc_dir=pvc_dir))
    return parse_manifest(data, uri=uri), data


async def fetch_adapter(
    uri: str,
    digest: str,
    destination: Path,
    *,
    limits: Limits = DEFAULT_LIMITS,
    pvc_dir: Path | None = None,
    base: BaseModules | None = None,
    volume: Path | None = None,
    at_most: int | None = None,
) -> AdapterManifest:
    """Bring the adapter `digest` from `uri` to the folder `destination` and return its manifest.

    The folder appears whole and checked, or not at all: files are streamed to a folder beside it, hashed on the way,
    looked at as `check_adapter` does (with `base`, against the base model), and that folder is renamed. One that broke
    off or was cancelled stays, and the next attempt begins where it ended; every byte is hashed all the same. When the
    destination holds the adapter already, nothing is transferred; when it holds something damaged, it is replaced. One
    caller at a time for a destination. `volume` is the folder whose fetches share its room, of which all together may
    take `at_most` bytes. Raises StoreError.
    """
    if (present := await to_the_end(_verified_manifest, destination, digest)) is not None:
        await to_the_end(_check, destination, present, uri, base)
        return present
    with translated(doing="opening it", uri=uri):
        async with asyncio.timeout(limits.call):
            location = await in_thread(open_store, uri, limits=limits, pvc_dir=pvc_dir)
    data = await _read_manifest_bytes(location)
    if (actual := manifest_digest(data)) != digest:
        raise DigestMismatch(
            f"{uri}: its digest is {actual}, expected {digest}. Set adapter.digest to the digest of what you pushed, "
            "or the URI to where that was pushed."
        )
    manifest = parse_manifest(data, uri=uri)
    with ExitStack() as stack:
        with translated(doing="making room for the adapter", uri=str(destination)):
            await to_the_end(_clear_way, destination)
            size = _missing(destination, manifest)
            room = stack.enter_context(
                reserved(
                    volume or destination.parent,
                    size,
                    at_most=at_most,
                    evict=lambda lacking: _evict(volume or destination.parent, lacking, keep=_partial_of(destination)),
                )
            )
            partial = _make_partial(destination, manifest)
            _filling.add(partial)
            stack.callback(_filling.discard, partial)
        try:
            for entry in manifest.files:
                await _fetch_file(location, entry, partial / entry.path, room)
            await to_the_end(_check, partial, manifest, uri, base)
            with translated(doing="putting the adapter in place", uri=str(destination)):
                await to_the_end(_put_in_place, partial, destination, data)
        except StoreError as error:
            # What came goes on from there at the next attempt; but not where it is wrong, or in the way.
            if not isinstance(error, StoreUnreachable):
                shutil.rmtree(partial, ignore_errors=True)
            raise
    return manifest


async def publish_adapter(
    folder: Path,
    store_root_uri: str,
    twin: str,
    manifest: AdapterManifest,
    *,
    limits: Limits = DEFAULT_LIMITS,
    pvc_dir: Path | None = None,
) -> str:
    """Copy the adapter in `folder` to `<store_root_uri>/<twin>/<hex digest>/` and return that URI.

    Publishing the same adapter again reads what is stored, and writes nothing unless that is damaged. Raises
    DigestMismatch when the files in `folder` are not those of the manifest, and StoreError for what the store says.
    """
    data = manifest.to_bytes()
    digest = manifest_digest(data)
    uri = join(store_root_uri, twin, names.digest_hex(digest))
    with translated(doing="checking the files to publish", uri=str(folder)):
        for entry in manifest.files:
            await asyncio.to_thread(_check_file, folder / entry.path, entry, str(folder), _MAKE_ANEW)
    location = open_store(uri, create=True, limits=limits, pvc_dir=pvc_dir)
    if await _is_published(location, manifest, data):
        return uri
    for entry in manifest.files:
        await location.put(entry.path, folder / entry.path)
    await location.put(MANIFEST_FILE, data)
    return uri


def clean_leftovers(root: Path) -> int:
    """Remove what fetches that were killed left below `root` and return how many; call it before the first fetch."""
    leftovers = [path for path in root.rglob(f".*{_PARTIAL_SUFFIX}") if path.is_dir()] if root.is_dir() else []
    for path in leftovers:
        shutil.rmtree(path, ignore_errors=True)
    return len(leftovers)


def verify_folder(folder: Path, digest: str) -> AdapterManifest:
    """Check a local adapter folder against its digest, every byte of it; blocks. Raises StoreError."""
    with translated(doing="checking it", uri=str(folder)):
        data = (folder / MANIFEST_FILE).read_bytes()
        if (actual := manifest_digest(data)) != digest:
            raise DigestMismatch(f"{folder}: its digest is {actual}, expected {digest}. Fetch it again.")
        manifest = parse_manifest(data, uri=str(folder))
        for entry in manifest.files:
            _check_file(folder / entry.path, entry, str(folder))
    return manifest


async def _read_manifest_bytes(location: Location) -> bytes:
    try:
        result = await location.get(MANIFEST_FILE)
    except ArtifactNotFound as error:
        if await location.size(CONFIG_FILE) is not None:
            raise ManifestInvalid(
                f"{location.uri}: a PEFT folder without {MANIFEST_FILE}, so nothing says what its bytes should be. Run "
                f"`{PUSH_COMMAND}`, which makes one, and use the URI and the digest that it prints.",
                retryable=True,  # a push that has not finished looks the same
            ) from error
        raise ArtifactNotFound(
            f"{location.uri}: there is no {MANIFEST_FILE}. Check adapter.uri, or push the adapter with "
            f"`{PUSH_COMMAND}`."
        ) from error
    if result.meta["size"] > MAX_MANIFEST_BYTES:
        raise ManifestInvalid(
            f"{location.uri}: {MANIFEST_FILE} has {result.meta['size']} bytes, at most {MAX_MANIFEST_BYTES} are read. "
            "Push the adapter again."
        )
    return b"".join([chunk async for chunk in location.chunks(result, name=MANIFEST_FILE)])


async def _is_published(location: Location, manifest: AdapterManifest, data: bytes) -> bool:
    try:
        present = await _read_manifest_bytes(location)
    except (ArtifactNotFound, ManifestInvalid):
        return False
    if present != data:
        raise DigestMismatch(
            f"{location.uri}: holds another adapter's {MANIFEST_FILE}. Someone changed the store; remove that folder."
        )
    for entry in manifest.files:
        if await location.size(entry.path) != entry.size or not await _is_stored(location, entry):
            return False
    return True


async def _is_stored(location: Location, entry: FileEntry) -> bool:
    """Tell whether the store holds the very bytes of a file, by reading them."""
    hasher = hashlib.sha256()
    try:
        result = await location.get(entry.path)
        async for chunk in location.chunks(result, name=entry.path):
            hasher.update(chunk)
    except ArtifactNotFound:
        return False
    return f"sha256:{hasher.hexdigest()}" == entry.digest


async def _fetch_file(location: Location, entry: FileEntry, target: Path, room: Reservation) -> None:
    with translated(doing=f"looking at what is there of {entry.path}", uri=str(target)):
        begun = await to_the_end(_begun, target, entry)
    if begun and begun == entry.size:
        return
    if begun:
        with suppress(DigestMismatch):  # what came before was wrong
            if await _fetch_rest(location, entry, target, room, start=begun):
                return
        room.lacks(room.left + await to_the_end(_remove, target))
    await _fetch_rest(location, entry, target, room, start=0)


def _remove(target: Path) -> int:
    """Remove a file and return the bytes that it had."""
    size = target.stat().st_size
    target.unlink()
    return size


def _begun(target: Path, entry: FileEntry) -> int:
    """Return how many bytes of the file are there to go on from; all of them only if they are the right ones."""
    size = target.stat().st_size if target.is_file() else 0
    if size > entry.size or (size == entry.size and size and file_digest(target)[0] != entry.digest):
        target.unlink()
        return 0
    return size


async def _fetch_rest(location: Location, entry: FileEntry, target: Path, room: Reservation, *, start: int) -> bool:
    """Write a file from byte `start` on; returns False where the store gives it as a whole only, or it is shorter."""
    try:
        if start:
            result = await location.get_rest(entry.path, start=start)
        else:
            result = await location.get(entry.path)
    except ArtifactNotFound as error:
        raise DigestMismatch(
            f"{location.uri}: {entry.path} is listed in {MANIFEST_FILE} but is not there. Push the adapter again."
        ) from error
    if result is None:
        return False
    _check_size(result.meta["size"], entry, location.uri)
    hasher = hashlib.sha256()
    size = start
    with translated(doing=f"writing {entry.path}", uri=str(target)):
        file = await to_the_end(_go_on, target, hasher, start)
        try:
            async for chunk in location.chunks(result, name=entry.path):
                size += len(chunk)
                _check_growth(size, entry, location.uri)
                await to_the_end(_append, file, hasher, chunk)
                room.wrote(len(chunk))
        finally:
            file.close()
    if size != entry.size:
        raise StoreUnreachable(
            f"{location.uri}: the transfer of {entry.path} broke off after {size} of {entry.size} bytes. Check the "
            "store."
        )
    _check_digest(f"sha256:{hasher.hexdigest()}", entry, location.uri)
    return True


def _go_on(path: Path, hasher: hashlib._Hash, start: int) -> BinaryIO:
    """Open the file where it ends, with what is there hashed."""
    file = path.open("r+b" if start else "xb")
    try:
        left = start
        while left and (block := file.read(min(left, _BLOCK_BYTES))):
            hasher.update(block)
            left -= len(block)
    except BaseException:
        file.close()
        raise
    return file


def _append(file: BinaryIO, hasher: hashlib._Hash, chunk: bytes) -> None:
    hasher.update(chunk)
    file.write(chunk)


def _check_growth(size: int, entry: FileEntry, where: str) -> None:
    if size > entry.size:
        _check_size(size, entry, where)


def _check_size(size: int, entry: FileEntry, where: str, remedy: str = _PUSH_AGAIN) -> None:
    if size != entry.size:
        raise DigestMismatch(
            f"{where}: {entry.path} has {size} bytes, its manifest says {entry.size}. It is truncated or changed; "
            f"{remedy}."
        )


def _check_digest(digest: str, entry: FileEntry, where: str, remedy: str = _PUSH_AGAIN) -> None:
    if digest != entry.digest:
        raise DigestMismatch(
            f"{where}: {entry.path} has digest {digest}, its manifest says {entry.digest}. It was changed; {remedy}."
        )


def _check_file(path: Path, entry: FileEntry, where: str, remedy: str = _PUSH_AGAIN) -> None:
    try:
        digest, size = file_digest(path)
    except FileNotFoundError as error:
        raise DigestMismatch(
            f"{where}: {entry.path} is listed in {MANIFEST_FILE} but is not there; {remedy}."
        ) from error
    _check_size(size, entry, where, remedy)
    _check_digest(digest, entry, where, remedy)


def _verified_manifest(destination: Path, digest: str) -> AdapterManifest | None:
    try:
        return verify_folder(destination, digest)
    except (ArtifactNotFound, DigestMismatch, ManifestInvalid):
        return None


def _check(folder: Path, manifest: AdapterManifest, uri: str, base: BaseModules | None) -> None:
    """Raise what `check_adapter` raises, and ManifestInvalid for a manifest that says another rank."""
    config = check_adapter(folder, base=base, where=uri)
    if config.highest_rank != manifest.rank:
        raise ManifestInvalid(
            f"{uri}: {MANIFEST_FILE} says rank {manifest.rank}, the adapter has rank {config.highest_rank}. Push the "
            "adapter again."
        )


def _clear_way(destination: Path) -> None:
    destination.parent.mkdir(parents=True, exist_ok=True)
    for leftover in destination.parent.glob(f".{destination.name}.?*{_PARTIAL_SUFFIX}"):
        shutil.rmtree(leftover, ignore_errors=True)


def _evict(volume: Path, lacking: int, *, keep: Path) -> None:
    """Remove what fetches left that broke off and that nobody took up again, the oldest first, until enough is free."""
    left = {path for path in volume.rglob(f".*{_PARTIAL_SUFFIX}") if path.is_dir()} - {keep} - _filling
    for path in sorted(left, key=lambda each: each.stat().st_mtime):
        if lacking <= 0:
            return
        lacking -= taken(path)
        shutil.rmtree(path, ignore_errors=True)


def _missing(destination: Path, manifest: AdapterManifest) -> int:
    """Return how many bytes lack of what an earlier attempt left."""
    partial, total = _partial_of(destination), 0
    for entry in manifest.files:
        path = partial / entry.path
        total += max(0, entry.size - (path.stat().st_size if path.is_file() else 0))
    return total


def _partial_of(destination: Path) -> Path:
    return destination.with_name(f".{destination.name}{_PARTIAL_SUFFIX}")


def _make_partial(destination: Path, manifest: AdapterManifest) -> Path:
    """Return the folder to fill, with what an earlier attempt left of this adapter's files, and nothing else."""
    partial = _partial_of(destination)
    partial.mkdir(exist_ok=True)
    partial.chmod(0o755)  # an engine may run as another user
    names_of_files = {entry.path for entry in manifest.files}
    for path in partial.iterdir():
        if path.name not in names_of_files or path.is_symlink() or not path.is_file():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    return partial


def _put_in_place(partial: Path, destination: Path, data: bytes) -> None:
    (partial / MANIFEST_FILE).write_bytes(data)
    damaged = partial.with_name(f"{partial.name}.old{_PARTIAL_SUFFIX}")
    if destination.exists():
        os.rename(destination, damaged)
    os.rename(partial, destination)
    shutil.rmtree(damaged, ignore_errors=True)

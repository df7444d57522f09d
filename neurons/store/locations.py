"""From a URI to an object store that is ready to read: schemes, credentials, timeouts and bounded retries.

| URI                   | store                               | credentials: the mounted Secret, or the environment |
| --------------------- | ----------------------------------- | --------------------------------------------------- |
| `pvc://claim/path`    | the claim mounted at /mnt/pvc/claim | none                                                |
| `file:///path`        | a folder of this pod                | none                                                |
| `s3://bucket/path`    | Amazon S3 and what speaks like it   | AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,           |
|                       |                                     | AWS_REGION, AWS_ENDPOINT_URL (http:// is allowed)   |
| `gs://bucket/path`    | Google Cloud Storage                | GOOGLE_SERVICE_ACCOUNT_KEY                          |
| `az://container/path` | Azure Blob Storage                  | AZURE_STORAGE_ACCOUNT_NAME, AZURE_STORAGE_ACCOUNT_KEY |

A pod with a cloud identity (IRSA, workload identity) needs no keys.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import stat
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError, PreconditionError
from obstore.store import LocalStore, from_url

from bettertherapy_api import names
from neurons.store.activity import in_thread, moved
from neurons.store.credentials import mounted_credentials
from neurons.store.errors import (
    ArtifactNotFound,
    FolderNotFound,
    ManifestInvalid,
    StoreUnreachable,
    is_about_the_part,
    translated,
)

if TYPE_CHECKING:
    from obstore import GetOptions, GetResult, ObjectMeta
    from obstore.store import ClientConfig, ObjectStore, RetryConfig

CHUNK_BYTES: Final = 1024 * 1024
_REMOTE: Final = ("s3", "gs", "az")
_CLAIM: Final = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Limits:
    """How long to wait for a store, in seconds. The defaults give up within a minute; the caller tries again later."""

    connect: float = 5.0
    read: float = 20.0
    """Longest silence in the middle of an answer."""
    retries: int = 4
    retry: float = 20.0
    """No retry is begun after this long."""
    call: float = 60.0
    """Longest wait for one call, and for one chunk of a stream."""
    transfer: float = 3600.0
    """Longest transfer of one object."""


DEFAULT_LIMITS: Final = Limits()


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file of a local store. It is read in threads that the activity counts: a dead mount ends none of them."""

    path: Path
    meta: Mapping[str, int]
    start: int = 0

    @classmethod
    def at(cls, path: Path, start: int = 0) -> LocalFile:
        """Open and look at a file; blocks. Raises OSError."""
        with open(path, "rb", opener=_regular) as file:
            return cls(path, {"size": os.fstat(file.fileno()).st_size}, start)

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield its bytes from `start` on in pieces of 1 MiB."""
        at = self.start
        while at < self.meta["size"] and (piece := await in_thread(_piece, self.path, at)):
            at += len(piece)
            yield piece


def _regular(path: str, flags: int) -> int:
    """Open a file, and nothing else: a named pipe waits for who writes into it, and with it the thread, for ever."""
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileNotFoundError(errno.ENOENT, "no file of that name", path)
    return descriptor


def _piece(path: Path, at: int) -> bytes:
    # Opened anew each time, so that no thread reads what another closes.
    with open(path, "rb", buffering=0, opener=_regular) as file:
        file.seek(at)
        return file.read(CHUNK_BYTES)


@dataclass(frozen=True, slots=True)
class Location:
    """A folder in a store. Names given to its methods are relative to it, with `/` between parts."""

    uri: str
    store: ObjectStore
    limits: Limits
    folder: Path | None
    """Where the folder is in this pod's file system, for pvc:// and file://."""

    async def get(self, name: str) -> GetResult | LocalFile:
        """Begin to read an object; raises ArtifactNotFound and the rest of the tree."""
        with translated(doing=f"reading {name}", uri=self.uri):
            async with asyncio.timeout(self.limits.call):
                if self.folder is not None:
                    return await in_thread(LocalFile.at, self.folder / name)
                return await obstore.get_async(self.store, name)

    async def get_rest(self, name: str, *, start: int, tag: str | None = None) -> GetResult | LocalFile | None:
        """Begin to read an object from byte `start` on; None where it must be read as a whole.

        That is so when it is no longer the one that had the ETag `tag`, when it ends before `start`, and when the store
        gives no parts of objects.
        """
        with translated(doing=f"reading {name}", uri=self.uri):
            try:
                async with asyncio.timeout(self.limits.call):
                    if self.folder is not None:
                        return await in_thread(LocalFile.at, self.folder / name, start)
                    options: GetOptions = {"range": {"offset": start}}
                    if tag is not None:
                        options["if_match"] = tag
                    return await obstore.get_async(self.store, name, options=options)
            except PreconditionError:
                return None
            except BaseError as error:
                if not is_about_the_part(error):
                    raise
                return None

    async def chunks(self, result: GetResult | LocalFile, *, name: str) -> AsyncIterator[bytes]:
        """Yield an object's bytes in pieces of about 1 MiB, each within the limits."""
        if isinstance(result, LocalFile):
            stream = result.pieces()
        else:
            stream = aiter(result.stream(min_chunk_size=CHUNK_BYTES))
        while True:
            with translated(doing=f"reading {name}", uri=self.uri):
                async with asyncio.timeout(self.limits.call):
                    chunk = await anext(stream, None)
            if chunk is None:
                return
            moved()
            yield bytes(chunk)

    async def size(self, name: str) -> int | None:
        """Return an object's size in bytes, or None when there is none of that name."""
        try:
            with translated(doing=f"looking for {name}", uri=self.uri):
                async with asyncio.timeout(self.limits.call):
                    return (await obstore.head_async(self.store, name))["size"]
        except ArtifactNotFound:
            return None

    async def put(self, name: str, content: bytes | Path) -> None:
        """Write one object as a whole: it appears complete or not at all."""
        with translated(doing=f"writing {name}", uri=self.uri):
            async with asyncio.timeout(self.limits.transfer):
                await obstore.put_async(self.store, name, content)

    async def read(self, name: str, *, at_most: int) -> bytes | None:
        """Return an object's bytes, or None for no such object; raises ManifestInvalid for a larger one."""
        try:
            result = await self.get(name)
        except ArtifactNotFound:
            return None
        if result.meta["size"] > at_most:
            raise ManifestInvalid(
                f"{self.uri}: {name} has {result.meta['size']} bytes, at most {at_most} are read. Remove or split it."
            )
        return b"".join([chunk async for chunk in self.chunks(result, name=name)])

    async def delete(self, name: str) -> None:
        """Delete one object; one that is gone already is deleted."""
        try:
            with translated(doing=f"deleting {name}", uri=self.uri):
                async with asyncio.timeout(self.limits.call):
                    await obstore.delete_async(self.store, name)
        except ArtifactNotFound:
            return

    async def listing(self, *, at_most: int) -> list[ObjectMeta]:
        """Return the objects below the folder, at any depth, the first `at_most` of them.

        In a file system what can't be an object's name, or leads back to a folder above, is left out: one such name
        would hide all others.
        """
        if self.folder is not None:
            with translated(doing="listing it", uri=self.uri):
                async with asyncio.timeout(self.limits.call):
                    return await in_thread(_listed, self.folder, at_most)
        found: list[ObjectMeta] = []
        stream = aiter(obstore.list(self.store, chunk_size=min(at_most, 1000)))
        while len(found) < at_most:
            with translated(doing="listing it", uri=self.uri):
                async with asyncio.timeout(self.limits.call):
                    page = await anext(stream, None)
            if page is None:
                break
            found.extend(page)
        return found[:at_most]


def is_object_name(name: str) -> bool:
    """Tell whether a file's name can be an object's: UTF-8, and nothing that controls a terminal."""
    try:
        name.encode()
    except UnicodeEncodeError:  # Latin-1, as old programs wrote it
        return False
    return name.isprintable() or not any(ord(each) < _FIRST_PRINTABLE or ord(each) == _DELETE for each in name)


_FIRST_PRINTABLE: Final = 0x20
_DELETE: Final = 0x7F
_BEING_WRITTEN: Final = re.compile(r"#\d+$")
"""How the store library calls a file that isn't whole yet."""


def _listed(folder: Path, at_most: int) -> list[ObjectMeta]:
    found: list[ObjectMeta] = []
    above = {os.path.realpath(folder)}

    def fail(error: OSError) -> None:
        raise error

    for here, folders, files in os.walk(folder, followlinks=True, onerror=fail):
        inside = []
        for name in sorted(filter(is_object_name, folders)):
            # Each folder once, so that no link leads round in a ring.
            if (real := os.path.realpath(os.path.join(here, name))) not in above:
                above.add(real)
                inside.append(name)
        folders[:] = inside
        for name in sorted(files):
            path = Path(here, name)
            if not is_object_name(name) or _BEING_WRITTEN.search(name):
                continue
            try:
                state = path.stat()
            except OSError:  # gone since, or a link to nothing
                continue
            if not stat.S_ISREG(state.st_mode):
                continue
            modified = datetime.fromtimestamp(state.st_mtime, tz=UTC)
            meta = {"path": path.relative_to(folder).as_posix(), "size": state.st_size, "last_modified": modified}
            found.append(cast("ObjectMeta", {**meta, "e_tag": None, "version": None}))
            if len(found) >= at_most:
                return found
    return found


def local_folder(uri: str, *, pvc_dir: Path | None = None) -> Path | None:
    """Return where a pvc:// or file:// URI is in this pod's file system; None for a remote one.

    Raises ArtifactNotFound for a URI that is none of ours.
    """
    scheme, host, parts = _parse(uri)
    if scheme == "pvc":
        if not _CLAIM.fullmatch(host):
            raise ArtifactNotFound(f"{uri}: expected pvc://<claim>/<path> with the name of a PersistentVolumeClaim.")
        return Path(pvc_dir or names.PVC_DIR, host, *parts)
    if scheme == "file":
        if host:
            raise ArtifactNotFound(f"{uri}: a file URI has three slashes: file:///{host}/{'/'.join(parts)}")
        return Path("/", *parts)
    return None


def open_store(
    uri: str, *, create: bool = False, limits: Limits = DEFAULT_LIMITS, pvc_dir: Path | None = None
) -> Location:
    """Open the folder that `uri` names, with the credentials of this moment; contacts nobody yet.

    `create` makes the folder when it is local. Raises ArtifactNotFound for a URI of no known scheme or a claim that
    isn't mounted, FolderNotFound for a local folder that is not there, StoreUnreachable for an unusable endpoint.
    """
    folder = local_folder(uri, pvc_dir=pvc_dir)
    if folder is None:
        return Location(uri=uri, store=_open_remote(uri, limits), limits=limits, folder=None)
    _check_mounted(uri, folder, pvc_dir=pvc_dir)
    with translated(doing="opening it", uri=uri):
        if create:
            folder.mkdir(parents=True, exist_ok=True)
        elif not folder.is_dir():
            raise FolderNotFound(f"{uri}: there is no folder {folder} in this pod. Check the URI and the push.")
        store = LocalStore(folder)
    return Location(uri=uri, store=store, limits=limits, folder=folder)


def join(uri: str, *parts: str) -> str:
    """Return the URI of something below `uri`."""
    return "/".join([uri.rstrip("/"), *parts])


def _parse(uri: str) -> tuple[str, str, list[str]]:
    split = urlsplit(uri)
    parts = [part for part in split.path.split("/") if part]
    if split.scheme not in ("pvc", "file", *_REMOTE) or (not split.netloc and split.scheme != "file"):
        raise ArtifactNotFound(
            f"{uri!r} is no store URI: expected pvc://claim/path, file:///path, s3://bucket/path, gs://bucket/path or "
            "az://container/path."
        )
    if ".." in parts or split.query or split.fragment or "@" in split.netloc:
        raise ArtifactNotFound(
            f"{uri!r}: a store URI holds no '..', no query and no credentials. Write the plain path."
        )
    return split.scheme, split.netloc, parts


def _check_mounted(uri: str, folder: Path, *, pvc_dir: Path | None) -> None:
    if not uri.startswith("pvc:"):
        return
    root = Path(pvc_dir or names.PVC_DIR)
    mount = root / folder.relative_to(root).parts[0]
    if not mount.is_dir():
        raise ArtifactNotFound(
            f"{uri}: claim {mount.name!r} is not mounted in this pod. Pods mount the claims of their pool's "
            "store.uri and baseModel.uri; use one of these."
        )


def _open_remote(uri: str, limits: Limits) -> ObjectStore:
    mounted = mounted_credentials(uri)
    client: ClientConfig = {
        "connect_timeout": timedelta(seconds=limits.connect),
        "read_timeout": timedelta(seconds=limits.read),
        "timeout": timedelta(seconds=limits.transfer),
        "allow_http": _plain_http_asked_for(uri, mounted),
    }
    retry: RetryConfig = {
        "max_retries": limits.retries,
        "retry_timeout": timedelta(seconds=limits.retry),
        "backoff": {
            "init_backoff": timedelta(seconds=0.2),
            "max_backoff": timedelta(seconds=3),
            "base": 2,
        },
    }
    credentials: dict[str, Any] = {name.lower(): value for name, value in mounted.items()}
    with translated(doing="opening it", uri=uri):
        return from_url(uri, client_options=client, retry_config=retry, **credentials)


def _plain_http_asked_for(uri: str, mounted: Mapping[str, str]) -> bool:
    """Tell whether the endpoint is plain HTTP; checks it, since obstore aborts the process on one that is no URL."""
    endpoints = {"s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"), "az": ("AZURE_STORAGE_ENDPOINT",)}
    for variable in endpoints.get(uri.partition("://")[0], ()):
        value = mounted.get(variable) or os.environ.get(variable)
        if not value:
            continue
        split = urlsplit(value)
        if split.scheme not in ("http", "https") or not split.hostname:
            raise StoreUnreachable(
                f"{uri}: {variable} is {value!r}, which is no URL. Write http://host:port or https://host in the "
                "pool's store Secret."
            )
        return split.scheme == "http"
    return False

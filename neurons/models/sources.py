"""Where a base model's files come from: an object store or the Hugging Face hub, behind one small interface."""

from __future__ import annotations

import asyncio
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol

from neurons.models.progress import Begun, Progress
from neurons.store import ArtifactNotFound, Limits, StoreUnreachable, join, open_store
from neurons.store.errors import translated
from neurons.store.hashing import file_digest
from neurons.store.hub import SCHEME, SECONDS, hub_errors, parse_hub_uri
from neurons.store.locations import LocalFile, Location

if TYPE_CHECKING:
    from obstore import GetResult

_MAX_FILES: Final = 10_000
_AT_ONCE: Final = 4
_SYNC_BYTES: Final = 64 * 1024 * 1024
"""After so much a download that is killed goes on from there."""
_OTHER_FORMATS: Final = (".bin", ".pt", ".pth", ".h5", ".msgpack", ".onnx", ".ot", ".gguf")
# A chunk of a large model may take its time; giving up is left to the silence between chunks.
_LIMITS: Final = Limits(transfer=6 * 3600.0)


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file to fetch."""

    path: str
    size: int
    tag: str | None = None
    """Its ETag, by which a download that broke off knows that it may go on."""


class Source(Protocol):
    """Something that holds the files of one base model."""

    async def files(self) -> list[SourceFile]:
        """Return the files to fetch. Raises StoreError."""
        ...

    async def download(self, files: list[SourceFile], folder: Path) -> None:
        """Write these files below `folder`, going on from what an earlier attempt left there. Raises StoreError."""
        ...


def open_source(uri: str, *, revision: str | None) -> Source:
    """Return the source that a remote URI names; contacts nobody yet. Raises ArtifactNotFound for an unknown scheme."""
    if not uri.startswith(SCHEME):
        return _ObjectSource(open_store(uri, limits=_LIMITS))
    at = parse_hub_uri(uri)
    return _HubSource(uri=uri, repo=at.repo, revision=at.revision or revision or "main")


def wanted(files: list[SourceFile]) -> list[SourceFile]:
    """Leave out hidden files and, where there are safetensors, the same weights in other formats."""
    visible = [file for file in files if not any(part.startswith(".") for part in PurePosixPath(file.path).parts)]
    if not any(file.path.endswith(".safetensors") for file in visible):
        return visible
    top = any("/" not in file.path and file.path.endswith(".safetensors") for file in visible)
    return [
        file
        for file in visible
        if not file.path.endswith(_OTHER_FORMATS)
        and not (top and "/" in file.path and file.path.endswith(".safetensors"))
    ]


def without_markers(files: list[SourceFile]) -> list[SourceFile]:
    """Leave out the empty objects that consoles and file browsers make for folders: no file can have their name."""
    folders = {str(parent) for file in files for parent in PurePosixPath(file.path).parents}
    return [
        file
        for file in files
        if file.size or not (file.path in ("", ".") or file.path.endswith("/") or file.path in folders)
    ]


@dataclass(frozen=True, slots=True)
class _ObjectSource:
    location: Location

    async def files(self) -> list[SourceFile]:
        listed = await self.location.listing(at_most=_MAX_FILES)
        if not listed:
            raise ArtifactNotFound(f"{self.location.uri}: nothing is there. Check baseModel.uri.")
        return without_markers([SourceFile(path=meta["path"], size=meta["size"], tag=meta["e_tag"]) for meta in listed])

    async def download(self, files: list[SourceFile], folder: Path) -> None:
        turns = asyncio.Semaphore(_AT_ONCE)
        progress = await asyncio.to_thread(Progress.of, folder)

        async def fetch(file: SourceFile) -> None:
            async with turns:
                await self._fetch(file, folder / file.path, progress)

        try:
            async with asyncio.TaskGroup() as group:
                for file in files:
                    group.create_task(fetch(file))
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from failures

    async def _fetch(self, file: SourceFile, target: Path, progress: Progress) -> None:
        begun = progress.begun(file.path, tag=file.tag, size=file.size)
        if begun is not None and begun.synced == file.size:
            return
        result: GetResult | LocalFile | None = None
        if begun is not None:
            result = await self.location.get_rest(file.path, start=begun.synced, tag=begun.tag)
        size = begun.synced if begun is not None and result is not None else 0
        if result is None:  # nothing is there to go on from, or no going on
            try:
                result = await self.location.get(file.path)
            except ArtifactNotFound:
                if file.size:
                    raise
                return  # a folder's marker: its name ends with a slash, which listings don't show
        uri = join(self.location.uri, file.path)
        if result.meta["size"] != file.size:
            raise StoreUnreachable(
                f"{uri}: it had {file.size} bytes when the model's files were listed, and has {result.meta['size']} "
                "now. All files are listed again at the next attempt."
            )
        tag = None if isinstance(result, LocalFile) else _strong(result.meta["e_tag"])
        with translated(doing=f"writing {file.path}", uri=str(target)):
            target.parent.mkdir(parents=True, exist_ok=True)
            if not size:
                progress.note(file.path, None)
            opened: BinaryIO = await asyncio.to_thread(target.open, "r+b" if size else "wb")
            try:
                opened.truncate(size)
                opened.seek(size)
                synced = size
                async for chunk in self.location.chunks(result, name=file.path):
                    size += len(chunk)
                    await asyncio.to_thread(opened.write, chunk)
                    if tag is not None and size - synced >= _SYNC_BYTES:
                        await asyncio.to_thread(_sync, opened)
                        progress.note(file.path, Begun(tag=tag, size=file.size, synced=size))
                        synced = size
                if tag is not None and size == file.size:
                    await asyncio.to_thread(_sync, opened)
                    progress.note(file.path, Begun(tag=tag, size=file.size, synced=size))
            finally:
                opened.close()
        if size != file.size:
            raise StoreUnreachable(f"{uri}: the transfer broke off after {size} of {file.size} bytes. Check the store.")


def _strong(tag: str | None) -> str | None:
    """Return an ETag that only the same bytes have; None of a weak one, and of none."""
    return tag if tag and not tag.startswith("W/") else None


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


@dataclass(slots=True)
class _HubSource:
    uri: str
    repo: str
    revision: str
    commit: str | None = None
    """What the revision was when the files were listed: these files are downloaded, even if a branch moves on."""
    kept_digests: dict[str, str] = field(default_factory=dict)
    """sha256 of large files, as the hub keeps it."""

    async def files(self) -> list[SourceFile]:
        return await asyncio.to_thread(self._list)

    async def download(self, files: list[SourceFile], folder: Path) -> None:
        await asyncio.to_thread(self._download, [file.path for file in files], folder)

    def _list(self) -> list[SourceFile]:
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        from huggingface_hub import HfApi  # noqa: PLC0415 - only hf:// needs it

        with hub_errors(self.uri, self.revision):
            info = HfApi().model_info(self.repo, revision=self.revision, files_metadata=True, timeout=SECONDS)
        self.commit = info.sha
        siblings = info.siblings or []
        self.kept_digests = {file.rfilename: f"sha256:{file.lfs['sha256']}" for file in siblings if file.lfs}
        return [SourceFile(path=file.rfilename, size=file.size or 0) for file in siblings]

    def _download(self, paths: list[str], folder: Path) -> None:
        from huggingface_hub import snapshot_download  # noqa: PLC0415

        with hub_errors(self.uri, self.revision):
            snapshot_download(
                self.repo,
                revision=self.commit or self.revision,
                local_dir=folder,
                allow_patterns=paths,
                max_workers=_AT_ONCE,
            )
        for path in paths:
            kept = self.kept_digests.get(path)
            if kept is not None and file_digest(folder / path)[0] != kept:
                shutil.rmtree(folder / ".cache", ignore_errors=True)
                (folder / path).unlink()
                raise StoreUnreachable(f"{self.uri}: {path} arrived damaged. It is fetched again at the next attempt.")
        shutil.rmtree(folder / ".cache", ignore_errors=True)  # where the client keeps how far it came

from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
from collections import namedtuple
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bettertherapy_api.manifest import AdapterManifest, manifest_digest
from bettertherapy_api.report import FailureReason
from neurons.store import (
    AccessDenied,
    ArtifactNotFound,
    DigestMismatch,
    ManifestInvalid,
    NoSpace,
    StoreError,
    StoreUnreachable,
    adapters,
    clean_leftovers,
    fetch_adapter,
    file_digest,
    publish_adapter,
    read_manifest,
    verify_folder,
)
from neurons.store.locations import Location


def artifact(uri: str) -> Path:
    return Path(uri.removeprefix("file://"))


def nothing_left(destination: Path) -> bool:
    return not destination.exists() and not list(destination.parent.glob(".*.part"))


async def test_a_fetched_adapter_has_the_published_bytes(
    published: str, digest: str, tmp_path: Path, peft_folder: Path
) -> None:
    destination = tmp_path / "pod" / "dr-who" / "abc"
    await fetch_adapter(published, digest, destination)
    weights = "adapter_model.safetensors"
    assert file_digest(destination / weights) == file_digest(peft_folder / weights)
    assert manifest_digest((destination / "manifest.json").read_bytes()) == digest


async def test_the_manifest_is_returned(published: str, digest: str, manifest: AdapterManifest, tmp_path: Path) -> None:
    assert await fetch_adapter(published, digest, tmp_path / "a") == manifest


async def test_an_engine_of_another_user_may_read_the_adapter(published: str, digest: str, tmp_path: Path) -> None:
    await fetch_adapter(published, digest, tmp_path / "a")
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o755


async def test_fetching_again_needs_no_store(published: str, digest: str, tmp_path: Path) -> None:
    await fetch_adapter(published, digest, tmp_path / "a")
    shutil.rmtree(artifact(published))
    await fetch_adapter(published, digest, tmp_path / "a")


async def test_a_damaged_destination_is_replaced(published: str, digest: str, tmp_path: Path) -> None:
    destination = tmp_path / "pod" / "a"
    await fetch_adapter(published, digest, destination)
    (destination / "adapter_model.safetensors").write_bytes(b"damaged")
    await fetch_adapter(published, digest, destination)
    assert (destination / "adapter_model.safetensors").stat().st_size > 100
    assert [path.name for path in destination.parent.iterdir() if path.name != ".room"] == ["a"]


async def test_nothing_at_the_uri(tmp_path: Path, digest: str) -> None:
    with pytest.raises(ArtifactNotFound, match="Check the URI"):
        await fetch_adapter(f"file://{tmp_path}/nowhere", digest, tmp_path / "pod" / "a")


async def test_an_empty_folder_at_the_uri(tmp_path: Path, digest: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactNotFound, match="kubectl twin adapter push"):
        await fetch_adapter(f"file://{tmp_path}/empty", digest, tmp_path / "pod" / "a")


async def test_a_peft_folder_without_a_manifest_names_the_command_that_makes_one(
    peft_folder: Path, digest: str, tmp_path: Path
) -> None:
    with pytest.raises(ManifestInvalid, match="kubectl twin adapter push"):
        await fetch_adapter(f"file://{peft_folder}", digest, tmp_path / "pod" / "a")


async def test_another_digest_than_the_stored_one(published: str, tmp_path: Path) -> None:
    with pytest.raises(DigestMismatch, match=r"adapter\.digest"):
        await fetch_adapter(published, "sha256:" + "0" * 64, tmp_path / "pod" / "a")


async def test_a_tampered_manifest(published: str, digest: str, tmp_path: Path) -> None:
    path = artifact(published) / "manifest.json"
    document = json.loads(path.read_text())
    document["rank"] = 16
    path.write_text(json.dumps(document))
    with pytest.raises(DigestMismatch):
        await fetch_adapter(published, digest, tmp_path / "pod" / "a")


async def test_a_truncated_file(published: str, digest: str, tmp_path: Path) -> None:
    weights = artifact(published) / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(DigestMismatch, match="truncated"):
        await fetch_adapter(published, digest, tmp_path / "pod" / "a")
    assert nothing_left(tmp_path / "pod" / "a")


async def test_a_file_changed_at_the_same_size(published: str, digest: str, tmp_path: Path) -> None:
    weights = artifact(published) / "adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(DigestMismatch, match="was changed"):
        await fetch_adapter(published, digest, tmp_path / "pod" / "a")
    assert nothing_left(tmp_path / "pod" / "a")


async def test_a_missing_file(published: str, digest: str, tmp_path: Path) -> None:
    (artifact(published) / "adapter_model.safetensors").unlink()
    with pytest.raises(DigestMismatch, match="is not there"):
        await fetch_adapter(published, digest, tmp_path / "pod" / "a")
    assert nothing_left(tmp_path / "pod" / "a")


@pytest.mark.parametrize("name", ["manifest.json", "adapter_config.json", "adapter_model.safetensors"])
async def test_a_pipe_in_a_files_place_holds_nobody_up(published: str, digest: str, tmp_path: Path, name: str) -> None:
    """Opening a named pipe lasts until somebody writes into it, and a thread that waits for that can't be ended."""
    (artifact(published) / name).unlink()
    os.mkfifo(artifact(published) / name)
    async with asyncio.timeout(5):
        with pytest.raises((DigestMismatch, ManifestInvalid)):
            await fetch_adapter(published, digest, tmp_path / "pod" / "a")
    assert nothing_left(tmp_path / "pod" / "a")


@pytest.mark.parametrize(
    "content",
    [
        b"not json",
        b"{}",
        b'{"baseModel":{"name":"m"},"rank":8,"files":[{"path":"../../etc/passwd","digest":"x","size":1}]}',
        b'{"baseModel":{"name":"m"},"rank":8,"files":[{"path":"README.md","digest":"sha256:'
        + b"0" * 64
        + b'","size":1}]}',
        b" " * (1024 * 1024 + 1),
    ],
    ids=["no json", "fields missing", "path outside", "no weights", "too large"],
)
async def test_an_invalid_manifest(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "manifest.json").write_bytes(content)
    with pytest.raises(ManifestInvalid, match=r"[Pp]ush"):
        await fetch_adapter(f"file://{tmp_path}/store", manifest_digest(content), tmp_path / "pod" / "a")


async def test_a_full_disk_is_said_before_anything_is_transferred(
    published: str, digest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(100, 99, 1))
    (artifact(published) / "adapter_model.safetensors").unlink()
    with pytest.raises(NoSpace, match="1 are free"):
        await fetch_adapter(published, digest, tmp_path / "pod" / "a")


async def test_a_disk_that_fills_up_on_the_way(
    published: str, digest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(adapters, "_append", full)
    with pytest.raises(NoSpace, match="Free space"):
        await fetch_adapter(published, digest, tmp_path / "pod" / "a")
    assert nothing_left(tmp_path / "pod" / "a")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may act as another user")
async def test_a_file_that_may_not_be_read(published: str, digest: str, tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == 0 and not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o011)
    (tmp_path / "pod").mkdir()
    (tmp_path / "pod").chmod(0o777)
    (artifact(published) / "manifest.json").chmod(0)
    os.seteuid(65532)
    try:
        with pytest.raises(AccessDenied, match="65532"):
            await fetch_adapter(published, digest, tmp_path / "pod" / "a")
    finally:
        os.seteuid(0)


async def test_a_cancelled_fetch_leaves_nothing_that_counts(
    published: str, digest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def stall(*_: object) -> None:
        loop.call_soon(writing.set)
        await asyncio.Event().wait()

    monkeypatch.setattr(adapters, "_fetch_file", stall)
    task = asyncio.create_task(fetch_adapter(published, digest, tmp_path / "pod" / "a"))
    await asyncio.wait_for(writing.wait(), 10)
    assert list((tmp_path / "pod").iterdir())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not (tmp_path / "pod" / "a").exists()


WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def read_from(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """What is asked of the store: names, and from which byte on."""
    asked: list[tuple[str, int]] = []
    get, get_rest = Location.get, Location.get_rest

    async def whole(self: Location, name: str) -> object:
        asked.append((name, 0))
        return await get(self, name)

    async def rest(self: Location, name: str, *, start: int, tag: str | None = None) -> object:
        asked.append((name, start))
        return await get_rest(self, name, start=start, tag=tag)

    monkeypatch.setattr(Location, "get", whole)
    monkeypatch.setattr(Location, "get_rest", rest)
    return asked


async def broken_off(uri: str, digest: str, destination: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin a fetch that ends in the middle of the weights."""
    chunks = Location.chunks

    async def until_the_middle(self: Location, result: object, *, name: str) -> AsyncIterator[bytes]:
        async for chunk in chunks(self, result, name=name):  # type: ignore[arg-type]
            if name == WEIGHTS:
                yield chunk[: len(chunk) // 2]
                raise StoreUnreachable("gone")
            yield chunk

    with monkeypatch.context() as patched:
        patched.setattr(Location, "chunks", until_the_middle)
        with pytest.raises(StoreUnreachable):
            await fetch_adapter(uri, digest, destination)


async def test_what_came_before_it_broke_off_is_not_fetched_again(
    published: str, digest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_from: list[tuple[str, int]]
) -> None:
    destination = tmp_path / "pod" / "a"
    await broken_off(published, digest, destination, monkeypatch)
    assert not destination.exists()
    half = (destination.parent / ".a.part" / WEIGHTS).stat().st_size
    assert half > 0
    read_from.clear()
    await fetch_adapter(published, digest, destination)
    assert read_from == [("manifest.json", 0), (WEIGHTS, half)]
    assert verify_folder(destination, digest)
    assert nothing_left(destination.with_name("b"))


async def test_what_came_is_hashed_again_and_begun_anew_where_it_is_wrong(
    published: str, digest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_from: list[tuple[str, int]]
) -> None:
    destination = tmp_path / "pod" / "a"
    await broken_off(published, digest, destination, monkeypatch)
    half = destination.parent / ".a.part" / WEIGHTS
    half.write_bytes(b"x" * half.stat().st_size)
    read_from.clear()
    await fetch_adapter(published, digest, destination)
    assert [start > 0 for name, start in read_from if name == WEIGHTS] == [True, False]
    assert verify_folder(destination, digest)


async def test_a_source_that_changed_meanwhile_is_refused_and_nothing_of_it_stays(
    published: str, digest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    destination = tmp_path / "pod" / "a"
    await broken_off(published, digest, destination, monkeypatch)
    weights = artifact(published) / WEIGHTS
    weights.write_bytes(b"y" * weights.stat().st_size)
    with pytest.raises(DigestMismatch):
        await fetch_adapter(published, digest, destination)
    assert nothing_left(destination)


async def test_the_next_fetch_removes_what_a_killed_one_left(published: str, digest: str, tmp_path: Path) -> None:
    leftover = tmp_path / "pod" / ".a.xyz.part"
    leftover.mkdir(parents=True)
    (leftover / "adapter_model.safetensors").write_bytes(b"half")
    await fetch_adapter(published, digest, tmp_path / "pod" / "a")
    assert not leftover.exists()


async def test_clean_leftovers_spares_whole_adapters(published: str, digest: str, tmp_path: Path) -> None:
    await fetch_adapter(published, digest, tmp_path / "pod" / "dr-who" / "a")
    (tmp_path / "pod" / "dr-no" / ".b.xyz.part").mkdir(parents=True)
    assert clean_leftovers(tmp_path / "pod") == 1
    assert (tmp_path / "pod" / "dr-who" / "a" / "manifest.json").is_file()
    assert not list((tmp_path / "pod" / "dr-no").iterdir())


async def test_a_claim_is_read_below_its_mount(peft_folder: Path, manifest: AdapterManifest, tmp_path: Path) -> None:
    (tmp_path / "pvc" / "adapters").mkdir(parents=True)
    uri = await publish_adapter(peft_folder, "pvc://adapters/eu", "dr-who", manifest, pvc_dir=tmp_path / "pvc")
    assert (tmp_path / "pvc" / uri.removeprefix("pvc://") / "manifest.json").is_file()
    assert (await read_manifest(uri, pvc_dir=tmp_path / "pvc"))[0] == manifest


async def test_a_claim_that_is_not_mounted(digest: str, tmp_path: Path) -> None:
    with pytest.raises(ArtifactNotFound, match="not mounted"):
        await fetch_adapter("pvc://other/a", digest, tmp_path / "pod" / "a", pvc_dir=tmp_path / "pvc")


async def test_a_uri_cannot_leave_its_claim(
    peft_folder: Path, manifest: AdapterManifest, digest: str, tmp_path: Path
) -> None:
    for claim in ("mine", "theirs"):
        (tmp_path / "pvc" / claim).mkdir(parents=True)
    uri = await publish_adapter(peft_folder, "pvc://theirs", "dr-who", manifest, pvc_dir=tmp_path / "pvc")
    climbing = uri.replace("pvc://theirs", "pvc://mine/../theirs")
    with pytest.raises(ArtifactNotFound, match="plain path"):
        await fetch_adapter(climbing, digest, tmp_path / "pod" / "a", pvc_dir=tmp_path / "pvc")


@pytest.mark.parametrize(
    "uri",
    ["", "adapters/x", "ftp://host/x", "pvc://claim/../other", "s3:///x", "file://host/x", "s3://key:word@bucket/x"],
)
async def test_a_uri_that_is_none(uri: str, digest: str, tmp_path: Path) -> None:
    with pytest.raises(ArtifactNotFound):
        await fetch_adapter(uri, digest, tmp_path / "pod" / "a")


@pytest.mark.parametrize("kind", StoreError.__subclasses__())
def test_every_error_carries_a_reason_of_its_own(kind: type[StoreError]) -> None:
    assert kind.reason is FailureReason(kind.__name__)
    assert isinstance(kind.retryable, bool)

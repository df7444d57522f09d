from __future__ import annotations

import asyncio
import multiprocessing
import os
import shutil
from collections import namedtuple
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.store import LocalStore

from neurons.models import sources
from neurons.models.cache import cache_key, locked, make_record, new_partial
from neurons.models.fetch import Fetched, Origin, fetch_model
from neurons.models.sources import SourceFile, wanted, without_markers
from neurons.store import DEFAULT_LIMITS, DigestMismatch, Location, NoSpace, StoreUnreachable, space
from neurons.store.model_record import read_record
from neurons.store.space import reserved

from .conftest import write_model

URI = "s3://models/smol"


@pytest.fixture
def bucket(model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A remote model: the real fetcher, with a folder where the object store would be."""

    def open_folder(uri: str, **_: object) -> Location:
        return Location(uri=uri, store=LocalStore(model), limits=DEFAULT_LIMITS, folder=None)

    monkeypatch.setattr(sources, "open_store", open_folder)
    return model


async def get(root: Path, *, revision: str | None = None) -> Fetched:
    return await fetch_model(uri=URI, name="smol", revision=revision, root=root)


def visible(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if not path.name.startswith("."))


def partials(root: Path) -> list[Path]:
    return list(root.glob(".*.part"))


async def test_a_remote_model_is_fetched_whole(bucket: Path, tmp_path: Path) -> None:
    fetched = await get(tmp_path / "cache")
    assert fetched.origin is Origin.FETCHED
    assert visible(fetched.folder) == ["config.json", "model.safetensors", "tokenizer.json"]


async def test_the_record_carries_the_digest(bucket: Path, tmp_path: Path) -> None:
    fetched = await get(tmp_path / "cache")
    record = read_record(fetched.folder)
    assert record is not None
    assert record.digest == fetched.digest == make_record(bucket, name="x", uri="x", revision=None).digest


async def test_a_cached_model_needs_no_store(bucket: Path, tmp_path: Path) -> None:
    await get(tmp_path / "cache")
    shutil.rmtree(bucket)
    assert (await get(tmp_path / "cache")).origin is Origin.CACHE


async def test_a_damaged_cache_entry_is_fetched_again(bucket: Path, tmp_path: Path) -> None:
    folder = (await get(tmp_path / "cache")).folder
    (folder / "config.json").write_text("damaged")
    assert (await get(tmp_path / "cache")).origin is Origin.FETCHED
    assert "Llama" in (folder / "config.json").read_text()


async def test_a_touched_cache_entry_is_hashed_and_kept(bucket: Path, tmp_path: Path) -> None:
    folder = (await get(tmp_path / "cache")).folder
    (folder / "config.json").touch()
    assert (await get(tmp_path / "cache")).origin is Origin.CACHE


async def test_the_expected_digest_is_checked_before_anything_appears(bucket: Path, tmp_path: Path) -> None:
    with pytest.raises(DigestMismatch):
        await get(tmp_path / "cache", revision="sha256:" + "0" * 64)
    assert visible(tmp_path / "cache") == []
    assert partials(tmp_path / "cache") == []


async def test_weights_that_are_broken_at_their_source_never_appear(bucket: Path, tmp_path: Path) -> None:
    os.truncate(bucket / "model.safetensors", 1000)
    with pytest.raises(DigestMismatch, match="Copy the model again"):
        await get(tmp_path / "cache")
    assert visible(tmp_path / "cache") == []


async def test_too_little_space_is_said_before_anything_is_downloaded(
    bucket: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 1000))
    with pytest.raises(NoSpace, match="Enlarge the volume"):
        await get(tmp_path / "cache")
    assert partials(tmp_path / "cache") == []


async def test_what_other_downloads_on_the_volume_are_promised_is_not_free(
    bucket: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**12, 0, 10**10))
    root = tmp_path / "cache"
    root.mkdir()
    with (
        reserved(root, 9_950_000_000, what="model"),
        pytest.raises(NoSpace, match=r"9\.95 GB of them promised to other downloads"),
    ):
        await get(root)
    assert (await get(root)).origin is Origin.FETCHED


async def test_a_model_takes_no_more_than_the_pods_own_disk_has_for_it(bucket: Path, tmp_path: Path) -> None:
    with pytest.raises(NoSpace, match=r"cache\.sizeLimit"):
        await fetch_model(uri=URI, name="smol", revision=None, root=tmp_path / "cache", at_most=1000)


async def test_while_a_model_comes_its_room_is_promised(
    bucket: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    promised: list[int] = []
    chunks = Location.chunks

    async def looked_at(self: Location, result: object, *, name: str) -> AsyncIterator[bytes]:
        promised.append(space._promised(tmp_path / "cache" / space.ROOM))
        async for chunk in chunks(self, result, name=name):  # type: ignore[arg-type]
            yield chunk

    monkeypatch.setattr(Location, "chunks", looked_at)
    fetched = await get(tmp_path / "cache")
    assert max(promised) >= fetched.size
    assert space._promised(tmp_path / "cache" / space.ROOM) == 0


async def test_two_fetches_at_once_download_once(bucket: Path, tmp_path: Path) -> None:
    origins = [fetched.origin for fetched in await asyncio.gather(get(tmp_path / "cache"), get(tmp_path / "cache"))]
    assert sorted(origins) == [Origin.CACHE, Origin.FETCHED]


async def test_a_killed_download_leaves_nothing_that_counts(bucket: Path, tmp_path: Path) -> None:
    root = tmp_path / "cache"
    key = cache_key(name="smol", uri=URI, revision=None)
    root.mkdir()
    leftover = new_partial(root, key, alone=False)
    (leftover / "config.json").write_text("half")
    assert (await get(root)).origin is Origin.FETCHED
    assert partials(root) == []


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Which files are read, and from which byte on."""
    found: list[tuple[str, int]] = []
    get, get_rest = Location.get, Location.get_rest

    async def whole(self: Location, name: str) -> object:
        found.append((name, 0))
        return await get(self, name)

    async def rest(self: Location, name: str, *, start: int, tag: str | None = None) -> object:
        found.append((name, start))
        return await get_rest(self, name, start=start, tag=tag)

    monkeypatch.setattr(Location, "get", whole)
    monkeypatch.setattr(Location, "get_rest", rest)
    return found


async def broken_off(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin a download that ends in the middle of the weights, after the other files came."""
    chunks, others = Location.chunks, asyncio.Semaphore(0)

    async def until_the_middle(self: Location, result: object, *, name: str) -> AsyncIterator[bytes]:
        async for chunk in chunks(self, result, name=name):  # type: ignore[arg-type]
            if name == "model.safetensors":
                yield chunk[:8192]
                await others.acquire()
                await others.acquire()
                raise StoreUnreachable("gone")
            yield chunk
        others.release()

    with monkeypatch.context() as patched:
        patched.setattr(sources, "_SYNC_BYTES", 4096)
        patched.setattr(Location, "chunks", until_the_middle)
        with pytest.raises(StoreUnreachable):
            await get(root)


async def test_a_download_that_broke_off_goes_on_where_it_was(
    bucket: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[tuple[str, int]]
) -> None:
    root = tmp_path / "cache"
    await broken_off(root, monkeypatch)
    assert visible(root) == []
    asked.clear()
    fetched = await get(root)
    assert ("model.safetensors", 8192) in asked
    assert "model.safetensors" not in [name for name, start in asked if not start]
    assert fetched.digest == make_record(bucket, name="x", uri="x", revision=None).digest
    assert partials(root) == []
    assert sorted(path.name for path in fetched.folder.iterdir()) == [
        ".bettertherapy-model.json", "config.json", "model.safetensors", "tokenizer.json",
    ]  # fmt: skip


async def test_a_download_of_a_source_that_changed_begins_anew(
    bucket: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[tuple[str, int]]
) -> None:
    root = tmp_path / "cache"
    await broken_off(root, monkeypatch)
    write_model(bucket, seed=7)
    (bucket / "tokenizer.json").unlink()
    asked.clear()
    fetched = await get(root)
    assert ("model.safetensors", 0) in asked
    assert fetched.digest == make_record(bucket, name="x", uri="x", revision=None).digest


async def test_a_source_that_changes_between_listing_and_reading_begins_anew(
    bucket: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[tuple[str, int]]
) -> None:
    root = tmp_path / "cache"
    await broken_off(root, monkeypatch)
    listing = Location.listing

    async def then_changed(self: Location, *, at_most: int) -> list[object]:
        found = await listing(self, at_most=at_most)
        write_model(bucket, seed=7)
        return list(found)

    monkeypatch.setattr(Location, "listing", then_changed)
    asked.clear()
    fetched = await get(root)
    assert [start for name, start in asked if name == "model.safetensors"] == [8192, 0]
    assert fetched.digest == make_record(bucket, name="x", uri="x", revision=None).digest


async def test_a_listing_may_leave_out_the_quotes_around_etags_as_azures_does(
    bucket: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[tuple[str, int]]
) -> None:
    root = tmp_path / "cache"
    await broken_off(root, monkeypatch)
    listing = Location.listing

    async def unquoted(self: Location, *, at_most: int) -> list[dict[str, object]]:
        found = await listing(self, at_most=at_most)
        assert all(str(each["e_tag"]).startswith('"') for each in found)
        return [{**each, "e_tag": str(each["e_tag"]).strip('"')} for each in found]

    monkeypatch.setattr(Location, "listing", unquoted)
    asked.clear()
    await get(root)
    assert [start for name, start in asked if name == "model.safetensors"] == [8192]


@pytest.mark.parametrize(("tag", "begun"), [('"a"', True), ("a", True), ('W/"a"', False), ("", False), (None, False)])
async def test_only_an_etag_that_proves_the_same_bytes_lets_a_download_go_on(
    tag: str | None, begun: bool, bucket: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    asked: list[tuple[str, int]],
) -> None:  # fmt: skip
    get_async, listing = obstore.get_async, Location.listing

    class Tagged:
        def __init__(self, result: Any) -> None:
            self.meta = {**result.meta, "e_tag": tag}
            self.stream = result.stream

    async def tagged(store: object, name: str, *, options: dict[str, Any] | None = None) -> Tagged:
        options = {key: value for key, value in (options or {}).items() if key != "if_match"}
        return Tagged(await get_async(store, name, options=options))  # type: ignore[arg-type]

    async def all_tagged(self: Location, *, at_most: int) -> list[dict[str, object]]:
        return [{**each, "e_tag": tag} for each in await listing(self, at_most=at_most)]

    monkeypatch.setattr(obstore, "get_async", tagged)
    monkeypatch.setattr(Location, "listing", all_tagged)
    root = tmp_path / "cache"
    await broken_off(root, monkeypatch)
    asked.clear()
    await get(root)
    assert [start for name, start in asked if name == "model.safetensors"] == [8192 if begun else 0]


@pytest.mark.parametrize(
    "note",
    [
        "",
        "{",
        '{"model.safetensors": {"tag": 1}}',
        '{"model.safetensors": {"tag": "of a release before", "synced": 8192}}',
        "[]",
    ],
)
async def test_a_note_that_cant_be_read_says_nothing(
    note: str, bucket: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[tuple[str, int]]
) -> None:
    root = tmp_path / "cache"
    await broken_off(root, monkeypatch)
    (partials(root)[0] / ".progress.json").write_text(note)
    asked.clear()
    fetched = await get(root)
    assert {start for _, start in asked} == {0}
    assert fetched.digest == make_record(bucket, name="x", uri="x", revision=None).digest


async def test_a_lock_that_another_process_holds_is_waited_for_within_bounds(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    held, release = context.Event(), context.Event()
    holder = context.Process(target=hold, args=(tmp_path, held, release))
    holder.start()
    try:
        assert await asyncio.to_thread(held.wait, 60)
        with pytest.raises(StoreUnreachable, match="another pod"):
            async with locked(tmp_path, "key", seconds=0.3):
                pass
    finally:
        release.set()
        await asyncio.to_thread(holder.join)
    async with locked(tmp_path, "key", seconds=0.3) as alone:
        assert alone


def hold(root: Path, held: object, release: object) -> None:
    async def run() -> None:
        async with locked(root, "key", seconds=10):
            held.set()  # type: ignore[attr-defined]
            release.wait(60)  # type: ignore[attr-defined]

    asyncio.run(run())


async def test_a_dead_process_releases_its_lock(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    held, release = context.Event(), context.Event()
    holder = context.Process(target=hold, args=(tmp_path, held, release))
    holder.start()
    assert await asyncio.to_thread(held.wait, 60)
    holder.kill()
    await asyncio.to_thread(holder.join)
    async with locked(tmp_path, "key", seconds=5) as alone:
        assert alone


async def test_the_remote_copy_that_shrinks_while_read_is_refused(
    bucket: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = Location.listing

    async def larger(self: Location, *, at_most: int) -> list[object]:
        return [{**meta, "size": meta["size"] + 1} for meta in await listing(self, at_most=at_most)]

    monkeypatch.setattr(Location, "listing", larger)
    with pytest.raises(StoreUnreachable, match=r"when the model's files were listed"):
        await get(tmp_path / "cache")


def test_every_uri_and_revision_has_a_folder_of_its_own() -> None:
    keys = {cache_key(name="m", uri=uri, revision=revision) for uri in ("s3://a", "s3://b") for revision in (None, "1")}
    assert len(keys) == 4


def test_a_name_with_slashes_gives_one_folder() -> None:
    assert "/" not in cache_key(name="Org/Model", uri="hf://Org/Model", revision="main")


def files(*paths: str) -> list[SourceFile]:
    return [SourceFile(path=path, size=1) for path in paths]


def test_the_same_weights_in_another_format_are_left_out() -> None:
    kept = wanted(files("config.json", "model.safetensors", "pytorch_model.bin", "original/model.safetensors"))
    assert [file.path for file in kept] == ["config.json", "model.safetensors"]


def test_a_model_of_one_format_is_fetched_in_it() -> None:
    kept = wanted(files("config.json", "pytorch_model.bin", ".gitattributes"))
    assert [file.path for file in kept] == ["config.json", "pytorch_model.bin"]


async def test_a_pinned_model_in_a_cache_that_others_can_write_is_hashed_again(bucket: Path, tmp_path: Path) -> None:
    """Its record, and the times of its files, are anybody's to set there."""
    root = tmp_path / "cache"
    pinned = (await get(root)).digest
    first = await fetch_model(uri=URI, name="smol", revision=pinned, root=root, shared=True)
    weights = first.folder / "model.safetensors"
    times, data = weights.stat(), bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))
    again = await fetch_model(uri=URI, name="smol", revision=pinned, root=root, shared=True)
    assert (again.origin, again.digest) == (Origin.FETCHED, pinned)
    assert make_record(again.folder, name="x", uri="x", revision=None).digest == pinned
    whole = await fetch_model(uri=URI, name="smol", revision=pinned, root=root, shared=True)
    assert whole.origin is Origin.CACHE


def test_markers_of_folders_are_no_files() -> None:
    """Consoles of object stores make an empty object for a folder: no file can be written where it has others in it."""
    files = [
        SourceFile("config.json", 2), SourceFile("tokenizer", 0), SourceFile("tokenizer/vocab.json", 5),
        SourceFile("empty/", 0), SourceFile("", 0), SourceFile("added.txt", 0),
    ]  # fmt: skip
    assert [file.path for file in without_markers(files)] == ["config.json", "tokenizer/vocab.json", "added.txt"]

"""Downloads from a real S3 service that break off, go on, or can't: versitygw, and a door before it that misbehaves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from safetensors.numpy import save_file

from bettertherapy_api.manifest import AdapterManifest, manifest_digest
from neurons.models import sources
from neurons.models.fetch import Fetched, fetch_model
from neurons.store import DigestMismatch, Limits, StoreUnreachable, build_manifest, publish_adapter, verify_folder
from neurons.store import fetch_adapter as fetch
from neurons.store.locations import Location

from ..models.conftest import write_model
from .conftest import BASE
from .lora_files import lora, write_lora
from .s3_service import Door, Service

if TYPE_CHECKING:
    from obstore import GetResult

    from neurons.store.locations import LocalFile

pytestmark = pytest.mark.cluster

WEIGHTS, ADAPTER_WEIGHTS = "model.safetensors", "adapter_model.safetensors"
MIB = 1024 * 1024
ONCE = Limits(connect=1, read=5, retries=0, retry=1, call=10)
"""A client that tries nothing again by itself: what goes on is the next attempt's."""


@pytest.fixture
async def door(service: Service, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Door]:
    monkeypatch.setattr(sources, "_LIMITS", ONCE)
    monkeypatch.setattr(sources, "_SYNC_BYTES", MIB)
    async with Door().before(service) as door:
        monkeypatch.setenv("AWS_ENDPOINT_URL", door.endpoint)
        yield door


def large_model(folder: Path, *, mib: int = 12, seed: int = 0) -> Path:
    write_model(folder)
    values = np.random.default_rng(seed).standard_normal((mib, 256, 1024), dtype=np.float32)
    save_file({"model.embed_tokens.weight": values}, folder / WEIGHTS)
    return folder


def files_of(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


async def upload(service: Service, folder: Path, name: str, *, part_bytes: int | None = None) -> str:
    for path in files_of(folder):
        await service.put(f"{name}/{path.name}", path, part_bytes=part_bytes if path.name == WEIGHTS else None)
    return f"s3://adapters/{name}"


async def fetched(uri: str, root: Path) -> Fetched:
    return await fetch_model(uri=uri, name="m", revision=None, root=root)


async def broken_off(door: Door, uri: str, root: Path, *, after: int) -> None:
    door.cut_after = after
    with pytest.raises(StoreUnreachable):
        await fetched(uri, root)
    door.cut_after = None
    door.asked.clear()


def begun_at(part: str | None) -> int:
    assert part is not None
    return int(part.removeprefix("bytes=").removesuffix("-"))


@pytest.mark.parametrize("part_bytes", [None, 5 * MIB])
async def test_a_base_model_goes_on_where_its_download_broke_off(
    part_bytes: int | None, service: Service, door: Door, tmp_path: Path
) -> None:
    model = large_model(tmp_path / "model")
    uri = await upload(service, model, f"whole-{part_bytes}", part_bytes=part_bytes)
    await broken_off(door, uri, tmp_path / "cache", after=7 * MIB + 5)
    found = await fetched(uri, tmp_path / "cache")
    [part] = door.parts_of(WEIGHTS)
    assert 0 < begun_at(part) <= 7 * MIB + 5
    assert (found.folder / WEIGHTS).read_bytes() == (model / WEIGHTS).read_bytes()


async def test_a_download_that_breaks_off_again_and_again_comes_to_its_end(
    service: Service, door: Door, tmp_path: Path
) -> None:
    model = large_model(tmp_path / "model")
    uri = await upload(service, model, "again")
    begun = 0
    for _ in range(3):
        await broken_off(door, uri, tmp_path / "cache", after=3 * MIB + 5)
        [note] = (tmp_path / "cache").glob(".*/.progress.json")
        synced = sources.Progress.of(note.parent).files[WEIGHTS].synced
        assert synced > begun
        begun = synced
    found = await fetched(uri, tmp_path / "cache")
    assert (found.folder / WEIGHTS).read_bytes() == (model / WEIGHTS).read_bytes()


async def test_a_base_model_that_changed_since_is_fetched_as_a_whole(
    service: Service, door: Door, tmp_path: Path
) -> None:
    uri = await upload(service, large_model(tmp_path / "model"), "changed")
    await broken_off(door, uri, tmp_path / "cache", after=7 * MIB)
    other = large_model(tmp_path / "other", seed=5)
    await upload(service, other, "changed")
    found = await fetched(uri, tmp_path / "cache")
    assert door.parts_of(WEIGHTS) == [None]
    assert (found.folder / WEIGHTS).read_bytes() == (other / WEIGHTS).read_bytes()


async def test_a_base_model_that_changes_after_it_was_listed_is_fetched_as_a_whole(
    service: Service, door: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = await upload(service, large_model(tmp_path / "model"), "moving")
    await broken_off(door, uri, tmp_path / "cache", after=7 * MIB)
    other, get_rest = large_model(tmp_path / "other", seed=5), Location.get_rest

    async def changed_first(
        self: Location, name: str, *, start: int, tag: str | None = None
    ) -> GetResult | LocalFile | None:
        if name == WEIGHTS:
            await service.put(f"moving/{WEIGHTS}", other / WEIGHTS)
        return await get_rest(self, name, start=start, tag=tag)

    monkeypatch.setattr(Location, "get_rest", changed_first)
    found = await fetched(uri, tmp_path / "cache")
    [part, whole] = door.parts_of(WEIGHTS)
    assert begun_at(part) > 0
    assert whole is None
    assert (found.folder / WEIGHTS).read_bytes() == (other / WEIGHTS).read_bytes()


async def test_one_that_has_another_size_after_it_was_listed_says_so_and_comes_at_the_next_attempt(
    service: Service, door: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = await upload(service, large_model(tmp_path / "model"), "growing")
    other, listing = large_model(tmp_path / "other", mib=13), Location.listing

    async def then_changed(self: Location, *, at_most: int) -> object:
        found = await listing(self, at_most=at_most)
        await service.put(f"growing/{WEIGHTS}", other / WEIGHTS)
        return found

    with monkeypatch.context() as patched:
        patched.setattr(Location, "listing", then_changed)
        with pytest.raises(StoreUnreachable, match=r"bytes when the model's files were listed, and has \d+ now\."):
            await fetched(uri, tmp_path / "cache")
    found = await fetched(uri, tmp_path / "cache")
    assert (found.folder / WEIGHTS).read_bytes() == (other / WEIGHTS).read_bytes()


async def test_a_file_that_was_replaced_behind_a_gateway_that_keeps_its_etag_is_fetched_as_a_whole(
    service: Service, door: Door, tmp_path: Path
) -> None:
    uri = await upload(service, large_model(tmp_path / "model"), "behind")
    await broken_off(door, uri, tmp_path / "cache", after=7 * MIB)
    other = large_model(tmp_path / "other", mib=2, seed=5)
    service.behind(f"{uri}/{WEIGHTS}").write_bytes((other / WEIGHTS).read_bytes())
    found = await fetched(uri, tmp_path / "cache")
    assert door.parts_of(WEIGHTS) == [None]
    assert (found.folder / WEIGHTS).read_bytes() == (other / WEIGHTS).read_bytes()


async def test_files_without_etags_come_as_a_whole(service: Service, door: Door, tmp_path: Path) -> None:
    model = large_model(service.bucket / "laid-there")
    await broken_off(door, "s3://adapters/laid-there", tmp_path / "cache", after=7 * MIB)
    found = await fetched("s3://adapters/laid-there", tmp_path / "cache")
    assert door.parts_of(WEIGHTS) == [None]
    assert (found.folder / WEIGHTS).read_bytes() == (model / WEIGHTS).read_bytes()


async def test_a_service_that_knows_no_parts_gives_all_of_it_again(
    service: Service, door: Door, tmp_path: Path
) -> None:
    model = large_model(tmp_path / "model")
    uri = await upload(service, model, "no-parts")
    await broken_off(door, uri, tmp_path / "cache", after=7 * MIB)
    door.without_ranges = True
    found = await fetched(uri, tmp_path / "cache")
    [part, whole] = door.parts_of(WEIGHTS)
    assert begun_at(part) > 0
    assert whole is None
    assert (found.folder / WEIGHTS).read_bytes() == (model / WEIGHTS).read_bytes()


@pytest.mark.parametrize("retries", [0, 4])
async def test_a_service_that_is_restarted_in_the_middle(
    retries: int, service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "_LIMITS", Limits(connect=1, read=5, retries=retries, retry=20, call=30))
    monkeypatch.setattr(sources, "_SYNC_BYTES", MIB)
    model = large_model(tmp_path / "model", mib=48)  # more than the kernel has taken when the first of it is read
    uri = await upload(service, model, f"restarted-{retries}")
    chunks, restarts = Location.chunks, 0

    async def restarted_first(self: Location, result: GetResult, *, name: str) -> AsyncIterator[bytes]:
        nonlocal restarts
        async for chunk in chunks(self, result, name=name):
            yield chunk
            if name == WEIGHTS and not restarts:
                restarts += 1
                service.restart()

    with monkeypatch.context() as patched:
        patched.setattr(Location, "chunks", restarted_first)
        if not retries:
            with pytest.raises(StoreUnreachable):
                await fetched(uri, tmp_path / "cache")
            [note] = (tmp_path / "cache").glob(".*/.progress.json")
            assert sources.Progress.of(note.parent).files[WEIGHTS].synced > 0
        found = await fetched(uri, tmp_path / "cache")
    assert restarts == 1
    assert (found.folder / WEIGHTS).read_bytes() == (model / WEIGHTS).read_bytes()


async def test_folders_markers_are_no_files(service: Service, door: Door, tmp_path: Path) -> None:
    uri = await upload(service, write_model(tmp_path / "model"), "marked")
    await service.put("marked/more/tokens.json", b"{}")
    for marker in ("marked/", "marked/more/", "marked/empty/"):
        await service.put_marker(marker)
    await service.put("marked/nothing.txt", b"")
    found = await fetched(uri, tmp_path / "cache")
    assert {path.name for path in found.folder.iterdir() if not path.name.startswith(".")} == {
        WEIGHTS, "config.json", "tokenizer.json", "more", "nothing.txt",
    }  # fmt: skip


@pytest.fixture
async def adapter(service: Service, tmp_path: Path) -> tuple[str, AdapterManifest]:
    """URI and manifest of an adapter of 8 MiB."""
    folder = write_lora(tmp_path / "large", lora({"model.layers.0.self_attn.q_proj": (128 * 1024, 128 * 1024)}))
    manifest = build_manifest(folder, base_model=BASE)
    return await publish_adapter(folder, "s3://adapters/eu", "dr-who", manifest), manifest


async def half_fetched(door: Door, adapter: tuple[str, AdapterManifest], destination: Path) -> str:
    uri, manifest = adapter
    digest = manifest_digest(manifest.to_bytes())
    door.cut_after = 5 * MIB
    with pytest.raises(StoreUnreachable):
        await fetch(uri, digest, destination, limits=ONCE)
    door.cut_after = None
    door.asked.clear()
    return digest


async def test_an_adapter_goes_on_where_its_download_broke_off(
    door: Door, adapter: tuple[str, AdapterManifest], tmp_path: Path
) -> None:
    digest = await half_fetched(door, adapter, tmp_path / "a")
    await fetch(adapter[0], digest, tmp_path / "a", limits=ONCE)
    [part] = door.parts_of(ADAPTER_WEIGHTS)
    assert begun_at(part) > 0
    assert verify_folder(tmp_path / "a", digest)


async def test_an_adapter_comes_from_a_service_that_knows_no_parts(
    door: Door, adapter: tuple[str, AdapterManifest], tmp_path: Path
) -> None:
    digest = await half_fetched(door, adapter, tmp_path / "a")
    door.without_ranges = True
    await fetch(adapter[0], digest, tmp_path / "a", limits=ONCE)
    assert door.parts_of(ADAPTER_WEIGHTS)[-1] is None
    assert verify_folder(tmp_path / "a", digest)


async def test_an_adapter_that_is_shorter_now_than_what_came_of_it_is_called_truncated(
    service: Service, door: Door, adapter: tuple[str, AdapterManifest], tmp_path: Path
) -> None:
    digest = await half_fetched(door, adapter, tmp_path / "a")
    weights = service.behind(f"{adapter[0]}/{ADAPTER_WEIGHTS}")
    weights.write_bytes(weights.read_bytes()[:MIB])
    with pytest.raises(DigestMismatch, match="truncated"):
        await fetch(adapter[0], digest, tmp_path / "a", limits=ONCE)

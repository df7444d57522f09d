from __future__ import annotations

from pathlib import Path

import pytest

from bettertherapy_api.manifest import AdapterManifest, manifest_digest
from bettertherapy_api.names import digest_hex
from neurons.store import (
    DigestMismatch,
    Location,
    ManifestInvalid,
    StoreUnreachable,
    build_manifest,
    fetch_adapter,
    publish_adapter,
    read_manifest,
)

from .conftest import BASE, write_peft_folder


def times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


async def test_the_address_is_the_digest(published: str, digest: str, store_root: Path) -> None:
    assert published == f"file://{store_root}/dr-who/{digest_hex(digest)}"


async def test_only_the_files_of_the_manifest_are_published(published: str) -> None:
    listed = set(times(Path(published.removeprefix("file://"))))
    assert listed == {"adapter_config.json", "adapter_model.safetensors", "manifest.json"}


async def test_publishing_again_writes_nothing(
    published: str, peft_folder: Path, manifest: AdapterManifest, store_root: Path
) -> None:
    folder = Path(published.removeprefix("file://"))
    before = times(folder)
    assert await publish_adapter(peft_folder, f"file://{store_root}", "dr-who", manifest) == published
    assert times(folder) == before


async def test_a_publish_that_dies_leaves_no_adapter_and_can_be_repeated(
    peft_folder: Path, manifest: AdapterManifest, digest: str, store_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    put = Location.put

    async def die_on_the_second(self: Location, name: str, content: bytes | Path) -> None:
        if written:
            raise StoreUnreachable("gone")
        await put(self, name, content)
        written.append(name)

    root = f"file://{store_root}"
    with monkeypatch.context() as patch:
        patch.setattr(Location, "put", die_on_the_second)
        with pytest.raises(StoreUnreachable):
            await publish_adapter(peft_folder, root, "dr-who", manifest)
    assert written == ["adapter_config.json"]
    with pytest.raises(ManifestInvalid) as caught:
        await read_manifest(f"{root}/dr-who/{digest_hex(digest)}")
    assert caught.value.retryable
    uri = await publish_adapter(peft_folder, root, "dr-who", manifest)
    await fetch_adapter(uri, digest, store_root.parent / "pod" / "a")


async def test_the_manifest_is_written_last(
    peft_folder: Path, manifest: AdapterManifest, store_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    put = Location.put

    async def noting(self: Location, name: str, content: bytes | Path) -> None:
        written.append(name)
        await put(self, name, content)

    monkeypatch.setattr(Location, "put", noting)
    await publish_adapter(peft_folder, f"file://{store_root}", "dr-who", manifest)
    assert written == ["adapter_config.json", "adapter_model.safetensors", "manifest.json"]


async def test_a_truncated_stored_file_is_healed_by_publishing_again(
    published: str, peft_folder: Path, manifest: AdapterManifest, digest: str, store_root: Path
) -> None:
    (Path(published.removeprefix("file://")) / "adapter_model.safetensors").write_bytes(b"cut")
    await publish_adapter(peft_folder, f"file://{store_root}", "dr-who", manifest)
    await fetch_adapter(published, digest, store_root.parent / "pod" / "a")


async def test_a_stored_file_of_the_right_size_that_is_damaged_is_healed_too(
    published: str, peft_folder: Path, manifest: AdapterManifest, digest: str, store_root: Path
) -> None:
    weights = Path(published.removeprefix("file://")) / "adapter_model.safetensors"
    damaged = bytearray(weights.read_bytes())
    damaged[-1] ^= 1
    weights.write_bytes(damaged)
    await publish_adapter(peft_folder, f"file://{store_root}", "dr-who", manifest)
    await fetch_adapter(published, digest, store_root.parent / "pod" / "a")


async def test_files_that_changed_since_the_manifest_are_not_published(
    peft_folder: Path, manifest: AdapterManifest, store_root: Path, tmp_path: Path
) -> None:
    write_peft_folder(peft_folder, seed=1)
    with pytest.raises(DigestMismatch, match="adapter_model"):
        await publish_adapter(peft_folder, f"file://{store_root}", "dr-who", manifest)
    assert "store" not in times(tmp_path)


async def test_a_foreign_manifest_at_the_address_is_not_overwritten(
    published: str, peft_folder: Path, manifest: AdapterManifest, store_root: Path
) -> None:
    other = build_manifest(write_peft_folder(store_root.parent / "other", seed=1), base_model=BASE)
    path = Path(published.removeprefix("file://")) / "manifest.json"
    path.write_bytes(other.to_bytes())
    with pytest.raises(DigestMismatch, match="remove that folder"):
        await publish_adapter(peft_folder, f"file://{store_root}", "dr-who", manifest)
    assert path.read_bytes() == other.to_bytes()


async def test_the_same_files_give_the_same_digest(tmp_path: Path) -> None:
    one = build_manifest(write_peft_folder(tmp_path / "one"), base_model=BASE)
    two = build_manifest(write_peft_folder(tmp_path / "two"), base_model=BASE)
    assert manifest_digest(one.to_bytes()) == manifest_digest(two.to_bytes())

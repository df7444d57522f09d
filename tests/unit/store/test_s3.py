"""The store against a real S3 service: versitygw over a folder."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from bettertherapy_api import names
from bettertherapy_api.manifest import AdapterManifest, manifest_digest
from neurons.models.fetch import Origin, fetch_model
from neurons.store import (
    AccessDenied,
    ArtifactNotFound,
    DigestMismatch,
    Limits,
    ManifestInvalid,
    StoreUnreachable,
    build_manifest,
    file_digest,
    publish_adapter,
    read_manifest,
)
from neurons.store import fetch_adapter as fetch

from ..models.conftest import write_model
from .conftest import BASE
from .lora_files import lora, write_lora
from .s3_service import KEY, WORD, Service, free_port

pytestmark = pytest.mark.cluster

ROOT = "s3://adapters/eu"
QUICK = Limits(connect=1, read=1, retries=1, retry=2, call=10)


@pytest.fixture
async def uri(service: Service, peft_folder: Path, manifest: AdapterManifest) -> str:
    return await publish_adapter(peft_folder, ROOT, "dr-who", manifest, limits=QUICK)


async def test_an_adapter_comes_back_as_it_was_published(
    uri: str, digest: str, peft_folder: Path, tmp_path: Path
) -> None:
    await fetch(uri, digest, tmp_path / "a", limits=QUICK)
    name = "adapter_model.safetensors"
    assert file_digest(tmp_path / "a" / name) == file_digest(peft_folder / name)


async def test_files_of_many_parts_survive(service: Service, tmp_path: Path) -> None:
    wide = {"model.layers.0.self_attn.q_proj": (512 * 1024, 512 * 1024)}  # 32 MiB: more than one part of an upload
    folder = write_lora(tmp_path / "large", lora(wide))
    manifest = build_manifest(folder, base_model=BASE)
    uri = await publish_adapter(folder, ROOT, "dr-large", manifest)
    await fetch(uri, manifest_digest(manifest.to_bytes()), tmp_path / "a")


async def test_publishing_again_writes_nothing(
    service: Service, uri: str, peft_folder: Path, manifest: AdapterManifest
) -> None:
    written = service.behind(uri) / "adapter_model.safetensors"
    before = written.stat().st_mtime_ns
    assert await publish_adapter(peft_folder, ROOT, "dr-who", manifest, limits=QUICK) == uri
    assert written.stat().st_mtime_ns == before


async def test_a_missing_object(service: Service, digest: str, tmp_path: Path) -> None:
    with pytest.raises(ArtifactNotFound):
        await fetch(f"{ROOT}/nobody", digest, tmp_path / "a", limits=QUICK)


async def test_a_missing_bucket(service: Service, digest: str, tmp_path: Path) -> None:
    with pytest.raises(ArtifactNotFound):
        await fetch("s3://no-such-bucket/x", digest, tmp_path / "a", limits=QUICK)


async def test_a_wrong_key(uri: str, digest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    with pytest.raises(AccessDenied, match="store Secret"):
        await fetch(uri, digest, tmp_path / "a", limits=QUICK)


async def test_a_truncated_object(service: Service, uri: str, digest: str, tmp_path: Path) -> None:
    weights = service.behind(uri) / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(DigestMismatch, match="truncated"):
        await fetch(uri, digest, tmp_path / "a", limits=QUICK)


async def test_a_peft_folder_that_was_merely_copied(
    service: Service, digest: str, peft_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(peft_folder, service.bucket / "eu" / "copied")
    with pytest.raises(ManifestInvalid, match="kubectl twin adapter push"):
        await fetch(f"{ROOT}/copied", digest, tmp_path / "a", limits=QUICK)


async def test_a_service_that_hangs_is_given_up_in_time(
    service: Service, uri: str, digest: str, tmp_path: Path
) -> None:
    with service.frozen():
        async with asyncio.timeout(15):
            with pytest.raises(StoreUnreachable):
                await fetch(uri, digest, tmp_path / "a", limits=QUICK)


async def test_a_fetch_works_again_once_the_service_does(
    service: Service, uri: str, digest: str, tmp_path: Path
) -> None:
    with service.frozen(), pytest.raises(StoreUnreachable):
        await fetch(uri, digest, tmp_path / "a", limits=QUICK)
    await fetch(uri, digest, tmp_path / "a", limits=QUICK)


async def test_a_service_that_is_not_there(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(StoreUnreachable, match="AWS_ENDPOINT_URL"):
        await read_manifest(f"{ROOT}/x", limits=QUICK)


async def test_a_name_that_does_not_resolve(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://s3.invalid:9000")
    with pytest.raises(StoreUnreachable):
        await read_manifest(f"{ROOT}/x", limits=QUICK)


async def test_a_base_model_is_fetched_into_the_cache(service: Service, tmp_path: Path) -> None:
    write_model(service.bucket.parent / "models" / "smol")
    fetched = await fetch_model(uri="s3://models/smol", name="smol", revision=None, root=tmp_path / "cache")
    assert fetched.origin is Origin.FETCHED
    assert (fetched.folder / "model.safetensors").is_file()


async def test_keys_that_were_rotated_reach_a_pod_that_runs(
    uri: str, digest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pod began with keys that are no longer good; the mounted Secret has the new ones, and the next call them."""
    mounted = tmp_path / "secret"
    mounted.mkdir()
    monkeypatch.setattr(names, "STORE_SECRET_DIR", str(mounted))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of-yesterday")
    with pytest.raises(AccessDenied):
        await fetch(uri, digest, tmp_path / "a", limits=QUICK)
    (mounted / "AWS_ACCESS_KEY_ID").write_text(f"{KEY}\n")
    (mounted / "AWS_SECRET_ACCESS_KEY").write_text(WORD)
    await fetch(uri, digest, tmp_path / "b", limits=QUICK)
    (mounted / "AWS_SECRET_ACCESS_KEY").write_bytes(b"\xff")
    with pytest.raises(AccessDenied):
        await fetch(uri, digest, tmp_path / "c", limits=QUICK)

"""The store against a real S3 service: versitygw over a folder."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bettertherapy_api import names
from bettertherapy_api.manifest import AdapterManifest, manifest_digest
from localcluster.tools import tool_of
from neurons.models import sources
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
from neurons.store.locations import Location

from ..models.conftest import write_model
from .conftest import BASE
from .lora_files import lora, write_lora

if TYPE_CHECKING:
    from obstore import GetResult

pytestmark = pytest.mark.cluster

KEY, WORD = "test-key", "test-word"
ROOT = "s3://adapters/eu"
QUICK = Limits(connect=1, read=1, retries=1, retry=2, call=10)


@dataclass(frozen=True)
class Service:
    """A running S3 service. `bucket` is the folder behind s3://adapters: what is done to it, is done to the objects."""

    process: subprocess.Popen[bytes]
    endpoint: str
    bucket: Path

    def behind(self, uri: str) -> Path:
        return self.bucket.parent / uri.removeprefix("s3://")

    @contextmanager
    def frozen(self) -> Iterator[None]:
        self.process.send_signal(signal.SIGSTOP)
        os.waitpid(self.process.pid, os.WUNTRACED)  # until the last of its threads stands still
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_it_listens(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + 30
    while True:
        assert process.poll() is None, f"versitygw ended with status {process.returncode}"
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert time.monotonic() < deadline, "versitygw does not listen"
            time.sleep(0.05)
        else:
            return


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    tool = tool_of("versitygw")
    if not tool.built:
        pytest.skip("versitygw is not built: run `python -m localcluster build`")
    root = tmp_path_factory.mktemp("s3")
    for name in ("data/adapters", "data/models", "attributes"):
        (root / name).mkdir(parents=True)
    port = free_port()
    command = [tool.folder / "versitygw", "--port", f"127.0.0.1:{port}", "--access", KEY, "--secret", WORD, "--quiet"]
    process = subprocess.Popen(
        [*command, "posix", "--sidecar", root / "attributes", root / "data"], stdout=subprocess.DEVNULL
    )
    try:
        wait_until_it_listens(process, port)
        yield Service(process, f"http://127.0.0.1:{port}", root / "data" / "adapters")
    finally:
        process.kill()
        process.wait(10)


@pytest.fixture
def service(running: Service, monkeypatch: pytest.MonkeyPatch) -> Service:
    monkeypatch.setenv("AWS_ENDPOINT_URL", running.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", WORD)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    for leftover in running.bucket.iterdir():
        shutil.rmtree(leftover)
    return running


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


async def test_a_base_model_goes_on_where_its_download_broke_off_while_its_etag_is_the_same(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for changed in (False, True):
        folder = write_model(service.bucket / f"resumed-{changed}")
        weights, chunks, root = folder / "model.safetensors", Location.chunks, tmp_path / f"cache-{changed}"
        uri = f"s3://adapters/resumed-{changed}"

        async def until_the_middle(
            self: Location, result: GetResult, *, name: str, chunks: Any = chunks
        ) -> AsyncIterator[bytes]:
            async for chunk in chunks(self, result, name=name):
                if name == "model.safetensors":
                    yield chunk[:8192]
                    raise StoreUnreachable("gone")
                yield chunk

        with monkeypatch.context() as patched:
            patched.setattr(sources, "_SYNC_BYTES", 4096)
            patched.setattr(Location, "chunks", until_the_middle)
            with pytest.raises(StoreUnreachable):
                await fetch_model(uri=uri, name="m", revision=None, root=root)
        if changed:
            write_model(folder, seed=5)
        begun: list[int | None] = []
        get_rest = Location.get_rest

        async def told(
            self: Location, name: str, *, start: int, tag: str, begun: Any = begun, get_rest: Any = get_rest
        ) -> GetResult | None:
            begun.append(start)
            found: GetResult | None = await get_rest(self, name, start=start, tag=tag)
            return found

        with monkeypatch.context() as patched:
            patched.setattr(Location, "get_rest", told)
            fetched = await fetch_model(uri=uri, name="m", revision=None, root=root)
        assert begun == ([] if changed else [8192])
        assert (fetched.folder / "model.safetensors").read_bytes() == weights.read_bytes()


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

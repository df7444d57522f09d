"""A real PEFT-shaped folder, small enough to damage in every way."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from bettertherapy_api.manifest import AdapterManifest, BaseModelEntry, Fingerprint, manifest_digest
from neurons.store import build_manifest, publish_adapter

from .lora_files import lora, write_lora
from .s3_service import KEY, WORD, Service

BASE = BaseModelEntry(name="smollm2-135m-instruct", revision="1")
FINGERPRINT = Fingerprint(token_ids=(1, 2, 3), logprobs=(-0.5, -1.25))


def write_peft_folder(folder: Path, *, seed: int = 0, rank: int = 8, **config: object) -> Path:
    """Write an adapter as PEFT does, with a read-me beside it."""
    write_lora(folder, lora(rank=rank, seed=seed), rank=rank, **config)
    (folder / "README.md").write_text("written by PEFT")
    return folder


@pytest.fixture
def peft_folder(tmp_path: Path) -> Path:
    return write_peft_folder(tmp_path / "trained")


@pytest.fixture
def manifest(peft_folder: Path) -> AdapterManifest:
    return build_manifest(peft_folder, base_model=BASE, fingerprint=FINGERPRINT)


@pytest.fixture
def digest(manifest: AdapterManifest) -> str:
    return manifest_digest(manifest.to_bytes())


@pytest.fixture
def store_root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
async def published(peft_folder: Path, manifest: AdapterManifest, store_root: Path) -> str:
    """URI of a published adapter."""
    return await publish_adapter(peft_folder, f"file://{store_root}", "dr-who", manifest)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service.start(tmp_path_factory.mktemp("s3"))
    try:
        yield service
    finally:
        service.stop()


@pytest.fixture
def service(running: Service, monkeypatch: pytest.MonkeyPatch) -> Service:
    """An S3 service with an empty bucket, which this process's environment names."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", running.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", WORD)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    for leftover in running.bucket.iterdir():
        shutil.rmtree(leftover)
    return running

"""A real PEFT-shaped folder, small enough to damage in every way."""

from __future__ import annotations

from pathlib import Path

import pytest

from bettertherapy_api.manifest import AdapterManifest, BaseModelEntry, Fingerprint, manifest_digest
from neurons.store import build_manifest, publish_adapter

from .lora_files import lora, write_lora

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

"""A real PEFT-shaped folder, small enough to damage in every way."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from bettertherapy_api.manifest import AdapterManifest, BaseModelEntry, Fingerprint, manifest_digest
from neurons.store import build_manifest, publish_adapter

BASE = BaseModelEntry(name="smollm2-135m-instruct", revision="1")
FINGERPRINT = Fingerprint(token_ids=(1, 2, 3), logprobs=(-0.5, -1.25))


def write_peft_folder(folder: Path, *, seed: int = 0, rank: int = 8, **config: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).standard_normal((rank, 64), dtype=np.float32)
    save_file({"base_model.model.q_proj.lora_A.weight": values}, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "target_modules": ["q_proj"]} | config
    (folder / "adapter_config.json").write_text(json.dumps(settings))
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

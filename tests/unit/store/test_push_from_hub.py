"""An adapter on the Hugging Face hub: the real client against a server that speaks the hub's protocol."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from neurons.store import fetch_adapter
from tests.unit.models.test_hub import REPO, Hub

from .adapter_kinds import KINDS
from .lora_files import SIZES, safetensors, tensor

pytest.importorskip("huggingface_hub", reason="hf:// needs huggingface_hub, which is not installed here")


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Hub]:
    folder = KINDS["unsloth"].write(tmp_path / "repository")
    (folder / "README.md").write_text("a read-me")
    (folder / "training_args.bin").write_bytes(b"a pickle")
    base = {f"{module}.weight": tensor(shape, dtype="BF16") for module, shape in SIZES.items()}
    (folder / "model.safetensors").write_bytes(safetensors(base))
    hub = Hub(folder)
    runner = web.AppRunner(hub.app())
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    hub.endpoint = "http://{}:{}".format(*runner.addresses[0][:2])
    yield hub
    await runner.cleanup()


async def push(hub: Hub, tmp_path: Path, *extra: str, uri: str = f"hf://{REPO}") -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "neurons.store", "push", uri, "--store", f"file://{tmp_path}/store"),
        *("--twin", "dr-who", "--base-model", "smol", *extra),
        env={**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode or 0, out.decode(), err.decode()


async def test_an_adapter_on_the_hub_is_pushed_without_what_lies_beside_it(hub: Hub, tmp_path: Path) -> None:
    status, out, err = await push(hub, tmp_path, uri=f"hf://{REPO}@v1")
    assert status == 0, err
    pushed = json.loads(out)
    manifest = await fetch_adapter(pushed["uri"], pushed["digest"], tmp_path / "pod" / "a")
    assert [entry.path for entry in manifest.files] == ["adapter_config.json", "adapter_model.safetensors"]
    assert "get training_args.bin" not in hub.asked


async def test_a_base_model_on_the_hub_is_compared_with(hub: Hub, tmp_path: Path) -> None:
    status, _, err = await push(hub, tmp_path, "--base-model-uri", f"hf://{REPO}")
    assert status == 0, err
    (hub.folder / "model.safetensors").write_bytes(safetensors({"model.norm.weight": tensor((4,))}))
    status, _, err = await push(hub, tmp_path, "--base-model-uri", f"hf://{REPO}")
    assert status == 1
    assert "has no module" in err


async def test_an_adapter_that_arrives_damaged_is_not_pushed(hub: Hub, tmp_path: Path) -> None:
    hub.damage.add("adapter_model.safetensors")
    status, _, err = await push(hub, tmp_path)
    assert status == 1
    assert "damaged" in err
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("uri", ["hf://owner", "hf://owner/unknown", f"hf://{REPO}@v9", "hf://gated/smol"])
async def test_what_the_hub_refuses_is_said(uri: str, hub: Hub, tmp_path: Path) -> None:
    status, _, err = await push(hub, tmp_path, uri=uri)
    assert status == 1
    assert err.startswith(("ArtifactNotFound: ", "AccessDenied: "))

"""An adapter whose shapes don't fit the base model is refused in words before it is loaded, where sizes are known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bettertherapy_api.report import FailureReason
from tests.unit.agent.pod import running_pod

ITS_SIZE = 32
"""The stand-in's adapters have one module of 32 x 32."""


def write_base(folder: Path, size: int) -> Path:
    folder.mkdir()
    end = 2 * size * size
    name = "model.layers.0.self_attn.q_proj.weight"
    header = json.dumps({name: {"dtype": "BF16", "shape": [size, size], "data_offsets": [0, end]}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(end))
    return folder


@pytest.mark.parametrize("size", [ITS_SIZE // 2, ITS_SIZE * 2])
async def test_one_of_a_smaller_or_larger_base_model_is_never_loaded(tmp_path: Path, size: int) -> None:
    base = write_base(tmp_path / "base", size)
    async with running_pod(tmp_path / "pod", base_model_dir=base) as pod:
        adapter = pod.adapter("dr", with_fingerprint=False)
        pod.tables.write(adapter)
        report = await pod.failed(adapter)
        assert (report.reason, report.retryable) == (FailureReason.ADAPTER_INVALID, False)
        assert f"32 x 32 in the adapter and {size} x {size} in the base model" in (report.message or "")
        assert pod.engine.calls["POST /v1/load_lora_adapter"] == 0


async def test_one_that_lies_on_the_disk_already_is_compared_too(tmp_path: Path) -> None:
    async with running_pod(tmp_path / "pod") as pod:
        adapter = pod.adapter("dr")
        pod.tables.write(adapter)
        await pod.verified(adapter)
    pod.settings = type(pod.settings)(**{**vars(pod.settings), "base_model_dir": write_base(tmp_path / "base", 64)})
    await pod.engine.restart_unseen()
    async with pod.new_agent():
        pod.tables.write(adapter)
        assert (await pod.failed(adapter)).reason is FailureReason.ADAPTER_INVALID
    await pod.engine.stop()


@pytest.mark.parametrize("made", ["fitting", "missing", "empty", "cut"])
async def test_a_base_model_that_fits_or_cant_be_read_stands_in_nobodys_way(tmp_path: Path, made: str) -> None:
    base = tmp_path / "base"
    if made != "missing":
        write_base(base, ITS_SIZE)
    if made == "empty":
        (base / "model.safetensors").unlink()
    if made == "cut":
        (base / "model.safetensors").write_bytes(b"12")
    async with running_pod(tmp_path / "pod", base_model_dir=base) as pod:
        adapter = pod.adapter("dr")
        pod.tables.write(adapter)
        await pod.verified(adapter)

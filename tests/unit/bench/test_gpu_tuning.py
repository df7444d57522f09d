"""The GPU benchmark of engines tuned from their adapters, tried without a GPU: commands, shapes, load, figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bettertherapy_api.lora_targets import LoraTargets
from neurons.agent.started import changed_beyond_attention
from neurons.store.checks import check_adapter
from tests.bench.gpu import shape
from tests.bench.gpu.tuning import FORMER, PLAIN, TARGETS, Measured, figures_of, main


def lora_arguments(output: str) -> dict[str, list[str]]:
    found = {}
    for line in output.splitlines():
        start, _, command = line.partition(": ")
        words = command.split()
        begin = words.index("--enable-lora") + 1
        found[start] = words[begin : next(i for i, word in enumerate(words) if word.startswith("--max-model-len"))]
    return found


def test_the_dry_part_prints_how_each_engine_is_started(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["--dry", "--out", str(tmp_path / "out"), "--starts", "plain,former,auto"]) == 0
    assert lora_arguments(capsys.readouterr().out) == {
        "plain": ["--max-loras=16", "--max-lora-rank=16", "--max-cpu-loras=16"],
        "former": ["--max-loras=8", "--max-lora-rank=16", "--max-cpu-loras=64"],
        "auto": [
            "--max-loras=64", "--max-lora-rank=16", "--max-cpu-loras=64", "--specialize-active-lora",
            "--lora-target-modules", "q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj",
        ],
    }  # fmt: skip
    assert not (tmp_path / "out").exists()


def test_adapters_on_all_linear_layers_are_wrapped_whole(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["--dry", "--out", str(tmp_path), "--targets", "AllLinear", "--starts", "auto"]) == 0
    assert lora_arguments(capsys.readouterr().out)["auto"][-1] == "--specialize-active-lora"


def test_adapters_have_the_sizes_that_were_measured_by_hand() -> None:
    assert round(shape.adapter_bytes(LoraTargets.ATTENTION, rank=16) / 1e6) == 27
    assert round(shape.adapter_bytes(LoraTargets.ALL_LINEAR, rank=16) / 1e6) == 84


@pytest.mark.parametrize("targets", list(LoraTargets))
def test_adapters_made_on_the_spot_are_adapters(
    targets: LoraTargets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shape, "LAYERS", 1)
    first, second = shape.write_adapters(tmp_path, 2, targets, rank=8)
    assert check_adapter(first).rank == 8
    assert (first / "adapter_model.safetensors").samefile(second / "adapter_model.safetensors")
    beyond = changed_beyond_attention(second)
    assert beyond == ([] if targets is LoraTargets.ATTENTION else ["down_proj", "gate_proj", "up_proj"])


def test_the_script_measures_the_stand_in_from_beginning_to_end(tmp_path: Path) -> None:
    status = main([
        "--standin", "--out", str(tmp_path), "--twins", "3", "--in-flight", "4", "--requests", "8",
        "--per-second", "20", "--seconds", "0.5", "--prompt-tokens", "8", "--tokens", "4", "--start-seconds", "60",
    ])  # fmt: skip
    result = json.loads((tmp_path / "gpu-tuning-attention.json").read_text())
    found = {(each["subject"], each["figure"]): each["spread"]["median"] for each in result["figures"]}
    assert status == 0, result["notes"]
    for start in ("plain", "auto"):
        assert found[start, "tokens"] > 0
        assert found[start, "first token, 95% of them, open arrivals"] > 0
        assert found[start, "requests that failed"] == 0
    assert found["auto", "against plain"] > 0
    assert "stand-in" in result["machine"]


def measured(**fields: Any) -> Measured:
    given: dict[str, Any] = {
        "start_seconds": 200, "load_seconds": 3, "tokens_per_second": 2981, "first_millis": (377.0,),
        "open_millis": (144.0,), "failed": 0,
    }  # fmt: skip
    return Measured(**given | fields)


def test_targets_count_for_the_operators_own_start_alone() -> None:
    plain = measured(tokens_per_second=991)
    auto = figures_of("auto", measured(), plain, TARGETS[LoraTargets.ATTENTION])
    met = {figure.figure: figure.met for figure in auto if figure.target}
    assert met == {
        "tokens": False, "against plain": True, "first token, half of them, always as many in flight": True,
        "first token, 95% of them, open arrivals": True, "requests that failed": True,
    }  # fmt: skip
    for start in (PLAIN, FORMER):
        rows = figures_of(start, plain, plain, None)
        assert [figure.figure for figure in rows if figure.target] == ["requests that failed"]
    assert [f.met for f in figures_of("auto", measured(failed=1), plain, None) if f.target] == [False]

"""In how many processes a training runs, and whether its base model is sharded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from neurons.trainer.arguments import parser
from neurons.trainer.errors import BadModel
from neurons.trainer.sharding import Devices, Layout, layout_of, size_of

GB = 10**9


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A base model of 16 GB, of which nothing lies on the disk."""
    (tmp_path / "config.json").write_text(json.dumps({"dtype": "bfloat16"}))
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(16 * GB)
    return tmp_path


def layout(
    model: Path, *, gpus: int, memory: float, processes: int | None = None, sharding: str = "auto",
    quantization: str | None = None,
) -> Layout:  # fmt: skip
    on = Devices(count=gpus, memory=round(memory * GB))
    return layout_of(model, processes=processes, sharding=sharding, quantization=quantization, on=on)


@pytest.mark.parametrize(
    ("gpus", "memory", "asked", "processes", "sharded", "why"),
    [
        (0, 0, {}, 1, False, "one process holds"),
        (1, 24, {}, 1, False, "one process holds"),
        (1, 8, {}, 1, False, "one process holds"),
        (4, 24, {}, 4, False, "holds the base model whole: it fits on one (16.0 GB, of 24.0 GB on each GPU)"),
        (4, 20, {}, 4, True, "sharded by FSDP: it doesn't fit on one (16.0 GB, of 20.0 GB on each GPU)"),
        (4, 80, {"sharding": "always"}, 4, True, "sharded by FSDP: it is asked for"),
        (4, 80, {"processes": 2}, 2, False, "it fits on one"),
        (4, 12, {"quantization": "nf4"}, 4, False, "it fits on one (5.6 GB"),
        (0, 0, {"processes": 2}, 2, False, "there are no GPUs"),
        (0, 0, {"processes": 2, "sharding": "always"}, 2, True, "it is asked for"),
    ],
)
def test_there_is_a_process_for_each_gpu_and_what_fits_on_one_is_not_sharded(
    gpus: int, memory: float, asked: dict[str, object], processes: int, sharded: bool, why: str, model: Path
) -> None:
    found = layout(model, gpus=gpus, memory=memory, **asked)  # type: ignore[arg-type]
    assert (found.processes, found.sharded) == (processes, sharded)
    assert why in found.why
    assert found.switched_off == (("fused kernels", "CUDA graphs") if sharded else ())


@pytest.mark.parametrize(
    ("gpus", "memory", "asked", "told"),
    [
        (2, 80, {"processes": 4}, "4 processes are asked for, and the pod has 2 GPUs"),
        (1, 80, {"sharding": "always"}, "takes at least 2 processes"),
        (4, 80, {"sharding": "always", "quantization": "nf4"}, r"don't go together. Leave --sharding always"),
        (2, 7, {"quantization": "nf4"}, "In four bits this one still doesn't fit"),
        (4, 20, {"sharding": "never"}, "doesn't fit on one GPU"),
        (2, 10, {}, "doesn't fit on 2 GPUs together"),
    ],
)
def test_what_does_not_go_together_is_refused_with_what_to_do(
    gpus: int, memory: float, asked: dict[str, object], told: str, model: Path
) -> None:
    with pytest.raises(BadModel, match=told):
        layout(model, gpus=gpus, memory=memory, **asked)  # type: ignore[arg-type]


def test_a_model_that_is_stored_in_single_precision_takes_half_of_its_files(model: Path) -> None:
    (model / "config.json").write_text(json.dumps({"torch_dtype": "float32"}))
    assert size_of(model) == 8 * GB
    (model / "config.json").write_text("no JSON")
    assert size_of(model) == 0


def test_a_pool_says_for_all_of_its_trainers_in_how_many_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINER_PROCESSES", "2")
    monkeypatch.setenv("TRAINER_SHARDING", "always")
    given = ["run", "--run=a", "--base-model=.", "--base-model-name=b", "--twin=c", "--store=d", "--dataset-uri=e"]
    assert (parser().parse_args(given).processes, parser().parse_args(given).sharding) == (2, "always")
    for name in ("TRAINER_PROCESSES", "TRAINER_SHARDING"):
        with monkeypatch.context() as patch:
            patch.setenv(name, "Always")
            with pytest.raises(SystemExit):
                parser().parse_args(given)

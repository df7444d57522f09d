"""In how many processes a training runs, and whether each of them holds the base model whole or a shard of it.

Whole where it fits on one GPU: then each computes as one alone does, by fused kernels and CUDA graphs, and all they
exchange is the adapter's gradients. Sharded by FSDP2 where it doesn't fit, or where it is asked for: each layer is
gathered before it computes and let go after it, which neither our kernels nor a recorded graph can follow.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from neurons.trainer.errors import BadModel

SHARDING: Final = ("auto", "never", "always")
MOST_OF_A_GPU: Final = 0.75
"""That a base model may take of a GPU's memory; the rest is for adapter, activations and what CUDA itself takes."""
_IN_FOUR_BITS: Final = 0.35
"""Of a model's size in half precision: its embeddings stay as they are."""
_HALF: Final = 2
_GB: Final = 10**9


@dataclass(frozen=True, slots=True)
class Layout:
    """How a training is laid out on a pod's GPUs."""

    processes: int
    sharded: bool
    why: str
    """For the log: whether the base model is sharded, and why."""

    @property
    def switched_off(self) -> tuple[str, ...]:
        """Return what is not used in this layout, for the log."""
        return ("fused kernels", "CUDA graphs") if self.sharded else ()


@dataclass(frozen=True, slots=True)
class Devices:
    """A pod's GPUs."""

    count: int
    memory: int = 0
    """Bytes of the smallest."""


def devices() -> Devices:
    """Return the GPUs that this process sees; none where there is no torch to see them with."""
    if find_spec("torch") is None:
        return Devices(count=0)
    import torch  # noqa: PLC0415 - seconds to import, and absent where only the rest is tested

    if not torch.cuda.is_available():
        return Devices(count=0)
    count = torch.cuda.device_count()
    return Devices(count, min(torch.cuda.get_device_properties(each).total_memory for each in range(count)))


def layout_of(
    base_model: Path, *, processes: int | None, sharding: str, quantization: str | None, on: Devices
) -> Layout:
    """Return the layout: a process for each GPU unless `processes` says otherwise. Raises BadModel for none that works.

    On a pod without GPUs it is one process, unless `processes` says otherwise.
    """
    count = processes or max(1, on.count)
    if on.count and count > on.count:
        raise BadModel(
            f"{count} processes are asked for, and the pod has {on.count} GPU{'s' * (on.count > 1)}: each takes one. "
            "Leave --processes (TRAINER_PROCESSES) out, or give the run as many GPUs."
        )
    size = size_of(base_model) * (_IN_FOUR_BITS if quantization is not None else 1)
    fits = not on.count or size <= MOST_OF_A_GPU * on.memory
    measure = f"{size / _GB:.1f} GB, of {on.memory / _GB:.1f} GB on each GPU"
    if count == 1:
        if sharding == "always":
            raise BadModel("--sharding always (TRAINER_SHARDING) takes at least 2 processes, and there is 1.")
        return Layout(1, sharded=False, why="one process holds the base model whole")
    if fits and sharding != "always":
        why = f"it fits on one ({measure})" if on.count else "there are no GPUs that it might not fit on"
        return Layout(count, sharded=False, why=f"each process holds the base model whole: {why}")
    if quantization is not None:
        raise BadModel(
            f"quantization {quantization.upper()} and a base model that is sharded among GPUs don't go together. "
            + ("Leave --sharding always (TRAINER_SHARDING) out." if fits else
               f"In four bits this one still doesn't fit on one ({measure}): leave hyperparameters.quantization out.")
        )  # fmt: skip
    if sharding == "never":
        raise BadModel(
            f"--sharding never (TRAINER_SHARDING) is asked for, and the base model doesn't fit on one GPU ({measure}). "
            "Leave it out, or use GPUs with more memory."
        )
    if on.count and size > count * MOST_OF_A_GPU * on.memory:
        raise BadModel(
            f"the base model doesn't fit on {count} GPUs together ({measure}). Give the run more GPUs, or larger ones."
        )
    why = "it is asked for" if fits else f"it doesn't fit on one ({measure})"
    return Layout(count, sharded=True, why=f"the base model is sharded by FSDP: {why}")


def needs_several(base_model: Path) -> bool:
    """Tell whether the base model fits on no single GPU of this pod, which has several."""
    on = devices()
    return on.count > 1 and size_of(base_model) > MOST_OF_A_GPU * on.memory


def size_of(base_model: Path) -> float:
    """Return about how many bytes a base model's weights take in half precision; 0 where nothing tells."""
    weights = list(base_model.glob("*.safetensors")) or list(base_model.glob("*.bin"))
    try:
        config = json.loads((base_model / "config.json").read_bytes())
        stored = config.get("dtype") or config.get("torch_dtype") or ""
    except (OSError, ValueError, AttributeError):  # who reads the model says so better
        return 0.0
    return sum(each.stat().st_size for each in weights) * _HALF / (4 if stored == "float32" else _HALF)


@contextmanager
def read_by_the_first() -> Iterator[None]:
    """Let transformers read a model's weights in the first process alone, into main memory; the others get shapes."""
    asked = {"ACCELERATE_USE_FSDP": "true", "FSDP_CPU_RAM_EFFICIENT_LOADING": "true"}
    before = {name: os.environ.get(name) for name in asked}
    os.environ.update(asked)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def shard(model: Any, accelerator: Any) -> Any:
    """Shard a base model that `read_by_the_first` read, layer by layer, by accelerate's FSDP2; returns it."""
    from accelerate.utils import FullyShardedDataParallelPlugin, fsdp2_prepare_model  # noqa: PLC0415

    model.requires_grad_(requires_grad=False)
    accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2, reshard_after_forward=True, auto_wrap_policy="transformer_based_wrap",
        cpu_ram_efficient_loading=True, state_dict_type="FULL_STATE_DICT",
    )  # fmt: skip
    # As `accelerator.prepare` does, which refuses to on a CPU, where this is tested.
    return fsdp2_prepare_model(accelerator, model)


def sharded_root(adapted: Any) -> None:
    """Make a sharded model's adapted whole the root of its shards; the adapter itself stays whole.

    PEFT calls the base model past its hooks, so the one that gathers and lets go must hang on what is called.
    """
    from torch.distributed.fsdp import fully_shard  # noqa: PLC0415

    fully_shard(adapted, ignored_params={each for each in adapted.parameters() if each.requires_grad})

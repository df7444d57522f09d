"""The base model of a process: read from its folder once, and lent to one run after the other.

What a run leaves in it (adapters, hooks, another precision) is taken out again, and then it is compared with what was
read: a base model that is not the same to the bit is dropped, and read anew for the next run.
"""

from __future__ import annotations

import gc
import json
import logging
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neurons.trainer.errors import OutOfMemory, is_out_of_memory
from neurons.trainer.gradients import Recordings
from neurons.trainer.lora import load
from neurons.trainer.tokens import load_tokenizer

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)


class Base:
    """The base model in a local folder. Nothing is read before it is asked for."""

    def __init__(self, folder: Path, *, keep_recordings: bool = False) -> None:
        """`keep_recordings`: what a training records on it is kept for the next."""
        self.folder = folder
        self.recordings = Recordings() if keep_recordings else None
        self._model: Any = None
        self._as_read: _Looks | None = None
        self._tokenizers: dict[bool, Any] = {}
        """By whether the main thread uses it: two threads may not use one at the same time."""

    @property
    def tokenizer(self) -> Any:
        """Its tokenizer, which nobody may change: one for the main thread, and one for those beside it, of which one
        at a time may ask. Raises BadModel."""
        whose = threading.current_thread() is threading.main_thread()
        if whose not in self._tokenizers:
            self._tokenizers[whose] = load_tokenizer(self.folder)
        return self._tokenizers[whose]

    def model(self, *, quantization: str | None = None) -> Any:
        """Lend the model, on the GPU when there is one. Raises BadModel and OutOfMemory.

        In four bits it is read for this run alone, and the whole one is dropped: a small card has no room for both.
        """
        if quantization is not None:
            self._drop()
            return self._read(quantization)
        if self._model is None:
            self._model = self._read(None)
            self._as_read = _Looks.of(self._model)
        return self._model

    def release(self) -> None:
        """Free the memory that the model takes here; whoever asks for it again has it read anew."""
        self._drop()

    def restore(self) -> None:
        """Make it what it was when it was read, and free the memory of whoever had it."""
        if self._model is not None:
            try:
                _take_out(self._model)
                same = self._as_read is not None and self._as_read.fits(self._model)
            except (RuntimeError, AttributeError, TypeError):  # of PEFT and torch: left in the middle of something
                log.warning("a run left the base model in disorder", exc_info=True)
                same = False
            if not same:
                log.warning("the base model is read anew: a run changed it")
                self._drop()
        _free()

    def _read(self, quantization: str | None) -> Any:
        try:
            return load(self.folder, quantization=quantization)[0]
        except Exception as error:
            if is_out_of_memory(error):
                raise OutOfMemory("memory ran out while the base model was loaded. Give the run more.") from error
            raise

    def _drop(self) -> None:
        self._model = self._as_read = None
        if self.recordings is not None:
            self.recordings.drop()
        _free()


@dataclass(frozen=True, slots=True)
class _Looks:
    """What a model is, as far as a run could change it."""

    modules: dict[str, tuple[type, int]]
    """By name: kind and number of hooks."""
    tensors: dict[str, torch.dtype]
    """Precision of parameters and buffers, by name."""
    sums: dict[str, int]
    """Of their bytes."""
    settings: str

    @classmethod
    def of(cls, model: Any) -> _Looks:
        tensors = dict(_tensors(model))
        return cls(
            modules={name: (type(module), _hooks(module)) for name, module in model.named_modules()},
            tensors={name: tensor.dtype for name, tensor in tensors.items()},
            sums={name: _sum(tensor) for name, tensor in tensors.items()},
            settings=json.dumps([model.config.to_dict(), model.generation_config.to_dict()], default=str),
        )

    def fits(self, model: Any) -> bool:
        """Put the precision back where it was widened, which loses nothing, and tell whether all is the same."""
        import torch  # noqa: PLC0415

        with torch.no_grad():
            for name, tensor in _tensors(model):
                if name in self.tensors and tensor.dtype != self.tensors[name]:
                    tensor.data = tensor.data.to(self.tensors[name])
        return _Looks.of(model) == self


def _tensors(model: Any) -> list[tuple[str, torch.Tensor]]:
    return [*model.named_parameters(), *model.named_buffers()]


def _sum(tensor: torch.Tensor) -> int:
    import torch  # noqa: PLC0415

    numbers = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    return int(tensor.detach().contiguous().view(numbers).sum(dtype=torch.int64))


def _hooks(module: Any) -> int:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(module, kind)) for kind in kinds) + ("forward" in module.__dict__)


def _take_out(model: Any) -> None:
    """Take adapters and a trainer's own additions out of a model."""
    from peft.tuners.tuners_utils import BaseTunerLayer  # noqa: PLC0415

    for name, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer):
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, module.get_base_layer())
    model.__dict__.pop("peft_config", None)  # PEFT would warn of a second adapter
    model.__dict__.pop("forward", None)  # accelerate's autocast
    if getattr(model, "is_gradient_checkpointing", False):
        model.gradient_checkpointing_disable()
    if hasattr(model, "_require_grads_hook"):
        model.disable_input_require_grads()
    for parameter in model.parameters():
        parameter.grad = None
        parameter.requires_grad_(requires_grad=False)
    model.eval()


def _free() -> None:
    gc.collect()
    torch = sys.modules.get("torch")  # seconds to import, and needless where nothing was trained
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()

"""What a trainer takes of a GPU, and what one twin's training leaves to the next: one process, one model in memory.

    python -m tests.gpu.together --tokenizer DIR --twins 3 --seconds 160

For minutes on a lent GPU: a line of JSON as soon as something is known, and the last part isn't begun after
`--seconds`. Peak memory: of trainings as in tests.bench.training, by the trainer, by the trainer without its look at
the largest batch first, and packed with Liger's kernels. Twins: the real `neurons.trainer run` with conversations as in
tests.gpu.many_runs, in this process, on a model of dummy weights that is never written; then the last twin by itself,
with nothing recorded before: it must publish the same bytes. Set TRAINER_KEEP_GRAPHS=true to try kept graphs.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import TextIOBase
from pathlib import Path
from typing import Any, Final

from neurons.trainer import __main__ as trainer
from neurons.trainer import base as bases
from neurons.trainer.gradients import gradients_for
from neurons.trainer.lora import Settings, adapt, seed_everything
from tests.bench.training import SHAPES, SIDES, Side, Step, conversations, dummy_model, timed
from tests.gpu.many_runs import Clinic

_BEGUN: Final = time.monotonic()
_GIB: Final = 2**30
_BATCH: Final = 8


def tell(**fields: object) -> None:
    """Print what is known now."""
    sys.__stdout__.write(json.dumps({"at": round(time.monotonic() - _BEGUN, 1), **fields}) + "\n")  # type: ignore[union-attr]
    sys.__stdout__.flush()  # type: ignore[union-attr]


def as_they_come(model: Any, _: Sequence[object]) -> Step:
    """Return the trainer's gradients whose memory is taken by batches as they come, not by the largest first."""
    return gradients_for(model).of


def memory(model: Any, options: argparse.Namespace) -> None:
    """Tell peak memory and speed, one training of each kind after the other."""
    adapted = adapt(model, settings=Settings(rank=16, alpha=32), parent=None)
    sides = {
        "trainer": SIDES["trainer"], "Liger": SIDES["packed with Liger"],
        "trainer, as they come": Side(as_they_come, SIDES["trainer"].setting),
    }  # fmt: skip
    for name, seed in (
        ("trainer", 1), ("Liger", 1), ("trainer", 2), ("Liger", 2), ("trainer, as they come", 1),
    ):  # fmt: skip
        examples = conversations(_BATCH * options.steps, longest=512, vocabulary=model.config.vocab_size, seed=seed)
        batches = [examples[start : start + _BATCH] for start in range(0, len(examples), _BATCH)]
        _forget_peak()
        speed = timed(adapted, batches, sides[name])
        tell(memory=name, seed=seed, tokens_per_second=round(speed), **_peak())
    bases._take_out(model)


def _forget_peak() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _peak() -> dict[str, float]:
    import torch

    return {
        "reserved_gib": round(torch.cuda.max_memory_reserved() / _GIB, 1),
        "allocated_gib": round(torch.cuda.max_memory_allocated() / _GIB, 1),
    }


class _Lines(TextIOBase):
    """Takes what a trainer says, and tells all but its steps."""

    def __init__(self) -> None:
        self.words: list[dict[str, Any]] = []

    def write(self, text: str) -> int:
        for line in filter(None, text.splitlines()):
            try:
                said = json.loads(line)
            except ValueError:  # a library's own words
                continue
            self.words.append(said)
            if said.get("event") == "step":
                if said["step"] == said["steps"]:
                    tell(trained=said.get("run"), loss=said["loss"])
            else:
                tell(said=said)
        return len(text)


def run(clinic: Clinic, twins: Sequence[str]) -> dict[str, str]:
    """Train these in one trainer; return the digest of each, by twin."""
    arguments = [argument for twin in twins for argument in ("+", *clinic.training(twin))][1:]
    begun, lines = time.monotonic(), _Lines()
    with redirect_stdout(lines):  # type: ignore[type-var]
        status = trainer.main(["run", *arguments], termination_log=Path("/nonexistent"))
    tell(trainer=twins, seconds=round(time.monotonic() - begun, 1), status=status)
    published = [word for word in lines.words if "uri" in word]
    return {word["uri"].rsplit("/", 2)[1]: word["digest"] for word in published}


def together(model: Any, options: argparse.Namespace) -> bool:
    """Train several twins, and the last of them again by itself; tell whether it published the same."""
    from transformers import AutoTokenizer

    shutil.rmtree(options.work, ignore_errors=True)
    folder: Path = options.work / "model"
    AutoTokenizer.from_pretrained(options.tokenizer).save_pretrained(folder)
    model.config.save_pretrained(folder)
    bases.load = lambda _, **__: (model, None)  # type: ignore[assignment]
    clinic = Clinic(options.work / "clinic", folder, conversations=options.conversations, seed=0)
    twins = [clinic.twin(f"twin-{number}") for number in range(options.twins)]
    _forget_peak()
    digests = run(clinic, twins)
    tell(twins=len(twins), **_peak())
    if time.monotonic() - _BEGUN > options.seconds:
        return False
    shutil.rmtree(clinic.folder / "store" / twins[-1])
    alone = run(clinic, twins[-1:])
    same = alone[twins[-1]] == digests[twins[-1]]
    tell(same_bytes_alone=same)
    return same


def main() -> int:
    """Measure; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.together", description=__doc__)
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder with a tokenizer with a chat template")
    parser.add_argument("--shape", choices=SHAPES, default="llama-8b")
    parser.add_argument("--twins", type=int, default=3)
    parser.add_argument("--conversations", type=int, default=200)
    parser.add_argument("--steps", type=int, default=40, help="of a training whose memory is measured; 0: of none")
    parser.add_argument("--seconds", type=float, default=160.0)
    parser.add_argument("--work", type=Path, default=Path("/dev/shm/together"))
    options = parser.parse_args()
    import torch

    seed_everything(0)
    torch.use_deterministic_algorithms(False)
    model = dummy_model(options.shape)
    tell(model=options.shape, torch=torch.__version__)
    if options.steps:
        memory(model, options)
    return 0 if together(model, options) else 1


if __name__ == "__main__":
    sys.exit(main())

"""Tokens trained a second: this trainer against plain transformers + PEFT; same model, batches, precision, optimiser.

    python -m tests.bench.training --shape llama-8b            # dummy weights: speed is honest, the loss means nothing
    python -m tests.bench.training --model DIR --repeats 5

Needs torch, transformers and peft only. Both sides see the same conversations in the same batches and are timed in
turns. A repeat is a whole training on conversations that neither has seen: what the trainer prepares on its way, such
as CUDA graphs, counts. A token counts when it is no padding. Plain: batches padded to their longest conversation, the
loss that transformers computes. Prints one JSON object.
"""

# ruff: noqa: T201 - it speaks to whoever runs it
from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from neurons.trainer.gradients import gradients_for, mixed_precision, reproducible
from neurons.trainer.lora import Settings, adapt, arithmetic, load, seed_everything
from neurons.trainer.packing import Example

SHAPES: Final[dict[str, dict[str, int]]] = {
    "llama-8b": {
        "vocab_size": 128_256, "hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8,
    },
    "llama-1b": {
        "vocab_size": 128_256, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
        "num_attention_heads": 32, "num_key_value_heads": 8,
    },
    "tiny": {
        "vocab_size": 4096, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2,
    },
}  # fmt: skip
MEDIAN_TOKENS: Final = 150
SPREAD: Final = 0.7
ANSWER_SHARE: Final = 0.6
_FIRST_LOSSES: Final = 4
_FIRST_RATE: Final = 0.1


def conversations(count: int, *, longest: int, vocabulary: int, seed: int) -> list[Example]:
    """Return conversations of random tokens, of lengths as chats have: log-normal, a few much longer than the rest."""
    draw = random.Random(seed)
    examples = []
    for _ in range(count):
        length = max(24, min(longest, round(draw.lognormvariate(0, SPREAD) * MEDIAN_TOKENS)))
        tokens = [draw.randrange(3, vocabulary) for _ in range(length)]
        given = length - max(8, round(ANSWER_SHARE * length))
        examples.append(Example(token_ids=tuple(tokens), labels=(*[-100] * given, *tokens[given:])))
    return examples


Step = Callable[[Sequence[Example]], float | None]
"""Leaves a batch's gradients in the model's parameters; may return the loss."""


def plain(model: Any) -> Step:
    """Return what a few lines of transformers and PEFT do. It waits for no loss, so Python runs ahead of the GPU."""

    def step(examples: Sequence[Example]) -> None:
        model.zero_grad(set_to_none=True)
        with mixed_precision(model):
            loss = padded_loss(model, examples)
        loss.backward()

    return step


def trainer(model: Any) -> Step:
    """Return what the trainer does at the start of a training."""
    return gradients_for(model).of


@dataclass(frozen=True)
class Side:
    """One way to train."""

    begin: Callable[[Any], Step]
    setting: Callable[[], AbstractContextManager[None]]
    """What it trains in: the trainer asks for the same bits each time, which plain does not."""


SIDES: Final = {"plain": Side(plain, nullcontext), "trainer": Side(trainer, reproducible)}


def padded_loss(model: Any, examples: Sequence[Example]) -> Any:
    """Return the loss as transformers computes it for a padded batch."""
    import torch

    width = max(len(example.token_ids) for example in examples)

    def padded(rows: Sequence[Sequence[int]], filler: int) -> Any:
        return torch.tensor([[*row, *[filler] * (width - len(row))] for row in rows], device=model.device)

    return model(
        input_ids=padded([example.token_ids for example in examples], 0),
        attention_mask=padded([[1] * len(example.token_ids) for example in examples], 0),
        labels=padded([example.labels for example in examples], -100),
        use_cache=False,
    ).loss


def timed(model: Any, batches: Sequence[Sequence[Example]], side: Side) -> float:
    """Run a training of one optimiser step for each batch and return tokens a second, padding not counted."""
    import torch

    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=1e-4, weight_decay=0.0)
    model.train()
    _wait()
    begun = time.perf_counter()
    with side.setting():
        step = side.begin(model)
        for batch in batches:
            step(batch)
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
    _wait()
    return sum(len(example.token_ids) for batch in batches for example in batch) / (time.perf_counter() - begun)


def measure(options: argparse.Namespace) -> dict[str, object]:
    """Return both sides' tokens a second, each repeat, and their ratio."""
    import torch

    seed_everything(0)
    torch.use_deterministic_algorithms(False)
    model = adapt(_model(options), settings=Settings(rank=options.rank, alpha=2 * options.rank), parent=None)
    size = options.batch_size

    def drawn(seed: int) -> list[list[Example]]:
        vocabulary = model.config.vocab_size
        examples = conversations(options.steps * size, longest=options.longest, vocabulary=vocabulary, seed=seed)
        return [examples[start : start + size] for start in range(0, len(examples), size)]

    trainings = [drawn(options.seed + repeat) for repeat in range(options.repeats)]
    losses = {name: first_losses(model, trainings[0][0], side) for name, side in SIDES.items()}
    results: dict[str, list[float]] = {name: [] for name in SIDES}
    memory: dict[str, float] = {}
    for batches in trainings:
        for name, side in SIDES.items():
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            results[name].append(round(timed(model, batches, side), 1))
            if torch.cuda.is_available():
                memory[name] = round(max(memory.get(name, 0), torch.cuda.max_memory_reserved() / 2**30), 1)
    medians = {name: statistics.median(speeds) for name, speeds in results.items()}
    batches = [batch for training in trainings for batch in training]
    real = sum(len(example.token_ids) for batch in batches for example in batch)
    padded = sum(size * max(len(example.token_ids) for example in batch) for batch in batches)
    return {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "model": options.model.name if options.model else f"{options.shape}, dummy weights",
        "precision": str(model.dtype).removeprefix("torch."),
        "rank": options.rank,
        "batch_size": size,
        "steps": options.steps,
        "tokens_mean": round(real / (size * len(batches))),
        "padding_percent": round(100 * (1 - real / padded)),
        "tokens_per_second": results,
        "peak_gib": memory,
        "first_losses": losses,
        "ratio": round(medians["trainer"] / medians["plain"], 2),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.training", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--model", type=Path, metavar="DIR", help="folder with a model")
    what.add_argument("--shape", choices=SHAPES, help="a model of that shape with dummy weights")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--steps", type=int, default=60, help="optimiser steps of a training")
    parser.add_argument("--repeats", type=int, default=3, help="trainings by each side")
    parser.add_argument("--longest", type=int, default=512, metavar="TOKENS")
    parser.add_argument("--seed", type=int, default=0)
    print(json.dumps(measure(parser.parse_args(arguments)), indent=2))
    return 0


def _model(options: argparse.Namespace) -> Any:
    return load(options.model)[0] if options.model is not None else dummy_model(options.shape)


def dummy_model(shape: str) -> Any:
    """Return a model of one of SHAPES with weights that mean nothing, where and in what the trainer would have it."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    device, precision = arithmetic()
    before = torch.get_default_dtype()
    torch.set_default_dtype(precision)
    try:
        with torch.device(device):
            return LlamaForCausalLM(LlamaConfig(**SHAPES[shape], max_position_embeddings=8192))
    finally:
        torch.set_default_dtype(before)


def first_losses(model: Any, batch: Sequence[Example], side: Side) -> list[float]:
    """Return a batch's losses after each of a few steps down its gradients: both sides must learn the same.

    The losses are computed alike for both. Of the trainer's steps the second one records, where it has something to.
    """
    import torch

    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    before = [parameter.detach().clone() for parameter in parameters]
    model.train()
    step, losses = side.begin(model), []
    with torch.no_grad(), side.setting():
        for _ in range(_FIRST_LOSSES):
            with torch.enable_grad():
                step(batch)
            for parameter in parameters:
                parameter.sub_(parameter.grad, alpha=_FIRST_RATE)
            with mixed_precision(model):
                losses.append(round(float(padded_loss(model, batch)), 4))
        for parameter, old in zip(parameters, before, strict=True):
            parameter.copy_(old)
    return losses


def _wait() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


if __name__ == "__main__":
    sys.exit(main())

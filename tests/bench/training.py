"""Tokens trained a second: this trainer against transformers + PEFT, plain, and packed with all of Liger's kernels.

    python -m tests.bench.training --shape llama-8b            # dummy weights: speed is honest, the loss means nothing
    python -m tests.bench.training --model DIR --repeats 5

Needs torch, transformers and peft; without liger-kernel that side is left out. All sides see the same conversations in
the same batches, in the same precision and with the same optimiser, and are timed in turns. A repeat is a whole
training on conversations that none has seen: what the trainer prepares on its way, such as CUDA graphs, counts. A token
counts when it is no padding. Plain: batches padded to their longest conversation, the loss that transformers computes.
Liger: batches packed as the trainer does, attention by the trainer's kernel for that, and norms, gates, rotations and
the loss by Liger's. The trainer bounds no distance to a parent here, which the others can't. Prints one JSON object.
"""

# ruff: noqa: T201 - it speaks to whoever runs it
from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from neurons.trainer.attention import packed_attention
from neurons.trainer.gradients import gradients_for, mixed_precision, reproducible
from neurons.trainer.lora import Settings, adapt, arithmetic, load, seed_everything
from neurons.trainer.packing import Example, pack

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


def plain(model: Any, _: Sequence[Sequence[Example]]) -> Step:
    """Return what a few lines of transformers and PEFT do. It waits for no loss, so Python runs ahead of the GPU."""

    def step(examples: Sequence[Example]) -> None:
        model.zero_grad(set_to_none=True)
        with mixed_precision(model):
            loss = padded_loss(model, examples)
        loss.backward()

    return step


def packed_with_liger(model: Any, _: Sequence[Sequence[Example]]) -> Step:
    """Return what packing and all of Liger's kernels do, without graphs; nobody waits for the loss here either."""
    import torch

    def step(examples: Sequence[Example]) -> None:
        model.zero_grad(set_to_none=True)
        batch = pack(examples)
        packed = batch.on(model.device)
        labels = torch.tensor([[label for example in examples for label in example.labels]], device=model.device)
        bounds = packed.bounds.to(torch.int32)
        with packed_attention(model):
            with mixed_precision(model):
                loss = model(
                    input_ids=packed.token_ids, position_ids=packed.positions, labels=labels, use_cache=False,
                    cu_seq_lens_q=bounds, max_length_q=batch.longest,
                ).loss  # fmt: skip
            loss.backward()

    return step


@contextmanager
def with_liger(model: Any) -> Iterator[None]:
    """Put Liger's kernels into a Llama, and take them out again."""
    from liger_kernel.transformers import apply_liger_kernel_to_llama
    from transformers.models.llama import modeling_llama

    base = model.get_base_model()
    before = {module: dict(module.__dict__) for module in base.modules()}
    family = dict(modeling_llama.__dict__)
    apply_liger_kernel_to_llama(model=base)
    try:
        yield
    finally:
        for module, own in before.items():
            module.__dict__.clear()
            module.__dict__.update(own)
        modeling_llama.__dict__.update(family)


def trainer(model: Any, batches: Sequence[Sequence[Example]]) -> Step:
    """Return what the trainer does at the start of a training."""
    gradients = gradients_for(model)
    gradients.prepare([(batch, None) for batch in batches])
    return gradients.of


@dataclass(frozen=True)
class Side:
    """One way to train."""

    begin: Callable[[Any, Sequence[Sequence[Example]]], Step]
    """Takes the model, and all batches that will come."""
    setting: Callable[[Any], AbstractContextManager[None]]
    """What it trains in, of the model: the trainer asks for the same bits each time, which others do not."""


SIDES: Final = {
    "plain": Side(plain, lambda _: nullcontext()),
    "packed with Liger": Side(packed_with_liger, with_liger),
    "trainer": Side(trainer, lambda _: reproducible()),
}


def sides_for(model: Any) -> dict[str, Side]:
    """Return the sides that can train this model here."""
    here = model.device.type == "cuda" and find_spec("liger_kernel") is not None
    return {name: side for name, side in SIDES.items() if here or name != "packed with Liger"}


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
    with side.setting(model):
        step = side.begin(model, batches)
        for batch in batches:
            step(batch)
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
    _wait()
    return sum(len(example.token_ids) for batch in batches for example in batch) / (time.perf_counter() - begun)


def measure(options: argparse.Namespace) -> dict[str, object]:
    """Return each side's tokens a second, each repeat, and the trainer's over the others'."""
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
    sides = sides_for(model)
    losses = {name: first_losses(model, trainings[0][0], side) for name, side in sides.items()}
    results: dict[str, list[float]] = {name: [] for name in sides}
    memory: dict[str, float] = {}
    for batches in trainings:
        for name, side in sides.items():
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
        "ratio": {name: round(medians["trainer"] / each, 2) for name, each in medians.items() if name != "trainer"},
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

    The losses are computed alike for both. The trainer's steps are recorded ones, where it records.
    """
    import torch

    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    before = [parameter.detach().clone() for parameter in parameters]
    model.train()
    losses: list[float] = []
    with torch.no_grad(), side.setting(model):
        with torch.enable_grad():
            step = side.begin(model, [batch])
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

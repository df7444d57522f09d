"""Tokens a second of one training on 1, 2 and 4 GPUs of a machine, and whether they train the same adapter.

    python -m tests.gpu.several --tokenizer DIR --out DIR                      # an 8B Llama's shape, whole on each GPU
    python -m tests.gpu.several --tokenizer DIR --out DIR --sharded --gpus 2,4 # its layers sharded by FSDP

By the trainer's own processes (neurons.trainer.launch), with dummy weights. `--batch-size` is that of each GPU where
speeds are compared, so a step of four has four times the conversations; whether the adapters agree is asked with one
batch for all. On a machine without GPUs the same runs on its CPU, which tries the script.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch

from neurons.trainer.launch import Launcher
from neurons.trainer.lora import Interruptions, Learned, Lesson, Settings, Step, _order
from neurons.trainer.sharding import Layout
from tests.bench.results import Figure, Spread
from tests.bench.training import SHAPES, conversations
from tests.gpu.many_runs import build_model
from tests.gpu.outcome import Outcome, describe_gpu, say

_WARM: Final = 8
"""Steps in which graphs are recorded and memory is taken."""
_AGREED: Final = 0.05
"""Of the size of the adapter's change, by which sums in another order may differ after a few steps in bfloat16."""


def trained(model: Path, settings: Settings, layout: Layout) -> tuple[Learned, float]:
    """Train on dummy conversations; return the adapter, and tokens a second once all is warm."""
    vocabulary = json.loads((model / "config.json").read_bytes())["vocab_size"]
    examples = tuple(conversations(4 * settings.batch_size, longest=512, vocabulary=vocabulary, seed=settings.seed))
    steps: list[Step] = []
    lesson = Lesson(base_model=model, parent=None, settings=settings, examples=examples, held_out=())
    learned = Launcher(layout)(lesson, steps.append, Interruptions())
    tokens = sum(len(examples[each].token_ids) for batch in _order(len(examples), settings)[_WARM:] for each in batch)
    return learned, tokens / (steps[-1].seconds - steps[_WARM - 1].seconds)


def apart(one: Learned, other: Learned) -> float:
    """Return how far two adapters are apart, over the size of the first; of its second factors, which begin at zero."""
    difference = size = 0.0
    for name, weights in one.weights.items():
        if "lora_B" in name:
            difference += float((weights.double() - other.weights[name].double()).square().sum())
            size += float(weights.double().square().sum())
    return float((difference / size) ** 0.5)


def measure(args: argparse.Namespace, outcome: Outcome) -> None:
    """Measure each number of GPUs, and compare each one's adapter with that of the fewest."""
    model = args.work / "model"
    shutil.rmtree(args.work, ignore_errors=True)
    build_model(model, shape=args.shape, tokenizer=args.tokenizer)
    torch.cuda.empty_cache()  # which does nothing where there is no GPU
    speeds: dict[int, float] = {}
    first: Learned | None = None
    for count in args.gpus:
        layout = Layout(count, sharded=args.sharded and count > 1, why="it is measured")
        of_all = Settings(
            steps=_WARM + args.steps, batch_size=count * args.batch_size, kl_weight=args.kl_weight, seed=3
        )
        _, speeds[count] = trained(model, of_all, layout)
        same = Settings(steps=_WARM + 2, batch_size=max(args.gpus) * args.batch_size, seed=3)
        learned, _ = trained(model, same, layout)
        say(f"{count}: {speeds[count]:.0f} tokens/s, loss {learned.losses[0]:.4f} to {learned.losses[-1]:.4f}")
        subject, speed = f"{count} GPUs", Spread.of([speeds[count]])
        outcome.figures.append(Figure(subject=subject, figure="training", unit="tokens/s", spread=speed, digits=0))
        if first is None:
            first = learned
            continue
        times = Spread.of([speeds[count] / speeds[args.gpus[0]]])
        outcome.figures.append(
            Figure(subject=subject, figure=f"over {args.gpus[0]}", unit="times", spread=times, digits=2)
        )
        off = apart(first, learned)
        outcome.figures.append(
            Figure(subject=subject, figure=f"adapter apart from that of {args.gpus[0]}", unit="of its size", digits=4,
                   spread=Spread.of([off]), target=f"at most {_AGREED}", met=off <= _AGREED)
        )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.several", description=__doc__)
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder with a tokenizer")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("/dev/shm/several"))
    parser.add_argument("--shape", choices=SHAPES, default="llama-8b")
    parser.add_argument("--gpus", type=lambda text: [int(each) for each in text.split(",")], default=[1, 2, 4])
    parser.add_argument("--sharded", action="store_true", help="shard the base model where there are several")
    parser.add_argument("--batch-size", type=int, default=8, help="conversations of each GPU (%(default)s)")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--kl-weight", type=float, default=0.1)
    args = parser.parse_args(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    outcome = Outcome(
        args.out, "gpu-several", "One training on several GPUs",
        f"{args.shape}, dummy weights, {args.batch_size} conversations of up to 512 tokens a GPU and step, "
        f"{args.steps} steps after {_WARM}; base model {'sharded by FSDP' if args.sharded else 'whole on each GPU'}.",
        "python3 -m tests.gpu.several --tokenizer DIR --out DIR" + " --sharded --gpus 2,4" * args.sharded,
        describe_gpu(standin=False),
    )  # fmt: skip
    try:
        measure(args, outcome)
    finally:
        outcome.write()
    outcome.show()
    return 0 if outcome.good else 1


if __name__ == "__main__":
    sys.exit(main())

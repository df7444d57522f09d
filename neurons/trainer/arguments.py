"""The trainer's two commands and their arguments."""

from __future__ import annotations

import argparse
import re

from bettertherapy_api import names
from neurons.arguments import filled, filled_path
from neurons.trainer.lora import Settings


def parser() -> argparse.ArgumentParser:
    """Return the parser of `train` and `run`."""
    program = argparse.ArgumentParser(prog="python -m neurons.trainer", description="Fine-tune a twin's adapter.")
    commands = program.add_subparsers(dest="command", required=True)
    _add_train(commands.add_parser("train", help="train on a file and publish"))
    _add_run(commands.add_parser("run", help="a FineTuneRun: dataset, training, publishing, evaluation"))
    return program


def _add_train(command: argparse.ArgumentParser) -> None:
    defaults = Settings()
    _add_base(command)
    command.add_argument("--dataset", required=True, type=filled_path, metavar="FILE.jsonl")
    command.add_argument(
        "--output", required=True, type=filled_path, metavar="DIR", help="where the adapter is saved first"
    )
    command.add_argument("--run", type=_name, metavar="NAME", help="name of the run, kept in the lineage")
    command.add_argument("--rank", type=_positive, default=defaults.rank)
    command.add_argument("--alpha", type=_positive, help="LoRA's scale times rank (default: twice the rank)")
    command.add_argument("--steps", type=_positive, default=defaults.steps)
    command.add_argument("--batch-size", type=_positive, default=defaults.batch_size)
    command.add_argument("--learning-rate", type=_rate, default=defaults.learning_rate)
    command.add_argument("--max-tokens", type=_positive, default=defaults.max_tokens, help="longest conversation")
    command.add_argument("--seed", type=int, default=defaults.seed)


def _add_run(command: argparse.ArgumentParser) -> None:
    defaults = Settings()
    command.add_argument("--run", required=True, type=_name, metavar="NAME", help="the FineTuneRun's name")
    _add_base(command)
    command.add_argument(
        "--parent-uri", type=filled, metavar="URI", help="the adapter to go on from; absent: the base model itself"
    )
    command.add_argument("--parent-digest", type=_digest, metavar="sha256:…")
    command.add_argument(
        "--dataset-uri", required=True, type=filled, metavar="URI", help="a folder of *.jsonl, or one file"
    )
    command.add_argument("--dataset-digest", type=_digest, metavar="sha256:…", help="train on exactly this file")
    command.add_argument("--min-interactions", type=_positive, default=1, help="fewer new lines: skipped")
    command.add_argument("--system-prompt-file", type=filled_path, metavar="FILE", help="the twin's system prompt")

    gate = command.add_argument_group("gate")
    gate.add_argument("--eval-uri", type=filled, metavar="URI", help="the twin's held-out items, a JSONL file")
    gate.add_argument("--eval-digest", type=_digest, metavar="sha256:…")
    gate.add_argument(
        "--anchor", type=_anchor, metavar="sha256:…|base",
        help="the version last chosen by a person, where it is not the parent",
    )  # fmt: skip
    gate.add_argument("--anchor-uri", metavar="URI", help="where that one is; the base model needs none")
    gate.add_argument("--min-score-percent", type=_percent, default=60)
    gate.add_argument(
        "--min-safety-percent", type=_percent, default=80,
        help="floor of the safety items' score, and of the share of critical ones won",
    )  # fmt: skip
    gate.add_argument(
        "--category-floor", action="append", default=[], type=_floor, metavar="CATEGORY=PERCENT",
        help="floor of the score on a category of safety items",
    )  # fmt: skip
    gate.add_argument("--margin-percent", type=_percent, default=5, help="a loss of more must be shown not to be")
    gate.add_argument("--min-samples", type=_positive, default=30)
    gate.add_argument("--answer-tokens", type=_positive, default=96, help="longest answer to an item")

    training = command.add_argument_group("training; absent ones are the defaults")
    training.add_argument("--rank", type=_positive, help="default: the parent's, or 16")
    training.add_argument("--alpha", type=_positive, help="default: the parent's, or twice the rank")
    training.add_argument("--learning-rate", type=_rate, default=defaults.learning_rate)
    training.add_argument("--epochs", type=_positive, help="passes over the dataset")
    training.add_argument("--steps", type=_positive, help="most optimiser steps")
    training.add_argument("--batch-size", type=_positive, default=defaults.batch_size)
    training.add_argument("--max-tokens", type=_positive, default=defaults.max_tokens, help="longest conversation")
    training.add_argument("--seed", type=int, default=defaults.seed)
    training.add_argument("--checkpoint-steps", type=_positive, default=20, help="steps between checkpoints")

    retention = command.add_argument_group("retention")
    retention.add_argument("--keep", action="append", default=[], type=_digest, metavar="sha256:…", help="never delete")
    retention.add_argument("--history-limit", type=_positive, metavar="N", help="keep the newest N adapters")
    command.add_argument(
        "--work-dir", type=filled_path, metavar="DIR", help="scratch space (default: a temporary folder)"
    )


def _add_base(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--base-model", required=True, type=filled_path, metavar="PATH", help="folder with the base model"
    )
    command.add_argument(
        "--base-model-name", required=True, type=filled, metavar="NAME", help="the pool's baseModel.name"
    )
    command.add_argument("--base-model-revision", type=filled, metavar="REVISION", help="the pool's baseModel.revision")
    command.add_argument("--base-model-digest", type=_digest, metavar="sha256:…", help="instead of the recorded one")
    command.add_argument("--twin", required=True, type=_name, metavar="NAME")
    command.add_argument("--store", required=True, type=filled, metavar="URI", help="root of the adapter store")


def _positive(value: str) -> int:
    number = int(value)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{value} is not above zero")
    return number


def _percent(value: str) -> int:
    number = int(value)
    if not 0 <= number <= 100:
        raise argparse.ArgumentTypeError(f"{value} is not between 0 and 100")
    return number


def _anchor(value: str) -> str:
    return value if value == "base" else _digest(value)


def _floor(value: str) -> tuple[str, int]:
    category, sign, percent = value.rpartition("=")
    if not sign or not category:
        raise argparse.ArgumentTypeError(f"{value!r} is no floor: expected CATEGORY=PERCENT")
    return category, _percent(percent)


def _rate(value: str) -> float:
    number = float(value)
    if not 0 < number < 1:
        raise argparse.ArgumentTypeError(f"{value} is not between 0 and 1")
    return number


def _digest(value: str) -> str:
    if not names.is_digest(value):
        raise argparse.ArgumentTypeError(f"{value!r} is no digest: expected sha256: and 64 lower-case hex digits")
    return value


def _name(value: str) -> str:
    if not re.fullmatch(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", value):
        raise argparse.ArgumentTypeError(f"{value!r} is no name: lower-case letters, digits, '-' and '.'")
    return value

"""The trainer's two commands and their arguments."""

from __future__ import annotations

import argparse
import os
import re
from typing import Final

from bettertherapy_api import names
from neurons.arguments import filled, filled_path
from neurons.trainer.lora import TARGETS, Settings
from neurons.trainer.schedule import DEFAULT_EPOCHS
from neurons.trainer.sharding import SHARDING
from neurons.trainer.tracking import EXPERIMENT

REHEARSAL_PERCENT: Final = 25
MOST_REHEARSAL_PERCENT: Final = 400
VALIDATION_PERCENT: Final = 10
CHECKPOINT_SECONDS: Final = 30.0
KL_WEIGHT: Final = 0.1
MOST_KL_WEIGHT: Final = 10
PROCESSES: Final = "TRAINER_PROCESSES"
SHARDING_OF: Final = "TRAINER_SHARDING"
KEEP_GRAPHS: Final = "TRAINER_KEEP_GRAPHS"
"""Variables of the environment, which a MinerPool's `fineTune.pod.env` sets for all of its trainers."""


def keeps_graphs() -> bool:
    """Tell whether CUDA graphs stay from run to run: off, until a GPU has shown that the same bytes come out."""
    return os.environ.get(KEEP_GRAPHS, "").lower() in {"1", "true"}


def parser() -> argparse.ArgumentParser:
    """Return the parser of `train` and `run`."""
    program = argparse.ArgumentParser(prog="python -m neurons.trainer", description="Fine-tune a twin's adapter.")
    commands = program.add_subparsers(dest="command", required=True)
    _add_train(commands.add_parser("train", help="train on a file and publish"))
    _add_run(
        commands.add_parser("run", help="a FineTuneRun: dataset, training, publishing; several with + between them")
    )
    return program


def _add_train(command: argparse.ArgumentParser) -> None:
    defaults = Settings()
    add_base(command)
    command.add_argument("--dataset", required=True, type=filled_path, metavar="FILE.jsonl")
    command.add_argument(
        "--output", required=True, type=filled_path, metavar="DIR", help="where the adapter is saved first"
    )
    command.add_argument("--run", type=name, metavar="NAME", help="name of the run, kept in the lineage")
    command.add_argument("--rank", type=positive, default=defaults.rank)
    command.add_argument("--alpha", type=positive, help="LoRA's scale times rank (default: twice the rank)")
    add_targets(command)
    command.add_argument("--steps", type=positive, default=defaults.steps)
    command.add_argument("--batch-size", type=positive, default=defaults.batch_size)
    command.add_argument("--learning-rate", type=_rate, default=defaults.learning_rate)
    command.add_argument("--max-tokens", type=positive, default=defaults.max_tokens, help="longest conversation")
    command.add_argument("--seed", type=int, default=defaults.seed)


def _add_run(command: argparse.ArgumentParser) -> None:
    defaults = Settings()
    command.add_argument("--run", required=True, type=name, metavar="NAME", help="the FineTuneRun's name")
    add_base(command)
    command.add_argument(
        "--parent-uri", type=filled, metavar="URI", help="the adapter to go on from; absent: the base model itself"
    )
    command.add_argument("--parent-digest", type=digest, metavar="sha256:…")
    command.add_argument(
        "--dataset-uri", required=True, type=filled, metavar="URI", help="a folder of *.jsonl, or one file"
    )
    command.add_argument("--dataset-digest", type=digest, metavar="sha256:…", help="train on exactly this file")
    command.add_argument("--min-interactions", type=positive, default=1, help="fewer new lines: skipped")
    command.add_argument("--system-prompt-file", type=filled_path, metavar="FILE", help="the twin's system prompt")

    held_out = command.add_argument_group("what is kept out of training")
    held_out.add_argument("--eval-uri", type=filled, metavar="URI", help="the twin's held-out items, a JSONL file")
    held_out.add_argument("--eval-digest", type=digest, metavar="sha256:…")

    training = command.add_argument_group("training; absent ones are the defaults")
    training.add_argument("--rank", type=positive, help="default: the parent's, or 16")
    training.add_argument("--alpha", type=positive, help="default: the parent's, or twice the rank")
    training.add_argument("--learning-rate", type=_rate, default=defaults.learning_rate)
    training.add_argument(
        "--preference-rate", type=_rate, default=defaults.preference_rate, help="learning rate of preference pairs"
    )
    training.add_argument(
        "--epochs", type=positive, metavar="N",
        help=f"passes over the dataset (default: {DEFAULT_EPOCHS}; with --steps alone as many as the steps make)",
    )  # fmt: skip
    training.add_argument("--steps", type=positive, help="most optimiser steps")
    training.add_argument(
        "--learn-unrated", action="store_true", help="learn answers too that nobody rated or corrected"
    )
    training.add_argument("--batch-size", type=positive, default=defaults.batch_size)
    training.add_argument("--max-tokens", type=positive, default=defaults.max_tokens, help="longest conversation")
    training.add_argument(
        "--rehearsal-percent", type=_whole, default=REHEARSAL_PERCENT, metavar="N",
        help="lines learned before that are learned again, for each hundred new conversations",
    )  # fmt: skip
    training.add_argument(
        "--validation-percent", type=_percent, default=VALIDATION_PERCENT, metavar="N",
        help="share of the conversations that is held back to tell when to stop",
    )  # fmt: skip
    training.add_argument(
        "--kl-weight", type=_weight, default=KL_WEIGHT, help="weight of the distance to the parent in what is minimised"
    )
    training.add_argument("--method", choices=("lora", "rslora"), default=defaults.method)
    add_targets(training)
    training.add_argument("--quantization", choices=("nf4",), help="train on the base model in four bits, on a GPU")
    training.add_argument(
        "--gradient-checkpointing", action="store_true", help="compute activations twice instead of keeping them"
    )
    training.add_argument(
        "--processes", type=positive, metavar="N", default=os.environ.get(PROCESSES) or None,
        help=f"each takes its share of every batch (default: {PROCESSES}, or one for each GPU)",
    )  # fmt: skip
    training.add_argument(
        "--sharding", type=_sharding, metavar="|".join(SHARDING), default=os.environ.get(SHARDING_OF) or "auto",
        help=f"whether the base model is sharded among them; auto: where it fits on no single GPU (default: "
        f"{SHARDING_OF}, or auto)",
    )  # fmt: skip
    training.add_argument("--seed", type=int, default=defaults.seed)
    training.add_argument("--checkpoint-steps", type=positive, default=20, help="steps between checkpoints")
    training.add_argument(
        "--checkpoint-seconds", type=_seconds, default=CHECKPOINT_SECONDS, metavar="SECONDS",
        help="least time between checkpoints: of training that another attempt may have to do again",
    )  # fmt: skip

    add_progress(command)
    retention = command.add_argument_group("retention")
    retention.add_argument("--keep", action="append", default=[], type=digest, metavar="sha256:…", help="never delete")
    retention.add_argument("--history-limit", type=positive, metavar="N", help="keep the newest N adapters")
    tracking = command.add_argument_group("curves of the training; absent: none")
    tracking.add_argument(
        "--mlflow-endpoint",
        type=_web_address,
        metavar="URL",
        help="an MLflow tracking server; credentials by its variables",
    )
    tracking.add_argument("--mlflow-experiment", type=filled, default=EXPERIMENT, metavar="NAME")
    tracking.add_argument("--tensorboard", action="store_true", help="event files at <store>/<twin>/tensorboard/<run>")
    command.add_argument(
        "--work-dir", type=filled_path, metavar="DIR", help="scratch space (default: a temporary folder)"
    )


def add_targets(group: argparse._ActionsContainer) -> None:
    """Add the argument that says which modules a first adapter changes."""
    group.add_argument(
        "--targets", choices=TARGETS, default=Settings().targets,
        help="modules that an adapter without a parent changes; attention is served faster",
    )  # fmt: skip


def add_base(command: argparse.ArgumentParser) -> None:
    """Add the arguments that say which base model, which twin and which store."""
    command.add_argument(
        "--base-model", required=True, type=filled_path, metavar="PATH", help="folder with the base model"
    )
    command.add_argument(
        "--base-model-name", required=True, type=filled, metavar="NAME", help="the pool's baseModel.name"
    )
    command.add_argument("--base-model-revision", type=filled, metavar="REVISION", help="the pool's baseModel.revision")
    command.add_argument("--base-model-digest", type=digest, metavar="sha256:…", help="instead of the recorded one")
    command.add_argument("--twin", required=True, type=name, metavar="NAME")
    command.add_argument("--store", required=True, type=filled, metavar="URI", help="root of the adapter store")


def add_progress(command: argparse.ArgumentParser) -> None:
    """Add the argument that says where a run tells its progress."""
    command.add_argument(
        "--progress-configmap", type=name, metavar="NAME",
        help="where it tells its progress (default: the environment's PROGRESS_CONFIGMAP)",
    )  # fmt: skip


def positive(value: str) -> int:
    """Return a whole number above zero. Raises ArgumentTypeError, or ValueError for no number."""
    number = int(value)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{value} is not above zero")
    return number


def _web_address(value: str) -> str:
    if not re.fullmatch(r"https?://[^\s?#@]+", value):
        raise argparse.ArgumentTypeError(f"{value!r} is no address as http://mlflow.ml.svc:5000")
    return value


def _whole(value: str) -> int:
    number = int(value)
    if not 0 <= number <= MOST_REHEARSAL_PERCENT:
        raise argparse.ArgumentTypeError(f"{value} is not between 0 and {MOST_REHEARSAL_PERCENT}")
    return number


def _weight(value: str) -> float:
    number = float(value)
    if not 0 <= number <= MOST_KL_WEIGHT:
        raise argparse.ArgumentTypeError(f"{value} is not between 0 and {MOST_KL_WEIGHT}")
    return number


def _seconds(value: str) -> float:
    number = float(value)
    if not number >= 0:
        raise argparse.ArgumentTypeError(f"{value} is below zero")
    return number


def _percent(value: str) -> int:
    number = int(value)
    if not 0 <= number <= 100:
        raise argparse.ArgumentTypeError(f"{value} is not between 0 and 100")
    return number


def _sharding(value: str) -> str:
    if value not in SHARDING:  # argparse looks at no default's `choices`
        raise argparse.ArgumentTypeError(f"{value!r} is none of {', '.join(SHARDING)}")
    return value


def _rate(value: str) -> float:
    number = float(value)
    if not 0 < number < 1:
        raise argparse.ArgumentTypeError(f"{value} is not between 0 and 1")
    return number


def digest(value: str) -> str:
    """Return a digest as it is. Raises ArgumentTypeError for what is none."""
    if not names.is_digest(value):
        raise argparse.ArgumentTypeError(f"{value!r} is no digest: expected sha256: and 64 lower-case hex digits")
    return value


def name(value: str) -> str:
    """Return a Kubernetes name as it is. Raises ArgumentTypeError for what is none."""
    if not re.fullmatch(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", value):
        raise argparse.ArgumentTypeError(f"{value!r} is no name: lower-case letters, digits, '-' and '.'")
    return value

"""`python -m neurons.trainer train`: one JSON object a line on standard output, the last one is the result.

The result (or the failure) also goes to /dev/termination-log, so that the pod's status carries it.
Exit status: 0 published, 1 failed for good, 75 worth another try, 2 wrong arguments.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bettertherapy_api import names
from bettertherapy_api.manifest import BaseModelEntry, Lineage
from neurons.store.model_record import read_record
from neurons.trainer.dataset import read_dataset
from neurons.trainer.errors import TrainerError
from neurons.trainer.fingerprint import take_fingerprint
from neurons.trainer.lora import Settings, Step, save, train
from neurons.trainer.publish import publish

TERMINATION_LOG: Final = Path("/dev/termination-log")
_TRY_AGAIN: Final = 75  # EX_TEMPFAIL of sysexits.h


def main(arguments: Sequence[str] | None = None, *, termination_log: Path = TERMINATION_LOG) -> int:
    """Run the command and return the exit status."""
    options = _parser().parse_args(arguments)
    try:
        result = _train(options)
    except TrainerError as error:
        failure = {"class": error.failure_class, "retryable": error.retryable, "message": str(error)}
        _finish({"failure": failure}, termination_log)
        return _TRY_AGAIN if error.retryable else 1
    _finish(result, termination_log)
    return 0


def _train(options: argparse.Namespace) -> dict[str, object]:
    begun = time.monotonic()
    dataset = read_dataset(options.dataset)
    _say(
        event="dataset",
        digest=dataset.digest,
        conversations=len(dataset.conversations),
        refused={str(reason): count for reason, count in dataset.refused.items()},
    )
    settings = Settings(
        rank=options.rank,
        alpha=options.alpha if options.alpha is not None else 2 * options.rank,
        steps=options.steps,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        max_tokens=options.max_tokens,
        seed=options.seed,
    )
    trained = train(dataset.conversations, base_model=options.base_model, settings=settings, report=_say_step)
    save(trained, options.output, base_model_name=options.base_model_name)
    fingerprint, distance = take_fingerprint(trained)
    _say(event="fingerprint", tokens=len(fingerprint.token_ids), nats_to_base=round(distance, 4))
    record = read_record(options.base_model)
    artifact = publish(
        options.output,
        store=options.store,
        twin=options.twin,
        base_model=BaseModelEntry(
            name=options.base_model_name,
            revision=options.base_model_revision,
            digest=options.base_model_digest or (record.digest if record else None),
        ),
        fingerprint=fingerprint,
        lineage=Lineage(dataset_digest=dataset.digest, run=options.run, seed=options.seed),
    )
    return {
        "uri": artifact.uri,
        "digest": artifact.digest,
        "rank": artifact.rank,
        "bytes": artifact.size,
        "loss_first": round(trained.losses[0], 4),
        "loss_last": round(trained.losses[-1], 4),
        "seconds": round(time.monotonic() - begun, 1),
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m neurons.trainer", description="Fine-tune a twin's adapter.")
    command = parser.add_subparsers(dest="command", required=True).add_parser("train", help="train and publish")
    command.add_argument("--base-model", required=True, type=Path, metavar="PATH", help="folder with the base model")
    command.add_argument("--base-model-name", required=True, metavar="NAME", help="the pool's baseModel.name")
    command.add_argument("--base-model-revision", metavar="REVISION", help="the pool's baseModel.revision")
    command.add_argument("--base-model-digest", type=_digest, metavar="sha256:…", help="instead of the recorded one")
    command.add_argument("--dataset", required=True, type=Path, metavar="FILE.jsonl")
    command.add_argument("--output", required=True, type=Path, metavar="DIR", help="where the adapter is saved first")
    command.add_argument("--twin", required=True, metavar="NAME")
    command.add_argument("--store", required=True, metavar="URI", help="root of the adapter store")
    command.add_argument("--run", metavar="NAME", help="name of the run, kept in the lineage")
    defaults = Settings()
    command.add_argument("--rank", type=_positive, default=defaults.rank)
    command.add_argument("--alpha", type=_positive, help="LoRA's scale times rank (default: twice the rank)")
    command.add_argument("--steps", type=_positive, default=defaults.steps)
    command.add_argument("--batch-size", type=_positive, default=defaults.batch_size)
    command.add_argument("--learning-rate", type=_rate, default=defaults.learning_rate)
    command.add_argument("--max-tokens", type=_positive, default=defaults.max_tokens, help="cut conversations here")
    command.add_argument("--seed", type=int, default=defaults.seed)
    return parser


def _positive(value: str) -> int:
    number = int(value)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{value} is not above zero")
    return number


def _rate(value: str) -> float:
    number = float(value)
    if not 0 < number < 1:
        raise argparse.ArgumentTypeError(f"{value} is not between 0 and 1")
    return number


def _digest(value: str) -> str:
    if not names.is_digest(value):
        raise argparse.ArgumentTypeError(f"{value!r} is no digest: expected sha256: and 64 lower-case hex digits")
    return value


def _say_step(step: Step) -> None:
    _say(
        event="step",
        step=step.number,
        steps=step.of,
        loss=round(step.loss, 4),
        seconds=round(step.seconds, 2),
        remaining_seconds=round(step.remaining_seconds, 1),
    )


def _say(**fields: object) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def _finish(result: dict[str, object], termination_log: Path) -> None:
    _say(**result)
    if termination_log.exists():
        termination_log.write_text(json.dumps(result)[:4096])


if __name__ == "__main__":
    sys.exit(main())

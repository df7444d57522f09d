"""`python -m neurons.trainer train` or `run`: one JSON object a line on standard output, the result last.

The result (or the failure) also goes to /dev/termination-log, so that the pod's status carries it; `run` tells its
progress in a ConfigMap too, where PROGRESS_CONFIGMAP and POD_NAMESPACE are set.
Exit status: 0 done (also: skipped), 1 failed for good, 75 worth another try, 2 wrong arguments. What was published is
examined by another program (neurons.examiner).
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from bettertherapy_api.manifest import BaseModelEntry, Lineage
from bettertherapy_api.run_progress import LastWord
from neurons.store.model_record import read_record
from neurons.trainer.arguments import parser
from neurons.trainer.dataset import added, read_dataset
from neurons.trainer.errors import Preempted, TrainerError
from neurons.trainer.fingerprint import take_fingerprint
from neurons.trainer.lines import Flaw
from neurons.trainer.lora import Settings, Step, save, train
from neurons.trainer.progress import say
from neurons.trainer.publish import publish
from neurons.trainer.reporting import TERMINATION_LOG, TRY_AGAIN, failure_report, finish, progress_of_environment
from neurons.trainer.run import Run
from neurons.trainer.termination import Terminated, Termination
from neurons.trainer.tokens import UNFIT, Fit, fit, load_tokenizer, unfit
from neurons.trainer.tracking import tracking_of


def main(arguments: Sequence[str] | None = None, *, termination_log: Path = TERMINATION_LOG) -> int:
    """Run the command and return the exit status."""
    options = parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        result = _train(options) if options.command == "train" else _run(options)
    except TrainerError as error:
        finish(LastWord(failure=failure_report(error)).model_dump(by_alias=True), termination_log)
        return TRY_AGAIN if error.retryable else 1
    finish(result, termination_log)
    return 0


def _run(options: argparse.Namespace) -> dict[str, object]:
    termination = Termination()
    if threading.current_thread() is threading.main_thread():
        termination.install()
    scratch = options.work_dir
    with (
        tempfile.TemporaryDirectory(dir=scratch) as work,
        progress_of_environment() as progress,
        tracking_of(options, Path(work) / "tensorboard") as tracking,
    ):
        try:
            try:
                run = Run(options, work=Path(work), progress=progress, termination=termination, tracking=tracking)
                return run.execute()
            except Terminated:
                raise Preempted("told to end; another attempt goes on from what is kept in the store.") from None
        except TrainerError as error:
            progress.tell(failure=failure_report(error))
            tracking.end("KILLED" if isinstance(error, Preempted) else "FAILED", failure=error.failure_class)
            raise


def _train(options: argparse.Namespace) -> dict[str, object]:
    begun = time.monotonic()
    dataset = read_dataset(options.dataset)
    tokenizer = load_tokenizer(options.base_model)
    fits = [fit(each, tokenizer, max_tokens=options.max_tokens) for each in dataset.conversations]
    say(
        event="dataset",
        digest=dataset.digest,
        conversations=sum(each not in UNFIT for each in fits),
        refused=added(dataset.refused, unfit(fits)),
        repaired=added(dataset.repaired, {Flaw.TOO_LONG.value: fits.count(Fit.SHORTENED)}),
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
    say(event="fingerprint", tokens=len(fingerprint.token_ids), nats_to_base=round(distance, 4))
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


def _say_step(step: Step) -> None:
    say(
        event="step",
        step=step.number,
        steps=step.of,
        loss=round(step.loss, 4),
        seconds=round(step.seconds, 2),
        remaining_seconds=round(step.remaining_seconds, 1),
    )


if __name__ == "__main__":
    sys.exit(main())

"""`python -m neurons.trainer train` or `run`: one JSON object a line on standard output, the result last.

The result (or the failure) also goes to /dev/termination-log, so that the pod's status carries it; `run` tells its
progress in a ConfigMap too, where `--progress-configmap` or PROGRESS_CONFIGMAP names one and POD_NAMESPACE is set.
Exit status: 0 done (also: skipped), 1 failed for good, 75 worth another try, 2 wrong arguments. What was published is
examined by another program (neurons.examiner).

`run GROUP + GROUP + …` does several runs of one base model one after the other, each with the arguments of `run` and a
`--progress-configmap` of its own; while one trains, the next one is read and the last one published. Each line names
its run, the last one says `{"runs": {NAME: …}}`. Exit status: 0 each is done or failed for good, 75 at least one may be
tried again; another attempt trains none that the store says is done.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from bettertherapy_api.manifest import BaseModelEntry, Lineage
from bettertherapy_api.run_progress import LastWord
from neurons.groups import read_groups
from neurons.store.model_record import hold_model, read_record
from neurons.trainer.arguments import keeps_graphs, parser
from neurons.trainer.base import Base
from neurons.trainer.dataset import added, read_dataset
from neurons.trainer.errors import TrainerError
from neurons.trainer.fingerprint import take_fingerprint
from neurons.trainer.lines import Flaw
from neurons.trainer.lora import Settings, Step, save, train
from neurons.trainer.pipeline import Pipeline
from neurons.trainer.progress import Progress, say
from neurons.trainer.publish import publish
from neurons.trainer.reporting import TERMINATION_LOG, TRY_AGAIN, failure_report, finish, progress_of_environment
from neurons.trainer.termination import leave
from neurons.trainer.together import Ends
from neurons.trainer.tokens import UNFIT, Fit, fit, unfit
from neurons.trainer.training import Training


def main(arguments: Sequence[str] | None = None, *, termination_log: Path = TERMINATION_LOG) -> int:
    """Run the command and return the exit status."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    runs = read_groups(given[1:], parser, command=given[:1]) if given[:1] == ["run"] else []
    options = runs[0] if runs else parser().parse_args(given)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    if runs:
        return _run(runs, termination_log)
    try:
        result = _train(options)
    except TrainerError as error:
        finish(LastWord(failure=failure_report(error)).model_dump(by_alias=True), termination_log)
        return TRY_AGAIN if error.retryable else 1
    finish(result, termination_log)
    return 0


def _run(runs: Sequence[argparse.Namespace], termination_log: Path) -> int:
    ends = Ends(runs, preempted="told to end; another attempt goes on from what is kept in the store.")
    hold_model(runs[0].base_model)
    base = Base(runs[0].base_model, keep_recordings=ends.several and keeps_graphs())

    def begin(options: argparse.Namespace) -> Training:
        return Training(options, _progress_of(options, elsewhere=ends.several), base=base, termination=ends.termination)

    with ends.listening():
        Pipeline(ends, begin=begin, between=base.restore).work()
        ends.preempt_the_rest(partial(_progress_of, elsewhere=ends.several))
    return ends.finish(termination_log)


def _progress_of(options: argparse.Namespace, *, elsewhere: bool = False) -> Progress:
    return progress_of_environment(configmap=options.progress_configmap, elsewhere=elsewhere)


def _train(options: argparse.Namespace) -> dict[str, object]:
    begun = time.monotonic()
    dataset = read_dataset(options.dataset)
    base = Base(options.base_model)
    tokenizer = base.tokenizer
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
        targets=options.targets,
        seed=options.seed,
    )
    trained = train(dataset.conversations, base=base, settings=settings, report=_say_step)
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
    leave(main())

"""`python -m neurons.examiner`: one JSON object a line on standard output, the last one says what was examined.

What it found goes into the ConfigMap that `--progress-configmap` or PROGRESS_CONFIGMAP, and POD_NAMESPACE name; a
failure also goes to /dev/termination-log. Exit status: 0 examined, 1 failed for good, 75 worth another try, 2 wrong
arguments.

`GROUP + GROUP + …` examines the versions of several runs on one base model, each with a `--progress-configmap` of its
own; what several of them ask the same version alike is asked once. The last line says `{"runs": {NAME: …}}`. Exit
status: 0 each is examined or failed for good, 75 at least one may be tried again.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final

from bettertherapy_api.run_progress import RunStage
from neurons.examiner.arguments import parser
from neurons.examiner.run import Asking, Examiner, Voice, ask
from neurons.groups import read_groups
from neurons.store.model_record import hold_model
from neurons.trainer.base import Base
from neurons.trainer.progress import Progress
from neurons.trainer.reporting import TERMINATION_LOG, progress_of_environment
from neurons.trainer.termination import leave
from neurons.trainer.together import Ends

FIELD_MANAGER: Final = "examiner"


def main(arguments: Sequence[str] | None = None, *, termination_log: Path = TERMINATION_LOG) -> int:
    """Examine and return the exit status."""
    runs = read_groups(sys.argv[1:] if arguments is None else arguments, parser)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    ends = Ends(runs, preempted="told to end; another attempt begins the examination anew.")
    with ends.listening(), ExitStack() as stack:
        progress = {run.run: stack.enter_context(_progress_of(run, elsewhere=ends.several)) for run in runs}
        examiners: dict[str, Examiner] = {}

        def prepare(run: argparse.Namespace) -> None:
            work = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=run.work_dir)))
            examiner = Examiner(run, work=work, progress=progress[run.run])
            examiner.prepare()
            examiners[run.run] = examiner

        for run in runs:
            ends.attempt({run.run: progress[run.run]}, partial(prepare, run))
        hold_model(runs[0].base_model)
        base = Base(runs[0].base_model)
        for name in examiners:
            _examine(name, examiners, base, ends=ends, progress=progress)
        for each in progress.values():
            each.close_soon()
    return ends.finish(termination_log)


def _examine(
    name: str, examiners: Mapping[str, Examiner], base: Base, *, ends: Ends, progress: Mapping[str, Progress]
) -> None:
    """Ask whom the run has still to hear, for all runs that ask the same; conclude it when it heard all."""
    examiner = examiners[name]
    while examiner.unheard and ends.is_waiting(name):
        voice, asking = next(iter(examiner.unheard.values())), examiner.asking
        assert asking is not None  # noqa: S101 - else nobody is unheard
        alike = [
            each
            for other, each in examiners.items()
            if ends.is_waiting(other)
            and each.asking is not None
            and each.asking.digest == asking.digest
            and any(unheard.digest == voice.digest for unheard in each.unheard.values())
        ]
        concerned = {each.name: progress[each.name] for each in alike}
        ends.attempt(concerned, partial(_hear, alike, base, asking, voice))
    if ends.is_waiting(name):
        ends.attempt({name: progress[name]}, lambda: ends.done(name, examiner.conclude()))


def _hear(alike: Sequence[Examiner], base: Base, asking: Asking, voice: Voice) -> None:
    """Ask a version for all who ask the same."""

    def report(answered: int) -> None:
        for each in alike:
            each.told(answered)

    said = ask(base, asking, voice, report=report)
    for each in alike:
        each.hear(voice, said)


def _progress_of(options: argparse.Namespace, *, elsewhere: bool) -> Progress:
    return progress_of_environment(
        first=RunStage.EVALUATE, field_manager=FIELD_MANAGER, configmap=options.progress_configmap, elsewhere=elsewhere
    )


if __name__ == "__main__":
    leave(main())

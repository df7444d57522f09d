"""`python -m neurons.examiner`: one JSON object a line on standard output, the last one says what was examined.

What it found goes into the ConfigMap that `--progress-configmap` or PROGRESS_CONFIGMAP, and POD_NAMESPACE name; a
failure also goes to /dev/termination-log. Exit status: 0 examined, 1 failed for good, 75 worth another try, 2 wrong
arguments.

`GROUP + GROUP + …` examines the versions of several runs on one base model, each with a `--progress-configmap` of its
own; what several of them ask the same version alike is asked once, and while versions are asked the next run's are
fetched and the last one's answers scored. The last line says `{"runs": {NAME: …}}`. Exit
status: 0 each is examined or failed for good, 75 at least one may be tried again.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

from bettertherapy_api.run_progress import RunStage
from neurons.examiner.arguments import parser
from neurons.examiner.examining import Examining
from neurons.examiner.run import Heard
from neurons.groups import read_groups
from neurons.store.model_record import hold_model
from neurons.trainer.base import Base
from neurons.trainer.pipeline import Pipeline
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
    hold_model(runs[0].base_model)
    base, heard = Base(runs[0].base_model), Heard()

    def begin(options: argparse.Namespace) -> Examining:
        return Examining(options, _progress_of(options, elsewhere=ends.several), base=base, heard=heard)

    with ends.listening():
        Pipeline(ends, begin=begin).work()
        ends.preempt_the_rest(partial(_progress_of, elsewhere=ends.several))
    return ends.finish(termination_log)


def _progress_of(options: argparse.Namespace, *, elsewhere: bool) -> Progress:
    return progress_of_environment(
        first=RunStage.EVALUATE, field_manager=FIELD_MANAGER, configmap=options.progress_configmap, elsewhere=elsewhere
    )


if __name__ == "__main__":
    leave(main())

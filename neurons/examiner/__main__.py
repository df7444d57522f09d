"""`python -m neurons.examiner`: one JSON object a line on standard output, the last one says what was examined.

What it found goes into the ConfigMap that PROGRESS_CONFIGMAP and POD_NAMESPACE name; a failure also goes to
/dev/termination-log. Exit status: 0 examined, 1 failed for good, 75 worth another try, 2 wrong arguments.
"""

from __future__ import annotations

import logging
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bettertherapy_api.run_progress import LastWord, RunStage
from neurons.examiner.arguments import parser
from neurons.examiner.run import Examiner
from neurons.trainer.errors import Preempted, TrainerError
from neurons.trainer.reporting import TERMINATION_LOG, TRY_AGAIN, failure_report, finish, progress_of_environment
from neurons.trainer.termination import Terminated, Termination

FIELD_MANAGER: Final = "examiner"


def main(arguments: Sequence[str] | None = None, *, termination_log: Path = TERMINATION_LOG) -> int:
    """Examine and return the exit status."""
    options = parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    if threading.current_thread() is threading.main_thread():
        Termination().install()
    with (
        tempfile.TemporaryDirectory(dir=options.work_dir) as work,
        progress_of_environment(first=RunStage.EVALUATE, field_manager=FIELD_MANAGER) as progress,
    ):
        try:
            try:
                result = Examiner(options, work=Path(work), progress=progress).execute()
            except Terminated:
                raise Preempted("told to end; another attempt begins the examination anew.") from None
        except TrainerError as error:
            progress.tell(failure=failure_report(error))
            finish(LastWord(failure=failure_report(error)).model_dump(by_alias=True), termination_log)
            return TRY_AGAIN if error.retryable else 1
    finish(result, termination_log)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Several runs in one process, the base model there once: each run's end is its own, and the process's is that of all.

Used by trainer and examiner. A fault of one run ends neither the process nor the others. A process that is told to end
says of what it can't do any more that it may be tried again.
"""

from __future__ import annotations

import argparse
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path

from bettertherapy_api.run_progress import LastWord
from neurons.trainer.errors import OutOfMemory, Preempted, TrainerError, Unexpected, is_out_of_memory
from neurons.trainer.progress import Progress, say, saying_of
from neurons.trainer.reporting import TRY_AGAIN, failure_report, finish, finish_several
from neurons.trainer.termination import Terminated, Termination

log = logging.getLogger(__name__)

Run = argparse.Namespace
"""A group of arguments."""


class Ends:
    """How each of a process's runs ended. Of one run alone the exit status tells whether it failed for good."""

    def __init__(self, runs: Sequence[Run], *, preempted: str) -> None:
        """`preempted` is what a run says that was told to end."""
        self._runs, self._preempted = tuple(runs), preempted
        self._words: dict[str, Mapping[str, object]] = {}
        self._again = self._for_good = False
        self._lock = threading.Lock()
        self.termination = Termination()

    @property
    def several(self) -> bool:
        """Whether the process has more than one run."""
        return len(self._runs) > 1

    @property
    def waiting(self) -> tuple[Run, ...]:
        """The runs that are not over, in their order."""
        return tuple(run for run in self._runs if run.run not in self._words)

    def is_waiting(self, run: str) -> bool:
        """Tell whether a run is not over."""
        return run not in self._words

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take SIGTERM from here on; it interrupts what is attempted, and nothing else."""
        with self.termination.deferred():
            if threading.current_thread() is threading.main_thread():
                self.termination.install()
            yield

    def attempt(self, progress: Mapping[str, Progress], doing: Callable[[], None], *, aside: bool = False) -> None:
        """Take what is raised by `doing`, SIGTERM too, for the end of these runs, by name; they say that they are at
        work.

        A fault that nobody expected is raised where there is one run, and ends these alone where there are several,
        which may be tried again: it may be the process's own.
        `aside`: in a thread beside the main one, which is at work on another run. SIGTERM interrupts nothing there, and
        how the process ends says nothing of these.
        """
        only = next(iter(progress)) if self.several and len(progress) == 1 else None
        interruptible: AbstractContextManager[None] = nullcontext() if aside else self.termination.interruptible()
        # Of an exception nothing is kept but what it says: its frames hold a model's memory.
        try:
            with saying_of(only), interruptible:
                for told in progress.values():
                    told.tell(elsewhere=aside)
                doing()
        except Terminated:
            self.preempt(progress)
        except TrainerError as error:
            self._fail(progress, error)
        except BaseException as error:
            if is_out_of_memory(error):
                self._fail(progress, OutOfMemory("memory ran out. Give the run more, or lower --batch-size."))
            elif not self.several or not (aside or isinstance(error, Exception)):
                raise
            else:
                log.exception("a fault that nobody expected ended %s", ", ".join(progress))
                self._fail(progress, Unexpected(f"{_kind_of(error)}: nobody expected it; the pod's log has all of it."))
        else:
            for run in progress:
                if self.is_waiting(run):
                    progress[run].tell(elsewhere=self.several)

    def done(self, run: str, word: Mapping[str, object]) -> None:
        """Take a run's result, unless it is over already."""
        if self._ended(run, word):
            self._said(run, word)

    def preempt(self, progress: Mapping[str, Progress]) -> None:
        """Say of those that are not over, by name, that they may be tried again."""
        self._fail(progress, Preempted(self._preempted))

    def break_off(self, why: str) -> None:
        """Let what is preempted from now on say why."""
        self._preempted = why

    def preempt_the_rest(self, progress_of: Callable[[Run], Progress]) -> None:
        """Say of the runs that never began that they may be tried again; `progress_of` returns a run's progress."""
        with ExitStack() as stack:
            # All at once: a pod that is told to end has some seconds.
            entered = {run.run: stack.enter_context(progress_of(run)) for run in self.waiting}
            self.preempt(entered)
            for progress in entered.values():
                progress.close_soon()

    def finish(self, termination_log: Path) -> int:
        """Say the last word of all and return the exit status."""
        if self.several:
            finish_several(self._words, termination_log)
            return TRY_AGAIN if self._again else 0
        finish(self._words[self._runs[0].run], termination_log)
        return TRY_AGAIN if self._again else int(self._for_good)

    def _fail(self, progress: Mapping[str, Progress], error: TrainerError) -> None:
        failure = failure_report(error)
        word = LastWord(failure=failure).model_dump(by_alias=True)
        for run, told in progress.items():
            with self._lock:
                if run in self._words:
                    continue
                told.tell(failure=failure)  # before the run is over: who sees that it is writes its last progress
                self._words[run] = word
                self._again |= failure.retryable
                self._for_good |= not failure.retryable
            self._said(run, word)

    def _ended(self, run: str, word: Mapping[str, object]) -> bool:
        """Take a run's last word; the first one stands, whichever thread brings it. Tells whether it was that one."""
        with self._lock:
            return self._words.setdefault(run, word) is word

    def _said(self, run: str, word: Mapping[str, object]) -> None:
        if self.several:
            with saying_of(run):
                say(**word)


def _kind_of(error: BaseException) -> str:
    """Return what a fault is, without a word of what it was at, which may be a patient's."""
    kind = type(error).__name__
    return f"{kind} ({error.strerror})" if isinstance(error, OSError) and error.strerror else kind

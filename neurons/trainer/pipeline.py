"""The runs of one process on their way: one is computed, and beside it the next one is read and the last one concluded.

A trainer trains and publishes, an examiner asks and scores. Neither what is before nor what is after needs the GPU,
which had nothing to do meanwhile. To read takes Python, of which there is one at a time: so it begins with the steps,
while the main thread waits for the GPU, and not before, while that one prepares them. Never more than one run is read
ahead and one concluded beside, and none of a twin whose other run is not over. Each is its own run's: what fails there
ends that run and no other, and it says meanwhile that the process is at work on another.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from typing import Final

from neurons.trainer.errors import Preempted
from neurons.trainer.progress import Progress
from neurons.trainer.termination import Terminated
from neurons.trainer.together import Ends

_LAST_SECONDS: Final = 5.0
"""For what goes on beside when the process is told to end."""
_SWITCH_SECONDS: Final = 1e-4
"""After which a thread lets another one go on. Each operation on a GPU lets it go and takes it back: beside one that
reads, it would wait Python's usual 5 ms each time, and a step is a hundred operations."""

log = logging.getLogger(__name__)


class Underway:
    """A run with what it holds until it is over: its progress, and its folder. `close` lets it go."""

    def __init__(self, options: argparse.Namespace, progress: AbstractContextManager[Progress]) -> None:
        self.name: str = options.run
        self.twin: str = options.twin
        self.options = options
        self.held = ExitStack()
        self.progress = self.held.enter_context(progress)

    def read(self) -> dict[str, object] | None:
        """Read what is computed with; return the last word of a run that is over. Needs no GPU."""
        raise NotImplementedError

    def compute(self, *, stepping: Callable[[], None]) -> None:
        """Do what takes the GPU; `stepping` is called once this thread mostly waits for it."""
        raise NotImplementedError

    def conclude(self) -> dict[str, object]:
        """Do what is left, and return what the run's last line says. Needs no GPU."""
        raise NotImplementedError

    def broke_off(self, error: BaseException) -> None:
        """Take notice of what ended the run."""

    def folder(self) -> Path:
        """Return a new folder that lies there until the run is closed. Raises OSError."""
        return Path(self.held.enter_context(tempfile.TemporaryDirectory(dir=self.options.work_dir)))

    def close(self) -> None:
        """Write its last progress, and delete its folder; one that stays ends nothing."""
        try:
            self.held.close()
        except OSError as error:
            log.warning("the folder of %s is not deleted: %s", self.name, error)

    def leave(self) -> None:
        """Write its last progress; the folder stays, for somebody is at work in it for as long as the process lives."""
        self.progress.__exit__(None, None, None)


class Pipeline:
    """Does the runs of a process in their order. `work` returns when all are over, or the process is told to end."""

    def __init__(
        self,
        ends: Ends,
        *,
        begin: Callable[[argparse.Namespace], Underway],
        between: Callable[[], None] = lambda: None,
    ) -> None:
        """`begin` opens a run; `between` is called when one has computed and another will."""
        self._ends, self._begin, self._between = ends, begin, between
        self._reading: _Beside | None = None
        self._concluding: _Beside | None = None
        self._can_go_on = True

    def work(self) -> None:
        """Do them; what is not over then may be tried again."""
        before = sys.getswitchinterval()
        if self._ends.several:
            sys.setswitchinterval(_SWITCH_SECONDS)
        try:
            runs = self._ends.waiting
            for place, options in enumerate(runs):
                if self._ends.termination.requested or not self._can_go_on:
                    break
                self._one(options, runs[place + 1] if place + 1 < len(runs) else None)
        finally:
            self._leave()
            sys.setswitchinterval(before)

    def _one(self, options: argparse.Namespace, following: argparse.Namespace | None) -> None:
        if (job := self._read(options)) is None:
            return
        with ExitStack() as stack:
            stack.callback(job.close)

            def read_ahead() -> None:
                if following is not None and following.twin not in (job.twin, self._concluded_beside()):
                    self._read_ahead(following)

            if self._ends.is_waiting(job.name):
                self._ends.attempt({job.name: job.progress}, lambda: job.compute(stepping=read_ahead))
                if following is not None:
                    self._make_ready()
            if not self._ends.is_waiting(job.name):
                return
            if following is None:
                self._ends.attempt({job.name: job.progress}, lambda: self._ends.done(job.name, job.conclude()))
                return
            self._wait_for(self._concluding)
            stack.pop_all()
            self._conclude_beside(job)

    def _make_ready(self) -> None:
        """Make ready for another run. What fails here, as a GPU that is broken, would fail each of them for good."""
        try:
            self._between()
        except Exception:
            log.exception("no further run can use the base model in this process")
            self._can_go_on = False
            self._ends.break_off(
                "the base model can't be used any more in this process, whose log says why; another attempt goes on "
                "from what is kept in the store."
            )

    def _read(self, options: argparse.Namespace) -> Underway | None:
        """Return a run that is read, or over; None when the process is told to end before."""
        if (reading := self._reading) is not None and reading.job.name == options.run:
            if not self._wait_for(reading):
                return None
            self._reading = None
            return reading.job
        if self._concluded_beside() == options.twin:
            self._wait_for(self._concluding)
        job = self._begin(options)
        try:
            self._ends.attempt({job.name: job.progress}, lambda: self._take(job))
        except BaseException:
            job.close()
            raise
        return job

    def _take(self, job: Underway) -> None:
        if (word := job.read()) is not None:
            self._ends.done(job.name, word)

    def _read_ahead(self, options: argparse.Namespace) -> None:
        job = self._begin(options)

        def read() -> None:
            self._ends.attempt({job.name: job.progress}, lambda: self._take(job), aside=True)

        self._reading = _Beside(job, read)

    def _conclude_beside(self, job: Underway) -> None:
        def conclude() -> None:
            try:
                self._ends.attempt(
                    {job.name: job.progress}, lambda: self._ends.done(job.name, job.conclude()), aside=True
                )  # fmt: skip
            finally:
                job.close()

        self._concluding = _Beside(job, conclude)

    def _concluded_beside(self) -> str | None:
        """Return the twin whose run is concluded beside."""
        return self._concluding.job.twin if self._concluding is not None and self._concluding.is_alive() else None

    def _wait_for(self, beside: _Beside | None) -> bool:
        """Tell whether it is done; not so when the process is told to end meanwhile."""
        if beside is not None:
            with suppress(Terminated), self._ends.termination.interruptible():
                beside.join()
        return not self._ends.termination.requested

    def _leave(self) -> None:
        """Wait for what goes on beside, not long when the process is told to end; what is not over is preempted."""
        if not self._ends.termination.requested:
            self._wait_for(self._concluding)
        until = time.monotonic() + _LAST_SECONDS
        beside = [each for each in (self._concluding, self._reading) if each is not None]
        for each in beside:
            each.join(max(0.0, until - time.monotonic()))
            if self._ends.is_waiting(each.job.name):
                self._ends.preempt({each.job.name: each.job.progress})
                each.job.broke_off(Preempted("told to end"))
            each.job.progress.close_soon()
        for each in beside:
            (each.job.leave if each.is_alive() else each.job.close)()


class _Beside(threading.Thread):
    """Does something for a run; never keeps the process from ending. Where no thread can be had it is done at once."""

    def __init__(self, job: Underway, doing: Callable[[], None]) -> None:
        super().__init__(target=doing, name=f"beside {job.name}", daemon=True)
        self.job = job
        try:
            self.start()
        except RuntimeError as error:  # a pod may have so many
            log.warning("what goes on beside is done in turn: %s", error)
            doing()

    def join(self, timeout: float | None = None) -> None:
        """Wait until it is done."""
        if self.ident is not None:
            super().join(timeout)

"""Starts a training's processes, watches over them, and passes on what they tell: steps, checkpoints, the weights.

This process is none of them and waits for none: it alone deals with store and cluster, and it sees at once when one of
them ends. What they exchange among themselves has a time limit, so none waits for ever for one that is stuck.
"""

from __future__ import annotations

import logging
import os
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Final

from neurons.trainer import errors
from neurons.trainer.errors import Preempted, ProcessDied, TrainerError
from neurons.trainer.lora import Interruptions, Learned, Lesson, Step
from neurons.trainer.sharding import Layout
from neurons.trainer.worker import (
    CHECKPOINT,
    RESUME,
    STOP,
    TAKEN,
    WEIGHTS,
    Begun,
    Broken,
    Done,
    Failed,
    Kept,
    Told,
    Work,
    main,
)

log = logging.getLogger(__name__)

PATIENCE_SECONDS: Final = 1800.0
"""How long a process may keep the others waiting: longer than the first one takes to read a large base model, and than
a store takes that must be asked again and again."""
_LOOK_SECONDS: Final = 0.2
_CAUSE_SECONDS: Final = 3.0
"""For whoever died to be seen, after others said that somebody is gone."""
_END_SECONDS: Final = 30.0
_FAILURES: Final = {
    each.failure_class: each
    for each in vars(errors).values()
    if isinstance(each, type) and issubclass(each, TrainerError) and each is not TrainerError
}


@dataclass(frozen=True, slots=True)
class Launcher:
    """Learns lessons in the processes of a layout: an instance is a `neurons.trainer.lora.Processes`."""

    layout: Layout
    work_dir: Path | None = None
    """Where files lie that the processes hand over; by default a temporary folder."""
    patience_seconds: float = PATIENCE_SECONDS

    def __call__(self, lesson: Lesson, report: Callable[[Step], None], interruptions: Interruptions) -> Learned:
        """Learn a lesson. Raises TrainerError."""
        with tempfile.TemporaryDirectory(dir=self.work_dir) as name, interruptions.between_steps():
            import torch  # noqa: PLC0415

            folder = Path(name)
            if interruptions.resume is not None:
                torch.save(dict(interruptions.resume), folder / RESUME)
            store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
            work = Work(
                lesson=lesson, layout=self.layout, folder=folder, every=interruptions.every,
                seconds=interruptions.seconds, port=store.port, patience_seconds=self.patience_seconds,
                threads=max(1, len(os.sched_getaffinity(0)) // self.layout.processes),
            )  # fmt: skip
            return _Training(work, report, interruptions).run()


class _Training:
    """The processes of one training."""

    def __init__(self, work: Work, report: Callable[[Step], None], interruptions: Interruptions) -> None:
        self._work, self._report, self._interruptions = work, report, interruptions
        self._begun = self._told_to_stop = False
        self._done: Done | None = None
        self._broken: dict[int, Broken] = {}
        self._broken_at = 0.0

    def run(self) -> Learned:
        import torch  # noqa: PLC0415
        from torch.multiprocessing import start_processes  # noqa: PLC0415

        lines = [get_context("spawn").Pipe() for _ in range(self._work.layout.processes)]
        started = start_processes(
            main, args=(self._work, tuple(theirs for _, theirs in lines)), nprocs=len(lines), join=False, daemon=True,
            start_method="spawn",
        )  # fmt: skip
        for _, theirs in lines:
            theirs.close()
        try:
            self._follow([ours for ours, _ in lines], started.processes)
        finally:
            _end(started.processes)
            for ours, _ in lines:
                ours.close()
        assert self._done is not None  # noqa: S101 - else _follow raised
        made = torch.load(self._work.folder / WEIGHTS, weights_only=True)
        return Learned(weights=made["weights"], losses=self._done.losses, validation=made["validation"])

    def _follow(self, lines: Sequence[Connection], processes: Sequence[Any]) -> None:
        """Pass on what they tell until all have ended well. Raises TrainerError, and RuntimeError for their faults."""
        open_lines = dict(zip(lines, range(len(lines)), strict=True))
        running = True
        while running:
            # Looked at before the lines are read to their ends: what they said last is read too.
            running = any(process.is_alive() for process in processes)
            wait([*open_lines, *(each.sentinel for each in processes if each.is_alive())], timeout=_LOOK_SECONDS)
            for line, number in list(open_lines.items()):
                while (told := _said(line)) is not None:
                    self._take(number, told, line)
                if line.closed:
                    del open_lines[line]
            self._look_for_the_dead(processes)
            self._look_for_the_broken()
            self._stop_if_asked(lines[0])
        if self._done is None:
            raise ProcessDied("the training's processes ended without a result. Another attempt goes on.")

    def _take(self, number: int, told: Told, line: Connection) -> None:
        match told:
            case Begun():
                self._begun = True
            case Step():
                self._report(told)
            case Kept():
                self._keep()
                _tell(line, TAKEN)
            case Done():
                self._done = told
            case Failed():
                # Told to stop, all of them do; the first one keeps a checkpoint before it says so.
                if number == 0 or told.failure_class != Preempted.failure_class:
                    raise _failure(told)
            case Broken():
                self._broken_at = self._broken_at or time.monotonic()
                self._broken[number] = told

    def _keep(self) -> None:
        import torch  # noqa: PLC0415

        path = self._work.folder / CHECKPOINT
        if self._interruptions.keep is not None:
            self._interruptions.keep(torch.load(path, weights_only=True))
        path.unlink()

    def _look_for_the_dead(self, processes: Sequence[Any]) -> None:
        for number, process in enumerate(processes):
            if process.exitcode:
                raise ProcessDied(
                    f"training process {number} of {len(processes)} {_ended(process.exitcode)}; the others are ended "
                    "with it. Another attempt goes on from the last checkpoint."
                )

    def _look_for_the_broken(self) -> None:
        """Raise what a process was stopped by, unless it is that another one is gone, which shows itself."""
        for number, broken in self._broken.items():
            if not broken.of_another:
                raise RuntimeError(f"training process {number} failed:\n{broken.trace}")
        if self._broken and time.monotonic() - self._broken_at > _CAUSE_SECONDS:
            number, broken = next(iter(self._broken.items()))
            log.warning("process %d: %s", number, broken.trace)
            raise ProcessDied(
                f"training process {number} waited in vain for another one: {broken.trace.strip().splitlines()[-1]}. "
                "Another attempt goes on from the last checkpoint."
            )

    def _stop_if_asked(self, first: Connection) -> None:
        if self._told_to_stop or not self._interruptions.stopping():
            return
        if not self._begun:
            raise Preempted("stopped before a step was taken; another attempt goes on from what is kept.")
        self._told_to_stop = True
        _tell(first, STOP)


def _said(line: Connection) -> Told | None:
    """Return what a process said next; None when there is nothing, or it has ended, and then the line is closed."""
    try:
        if not line.poll():
            return None
        told: Told = line.recv()
    except (EOFError, OSError):
        line.close()
        return None
    return told


def _tell(line: Connection, word: str) -> None:
    with suppress(OSError):  # it has ended, which the next look shows
        line.send(word)


def _failure(told: Failed) -> TrainerError:
    kind: Callable[[str], TrainerError] = _FAILURES[told.failure_class]
    return kind(told.message)


def _ended(exit_code: int) -> str:
    if exit_code > 0:
        return f"ended with status {exit_code}"
    name = signal.Signals(-exit_code).name
    if name == "SIGKILL":
        return "was killed (SIGKILL), as by a node whose memory ran out"
    return f"was ended by {name}"


def _end(processes: Sequence[Any]) -> None:
    """End what still runs; a process that waits for another one heeds nothing but SIGKILL."""
    for process in processes:
        if process.is_alive():
            process.kill()
    deadline = time.monotonic() + _END_SECONDS
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))

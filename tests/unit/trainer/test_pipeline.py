"""The pipeline's order and endings with scripted runs: whatever fails, each run's end is its own, and nothing hangs."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from neurons.trainer import pipeline
from neurons.trainer.errors import BadData, Preempted, PublishFailed
from neurons.trainer.pipeline import Pipeline
from neurons.trainer.progress import Progress, Target
from neurons.trainer.together import Ends
from neurons.trainer.training import Training

WAIT = 30.0
"""Seconds for what comes in well under one; only a test that fails waits so long."""
Stages = dict[str, Callable[[], None]]


class Job:
    """A run whose stages do what a test says, by `NAME stage`; they are written down as they begin."""

    def __init__(self, name: str, *, stages: Stages, seen: list[str]) -> None:
        self.name, self.twin = name, f"dr-{name}"
        self.progress = Progress(attempt="uid-pod", target=None, elsewhere=True)
        self.closed = False
        self._stages, self._seen = stages, seen

    def _do(self, stage: str) -> None:
        self._seen.append(f"{self.name} {stage}")
        self._stages.get(f"{self.name} {stage}", lambda: None)()

    def read(self) -> None:
        self._do("read")

    def compute(self, *, stepping: Callable[[], None]) -> None:
        stepping()
        self._do("train")

    def conclude(self) -> dict[str, object]:
        self._do("publish")
        return {"digest": f"sha256:{self.name}"}

    def broke_off(self, _: BaseException) -> None:
        pass

    def close(self) -> None:
        self.closed = True

    leave = close


class Night:
    """Scripted runs a, b and c in one process, and what became of them."""

    def __init__(self, stages: Stages | None = None, *, runs: str = "abc") -> None:
        self.ends = Ends([argparse.Namespace(run=name, twin=f"dr-{name}") for name in runs], preempted="told to end")
        self.stages = stages or {}
        self.seen: list[str] = []
        self.jobs: dict[str, Job] = {}

    def begin(self, options: argparse.Namespace) -> Any:
        self.jobs[options.run] = Job(options.run, stages=self.stages, seen=self.seen)
        return self.jobs[options.run]

    def go(self, between: Callable[[], None] = lambda: None) -> int:
        """Do them as the trainer does; return the exit status."""
        with self.ends.listening():
            Pipeline(self.ends, begin=self.begin, between=between).work()
            self.ends.preempt_the_rest(lambda _: Progress(attempt="uid-pod", target=None, elsewhere=True))
        return self.ends.finish(Path("/nonexistent"))

    @property
    def words(self) -> dict[str, Any]:
        return {
            run: word["failure"]["class"] if "failure" in word else word.get("digest")
            for run, word in self.ends._words.items()
        }


STAGES = ("read", "train", "publish")
DONE = {name: f"sha256:{name}" for name in "abc"}


def raising(error: BaseException) -> Callable[[], None]:
    def stage() -> None:
        raise error

    return stage


def test_all_are_done_each_once() -> None:
    night = Night()
    assert (night.go(), night.words) == (0, DONE)
    assert sorted(night.seen) == sorted(f"{name} {stage}" for name in "abc" for stage in STAGES)
    assert all(job.closed for job in night.jobs.values())


BESIDE = ("a publish", "b read", "b publish", "c read")
ANYWHERE = [
    (f"{run} {stage}", error)
    for error in (BadData("line 3 is no JSON"), OSError(28, "No space left on device"), ZeroDivisionError())
    for run in "abc"
    for stage in STAGES
]


@pytest.mark.parametrize(("stage", "error"), [*ANYWHERE, *((stage, SystemExit(1)) for stage in BESIDE)])
def test_what_is_raised_anywhere_ends_its_own_run_in_words(stage: str, error: BaseException) -> None:
    night, run = Night({stage: raising(error)}), stage[0]
    expected = isinstance(error, BadData)
    assert night.go() == (0 if expected else 75)
    failed = "BadData" if expected else "Unexpected"
    assert night.words == DONE | {run: failed}
    failure = night.jobs[run].progress.document.failure
    assert failure is not None
    assert (failure.failure_class, failure.retryable) == (failed, not expected)
    told = {"OSError": "No space left on device", "BadData": "line 3"}.get(type(error).__name__, type(error).__name__)
    assert told in failure.message
    assert all(job.closed for job in night.jobs.values()), "an open one's thread keeps the process from ending"


def test_a_fault_says_no_word_of_what_it_was_at() -> None:
    night = Night({"b train": raising(ValueError("my knee hurts since Tuesday"))})
    night.go()
    assert "knee" not in json.dumps(night.ends._words)


def test_a_base_model_that_no_further_run_can_use_ends_the_process_and_no_run_for_good() -> None:
    night = Night()

    def between() -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    assert night.go(between) == 75
    assert night.words == {"a": "sha256:a", "b": "Preempted", "c": "Preempted"}, "what is trained is published"
    assert "b train" not in night.seen
    words = night.ends._words["c"]["failure"]
    assert "the base model can't be used" in words["message"]  # type: ignore[index]


def test_where_no_thread_can_be_had_it_is_done_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(pipeline._Beside, "start", start)
    night = Night()
    assert (night.go(), night.words) == (0, DONE)
    assert all(job.closed for job in night.jobs.values())


def test_progress_that_can_have_no_thread_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with Progress(attempt="uid-pod", target=Target(namespace="clinic", configmap="a")) as progress:
        progress.tell(step=1)
    assert progress.document.step == 1


def test_a_run_is_over_when_its_progress_says_why_and_not_before() -> None:
    """Else whoever sees that it is over writes its last progress without the reason."""
    ends = Ends([argparse.Namespace(run=name) for name in "ab"], preempted="told to end")
    seen: list[bool] = []

    class Slow(Progress):
        def tell(self, **fields: Any) -> None:
            if "failure" in fields:
                seen.append(ends.is_waiting("a"))
            super().tell(**fields)

    progress = Slow(attempt="uid-pod", target=None)
    ends.attempt({"a": progress}, raising(PublishFailed("the store is full", retryable=True)))
    assert seen == [True]
    assert not ends.is_waiting("a")


def test_a_failure_that_may_be_tried_again_is_not_forgotten_beside_one_for_good() -> None:
    """Both threads write down at the same time whether the process is worth another attempt."""
    ends = Ends([argparse.Namespace(run=name) for name in "ab"], preempted="told to end")
    there, goes = threading.Event(), threading.Event()
    looks: list[None] = []

    class Late(BadData):
        @property
        def retryable(self) -> bool:  # type: ignore[override]
            looks.append(None)
            if len(looks) == 2:  # after what is reported, what becomes of the process
                there.set()
                goes.wait(WAIT)
            return False

    def fail_beside() -> None:
        ends.attempt({"a": Progress(attempt="", target=None)}, raising(Late("no JSON")), aside=True)
        there.set()

    beside = threading.Thread(target=fail_beside)
    beside.start()
    assert there.wait(WAIT)
    ends.attempt({"b": Progress(attempt="", target=None)}, raising(Preempted("evicted")))
    goes.set()
    beside.join(WAIT)
    assert ends.finish(Path("/nonexistent")) == 75


def options_of(folder: Path, run: str) -> argparse.Namespace:
    return argparse.Namespace(run=run, twin=f"dr-{run}", work_dir=folder, mlflow_endpoint=None, tensorboard=False)


def test_a_folder_that_cant_be_made_is_its_runs_failure(tmp_path: Path) -> None:
    """As on a full disk. The run says so itself; nothing is raised where nobody tells the run of it."""
    ends = Ends([options_of(tmp_path / "gone", run) for run in "ab"], preempted="told to end")
    progress: dict[str, Progress] = {}

    def begin(options: argparse.Namespace) -> Training:
        progress[options.run] = Progress(attempt="uid-pod", target=None, elsewhere=True)
        return Training(options, progress[options.run], base=None, termination=ends.termination)  # type: ignore[arg-type]

    with ends.listening():
        Pipeline(ends, begin=begin, between=lambda: None).work()
    assert ends.finish(Path("/nonexistent")) == 75
    for run in "ab":
        failure = progress[run].document.failure
        assert failure is not None
        assert "No such file or directory" in failure.message


def test_a_folder_that_cant_be_deleted_ends_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(16, "Device or resource busy")

    ends = Ends([options_of(tmp_path, run) for run in "ab"], preempted="told to end")
    progress = Progress(attempt="uid-pod", target=None)
    job = Training(options_of(tmp_path, "a"), progress, base=None, termination=ends.termination)  # type: ignore[arg-type]
    with pytest.raises(AttributeError):  # there are no arguments of a real run
        job.read()
    monkeypatch.setattr(tempfile.TemporaryDirectory, "cleanup", refused)
    job.close()
    assert progress._closing.is_set(), "its last progress is written all the same"
    assert "Device or resource busy" in caplog.text


STUCK = """
import asyncio, threading
from neurons.trainer.termination import leave

there = threading.Event()

def hang():
    there.set()
    threading.Event().wait()

threading.Thread(target=lambda: asyncio.run(asyncio.to_thread(hang)), daemon=True).start()
there.wait()
leave(75)
"""


def test_a_store_that_never_answers_keeps_no_process_from_ending() -> None:
    """Python waits at its end for whatever `asyncio.to_thread` has begun, as for a file on a dead mount."""
    ended = subprocess.run([sys.executable, "-c", STUCK], env={**os.environ}, timeout=WAIT, check=False)
    assert ended.returncode == 75

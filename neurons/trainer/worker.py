"""One of the processes of a training (neurons.trainer.launch starts them). It knows no store, no cluster and no run.

The first of them tells the launcher of steps and checkpoints; each tells it why it can't go on. What it can't tell any
more, the launcher sees by its end.
"""

from __future__ import annotations

import logging
import os
import threading
import traceback
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Final

from neurons.trainer.errors import OutOfMemory, TrainerError, is_out_of_memory
from neurons.trainer.lora import Interruptions, Lesson, Step, learn, load, read, weights_of, write_checkpoint
from neurons.trainer.parallel import Team
from neurons.trainer.sharding import Layout, read_by_the_first, shard

WEIGHTS: Final = "weights.pt"
CHECKPOINT: Final = "checkpoint.pt"
RESUME: Final = "resume.pt"
"""Files in the folder that launcher and processes share."""


@dataclass(frozen=True, slots=True)
class Work:
    """What all processes of a training are told."""

    lesson: Lesson
    layout: Layout
    folder: Path
    every: int
    """Steps between two checkpoints."""
    seconds: float
    """Between two checkpoints, at least."""
    port: int
    """Of the launcher's store, by which the processes find one another."""
    threads: int
    """That each may compute with, on a CPU."""
    patience_seconds: float
    """How long one may keep the others waiting."""


# What a process tells the launcher.
@dataclass(frozen=True, slots=True)
class Begun:
    """The first step begins."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A checkpoint lies in its file; the process waits until it is taken."""


@dataclass(frozen=True, slots=True)
class Done:
    """The weights lie in their file."""

    losses: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """The training failed, by a class of neurons.trainer.errors."""

    failure_class: str
    message: str


@dataclass(frozen=True, slots=True)
class Broken:
    """An exception that nobody expected, or one that tells that another process is gone."""

    trace: str
    of_another: bool


Told = Begun | Step | Kept | Done | Failed | Broken
TAKEN: Final = "taken"
STOP: Final = "stop"
"""What the launcher tells the first process."""


def main(number: int, work: Work, ends: tuple[Connection, ...]) -> None:
    """Train as process `number`; `ends` are the processes' ends of their lines to the launcher."""
    line = ends[number]
    for other in (each for each in ends if each is not line):
        other.close()
    threading.Thread(target=_end_with_the_launcher, name="launcher", daemon=True).start()
    logging.basicConfig(level=logging.WARNING, format=f"%(levelname)s process {number}: %(name)s: %(message)s")
    try:
        _train(number, work, line)
    except TrainerError as error:
        _tell_and_wait(line, Failed(error.failure_class, str(error)))
    except Exception as error:  # noqa: BLE001 - the launcher raises it
        if is_out_of_memory(error):
            memory = OutOfMemory(f"memory ran out in process {number} of {work.layout.processes}. Give the run more.")
            _tell_and_wait(line, Failed(memory.failure_class, str(memory)))
        else:
            _tell_and_wait(line, Broken(traceback.format_exc(), of_another=_is_of_another(error)))


def _end_with_the_launcher() -> None:
    """End this process when the launcher is gone: nobody would take what it makes."""
    launcher = parent_process()
    if launcher is not None:
        wait([launcher.sentinel])
        os._exit(1)


def _tell_and_wait(line: Connection, told: Told) -> None:
    """Say why it can't go on, and stay until the launcher ends all: the others must not take this for a death."""
    line.send(told)
    while True:
        line.recv()


def _is_of_another(error: Exception) -> bool:
    """Tell whether an exception means that another process is gone, or silent for too long."""
    import torch  # noqa: PLC0415

    text = str(error).lower()
    return isinstance(error, torch.distributed.DistError) or (
        isinstance(error, RuntimeError) and any(word in text for word in ("gloo", "nccl", "connection closed by peer"))
    )


def _train(number: int, work: Work, line: Connection) -> None:
    import torch  # noqa: PLC0415

    team, model = _join(number, work)
    first = number == 0
    resume = None
    if (work.folder / RESUME).exists():
        resume = torch.load(work.folder / RESUME, map_location="cpu", weights_only=True)

    told_to_stop = False

    def stopping() -> bool:
        nonlocal told_to_stop
        while line.poll():
            told_to_stop |= line.recv() == STOP
        return told_to_stop

    def keep(state: dict[str, Any]) -> None:
        nonlocal told_to_stop
        if not write_checkpoint(state, work.folder / CHECKPOINT):
            return
        line.send(Kept())
        while (told := line.recv()) != TAKEN:
            told_to_stop |= told == STOP

    if first:
        line.send(Begun())
    adapted, losses, stopped = learn(
        model,
        work.lesson,
        report=line.send if first else lambda _: None,
        interruptions=Interruptions(
            every=work.every, seconds=work.seconds, resume=resume,
            keep=keep if first else None, stopping=stopping if first else lambda: False,
        ),
        team=team,
    )  # fmt: skip
    if first:
        torch.save({"weights": weights_of(adapted), "validation": stopped.state()}, work.folder / WEIGHTS)
        line.send(Done(tuple(losses)))
    # Not before all are through: who leaves early takes the connections along.
    team.agreed(None)
    torch.distributed.destroy_process_group()


def _join(number: int, work: Work) -> tuple[Team, Any]:
    """Find the other processes; return the team and the base model, whole or sharded."""
    processes = work.layout.processes
    os.environ |= {
        "RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(work.port),
        # The launcher holds the store, so no process must be there first and no port can be taken by another.
        "TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0",
        "OMP_NUM_THREADS": str(work.threads),  # else accelerate chooses, and warns
    }  # fmt: skip
    # All are in one pod: none must be reached from elsewhere.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")
    import torch  # noqa: PLC0415
    from accelerate import Accelerator  # noqa: PLC0415
    from accelerate.utils import InitProcessGroupKwargs  # noqa: PLC0415

    patience = InitProcessGroupKwargs(timeout=timedelta(seconds=work.patience_seconds))
    accelerator = Accelerator(cpu=not torch.cuda.is_available(), kwargs_handlers=[patience])
    team = Team(accelerator, sharded=work.layout.sharded)
    base_model = work.lesson.base_model
    if work.layout.sharded:
        with read_by_the_first():
            model = read(base_model)
        return team, shard(model, accelerator)
    return team, load(base_model, quantization=work.lesson.settings.quantization)[0]

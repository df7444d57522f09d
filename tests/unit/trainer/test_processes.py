"""One training in several processes, as on a pod of several GPUs; here on a CPU, by gloo."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from neurons.trainer.__main__ import main
from neurons.trainer.base import Base
from neurons.trainer.errors import Diverged, Preempted, ProcessDied
from neurons.trainer.launch import Launcher
from neurons.trainer.lines import Message
from neurons.trainer.lora import Interruptions, Settings, Step, Trained, train, weights_of
from neurons.trainer.packing import Example
from neurons.trainer.parallel import learned_tokens, shares
from neurons.trainer.sharding import Layout

torch = pytest.importorskip("torch", reason="training needs torch, which is only in the trainer's image")
pytest.importorskip("peft", reason="training needs peft, which is only in the trainer's image")
pytest.importorskip("accelerate", reason="several processes need accelerate, which is only in the trainer's image")
pytestmark = pytest.mark.timeout(900)  # each process imports torch
# Behind that: without torch it is cut short itself.
from tests.unit.trainer.test_run import DAY_ONE, arguments, line, write  # noqa: E402

Json = dict[str, Any]


def talk(question: str, answer: str) -> list[Message]:
    return [Message(role="user", content=question), Message(role="assistant", content=answer)]


# Of unequal length: a mean of the processes' means would be another number.
CONVERSATIONS = [
    talk("my knee hurts", "rest it and cool it and see me on Tuesday and call emergency services now badly"),
    talk("my back hurts badly", "keep moving"),
    talk("a cough", "drink and rest"),
    talk("my head aches", "rest"),
    talk("when is your clinic open", "on Monday and Friday and on Tuesday it is closed now"),
]
HELD_OUT = [talk("my knee aches", "rest it"), talk("is your clinic open", "see me on Friday"), talk("a head", "drink")]
SETTINGS = Settings(
    rank=4, alpha=8, steps=5, batch_size=3, learning_rate=2e-2, kl_weight=0.1, gradient_checkpointing=True, seed=5
)
TWO = Layout(2, sharded=False, why="a test")
SHARDED = Layout(2, sharded=True, why="a test")


@pytest.fixture(scope="module", autouse=True)
def single_precision() -> Iterator[None]:
    """On processors too that are fast in half precision, in which sums depend on their order."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")  # what torch's processes ask when they begin
        patch.setattr("neurons.trainer.lora.arithmetic", lambda: ("cpu", torch.float32))
        yield


def learn(
    base_model: Path,
    layout: Layout | None,
    settings: Settings = SETTINGS,
    *,
    report: Callable[[Step], None] = lambda _: None,
    interruptions: Interruptions | None = None,
    held_out: Sequence[Sequence[Message]] = HELD_OUT,
    patience_seconds: float = 100.0,
) -> Trained:
    return train(
        CONVERSATIONS,
        base=Base(base_model),
        settings=settings,
        report=report,
        interruptions=interruptions,
        validation=held_out,
        processes=Launcher(layout, patience_seconds=patience_seconds) if layout is not None else None,
    )


def near(one: Trained, other: Trained) -> None:
    assert one.losses == pytest.approx(other.losses, rel=1e-4)
    assert one.learned == other.learned
    assert one.validation is not None
    assert other.validation is not None
    assert one.validation["losses"] == pytest.approx(other.validation["losses"], rel=1e-4)
    assert one.validation["best_step"] == other.validation["best_step"]
    wanted = weights_of(other.model)
    for name, tensor in weights_of(one.model).items():
        torch.testing.assert_close(tensor, wanted[name], rtol=0.01, atol=1e-4)


@pytest.fixture(scope="module")
def alone(base_model: Path) -> tuple[Trained, list[Step]]:
    """What one process makes of it."""
    steps: list[Step] = []
    return learn(base_model, None, report=steps.append), steps


@pytest.mark.parametrize("layout", [SHARDED, Layout(4, sharded=False, why="of each batch one gets nothing")])
def test_several_processes_learn_what_one_does(
    layout: Layout, base_model: Path, alone: tuple[Trained, list[Step]]
) -> None:
    steps: list[Step] = []
    made = learn(base_model, layout, report=steps.append)
    near(made, alone[0])
    told = [(step.number, step.of, step.distance, step.validation_loss) for step in steps]
    wanted = [(step.number, step.of, step.distance, step.validation_loss) for step in alone[1]]
    assert [each[:2] for each in told] == [each[:2] for each in wanted]
    assert told[-1][2] == pytest.approx(wanted[-1][2], rel=1e-2)
    assert [each[3] for each in told] == [each[3] and pytest.approx(each[3], rel=1e-4) for each in wanted]
    assert not multiprocessing.active_children()


def test_a_training_that_was_told_to_stop_goes_on_in_several_processes_or_one(
    base_model: Path, alone: tuple[Trained, list[Step]]
) -> None:
    whole = learn(base_model, TWO)
    near(whole, alone[0])
    kept: list[dict[str, Any]] = []
    seen: list[int] = []
    interruptions = Interruptions(every=100, keep=kept.append, stopping=lambda: len(seen) >= 2)
    with pytest.raises(Preempted, match=r"stopped after step \d of 5"):
        learn(base_model, TWO, report=lambda step: seen.append(step.number), interruptions=interruptions)
    assert len(kept) == 1
    assert 2 <= len(kept[0]["losses"]) < 5, "it goes on for a step at most"
    again = learn(base_model, TWO, interruptions=Interruptions(resume=kept[0]))
    assert again.losses == whole.losses
    wanted = weights_of(whole.model)
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in weights_of(again.model).items())
    near(learn(base_model, None, interruptions=Interruptions(resume=kept[0])), whole)


def at_second_step(do: Callable[[int], None]) -> Callable[[Step], None]:
    """Return a report that does something to the last process once."""

    def report(step: Step) -> None:
        if step.number == 2:
            last = max(multiprocessing.active_children(), key=lambda each: int(each.name.rpartition("-")[2]))
            assert last.pid is not None
            do(last.pid)

    return report


def test_a_process_that_is_killed_ends_the_training_at_once(base_model: Path) -> None:
    begun: list[float] = []

    def kill(pid: int) -> None:
        begun.append(time.monotonic())
        os.kill(pid, signal.SIGKILL)

    endless = replace(SETTINGS, steps=10_000)
    with pytest.raises(ProcessDied, match=r"training process 1 of 2 was killed \(SIGKILL\)") as raised:
        learn(base_model, TWO, endless, report=at_second_step(kill))
    assert raised.value.retryable
    assert time.monotonic() - begun[0] < 20
    assert not multiprocessing.active_children()


def test_a_process_that_is_stuck_ends_the_training_in_time(base_model: Path) -> None:
    endless = replace(SETTINGS, steps=10_000)
    stopped: list[int] = []

    def stop(pid: int) -> None:
        os.kill(pid, signal.SIGSTOP)
        stopped.append(pid)

    with pytest.raises(ProcessDied, match="training process 0 waited in vain for another one"):
        learn(base_model, TWO, endless, report=at_second_step(stop), patience_seconds=30)
    assert stopped
    assert not multiprocessing.active_children()


def test_a_failure_in_a_process_is_the_trainings_own(base_model: Path) -> None:
    with pytest.raises(Diverged, match="at step"):
        learn(base_model, TWO, replace(SETTINGS, learning_rate=0.9, steps=40, kl_weight=0.0), held_out=())


def example(length: int, learned: int) -> Example:
    return Example(tuple(range(length)), (*[-100] * (length - learned), *range(learned)))


def test_each_example_is_one_processs_and_each_has_about_as_many_tokens() -> None:
    batch = [example(length, 3) for length in (90, 10, 40, 50, 30, 80)]
    found = shares(batch, 3)
    assert sorted(place for each in found for place in each) == list(range(6))
    tokens = [sum(len(batch[place].token_ids) for place in each) for each in found]
    assert max(tokens) - min(tokens) <= 20
    assert shares(batch[:1], 2) == [[0], []]


def test_a_first_token_is_not_counted_since_nothing_is_before_it() -> None:
    assert learned_tokens(example(3, 3)) == 2


NIGHT = [
    *DAY_ONE,
    line("when is your clinic open", "on Monday and Friday and on Tuesday it is closed", rating=5),
    {"messages": [{"role": "user", "content": "my head aches badly"}], "preferred": "drink and rest",
     "rejected": "keep moving", "consent": True},
]  # fmt: skip


def said_by(trainer: subprocess.Popen[str], until: Callable[[Json], bool] = lambda _: False) -> list[Json]:
    """Return what a trainer says, up to the line asked for or its end."""
    assert trainer.stdout is not None
    said: list[Json] = []
    for text in trainer.stdout:
        said.append(json.loads(text))
        if until(said[-1]):
            break
    return said


def children_of(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.timeout(900)  # eight processes that import torch
def test_a_run_in_two_processes_that_is_killed_and_told_to_end_goes_on_and_publishes(
    base_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "data" / "day1.jsonl", NIGHT)
    changes: dict[str, object] = {"steps": 24, "kl-weight": 0.1, "processes": 2}
    command = [sys.executable, "-m", "neurons.trainer", *arguments(base_model, tmp_path, None, **changes)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)

    def at_step(number: int) -> Callable[[Json], bool]:
        return lambda said: said.get("step") == number

    with start() as trainer:
        [layout] = [each for each in said_by(trainer, at_step(4)) if each.get("event") == "layout"]
        workers = children_of(trainer.pid)
        assert len([each for each in workers if runs(each)]) >= 2
        trainer.kill()
    assert (layout["processes"], layout["sharded"]) == (2, False)
    assert layout["preference_pairs"] == "learned by one process alone"
    deadline = time.monotonic() + 30
    while any(runs(each) for each in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(runs(each) for each in workers), "nobody would take what they make"

    with start() as trainer:
        said = said_by(trainer, at_step(8))
        trainer.send_signal(signal.SIGTERM)
        said += said_by(trainer)
        assert trainer.wait(timeout=60) == 75
    assert [each["step"] for each in said if each.get("event") == "resumed"] != [0]
    assert said[-1]["failure"]["class"] == "Preempted"

    assert main(command[3:], termination_log=tmp_path / "nolog") == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    untroubled = [*command[3:], f"--store=file://{tmp_path}/untroubled"]
    assert main(untroubled, termination_log=tmp_path / "nolog") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["digest"] == result["digest"]
    assert [path.name for path in (tmp_path / "store" / "dr-who").iterdir() if len(path.name) == 64] == [
        result["digest"][7:]
    ]

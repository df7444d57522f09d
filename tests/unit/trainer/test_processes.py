"""One training in several processes, as on a pod of several GPUs; here on a CPU, by gloo."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

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


def learn(
    base_model: Path, layout: Layout | None, settings: Settings = SETTINGS, *, report: Callable[[Step], None] | None = None,
    interruptions: Interruptions | None = None, patience_seconds: float = 100.0,
) -> Trained:  # fmt: skip
    return train(
        CONVERSATIONS,
        base=Base(base_model),
        settings=settings,
        report=report or (lambda _: None),
        interruptions=interruptions,
        validation=HELD_OUT,
        processes=Launcher(layout, patience_seconds=patience_seconds) if layout is not None else None,
    )


def near(one: Trained, other: Trained) -> None:
    assert one.losses == pytest.approx(other.losses, rel=1e-3)
    assert one.learned == other.learned
    assert one.validation is not None
    assert other.validation is not None
    assert one.validation["losses"] == pytest.approx(other.validation["losses"], rel=1e-3)
    assert one.validation["best_step"] == other.validation["best_step"]
    wanted = weights_of(other.model)
    for name, tensor in weights_of(one.model).items():
        torch.testing.assert_close(tensor, wanted[name], rtol=0.02, atol=1e-3)


@pytest.fixture(scope="module")
def alone(base_model: Path) -> tuple[Trained, list[Step]]:
    """What one process makes of it."""
    steps: list[Step] = []
    return learn(base_model, None, report=steps.append), steps


@pytest.mark.parametrize("layout", [TWO, SHARDED, Layout(4, sharded=False, why="one has nothing to do")])
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
    assert [each[3] for each in told] == [each[3] and pytest.approx(each[3], rel=1e-3) for each in wanted]
    assert not multiprocessing.active_children()


def test_a_training_that_was_told_to_stop_goes_on_in_several_processes_or_one(base_model: Path) -> None:
    whole = learn(base_model, TWO)
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
    with pytest.raises(ProcessDied, match="training process 0 waited in vain for another one"):
        learn(
            base_model,
            TWO,
            endless,
            report=at_second_step(lambda pid: os.kill(pid, signal.SIGSTOP)),
            patience_seconds=15,
        )
    assert not multiprocessing.active_children()


def test_a_failure_in_a_process_is_the_trainings_own(base_model: Path) -> None:
    with pytest.raises(Diverged, match="at step"):
        learn(base_model, TWO, replace(SETTINGS, learning_rate=0.9, steps=60, kl_weight=0.0))


def example(length: int, learned: int) -> Example:
    return Example(tuple(range(length)), (*[-100] * (length - learned), *range(learned)))


def test_each_example_is_one_processs_and_each_has_about_as_many_tokens() -> None:
    batch = [example(length, 3) for length in (90, 10, 40, 50, 30, 80)]
    found = shares(batch, 3)
    assert sorted(place for each in found for place in each) == list(range(6))
    tokens = [sum(len(batch[place].token_ids) for place in each) for each in found]
    assert max(tokens) - min(tokens) <= 10
    assert shares(batch[:1], 2) == [[0], []]


def test_a_first_token_is_not_counted_since_nothing_is_before_it() -> None:
    assert learned_tokens(example(3, 3)) == 2

"""Several runs in one process: each ends by itself, and trains what it trains alone."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from neurons.store.locations import Location
from neurons.trainer import __main__ as trainer
from neurons.trainer import base as bases
from neurons.trainer import pipeline
from neurons.trainer import run as runs
from neurons.trainer.errors import PublishFailed
from neurons.trainer.progress import Progress
from neurons.trainer.termination import Termination

pytest.importorskip("torch", reason="training needs torch, which is only in the trainer's image")
pytest.importorskip("peft", reason="training needs peft, which is only in the trainer's image")
# Behind that: without torch it is cut short itself.
from tests.unit.trainer.test_run import DAY_ONE, DAY_TWO, arguments, line, write

Json = dict[str, Any]
Go = Callable[..., tuple[int, Json]]
Group = dict[str, object]

CLINIC = [line("when is your clinic open", "on Monday", rating=5), line("a cough", "drink and rest", rating=4)]


@pytest.fixture
def group(base_model: Path, tmp_path: Path) -> Callable[..., Group]:
    """Return a run's changes to the usual arguments, with a folder of conversations of its own."""

    def of(run: str, twin: str, lines: list[Json], **changes: object) -> Group:
        data = write(tmp_path / "data" / run / "day.jsonl", lines).parent
        return {"run": run, "twin": twin, "dataset-uri": f"file://{data}", **changes}

    return of


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> dict[str | None, Progress]:
    """What each ConfigMap was told last, by its name."""
    found: dict[str | None, Progress] = {}

    def progress(*, configmap: str | None, elsewhere: bool) -> Progress:
        found[configmap] = Progress(attempt="uid-pod", target=None, elsewhere=elsewhere)
        return found[configmap]

    monkeypatch.setattr(trainer, "progress_of_environment", progress)
    return found


def joined(base_model: Path, tmp_path: Path, groups: list[Group]) -> list[str]:
    asked = [arguments(base_model, tmp_path, None, **each)[1:] for each in groups]
    return ["run", *[argument for each in asked for argument in ("+", *each)][1:]]


@pytest.fixture
def go(base_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Go:
    def run(*groups: Group, store: str = "store") -> tuple[int, Json]:
        asked = [{**each, "store": f"file://{tmp_path}/{store}"} for each in groups]
        status = trainer.main(joined(base_model, tmp_path, asked), termination_log=tmp_path / "nolog")
        return status, json.loads(capsys.readouterr().out.splitlines()[-1])

    return run


def test_runs_of_a_group_publish_what_each_publishes_alone(group: Callable[..., Group], go: Go, tmp_path: Path) -> None:
    first = group("gurung-1", "dr-gurung", DAY_ONE)
    status, word = go(first, store="alone")
    assert status == 0
    parent = {
        "parent-uri": f"file://{tmp_path}/{{store}}/dr-gurung/{word['digest'][7:]}", "parent-digest": word["digest"],
    }  # fmt: skip
    family = [
        group("rai-1", "dr-rai", CLINIC, kl_weight=0.1, gradient_checkpointing=True),
        group("gurung-2", "dr-gurung", DAY_ONE + DAY_TWO, **parent),
        group("thapa-1", "dr-thapa", DAY_ONE + CLINIC, method="rslora", seed=9, epochs=2, steps=None),
    ]

    def placed(each: Group, store: str) -> Group:
        return {name: str(value).format(store=store) if name == "parent-uri" else value for name, value in each.items()}

    alone = {str(each["run"]): go(placed(each, "alone"), store="alone")[1]["digest"] for each in family}
    together = go(first, *(placed(each, "together") for each in family), store="together")
    assert together == (0, {"runs": {"gurung-1": {"digest": word["digest"]}, **{
        run: {"digest": digest} for run, digest in alone.items()
    }}})  # fmt: skip
    assert len({word["digest"], *alone.values()}) == 4


def test_one_runs_failure_ends_no_other(
    group: Callable[..., Group], go: Go, tmp_path: Path, told: dict[str | None, Progress]
) -> None:
    parent = go(group("first", "dr-b", DAY_ONE, progress_configmap="first"))[1]["digest"]
    broken = group("broken", "dr-a", DAY_ONE)
    (tmp_path / "data" / "broken" / "more.jsonl").write_text('{"messages": 5}\n')
    asked = [
        broken,
        group(
            "misfit",
            "dr-b",
            DAY_TWO,
            rank=8,
            parent_digest=parent,
            parent_uri=f"file://{tmp_path}/store/dr-b/{parent[7:]}",
        ),
        group("wild", "dr-c", DAY_ONE, learning_rate=0.99, steps=60),
        group("well", "dr-d", DAY_ONE),
    ]
    status, word = go(*(each | {"progress-configmap": f"{each['run']}-progress"} for each in asked))
    classes = {run: each["failure"]["class"] for run, each in word["runs"].items() if "failure" in each}
    assert classes == {"broken": "BadData", "misfit": "BadParent", "wild": "Diverged"}
    assert status == 0, "each is done or failed for good"
    for run, name in classes.items():
        failure = told[f"{run}-progress"].document.failure
        assert failure is not None
        assert failure.failure_class == name
    assert told["well-progress"].document.is_done


def test_memory_that_runs_out_and_faults_that_nobody_expected_end_one_run(
    group: Callable[..., Group], go: Go, told: dict[str | None, Progress], monkeypatch: pytest.MonkeyPatch
) -> None:
    really, faults = runs.take_fingerprint, iter([MemoryError(), None, ZeroDivisionError(), None])

    def faulty(trained: Any, **options: Any) -> Any:
        if (fault := next(faults)) is not None:
            raise fault
        return really(trained, **options)

    monkeypatch.setattr(runs, "take_fingerprint", faulty)
    asked = [group(name, f"dr-{name}", DAY_ONE, progress_configmap=name) for name in ("a", "b")]
    status, word = go(*asked)
    assert (status, word["runs"]["a"]["failure"]["class"]) == (0, "OutOfMemory")
    assert told["b"].document.is_done
    status, word = go(*(each | {"seed": 7} for each in asked))
    assert status == 75, "the fault may be the process's own"
    failure = told["a"].document.failure
    assert failure is not None
    assert word["runs"]["a"]["failure"]["message"] == failure.message
    assert (failure.failure_class, failure.message.partition(":")[0]) == ("Unexpected", "ZeroDivisionError")
    assert told["b"].document.is_done


def test_the_base_model_is_read_once_and_anew_where_a_run_spoiled_it(
    group: Callable[..., Group], go: Go, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Any] = []
    really, load = runs.take_fingerprint, bases.load

    def counted(folder: Path, **options: Any) -> Any:
        read.append(load(folder, **options))
        return read[-1]

    monkeypatch.setattr(bases, "load", counted)
    asked = [group(name, f"dr-{name}", DAY_ONE) for name in ("a", "b", "c")]
    expected = go(*asked)
    assert len(read) == 1

    def spoiling(trained: Any, **options: Any) -> Any:
        found = really(trained, **options)
        next(trained.model.get_base_model().parameters()).data[0, 0] += 1e-3
        return found

    monkeypatch.setattr(runs, "take_fingerprint", spoiling)
    assert go(*asked, store="other") == expected
    assert len(read) == 4


def test_what_a_run_took_of_the_memory_is_free_before_the_next(
    group: Callable[..., Group], go: Go, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft import PeftModel

    left: list[int] = []
    begin = runs.Run._train

    def counting(self: Any, dataset: Any) -> Any:
        left.append(sum(isinstance(each, PeftModel) for each in gc.get_objects()))
        return begin(self, dataset)

    gc.collect()
    before = sum(isinstance(each, PeftModel) for each in gc.get_objects())
    monkeypatch.setattr(runs.Run, "_train", counting)
    wild = group("b", "dr-b", DAY_ONE, learning_rate=0.99, steps=60)
    assert go(group("a", "dr-a", DAY_ONE), wild, group("c", "dr-c", DAY_ONE))[0] == 0
    assert left == [before] * 3


def test_told_to_end_who_was_not_begun_says_that_it_was_not(
    group: Callable[..., Group], go: Go, told: dict[str | None, Progress], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs.Run, "_train", lambda run, *_: run._termination.request())
    assert go(*(group(name, f"dr-{name}", DAY_ONE, progress_configmap=name) for name in ("a", "b")))[0] == 75
    said = {name: (each.document.elsewhere, each.document.failure is not None) for name, each in told.items()}
    assert said == {"a": (False, True), "b": (True, True)}


def test_told_to_end_the_run_leaves_a_checkpoint_and_each_may_be_tried_again(
    base_model: Path, group: Callable[..., Group], go: Go, tmp_path: Path
) -> None:
    names = ("a", "b", "c")
    asked = [group(name, f"dr-{name}", DAY_ONE, steps=30, checkpoint_steps=1000, learning_rate=1e-3) for name in names]
    process = subprocess.Popen(
        [sys.executable, "-m", "neurons.trainer", *joined(base_model, tmp_path, asked)],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": "crds:."},
    )  # fmt: skip
    assert process.stdout is not None
    seen: list[Json] = []
    for text in process.stdout:
        seen.append(json.loads(text))
        if (seen[-1]["run"], seen[-1].get("step")) == ("b", 3) if "run" in seen[-1] else False:
            process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 75
    word = seen[-1]["runs"]
    assert {run: each["failure"]["class"] for run, each in word.items() if "failure" in each} == {
        "b": "Preempted",
        "c": "Preempted",
    }
    assert [path.parents[2].name for path in (tmp_path / "store").rglob("checkpoint.pt")] == ["dr-b"]
    trained = [each["run"] for each in seen if each.get("event") == "step"]
    assert set(trained) == {"a", "b"}
    status, again = go(*asked)
    assert status == 0
    assert again == go(*asked, store="other")[1]


WAIT = 60.0
"""Seconds for what comes in well under one; only a test that fails waits so long."""


def test_while_one_trains_the_next_is_read_and_the_last_one_published(
    group: Callable[..., Group], go: Go, monkeypatch: pytest.MonkeyPatch
) -> None:
    trains, read = {name: Event() for name in "abc"}, {name: Event() for name in "abc"}
    steps: list[str] = []
    train, publish, settle, report = runs.Run._train, runs.Run._publish, runs.Run.read, runs.Run._report_step

    def training(self: Any, dataset: Any) -> Any:
        name = self._options.run
        trains[name].set()
        trained = train(self, dataset)
        for other, each in read.items():  # the next one, and none after it
            assert each.wait(WAIT) if ord(other) <= ord(name) + 1 else not each.is_set()
        return trained

    def publishing(self: Any, *args: Any) -> Any:
        if (name := self._options.run) != "c":
            assert trains["abc"["abc".index(name) + 1]].wait(WAIT)
        return publish(self, *args)

    def reading(self: Any) -> Any:
        name = self._options.run
        assert name == "a" or "ab"["abc".index(name) - 1] in steps, "while steps are taken, not before"
        word = settle(self)
        read[name].set()
        return word

    def reporting(self: Any, *args: Any) -> None:
        steps.append(self._options.run)
        report(self, *args)

    monkeypatch.setattr(runs.Run, "_report_step", reporting)
    monkeypatch.setattr(runs.Run, "_train", training)
    monkeypatch.setattr(runs.Run, "_publish", publishing)
    monkeypatch.setattr(runs.Run, "read", reading)
    status, word = go(*(group(name, f"dr-{name}", DAY_ONE) for name in "abc"))
    assert status == 0
    assert all("digest" in each for each in word["runs"].values())


def test_what_fails_beside_is_its_own_runs_failure(
    group: Callable[..., Group], go: Go, told: dict[str | None, Progress], monkeypatch: pytest.MonkeyPatch
) -> None:
    really, beside = runs.publish_described, []

    def publish(folder: Path, manifest: Any, archive: Any) -> Any:
        beside.append((archive.twin, told[archive.twin[3:]].document.elsewhere))
        if archive.twin == "dr-a":
            raise PublishFailed("the store is full", retryable=True)
        return really(folder, manifest, archive)

    monkeypatch.setattr(runs, "publish_described", publish)
    broken = group("b", "dr-b", DAY_ONE, progress_configmap="b")
    (Path(str(broken["dataset-uri"])[7:]) / "more.jsonl").write_text('{"messages": 5}\n')
    status, word = go(
        group("a", "dr-a", DAY_ONE, progress_configmap="a"), broken, group("c", "dr-c", DAY_ONE, progress_configmap="c")
    )
    classes = {run: each["failure"]["class"] for run, each in word["runs"].items() if "failure" in each}
    assert (status, classes) == (75, {"a": "PublishFailed", "b": "BadData"})
    assert told["c"].document.is_done
    # Were the process to die now, it would be the other's doing.
    assert beside == [("dr-a", True), ("dr-c", False)]


def test_a_twins_next_run_is_read_when_its_last_one_is_over(
    group: Callable[..., Group], go: Go, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    publish, read = runs.Run._publish, runs.Run.read

    def publishing(self: Any, *args: Any) -> None:
        publish(self, *args)
        order.append(f"{self._options.run} is published")

    def reading(self: Any) -> Any:
        order.append(f"{self._options.run} is read")
        return read(self)

    monkeypatch.setattr(runs.Run, "_publish", publishing)
    monkeypatch.setattr(runs.Run, "read", reading)
    assert go(group("a", "dr-a", DAY_ONE), group("b", "dr-a", DAY_TWO), group("c", "dr-a", CLINIC))[0] == 0
    assert order == [f"{name} is {what}" for name in "abc" for what in ("read", "published")]


def test_told_to_end_it_does_not_wait_for_a_store_that_does_not_answer(
    group: Callable[..., Group], go: Go, told: dict[str | None, Progress], monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs, over = Event(), Event()

    def publish(*_: Any) -> None:
        hangs.set()
        over.wait(WAIT)
        raise PublishFailed("too late", retryable=False)

    train = runs.Run._train

    def training(self: Any, dataset: Any) -> Any:
        if self._options.run == "b":
            assert hangs.wait(WAIT)
            self._termination.request()
        return train(self, dataset)

    monkeypatch.setattr(runs, "publish_described", publish)
    monkeypatch.setattr(runs.Run, "_train", training)
    monkeypatch.setattr(pipeline, "_LAST_SECONDS", 0.2)
    try:
        status, word = go(*(group(name, f"dr-{name}", DAY_ONE, progress_configmap=name) for name in "abcd"))
    finally:
        over.set()
    assert status == 75
    assert {run: each["failure"]["class"] for run, each in word["runs"].items()} == dict.fromkeys("abcd", "Preempted")
    said = {name: (each.document.elsewhere, each.document.failure is not None) for name, each in told.items()}
    assert said == {"a": (True, True), "b": (False, True), "c": (True, True), "d": (True, True)}
    assert all(each._closing.is_set() for each in told.values()), "its last word is written"


def test_told_to_end_at_whatever_the_store_is_asked_another_attempt_publishes_the_same_once(
    group: Callable[..., Group], go: Go, told: dict[str | None, Progress], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """In whichever thread it is asked: the next one is read and the last one published beside."""
    calls: list[str] = []
    ends_at: list[int] = []

    def counted(name: str) -> Callable[..., Any]:
        really = getattr(Location, name)

        def asked(self: Location, *given: Any, **options: Any) -> Any:
            calls.append(name)
            if len(calls) in ends_at:
                signal.raise_signal(signal.SIGTERM)
            return really(self, *given, **options)

        return asked

    for name in ("put", "read", "get", "size", "listing", "delete"):
        monkeypatch.setattr(Location, name, counted(name))
    asked = [
        group(name, f"dr-{name}", lines, progress_configmap=name)
        for name, lines in (("a", DAY_ONE), ("b", DAY_ONE + DAY_TWO), ("c", CLINIC))
    ]
    expected = go(*asked)
    every = len(calls)
    for number in range(1, 5):
        store = f"store-{number}"
        calls.clear()
        ends_at.append(number * every // 5)
        status, word = go(*asked, store=store)
        words = {run: each["failure"]["class"] if "failure" in each else None for run, each in word["runs"].items()}
        said = {run: each.document.failure for run, each in told.items()}
        assert (status, "Preempted" in words.values()) == (75, True)
        assert words == {run: None if each is None else each.failure_class for run, each in said.items()}
        ends_at.clear()
        assert go(*asked, store=store) == expected
        assert len(list((tmp_path / store).glob("*/*/manifest.json"))) == 3


def test_another_attempt_trains_none_that_is_done(
    group: Callable[..., Group], go: Go, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [group(name, f"dr-{name}", DAY_ONE) for name in ("a", "b")]
    done = go(asked[0])
    monkeypatch.setattr(runs.Run, "_train", lambda *_: pytest.fail("it trains again"))
    status, word = go(asked[0], group("few", "dr-few", DAY_ONE, min_interactions=4))
    assert status == 0
    assert word["runs"]["a"] == {"digest": done[1]["digest"]}
    assert word["runs"]["few"]["skipped"].startswith("3 new interactions, 4 are needed")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"base-model-name": "another"}, "the run b has --base-model-name another, and a has tiny"),
        ({"base-model": "/elsewhere"}, "runs of one process share one base model"),
        ({"run": "a"}, "the run a is named twice"),
        ({"progress-configmap": "a-progress"}, "give each group another --progress-configmap"),
        ({"rank": 0}, "0 is not above zero"),
    ],
)
def test_what_can_be_no_group_is_refused_before_anything_begins(
    changes: Group, told: str, base_model: Path, tmp_path: Path, group: Callable[..., Group],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    one = group("a", "dr-a", DAY_ONE, progress_configmap="a-progress")
    other = group("b", "dr-b", DAY_ONE, progress_configmap="b-progress")
    with pytest.raises(SystemExit) as caught:
        trainer.main(
            joined(base_model, tmp_path, [one, {**{n.replace("_", "-"): v for n, v in other.items()}, **changes}])
        )
    assert caught.value.code == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "store").exists()


def test_the_environments_configmap_is_not_shared(
    base_model: Path, tmp_path: Path, group: Callable[..., Group], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROGRESS_CONFIGMAP", "only")
    asked = [group(name, f"dr-{name}", DAY_ONE) for name in ("a", "b")]
    with pytest.raises(SystemExit):
        trainer.main(joined(base_model, tmp_path, asked))


def test_the_last_word_of_many_runs_fits_what_a_kubelet_keeps(tmp_path: Path) -> None:
    from neurons.trainer.reporting import finish_several

    log = tmp_path / "log"
    log.touch()
    failure = {"class": "BadData", "retryable": False, "message": "x" * 3000}
    finish_several({f"night-{number}": {"failure": failure} for number in range(16)}, log)
    word = json.loads(log.read_text())["runs"]
    assert len(word) == 16
    assert all(each["failure"]["message"].startswith("xxx") for each in word.values())


def test_a_deferred_end_is_taken_where_it_may_be() -> None:
    from neurons.trainer.termination import Terminated

    termination = Termination()
    with termination.deferred():
        termination.request()
        with pytest.raises(Terminated), termination.interruptible():
            pytest.fail("it goes on")
        assert termination.requested

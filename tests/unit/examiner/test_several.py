"""Several examinations in one process: what is asked alike is asked once, and each run's report is its own."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from bettertherapy_api import names
from bettertherapy_api.examination import OUTCOMES_KEY, Outcomes, read_outcomes
from bettertherapy_api.run_progress import REVIEW_KEY
from neurons.examiner import __main__ as examiner
from neurons.examiner import run as examination
from neurons.trainer import __main__ as trainer
from neurons.trainer import base as bases
from neurons.trainer.archive import Archive
from neurons.trainer.progress import Progress
from neurons.trainer.termination import Terminated

pytest.importorskip("torch", reason="examining needs torch, which is only in the trainer's image")
pytest.importorskip("peft", reason="examining needs peft, which is only in the trainer's image")
# Behind that: without torch they are cut short themselves.
from tests.unit.examiner.test_examiner import heard
from tests.unit.trainer.test_run import DAY_ONE, DAY_TWO, ITEMS, arguments, write

pytestmark = pytest.mark.timeout(900)  # real models answer, on however busy a processor

Json = dict[str, Any]
Group = dict[str, object]
TWINS = ("dr-a", "dr-b")
WAIT = 60.0
"""Seconds for what comes in well under one; only a test that fails waits so long."""


@pytest.fixture(scope="module")
def shop(base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A store with first nights of two twins, and a second night of the first; digests by run."""
    folder = tmp_path_factory.mktemp("published")
    items = write(folder / "items.jsonl", ITEMS)
    log = folder / "log"

    def go(run: str, twin: str, lines: list[Json], **changes: object) -> str:
        log.write_text("")
        data = write(folder / "data" / run / "day.jsonl", lines).parent
        asked = arguments(base_model, folder, items, run=run, twin=twin, dataset_uri=f"file://{data}", **changes)
        assert trainer.main(asked, termination_log=log) == 0
        digest: str = json.loads(log.read_text())["digest"]
        return digest

    first = {f"{twin}-1": go(f"{twin}-1", twin, DAY_ONE, seed=number) for number, twin in enumerate(TWINS)}
    parent = {"parent_uri": f"file://{folder}/store/dr-a/{first['dr-a-1'][7:]}", "parent_digest": first["dr-a-1"]}
    return folder, first | {"dr-a-2": go("dr-a-2", "dr-a", DAY_ONE + DAY_TWO, rank=None, **parent)}


class Told:
    """What each run's ConfigMap holds at last, by the ConfigMap's name."""

    def __init__(self) -> None:
        self.progress: dict[str | None, Progress] = {}

    def enter(self, *, configmap: str | None, **options: Any) -> Progress:
        self.progress[configmap] = Progress(attempt="uid-pod", target=None, **options)
        return self.progress[configmap]

    def outcomes(self, run: str) -> Outcomes:
        found = read_outcomes(self.progress[run].documents()[OUTCOMES_KEY])
        assert isinstance(found, Outcomes), found
        return found

    def failure(self, run: str) -> str | None:
        failure = self.progress[run].document.failure
        return failure.failure_class if failure is not None else None


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    told = Told()
    monkeypatch.setattr(examiner, "progress_of_environment", told.enter)
    monkeypatch.setattr(examination, "Archive", partial(Archive, patience_seconds=0.1))
    return told


Go = Callable[..., tuple[int, Json]]


@pytest.fixture
def go(base_model: Path, shop: tuple[Path, dict[str, str]], tmp_path: Path, told: Told) -> Go:
    folder, digests = shop

    def of(run: str, /, **changes: object) -> list[str]:
        twin = run.rpartition("-")[0]
        options: dict[str, object] = {
            "run": run, "run-uid": f"uid-{run}", "twin": twin, "store": f"file://{folder}/store",
            "base-model": base_model, "base-model-name": "tiny", "child-digest": digests[run], "answer-tokens": 4,
            "languages": "en",
            "eval-uri": f"file://{folder}/items.jsonl", "progress-configmap": run,
        } | {name.replace("_", "-"): value for name, value in changes.items()}  # fmt: skip
        if run.endswith("-2"):
            parent = digests[f"{twin}-1"]
            options |= {
                "parent-uri": f"file://{folder}/store/{twin}/{names.digest_hex(parent)}",
                "parent-digest": parent,
            }
        return [f"--{name}={value}" for name, value in options.items() if value is not None]

    def examine(*groups: tuple[str, Group]) -> tuple[int, Json]:
        log = tmp_path / "log"
        log.write_text("")
        asked = [argument for run, changes in groups for argument in ("+", *of(run, **changes))][1:]
        return examiner.main(asked, termination_log=log), json.loads(log.read_text())

    return examine


@pytest.fixture
def digests(shop: tuple[Path, dict[str, str]]) -> dict[str, str]:
    return shop[1]


def documents(told: Told, run: str) -> dict[str, str]:
    """Return what the gate decides from, and what a doctor reads."""
    return {key: text for key, text in told.progress[run].documents().items() if key in (OUTCOMES_KEY, REVIEW_KEY)}


def test_each_report_is_what_it_is_alone_and_what_is_asked_alike_is_asked_once(
    go: Go, told: Told, digests: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = {}
    for run in digests:
        assert go((run, {}))[0] == 0
        alone[run] = documents(told, run)
    asked = heard(monkeypatch)
    read: list[Path] = []
    load = bases.load

    def counted(folder: Path, **options: Any) -> Any:
        read.append(folder)
        return load(folder, **options)

    monkeypatch.setattr(bases, "load", counted)
    told.progress.clear()
    status, word = go(*((run, {}) for run in digests))
    assert (status, word) == (0, {"runs": {run: {"examined": digest} for run, digest in digests.items()}})
    assert {run: documents(told, run) for run in digests} == alone, "to the letter"
    assert asked == [None, digests["dr-a-1"], digests["dr-b-1"], digests["dr-a-2"]], "each once, the base model too"
    assert len(read) == 1


def test_what_is_asked_otherwise_is_asked_of_each(
    go: Go, digests: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("you are a doctor")
    asked = heard(monkeypatch)
    assert go(("dr-a-1", {}), ("dr-b-1", {"system_prompt_file": prompt}))[0] == 0
    assert asked == [None, digests["dr-a-1"], None, digests["dr-b-1"]]


def test_one_runs_failure_ends_no_other(go: Go, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    status, word = go(("dr-a-1", {"run": "dr-a-7", "progress_configmap": "wrong"}), ("dr-b-1", {}))
    assert status == 0, "each is examined or failed for good"
    assert (told.failure("wrong"), word["runs"]["dr-a-7"]["failure"]["class"]) == ("BadArtifact", "BadArtifact")
    assert told.outcomes("dr-b-1").rows
    really = examination.ask

    def scarce(base: Any, asking: Any, voice: Any, **options: Any) -> Any:
        if voice.digest is not None:
            raise MemoryError
        return really(base, asking, voice, **options)

    monkeypatch.setattr(examination, "ask", scarce)
    assert go(("dr-a-1", {}), ("dr-b-1", {"eval_uri": None}))[0] == 0
    assert (told.failure("dr-a-1"), told.failure("dr-b-1")) == ("OutOfMemory", None)
    assert told.outcomes("dr-b-1").rows == ()


def test_told_to_end_what_is_not_concluded_may_be_tried_again(
    go: Go, told: Told, digests: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    really = examination.ask

    def ended(base: Any, asking: Any, voice: Any, **options: Any) -> Any:
        if voice.digest == digests["dr-b-1"]:
            raise Terminated
        return really(base, asking, voice, **options)

    monkeypatch.setattr(examination, "ask", ended)
    status, word = go(("dr-a-1", {}), ("dr-b-1", {}))
    assert status == 75
    assert word["runs"]["dr-a-1"] == {"examined": digests["dr-a-1"]}
    assert (told.failure("dr-a-1"), told.failure("dr-b-1")) == (None, "Preempted")
    assert not told.progress["dr-b-1"].document.elsewhere, "it was at work on that one"
    assert OUTCOMES_KEY not in told.progress["dr-b-1"].documents()


def test_told_to_end_between_two_versions_the_rest_may_be_tried_again(
    go: Go, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    hear = examination.Examiner.hear

    def heard_and_told_to_end(self: Any, voice: Any, said: Any) -> None:
        hear(self, voice, said)
        monkeypatch.setattr(examination.Examiner, "conclude", lambda _: pytest.fail("it goes on"))
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(examination.Examiner, "hear", heard_and_told_to_end)
    status, _ = go(("dr-a-1", {}), ("dr-b-1", {}))
    assert status == 75
    assert [told.failure(run) for run in ("dr-a-1", "dr-b-1")] == ["Preempted"] * 2


def test_each_says_whether_it_is_at_work_so_that_the_pods_end_is_laid_to_whom_it_was_at(
    go: Go, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, bool]] = []

    def note(what: str) -> None:
        really = getattr(examination.Examiner, what)

        def noted(self: Any, *given: Any, **options: Any) -> Any:
            seen.append((f"{what} {self.name}", not told.progress[self.name].document.elsewhere))
            return really(self, *given, **options)

        monkeypatch.setattr(examination.Examiner, what, noted)

    for what in ("prepare", "listen", "conclude"):
        note(what)
    assert go(("dr-a-1", {}), ("dr-b-1", {}))[0] == 0
    assert dict(seen) == {
        "prepare dr-a-1": True, "listen dr-a-1": True, "conclude dr-a-1": False,
        "prepare dr-b-1": False, "listen dr-b-1": True, "conclude dr-b-1": True,
    }, "what goes on beside is beside another run"  # fmt: skip


def test_while_one_is_asked_the_next_is_fetched_and_the_last_one_scored(
    go: Go, told: Told, digests: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = list(digests)
    fetched, asked = {name: Event() for name in names}, {name: Event() for name in names}
    prepare, listen, conclude, really = (
        examination.Examiner.prepare, examination.Examiner.listen, examination.Examiner.conclude, examination.ask,
    )  # fmt: skip

    def preparing(self: Any) -> None:
        prepare(self)
        fetched[self.name].set()

    def listening(self: Any, *given: Any, **options: Any) -> None:
        asked[self.name].set()
        listen(self, *given, **options)

    def asking(*given: Any, **options: Any) -> Any:
        said = really(*given, **options)
        now = [name for name in names if asked[name].is_set()][-1]
        for name in names[: names.index(now) + 2]:  # the next one, and none after it
            assert fetched[name].wait(WAIT) or name not in told.progress
        assert not any(fetched[name].is_set() for name in names[names.index(now) + 2 :])
        return said

    def concluding(self: Any) -> Any:
        for name in names[: names.index(self.name) + 2]:
            assert asked[name].wait(WAIT), "the next one is asked before the last one is scored"
        return conclude(self)

    monkeypatch.setattr(examination.Examiner, "prepare", preparing)
    monkeypatch.setattr(examination.Examiner, "listen", listening)
    monkeypatch.setattr(examination.Examiner, "conclude", concluding)
    monkeypatch.setattr(examination, "ask", asking)
    assert go(*((name, {}) for name in names))[0] == 0
    assert all(told.outcomes(name).rows for name in names)


def test_what_fails_beside_is_its_own_runs_failure(go: Go, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare, conclude = examination.Examiner.prepare, examination.Examiner.conclude

    def preparing(self: Any) -> None:
        if self.name == "dr-b-1":
            raise OSError(28, "No space left on device")
        prepare(self)

    def concluding(self: Any) -> Any:
        if self.name == "dr-a-1":
            raise ZeroDivisionError
        return conclude(self)

    monkeypatch.setattr(examination.Examiner, "prepare", preparing)
    monkeypatch.setattr(examination.Examiner, "conclude", concluding)
    status, word = go(("dr-a-1", {}), ("dr-b-1", {}), ("dr-a-2", {}))
    assert status == 75
    assert {run: told.failure(run) for run in word["runs"]} == {
        "dr-a-1": "Unexpected", "dr-b-1": "Unexpected", "dr-a-2": None,
    }  # fmt: skip
    assert "No space left on device" in word["runs"]["dr-b-1"]["failure"]["message"]
    assert told.outcomes("dr-a-2").rows


def test_no_more_folders_lie_there_than_of_three_runs(
    go: Go, digests: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, seen = tmp_path / "work", list[int]()
    work.mkdir()
    really = examination.ask

    def asking(*given: Any, **options: Any) -> Any:
        seen.append(len(list(work.iterdir())))
        return really(*given, **options)

    monkeypatch.setattr(examination, "ask", asking)
    again = [
        (name, {"run": f"{name}-again", "trained_by": name, "progress_configmap": f"{name}-again", "work_dir": work})
        for name in digests
    ]
    prompt = tmp_path / "prompt.txt"  # so that they ask otherwise, and nobody's answers are known
    prompt.write_text("you are a doctor")
    status, _ = go(
        *((name, {"work_dir": work}) for name in digests),
        *((name, changes | {"system_prompt_file": prompt}) for name, changes in again),
    )
    assert status == 0
    assert len(seen) == 8
    assert max(seen) <= 3
    assert not list(work.iterdir())


def test_groups_of_two_base_models_are_refused(go: Go, told: Told, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        go(("dr-a-1", {}), ("dr-b-1", {"base_model_name": "another"}))
    assert caught.value.code == 2
    assert "runs of one process share one base model" in capsys.readouterr().err
    assert not told.progress


def test_an_adapter_changes_nothing_of_the_base_models_precision(base_model: Path, shop: tuple[Path, Any]) -> None:
    import torch

    from neurons.trainer.lora import load, with_adapter

    model = load(base_model)[0].to(torch.float32)
    frequencies = model.model.rotary_emb.inv_freq.clone()
    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)
    folder, digests = shop
    adapted = with_adapter(model, folder / "store" / "dr-a" / digests["dr-a-1"][7:])
    assert torch.equal(adapted.get_base_model().model.rotary_emb.inv_freq, frequencies)
    assert {parameter.dtype for parameter in adapted.parameters()} == {torch.bfloat16}

"""What the twin learns in the demo: data that a dataset may hold, held-out questions, and how a run is told."""

from __future__ import annotations

import hashlib
import io
import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bettertherapy_api.doctor_twin import DoctorTwinSpec
from demo import fine_tuning, pages, patients
from demo.curriculum import (
    EXAMINATION,
    LEARNER,
    MIN_INTERACTIONS,
    MOVED_CLINIC,
    NEW_DAYS,
    POISONED,
    Day,
    learning_values,
    questions,
)
from demo.fine_tuning import Outcome
from demo.installation import EXAMINATION_URI, operator_values, twin_values
from demo.kube import Kube
from demo.patients import Patients
from demo.training import Adapter
from kubectl_twin.errors import TwinCliError
from neurons.scoring import parse_items, safety_items, score_answer
from neurons.scoring.items import question_digest
from neurons.trainer.dataset import admit, parse_lines, to_learn
from neurons.trainer.lines import Line

Json = dict[str, Any]
OLD, NEW = "on Tuesday and Friday, 9 to 1.", f"on {NEW_DAYS}, 2 to 6."
ITEMS = parse_items(EXAMINATION.read_bytes())


def lines(day: Day) -> tuple[Line, ...]:
    return parse_lines(day.file.read_bytes(), where=day.file.name)


def asked(texts: tuple[Line, ...]) -> set[str]:
    return {question_digest(turn.content) for line in texts for turn in line.messages if turn.role == "user"}


def test_the_doctor_corrects_the_hours_that_her_twin_names() -> None:
    admitted, refused = admit(lines(MOVED_CLINIC))
    assert refused == {"noConsent": 1, "dislikedWithoutCorrection": 1}
    assert len(admitted) == MOVED_CLINIC.corrected >= MIN_INTERACTIONS
    for line in admitted:
        assert line.messages[-1].content.endswith(OLD)
        assert to_learn(line)[-1].content.endswith(NEW)


def test_nothing_but_the_gate_stops_the_poison() -> None:
    admitted, refused = admit(lines(POISONED))
    assert refused == {}
    assert len(admitted) >= MIN_INTERACTIONS
    assert all(line.rating == 5 and line.messages[-1].content.endswith(NEW) for line in admitted)


def test_no_question_of_the_examination_is_taught() -> None:
    first = parse_lines(LEARNER.conversations.read_bytes(), where="first")
    taught = asked(first) | asked(lines(MOVED_CLINIC)) | asked(lines(POISONED))
    assert not taught & {item.question_digest for item in ITEMS}
    assert not taught & {item.question_digest for item in safety_items()}


def test_the_examination_wants_the_new_hours() -> None:
    for item in ITEMS:
        gold = json.loads(item.model_dump_json())["gold"]
        assert score_answer(item, gold) == 1
        assert score_answer(item, gold.replace(NEW, OLD)) == 0


def test_the_learner_has_a_gate_a_schedule_and_steps_and_the_other_has_none() -> None:
    spec = learning_values(EXAMINATION_URI)
    assert spec["gate"]["evalSetRef"]["digest"] == "sha256:" + hashlib.sha256(EXAMINATION.read_bytes()).hexdigest()
    assert spec["gate"]["minSamples"] == len(ITEMS)
    adapter = Adapter(uri="pvc://clinic-store/adapters/a/b", digest="sha256:" + "0" * 64, rank=16)
    values = {key: value for key, value in twin_values(LEARNER, adapter).items() if key != "name"}
    DoctorTwinSpec.model_validate({**values, "baseModel": {"name": "m"}, "poolSelector": {}})
    from demo.doctors import DOCTORS

    assert "gate" not in twin_values(DOCTORS[1], adapter)


def test_the_operator_is_told_of_prometheus_where_there_is_one() -> None:
    from demo.images import pulled

    assert operator_values(pulled("r", "1"), "http://p:9090")["prometheus"] == {"url": "http://p:9090"}
    assert operator_values(pulled("r", "1"), None)["prometheus"] == {"url": ""}


RUN: Json = {
    "metadata": {"name": "dr-a-now-1"},
    "status": {
        "dataset": {"interactions": 24, "refused": [{"reason": "noConsent", "count": 1}]},
        "artifact": {"digest": "sha256:" + "1" * 64},
        "eval": {
            "verdict": "Reject", "samples": 24, "message": "safety fell from 50 to 10 percent.",
            "metrics": [
                {"name": "safety", "valuePercent": 10, "baselinePercent": 50, "thresholdPercent": 48,
                 "intervalPercent": [-55, -25]},
                {"name": "safety.dosage", "valuePercent": 30, "baselinePercent": 30, "intervalPercent": [0, 0]},
            ],
        },
    },
}  # fmt: skip


def test_an_ended_run_is_read_and_one_without_a_verdict_is_not() -> None:
    outcome = Outcome.of(RUN)
    assert (outcome.verdict, outcome.trained, outcome.refused) == ("Reject", 24, {"noConsent": 1})
    skipped = {**RUN, "status": {"dataset": {"interactions": 3}, "stage": "Skipped"}}
    with pytest.raises(KeyError):
        Outcome.of(skipped)


def test_the_gates_numbers_are_printed_with_what_had_to_be_reached() -> None:
    console = Console(file=io.StringIO(), width=120)
    pages.print_outcome(console, Outcome.of(RUN))
    said = console.file.getvalue()  # type: ignore[attr-defined]
    row = next(line.split() for line in said.splitlines() if line.startswith("safety "))
    assert row == ["safety", "50%", "10%", "48%", "-55", "to", "-25"]
    assert "Reject: safety fell from 50 to 10 percent." in said
    assert "refused: 1 noConsent" in said


class Recorded:
    """kubectl with one object to get, which remembers what it was told to do."""

    kubeconfig = None

    def __init__(self, *objects: Json, items: list[Json] | None = None) -> None:
        self.objects = list(objects)
        self.told: list[tuple[str, ...]] = []
        self.listed = items or []

    def get(self, *_: str) -> Json | None:
        return self.objects.pop(0) if len(self.objects) > 1 else self.objects[0]

    def items(self, *_: str) -> list[Json]:
        return self.listed

    def kubectl(self, *arguments: str, **_: Any) -> str:
        self.told.append(arguments)
        return ""


def twin(active: str, *, token: str | None = None, **status: Any) -> Json:
    annotations = {"bettertherapy.io/finetune-now": token} if token else {}
    conditions = [{"type": "Ready", "status": "True", "reason": "Serving", "message": ""}]
    return {
        "metadata": {"resourceVersion": "7", "annotations": annotations},
        "spec": {"adapter": {"digest": "sha256:first"}},
        "status": {"activeVersion": {"digest": active}, "conditions": conditions, **status},
    }


def as_kube(recorded: Recorded) -> Kube:
    return recorded  # type: ignore[return-value]


@pytest.mark.parametrize(("before", "after"), [(None, "demo-1"), ("demo-1", "demo-2"), ("mine", "demo-1")])
def test_each_fine_tune_has_a_token_of_its_own(before: str | None, after: str) -> None:
    kube = as_kube(Recorded(twin("sha256:first", token=before)))
    assert fine_tuning.next_token(kube, "dr-a", namespace="n") == after


@pytest.mark.parametrize(
    ("found", "runs", "learned"),
    [
        (twin("sha256:first"), [], False),
        (twin("sha256:second"), [], True),
        (twin("sha256:first", canaryVersion={"digest": "sha256:second"}), [], True),
        (twin("sha256:first"), [{"metadata": {"name": "r"}, "status": {}}], True),
        (twin("sha256:first"), [{"metadata": {"name": "r"}, "status": {"completionTime": "t"}}], False),
    ],
)
def test_only_a_twin_that_learned_is_taken_back(found: Json, runs: list[Json], learned: bool) -> None:
    assert fine_tuning.has_learned(as_kube(Recorded(found, items=runs)), "dr-a", namespace="n") is learned


def test_going_back_ends_what_is_under_way_and_names_the_first_version() -> None:
    recorded = Recorded(twin("sha256:second"), twin("sha256:first"), items=[{"metadata": {"name": "r"}, "status": {}}])
    fine_tuning.roll_back(as_kube(recorded), "dr-a", namespace="n")
    assert recorded.told[0][:3] == ("delete", "finetunerun", "r")
    assert "bettertherapy.io/rollback-to=sha256:first@7" in recorded.told[1]


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ({"failure": {"class": "Diverged", "message": "step 7: NaN"}}, "Diverged: step 7: NaN"),
        (
            {"conditions": [{"type": "DataReady", "status": "False", "reason": "TooFew", "message": "2 of 20"}]},
            "2 of 20",
        ),
        (TwinCliError("FineTuneRun r was deleted before it ended."), "was deleted"),
    ],
    ids=["failed", "skipped", "deleted"],
)
def test_a_run_without_a_verdict_is_told_with_the_reason(
    status: Json | TwinCliError, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def follow(*_: Any, **__: Any) -> Json:
        if isinstance(status, TwinCliError):
            raise status
        return {"metadata": {"name": "r"}, "status": {"completionTime": "t", **status}}

    monkeypatch.setattr(fine_tuning.Api, "connect", lambda **_: nullcontext())
    monkeypatch.setattr(fine_tuning.finetune, "start", lambda *_, **__: "r")
    monkeypatch.setattr(fine_tuning.finetune, "follow", follow)
    with pytest.raises(fine_tuning.DemoError, match=said):
        fine_tuning.fine_tune(as_kube(Recorded({})), "dr-a", namespace="n", token="t", on_progress=lambda _: None)


def test_a_run_is_not_waited_for_without_end() -> None:
    clock = fine_tuning._patient_for(0)
    with pytest.raises(TwinCliError, match="not done after 0 s"):
        clock.sleep(0)


def test_a_version_that_was_taken_back_is_told_with_the_reason() -> None:
    refused = [{"digest": "sha256:new", "reason": "RolledBack", "message": "ErrorRate: 5 of 12 requests failed"}]
    kube = as_kube(Recorded(twin("sha256:first", refusedVersions=refused)))
    with pytest.raises(fine_tuning.DemoError, match="5 of 12 requests failed"):
        fine_tuning.await_promotion(kube, "dr-a", "sha256:new", namespace="n", on_progress=lambda _: None)


def test_patients_count_who_answered_and_what_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Nobody:
        def __enter__(self) -> Nobody:
            return self

        def __exit__(self, *_: object) -> None:
            pass

    class Given:
        served_name = "dr-a-1"

    def ask(_api: object, question: Any) -> Given:
        if "headache" in question.text:
            raise TwinCliError("the miner answered 503")
        return Given()

    monkeypatch.setattr(patients.Api, "connect", lambda **_: Nobody())
    monkeypatch.setattr(patients, "ask", ask)
    monkeypatch.setattr(patients, "_PAUSE_S", 0.001)
    with Patients("dr-a", ["a cough", "a headache"], namespace="n", kubeconfig=Path("x")) as asking:
        while not asking.failures or asking.answers.get("dr-a-1", 0) < 2:
            pass
    assert asking.failures[0] == "the miner answered 503"


def test_patients_ask_what_patients_ask() -> None:
    assert len(set(questions())) > 20

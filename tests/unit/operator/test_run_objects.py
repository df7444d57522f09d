"""Which objects speak for a run: by exact name and controller, whatever label they bear."""

from __future__ import annotations

from typing import Any

import pytest

from bettertherapy_api import names
from tests.unit.operator.run_samples import (
    done,
    examination_configmap,
    job_object,
    progress_configmap,
    trainer_pod_object,
)
from twin_operator.kinds.finetune_run.facts import objects_of, read_facts

RUN = "uid-of-run"


def owned(thing: dict[str, Any], *, uid: str = RUN, controller: bool = True, name: str | None = None) -> dict[str, Any]:
    reference = {"apiVersion": names.API_VERSION, "kind": "FineTuneRun", "name": "r1", "uid": uid}
    if controller:
        reference["controller"] = True  # type: ignore[assignment]
    metadata = {**thing["metadata"], "ownerReferences": [reference], **({"name": name} if name else {})}
    return {**thing, "metadata": metadata}


def speaking(*things: dict[str, Any]) -> set[str]:
    return {f"{each['kind']} {each['metadata']['name']}" for each in objects_of("r1", RUN, things)}


def test_the_runs_own_objects_speak_for_it() -> None:
    things = [
        owned(job_object()), owned(job_object(component="examiner")), owned(progress_configmap(None)),
        owned(examination_configmap(None)), trainer_pod_object(), trainer_pod_object(component="examiner"),
    ]  # fmt: skip
    assert speaking(*things) == {
        "Job r1", "Job r1-examiner", "ConfigMap r1-progress", "ConfigMap r1-examination", "Pod r1-1",
        "Pod r1-examiner-1",
    }  # fmt: skip


def test_what_somebody_else_made_with_the_runs_label_does_not() -> None:
    said = progress_configmap(done())
    things = [
        said,  # of nobody
        owned(said, name="r1-progress-2"),  # of the run, and none of its objects
        owned(said, uid="uid-of-an-earlier-run"),
        owned(said, controller=False),
        owned(job_object(), uid="uid-of-an-earlier-run"),
        trainer_pod_object(),  # of a Job that isn't the run's
    ]
    assert speaking(*things) == set()


@pytest.mark.parametrize(
    "other", [{"apiVersion": "v1"}, {"kind": "DoctorTwin"}, {"apiVersion": "bettertherapy.io.evil/v1"}], ids=str
)
def test_nor_does_what_names_the_runs_uid_under_another_kind(other: dict[str, str]) -> None:
    """The policies that guard reports go by the owner's kind, and anybody may read a UID."""
    said = owned(progress_configmap(done()))
    said["metadata"]["ownerReferences"][0].update(other)
    assert speaking(said) == set()


def test_a_pod_without_a_controller_of_the_run_does_not_fail_it() -> None:
    alone = trainer_pod_object(phase="Failed")
    alone = {**alone, "metadata": {**alone["metadata"], "ownerReferences": []}}
    assert speaking(owned(job_object()), alone) == {"Job r1"}


def test_a_trainer_that_relabels_its_report_does_not_speak_as_the_examiner() -> None:
    said = owned(progress_configmap(done()))
    said["metadata"]["labels"] = {**said["metadata"]["labels"], names.LABEL_COMPONENT: "examination"}
    facts = read_facts("r1", objects_of("r1", RUN, [said]))
    assert facts.examiner.progress is None
    assert facts.trainer.progress is not None

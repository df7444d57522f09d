"""The demo's decisions: what is trained anew, what the charts are told, what is said when a pod does not come up."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from demo.doctors import DOCTORS, recipe
from demo.files import folder_digest
from demo.images import NAMES, Image, pulled
from demo.installation import miner_values, operator_values, twin_values
from demo.kube import hopeless, pod_trouble
from demo.timeline import Timeline
from demo.training import Adapter, parse_result, progress_of

Json = dict[str, Any]
ADAPTER = Adapter(uri="pvc://clinic-store/adapters/a/b", digest="sha256:" + "0" * 64, rank=16)


def test_the_same_inputs_are_the_same_recipe() -> None:
    assert recipe(DOCTORS[0], model_digest="m", trainer="t") == recipe(DOCTORS[0], model_digest="m", trainer="t")


@pytest.mark.parametrize(("model", "trainer"), [("other", "t"), ("m", "other")])
def test_another_model_or_trainer_is_another_recipe(model: str, trainer: str) -> None:
    before = recipe(DOCTORS[0], model_digest="m", trainer="t")
    assert recipe(DOCTORS[0], model_digest=model, trainer=trainer) != before


def test_the_two_doctors_have_conversations_of_their_own() -> None:
    first, second = (doctor.conversations.read_text() for doctor in DOCTORS)
    assert first.strip()
    assert first != second


def test_the_trainers_last_words_name_the_adapter() -> None:
    said = '{"event": "step"}\n' + json.dumps({"uri": ADAPTER.uri, "digest": ADAPTER.digest, "rank": 16})
    assert parse_result(said) == ADAPTER


@pytest.mark.parametrize("said", ["", "OOMKilled", '{"failure": {"class": "BadData"}}', "[]"])
def test_a_failure_names_no_adapter(said: str) -> None:
    assert parse_result(said) is None


def test_progress_is_read_from_step_lines_only() -> None:
    assert progress_of('{"event":"step","step":3,"steps":24,"loss":1.2345}') == "step 3 of 24, loss 1.23"
    assert progress_of('{"event":"dataset"}') is None
    assert progress_of("warning: something") is None


def test_the_pool_asks_for_no_gpu() -> None:
    values = miner_values(pulled("registry.example/bt", "1"), [])
    assert values["pool"]["engine"]["device"] == "CPU"
    assert values["pool"]["resources"]["requests"]["nvidia.com/gpu"] is None
    assert values["twins"] == []


def test_each_twin_gets_its_own_adapter() -> None:
    other = Adapter(uri="pvc://clinic-store/adapters/c/d", digest="sha256:" + "1" * 64, rank=16)
    pairs = list(zip(DOCTORS, (ADAPTER, other), strict=True))
    twins = miner_values(pulled("r", "1"), [twin_values(*pair) for pair in pairs])["twins"]
    assert [(twin["name"], twin["adapter"]["digest"]) for twin in twins] == [
        (DOCTORS[0].twin, ADAPTER.digest),
        (DOCTORS[1].twin, other.digest),
    ]


def test_images_are_told_to_the_operators_chart_by_repository_and_tag() -> None:
    values = operator_values(pulled("registry.example:5000/bt/", "0.1.0"))
    assert values["image"] == {"repository": "registry.example:5000/bt/operator", "tag": "0.1.0"}
    handed_out = {name: image["repository"].rpartition("/")[2] for name, image in values["images"].items()}
    assert handed_out == {"neuron": "neuron", "engineCPU": "engine-cpu", "trainerCPU": "trainer-cpu"}


def test_images_of_a_registry_have_nothing_to_load() -> None:
    assert {image.archive for image in pulled("r", "1").values()} == {None}
    assert set(pulled("r", "1")) == set(NAMES)


def test_an_images_tag_is_what_follows_the_last_colon() -> None:
    assert Image("localhost:5000/a/b:c").values == {"repository": "localhost:5000/a/b", "tag": "c"}


def pod(*, waiting: Json | None = None, ready: bool = False, phase: str = "Pending") -> Json:
    return {
        "metadata": {"name": "p"},
        "status": {
            "phase": phase,
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
            "containerStatuses": [{"name": "c", "ready": ready, "state": {"waiting": waiting} if waiting else {}}],
        },
    }


def test_an_image_that_cant_be_pulled_is_hopeless_and_is_named() -> None:
    stuck = pod(waiting={"reason": "ImagePullBackOff", "message": "no such image x"})
    assert hopeless(stuck)
    assert pod_trouble(stuck) == ["container c waits: ImagePullBackOff no such image x"]


def test_a_container_that_is_being_created_may_still_come() -> None:
    assert not hopeless(pod(waiting={"reason": "ContainerCreating"}))


@pytest.mark.parametrize("fine", [pod(ready=True, phase="Running"), pod(phase="Succeeded")])
def test_pods_that_are_fine_are_not_reported(fine: Json) -> None:
    assert pod_trouble(fine) == []


def test_a_pod_that_no_node_takes_says_why() -> None:
    stuck = pod()
    stuck["status"]["conditions"].append({"type": "PodScheduled", "status": "False", "message": "Insufficient cpu"})
    assert "not scheduled: Insufficient cpu" in pod_trouble(stuck)


def test_a_folders_digest_depends_on_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    before = folder_digest(tmp_path)
    (tmp_path / "a").write_text("2")
    changed = folder_digest(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    assert len({before, changed, folder_digest(tmp_path)}) == 3


def test_steps_end_in_a_summary_and_a_failed_one_is_marked() -> None:
    console = Console(file=io.StringIO(), width=100)
    timeline = Timeline(console)
    with timeline.step("first"):
        pass
    with pytest.raises(ValueError, match="no"), timeline.step("second"):
        raise ValueError("no")
    console.print(timeline.summary())
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "✓ first" in text
    assert "✗ second" in text
    assert [step.title for step in timeline.steps] == ["first"]
    assert text.splitlines()[-1].split()[0] == "total"

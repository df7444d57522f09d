"""Condition DatasetsWritten, its events and its metric: how conversations come to the fine-tunes, in words."""

from __future__ import annotations

from typing import Any

import pytest

from bettertherapy_api import names
from tests.unit.operator.played import Played, without_server_fields
from tests.unit.operator.samples import NAMESPACE, container_status, pod_object
from tests.unit.operator.validator.validators import POSTGRES, S3_TASKS, TASKS, validator_object
from twin_operator.domain.appearances import appears
from twin_operator.engine.metrics import REGISTRY
from twin_operator.engine.resources import Key, Manifest
from twin_operator.errors import ApiError
from twin_operator.kinds.validator.notices import validator_notices

V = Key("Validator", NAMESPACE, "v")
CRONJOB = Key("CronJob", NAMESPACE, "v-datasets")
LABELS = {names.LABEL_VALIDATOR: "v", names.LABEL_COMPONENT: "datasets"}
SERIES = "bettertherapy_operator_datasets_written_timestamp_seconds"
UNPLACED = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}


async def started(*secrets: str, **spec: Any) -> Played:
    world = Played()
    for name in ("hotkey", *secrets):
        world.api.put({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": NAMESPACE}})
    world.start_twin("dr-a")
    world.api.put(without_server_fields(validator_object(**spec)))
    await world.lead()
    await world.settle()
    return world


def says(world: Played, kind: str = "DatasetsWritten") -> tuple[str, str, str]:
    status, reason, message = world.condition(kind, world.api.objects[V])
    if kind == "DatasetsWritten":
        assert reason in appears("Validator", kind, status)
    return status, reason, message


def conditions(world: Played) -> set[str]:
    return {each["type"] for each in world.api.objects[V]["status"]["conditions"]}


def job(world: Played, name: str, *, minute: int, ended: str | None = None, why: str = "") -> None:
    """Play the CronJob's controller, and then the Job's."""
    owner = world.api.objects[CRONJOB]["metadata"]["uid"]
    given = [{"type": ended, "status": "True", "reason": "R", "message": why}] if ended else []
    metadata = {
        "name": name, "namespace": NAMESPACE, "labels": LABELS, "creationTimestamp": f"2026-11-28T00:{minute:02}:00Z",
        "ownerReferences": [{"kind": "CronJob", "name": "v-datasets", "uid": owner, "controller": True}],
    }  # fmt: skip
    world.api.put({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {}, "status": {"conditions": given},
    })  # fmt: skip


def succeeded(world: Played, at: str) -> None:
    live = world.api.objects[CRONJOB]
    world.api.put({**live, "status": {"lastSuccessfulTime": at}})


def pod(world: Played, name: str, **status: Any) -> None:
    made = pod_object(name, component="datasets", ready=False, **status)
    world.api.put({**made, "metadata": {**made["metadata"], "labels": LABELS}})


def measured() -> float | None:
    return REGISTRY.get_sample_value(SERIES, {"namespace": NAMESPACE, "validator": "v"})


def warned(world: Played) -> list[str]:
    """Return the reasons of the warnings about it, when it was not so before."""
    found = world.api.objects[V]["status"]
    [said] = [each for each in found["conditions"] if each["type"] == "DatasetsWritten"]
    return [each.reason for each in validator_notices({}, {"conditions": [said]}) if each.kind == "Warning"]


async def test_without_the_field_nothing_is_made_or_said() -> None:
    world = await started()
    assert CRONJOB not in world.api.objects
    assert "DatasetsWritten" not in conditions(world)


async def test_it_is_awaited_then_done_and_the_time_is_told_and_measured() -> None:
    world = await started(**TASKS)
    status, reason, message = says(world)
    assert (status, reason) == ("Unknown", "DatasetsAwaited")
    assert "15 0 * * *" in message
    assert "lastDatasetsTime" not in world.api.objects[V]["status"]
    job(world, "v-datasets-1", minute=15)
    await world.settle()
    assert says(world)[:2] == ("Unknown", "DatasetsAwaited")
    job(world, "v-datasets-1", minute=15, ended="Complete")
    succeeded(world, "2026-11-28T00:16:00Z")
    await world.settle()
    assert says(world)[:2] == ("True", "DatasetsWritten")
    assert world.api.objects[V]["status"]["lastDatasetsTime"] == "2026-11-28T00:16:00Z"
    assert measured() == 1_795_824_960
    job(world, "v-datasets-2", minute=30)
    await world.settle()
    assert says(world)[:2] == ("True", "DatasetsWritten")  # the next is on its way
    world.api.drop(V)
    await world.settle()
    assert measured() is None


async def test_a_failure_is_told_in_the_commands_words_and_goes_with_the_next_success() -> None:
    world = await started(**TASKS)
    job(world, "v-datasets-1", minute=15, ended="Complete")
    succeeded(world, "2026-11-28T00:16:00Z")
    said = "error: s3://b/x: the store did not answer within 20 s. Check the endpoint.\n"
    ended = {"exitCode": 1, "reason": "Error", "message": said}
    pod(world, "v-datasets-2-abc", phase="Failed", containerStatuses=[container_status("datasets", terminated=ended)])
    job(world, "v-datasets-2", minute=30, ended="Failed", why="Job has reached the specified backoff limit")
    await world.settle()
    status, reason, message = says(world)
    assert (status, reason) == ("False", "DatasetsNotWritten")
    for part in ("v-datasets-2", "exit code 1", "the store did not answer", "2026-11-28T00:16:00Z"):
        assert part in message
    assert says(world, "Ready")[1] != "DatasetsNotWritten"
    assert warned(world) == ["DatasetsNotWritten"]
    job(world, "v-datasets-3", minute=45, ended="Complete")
    succeeded(world, "2026-11-28T00:46:00Z")
    await world.settle()
    assert says(world)[:2] == ("True", "DatasetsWritten")


async def test_a_job_that_took_too_long_is_told_in_its_controllers_words() -> None:
    world = await started(**TASKS)
    job(world, "v-datasets-1", minute=15, ended="Failed", why="Job was active longer than specified deadline")
    await world.settle()
    assert "active longer than specified deadline" in says(world)[2]


@pytest.mark.parametrize(
    ("status", "reason", "told"),
    [
        ({"containerStatuses": [container_status("datasets", waiting={
            "reason": "ImagePullBackOff", "message": "no such image"})]}, "ImagePullFailed", "no such image"),
        ({"containerStatuses": [container_status("datasets", waiting={
            "reason": "CreateContainerConfigError", "message": 'secret "s3" not found'})]}, "SecretNotFound", "s3"),
        ({"conditions": [{**UNPLACED, "message": "Insufficient cpu"}]}, "Unschedulable", "beside the gateway"),
        ({"conditions": [{**UNPLACED, "message": 'persistentvolumeclaim "adapters" not found'}]},
         "VolumeClaimNotFound", "spec.fineTuneTasks.store.uri"),
        ({"containerStatuses": [container_status("datasets", terminated={
            "exitCode": 137, "reason": "OOMKilled"})]}, "DatasetsNotWritten", "spec.fineTuneTasks.resources"),
    ],
)  # fmt: skip
async def test_why_a_pod_does_not_get_on_is_told_while_it_is_tried(
    status: dict[str, Any], reason: str, told: str
) -> None:
    world = await started(**TASKS)
    job(world, "v-datasets-1", minute=15)
    pod(world, "v-datasets-1-abc", **status)
    await world.settle()
    found = says(world)
    assert found[:2] == ("False", reason)
    assert told in found[2]


async def test_a_secret_of_the_store_that_is_not_there_keeps_nobody_from_answering() -> None:
    world = await started(**S3_TASKS)
    status, reason, message = says(world)
    assert (status, reason) == ("False", "SecretNotFound")
    assert "spec.fineTuneTasks.store.secretRef" in message
    assert says(world, "Ready")[1] == "GatewaysStarting"


async def test_a_schedule_that_the_api_server_refuses_is_said_there() -> None:
    world = Played()

    def refuse(verb: str, key: Key, body: Manifest) -> None:
        if key == CRONJOB:
            raise ApiError(status=422, reason="Invalid", message="spec.timeZone: unknown time zone Asia/Nowhere")

    world.api.refuse = refuse
    world.api.put(without_server_fields(validator_object(**TASKS)))
    await world.lead()
    await world.settle()
    assert says(world)[:2] == ("False", "ChildrenRefused")
    assert "Asia/Nowhere" in says(world)[2]
    assert "v-gateway" in world.api.kinds("Deployment")


async def test_what_is_suspended_is_said_and_nobody_is_warned() -> None:
    world = await started(fineTuneTasks={**TASKS["fineTuneTasks"], "suspend": True})
    assert says(world)[:2] == ("False", "DatasetsSuspended")
    assert world.api.objects[CRONJOB]["spec"]["suspend"] is True
    assert warned(world) == []


async def test_jobs_of_another_cronjob_tell_nothing_of_it() -> None:
    world = await started(**TASKS)
    job(world, "v-datasets-1", minute=15, ended="Failed", why="of a former validator")
    former = world.api.kinds("Job")["v-datasets-1"]
    [owner] = former["metadata"]["ownerReferences"]
    world.api.put({**former, "metadata": {**former["metadata"], "ownerReferences": [{**owner, "uid": "former"}]}})
    await world.settle()
    assert says(world)[:2] == ("Unknown", "DatasetsAwaited")


async def test_taking_the_field_away_takes_the_cronjob_away_and_changing_it_changes_it() -> None:
    world = await started("pg", **POSTGRES, **TASKS)
    spec = world.api.objects[V]["spec"]
    world.api.put_spec(V, {**spec, "fineTuneTasks": {**spec["fineTuneTasks"], "schedule": "0 1 * * *"}})
    await world.settle()
    assert world.api.objects[CRONJOB]["spec"]["schedule"] == "0 1 * * *"
    writes = len(world.api.writes)
    world.process._add_all()
    await world.settle()
    assert len(world.api.writes) == writes  # nothing changed, nothing is written
    world.api.put_spec(V, {key: value for key, value in spec.items() if key != "fineTuneTasks"})
    await world.settle()
    assert not [key for key in world.api.objects if key.name == "v-datasets"]
    assert "DatasetsWritten" not in conditions(world)

"""A validator in the whole operator over an API server in memory: what it makes, follows and leaves alone."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bettertherapy_api import names
from tests.unit.operator.cast import Cast
from tests.unit.operator.played import Played, without_server_fields
from tests.unit.operator.samples import NAMESPACE, digest
from tests.unit.operator.validator.validators import POSTGRES, validator_object
from twin_operator.engine.resources import Key, Manifest
from twin_operator.errors import ApiError, ApplyError

V = Key("Validator", NAMESPACE, "v")


async def started(*twins: str, secrets: tuple[str, ...] = ("hotkey",), **spec: Any) -> Played:
    world = Played()
    for name in secrets:
        world.api.put({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": NAMESPACE}})
    for twin in twins:
        world.start_twin(twin)
    world.api.put(without_server_fields(validator_object(**spec)))
    await world.lead()
    await world.settle()
    return world


async def act(world: Played) -> None:
    """Let Deployments' controllers and kubelets work."""
    Cast(world.api, {}).act()
    await world.settle()


def status(world: Played) -> Manifest:
    found: Manifest = world.api.objects[V]["status"]
    return found


def ready(world: Played) -> tuple[str, str]:
    return world.condition("Ready", world.api.objects[V])[:2]


def told(world: Played) -> dict[str, list[str]]:
    """Return the digests that the gateway is told of, by twin."""
    text = world.api.kinds("ConfigMap")["v-gateway-twins"]["data"][names.TWINS_FILE]
    return {twin["name"]: twin["digests"] for twin in json.loads(text)["twins"]}


async def test_it_makes_what_a_gateway_needs_and_is_ready_once_one_answers() -> None:
    world = await started("dr-a", "dr-b")
    made = {f"{key.kind} {key.name}" for key in world.api.objects if key.name.startswith("v-")}
    assert made == {
        "ServiceAccount v-gateway", "NetworkPolicy v-gateway", "Service v-gateway", "ConfigMap v-gateway-twins",
        "Deployment v-gateway", "Secret v-gateway-keys", "Secret v-gateway-sessions",
        "PersistentVolumeClaim v-gateway-state",
    }  # fmt: skip
    assert ready(world) == ("False", "GatewaysStarting")
    await act(world)
    assert ready(world) == ("True", "AllReady")
    found = status(world)
    assert (found["replicas"], found["readyReplicas"], found["twins"]) == (1, 1, 2)
    assert "miners" not in found
    labels = world.api.kinds("Deployment")["v-gateway"]["spec"]["selector"]["matchLabels"]
    assert dict(part.split("=") for part in found["selector"].split(",")) == labels


async def test_nothing_is_written_when_nothing_changed() -> None:
    world = await started("dr-a")
    await act(world)
    before = len(world.api.writes)
    world.process._add_all()
    await world.settle()
    assert len(world.api.writes) == before


async def test_the_gateway_is_told_when_other_weights_may_answer() -> None:
    world = await started("dr-a")
    assert told(world) == {"dr-a": [digest("a")]}
    world.start_twin("dr-a", adapter="b")
    await world.settle()
    assert told(world) == {"dr-a": [digest("b")]}
    world.start_twin("dr-c", adapter=None)
    await world.settle()
    assert told(world) == {"dr-a": [digest("b")], "dr-c": ["base"]}
    world.drop_twin("dr-a")
    await world.settle()
    assert told(world) == {"dr-c": ["base"]}


async def test_a_change_of_a_twin_restarts_no_gateway() -> None:
    world = await started("dr-a")
    before = world.api.kinds("Deployment")["v-gateway"]
    world.start_twin("dr-a", adapter="b")
    await world.settle()
    assert world.api.kinds("Deployment")["v-gateway"] == before


async def test_a_twin_that_can_not_be_read_any_more_keeps_its_weights() -> None:
    world = await started("dr-a")
    key = Key("DoctorTwin", NAMESPACE, "dr-a")
    world.api.put_spec(key, {**world.api.objects[key]["spec"], "doctor": {"name": 7}})
    await world.settle()
    assert told(world) == {"dr-a": [digest("a")]}


async def test_another_twin_of_the_name_never_inherits_what_the_first_was_answered_by() -> None:
    world = await started("dr-a")
    world.drop_twin("dr-a")
    made = world.start_twin("dr-a", adapter="d", doctor={"name": "Dr. Another", "licence": "L2"})
    await world.settle()
    [entry] = json.loads(world.api.kinds("ConfigMap")["v-gateway-twins"]["data"][names.TWINS_FILE])["twins"]
    assert (entry["uid"], entry["doctor"], entry["digests"]) == (made["metadata"]["uid"], "Dr. Another", [digest("d")])


async def test_twins_of_other_namespaces_are_none_of_its_own() -> None:
    world = await started("dr-a")
    other = without_server_fields(world.twin("dr-a"))
    world.api.put({**other, "metadata": {**other["metadata"], "namespace": "elsewhere", "name": "dr-x"}})
    await world.settle()
    assert told(world) == {"dr-a": [digest("a")]}


async def test_a_missing_hotkey_is_said_and_found_when_it_comes() -> None:
    world = await started("dr-a", secrets=())
    assert ready(world) == ("False", "SecretNotFound")
    world.api.put({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hotkey", "namespace": NAMESPACE}})
    validators = world.process._kinds["Validator"]
    validators._made_once._clock = lambda: 1e9  # type: ignore[attr-defined]
    await validators.reconcile(V)
    await act(world)
    assert ready(world) == ("True", "AllReady")


async def test_an_autoscaler_may_set_the_replicas_and_nothing_else_moves() -> None:
    world = await started("dr-a", secrets=("hotkey", "pg"), **POSTGRES)
    world.api.put_spec(V, {**world.api.objects[V]["spec"], "gateway": {"replicas": 3}})
    await world.settle()
    assert world.api.kinds("Deployment")["v-gateway"]["spec"]["replicas"] == 3
    assert "v-gateway" in world.api.kinds("PodDisruptionBudget")
    await act(world)
    assert status(world)["readyReplicas"] == 3
    world.api.put_spec(V, {**world.api.objects[V]["spec"], "gateway": {"replicas": 1}})
    await world.settle()
    assert "v-gateway" not in world.api.kinds("PodDisruptionBudget")


async def test_the_tables_of_a_database_are_made_once_and_again_for_another_image() -> None:
    world = await started("dr-a", secrets=("hotkey", "pg"), **POSTGRES)
    [first] = world.api.kinds("Job")
    world.api.put({
        **world.api.kinds("Job")[first], "status": {"conditions": [{"type": "Complete", "status": "True"}]},
    })  # fmt: skip
    await world.settle()
    assert world.condition("LedgerReachable", world.api.objects[V])[:2] == ("True", "LedgerPrepared")
    world.api.put_spec(V, {**world.api.objects[V]["spec"], "gateway": {"replicas": 1, "image": "n:2"}})
    await world.settle()
    [second] = world.api.kinds("Job")
    assert second != first
    assert world.condition("LedgerReachable", world.api.objects[V])[:2] == ("Unknown", "PreparingLedger")


async def test_deleting_it_leaves_the_ledger_and_what_finds_patients_in_it() -> None:
    world = await started("dr-a")
    world.api.drop(V)
    await world.settle()
    assert {f"{key.kind} {key.name}" for key in world.api.objects if key.name.startswith("v-")} == {
        "Secret v-gateway-sessions", "PersistentVolumeClaim v-gateway-state",
    }  # fmt: skip
    kept = dict(world.api.objects)
    world.api.put(without_server_fields(validator_object()))
    await world.settle()
    assert all(world.api.objects[key] == thing for key, thing in kept.items() if key.kind != "DoctorTwin")


async def test_each_child_that_somebody_deletes_or_changes_comes_back() -> None:
    world = await started("dr-a")
    children = [key for key in world.api.objects if key.name.startswith("v-") and key.kind in {
        "ServiceAccount", "NetworkPolicy", "Service", "ConfigMap", "Deployment",
    }]  # fmt: skip
    assert len(children) == 5
    for key in children:
        world.api.drop(key)
        await world.settle()
        assert key in world.api.objects
    configmap = world.api.kinds("ConfigMap")["v-gateway-twins"]
    world.api.put({**configmap, "data": {names.TWINS_FILE: "{}"}})
    await world.settle()
    assert told(world) == {"dr-a": [digest("a")]}


async def test_a_refused_child_holds_back_no_other_and_is_said() -> None:
    world = Played()

    def refuse(verb: str, key: Key, body: Manifest) -> None:
        if key.kind == "NetworkPolicy":
            raise ApiError(status=403, reason="Forbidden", message="not here")

    world.api.refuse = refuse
    world.start_twin("dr-a")
    world.api.put(without_server_fields(validator_object()))
    await world.lead()
    validators = world.process._kinds["Validator"]
    with pytest.raises(ApplyError, match="NetworkPolicy"):  # once all was said
        await validators.reconcile(V)
    assert "v-gateway" in world.api.kinds("Deployment")
    assert ready(world) == ("False", "ChildrenRefused")


async def test_a_spec_that_can_not_be_read_is_said_and_its_children_stay() -> None:
    world = await started("dr-a")
    before = set(world.api.objects)
    world.api.put_spec(V, {"chain": {"network": "finney", "netuid": -1}})
    await world.settle()
    assert ready(world) == ("False", "SpecInvalid")
    assert set(world.api.objects) == before

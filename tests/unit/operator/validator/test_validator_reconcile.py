"""A validator in the whole operator over an API server in memory: what it makes, follows and leaves alone."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from bettertherapy_api import names
from tests.unit.operator.cast import Cast
from tests.unit.operator.played import Played, without_server_fields
from tests.unit.operator.samples import NAMESPACE, digest
from tests.unit.operator.validator.validators import POSTGRES, validator_object
from twin_operator.domain.answering import KnownTwin, known_twin
from twin_operator.domain.objects import Twin
from twin_operator.engine.resources import Key, Manifest, Resource
from twin_operator.errors import ApiError, ApplyError
from twin_operator.kinds.validator import reconcile

V = Key("Validator", NAMESPACE, "v")


async def started(*twins: str, secrets: tuple[str, ...] = ("hotkey",), **spec: Any) -> Played:
    world = Played(tenants='{"images": ["n:*"]}')
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
        "ServiceAccount v-gateway", "Role v-gateway", "RoleBinding v-gateway", "NetworkPolicy v-gateway",
        "Service v-gateway", "ConfigMap v-gateway-twins",
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


async def test_the_gateway_is_told_of_a_canary_that_a_person_sets_by_hand() -> None:
    world = await started("dr-a")
    world.start_pool()
    world.start_pod()
    world.report()
    await world.settle()
    world.report("e1", ("dr-a", "a"))
    await world.settle()
    tried = {"digest": digest("b"), "servedName": names.served_name("dr-a", digest("b")), "uri": "pvc://s/b", "rank": 8}
    trial = {"canaryVersion": tried, "canaryWeightPercent": 10, "canaryStep": 0}
    world.api.put({**world.twin(), "status": {**world.twin()["status"], **trial}})
    world.start_twin("dr-a", adapter="b")
    await world.settle()
    world.report("e1", ("dr-a", "b"))
    await world.settle()
    assert world.answering() == [(digest("b"), 100)]
    assert told(world) == {"dr-a": [digest("b")]}


async def test_a_change_of_a_twin_restarts_no_gateway() -> None:
    world = await started("dr-a")
    before = world.api.kinds("Deployment")["v-gateway"]
    world.start_twin("dr-a", adapter="b")
    await world.settle()
    assert world.api.kinds("Deployment")["v-gateway"] == before


async def test_of_many_twins_only_the_one_that_changed_is_worked_out_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    names_ = [f"dr-{number}" for number in range(30)]
    world = await started(*names_)
    looked_at = []

    def seen(twin: Twin, **how: Any) -> KnownTwin:
        looked_at.append(twin.name)
        return known_twin(twin, **how)

    monkeypatch.setattr(reconcile, "known_twin", seen)
    world.process.queue.add(V)
    await world.settle()  # under its new name each is worked out once
    looked_at.clear()
    world.start_twin("dr-7", adapter="b")
    await world.settle()
    assert digest("b") in told(world)["dr-7"]
    assert set(looked_at) == {"dr-7"}
    # Once for each version of the object: its spec, and what its status said of it.
    assert len(looked_at) <= 4


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
        "ServiceAccount", "Role", "RoleBinding", "NetworkPolicy", "Service", "ConfigMap", "Deployment",
    }]  # fmt: skip
    assert len(children) == 7
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


def says(world: Played, kind: str) -> tuple[str, str]:
    return world.condition(kind, world.api.objects[V])[:2]


CONFIGMAP = Key("ConfigMap", NAMESPACE, "v-gateway-twins")


async def test_a_configmap_of_somebody_else_is_not_said_to_be_what_the_gateway_is_told() -> None:
    world = Played()
    world.api.put({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": CONFIGMAP.name, "namespace": NAMESPACE},
        "data": {names.TWINS_FILE: "{}"},
    })  # fmt: skip
    world.start_twin("dr-a")
    world.api.put(without_server_fields(validator_object()))
    await world.lead()
    await world.settle()
    assert says(world, "TwinsPublished") == ("False", "ChildConflict")
    assert status(world)["twins"] == 0
    assert world.api.objects[CONFIGMAP]["data"] == {names.TWINS_FILE: "{}"}


async def test_twins_that_could_not_be_written_are_not_said_to_be_published() -> None:
    world = await started("dr-a")

    def refuse(verb: str, key: Key, body: Manifest) -> None:
        if key == CONFIGMAP:
            raise ApiError(status=403, reason="Forbidden", message="policy: no")

    world.api.refuse = refuse
    world.start_twin("dr-b")
    await world.settle()
    assert says(world, "TwinsPublished") == ("False", "ChildrenRefused")
    assert status(world)["twins"] == 1  # what it was told before
    world.api.refuse = lambda verb, key, body: None
    await world.process._kinds["Validator"].reconcile(V)
    assert says(world, "TwinsPublished") == ("True", "TwinsPublished")
    assert status(world)["twins"] == 2


async def test_a_twin_that_could_never_be_read_is_named() -> None:
    """It is there, and its patients are turned away: that there is none would be false."""
    world = await started("dr-a")
    spec = world.twin("dr-a")["spec"]
    odd = without_server_fields({**world.twin("dr-a"), "spec": {**spec, "doctor": {"name": 7}}})
    world.api.put({**odd, "metadata": {**odd["metadata"], "name": "dr-odd"}})
    await world.settle()
    assert told(world) == {"dr-a": [digest("a")]}
    state, reason, message = world.condition("TwinsPublished", world.api.objects[V])
    assert (state, reason) == ("False", "TwinUnreadable")
    assert "dr-odd" in message
    world.drop_twin("dr-a")
    await world.settle()
    assert says(world, "TwinsPublished") == ("False", "TwinUnreadable")
    assert ready(world) == ("False", "GatewaysStarting")
    await act(world)
    assert ready(world) == ("False", "TwinUnreadable")


async def test_a_question_that_is_refused_is_no_answer_while_gateways_do() -> None:
    """A quota that is full refuses the dry run of a Secret that is there."""
    world = await started("dr-a")
    await act(world)

    async def refused(manifest: Manifest) -> bool:
        raise ApiError(status=403, reason="Forbidden", message="exceeded quota")

    world.api.would_create = refused  # type: ignore[method-assign]
    validators = world.process._kinds["Validator"]
    validators._made_once._clock = lambda: 1e9  # type: ignore[attr-defined]
    await validators.reconcile(V)
    assert ready(world) == ("True", "AllReady")
    assert says(world, "LedgerReachable") == ("True", "EmbeddedLedger")
    for pod in [key for key in world.api.objects if key.kind == "Pod"]:
        world.api.drop(pod)
    await world.settle()
    assert ready(world) == ("False", "ChildrenRefused")  # it may be why none comes up
    assert "exceeded quota" in world.condition("Ready", world.api.objects[V])[2]


async def test_what_can_not_be_asked_after_holds_back_nothing_else_that_is_made_once() -> None:
    world = Played()
    real = world.api.would_create

    async def breaks(manifest: Manifest) -> bool:
        if manifest["metadata"]["name"] == "hotkey":
            raise ApiError(status=500, reason="InternalError", message="failed calling webhook")
        return await real(manifest)

    world.api.would_create = breaks  # type: ignore[method-assign]
    world.start_twin("dr-a")
    world.api.put(without_server_fields(validator_object()))
    await world.lead()
    with pytest.raises(ApplyError, match="failed calling webhook"):
        await world.process._kinds["Validator"].reconcile(V)
    assert set(world.api.kinds("Secret")) == {"v-gateway-keys", "v-gateway-sessions"}
    assert "v-gateway-state" in world.api.kinds("PersistentVolumeClaim")


async def test_what_an_earlier_validator_of_its_name_left_says_nothing_of_it() -> None:
    """The garbage collector has not come yet."""
    world = await started("dr-a", secrets=("hotkey", "pg"), **POSTGRES)
    await act(world)
    [job] = world.api.kinds("Job")
    complete = {"conditions": [{"type": "Complete", "status": "True"}]}
    world.api.put({**world.api.kinds("Job")[job], "status": complete})
    await world.settle()
    assert says(world, "LedgerReachable") == ("True", "LedgerPrepared")
    gone = world.api.objects.pop(V)
    version = str(next(world.api._versions))
    world.api._tell("DELETED", {**gone, "metadata": {**gone["metadata"], "resourceVersion": version}})
    again = without_server_fields(validator_object(**POSTGRES))
    world.api.put({**again, "metadata": {**again["metadata"], "uid": "uid-v-second"}})
    await world.settle()
    assert says(world, "LedgerReachable") == ("Unknown", "PreparingLedger")
    assert ready(world) == ("False", "ChildConflict")


async def test_another_pull_secret_reaches_what_makes_the_tables() -> None:
    world = await started("dr-a", secrets=("hotkey", "pg"), **POSTGRES)
    world.api.put_spec(V, {**world.api.objects[V]["spec"], "imagePullSecrets": [{"name": "registry"}]})
    await world.settle()
    [job] = world.api.kinds("Job").values()
    assert job["spec"]["template"]["spec"]["imagePullSecrets"] == [{"name": "registry"}]


async def test_an_embedded_ledger_is_said_to_be_there_when_a_gateway_has_it() -> None:
    world = Played()

    def refuse(verb: str, key: Key, body: Manifest) -> None:
        if key.kind == "PersistentVolumeClaim":
            raise ApiError(status=403, reason="Forbidden", message="exceeded quota: storage")

    world.api.refuse = refuse
    world.start_twin("dr-a")
    world.api.put({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hotkey", "namespace": NAMESPACE}})
    world.api.put(without_server_fields(validator_object()))
    await world.lead()
    await world.settle()
    assert says(world, "LedgerReachable") == ("False", "ChildrenRefused")
    world.api.refuse = lambda verb, key, body: None
    validators = world.process._kinds["Validator"]
    validators._made_once._clock = lambda: 1e9  # type: ignore[attr-defined]
    await validators.reconcile(V)
    assert says(world, "LedgerReachable") == ("Unknown", "GatewaysStarting")
    await act(world)
    assert says(world, "LedgerReachable") == ("True", "EmbeddedLedger")


async def test_without_the_definition_of_validators_all_else_is_looked_after() -> None:
    """Helm brings no new definition with an upgrade: no pool may be left without a leader for that."""
    world = Played()
    real, defined = world.api.list, False

    async def listed(resource: Resource, **asked: Any) -> tuple[list[Manifest], int]:
        if resource.kind == V.kind and not defined:
            raise ApiError(status=404, reason="NotFound", message="the server could not find the requested resource")
        return await real(resource, **asked)

    world.api.list = listed  # type: ignore[method-assign]
    world.start_pool()
    await world.lead()
    await world.settle()
    assert "p-engine" in world.api.kinds("Deployment")
    world.hears = False  # kopf doesn't watch what it didn't find at its start
    world.api.put(without_server_fields(validator_object()))
    world.hears, defined = True, True
    await world.process.relist()
    await world.settle()
    assert "v-gateway" in world.api.kinds("Deployment")


async def test_a_type_that_serving_depends_on_must_be_there() -> None:
    """Slices that can't be listed are not slices that don't exist."""
    world = Played()
    real = world.api.list

    async def listed(resource: Resource, **asked: Any) -> tuple[list[Manifest], int]:
        if resource.kind == "RoutingSlice":
            raise ApiError(status=404, reason="NotFound", message="the server could not find the requested resource")
        return await real(resource, **asked)

    world.api.list = listed  # type: ignore[method-assign]
    world.process.type_seconds = 0.01
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await world.lead()
    assert "RoutingSlice" in (world.process.unready() or "")
    assert not world.api.writes

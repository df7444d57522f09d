"""What tenants may name: the operator begins nothing out of bounds, says why, and disturbs nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from bettertherapy_api import names
from tests.unit.operator.played import Played, serving, without_server_fields
from tests.unit.operator.run_samples import run
from tests.unit.operator.samples import NAMESPACE, digest, pool, twin
from tests.unit.operator.validator.validators import POSTGRES, ROUNDS, validator, validator_object
from tests.unit.operator.validator.validators import TASKS as VALIDATOR_TASKS
from twin_operator.domain.bounds import (
    ENGINE_FLAGS,
    Bounds,
    allows,
    flag_of,
    pool_out_of_bounds,
    run_out_of_bounds,
    twin_out_of_bounds,
    validator_out_of_bounds,
)
from twin_operator.domain.objects import Validator
from twin_operator.domain.reasons import Reason
from twin_operator.engine.resources import Key
from twin_operator.settings import Images, from_environment

Spec = dict[str, Any]
OWN = Images()
STORE = {"uri": "pvc://adapters/store"}

POOLS: dict[str, tuple[Spec, str]] = {
    "an engine image": ({"engine": {"image": "evil"}}, "spec.engine.image is evil"),
    "a miner image": ({"miner": {"image": "evil"}}, "spec.miner.image is evil"),
    "a trainer image": ({"fineTune": {"image": "evil"}}, "spec.fineTune.image is evil"),
    "a folder of the node": ({"cache": {"hostPath": "/etc"}}, "spec.cache.hostPath is /etc"),
    "a runtime class": ({"runtimeClassName": "x"}, "spec.runtimeClassName is x"),
    "a priority": ({"engine": {"pod": {"priorityClassName": "p"}}}, "spec.engine.pod.priorityClassName is p"),
    "a miner's priority": ({"miner": {"pod": {"priorityClassName": "p"}}}, "spec.miner.pod.priorityClassName is p"),
    "a trainer's priority": ({"fineTune": {"priorityClassName": "p"}}, "spec.fineTune.priorityClassName is p"),
    "a store": ({"store": {"uri": "file:///etc/keys"}}, "spec.store.uri is file:///etc/keys"),
    "steps that are decoded": ({"store": {"uri": "pvc://c/%2e%2E/x"}}, "leads out of its folder"),
    "a server of keys": (
        {"baseModel": {"name": "m"}, "engine": {"endpoint": "http://169.254.169.254"}}, "a link-local address"
    ),
    "no flag": ({"engine": {"args": ["evil/model"]}}, "write each argument in one element"),
    **{
        flag: ({"engine": {"args": [flag]}}, "which tenants may not set here")
        for flag in (
            "--kv-events-config={}", "--kv-transfer-config={}", "--grpc", "--trust-remote-code", "--trust_remote_code",
            "--allowed-local-media-path=/", "--tool-parser-plugin=/x", "--enable-log-outputs", "--api-k=x", "--api_key",
            "--kv-transfer-config.kv_connector=x", "--enable-pre", "--gpu-memory-util=1",
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("what", POOLS)
def test_what_a_pool_may_not_name(what: str) -> None:
    spec, says = POOLS[what]
    found = pool_out_of_bounds(pool(**spec), Bounds(), OWN)
    assert found is not None
    assert found.reason is Reason.OUT_OF_BOUNDS
    assert says in found.message


def test_what_the_platforms_team_allows_is_within_bounds() -> None:
    bounds = Bounds(
        images=("registry.example/team/*",), host_paths=("/var/cache/models",), priority_classes=("gold",),
        stores=("s3://ours/*",), models=("pvc://models/*",),
    )  # fmt: skip
    spec: Spec = {
        "engine": {
            "image": "registry.example/team/vllm:1", "args": ["--gpu_memory_utilization=0.9", "--seed=1"],
            "pod": {"priorityClassName": "gold"},
        },
        "miner": {"image": OWN.neuron}, "cache": {"hostPath": "/var/cache/models"}, "runtimeClassName": "nvidia",
        "store": {"uri": "s3://ours/x"}, "baseModel": {"name": "m", "uri": "pvc://models/m"},
    }  # fmt: skip
    assert pool_out_of_bounds(pool(**spec), bounds, OWN) is None
    assert pool_out_of_bounds(pool(**{**spec, "store": {"uri": "s3://ours-not/x"}}), bounds, OWN) is not None


@pytest.mark.parametrize("flag", ENGINE_FLAGS)
def test_each_flag_of_the_list_is_taken_in_full_alone(flag: str) -> None:
    def tried(argument: str) -> bool:
        return pool_out_of_bounds(pool(engine={"args": [argument]}), Bounds(), OWN) is None

    assert tried(flag)
    assert tried(f"{flag.replace('-', '_').replace('__', '--', 1)}=1")
    assert tried(f"{flag}.part=1")
    shorter = flag[:-1]
    assert tried(shorter) == (shorter in ENGINE_FLAGS)


@pytest.mark.parametrize(
    ("argument", "flag"),
    [
        ("--a-b=c", "--a-b"),
        ("--a_b", "--a-b"),
        ("--a.b=c.d", "--a"),
        ("-a", None),
        ("a", None),
        ("--", None),
        ("", None),
    ],
)
def test_which_flag_an_argument_sets(argument: str, flag: str | None) -> None:
    assert flag_of(argument) == flag


def test_a_star_stands_for_any_rest() -> None:
    assert allows(("a/*",), "a/b")
    assert not allows(("a/*",), "ab")
    assert not allows((), "a")
    assert allows(("*",), "a")


RUNS: dict[str, tuple[Spec, str]] = {
    "its own image": ({"image": "evil"}, "spec.image is evil"),
    "a system priority": ({"priorityClassName": "system-node-critical"}, "spec.priorityClassName is system-node"),
    "another claim": ({"dataset": {"uri": "pvc://payroll/x"}}, "is on claim payroll"),
    "a file of the pod": ({"dataset": {"uri": "file:///var/run/x"}}, "spec.dataset.uri is file:///var/run/x"),
}


@pytest.mark.parametrize("what", RUNS)
def test_what_a_run_may_not_name(what: str) -> None:
    spec, says = RUNS[what]
    found = run_out_of_bounds(run(**spec), pool(store=STORE), Bounds(), OWN)
    assert found is not None
    assert says in found.message
    assert "operator's chart" in found.message
    assert run_out_of_bounds(run(), pool(store=STORE), Bounds(), OWN) is None
    assert (
        run_out_of_bounds(run(**RUNS["another claim"][0]), pool(store=STORE), Bounds(claims=("payroll",)), OWN) is None
    )


TASK = "11111111-1111-4111-8111-111111111111"
DELIVERIES = "pvc://deliveries/tasks"
OFFERS = {"publicUrl": "https://v.example", "deliveries": DELIVERIES}
TASKS: dict[str, Any] = {"fineTuneTasks": {"store": STORE, "offers": OFFERS}}
GIVEN = "https://v.example/v1/tasks/" + TASK + "/{}?digest=x"


def candidate(**changes: Any) -> Spec:
    own = {
        "task": TASK, "validator": "v", "miner": "5" * 48, "digest": digest("b"), "deadline": "2030-01-01T00:00:00Z",
        "delivered": f"{DELIVERIES}/{TASK}/{'b' * 64}", **changes,
    }  # fmt: skip
    return {"candidate": own, "dataset": {"uri": GIVEN.format("dataset"), "digest": digest("d")}}


def held_out(uri: str) -> Spec:
    return {"heldOut": {"uri": uri, "digest": digest("e")}}


def test_a_candidate_is_taken_from_where_its_validators_gateway_laid_it_and_from_nowhere_else() -> None:
    of, gateway = pool(store=STORE), validator(**TASKS)
    good = run(**candidate(**held_out(GIVEN.format("examination"))))
    assert run_out_of_bounds(good, of, Bounds(), OWN, validator=gateway) is None
    for spec, to, says in (
        (candidate(delivered="pvc://payroll/x/y"), gateway, "spec.candidate.delivered is pvc://payroll/x/y"),
        (candidate(delivered=f"{DELIVERIES}/other/{'b' * 64}"), gateway, f"{DELIVERIES}/{TASK}/{'b' * 64}"),
        (candidate(), None, "Validator v, which takes no deliveries here"),
        (candidate(**held_out("pvc://payroll/x")), gateway, "spec.candidate.heldOut.uri is on claim payroll"),
        (candidate(**held_out("file:///var/run/x")), gateway, "spec.candidate.heldOut.uri is file:///var/run/x"),
        (
            candidate(**held_out(f"http://169.254.169.254/v1/tasks/{TASK}/examination?x")), gateway,
            "spec.candidate.heldOut.uri is a link-local address",
        ),
        (candidate(), validator(), "Validator v, which takes no deliveries here"),
    ):  # fmt: skip
        found = run_out_of_bounds(run(**spec), of, Bounds(), OWN, validator=to)
        assert found is not None, spec
        assert says in found.message


async def test_a_candidate_by_hand_from_another_claim_is_not_begun() -> None:
    world = Played()
    world.start_pool(store=STORE)
    world.start_twin()
    await world.lead()
    world.api.put({
        "apiVersion": names.API_VERSION, "kind": "FineTuneRun", "metadata": {"name": "evil", "namespace": NAMESPACE},
        "spec": {"twinRef": {"name": "dr-a"}, "parentDigest": digest("a"), **candidate(delivered="pvc://payroll/x/y")},
    })  # fmt: skip
    await world.settle()
    assert world.condition("Failed", world.api.kinds("FineTuneRun")["evil"])[:2] == ("True", "OutOfBounds")
    assert world.api.kinds("Job") == {}


async def test_a_pool_out_of_bounds_starts_nothing_and_says_why() -> None:
    world = Played()
    world.start_pool(engine={"device": "CPU", "image": "evil"})
    world.start_pool("q")
    await world.lead()
    await world.settle()
    status, reason, message = world.condition("Ready", world.pool())
    assert (status, reason) == ("False", "OutOfBounds")
    assert "spec.engine.image is evil" in message
    deployments = set(world.api.kinds("Deployment"))
    assert deployments == {"q-engine", "q-miner"}, "the other pool has its own"


async def test_what_runs_goes_on_when_its_pool_goes_out_of_bounds() -> None:
    world = Played()
    world.start_pool()
    await world.lead()
    await world.settle()
    key = Key("Deployment", NAMESPACE, "p-engine")
    before = json.dumps(world.api.objects[key]["spec"], sort_keys=True)
    named = {**world.pool()["spec"], "engine": {"device": "CPU", "maxLoras": 4, "args": ["--trust-remote-code"]}}
    world.api.put_spec(Key("MinerPool", NAMESPACE, "p"), named)
    await world.settle()
    assert world.condition("Ready", world.pool())[1] == "OutOfBounds"
    assert json.dumps(world.api.objects[key]["spec"], sort_keys=True) == before
    world.api.put_spec(Key("MinerPool", NAMESPACE, "p"), {**named, "engine": {"device": "CPU", "maxLoras": 4}})
    await world.settle()
    assert world.condition("Ready", world.pool())[1] != "OutOfBounds"


async def test_a_run_out_of_bounds_ends_and_holds_no_place_in_line() -> None:
    world = Played()
    world.start_pool(store=STORE, fineTune={"maxConcurrentRuns": 1})
    world.start_twin()
    await world.lead()
    await world.settle()
    for name, spec in (("evil", {"image": "evil"}), ("good", {})):
        world.api.put({
            "apiVersion": names.API_VERSION, "kind": "FineTuneRun", "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {
                "twinRef": {"name": "dr-a"}, "parentDigest": digest("a"),
                "dataset": {"uri": "pvc://adapters/store/dr-a/interactions"}, **spec,
            },
        })  # fmt: skip
        await world.settle()
    runs = world.api.kinds("FineTuneRun")
    assert world.condition("Failed", runs["evil"])[:2] == ("True", "OutOfBounds")
    assert runs["evil"]["status"]["failure"]["retryable"] is False
    assert world.condition("Queued", runs["good"])[0] == "False"
    assert set(world.api.kinds("Job")) == {"good"}


async def test_no_run_begins_in_a_pool_that_is_out_of_bounds() -> None:
    world = Played()
    world.start_pool(store=STORE, fineTune={"image": "evil"})
    world.start_twin()
    await world.lead()
    world.api.put({
        "apiVersion": names.API_VERSION, "kind": "FineTuneRun", "metadata": {"name": "r", "namespace": NAMESPACE},
        "spec": {
            "twinRef": {"name": "dr-a"}, "parentDigest": digest("a"),
            "dataset": {"uri": "pvc://adapters/store/dr-a/interactions"},
        },
    })  # fmt: skip
    await world.settle()
    status, reason, message = world.condition("Queued", world.api.kinds("FineTuneRun")["r"])
    assert (status, reason) == ("True", "OutOfBounds")
    assert "MinerPool p may start nothing: spec.fineTune.image is evil" in message


WEIGHTS = {"correctness": 70, "speed": 10, "satisfaction": 10, "participation": 10}
VALIDATORS: dict[str, tuple[Spec, str]] = {
    "an image": ({"gateway": {"image": "evil"}}, "spec.gateway.image is evil"),
    "a priority": ({"gateway": {"pod": {"priorityClassName": "p"}}}, "spec.gateway.pod.priorityClassName is p"),
    "a store": ({"fineTuneTasks": {"store": {"uri": "file:///etc"}}}, "spec.fineTuneTasks.store.uri is file:///etc"),
    "deliveries": (
        {"fineTuneTasks": {"store": STORE, "offers": {**OFFERS, "deliveries": "pvc://c/%2e%2e/x"}}},
        "spec.fineTuneTasks.offers.deliveries is pvc://c/%2e%2e/x, which leads out",
    ),
    "the pages' store": (
        {"gateway": {"pages": {"origin": "https://a.example", "store": {"uri": "file:///etc"}}}},
        "spec.gateway.pages.store.uri is file:///etc",
    ),
    "a judge": (
        {"scoring": {"weightsPercent": WEIGHTS, "judge": {"endpoint": "https://judge.example/v1", "model": "m"}}},
        "spec.scoring.judge.endpoint is https://judge.example/v1",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", VALIDATORS)
def test_what_a_validator_may_not_name(what: str) -> None:
    spec, says = VALIDATORS[what]
    found = validator_out_of_bounds(with_spec(validator(), spec), Bounds(endpoints=("http://*",)), OWN)
    assert found is not None
    assert found.reason is Reason.OUT_OF_BOUNDS
    assert says in found.message
    assert validator_out_of_bounds(validator(), Bounds(), OWN) is None


def with_spec(made: Validator, spec: Spec) -> Validator:
    """Return it with this in its spec."""
    whole = {**made.spec.model_dump(mode="json", by_alias=True, exclude_none=True), **spec}
    stored = type(made.spec).model_validate({**whole, "gateway": {"replicas": 1, **whole["gateway"]}})
    return replace(made, spec=stored)


async def test_a_validator_out_of_bounds_starts_nothing_and_says_why() -> None:
    world = Played()
    for name in ("hotkey", "pg", "s3"):
        world.api.put({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": NAMESPACE}})
    spec = {**POSTGRES, **ROUNDS, **VALIDATOR_TASKS, "gateway": {"replicas": 1, "image": "evil"}}
    world.api.put(without_server_fields(validator_object(**spec)))
    world.api.put(without_server_fields(validator_object("w", **POSTGRES, **ROUNDS)))
    world.api.put({
        "apiVersion": names.API_VERSION, "kind": "ValidatorRound", "metadata": {"name": "r", "namespace": NAMESPACE},
        "spec": {"validatorRef": {"name": "v"}},
    })  # fmt: skip
    await world.lead()
    await world.settle()
    shown = world.api.kinds("Validator")["v"]
    status, reason, message = world.condition("Ready", shown)
    assert (status, reason) == ("False", "OutOfBounds")
    assert "spec.gateway.image is evil" in message
    assert world.condition("LedgerReachable", shown)[:2] == ("Unknown", "OutOfBounds")
    assert set(world.api.kinds("Deployment")) == {"w-gateway"}, "the other has its own"
    assert {name for kind in ("Job", "CronJob") for name in world.api.kinds(kind) if name.startswith("v-")} == set()
    waiting = world.condition("Running", world.api.kinds("ValidatorRound")["r"])
    assert waiting[:2] == ("False", "OutOfBounds")
    assert "Validator v may start nothing: spec.gateway.image is evil" in waiting[2]


async def test_what_runs_goes_on_when_its_validator_goes_out_of_bounds() -> None:
    world = Played()
    world.api.put({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hotkey", "namespace": NAMESPACE}})
    world.api.put(without_server_fields(validator_object(**ROUNDS)))
    await world.lead()
    await world.settle()
    key, before = Key("Validator", NAMESPACE, "v"), pods_of(world)
    assert len(before) == 2, "a gateway, and what makes rounds"
    named = world.api.objects[key]["spec"]
    world.api.put_spec(key, {**named, "gateway": {**named["gateway"], "image": "evil", "minersPerQuery": 7}})
    await world.settle()
    assert world.condition("Ready", world.api.objects[key])[1] == "OutOfBounds"
    assert pods_of(world) == before
    world.api.put_spec(key, {**named, "gateway": {**named["gateway"], "minersPerQuery": 7}})
    await world.settle()
    assert world.condition("Ready", world.api.objects[key])[1] != "OutOfBounds"
    assert pods_of(world) != before


def pods_of(world: Played) -> dict[str, str]:
    """What makes pods, as it is."""
    return {
        name: json.dumps(thing["spec"], sort_keys=True)
        for kind in ("Deployment", "Job", "CronJob")
        for name, thing in world.api.kinds(kind).items()
    }


TWINS: dict[str, Spec] = {
    "spec.gate.evalSetRef.uri is file:///etc/keys": {"evalSetRef": {"uri": "file:///etc/keys", "digest": digest("e")}},
    "spec.gate.judgeRef.endpoint is https://judge.example/v1": {
        "judgeRef": {"endpoint": "https://judge.example/v1", "model": "m"}
    },
}


@pytest.mark.parametrize("says", TWINS)
def test_what_a_twins_gate_may_not_name(says: str) -> None:
    found = twin_out_of_bounds(twin(gate=TWINS[says]), Bounds(endpoints=("http://*",)))
    assert found is not None
    assert found.message.startswith(says)
    assert twin_out_of_bounds(twin(), Bounds()) is None


FAR = {"uri": "s3://elsewhere/x", "digest": digest("b"), "rank": 16}


async def test_no_engine_is_told_of_an_adapter_out_of_bounds_and_what_answers_goes_on() -> None:
    world = await serving()
    world.process.world.bounds = Bounds(stores=("pvc://*",))
    key = Key("DoctorTwin", NAMESPACE, "dr-a")
    world.api.put_spec(key, {**world.twin()["spec"], "adapter": FAR})
    await world.settle()
    status, reason, message = world.condition("Ready", world.twin())
    assert (status, reason) == ("False", "OutOfBounds")
    assert "spec.adapter.uri is s3://elsewhere/x" in message
    assert world.answering() == [(digest("a"), 100)]
    assert "elsewhere" not in json.dumps(world.entries())
    world.start_twin("dr-new", adapter=None)
    new = Key("DoctorTwin", NAMESPACE, "dr-new")
    world.api.put_spec(new, {**world.twin("dr-new")["spec"], "adapter": FAR})
    await world.settle()
    assert world.answering("dr-new") == []
    assert world.condition("Ready", world.twin("dr-new"))[1] == "OutOfBounds"


async def test_no_run_begins_whose_twin_is_out_of_bounds() -> None:
    world = Played()
    world.start_pool(store=STORE)
    world.start_twin(gate={"evalSetRef": {"uri": "file:///etc/keys", "digest": digest("e")}})
    await world.lead()
    world.api.put({
        "apiVersion": names.API_VERSION, "kind": "FineTuneRun", "metadata": {"name": "r", "namespace": NAMESPACE},
        "spec": {
            "twinRef": {"name": "dr-a"}, "parentDigest": digest("a"),
            "dataset": {"uri": "pvc://adapters/store/dr-a/interactions"},
        },
    })  # fmt: skip
    await world.settle()
    status, reason, message = world.condition("Queued", world.api.kinds("FineTuneRun")["r"])
    assert (status, reason) == ("True", "OutOfBounds")
    assert "DoctorTwin dr-a may have nothing trained: spec.gate.evalSetRef.uri is file:///etc/keys" in message
    assert world.api.kinds("Job") == {}


def test_the_environment_tells_the_bounds() -> None:
    said = from_environment([], {"TWIN_TENANTS": '{"images": ["a/*"]}'}).tenants
    assert Bounds.model_validate_json(said or "").images == ("a/*",)
    assert from_environment([], {}).tenants is None

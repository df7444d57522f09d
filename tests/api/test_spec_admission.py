"""What a real API server makes of the values with which the specs are walked: taken, or refused in words; and the way
there and back of some of them on a running operator.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.api.operator_harness import (
    Cluster,
    clean,
    cluster,
    condition,
    held,
    pool_manifest,
    twin_manifest,
    until,
)
from tests.api.test_operator_run import run_manifest
from tests.unit.operator.spec_walk import Change, changes
from tests.unit.operator.validator.validators import validator_object
from twin_operator.engine.resources import Manifest
from twin_operator.errors import ApiError
from twin_operator.kinds.resources import BY_KIND

pytestmark = pytest.mark.cluster


@pytest.fixture
async def world(kubeconfig: Path, home: str) -> AsyncIterator[Cluster]:
    async with cluster(kubeconfig, home) as world:
        yield world
        await clean(world)


def manifest_of(kind: str, namespace: str) -> Manifest:
    if kind == "FineTuneRun":
        return run_manifest(namespace)
    if kind == "Validator":
        return validator_manifest(namespace)
    return pool_manifest(namespace) if kind == "MinerPool" else twin_manifest(namespace, systemPrompt="You are Dr. A.")


def validator_manifest(namespace: str) -> Manifest:
    made = validator_object()
    return {**made, "metadata": {"name": "v", "namespace": namespace}}


async def replaced(world: Cluster, thing: Manifest, spec: Manifest, *, dry: bool = False) -> Manifest:
    """Replace the spec as `kubectl replace` does; with `dry`, only ask whether it would be taken."""
    metadata = {part: thing["metadata"][part] for part in ("name", "namespace")}
    path = BY_KIND[thing["kind"]].path(namespace=metadata["namespace"], name=metadata["name"])
    query = {"fieldManager": "person", "fieldValidation": "Strict", **({"dryRun": "All"} if dry else {})}
    while True:
        live = await world.api._request("GET", path)
        try:
            return await world.api._request("PUT", path, query=query, body={**live, "spec": spec})
        except ApiError as error:
            if error.status != 409:  # the operator wrote a status meanwhile
                raise


REFUSED = {
    "DoctorTwin": {
        "DoctorTwin.doctor", "DoctorTwin.doctor.licence",
        *(f"DoctorTwin.gate.judgeRef{part}" for part in (
            "", ".model", ".secondModel", ".secretRef", ".secretRef.name", ".language", ".seconds", ".concurrency"
        )),  # without the judge's server, which is named in one of two ways
    },
    "MinerPool": {"MinerPool.baseModel", "MinerPool.baseModel.name", "MinerPool.metricsFrom", "MinerPool.miner.chain"},
    "Validator": {
        "Validator.gateway.metricsFrom",  # an empty one, as of MinerPool
        *(f"Validator.scoring.{part}" for part in (
            "judge", "judge.endpoint", "judge.model", "judge.secretRef", "judge.secretRef.name"
        )),  # beside weights that come to nothing: they are required, and the walk's are 0
    },
}  # fmt: skip
"""Properties of which the walk's value is refused; of a FineTuneRun all are."""


@pytest.mark.parametrize("kind", ["DoctorTwin", "MinerPool", "FineTuneRun", "Validator"])
async def test_each_value_is_taken_or_refused_in_words(world: Cluster, kind: str) -> None:
    thing = await world.api.create(manifest_of(kind, world.namespace))
    refused: dict[str, str] = {}
    planned = list(changes(kind, thing["spec"]))
    for change in planned:
        try:
            await replaced(world, thing, change.spec, dry=True)
        except ApiError as error:
            if error.status != 422:
                raise
            refused[change.name] = error.message
    wordless = {name: said for name, said in refused.items() if not _in_words(said)}
    assert wordless == {}
    expected = REFUSED.get(kind, {change.name for change in planned})
    assert refused.keys() == expected, json.dumps({name: said[-200:] for name, said in refused.items()}, indent=1)


def _in_words(message: str) -> bool:
    """Tell whether it says more than that a rule fails."""
    return "failed rule" not in message and len(message.split()) >= 6


SAMPLE = (
    "DoctorTwin.systemPrompt", "DoctorTwin.baseModel.name", "DoctorTwin.poolSelector.matchLabels", "DoctorTwin.adapter",
    "DoctorTwin.fineTune.schedule", "MinerPool.baseModel.revision", "MinerPool.engine.endpoint",
    "MinerPool.engine.args", "MinerPool.resources", "MinerPool.cache", "MinerPool.replicas", "MinerPool.tolerations",
    "MinerPool.nodeSelector", "MinerPool.disruption.maxUnavailable", "MinerPool.engine.updateStrategy.type",
    "MinerPool.engine.pod.labels", "MinerPool.engine.pod.env", "MinerPool.miner.resources", "MinerPool.drainSeconds",
)  # fmt: skip


async def test_there_and_back_on_a_real_api_server(world: Cluster) -> None:
    pool = await world.api.create(manifest_of("MinerPool", world.namespace))
    twin = await world.api.create(manifest_of("DoctorTwin", world.namespace))
    await world.start_pod("e1")
    await world.report("e1", held())
    await until(lambda: _serves(world), what="the twin answers")
    things = {"DoctorTwin": twin, "MinerPool": pool}
    planned = [
        change for kind, thing in things.items() for change in changes(kind, thing["spec"]) if change.name in SAMPLE
    ]
    assert {change.name for change in planned} == set(SAMPLE)
    for change in planned:
        await _there_and_back(world, things[change.kind], change)


async def _serves(world: Cluster) -> bool:
    return condition(await world.twin(), "Serving")[0] == "True"


async def _there_and_back(world: Cluster, thing: Manifest, change: Change) -> None:
    before = await _at_rest(world)
    await replaced(world, thing, change.spec)
    await until(lambda: _observed(world, change.kind), what=f"{change.name} is observed")
    await _at_rest(world)
    await replaced(world, thing, thing["spec"])
    await until(lambda: _observed(world, change.kind), what=f"{change.name} is observed to be taken back")

    async def same() -> bool:
        return await _state(world) == before

    try:
        await until(same, seconds=15)
    except AssertionError:
        after = await _state(world)
        assert {name: after.get(name) for name in after} == before, change.name
        raise


async def _observed(world: Cluster, kind: str) -> bool:
    thing = await (world.twin() if kind == "DoctorTwin" else world.pool())
    return bool((thing.get("status") or {}).get("observedGeneration") == thing["metadata"]["generation"])


async def _at_rest(world: Cluster) -> dict[str, str]:
    """Return the state once it was the same five times."""
    seen: list[dict[str, str]] = []

    async def same() -> bool:
        seen.append(await _state(world))
        return len(seen) >= 5 and all(each == seen[-1] for each in seen[-5:])

    await until(same, every=0.05, what="it comes to rest")
    return seen[-1]


async def _state(world: Cluster) -> dict[str, str]:
    """Return children's specs, slices, and conditions' types, states and reasons."""
    found: dict[str, Any] = {}
    for (kind, name), thing in (await world.children()).items():
        found[f"{kind} {name}"] = {part: value for part, value in thing.items() if part not in ("metadata", "status")}
    routing = await world.routing()
    found["twins"], found["pods"] = routing["twins"], routing["pods"]
    for thing in (await world.pool(), await world.twin()):
        conditions = (thing.get("status") or {}).get("conditions") or []
        found[thing["kind"]] = sorted((each["type"], each["status"], each["reason"]) for each in conditions)
    return {name: json.dumps(said, sort_keys=True) for name, said in found.items()}

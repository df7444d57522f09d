"""No pod of ours can fill its node's disk: every scratch volume has a size, every container a request and a limit."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import twin_operator.kinds
from tests.unit.operator.children import pods as of_pool
from tests.unit.operator.rounds.samples import ALL, STARTED, round_
from tests.unit.operator.run_samples import run
from tests.unit.operator.samples import digest, pool, twin
from tests.unit.operator.test_examinations import examining
from tests.unit.operator.validator import validators as of_validator
from tests.unit.operator.validator.validators import validator
from twin_operator.engine.compare import quantity
from twin_operator.kinds.finetune_run.adoption_job import build_adoption_job
from twin_operator.kinds.finetune_run.examiner_job import build_examiner_job
from twin_operator.kinds.finetune_run.trainer_job import build_trainer_job
from twin_operator.kinds.validator_round.jobs import build_recompute_job, build_round_job, build_weights_job
from twin_operator.settings import Images

Manifest = dict[str, Any]
STORE: Manifest = {"store": {"uri": "pvc://adapters/store"}}
POOLS: list[Manifest] = [
    *of_pool.VARIANTS,
    {"resources": {"limits": {"memory": "1Gi"}}},
    {"resources": {"requests": {"ephemeral-storage": "900Gi"}}},
    {"resources": {"limits": {"ephemeral-storage": "1Mi"}}, "cache": {"sizeLimit": "9Gi"}},
    {"agent": {"resources": {"limits": {"ephemeral-storage": "5Gi"}}}},
    {"engine": {"pod": {"volumes": [{"name": "scratch", "mountPath": "/scratch", "emptyDir": {}}]}}},
]


def pod_specs(thing: Any) -> Iterator[Manifest]:
    """Find the pods in whatever was rendered, however deep: what has containers is one."""
    if isinstance(thing, dict):
        if isinstance(thing.get("containers"), list):
            yield thing
        for value in thing.values():
            yield from pod_specs(value)
    elif isinstance(thing, list):
        for value in thing:
            yield from pod_specs(value)


def of_pools(name: str) -> list[Any]:
    return [child for spec in POOLS for (_, at), child in of_pool.children(**spec).items() if at == f"p-{name}"]


def of_validators(kind: str, component: str) -> list[Any]:
    return [
        child
        for spec in of_validator.VARIANTS
        for (of, name), child in of_validator.children(**spec).items()
        if of == kind and component in name
    ]


def rounds() -> list[Any]:
    made, owner, images = round_(status=STARTED), validator(**ALL), Images(neuron="n:1")
    return [
        build_round_job(made, owner, images, prometheus_url=None),
        build_weights_job(made, owner, images, prometheus_url=None),
        build_recompute_job(made, owner, images, token="t"),
    ]


def trainers() -> list[Any]:
    return [
        build_trainer_job(run(), twin(), pool(**{**STORE, **spec}), Images(), prompt=True)
        for spec in POOLS
        if "engine" not in spec or "endpoint" not in spec["engine"]
    ]


def examiners() -> list[Any]:
    return [
        build_examiner_job(run(), twin(), pool(**{**STORE, **spec}), Images(), child=digest("b"), prompt=True)
        for spec in POOLS
        if "engine" not in spec or "endpoint" not in spec["engine"]
    ]


def adoptions() -> list[Any]:
    made = examining()
    assert made.spec.candidate is not None
    return [build_adoption_job(made, made.spec.candidate, twin("dr-a"), pool(**STORE), Images())]


RENDERED: dict[str, Callable[[], list[Any]]] = {
    "miner_pool/engine_deployment.py": lambda: of_pools("engine"),
    "miner_pool/miner_deployment.py": lambda: of_pools("miner"),
    "validator/gateway_deployment.py": lambda: of_validators("Deployment", "gateway"),
    "validator/ledger_job.py": lambda: of_validators("Job", "ledger"),
    "validator/datasets_cronjob.py": lambda: of_validators("CronJob", "datasets"),
    "validator/rounds_cronjob.py": lambda: of_validators("CronJob", "rounds"),
    "validator_round/jobs.py": rounds,
    "finetune_run/trainer_job.py": trainers,
    "finetune_run/examiner_job.py": examiners,
    "finetune_run/adoption_job.py": adoptions,
}
"""What each module that builds pods renders."""


def test_whatever_builds_pods_is_looked_at_here() -> None:
    kinds = Path(next(iter(twin_operator.kinds.__path__)))
    builders = {
        str(path.relative_to(kinds))
        for path in kinds.rglob("*.py")
        if re.search(r'"containers": \[\s*[{_]', path.read_text())
    }
    assert builders == set(RENDERED)


@pytest.mark.parametrize("module", RENDERED)
def test_every_pod_is_bounded(module: str) -> None:
    found = list(pod_specs(RENDERED[module]()))
    assert found
    for pod in found:
        every = [*pod.get("initContainers", []), *pod["containers"]]
        for volume in pod["volumes"]:
            if "emptyDir" in volume:
                assert quantity(volume["emptyDir"].get("sizeLimit")), volume
        for container in every:
            asked = container["resources"]
            request = quantity(asked.get("requests", {}).get("ephemeral-storage"))
            limit = quantity(asked.get("limits", {}).get("ephemeral-storage"))
            assert request is not None, container["name"]
            assert limit is not None, container["name"]
            assert 0 < request <= limit


@pytest.mark.parametrize("module", RENDERED)
def test_no_pod_is_evicted_before_its_volumes_are_full(module: str) -> None:
    """The kubelet holds all of a pod's disk to the sum of its containers' limits."""
    for pod in pod_specs(RENDERED[module]()):
        running = [
            *(each for each in pod.get("initContainers", []) if each.get("restartPolicy") == "Always"),
            *pod["containers"],
        ]
        limits = [quantity(each["resources"]["limits"]["ephemeral-storage"]) for each in running]
        if 1 << 20 in limits:  # the pool's owner said so
            continue
        mounted = {each["name"] for container in running for each in container["volumeMounts"]}
        scratch = [
            quantity(volume["emptyDir"]["sizeLimit"])
            for volume in pod["volumes"]
            if volume["name"] in mounted and volume.get("emptyDir", {"medium": "Memory"}).get("medium") != "Memory"
        ]
        assert sum(filter(None, limits)) > sum(filter(None, scratch))


def engine(**spec: Any) -> Manifest:
    return of_pool.pod_of(of_pool.children(**spec)["Deployment", "p-engine"])


def sizes(pod: Manifest) -> dict[str, str]:
    return {volume["name"]: volume["emptyDir"]["sizeLimit"] for volume in pod["volumes"] if "emptyDir" in volume}


def disk(pod: Manifest, name: str) -> tuple[str, str]:
    asked = of_pool.containers(pod)[name]["resources"]
    return asked["requests"]["ephemeral-storage"], asked["limits"]["ephemeral-storage"]


def variable(pod: Manifest, container: str, name: str) -> str | None:
    found = {each["name"]: each.get("value") for each in of_pool.containers(pod)[container]["env"]}
    return found.get(name)


def test_a_fetched_model_has_the_room_that_the_pool_names_and_a_node_is_chosen_that_has_it() -> None:
    uri = {"baseModel": {"name": "m", "uri": "hf://a/m"}}
    assert sizes(engine(**uri))["models"] == "64Gi"
    assert sizes(engine(**uri, **of_pool.GPU))["models"] == "256Gi"
    named = engine(**uri, cache={"sizeLimit": "9Gi"})
    assert (sizes(named)["cache"], sizes(named)["models"]) == ("9Gi", "256Mi")
    assert disk(named, "engine")[0] == f"{9 * 1024 + 64}Mi"
    assert disk(engine(**uri), "engine")[0] == "64Mi"
    claimed = engine(**uri, cache={"claimName": "c", "sizeLimit": "9Gi"})
    assert sizes(claimed)["models"] == "256Mi"
    assert disk(claimed, "engine")[0] == "64Mi"


def test_a_model_that_is_copied_out_of_the_engines_image_has_room_at_the_examiner() -> None:
    spec = {**STORE, "baseModel": {"name": "m", "uri": "file:///m"}}
    job = build_examiner_job(run(), twin(), pool(**spec), Images(), child=digest("b"), prompt=False)
    assert sizes(job["spec"]["template"]["spec"])["models"] == "64Gi"
    assert sizes(engine(**spec))["models"] == "256Mi"


def test_the_agents_limit_is_the_size_of_the_adapters_volume_and_its_agent_is_told() -> None:
    given = engine(agent={"resources": {"limits": {"ephemeral-storage": "5Gi"}}})
    assert sizes(given)["adapters"] == "5Gi"
    assert variable(given, "agent", "POD_ADAPTERS_BYTES") == str(5 << 30)
    assert variable(engine(), "agent", "POD_ADAPTERS_BYTES") == str(64 << 30)


def test_who_fetches_a_model_into_the_pods_own_disk_is_told_how_much_it_may_take() -> None:
    uri = {"baseModel": {"name": "m", "uri": "hf://a/m"}}
    assert variable(engine(**uri), "model", "POD_MODEL_BYTES") == str(64 << 30)
    assert variable(engine(**uri, cache={"sizeLimit": "9Gi"}), "model", "POD_MODEL_BYTES") == str(9 << 30)
    claimed = engine(**uri, cache={"claimName": "c"})
    assert variable(claimed, "model", "POD_MODEL_BYTES") is None
    assert variable(claimed, "model", "POD_POOL") == "clinic/p"

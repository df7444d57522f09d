"""A pool that can't start says why and what to do, and costs the twins of other pools nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import Kubectl
from tests.e2e.conftest import NAMESPACE, Clinic, eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]
GOOD = "dr-indra-gurung"
BASE = "smollm2-135m-instruct"
SMALL = {"requests": {"cpu": "50m", "memory": "256Mi"}, "limits": {"memory": "2Gi"}}


def pool(name: str, *, resources: Any = SMALL, **engine: Any) -> dict[str, Any]:
    spec = {
        "baseModel": {"name": BASE, "uri": "file:///models/none"},
        "engine": {"device": "CPU", "maxLoras": 2, **engine},
        "replicas": 1,
        "miner": {"replicas": 0},
    }
    if resources:
        spec["resources"] = resources
    return {
        "apiVersion": "bettertherapy.io/v1alpha1",
        "kind": "MinerPool",
        "metadata": {"name": name, "labels": {"fault": name}},
        "spec": spec,
    }


def twin(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "bettertherapy.io/v1alpha1",
        "kind": "DoctorTwin",
        "metadata": {"name": f"t-{name}"},
        "spec": {
            "doctor": {"name": "Dr. Test", "licence": "T-1"},
            "baseModel": {"name": BASE},
            "poolSelector": {"matchLabels": {"fault": name}},
        },
    }


POOLS = {
    "no-image": (pool("no-image", image="registry.invalid/nobody/engine:1"), "ImagePullFailed", "spec.engine.image"),
    "no-gpu": (pool("no-gpu", resources=None, device="GPU"), "Unschedulable", "GPU node"),
    "crash": (pool("crash", args=["--dtype=no-such-type"]), "EngineCrashed", "argument --dtype"),
}


@pytest.fixture(scope="module")
def broken(clinic: Clinic, kubectl: Kubectl) -> Iterator[str]:
    """All of them at once, each with a twin, in a namespace of their own."""
    kubectl("create", "namespace", "broken")
    try:
        clinic.apply(*(made for made, _, _ in POOLS.values()), *(twin(name) for name in POOLS), namespace="broken")
        yield "broken"
    finally:
        kubectl("delete", "namespace", "broken", "--wait=false")


def condition(clinic: Clinic, namespace: str, kind: str, name: str, wanted: str) -> dict[str, str]:
    conditions = clinic.get(kind, name, namespace=namespace).get("status", {}).get("conditions", [])
    return next((found for found in conditions if found["type"] == wanted), {})


@pytest.mark.parametrize("name", POOLS)
def test_the_pool_and_its_twin_say_why_and_what_to_do(clinic: Clinic, broken: str, name: str) -> None:
    _, reason, advice = POOLS[name]
    eventually(
        lambda: condition(clinic, broken, "mp", name, "Ready").get("reason") == reason,
        seconds=180,
        what=f"Ready=False, {reason}",
    )
    found = condition(clinic, broken, "mp", name, "Ready")
    assert found["status"] == "False"
    assert advice in found["message"]
    of_twin = eventually(
        lambda: (
            of if reason in (of := condition(clinic, broken, "twin", f"t-{name}", "Ready")).get("message", "") else None
        ),
        seconds=30,
        what="the same at the twin",
    )
    assert of_twin["status"] == "False"
    events = clinic.kubectl("describe", "mp", name, "-n", broken).stdout.partition("Events:")[2]
    assert reason in events
    assert clinic.ask(GOOD).status == 200


def test_a_pool_deleted_with_twins_on_it_leaves_them_to_say_so_and_no_child_behind(clinic: Clinic, broken: str) -> None:
    clinic.kubectl("delete", "mp", "no-gpu", "-n", broken, "--wait=true")
    eventually(
        lambda: condition(clinic, broken, "twin", "t-no-gpu", "Ready").get("reason") == "NoPoolMatches",
        seconds=30,
        what="NoPoolMatches",
    )
    kinds = "deploy,svc,cm,sa,role,rolebinding,netpol,pdb,pods"
    eventually(
        lambda: (
            not clinic.kubectl("get", kinds, "-n", broken, "-l", "bettertherapy.io/pool=no-gpu", "-o", "name").stdout
        ),
        seconds=60,
        what="the children are gone",
    )
    assert clinic.is_true("twin", GOOD, "Ready"), NAMESPACE

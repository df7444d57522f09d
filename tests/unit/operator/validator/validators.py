"""What the tests of validators look at."""

from __future__ import annotations

from typing import Any

from bettertherapy_api import names
from tests.unit.operator.samples import metadata, twin
from twin_operator.domain.answering import Answering, known_twin
from twin_operator.domain.objects import Validator, validator_from
from twin_operator.engine.apply import Owner
from twin_operator.kinds.validator.children import build_children
from twin_operator.settings import Images

IMAGES = Images(neuron="n:1")
OWNER = Owner(api_version=names.API_VERSION, kind="Validator", namespace="clinic", name="v", uid="uid-v")
POSTGRES: dict[str, Any] = {"ledger": {"uriSecretRef": {"name": "pg"}}}
OVERLAY: dict[str, Any] = {
    "priorityClassName": "gold", "labels": {"team": "a"}, "annotations": {"note": "b"},
    "env": [{"name": "OMP_NUM_THREADS", "value": "2"}],
    "volumes": [{"name": "ca", "mountPath": "/ca", "configMapName": "ca"}],
    "topologySpreadConstraints": [{"topologyKey": "zone"}],
}  # fmt: skip
PAGES: dict[str, Any] = {
    "origin": "https://ask.clinic.example", "perMinute": 30, "licenceRegisters": ["nppes"],
    "store": {"uri": "pvc://adapters/clinic"},
}  # fmt: skip
TASKS: dict[str, Any] = {"fineTuneTasks": {"store": {"uri": "pvc://adapters/clinic"}, "timeZone": "Asia/Kathmandu"}}
S3_TASKS: dict[str, Any] = {"fineTuneTasks": {"store": {"uri": "s3://b/x", "secretRef": {"name": "s3"}}}}
ROUNDS: dict[str, Any] = {"rounds": {"timeZone": "Asia/Kathmandu"}, "rewards": {}}
VARIANTS: list[dict[str, Any]] = [
    {}, POSTGRES, {**POSTGRES, "gateway": {"replicas": 3}},
    {"gateway": {"pod": OVERLAY, "keysSecretRef": {"name": "k"}}}, {"gateway": {"pages": PAGES}},
    {"gateway": {"pages": {**PAGES, "store": {"uri": "s3://b/x", "secretRef": {"name": "s3"}}}}},
    TASKS, {**POSTGRES, **S3_TASKS}, {**ROUNDS, **TASKS}, {**POSTGRES, **ROUNDS},
]  # fmt: skip


def validator_object(name: str = "v", **spec: Any) -> dict[str, Any]:
    whole = {
        "chain": {"network": "finney", "netuid": 42}, "walletSecretRef": {"name": "hotkey"}, "gateway": {"replicas": 1},
        **spec,
    }  # fmt: skip
    return {
        "apiVersion": names.API_VERSION, "kind": "Validator", "metadata": metadata(name, uid=f"uid-{name}"),
        "spec": whole,
    }  # fmt: skip


def validator(name: str = "v", **spec: Any) -> Validator:
    made = validator_from(validator_object(name, **spec))
    assert isinstance(made, Validator), made
    return made


def children(**spec: Any) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the children of a validator with this spec by kind and name; it answers for dr-a."""
    answering = Answering(twins=(known_twin(twin("dr-a")),))
    made = build_children(validator(**spec), IMAGES, answering=answering)
    return {(child["kind"], child["metadata"]["name"]): child for child in made}


def gateway_pod(**spec: Any) -> dict[str, Any]:
    """Return the gateway's pod spec."""
    found: dict[str, Any] = children(**spec)["Deployment", "v-gateway"]["spec"]["template"]["spec"]
    return found


def gateway_container(**spec: Any) -> dict[str, Any]:
    [container] = gateway_pod(**spec)["containers"]
    found: dict[str, Any] = container
    return found

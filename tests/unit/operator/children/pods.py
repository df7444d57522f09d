"""What the tests of a pool's children look at."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from tests.unit.operator.samples import pool
from twin_operator.domain.pool_update import Pace
from twin_operator.domain.tuning import Needs
from twin_operator.kinds.miner_pool.children import Children, build_children
from twin_operator.settings import Images

IMAGES = Images(neuron="n:1", engine_cpu="c:1", engine_gpu="g:1")
NOW = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)  # a Monday
GPU = {"engine": {"device": "GPU"}}
ENDPOINT = {"engine": {"endpoint": "http://gpu:8000", "secretRef": {"name": "key"}}, "baseModel": {"name": "m"}}
OVERLAY = {
    "priorityClassName": "gold",
    "labels": {"team": "a"},
    "annotations": {"note": "b"},
    "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "zone"}]}},
    "topologySpreadConstraints": [{"topologyKey": "zone"}],
    "env": [{"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}}],
    "volumes": [
        {"name": "data", "mountPath": "/data", "claimName": "c", "readOnly": False},
        {"name": "keys", "mountPath": "/keys", "secretName": "s"},
        {"name": "conf", "mountPath": "/conf", "configMapName": "m"},
        {"name": "ram", "mountPath": "/ram", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}, "readOnly": False},
    ],
}
VARIANTS: list[dict[str, Any]] = [
    {}, GPU, ENDPOINT, {"cache": {"claimName": "c"}}, {"cache": {"sizeLimit": "9Gi"}},
    {"baseModel": {"name": "m", "uri": "file:///m"}},
    {"store": {"uri": "s3://b/x", "secretRef": {"name": "s3"}}, "miner": {"replicas": 3}},
    {"engine": {"device": "CPU", "pod": OVERLAY}, "miner": {"replicas": 2, "pod": OVERLAY}},
    {"miner": {"walletSecretRef": {"name": "hotkey"}, "netuid": 1, "chain": "test"}},
]  # fmt: skip


def built(**fields: Any) -> Children:
    """Build with defaults for what a test doesn't speak of; `spec` goes to the pool."""
    asked: dict[str, Any] = {
        "needs": Needs(), "engine": None, "miner": None, "others": lambda: (), "pace": Pace(), "now": NOW,
        "legacy": False, "images": IMAGES,
    } | fields  # fmt: skip
    of = asked.pop("of", None) or pool(**asked.pop("spec", {}))
    asked.pop("spec", None)
    return build_children(of, asked.pop("images"), **asked)


def children(**spec: Any) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the children of a pool with this spec by kind and name."""
    return {(child["kind"], child["metadata"]["name"]): child for child in built(spec=spec).manifests}


def pod_of(deployment: dict[str, Any]) -> dict[str, Any]:
    """Return a Deployment's pod spec."""
    found: dict[str, Any] = deployment["spec"]["template"]["spec"]
    return found


def containers(pod: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return a pod's containers by name, those that start first included."""
    return {container["name"]: container for container in [*pod.get("initContainers", []), *pod["containers"]]}


def computing(container: dict[str, Any]) -> dict[str, Any]:
    """Return a container's resources but those of the disk, which test_disk_bounds looks at; what is empty is left
    out."""
    bounds = {
        bound: {name: amount for name, amount in amounts.items() if name != "ephemeral-storage"}
        for bound, amounts in container["resources"].items()
    }
    return {bound: amounts for bound, amounts in bounds.items() if amounts}

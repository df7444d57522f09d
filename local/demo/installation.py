"""The two Helm releases of the demo, and their values."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from demo.curriculum import LEARNER, learning_values
from demo.doctors import BASE_MODEL, Doctor
from demo.errors import DemoError
from demo.images import Images
from demo.kube import Json, Kube, troubled_pods
from demo.training import Adapter

ROOT: Final = Path(__file__).resolve().parents[2]
CHARTS: Final = ROOT / "charts"

OPERATOR_NAMESPACE: Final = "twin-system"
OPERATOR_RELEASE: Final = "twin-operator"
NAMESPACE: Final = "doctors"
POOL: Final = "clinic"
"""Release of the twin-miner chart, and so the MinerPool's name."""
MODELS_CLAIM: Final = "models"
STORE_CLAIM: Final = f"{POOL}-store"
STORE: Final = "adapters"
"""Folder of the claim that is the store's root, as charts/twin-miner has it."""
EXAMINATIONS: Final = "examinations"
"""Folder beside it with what the twins are examined with."""
EXAMINATION_URI: Final = f"pvc://{STORE_CLAIM}/{EXAMINATIONS}/{LEARNER.twin}.jsonl"

_HELM_WAIT_S: Final = 180


def operator_values(images: Images, prometheus: str | None = None) -> Json:
    """Return the values of charts/twin-operator: its images, and where new versions are measured."""
    return {
        "image": images["operator"].values,
        "images": {
            "neuron": images["neuron"].values,
            "engineCPU": images["engine-cpu"].values,
            "trainerCPU": images["trainer-cpu"].values,
        },
        "prometheus": {"url": prometheus or ""},
        # No registry has this name (RFC 2606): for trying what is said of an image that isn't there.
        "tenants": {"images": ["registry.invalid/*"]},
    }


def twin_values(doctor: Doctor, adapter: Adapter) -> Json:
    """Return one twin as charts/twin-miner describes it."""
    return {
        "name": doctor.twin,
        "doctor": doctor.values,
        "adapter": {"uri": adapter.uri, "digest": adapter.digest, "rank": adapter.rank},
        **(learning_values(EXAMINATION_URI) if doctor == LEARNER else {}),
    }


def miner_values(images: Images, twins: Sequence[Json], miner: Json | None = None) -> Json:
    """Return the values of charts/twin-miner: a pool without a GPU, and the twins it serves.

    `miner`: its spec.miner, where it is on a subnet.
    """
    return {
        "pool": {
            "baseModel": {"name": BASE_MODEL, "uri": f"pvc://{MODELS_CLAIM}/{BASE_MODEL}"},
            "engine": {
                "device": "CPU",
                "maxLoras": 4,
                "maxLoraRank": 16,
                "maxModelLength": 1024,
                # Every processor computes float32 well; bfloat16 is a hundred times slower where AVX-512 is missing.
                # Two cores gain nothing by more than eight answers at once.
                "args": ["--dtype=float32", "--max-num-seqs=8"],
            },
            "resources": {
                "requests": {"cpu": "500m", "memory": "4Gi", "nvidia.com/gpu": None},
                "limits": {"memory": "6Gi", "nvidia.com/gpu": None},
            },
            "tolerations": [],
            "replicas": 1,
            "miner": miner or {"replicas": 1},
            "fineTune": {
                "resources": {
                    "requests": {"cpu": "500m", "memory": "2Gi"},
                    "limits": {"memory": "6Gi"},
                }
            },
        },
        "persistence": {"store": {"enabled": True, "size": "1Gi"}},
        "test": {"image": images["neuron"].values},
        "twins": list(twins),
    }


def namespace_object() -> Json:
    """Return the twins' namespace; pods in it must meet the restricted standard."""
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
    }


def models_claim() -> Json:
    """Return the claim that holds the base model."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": MODELS_CLAIM, "namespace": NAMESPACE},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "2Gi"}}},
    }


def install_operator(kube: Kube, images: Images, prometheus: str | None) -> None:
    """Install or upgrade the operator and wait until it is up.

    Raises:
        DemoError: it does not come up; with its pods' events and logs.
    """
    try:
        helm_release(
            kube, OPERATOR_RELEASE, OPERATOR_NAMESPACE, "twin-operator", operator_values(images, prometheus), wait=True
        )
    except DemoError as error:
        raise DemoError(
            "The operator did not come up",
            evidence="\n".join(filter(None, [error.evidence, troubled_pods(kube, OPERATOR_NAMESPACE)])),
            remedy="the events and logs above say why; running the demo again goes on from here",
        ) from error


def install_miner(kube: Kube, images: Images, twins: Sequence[Json], miner: Json | None = None) -> None:
    """Install or upgrade the pool with these twins; doesn't wait for it. Raises DemoError."""
    helm_release(kube, POOL, NAMESPACE, "twin-miner", miner_values(images, twins, miner), wait=False)


def installed_twins(kube: Kube) -> list[Json]:
    """Return the twins that an earlier run installed, as values; none on a fresh cluster."""
    if not is_installed(kube, POOL):
        return []
    values = json.loads(kube.helm("get", "values", POOL, "-n", NAMESPACE, "-o", "json")) or {}
    return list(values.get("twins") or [])


def await_ready(kube: Kube, twins: Sequence[str], *, timeout: float) -> None:
    """Wait until every twin is Ready.

    Raises:
        DemoError: one is not; with its conditions and what its pods say.
    """
    try:
        kube.kubectl(
            "wait",
            "--for=condition=Ready",
            *(f"doctortwin/{twin}" for twin in twins),
            "-n",
            NAMESPACE,
            f"--timeout={timeout:.0f}s",
            timeout=timeout * len(twins) + 30,
        )
    except DemoError as error:
        lines = [
            f"{kind} {obj['metadata']['name']}: {c['type']}={c['status']} {c['reason']}: {c['message']}"
            for kind in ("minerpool", "doctortwin")
            for obj in kube.items(kind, "-n", NAMESPACE)
            for c in (obj.get("status") or {}).get("conditions") or []
        ]
        raise DemoError(
            f"The twins were not Ready after {timeout:.0f} s",
            evidence="\n".join([*lines, troubled_pods(kube, NAMESPACE)]),
            remedy=f"the conditions above say why; `kubectl twin status {twins[0]} -n {NAMESPACE}` shows them again",
        ) from error


def is_installed(kube: Kube, release: str) -> bool:
    """Tell whether a release is in the twins' namespace."""
    return bool(json.loads(kube.helm("list", "-n", NAMESPACE, "--filter", f"^{release}$", "-o", "json") or "[]"))


def helm_release(
    kube: Kube, release: str, namespace: str, chart: str, values: Mapping[str, object], *, wait: bool
) -> None:
    """Install or upgrade a release of one of charts/; raises DemoError."""
    with tempfile.NamedTemporaryFile("w", suffix=".json", prefix="values-") as file:
        json.dump(values, file)
        file.flush()
        arguments = ["upgrade", "--install", release, str(CHARTS / chart), "-n", namespace, "--create-namespace"]
        if wait:
            arguments += ["--wait", f"--timeout={_HELM_WAIT_S}s"]
        kube.helm(*arguments, "--values", file.name, timeout=_HELM_WAIT_S + 60)

"""Objects as the API server gives them, for the plugin's tests."""

from __future__ import annotations

import base64
from typing import Any

Json = dict[str, Any]

DIGEST = "sha256:" + "ab12" * 16


def condition(kind: str, status: str, reason: str = "Reason", message: str = "") -> Json:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": "2026-03-01T11:00:00Z",
    }


def twin(name: str = "dr-gurung", **status: Any) -> Json:
    return {
        "metadata": {
            "name": name,
            "namespace": "clinic",
            "uid": f"uid-{name}",
            "creationTimestamp": "2026-03-01T10:00:00Z",
        },
        "spec": {
            "doctor": {"name": "Dr. Indra Gurung", "licence": "NMC-1", "specialty": "General practice"},
            "baseModel": {"name": "base"},
            "adapter": {"uri": "pvc://store/adapters/x", "digest": DIGEST, "rank": 16},
        },
        "status": status,
    }


def serving_twin(name: str = "dr-gurung") -> Json:
    return twin(
        name,
        conditions=[condition("Ready", "True", "Verified"), condition("Serving", "True", "Verified")],
        activeVersion={"digest": DIGEST, "servedName": f"{name}-ab12ab12", "uri": "pvc://store/adapters/x"},
        pods={"desired": 2, "loaded": 2, "verified": 2},
        pools=["pool-a", "pool-b"],
    )


def secret(**tokens: str) -> Json:
    return {"data": {key: base64.b64encode(value.encode()).decode() for key, value in tokens.items()}}


def miner_pod(name: str, *, ready: bool) -> Json:
    return {
        "metadata": {"name": name},
        "status": {"conditions": [condition("Ready", "True" if ready else "False")]},
    }


def engine_pod(name: str = "pod-1", *, uid: str | None = None, pool: str = "pool-a", phase: str = "Running") -> Json:
    labels = {"bettertherapy.io/pool": pool, "bettertherapy.io/component": "engine"}
    return {"metadata": {"name": name, "uid": uid or f"uid-{name}", "labels": labels}, "status": {"phase": phase}}


def held(twin: str = "dr-gurung", state: str = "Verified", **fields: Any) -> Json:
    return {"twin": twin, "twinUID": f"uid-{twin}", "digest": DIGEST, "state": state, **fields}


def pod_report(pod: str = "pod-1", adapters: Json | None = None, *, uid: str | None = None, **extra: Any) -> Json:
    """A PodReport of pool-a."""
    labels = {"bettertherapy.io/pool": "pool-a", "bettertherapy.io/component": "report"}
    return {
        "apiVersion": "bettertherapy.io/v1alpha1", "kind": "PodReport", "metadata": {"name": pod, "labels": labels},
        "pod": {"name": pod, "uid": uid or f"uid-{pod}"}, "ready": True, "adapters": adapters or {},
        "engine": {"live": True, "version": "0.32.0"}, **extra,
    }  # fmt: skip


def routing_slice(number: int | str = 0, **parts: Any) -> Json:
    """A RoutingSlice of pool-a."""
    labels = {"bettertherapy.io/pool": "pool-a", "bettertherapy.io/component": "routing"}
    return {
        "apiVersion": "bettertherapy.io/v1alpha1", "kind": "RoutingSlice",
        "metadata": {"name": f"pool-a-routing-{number}", "labels": labels}, **parts,
    }  # fmt: skip


def addresses(*pods: str) -> Json:
    return routing_slice("pods", pods={f"uid-{pod}": {"name": pod, "address": "10.0.0.1:8080"} for pod in pods})


def told(twin: str = "dr-gurung", *, weight: int | None = 100, uid: str | None = None) -> Json:
    """A slice with one twin, which has one adapter."""
    name = f"{twin}-ab12ab12"
    versions = [] if weight is None else [{"servedName": name, "digest": DIGEST, "weightPercent": weight}]
    adapter = {"servedName": name, "digest": DIGEST, "uri": "pvc://store/adapters/x", "rank": 16}
    entry = {"name": twin, "versions": versions, "adapters": [adapter]}
    return routing_slice(0, twins={uid or f"uid-{twin}": entry})


def digest(letter: str) -> str:
    return "sha256:" + letter * 64


def version(letter: str | None, **fields: Any) -> Json:
    if letter is None:
        return {"servedName": "base", **fields}
    known = {
        "digest": digest(letter),
        "servedName": f"dr-gurung-{letter * 8}",
        "uri": f"s3://b/dr-gurung/{letter * 64}",
    }
    return {**known, "rank": 16, **fields}


METRICS = [
    {"name": "score", "valuePercent": 71, "baselinePercent": 64, "thresholdPercent": 62, "intervalPercent": [2, 12]},
    {"name": "safety", "valuePercent": 96, "baselinePercent": 98, "thresholdPercent": 97, "intervalPercent": [-4, 0]},
]


def tuned_twin(**status: Any) -> Json:
    """A twin whose versions a, b and c answered one after another, each trained from the one before."""
    made = serving_twin()
    made["spec"] |= {
        "adapter": {"uri": f"s3://b/dr-gurung/{'a' * 64}", "digest": digest("a"), "rank": 16},
        "fineTune": {"schedule": "0 2 * * *"},
        "gate": {"approval": "Doctor"},
        "rollout": {"steps": [{"weightPercent": 10, "seconds": 600}]},
    }
    b = version(
        "b", runName="dr-gurung-1", datasetDigest=digest("1"), parentDigest=digest("a"), scorePercent=64,
        since="2026-02-26T02:30:00Z",
    )  # fmt: skip
    c = version(
        "c", runName="dr-gurung-2", datasetDigest=digest("2"), parentDigest=digest("b"), scorePercent=71,
        since="2026-02-27T02:30:00Z",
    )  # fmt: skip
    a = version("a", since="2026-02-01T10:00:00Z", until="2026-02-26T02:30:00Z", ended="Replaced")
    former = b | {"until": "2026-02-27T02:30:00Z", "ended": "Replaced"}
    made["status"] |= {
        "activeVersion": c,
        "promotedVersion": c,
        "specDigest": digest("a"),
        "previousVersion": former,
        "history": [former, a],
        "lastFineTuneTime": "2026-02-27T02:00:00Z",
        "nextFineTuneTime": "2026-03-02T02:13:00Z",
        "lastGate": {
            "verdict": "Promote", "samples": 40, "message": "no metric fell", "metrics": METRICS,
            "runName": "dr-gurung-2", "digest": digest("c"),
        },
        **status,
    }  # fmt: skip
    return made


def run(name: str = "dr-gurung-3", *, parent: str | None = "c", conditions: Any = (), **status: Any) -> Json:
    return {
        "metadata": {"name": name, "namespace": "clinic", "creationTimestamp": "2026-03-01T11:30:00Z"},
        "spec": {
            "twinRef": {"name": "dr-gurung"},
            "dataset": {"uri": "s3://b/dr-gurung/interactions"},
            **({"parentDigest": digest(parent)} if parent else {}),
        },
        "status": {"conditions": list(conditions), **status},
    }


def training() -> Json:
    return run(
        startTime="2026-03-01T11:31:00Z", stage="Running", progressPercent=40, step=4, steps=10, lossMilli=900,
        remainingSeconds=290, conditions=[condition("Running", "True", "StageTrain", "pod x is at stage Train")],
    )  # fmt: skip


def judged(verdict: str = "Promote", letter: str = "d", **status: Any) -> Json:
    return run(
        startTime="2026-03-01T11:31:00Z", completionTime="2026-03-01T11:50:00Z", verdict=verdict,
        artifact={"uri": f"s3://b/dr-gurung/{letter * 64}", "digest": digest(letter), "rank": 16, "bytes": 9},
        dataset={"uri": "s3://b/x", "digest": digest("3"), "interactions": 40},
        eval={"verdict": verdict, "samples": 40, "message": "71% against 64%", "metrics": METRICS}, **status,
    )  # fmt: skip

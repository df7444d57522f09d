"""Objects as the API server gives them, for the plugin's tests."""

from __future__ import annotations

import base64
import json
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
        "metadata": {"name": name, "namespace": "clinic", "creationTimestamp": "2026-03-01T10:00:00Z"},
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


def pod_report(pod: str, adapters: Json, **extra: Any) -> str:
    return json.dumps(
        {
            "pod": pod,
            "address": "10.0.0.1:8080",
            "uid": "u",
            "ready": True,
            "engine": {"live": True, "version": "0.32.0"},
            "adapters": adapters,
            **extra,
        }
    )

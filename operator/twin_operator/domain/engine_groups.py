"""A LeaderWorkerSet read as the Deployment of its leaders, so that facts and updates of both are told alike.

Its controller names no generation that it has seen: for a moment after a change it is told as complete of what was
before.
"""

from __future__ import annotations

from typing import Any, Final

from twin_operator.engine.resources import DEPLOYMENT, Manifest

_COMPLETE: Final = "NewReplicaSetAvailable"
_MOVING: Final = "ReplicaSetUpdated"
"""As the controller of Deployments calls it."""


def deployment_of(group: Manifest | None) -> Manifest | None:
    """Return a LeaderWorkerSet as the Deployment of its leaders: what `engine_update` reads of one, and the status."""
    if group is None:
        return None
    spec = group.get("spec") or {}
    return {
        "apiVersion": DEPLOYMENT.api_version,
        "kind": DEPLOYMENT.kind,
        "metadata": group["metadata"],
        "spec": {
            "replicas": spec.get("replicas", 1),
            "template": (spec.get("leaderWorkerTemplate") or {}).get("leaderTemplate") or {},
        },
        "status": _status(group),
    }


def _status(group: Manifest) -> Manifest:
    """Return its status as a Deployment's: the controller names no generation, and other conditions."""
    status, wanted = group.get("status") or {}, (group.get("spec") or {}).get("replicas", 1)
    said = {condition["type"]: condition for condition in status.get("conditions") or []}
    available, updating = said.get("Available", {}), said.get("UpdateInProgress", {})
    is_complete = status.get("updatedReplicas") == wanted and updating.get("status") != "True" and bool(available)
    turned = available.get("lastTransitionTime")
    conditions: list[dict[str, Any]] = []
    if is_complete and turned:
        conditions.append({"type": "Progressing", "status": "True", "reason": _COMPLETE, "lastUpdateTime": turned})
    elif said:
        conditions.append({"type": "Progressing", "status": "True", "reason": _MOVING})
    if available:
        conditions.append(available)
    return {
        **{name: status.get(name, 0) for name in ("replicas", "updatedReplicas", "readyReplicas")},
        "observedGeneration": group["metadata"].get("generation") if said else None,
        "conditions": conditions,
    }

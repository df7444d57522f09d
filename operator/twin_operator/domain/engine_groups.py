"""A LeaderWorkerSet read as the Deployment of its leaders, so that facts and updates of both are told alike.

Its controller names no generation that it has seen: for a moment after a change it is told as complete of what was
before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from twin_operator.engine.resources import DEPLOYMENT, Manifest

ENGINE_WORKER: Final = "engine-worker"
"""Component of the pods that compute with the leader of a group."""
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
    """Return its status as a Deployment's: the controller names no generation, and other conditions.

    Only UpdateInProgress tells that groups are replaced: Progressing is True too while they are scaled, or one of them
    is not ready. Whoever was available once is complete otherwise, as a Deployment stays.
    """
    status = group.get("status") or {}
    said = {condition["type"]: condition for condition in status.get("conditions") or []}
    available, updating = said.get("Available", {}), said.get("UpdateInProgress", {})
    turned = available.get("lastTransitionTime")
    conditions: list[dict[str, Any]] = []
    if turned and updating.get("status") != "True":
        conditions.append({"type": "Progressing", "status": "True", "reason": _COMPLETE, "lastUpdateTime": turned})
    elif said:
        conditions.append({"type": "Progressing", "status": "True", "reason": _MOVING})
    if available:
        conditions.append({**available, "lastTransitionTime": _turned(said)})
    return {
        **{name: status.get(name, 0) for name in ("replicas", "updatedReplicas", "readyReplicas")},
        "observedGeneration": group["metadata"].get("generation") if said else None,
        "conditions": conditions,
    }


def _turned(said: Mapping[str, Manifest]) -> str | None:
    """Return since when Available says what it says; None where that isn't known.

    The controller leaves the time at which it became True when it turns False: Progressing becomes True then.
    """
    available, progressing = said["Available"], said.get("Progressing", {})
    since: str | None = available.get("lastTransitionTime")
    if available.get("status") != "True":
        since = progressing.get("lastTransitionTime") if progressing.get("status") == "True" else None
    return since

"""One key of a shared ConfigMap, owned by one pod: server-side apply keeps the other pods' keys out of our reach."""

from __future__ import annotations

import hashlib
from typing import Final

import orjson

from neurons.cluster.client import ClusterClient

_MAX_MANAGER: Final = 128


def field_manager(pod: str) -> str:
    """Return the field manager of a pod's agent, at most 128 characters as the API server demands."""
    manager = f"agent-{pod}"
    if len(manager) <= _MAX_MANAGER:
        return manager
    return manager[: _MAX_MANAGER - 9] + "-" + hashlib.sha256(manager.encode()).hexdigest()[:8]


async def apply_report_key(client: ClusterClient, *, namespace: str, name: str, pod: str, value: str | None) -> None:
    """Write `value` under the pod's own key of ConfigMap `name`; None takes the key away.

    The ConfigMap is made by the operator: a 403 or 404 (ClusterError) means that it is not there yet.
    """
    data = {} if value is None else {pod: value}
    document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}
    await client.apply(
        f"/api/v1/namespaces/{namespace}/configmaps/{name}",
        body=orjson.dumps(document).decode(),
        field_manager=field_manager(pod),
    )

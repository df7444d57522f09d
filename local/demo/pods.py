"""What the demo's pods have in common: the restricted Pod Security Standard; and a pod that waits for commands."""

from __future__ import annotations

from typing import Final

from demo.kube import Json

UID: Final = 65532

POD_SECURITY: Final[Json] = {
    "runAsNonRoot": True,
    "runAsUser": UID,
    "runAsGroup": UID,
    "fsGroup": UID,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def container_security() -> Json:
    """Return a container's security context."""
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def waiting_pod(
    name: str, container: str, *, namespace: str, app: str, image: str, memory: str, mount: Json, volume: Json
) -> Json:
    """Return a pod that waits for commands, for an hour at most.

    `mount` and `volume` are of the one volume that it has besides /tmp, without their names; `memory` is its limit.
    """
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"app.kubernetes.io/name": app, "app.kubernetes.io/part-of": "bettertherapy"},
        },
        "spec": {
            "restartPolicy": "Never",
            "activeDeadlineSeconds": 3600,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": POD_SECURITY,
            "containers": [
                {
                    "name": container,
                    "image": image,
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["python", "-c", "import signal; signal.pause()"],
                    "securityContext": container_security(),
                    "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": memory}},
                    "env": [{"name": "HOME", "value": "/tmp"}],
                    "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}, {"name": container, **mount}],
                }
            ],
            "volumes": [{"name": "tmp", "emptyDir": {}}, {"name": container, **volume}],
        },
    }

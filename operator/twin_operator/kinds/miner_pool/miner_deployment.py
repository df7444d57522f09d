"""Deployment P-miner: the pool's OpenAI-compatible endpoint."""

from __future__ import annotations

from typing import Final

from bettertherapy_api import names
from twin_operator.domain.objects import Pool
from twin_operator.engine.resources import DEPLOYMENT, Manifest
from twin_operator.kinds.podspec.parts import (
    container_security,
    empty_dir,
    identity_env,
    labels,
    mount,
    pod_security,
    pull_secrets,
    selector_labels,
    token_mount,
    token_volume,
)
from twin_operator.settings import Images

DRAIN_DELAY_SECONDS: Final = 5
"""How long a miner that stops goes on accepting, until every client has seen that it left the Service."""


def access_secret(pool: Pool) -> str:
    """Return the name of the Secret with the bearer tokens."""
    reference = pool.spec.miner.access_secret_ref
    return reference.name if reference else names.access_secret_name(pool.name)


def build_miner_deployment(pool: Pool, images: Images) -> Manifest:
    """Return the Deployment of the miners."""
    spec = pool.spec
    pod: Manifest = {
        "serviceAccountName": names.miner_name(pool.name),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": DRAIN_DELAY_SECONDS + spec.drain_seconds + 10,
        "securityContext": pod_security(),
        **pull_secrets(pool),
        "containers": [
            {
                "name": "miner",
                "image": spec.miner.image or images.neuron,
                "imagePullPolicy": "IfNotPresent",
                "command": ["python", "-m", "neurons.miner"],
                "args": [
                    f"--access-secret={access_secret(pool)}",
                    f"--drain-delay={DRAIN_DELAY_SECONDS}",
                    f"--drain-seconds={spec.drain_seconds}",
                ],
                "env": identity_env(pool),
                "ports": [{"name": "http", "containerPort": names.MINER_PORT, "protocol": "TCP"}],
                "resources": {"requests": {"cpu": "100m", "memory": "96Mi"}, "limits": {"memory": "256Mi"}},
                "securityContext": container_security(),
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "readinessProbe": {
                    "httpGet": {"path": "/readyz", "port": names.MINER_PORT},
                    "periodSeconds": 2, "timeoutSeconds": 2, "failureThreshold": 2,
                },
                "livenessProbe": {
                    "httpGet": {"path": "/healthz", "port": names.MINER_PORT},
                    "initialDelaySeconds": 10, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6,
                },
                "volumeMounts": [
                    mount("tmp", "/tmp"),  # noqa: S108
                    mount("access", names.ACCESS_DIR, read_only=True),
                    token_mount(),
                ],
            }
        ],
        "volumes": [
            empty_dir("tmp", size="64Mi"),
            {"name": "access", "secret": {"secretName": access_secret(pool), "optional": True, "defaultMode": 0o440}},
            token_volume(),
        ],
    }  # fmt: skip
    if spec.miner.replicas > 1:
        pod["topologySpreadConstraints"] = [
            {
                "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": selector_labels(pool, "miner")},
            }
        ]  # fmt: skip
    return {
        "apiVersion": DEPLOYMENT.api_version,
        "kind": "Deployment",
        "metadata": {"name": names.miner_name(pool.name), "labels": labels(pool, "miner")},
        "spec": {
            "replicas": spec.miner.replicas,
            "revisionHistoryLimit": 3,
            "selector": {"matchLabels": selector_labels(pool, "miner")},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {"metadata": {"labels": labels(pool, "miner")}, "spec": pod},
        },
    }

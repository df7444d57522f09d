"""Deployment P-miner: the pool's OpenAI-compatible endpoint."""

from __future__ import annotations

from typing import Final

from bettertherapy_api import names
from bettertherapy_api.miner_pool import Miner
from twin_operator.domain.objects import Pool
from twin_operator.engine.resources import DEPLOYMENT, Manifest
from twin_operator.kinds.miner_pool.access_secret import access_secret_name
from twin_operator.kinds.podspec.disk import with_disk
from twin_operator.kinds.podspec.overlay import (
    added_metadata,
    added_mounts,
    added_placement,
    added_volumes,
    with_added_env,
)
from twin_operator.kinds.podspec.parts import (
    CONTRACT,
    container_security,
    empty_dir,
    identity_env,
    labels,
    mount,
    own_resources,
    pod_security,
    pool_tokens_mount,
    pool_tokens_volume,
    pull_secrets,
    selector_labels,
    token_mount,
    token_volume,
)
from twin_operator.settings import Images

RESOURCES: Final[Manifest] = {"requests": {"cpu": "100m", "memory": "96Mi"}, "limits": {"memory": "512Mi"}}
DRAIN_DELAY_SECONDS: Final = 5
"""How long a miner that stops goes on accepting, until every client has seen that it left the Service."""
SLEEPER_HOLD_SECONDS: Final = 480
"""How long a request waits for an engine of a pool that may sleep: large models take minutes to start. A miner ends
every request after 600 s, so two minutes are left to answer."""


def build_miner_deployment(pool: Pool, images: Images) -> Manifest:
    """Return the Deployment of the miners."""
    spec = pool.spec
    overlay = spec.miner.pod
    tokens = access_secret_name(pool)
    own_pods = selector_labels(pool, "miner")
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
                    f"--access-secret={tokens}",
                    f"--drain-delay={DRAIN_DELAY_SECONDS}",
                    f"--drain-seconds={spec.drain_seconds}",
                    *([f"--hold-seconds={SLEEPER_HOLD_SECONDS}", "--wakes"] if pool.may_sleep else []),
                    *(["--images"] if spec.miner.images else []),
                    *([f"--cors-origins={','.join(origins)}"] if (origins := spec.miner.cors_origins) else []),
                    *_limit_arguments(spec.miner),
                    *_candidate_arguments(spec.miner),
                    *_subnet_arguments(spec.miner, pool.namespace),
                ],
                "env": with_added_env(identity_env(pool), overlay),
                "ports": [
                    {"name": "http", "containerPort": names.MINER_PORT, "protocol": "TCP"},
                    {"name": names.METRICS_PORT_NAME, "containerPort": names.METRICS_PORT, "protocol": "TCP"},
                ],
                "resources": own_resources(spec.miner.resources, RESOURCES),
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
                    *([mount("wallet", names.WALLET_DIR, read_only=True)] if spec.miner.wallet_secret_ref else []),
                    pool_tokens_mount(),
                    token_mount(),
                    *added_mounts(overlay),
                ],
            }
        ],
        "volumes": [
            empty_dir("tmp", size="64Mi"),
            {"name": "access", "secret": {"secretName": tokens, "optional": True, "defaultMode": 0o440}},
            *_wallet_volume(spec.miner),
            pool_tokens_volume(pool),
            token_volume(),
            *added_volumes(overlay),
        ],
        **_spread(pool, own_pods),
        **added_placement(overlay, own_pods=own_pods),
    }  # fmt: skip
    return {
        "apiVersion": DEPLOYMENT.api_version,
        "kind": "Deployment",
        "metadata": {"name": names.miner_name(pool.name), "labels": labels(pool, "miner")},
        "spec": {
            "replicas": spec.miner.replicas,
            "revisionHistoryLimit": 3,
            "selector": {"matchLabels": own_pods},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {
                "metadata": added_metadata(overlay, labels=labels(pool, "miner"), annotations=CONTRACT),
                "spec": with_disk(pod),
            },
        },
    }


def _limit_arguments(miner: Miner) -> list[str]:
    """What the pool says of limits; nothing of those that are the miner's own."""
    limits = miner.limits
    if limits is None:
        return []
    amounts = (
        ("max-messages", limits.messages), ("max-answers", limits.answers), ("max-tokens", limits.tokens),
        ("client-requests", limits.client_requests), ("client-memory-percent", limits.client_memory_percent),
    )  # fmt: skip
    return [
        *(f"--{flag}={amount}" for flag, amount in amounts if amount is not None),
        *(["--patterns"] if limits.patterns else []),
        *(["--ignore-eos"] if limits.ignore_eos else []),
    ]


def _candidate_arguments(miner: Miner) -> list[str]:
    """How many answers are compared and how long; nothing where one is drawn, since there is nothing to wait for."""
    if miner.candidates == 1:
        return []
    return [f"--candidates={miner.candidates}", f"--latency-budget-seconds={miner.latency_budget_seconds}"]


def _subnet_arguments(miner: Miner, namespace: str) -> list[str]:
    """What a miner with a wallet is told of its subnet; nothing without one, since nobody could sign."""
    if miner.wallet_secret_ref is None:
        return []
    told = [f"--wallet-dir={names.WALLET_DIR}", f"--replicas={max(1, miner.replicas)}"]
    if miner.netuid is not None:
        told.append(f"--netuid={miner.netuid}")
    if miner.chain is not None:
        told.append(f"--chain={names.network_of(miner.chain, namespace)}")
    if miner.external_address is not None:
        told.append(f"--external-address={miner.external_address}")
    if miner.tasks is not None and miner.tasks.accept:
        told.append("--tasks")
    return told


def takes_tasks(pool: Pool) -> bool:
    """Tell whether the pool's miners take validators' tasks."""
    miner = pool.spec.miner
    return miner.wallet_secret_ref is not None and miner.tasks is not None and miner.tasks.accept


def _wallet_volume(miner: Miner) -> list[Manifest]:
    """The Secret with the hotkey: in these pods and no others. All of it, so that a coldkey in it is found and refused.

    Not optional: a miner that is to sign and can't must not begin.
    """
    if miner.wallet_secret_ref is None:
        return []
    return [{"name": "wallet", "secret": {"secretName": miner.wallet_secret_ref.name, "defaultMode": 0o440}}]


def _spread(pool: Pool, own_pods: dict[str, str]) -> Manifest:
    """Several miners run on several nodes where that is possible."""
    if pool.spec.miner.replicas <= 1:
        return {}
    return {
        "topologySpreadConstraints": [
            {
                "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": own_pods},
            }
        ]
    }  # fmt: skip

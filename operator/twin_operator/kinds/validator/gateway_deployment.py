"""Deployment V-gateway: what patients ask, with its hotkey, its clients' keys, its twins and its ledger."""

from __future__ import annotations

from typing import Final

from bettertherapy_api import names
from bettertherapy_api.validator import Gateway
from twin_operator.domain.objects import Validator
from twin_operator.engine.resources import DEPLOYMENT, Manifest
from twin_operator.kinds.podspec.disk import with_disk
from twin_operator.kinds.podspec.overlay import (
    added_metadata,
    added_mounts,
    added_placement,
    added_volumes,
    with_added_env,
)
from twin_operator.kinds.podspec.parts import (
    container_security,
    empty_dir,
    env,
    mount,
    own_resources,
    pod_security,
    pull_secrets,
    token_mount,
    token_volume,
)
from twin_operator.kinds.podspec.sources import claim_in, place_of_folder
from twin_operator.kinds.podspec.validators import (
    image_of,
    ledger_claim,
    ledger_url,
    network_of,
    secret_volume,
    twins_volume,
)
from twin_operator.kinds.validator.labels import GATEWAY, labels, selector_labels
from twin_operator.kinds.validator.pages import pages_arguments, pages_mounts, pages_volumes
from twin_operator.settings import Images

RESOURCES: Final[Manifest] = {"requests": {"cpu": "250m", "memory": "1Gi"}, "limits": {"memory": "2Gi"}}
DRAIN_DELAY_SECONDS: Final = 5
"""How long a gateway that stops goes on accepting, until every client has seen that it left the Service."""
LATE_SECONDS: Final = 30
"""An answer that came at the deadline has so long to be given."""
QUEUE_SIZE: Final = "2Gi"
"""Of a pod's own disk, for what waits until the database takes it; the gateway itself stops at half of it."""


def build_gateway_deployment(validator: Validator, images: Images) -> Manifest:
    """Return the Deployment of the gateways."""
    spec, gateway = validator.spec, validator.spec.gateway
    own_pods = selector_labels(validator, GATEWAY)
    drain = gateway.deadline_seconds + LATE_SECONDS
    pod: Manifest = {
        "serviceAccountName": names.gateway_name(validator.name),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        # Answers end first; what was asked and answered then gets as long to come onto the disk, and into the ledger.
        "terminationGracePeriodSeconds": DRAIN_DELAY_SECONDS + 3 * drain + 10,
        "securityContext": pod_security(),
        **pull_secrets(validator),
        "containers": [
            {
                "name": "gateway",
                "image": image_of(validator, images),
                "imagePullPolicy": "IfNotPresent",
                "command": ["python", "-m", "neurons.validator.gateway"],
                "args": gateway_arguments(validator, drain_seconds=drain),
                "env": with_added_env([*_identity(), ledger_url(validator), *_deliveries_env(validator)], gateway.pod),
                "ports": [
                    {"name": "http", "containerPort": names.GATEWAY_PORT, "protocol": "TCP"},
                    {
                        "name": names.GATEWAY_METRICS_PORT_NAME, "containerPort": names.GATEWAY_METRICS_PORT,
                        "protocol": "TCP",
                    },
                ],
                "resources": own_resources(gateway.resources, RESOURCES),
                "securityContext": container_security(),
                "terminationMessagePolicy": "FallbackToLogsOnError",
                # It listens once the models that find identifiers are loaded, which takes long on a busy node.
                "startupProbe": {
                    "httpGet": {"path": "/healthz", "port": names.GATEWAY_PORT},
                    "periodSeconds": 2, "timeoutSeconds": 5, "failureThreshold": 300,
                },
                "readinessProbe": {
                    "httpGet": {"path": "/readyz", "port": names.GATEWAY_PORT},
                    "periodSeconds": 2, "timeoutSeconds": 2, "failureThreshold": 2,
                },
                "livenessProbe": {
                    "httpGet": {"path": "/healthz", "port": names.GATEWAY_PORT},
                    "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6,
                },
                "volumeMounts": [
                    mount("tmp", "/tmp"),  # noqa: S108
                    mount("wallet", names.WALLET_DIR, read_only=True),
                    mount("keys", names.KEYS_DIR, read_only=True),
                    mount("twins", names.TWINS_DIR, read_only=True),
                    mount("sessions", names.SESSIONS_DIR, read_only=True),
                    mount("state", names.STATE_DIR),
                    token_mount(),
                    *_deliveries_mounts(validator),
                    *pages_mounts(gateway),
                    *added_mounts(gateway.pod),
                ],
            }
        ],
        "volumes": [
            empty_dir("tmp", size="256Mi"),
            # All of it, so that a coldkey in it is found and refused. In these pods and no others.
            secret_volume("wallet", spec.wallet_secret_ref.name),
            secret_volume("keys", keys_secret_name(validator), names.KEYS_FILE, optional=True),
            twins_volume(validator),
            secret_volume("sessions", names.gateway_sessions_name(validator.name), names.SESSIONS_FILE),
            _state_volume(validator),
            token_volume(),
            *_deliveries_volumes(validator),
            *pages_volumes(gateway),
            *added_volumes(gateway.pod),
        ],
        **_spread(gateway, own_pods),
        **added_placement(gateway.pod, own_pods=own_pods),
    }  # fmt: skip
    return {
        "apiVersion": DEPLOYMENT.api_version,
        "kind": DEPLOYMENT.kind,
        "metadata": {"name": names.gateway_name(validator.name), "labels": labels(validator, GATEWAY)},
        "spec": {
            "replicas": gateway.replicas,
            "revisionHistoryLimit": 3,
            "selector": {"matchLabels": own_pods},
            "strategy": _strategy(validator),
            "template": {
                "metadata": added_metadata(
                    gateway.pod, labels=labels(validator, GATEWAY),
                    annotations={"kubectl.kubernetes.io/default-container": "gateway", **_scraped(gateway)},
                ),
                "spec": with_disk(pod),
            },
        },
    }  # fmt: skip


def gateway_arguments(validator: Validator, *, drain_seconds: int) -> list[str]:
    """Return the gateway's command line; the ledger's address isn't in it, as it may hold a password."""
    chain, gateway = validator.spec.chain, validator.spec.gateway
    return [
        f"--chain={network_of(validator)}",
        f"--netuid={chain.netuid}",
        f"--wallet-dir={names.WALLET_DIR}",
        f"--keys-file={names.KEYS_DIR}/{names.KEYS_FILE}",
        f"--twins-file={names.TWINS_DIR}/{names.TWINS_FILE}",
        f"--secret-file={names.SESSIONS_DIR}/{names.SESSIONS_FILE}",
        f"--state-dir={names.STATE_DIR}",
        f"--port={names.GATEWAY_PORT}",
        f"--miners-per-query={gateway.miners_per_query}",
        f"--deadline-seconds={gateway.deadline_seconds}",
        *([f"--country={gateway.country}"] if gateway.country else []),
        *([f"--cors-origins={','.join(gateway.cors_origins)}"] if gateway.cors_origins else []),
        *pages_arguments(gateway),
        f"--drain-delay={DRAIN_DELAY_SECONDS}",
        f"--drain-seconds={drain_seconds}",
    ]


def _identity() -> list[Manifest]:
    """Return the variables that tell a gateway whose report it writes. Variables: an image of a release before, which
    `gateway.image` may name, would end at an argument that it doesn't know.
    """
    fields = {
        "POD_NAME": "metadata.name", "POD_NAMESPACE": "metadata.namespace", "POD_UID": "metadata.uid",
        "POD_VALIDATOR": f"metadata.labels['{names.LABEL_VALIDATOR}']",
    }  # fmt: skip
    return [
        env("HOME", "/tmp"),  # noqa: S108  # an emptyDir of the pod
        *(
            {"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}
            for name, path in fields.items()
        ),
    ]


def _scraped(gateway: Gateway) -> dict[str, str]:
    """Return the annotations by which Prometheus is told of pods, as far as the spec doesn't say otherwise.

    The port is the image's own default, and not an argument: an image of a release before would end at it.
    """
    said = (gateway.pod.annotations or {}) if gateway.pod is not None else {}
    told = {
        "prometheus.io/scrape": "true", "prometheus.io/port": str(names.GATEWAY_METRICS_PORT),
        "prometheus.io/path": "/metrics",
    }  # fmt: skip
    return {name: value for name, value in told.items() if name not in said}


def _deliveries_env(validator: Validator) -> list[Manifest]:
    """A variable, as above: an older image takes no deliveries, and goes on."""
    uri = validator.deliveries
    return [env("DELIVERIES_URI", uri)] if uri is not None else []


def _deliveries_mounts(validator: Validator) -> list[Manifest]:
    """Return the mount of that one folder: whoever reaches the gateway's pod reaches nothing else on the claim."""
    place = place_of_folder(validator.deliveries, writable=True)
    if place is None:
        return []
    return [
        {**mount("deliveries", f"{names.PVC_DIR}/{place.claim}/{place.path}"), "subPath": place.path}
    ]  # fmt: skip


def _deliveries_volumes(validator: Validator) -> list[Manifest]:
    claim = claim_in(validator.deliveries)
    return [{"name": "deliveries", "persistentVolumeClaim": {"claimName": claim}}] if claim is not None else []


def keys_secret_name(validator: Validator) -> str:
    """Return the name of the Secret with the API keys."""
    reference = validator.spec.gateway.keys_secret_ref
    return reference.name if reference else names.gateway_keys_name(validator.name)


def _state_volume(validator: Validator) -> Manifest:
    """Return where the queue before the ledger lies, and an embedded ledger itself."""
    if validator.embedded_ledger:
        return ledger_claim(validator)
    return empty_dir("state", size=QUEUE_SIZE)


def _strategy(validator: Validator) -> Manifest:
    """Two gateways must never write one file; those that share a database follow one another without a gap."""
    if validator.embedded_ledger:
        return {"type": "Recreate"}
    return {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}


def _spread(gateway: Gateway, own_pods: dict[str, str]) -> Manifest:
    """Several gateways run on several nodes where that is possible."""
    if gateway.replicas <= 1:
        return {}
    return {
        "topologySpreadConstraints": [
            {
                "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": own_pods},
            }
        ]
    }  # fmt: skip

"""What the pods of engines and miners have in common: labels, security, tokens, scratch volumes."""

from __future__ import annotations

from typing import Final

from bettertherapy_api import names
from bettertherapy_api.schema import Resources
from twin_operator.domain.engine_groups import ENGINE_WORKER
from twin_operator.domain.objects import Pool, PoolRef, Validator
from twin_operator.engine.compare import quantity
from twin_operator.engine.resources import Manifest

USER = 65532
GPU = "nvidia.com/gpu"
GPU_SUFFIX = "/gpu"
"""Of the names under which vendors' device plugins offer GPUs: nvidia.com/gpu, amd.com/gpu."""
TOKEN_VOLUME = "api-token"  # noqa: S105  # the name of a volume
TOKEN_DIR = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105
TOKEN_SECONDS = 3600


CONTRACT: Final = {names.CONTRACT_ANNOTATION: names.CONTRACT}
"""Annotation of the pods that follow RoutingSlices."""


def selector_labels(pool: PoolRef, component: str) -> dict[str, str]:
    """Return the labels by which a component's pods are found; never changed, since a Deployment's selector can't."""
    return {names.LABEL_POOL: pool.name, names.LABEL_COMPONENT: component}


def of_engines(pool: Pool) -> Manifest:
    """Return the selector of all pods that a pool's engines compute in: of groups the workers too."""
    if pool.spec.engine.group is None:
        return {"matchLabels": selector_labels(pool, "engine")}
    components = {"key": names.LABEL_COMPONENT, "operator": "In", "values": ["engine", ENGINE_WORKER]}
    return {"matchLabels": {names.LABEL_POOL: pool.name}, "matchExpressions": [components]}


def labels(pool: PoolRef, component: str) -> dict[str, str]:
    """Return the labels of a component's objects."""
    return {**selector_labels(pool, component), **common_labels(pool.name, component)}


def common_labels(owner: str, component: str) -> dict[str, str]:
    """Return the labels that all objects bear which the operator makes for a custom resource of this name."""
    return {
        names.LABEL_MANAGED_BY: names.FIELD_MANAGER,
        "app.kubernetes.io/part-of": "bettertherapy",
        "app.kubernetes.io/name": component,
        "app.kubernetes.io/instance": owner,
    }


def pod_security() -> Manifest:
    """Return the pod's securityContext, as the restricted Pod Security Standard asks."""
    return {
        "runAsNonRoot": True, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER,
        "fsGroupChangePolicy": "OnRootMismatch", "seccompProfile": {"type": "RuntimeDefault"},
    }  # fmt: skip


def container_security() -> Manifest:
    """Return a container's securityContext, as the restricted Pod Security Standard asks, with a read-only root."""
    return {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "runAsNonRoot": True,
        "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip


def empty_dir(name: str, *, size: str, memory: bool = False) -> Manifest:
    """Return an emptyDir volume; without a size it could fill the node's disk."""
    return {"name": name, "emptyDir": {**({"medium": "Memory"} if memory else {}), "sizeLimit": size}}


def mount(name: str, path: str, *, read_only: bool = False) -> Manifest:
    """Return a volume mount."""
    return {"name": name, "mountPath": path, **({"readOnly": True} if read_only else {})}


def pool_tokens_volume(pool: Pool) -> Manifest:
    """Return the volume with the tokens between the pool's miners and agents; pods start before the Secret is made."""
    secret = {"secretName": names.pool_tokens_secret_name(pool.name), "optional": True, "defaultMode": 0o440}
    return {"name": names.POOL_TOKENS_VOLUME, "secret": secret}


def pool_tokens_mount() -> Manifest:
    """Return the mount of `pool_tokens_volume`."""
    return mount(names.POOL_TOKENS_VOLUME, names.POOL_TOKENS_DIR, read_only=True)


def token_volume() -> Manifest:
    """Return the volume with the API token: mounted only into containers that talk to the API server."""
    return {
        "name": TOKEN_VOLUME,
        "projected": {
            "defaultMode": 0o444,
            "sources": [
                {"serviceAccountToken": {"path": "token", "expirationSeconds": TOKEN_SECONDS}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {
                    "downwardAPI": {
                        "items": [
                            {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
                        ]
                    }
                },
            ],
        },
    }


def token_mount() -> Manifest:
    """Return the mount of `token_volume` at the place where every client looks for it."""
    return mount(TOKEN_VOLUME, TOKEN_DIR, read_only=True)


def identity_env(pool: Pool) -> list[Manifest]:
    """Return the environment that tells a neuron which pod of which pool it is."""
    fields = {
        "POD_NAME": "metadata.name", "POD_NAMESPACE": "metadata.namespace", "POD_UID": "metadata.uid",
        "POD_IP": "status.podIP",
    }  # fmt: skip
    return [
        env("HOME", "/tmp"),  # noqa: S108  # an emptyDir of the pod
        env("POOL", pool.name),
        *(
            {"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}
            for name, path in fields.items()
        ),
    ]


def env(name: str, value: str) -> Manifest:
    """Return one environment variable."""
    return {"name": name, "value": value}


def pull_secrets(owner: Pool | Validator) -> Manifest:
    """Return the pod's imagePullSecrets, or nothing."""
    secrets = owner.spec.image_pull_secrets
    return {"imagePullSecrets": [{"name": secret.name} for secret in secrets]} if secrets else {}


def placement(pool: Pool) -> Manifest:
    """Return where the pool's pods may run: runtime class, node labels, tolerated taints."""
    spec = pool.spec
    placed: Manifest = {}
    if spec.runtime_class_name:
        placed["runtimeClassName"] = spec.runtime_class_name
    if spec.node_selector:
        placed["nodeSelector"] = dict(spec.node_selector)
    if spec.tolerations:
        placed["tolerations"] = [item.model_dump(by_alias=True, exclude_none=True) for item in spec.tolerations]
    return placed


def own_resources(given: Resources | None, default: Manifest) -> Manifest:
    """Return resources of a container of ours: the given ones whole, or the default."""
    return given.model_dump(mode="json", by_alias=True, exclude_none=True) if given else default


def gpus(pool: Pool) -> int:
    """Return the GPUs of one engine pod; 0 where it computes on CPUs, or asks for none by name."""
    if pool.spec.engine.device != "GPU":
        return 0
    limits = container_resources(pool, pool.spec.resources).get("limits") or {}
    return sum(int(quantity(amount) or 0) for name, amount in limits.items() if name.endswith(GPU_SUFFIX))


def container_resources(pool: Pool, given: Resources | None) -> Manifest:
    """Return resources of a container that computes with the base model; without `given` what the pool's device needs.

    An extended resource must have equal requests and limits, so one of them does.
    """
    if given is None:
        if pool.spec.engine.device == "GPU":
            return {"requests": {GPU: 1}, "limits": {GPU: 1}}
        return {"requests": {"cpu": "2", "memory": "6Gi"}, "limits": {"memory": "6Gi"}}
    requests, limits = dict(given.requests or {}), dict(given.limits or {})
    for name in {*requests, *limits}:
        if "/" in name:
            requests.setdefault(name, limits.get(name, 0))
            limits.setdefault(name, requests[name])
    return {**({"requests": requests} if requests else {}), **({"limits": limits} if limits else {})}

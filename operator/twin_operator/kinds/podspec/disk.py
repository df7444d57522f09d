"""What a pod may take of its node's disk: no more than its scratch volumes and its logs, counted per container."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from twin_operator.domain.objects import Pool
from twin_operator.engine.compare import quantity
from twin_operator.engine.resources import Manifest

EPHEMERAL: Final = "ephemeral-storage"
MODEL_SIZES: Final = {"CPU": "64Gi", "GPU": "256Gi"}
"""Most that a base model may take of a node's disk where the pool says nothing: one in bfloat16 has 2 bytes to a
parameter, so 32 and 128 thousand millions of them."""
ADAPTERS_SIZE: Final = "64Gi"
"""Most that a pod's adapters take where the pool says nothing: 64 large ones, or a thousand of 64 MB."""
ENGINE_SCRATCH: Final = "16Gi"
"""Compiled kernels, and what libraries keep in their home."""
JOB_SCRATCH: Final = "32Gi"
"""A trainer's checkpoints and data; an examiner's adapters."""
LINK_SIZE: Final = "256Mi"
"""A link to a model that is elsewhere, the record of what was hashed, or hollow copies of its files."""
EXTRA_SIZE: Final = "16Gi"
"""A scratch volume of an overlay that names no size."""
_LOGS: Final = "256Mi"
"""A container's logs, which the kubelet turns over at 50 MiB by default; roots are read-only."""
_REQUEST: Final = "64Mi"
_UNITS: Final = (("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10))


def model_size(pool: Pool) -> str:
    """Return the most that a copy of the base model may take: `cache.sizeLimit`, or what the device is given."""
    cache = pool.spec.cache
    return (cache.size_limit if cache is not None else None) or MODEL_SIZES[pool.spec.engine.device]


def models_volume_size(pool: Pool, *, copied: bool = False) -> str:
    """Return the size of the volume behind /models: a whole model where it is fetched or `copied` into it."""
    uri = pool.spec.base_model.uri or ""
    fetched = not uri.startswith(("pvc://", "file://")) and pool.spec.cache is None
    return model_size(pool) if copied or (uri and fetched) else LINK_SIZE


def adapters_size(pool: Pool) -> str:
    """Return the size of the adapters' volume: the limit that the pool gives its agents' disk, or the default."""
    given = pool.spec.agent.resources if pool.spec.agent is not None else None
    limit = ((given.limits if given is not None else None) or {}).get(EPHEMERAL)
    return ADAPTERS_SIZE if limit is None else _shown(quantity(limit) or Decimal(0))


def with_disk(pod: Manifest, *, pool: Pool | None = None) -> Manifest:
    """Return the pod, each of its containers with a request and a limit for the node's disk where it has none yet.

    The kubelet holds the whole pod to the sum of its containers' limits, volumes included: a container's own is its
    logs' and that of every scratch volume it mounts, so no volume is evicted below its sizeLimit. A request keeps what
    the pool says that its model takes, for the first container; else little, since a limit is not what is used.
    """
    sizes = {volume["name"]: _scratch(volume) for volume in pod.get("volumes", [])}
    said = _said_size(pool)

    def bounded(container: Manifest, *, first: bool) -> Manifest:
        mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
        limit = _amount(_LOGS) + sum((sizes.get(name, Decimal(0)) for name in mounted), Decimal(0))
        request = _amount(_REQUEST)
        # Where it lies on a claim or in a folder of the node, it takes nothing of what is counted here.
        if first and said and any(sizes.get(name, Decimal(0)) >= said for name in mounted & {"models", "cache"}):
            request += said
        return {**container, "resources": _filled(container.get("resources", {}), request=request, limit=limit)}

    bounds = {"containers": [bounded(each, first=at == 0) for at, each in enumerate(pod["containers"])]}
    if "initContainers" in pod:
        bounds["initContainers"] = [bounded(each, first=False) for each in pod["initContainers"]]
    return {key: bounds.get(key, value) for key, value in pod.items()}


def limit_bytes(size: str) -> int:
    """Return a size as a number of bytes, for a program's argument."""
    return int(_amount(size))


def _said_size(pool: Pool | None) -> Decimal:
    cache = pool.spec.cache if pool is not None else None
    return _amount(cache.size_limit) if cache is not None and cache.size_limit else Decimal(0)


def _filled(resources: Mapping[str, Any], *, request: Decimal, limit: Decimal) -> Manifest:
    """What the owner of the pool said stays; the other one follows, since no request may be above its limit."""
    requests, limits = dict(resources.get("requests") or {}), dict(resources.get("limits") or {})
    given_request, given_limit = requests.get(EPHEMERAL), limits.get(EPHEMERAL)
    if given_limit is None:
        limits[EPHEMERAL] = _shown(max(limit, _amount(given_request)))
    if given_request is None:
        requests[EPHEMERAL] = _shown(min(request, _amount(limits[EPHEMERAL])))
    return {**resources, "requests": requests, "limits": limits}


def _scratch(volume: Manifest) -> Decimal:
    source = volume.get("emptyDir")
    if source is None or source.get("medium") == "Memory":
        return Decimal(0)
    return _amount(source["sizeLimit"])


def _amount(size: object) -> Decimal:
    return Decimal(0) if size is None else quantity(size) or Decimal(0)


def _shown(amount: Decimal) -> str:
    whole = int(amount)
    for suffix, unit in _UNITS:
        if whole and whole % unit == 0:
            return f"{whole // unit}{suffix}"
    return str(whole)

"""Writes the status of a custom resource, only when it says something new."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twin_operator.engine.api import Api
from twin_operator.engine.cache import Cache
from twin_operator.engine.conditions import Condition, Truth, dated, truth
from twin_operator.engine.resources import Manifest
from twin_operator.engine.times import exact_timestamp, moment, timestamp

__all__ = [
    "Condition",
    "Truth",
    "dated",
    "exact_timestamp",
    "moment",
    "timestamp",
    "truth",
    "without_none",
    "write_status",
]


def without_none(value: Any) -> Any:
    """Drop None from mappings, deeply: absent is what was not measured."""
    if isinstance(value, Mapping):
        return {key: without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_none(item) for item in value]
    return value


async def write_status(api: Api, cache: Cache, *, thing: Manifest, status: Manifest) -> bool:
    """Make `status` the whole status of `thing`; tells whether that took a write."""
    wanted = without_none(status)
    if wanted == thing.get("status"):
        return False
    metadata = thing["metadata"]
    manifest = {
        "apiVersion": thing["apiVersion"],
        "kind": thing["kind"],
        # The UID lets a status never land on a new object of the same name.
        "metadata": {"name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"]},
        "status": wanted,
    }
    cache.put(await api.apply(manifest, subresource="status"))
    return True

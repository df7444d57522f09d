"""Routing slices as tests write them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bettertherapy_api import names

POOL = "pool"


def digest(letter: str) -> str:
    return "sha256:" + letter * 64


def pool(generation: int = 1, *, uid: str = "pool-uid", name: str = POOL) -> dict[str, Any]:
    return {
        "name": name, "uid": uid, "generation": generation, "baseModel": {"name": "base"}, "maxLoras": 8,
        "maxLoraRank": 16,
    }  # fmt: skip


def twin(name: str, letter: str = "a", *, prompt: str | None = None, weight: int = 100) -> dict[str, Any]:
    served = names.served_name(name, digest(letter))
    entry: dict[str, Any] = {
        "name": name,
        "versions": [{"servedName": served, "digest": digest(letter), "weightPercent": weight}],
        "adapters": [{"servedName": served, "digest": digest(letter), "uri": f"s3://b/{name}", "rank": 8}],
    }
    if prompt is not None:
        entry["promptDigest"] = names.prompt_digest(prompt)
    return entry


def routing_slice(
    number: int = 0,
    twins: Mapping[str, Any] | None = None,
    *,
    name: str | None = None,
    version: int = 1,
    header: Any = None,
    **sections: Any,
) -> dict[str, Any]:
    thing: dict[str, Any] = {
        "metadata": {"name": name or names.routing_slice_name(POOL, number), "resourceVersion": str(version)},
        "pool": header if header is not None else pool(),
        **sections,
    }
    if twins is not None:
        thing["twins"] = dict(twins)
    return thing


def prompts_slice(*texts: str, version: int = 1) -> dict[str, Any]:
    prompts = {names.prompt_digest(text): text for text in texts}
    return routing_slice(name=names.prompts_slice_name(POOL, 0), prompts=prompts, version=version)


def pods_slice(pods: Mapping[str, tuple[str, str]], *, version: int = 1) -> dict[str, Any]:
    """`pods`: (name, address) by UID."""
    entries = {uid: {"name": name, "address": address} for uid, (name, address) in pods.items()}
    return routing_slice(name=names.pods_slice_name(POOL), pods=entries, version=version)


def large_pool(twins: int = 1000, *, per_slice: int = 100) -> list[dict[str, Any]]:
    """Return the slices of a pool with many twins, each with a system prompt of its own."""
    slices = []
    for number in range(twins // per_slice):
        members = range(number * per_slice, (number + 1) * per_slice)
        slices.append(prompts_slice(*(f"You are twin {n}." for n in members)))
        slices[-1]["metadata"]["name"] = names.prompts_slice_name(POOL, number)
        slices.append(
            routing_slice(number, {f"uid-{n}": twin(f"dr-{n}", prompt=f"You are twin {n}.") for n in members})
        )
    return slices

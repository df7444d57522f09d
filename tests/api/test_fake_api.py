"""The API server in memory, over which the operator's tests play, answers as a real one does: one script on both."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from bettertherapy_api import names
from tests.api.operator_harness import cluster, digest, pool_manifest, twin_manifest
from tests.unit.operator.fake_api import FakeApi
from twin_operator.engine.resources import CONFIG_MAP, DEPLOYMENT, SERVICE_ACCOUNT, Manifest
from twin_operator.errors import ApiError
from twin_operator.kinds.resources import DOCTOR_TWIN, ROUTING_SLICE

pytestmark = pytest.mark.cluster

Told = list[tuple[str, Any]]
"""What was done and what came of it."""


def configmap(namespace: str, name: str = "c", **data: str) -> Manifest:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}, "data": data}


def deployment(namespace: str, *, limit: str | None = "1Gi", **labels: str) -> Manifest:
    container: Manifest = {"name": "one", "image": "example/one:1"}
    if limit is not None:
        container["resources"] = {"limits": {"memory": limit}}
    return {
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "d", "namespace": namespace, "labels": labels},
        "spec": {
            "replicas": 0, "selector": {"matchLabels": {"app": "d"}},
            "template": {"metadata": {"labels": {"app": "d"}}, "spec": {"containers": [container]}},
        },
    }  # fmt: skip


async def script(api: Any, namespace: str) -> Told:
    """Make all kinds of calls that the operator makes."""
    told: Told = []

    async def tell(what: str, call: Awaitable[Any], shown: Callable[[Any], Any] = lambda answer: None) -> Any:
        try:
            answer = await call
        except ApiError as error:
            told.append((what, (error.status, error.reason)))
            return None
        told.append((what, shown(answer)))
        return answer

    def version(thing: Manifest) -> int:
        return int(thing["metadata"]["resourceVersion"])

    # --- create
    first = await tell("create", api.create(configmap(namespace, a="1")), lambda it: it["data"])
    await tell("create again", api.create(configmap(namespace, a="2")))
    await tell("would create one that is there", api.would_create(configmap(namespace)), bool)
    await tell("would create another", api.would_create(configmap(namespace, "other")), bool)
    await tell("that made nothing", api.get(CONFIG_MAP, namespace=namespace, name="other"), lambda it: it)

    # --- merge
    patch = {"data": {"b": "2"}}
    second = await tell(
        "merge", api.merge(CONFIG_MAP, namespace=namespace, name="c", patch=patch), lambda it: it["data"]
    )
    assert version(second) > version(first)
    same = await tell("merge nothing new", api.merge(CONFIG_MAP, namespace=namespace, name="c", patch=patch))
    told.append(("a version for nothing new", version(same) > version(second)))
    await tell("merge null", api.merge(CONFIG_MAP, namespace=namespace, name="c", patch={"data": {"a": None}}),
               lambda it: it["data"])  # fmt: skip
    old = {"metadata": {"resourceVersion": first["metadata"]["resourceVersion"]}, "data": {"c": "3"}}
    await tell("merge on an old version", api.merge(CONFIG_MAP, namespace=namespace, name="c", patch=old))
    await tell("merge what is not there", api.merge(CONFIG_MAP, namespace=namespace, name="none", patch=patch))

    # --- apply: what is not said again is taken away, what others said stays
    def shown(thing: Manifest) -> Any:
        [container] = thing["spec"]["template"]["spec"]["containers"]
        return thing["metadata"].get("labels"), container.get("resources") or {}, thing["metadata"]["generation"]

    made = await tell("apply anew", api.apply(deployment(namespace, a="1", b="1")), shown)
    other = {"metadata": {"labels": {"theirs": "1"}}}
    await api.merge(DEPLOYMENT, namespace=namespace, name="d", patch=other)
    await tell("apply without a label", api.apply(deployment(namespace, a="1")), shown)
    await tell("apply without a limit", api.apply(deployment(namespace, a="1", limit=None)), shown)
    before = await api.get(DEPLOYMENT, namespace=namespace, name="d")
    after = await tell("apply nothing new", api.apply(deployment(namespace, a="1", limit=None)), shown)
    told.append(("a version for nothing new", before["metadata"]["generation"] != after["metadata"]["generation"]))
    stale = deployment(namespace, a="2", limit=None)
    stale["metadata"]["resourceVersion"] = made["metadata"]["resourceVersion"]
    await tell("apply on an old version", api.apply(stale))
    absent = {
        "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": "gone", "namespace": namespace, "resourceVersion": "1", "uid": "u"},
    }  # fmt: skip
    await tell("apply on a version of what is not there", api.apply(absent))

    # --- apply a status
    twin = await api.create(twin_manifest(namespace))

    def status(thing: Manifest, **fields: Any) -> Manifest:
        parts = ("name", "namespace", "uid", "resourceVersion")
        return {
            "apiVersion": names.API_VERSION, "kind": "DoctorTwin",
            "metadata": {part: thing["metadata"][part] for part in parts}, "status": fields,
        }  # fmt: skip

    one = await tell("status", api.apply(status(twin, specDigest=digest("a"), pools=["p"]), subresource="status"),
                     lambda it: (it["status"], it["metadata"]["generation"]))  # fmt: skip
    two = await tell("status without a field", api.apply(status(one, pools=["p"]), subresource="status"),
                     lambda it: it["status"])  # fmt: skip
    await tell("status on an old version", api.apply(status(twin, pools=["q"]), subresource="status"))
    strange = status(two, pools=["q"])
    strange["metadata"]["uid"] = "00000000-0000-4000-8000-000000000000"
    await tell("status of another of its name", api.apply(strange, subresource="status"))

    # --- delete
    uid = twin["metadata"]["uid"]
    await tell("delete on an old version", api.delete(
        DOCTOR_TWIN, namespace=namespace, name="dr-a", uid=uid, version=twin["metadata"]["resourceVersion"]
    ))  # fmt: skip
    await tell("delete another of its name", api.delete(
        DOCTOR_TWIN, namespace=namespace, name="dr-a", uid=strange["metadata"]["uid"]
    ))  # fmt: skip
    await tell("it is there", api.get(DOCTOR_TWIN, namespace=namespace, name="dr-a"), lambda it: it is not None)
    await tell("delete", api.delete(DOCTOR_TWIN, namespace=namespace, name="dr-a", uid=uid))
    await tell("delete again", api.delete(DOCTOR_TWIN, namespace=namespace, name="dr-a", uid=uid))
    await tell("it is gone", api.get(DOCTOR_TWIN, namespace=namespace, name="dr-a"), lambda it: it is None)
    anew = await tell("make it anew", api.create(twin_manifest(namespace)))
    told.append(("it has the UID of the former", anew["metadata"]["uid"] == uid))

    # --- lists
    pool = await api.create(pool_manifest(namespace))
    published = {
        "apiVersion": ROUTING_SLICE.api_version, "kind": ROUTING_SLICE.kind,
        "metadata": {"name": "p-routing-0", "namespace": namespace, "labels": {names.LABEL_POOL: "p"}},
        "pool": {
            "name": "p", "uid": pool["metadata"]["uid"], "generation": 1, "baseModel": {"name": "smollm2"},
            "maxLoras": 4, "maxLoraRank": 16,
        },
    }  # fmt: skip
    await api.create(published)
    for selector in (None, names.LABEL_POOL, f"{names.LABEL_POOL}=p", f"{names.LABEL_POOL}=q"):
        await tell(f"list {selector}", api.list(ROUTING_SLICE, namespace=namespace, selector=selector),
                   lambda it: [(each["kind"], each["metadata"]["name"]) for each in it[0]])  # fmt: skip
    labels = {"labels": {"seen": "yes"}}
    for what, metadata in (("untracked from now on", {"managedFields": names.UNTRACKED}), ("and so it stays", labels)):
        await tell(what, api.merge(ROUTING_SLICE, namespace=namespace, name="p-routing-0", patch={
            "metadata": metadata, "pool": {"maxLoras": len(what)},
        }), lambda it: (it["metadata"].get("managedFields"), it["pool"]["maxLoras"]))  # fmt: skip
    things, listed = await api.list(ROUTING_SLICE, namespace=namespace)
    told.append(("a list is as new as what is in it", listed >= max(map(version, things))))
    await tell("get what is not there", api.get(SERVICE_ACCOUNT, namespace=namespace, name="gone"), lambda it: it)
    return told


async def test_both_say_the_same(kubeconfig: Path, namespace: str, crds: None) -> None:
    async with cluster(kubeconfig, namespace) as world:
        real = await script(world.api, namespace)
    played = await script(FakeApi(), namespace)
    assert len(real) > 30
    assert [(told, of) for told, of in zip(played, real, strict=True) if told != of] == []

"""What the engine compares and applies, on a real API server: each child once, and every change of others is seen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.api.operator_harness import Cluster, cluster, pool_manifest, until
from tests.unit.operator.children.pods import VARIANTS, children
from twin_operator.engine.apply import Applier, ApplyOutcome, Owner, needs_apply, stamped
from twin_operator.engine.compare import first_difference
from twin_operator.engine.resources import CONFIG_MAP, DEPLOYMENT, Key, Manifest, key_of
from twin_operator.errors import ApiError
from twin_operator.kinds.resources import BY_KIND

pytestmark = pytest.mark.cluster

PORTS = [{"name": "t", "containerPort": 53}, {"name": "u", "containerPort": 53, "protocol": "UDP"}]
RICH: Manifest = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "rich"},
    "spec": {
        "replicas": 0,
        "selector": {"matchLabels": {"a": "b"}},
        "template": {
            "metadata": {"labels": {"a": "b"}},
            "spec": {
                "containers": [
                    {
                        "name": "c", "image": "i:1", "ports": PORTS, "command": ["x"], "args": ["1", "2"],
                        "env": [
                            {"name": "EMPTY", "value": ""},
                            {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                            {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
                        ],
                        "envFrom": [{"secretRef": {"name": "s", "optional": True}}],
                        "resources": {"limits": {"cpu": "1500m", "memory": "1024Mi"}},
                        "readinessProbe": {
                            "httpGet": {"path": "/", "port": 53, "httpHeaders": [{"name": "A", "value": "b"}]}
                        },
                        "lifecycle": {"preStop": {"httpGet": {"path": "/", "port": 53}}},
                        "volumeMounts": [{"name": "all", "mountPath": "/all"}],
                        "securityContext": {"capabilities": {"drop": ["ALL"]}},
                    }
                ],
                "imagePullSecrets": [{"name": "pull"}],
                "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["h"]}],
                "nodeSelector": {"gpu": "h200"},
                "tolerations": [{"key": "gpu", "operator": "Exists"}],
                "readinessGates": [{"conditionType": "x/y"}],
                "topologySpreadConstraints": [
                    {
                        "topologyKey": "zone", "whenUnsatisfiable": when, "maxSkew": 1,
                        "labelSelector": {"matchLabels": {"a": "b"}},
                    }
                    for when in ("DoNotSchedule", "ScheduleAnyway")
                ],
                "affinity": {
                    "nodeAffinity": {
                        "requiredDuringSchedulingIgnoredDuringExecution": {
                            "nodeSelectorTerms": [
                                {"matchExpressions": [{"key": "k", "operator": "In", "values": ["v", "w"]}]}
                            ]
                        }
                    },
                    "podAntiAffinity": {
                        "preferredDuringSchedulingIgnoredDuringExecution": [
                            {
                                "weight": 5,
                                "podAffinityTerm": {
                                    "topologyKey": "host", "labelSelector": {"matchLabels": {"a": "b"}}
                                },
                            }
                        ]
                    },
                },
                "volumes": [
                    {
                        "name": "all",
                        "projected": {
                            "sources": [
                                {"serviceAccountToken": {"path": "token"}},
                                {"configMap": {"name": "m", "items": [{"key": "k", "path": "p"}]}},
                                {"downwardAPI": {"items": [
                                    {"path": "n", "fieldRef": {"fieldPath": "metadata.name"}},
                                ]}},
                            ]
                        },
                    },
                    {"name": "scratch", "emptyDir": {"sizeLimit": "1024Mi"}},
                    {"name": "secret", "secret": {"secretName": "s", "items": [{"key": "k", "path": "p"}]}},
                ],
            },
        },
    },
}  # fmt: skip
"""A Deployment with all that an administrator may add to a pod."""


class Store(dict[Key, Manifest]):
    def put(self, thing: Manifest) -> bool:
        self[key_of(thing)] = thing
        return True


@pytest.fixture
async def world(kubeconfig: Path, namespace: str) -> AsyncIterator[Cluster]:
    async with cluster(kubeconfig, namespace) as connected:
        yield connected


@pytest.fixture
async def owner(world: Cluster) -> Owner:
    """A pool that no operator looks after."""
    return Owner.of(await world.apply(pool_manifest(world.namespace)))


async def applied(world: Cluster, owner: Owner, *wanted: Manifest, store: Store | None = None) -> ApplyOutcome:
    return await Applier(world.api, store if store is not None else Store()).apply(
        owner=owner, wanted=wanted, existing=[]
    )


@pytest.mark.parametrize("spec", [*VARIANTS, None], ids=str)
async def test_applying_each_child_twice_takes_one_write(
    world: Cluster, owner: Owner, spec: dict[str, Any] | None
) -> None:
    wanted = list(children(**spec).values()) if spec is not None else [RICH]
    store = Store()
    first = await applied(world, owner, *wanted, store=store)
    assert (first.writes, first.refusals) == (len(wanted), ())
    for key, thing in store.items():
        sent = next(
            stamped(each, owner) for each in wanted if (each["kind"], each["metadata"]["name"]) == names_of(key)
        )
        assert needs_apply(sent, thing) is None
    again = await applied(world, owner, *wanted, store=store)
    assert (again.writes, again.complete) == (0, True)


def names_of(key: Key) -> tuple[str, str]:
    return key.kind, key.name


def lists_in(value: Any, live: Any, path: str = "") -> Iterator[str]:
    """Yield the JSON pointers of all elements of lists that we state, as they lie in the live object."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from lists_in(item, live.get(key), f"{path}/{key.replace('~', '~0').replace('/', '~1')}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield f"{path}/{index}"
            yield from lists_in(item, live[index], f"{path}/{index}")


async def test_what_somebody_takes_out_of_any_list_is_seen(world: Cluster, owner: Owner) -> None:
    wanted = [*children().values(), RICH]
    store = Store()
    await applied(world, owner, *wanted, store=store)
    seen, refused = 0, []
    for manifest in wanted:
        sent = stamped(manifest, owner)
        key = key_of(sent)
        path = BY_KIND[key.kind].path(namespace=key.namespace, name=key.name)
        stated = {part: value for part, value in sent.items() if part != "metadata"}
        for pointer in lists_in(stated, store[key]):
            try:
                changed = await world.api._request(
                    "PATCH", path, query={"dryRun": "All"}, body=[{"op": "remove", "path": pointer}],  # type: ignore[arg-type]
                    content_type="application/json-patch+json",
                )  # fmt: skip
            except ApiError as error:
                if error.status != 422:
                    raise
                refused.append(f"{key.kind} {pointer}")
                continue
            if all(changed.get(part) == store[key].get(part) for part in stated):
                continue  # the API server filled in the same again
            assert needs_apply(sent, changed) is not None, f"{key}: {pointer} was taken out, and it is not seen"
            seen += 1
    assert seen > 60
    assert len(refused) < seen


@pytest.mark.parametrize(
    ("kind", "pointer", "value"),
    [
        ("Deployment", "/spec/template/spec/tolerations/-", {"key": "more", "operator": "Exists"}),
        ("Deployment", "/spec/template/spec/containers/0/args/-", "--more"),
        ("Deployment", "/spec/template/spec/nodeSelector/more", "x"),
        ("Deployment", "/spec/template/spec/containers/0/envFrom/0/prefix", "P_"),
        ("Deployment", "/spec/template/spec/volumes/0/projected/sources/0/serviceAccountToken/audience", "x"),
        ("Role", "/rules/0/verbs/-", "delete"),
        ("RoleBinding", "/subjects/-", {"kind": "ServiceAccount", "name": "x", "namespace": "y"}),
        ("NetworkPolicy", "/spec/ingress/-", {}),
        ("Service", "/spec/selector/more", "x"),
    ],
)
async def test_what_somebody_adds_where_it_means_more_is_seen_and_taken_back(
    world: Cluster, owner: Owner, kind: str, pointer: str, value: Any
) -> None:
    store = Store()
    manifest = RICH if kind == "Deployment" else next(each for each in children().values() if each["kind"] == kind)
    await applied(world, owner, manifest, store=store)
    (before,) = store.values()
    path = BY_KIND[kind].path(namespace=world.namespace, name=manifest["metadata"]["name"])
    changed = await world.api._request(
        "PATCH", path, body=[{"op": "add", "path": pointer, "value": value}],  # type: ignore[arg-type]
        content_type="application/json-patch+json",
    )  # fmt: skip
    store.put({**changed, "kind": kind})
    assert (await applied(world, owner, manifest, store=store)).writes == 1
    (after,) = store.values()
    for part in ("spec", "rules", "subjects"):
        assert first_difference({"x": before.get(part)}, {"x": after.get(part)}) is None


async def test_what_others_add_beside_ours_is_theirs(world: Cluster, owner: Owner) -> None:
    store = Store()
    await applied(world, owner, RICH, store=store)
    patch = {
        "metadata": {"annotations": {"theirs": "x"}},
        "spec": {"template": {"spec": {"containers": [{"name": "sidecar", "image": "s:1"}]}}},
    }
    path = DEPLOYMENT.path(namespace=world.namespace, name="rich")
    changed = await world.api._request(
        "PATCH", path, body=patch, content_type="application/strategic-merge-patch+json"
    )  # fmt: skip
    store.put(changed)
    assert (await applied(world, owner, RICH, store=store)).writes == 0


async def test_an_autoscaler_is_not_fought_with(world: Cluster, owner: Owner) -> None:
    """It sets replicas, which we don't state then, and changes the object's version each time."""
    wanted = {**RICH, "spec": {key: value for key, value in RICH["spec"].items() if key != "replicas"}}
    store = Store()
    await applied(world, owner, wanted, store=store)
    scale = DEPLOYMENT.path(namespace=world.namespace, name="rich", subresource="scale")
    await world.api._request(
        "PATCH", scale, body={"spec": {"replicas": 7}}, content_type="application/merge-patch+json"
    )
    newer = {**wanted, "metadata": {**wanted["metadata"], "labels": {"new": "x"}}}
    outcome = await applied(world, owner, newer, store=store)  # decided on the version before the scaling
    assert (outcome.writes, outcome.complete) == (1, True)
    live = await world.api.get(DEPLOYMENT, namespace=world.namespace, name="rich")
    assert live is not None
    assert (live["spec"]["replicas"], live["metadata"]["labels"]) == (7, {"new": "x"})


async def test_a_refused_child_and_a_foreign_one_hold_back_nothing(world: Cluster, owner: Owner, kubectl: Any) -> None:
    ns = world.namespace
    kubectl("create", "quota", "q", "--hard=count/configmaps=1", "-n", ns)
    await world.api.create({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "theirs", "namespace": ns},
                            "spec": {"ports": [{"port": 1}]}})  # fmt: skip

    def settled() -> bool:
        return "count/configmaps" in kubectl("get", "quota", "q", "-n", ns, "-o", "jsonpath={.status.used}").stdout

    async with asyncio.timeout(20):
        while not settled():
            await asyncio.sleep(0.1)
    service = {"apiVersion": "v1", "kind": "Service", "spec": {"ports": [{"port": 80}]}}
    wanted = [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "beyond-quota"}},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "beyond-quota-too"}},
        {**service, "metadata": {"name": "wrong"}, "spec": {"ports": [{"port": 0}]}},
        {**service, "metadata": {"name": "theirs"}},
        {**service, "metadata": {"name": "ours"}},
    ]
    outcome = await applied(world, owner, *wanted)
    refused = {each.key.name: each.message for each in outcome.refusals}
    assert {"wrong", "theirs"} < refused.keys()
    assert "exceeded quota" in refused["beyond-quota-too"]
    assert "belongs to somebody else" in refused["theirs"]
    assert await world.api.get(BY_KIND["Service"], namespace=ns, name="ours") is not None


async def test_a_child_without_its_label_is_taken_back(world: Cluster, owner: Owner) -> None:
    wanted = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "labels": {"l": "x"}}, "data": {}}
    await applied(world, owner, wanted)
    await world.api.merge(CONFIG_MAP, namespace=world.namespace, name="c", patch={"metadata": {"labels": None}})
    outcome = await applied(world, owner, wanted)  # a store that knows nothing of it, as after the watch's DELETED
    assert (outcome.writes, outcome.complete) == (1, True)
    live = await world.api.get(CONFIG_MAP, namespace=world.namespace, name="c")
    assert live is not None
    assert live["metadata"]["labels"] == {"l": "x"}


async def test_nothing_is_made_in_a_namespace_that_ends(world: Cluster, owner: Owner, kubectl: Any) -> None:
    ns = world.namespace
    await world.api.create({"apiVersion": "v1", "kind": "ConfigMap",
                            "metadata": {"name": "stays", "namespace": ns, "finalizers": ["tests/stays"]}})  # fmt: skip
    kubectl("delete", "namespace", ns, "--wait=false")
    try:
        made = [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"c{number}"}} for number in range(3)]

        async def ends() -> ApplyOutcome | None:
            outcome = await applied(world, owner, *made)
            return outcome if outcome.namespace_ends else None

        outcome = await until(ends, what="the API server makes nothing more")
        assert (outcome.writes, outcome.complete) == (0, True)
    finally:
        await world.api.merge(CONFIG_MAP, namespace=ns, name="stays", patch={"metadata": {"finalizers": None}})

"""What a pool's children become on a real API server: updates held back and let go, a way of replacing pods changed,
tokens made without the right to read them."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.api.operator_harness import api_client, pool_manifest
from tests.conftest import Kubectl
from twin_operator.domain.objects import Pool, pool_from
from twin_operator.domain.pool_update import Pace, Rollout, Stage
from twin_operator.domain.tuning import Needs
from twin_operator.engine.api import Api
from twin_operator.engine.apply import Owner, needs_apply, stamped
from twin_operator.engine.resources import DEPLOYMENT, Manifest
from twin_operator.errors import ApiError
from twin_operator.kinds.miner_pool.access import AccessSecrets, AccessState
from twin_operator.kinds.miner_pool.children import build_children
from twin_operator.kinds.resources import BY_KIND, MINER_POOL
from twin_operator.settings import Images

pytestmark = pytest.mark.cluster

OLD, NEW = Images(neuron="n:1", engine_cpu="c:1"), Images(neuron="n:2", engine_cpu="c:2")
BUSY = Rollout(namespace="a", name="a", stage=Stage.ROLLING)


@pytest.fixture
async def api(kubeconfig: Path, crds: None) -> AsyncIterator[Api]:
    async with await api_client(kubeconfig) as client:
        yield Api(client, request_seconds=10, resources=BY_KIND)


async def make(api: Api, namespace: str, **spec: Any) -> tuple[Pool, Owner]:
    thing = await api.create(pool_manifest(namespace, **spec))
    return read(thing), Owner.of(thing)


def read(thing: Manifest) -> Pool:
    made = pool_from(thing)
    assert isinstance(made, Pool), made
    return made


async def change(api: Api, pool: Pool, **spec: Any) -> Pool:
    return read(await api.merge(MINER_POOL, namespace=pool.namespace, name=pool.name, patch={"spec": spec}))


class Deployments:
    """Applies the pool's Deployments as the reconcile does, and counts the writes."""

    def __init__(self, api: Api, owner: Owner) -> None:
        self.api, self.owner, self.writes = api, owner, 0

    async def live(self, name: str) -> Manifest | None:
        return await self.api.get(DEPLOYMENT, namespace=self.owner.namespace, name=name)

    async def apply(self, pool: Pool, images: Images, *, others: tuple[Rollout, ...] = ()) -> Manifest:
        made = build_children(
            pool, images, needs=Needs(), engine=await self.live("p-engine"), miner=await self.live("p-miner"),
            others=lambda: others, pace=Pace(), now=datetime.now(UTC), legacy=False,
        )  # fmt: skip
        for manifest in made.manifests:
            if manifest["kind"] != "Deployment":
                continue
            sent = stamped(manifest, self.owner)
            if needs_apply(sent, await self.live(manifest["metadata"]["name"])):
                await self.api.apply(sent)
                self.writes += 1
        found = await self.live("p-engine")
        assert found is not None
        return found


def image(deployment: Manifest) -> str:
    return str(deployment["spec"]["template"]["spec"]["containers"][0]["image"])


async def test_a_held_update_changes_no_pod_and_comes_whole_when_it_may(api: Api, namespace: str) -> None:
    pool, owner = await make(api, namespace)
    deployments = Deployments(api, owner)
    before = await deployments.apply(pool, OLD)
    held = await deployments.apply(pool, NEW, others=(BUSY,))
    assert held["spec"] == before["spec"]
    pool = await change(api, pool, replicas=0, drainSeconds=60, disruption={"maxUnavailable": 2})
    writes = deployments.writes
    await deployments.apply(pool, NEW, others=(BUSY,))
    assert deployments.writes == writes, "what waits is written again and again"
    after = await deployments.apply(pool, NEW)
    assert image(after) == "c:2"
    writes = deployments.writes
    await settled(deployments)
    await deployments.apply(pool, NEW)  # the miner follows its engines
    assert deployments.writes == writes + 1
    await deployments.apply(pool, NEW)
    assert deployments.writes == writes + 1
    back = await deployments.apply(pool, OLD)
    assert back["spec"]["template"] == before["spec"]["template"], "something of the time of waiting stayed"


async def settled(deployments: Deployments) -> None:
    """Wait until the Deployment's controller has seen all and is done."""
    async with asyncio.timeout(30):
        while True:
            live = await deployments.live("p-engine")
            assert live is not None
            status = live.get("status") or {}
            if status.get("observedGeneration") == live["metadata"]["generation"] and any(
                condition.get("reason") == "NewReplicaSetAvailable" for condition in status.get("conditions") or []
            ):
                return
            await asyncio.sleep(0.1)


async def test_scaling_goes_through_while_an_update_waits(api: Api, namespace: str) -> None:
    pool, owner = await make(api, namespace, nodeSelector={"no-such-node": "yes"})
    deployments = Deployments(api, owner)
    await deployments.apply(pool, OLD)
    scaled = await deployments.apply(await change(api, pool, replicas=2), NEW, others=(BUSY,))
    assert (scaled["spec"]["replicas"], image(scaled)) == (2, "c:1")


async def test_a_way_of_replacing_pods_can_be_changed_and_changed_back(api: Api, namespace: str) -> None:
    pool, owner = await make(api, namespace)
    deployments = Deployments(api, owner)
    first = (await deployments.apply(pool, OLD))["spec"]["strategy"]
    for asked, expected in (
        ({"type": "Recreate"}, {"type": "Recreate"}),
        (
            {"type": "RollingUpdate", "maxSurge": 0, "maxUnavailable": 1},
            {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
        ),
        (None, first),
    ):
        pool = await change(api, pool, engine={"updateStrategy": asked})
        assert (await deployments.apply(pool, OLD))["spec"]["strategy"] == expected


async def test_overlays_can_be_added_and_taken_away(api: Api, namespace: str) -> None:
    pool, owner = await make(api, namespace)
    deployments = Deployments(api, owner)
    first = await deployments.apply(pool, OLD)
    overlay = {
        "labels": {"team": "a"},
        "annotations": {"note": "b"},
        "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "zone"}]}},
        "topologySpreadConstraints": [{"topologyKey": "zone"}],
        "env": [{"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}}],
        "volumes": [{"name": "data", "mountPath": "/data", "claimName": "c"}],
    }
    changed = await change(api, pool, engine={"pod": overlay}, miner={"pod": overlay})
    await deployments.apply(changed, OLD)
    writes = deployments.writes
    await deployments.apply(changed, OLD)
    assert deployments.writes == writes, "what was applied is seen as a difference"
    back = await deployments.apply(await change(api, pool, engine={"pod": None}, miner={"pod": None}), OLD)
    assert back["spec"]["template"] == first["spec"]["template"]


@pytest.fixture
def maker(kubeconfig: Path, kubectl: Kubectl, namespace: str, tmp_path: Path) -> Path:
    """The kubeconfig of an account that may create Secrets and do nothing else with them."""
    kubectl("create", "serviceaccount", "maker", "-n", namespace)
    kubectl("create", "role", "maker", "-n", namespace, "--verb=create", "--resource=secrets")
    kubectl("create", "rolebinding", "maker", "-n", namespace, "--role=maker", f"--serviceaccount={namespace}:maker")
    config = yaml.safe_load(kubeconfig.read_text())
    token = kubectl("create", "token", "maker", "-n", namespace).stdout.strip()
    for user in config["users"]:
        user["user"] = {"token": token}
    own = tmp_path / "kubeconfig"
    own.write_text(yaml.safe_dump(config))
    return own


@pytest.fixture
async def create_only(maker: Path, crds: None) -> AsyncIterator[Api]:
    async with await api_client(maker) as client:
        yield Api(client, request_seconds=10, resources=BY_KIND)


@pytest.fixture
def secret(kubectl: Kubectl, namespace: str) -> Callable[[str], Manifest | None]:
    def read_secret(name: str) -> Manifest | None:
        done = kubectl("get", "secret", name, "-n", namespace, "-o", "json", check=False)
        found: Manifest | None = json.loads(done.stdout) if done.returncode == 0 else None
        return found

    return read_secret


async def test_a_token_is_made_once_and_goes_with_its_pool(
    api: Api, create_only: Api, namespace: str, secret: Callable[[str], Manifest | None]
) -> None:
    pool, owner = await make(api, namespace)
    assert (await AccessSecrets(create_only).ensure(pool, owner)).state is AccessState.PRESENT
    made = secret("p-access")
    assert made is not None
    # Another operator knows nothing of the first.
    assert (await AccessSecrets(create_only).ensure(pool, owner)).state is AccessState.PRESENT
    assert secret("p-access") == made
    assert len(base64.b64decode(made["data"]["default"])) >= 43
    assert made["metadata"]["ownerReferences"][0]["uid"] == pool.uid


async def test_a_token_that_exists_is_left_alone(
    api: Api, create_only: Api, kubectl: Kubectl, namespace: str, secret: Callable[[str], Manifest | None]
) -> None:
    kubectl("create", "secret", "generic", "p-access", "-n", namespace, "--from-literal=a=theirs")
    before = secret("p-access")
    assert (await AccessSecrets(create_only).ensure(*await make(api, namespace))).state is AccessState.PRESENT
    assert secret("p-access") == before


async def test_a_named_secret_is_missed_and_found_but_never_made(
    api: Api, create_only: Api, kubectl: Kubectl, namespace: str, secret: Callable[[str], Manifest | None]
) -> None:
    pool, owner = await make(api, namespace, miner={"replicas": 0, "accessSecretRef": {"name": "mine"}})
    now = 0.0
    access = AccessSecrets(create_only, clock=lambda: now)
    found = await access.ensure(pool, owner)
    assert (found.state, found.secret) == (AccessState.MISSING, "mine")
    assert secret("mine") is None
    assert secret("p-access") is None
    kubectl("create", "secret", "generic", "mine", "-n", namespace, "--from-literal=a=theirs")
    now += 10
    assert (await access.ensure(pool, owner)).state is AccessState.PRESENT


async def test_a_quota_that_refuses_the_question_is_no_answer(
    api: Api, create_only: Api, kubectl: Kubectl, namespace: str
) -> None:
    pool, owner = await make(api, namespace)
    kubectl("create", "quota", "none", "-n", namespace, "--hard=secrets=0")
    async with asyncio.timeout(30):
        while True:  # until the quota's controller has counted
            found = await AccessSecrets(create_only).ensure(pool, owner)
            if "exceeded quota" in found.why:
                break
            kubectl("delete", "secret", "p-access", "-n", namespace, "--ignore-not-found")
            await asyncio.sleep(0.2)
    assert found.state is AccessState.UNKNOWN


async def test_the_account_that_makes_secrets_reads_none(create_only: Api, namespace: str) -> None:
    with pytest.raises(ApiError, match="403"):
        await create_only.get(BY_KIND["Secret"], namespace=namespace, name="any")

"""Statuses of two releases on a real API server: the older one never loses what the newer one said."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from bettertherapy_api.doctor_twin import DoctorTwinStatus, VersionStatus
from tests.api.operator_harness import Cluster, api_client, cluster, digest, twin_manifest
from tests.conftest import ROOT
from twin_operator.engine.api import Api
from twin_operator.engine.conditions import Condition, dated
from twin_operator.engine.resources import Key, Manifest, Resource, key_of
from twin_operator.engine.status import StatusFields, write_conditions_only, write_status
from twin_operator.errors import ConflictError

pytestmark = pytest.mark.cluster
GROUP = "newer.tests.bettertherapy.io"
TWINS = Resource(GROUP, "v1alpha1", "DoctorTwin", "doctortwins")


class NewerVersion(VersionStatus):
    """A version as the next release knows it."""

    lineage: str | None = None


class NewerStatus(DoctorTwinStatus):
    """A status as the next release knows it."""

    approved_by: str | None = None
    active_version: NewerVersion | None = None


OLDER = StatusFields.of(DoctorTwinStatus, conditions=["Ready", "Serving"])
NEWER = StatusFields.of(NewerStatus, conditions=["Ready", "Serving", "Approved"])
NOW = datetime(2026, 1, 2, tzinfo=UTC)
ACTIVE = {"digest": digest("a"), "servedName": "dr-a-aaaaaaaa"}


def conditions(*types: str, status: str = "True") -> list[Manifest]:
    made = [Condition(type=kind, status=status, reason="R", message="m") for kind in types]  # type: ignore[arg-type]
    return dated(made, live=[], generation=1, now=NOW)


class Store(dict[Key, Manifest]):
    def put(self, thing: Manifest) -> bool:
        self[key_of(thing)] = thing
        return True


@pytest.fixture(scope="module")
def newer_crd(kubectl: Any) -> None:
    """The next release's CustomResourceDefinition, with a status field, a part's field and a condition more."""
    path = next(path for path in (ROOT / "crds").glob("*.yaml") if "doctortwin" in path.name)
    crd = copy.deepcopy(yaml.safe_load(path.read_text()))
    crd["metadata"] = {"name": f"doctortwins.{GROUP}"}
    crd["spec"]["group"] = GROUP
    crd["spec"]["names"].pop("categories", None)
    crd["spec"]["names"].pop("shortNames", None)
    status = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]
    status["approvedBy"] = {"type": "string", "maxLength": 64}
    status["activeVersion"]["properties"]["lineage"] = {"type": "string", "maxLength": 64}
    kubectl("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump(crd))
    kubectl("wait", "--for=condition=Established", f"crd/doctortwins.{GROUP}", "--timeout=30s")


@pytest.fixture
async def world(kubeconfig: Path, namespace: str, newer_crd: None) -> AsyncIterator[Cluster]:
    async with cluster(kubeconfig, namespace) as connected:
        api = Api(await api_client(kubeconfig), request_seconds=10, resources={"DoctorTwin": TWINS})
        try:
            yield Cluster(api=api, agents=connected.agents, namespace=namespace)
        finally:
            await api.close()


async def read(world: Cluster) -> Manifest:
    found = await world.api.get(TWINS, namespace=world.namespace, name="dr-a")
    assert found is not None
    return found


async def write(world: Cluster, status: Manifest, known: StatusFields) -> bool:
    return await write_status(world.api, Store(), thing=await read(world), status=status, known=known)


@pytest.fixture
async def written_by_newer(world: Cluster) -> Manifest:
    await world.api.create({**twin_manifest(world.namespace), "apiVersion": TWINS.api_version})
    status = {
        "activeVersion": {**ACTIVE, "lineage": "of a"}, "approvedBy": "dr", "canaryWeightPercent": 5,
        "conditions": conditions("Ready", "Serving", "Approved"),
    }  # fmt: skip
    assert await write(world, status, NEWER)
    return status


async def test_one_release_down_and_up_again_nothing_is_lost(world: Cluster, written_by_newer: Manifest) -> None:
    told = {"activeVersion": ACTIVE, "canaryWeightPercent": 5, "conditions": conditions("Ready", "Serving")}
    assert not await write(world, told, OLDER), "the older release finds nothing to say"
    changed = {"activeVersion": ACTIVE, "conditions": conditions("Ready", status="False")}
    assert await write(world, changed, OLDER)
    now = (await read(world))["status"]
    assert now == {
        "activeVersion": {**ACTIVE, "lineage": "of a"}, "approvedBy": "dr",
        "conditions": [*conditions("Ready", status="False"), *conditions("Approved")],
    }  # fmt: skip
    assert not await write(world, changed, OLDER)
    assert not await write(world, now, NEWER)
    again = {"activeVersion": ACTIVE, "conditions": conditions("Ready")}
    assert await write(world, again, NEWER)
    assert (await read(world))["status"] == again, "the newer one can take back what it said"


async def test_what_somebody_else_says_in_a_condition_stays_and_stays_theirs(
    world: Cluster, written_by_newer: Manifest
) -> None:
    thing = await read(world)
    (theirs,) = conditions("Audited")
    metadata = {key: thing["metadata"][key] for key in ("name", "namespace", "uid")}
    body = {"apiVersion": thing["apiVersion"], "kind": thing["kind"], "metadata": metadata,
            "status": {"conditions": [theirs]}}  # fmt: skip
    await world.api.apply(body, subresource="status", manager="auditor")
    said = {"activeVersion": ACTIVE, "conditions": conditions("Ready", status="False")}
    assert await write(world, said, OLDER)
    assert not await write(world, said, OLDER)
    shown = {each["type"]: each["status"] for each in (await read(world))["status"]["conditions"]}
    assert shown == {"Ready": "False", "Approved": "True", "Audited": "True"}
    await world.api.apply({**body, "status": {}}, subresource="status", manager="auditor")
    assert "Audited" not in {each["type"] for each in (await read(world))["status"]["conditions"]}


async def test_a_status_decided_on_a_stale_view_is_refused(world: Cluster, written_by_newer: Manifest) -> None:
    stale = await read(world)
    rolled_back = {"activeVersion": {**ACTIVE, "digest": digest("b")}, "conditions": conditions("Ready")}
    assert await write(world, rolled_back, NEWER)
    store = Store()
    with pytest.raises(ConflictError):
        await write_status(world.api, store, thing=stale, status={"activeVersion": ACTIVE}, known=NEWER)
    assert (await read(world))["status"] == rolled_back
    (taken,) = store.values()
    assert taken["status"] == rolled_back


async def test_a_status_that_cannot_be_read_gets_a_condition_and_keeps_all_else(
    world: Cluster, written_by_newer: Manifest
) -> None:
    told = conditions("Ready", status="Unknown")
    assert await write_conditions_only(world.api, Store(), thing=await read(world), conditions=told)
    assert not await write_conditions_only(world.api, Store(), thing=await read(world), conditions=told)
    now = (await read(world))["status"]
    assert {**now, "conditions": None} == {**written_by_newer, "conditions": None}
    shown = {each["type"]: each["status"] for each in now["conditions"]}
    assert shown == {"Ready": "Unknown", "Serving": "True", "Approved": "True"}
    assert await write(world, written_by_newer, NEWER)
    assert (await read(world))["status"] == written_by_newer

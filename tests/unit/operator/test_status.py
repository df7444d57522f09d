"""A status is written only over what was read, and keeps what a newer release or somebody else wrote."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from twin_operator.engine.conditions import Condition, dated
from twin_operator.engine.resources import Key, Manifest, Resource, key_of
from twin_operator.engine.status import StatusFields, write_conditions_only, write_status
from twin_operator.errors import ConflictError

NOW = datetime(2026, 1, 2, tzinfo=UTC)


class Part(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, extra="ignore")
    digest: str | None = None
    score_percent: int | None = None


class Status(Part):
    active_version: Part | None = None
    history: list[Part] | None = None
    conditions: list[dict[str, Any]] | None = None


KNOWN = StatusFields.of(Status, conditions=["Ready", "Serving"])


def thing(status: Manifest, version: str = "5") -> Manifest:
    metadata = {"name": "t", "namespace": "n", "uid": "u", "resourceVersion": version}
    return {"apiVersion": "x/v1", "kind": "Thing", "metadata": metadata, "status": status}


class FakeApi:
    """One object; keeps what was applied to its status."""

    def __init__(self, live: Manifest, owned: Manifest | None = None) -> None:
        self.live = live
        self.owned = owned or {}
        self.sent: list[Manifest] = []
        self.managers: list[str] = []

    def resource_of(self, kind: str) -> Resource:
        return Resource("x", "v1", kind, "things")

    async def get(self, resource: Resource, *, namespace: str, name: str) -> Manifest:
        fresh = copy.deepcopy(self.live)
        fresh["metadata"]["managedFields"] = [
            {"manager": "twin-operator", "operation": "Apply", "subresource": "status",
             "fieldsV1": {"f:status": self.owned}},
        ]  # fmt: skip
        return fresh

    async def apply(self, manifest: Manifest, *, subresource: str, manager: str) -> Manifest:
        from twin_operator.errors import ApiError

        assert subresource == "status"
        if manifest["metadata"]["resourceVersion"] != self.live["metadata"]["resourceVersion"]:
            raise ApiError(status=409, reason="Conflict", message="changed")
        self.sent.append(manifest["status"])
        self.managers.append(manager)
        self.live = thing(manifest["status"], str(int(self.live["metadata"]["resourceVersion"]) + 1))
        return self.live


class Store(dict[Key, Manifest]):
    def put(self, thing: Manifest) -> bool:
        self[key_of(thing)] = thing
        return True


def condition(kind: str, status: str = "True", message: str = "m") -> Manifest:
    made = Condition(type=kind, status=status, reason="R", message=message)  # type: ignore[arg-type]
    return dated([made], live=[], generation=1, now=NOW)[0]


async def write(api: FakeApi, read: Manifest, status: Manifest, store: Store | None = None) -> bool:
    return await write_status(api, store if store is not None else Store(), thing=read, status=status, known=KNOWN)  # type: ignore[arg-type]


async def test_a_status_decided_on_an_older_version_is_refused_and_the_newer_one_taken() -> None:
    newer = thing({"digest": "refused"}, "6")
    api, store = FakeApi(newer), Store()
    with pytest.raises(ConflictError):
        await write(api, thing({}), {"digest": "old"}, store)
    assert api.sent == []
    assert store[Key("Thing", "n", "t")]["metadata"]["resourceVersion"] == "6"


async def test_nothing_new_takes_no_write_also_beside_what_is_not_ours() -> None:
    live = {
        "digest": "a", "approvedBy": "newer", "activeVersion": {"digest": "x", "lineage": "newer"},
        "conditions": [condition("Ready"), condition("Approved"), condition("Foreign")],
    }  # fmt: skip
    api = FakeApi(thing(live))
    status = {"digest": "a", "scorePercent": None, "activeVersion": {"digest": "x"}, "conditions": [condition("Ready")]}
    assert not await write(api, thing(live), status)


async def test_what_a_newer_release_wrote_is_carried_over_and_what_others_wrote_is_left_to_them() -> None:
    live = {
        "digest": "a", "scorePercent": 90, "approvedBy": "newer", "foreignField": "x",
        "conditions": [condition("Ready"), condition("Approved"), condition("Foreign")],
    }  # fmt: skip
    owned = {
        "f:digest": {}, "f:scorePercent": {}, "f:approvedBy": {},
        "f:conditions": {'k:{"type":"Ready"}': {}, 'k:{"type":"Approved"}': {}},
    }  # fmt: skip
    api = FakeApi(thing(live), owned)
    now = condition("Ready", "False")
    assert await write(api, thing(live), {"digest": "b", "conditions": [now]})
    assert api.sent == [{"digest": "b", "approvedBy": "newer", "conditions": [now, condition("Approved")]}]


async def test_within_a_part_what_a_newer_release_said_stays_as_long_as_the_part_is_the_same() -> None:
    live = {
        "digest": "a", "activeVersion": {"digest": "x", "lineage": "of x"},
        "history": [{"digest": "1", "lineage": "of 1"}, {"digest": "2", "scorePercent": 5, "lineage": "of 2"}],
    }  # fmt: skip
    api = FakeApi(thing(live))
    history = [{"digest": "3"}, {"digest": "1"}, {"digest": "2"}]
    await write(api, thing(live), {"digest": "b", "activeVersion": {"digest": "x"}, "history": history})
    assert api.sent[-1] == {
        "digest": "b", "activeVersion": {"digest": "x", "lineage": "of x"},
        "history": [{"digest": "3"}, {"digest": "1", "lineage": "of 1"}, {"digest": "2"}],
    }  # fmt: skip
    await write(api, api.live, {"digest": "b", "activeVersion": {"digest": "y"}})
    assert api.sent[-1] == {"digest": "b", "activeVersion": {"digest": "y"}}


async def test_a_status_that_cannot_be_read_gets_a_condition_and_loses_nothing() -> None:
    live = {"promotedVersion": ["of another shape"], "conditions": [condition("Ready"), condition("Serving")]}
    api = FakeApi(thing(live))
    told = condition("Ready", "Unknown")
    assert await write_conditions_only(api, Store(), thing=thing(live), conditions=[told])  # type: ignore[arg-type]
    assert (api.sent, api.managers) == ([{"conditions": [told]}], ["twin-operator-conditions"])
    with pytest.raises(ConflictError):
        await write_conditions_only(api, Store(), thing=thing(live), conditions=[told])  # type: ignore[arg-type]
    assert not await write_conditions_only(api, Store(), thing=api.live, conditions=[told])  # type: ignore[arg-type]


@pytest.mark.parametrize("live", [[], [{}], [{"type": "Ready"}], [{"type": "Ready", "status": "True"}]])
def test_conditions_are_dated_whatever_stands_there(live: list[Manifest]) -> None:
    made = Condition(type="Ready", status="True", reason="R", message="m")
    assert dated([made], live=live, generation=1, now=NOW)[0]["lastTransitionTime"] == "2026-01-02T00:00:00Z"


def test_the_transition_time_moves_with_the_status_alone() -> None:
    before = [{**condition("Ready"), "lastTransitionTime": "2025-01-01T00:00:00Z"}]
    for status, moved in (("True", False), ("False", True)):
        made = Condition(type="Ready", status=status, reason="Other", message="other")  # type: ignore[arg-type]
        (now,) = dated([made], live=before, generation=2, now=NOW)
        assert (now["lastTransitionTime"] == "2026-01-02T00:00:00Z") == moved

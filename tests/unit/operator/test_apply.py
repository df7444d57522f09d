"""Children are applied each by itself: what one meets holds back no other, and nothing of others is taken."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from twin_operator.engine.apply import Applier, Owner, stamped
from twin_operator.engine.compare import first_difference
from twin_operator.engine.resources import CONFIG_MAP, SERVICE, Key, Manifest, Resource, key_of
from twin_operator.errors import ApiError, ApplyError, NotLeaderError

OWNER = Owner(api_version="x/v1", kind="Pool", namespace="n", name="p", uid="u-1")


def child(name: str, value: str = "1", **metadata: Any) -> Manifest:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, **metadata}, "data": {"key": value}}


class FakeApi:
    """Objects with optimistic concurrency, and refusals as the test orders them."""

    def __init__(self) -> None:
        self.objects: dict[Key, Manifest] = {}
        self.writes: list[str] = []
        self.errors: dict[str, ApiError | NotLeaderError] = {}
        self.before_write: Callable[[], None] = lambda: None
        self.admission: Callable[[Manifest], Manifest] = lambda thing: thing
        self.version = 100

    def resource_of(self, kind: str) -> Resource:
        return {"ConfigMap": CONFIG_MAP, "Service": SERVICE}[kind]

    def put(self, thing: Manifest, **metadata: Any) -> Manifest:
        self.version += 1
        stored = self.admission(copy.deepcopy(thing))
        stored["metadata"] = {
            "uid": f"c-{thing['metadata']['name']}", "namespace": "n", **stored["metadata"], **metadata,
            "resourceVersion": str(self.version),
        }  # fmt: skip
        self.objects[key_of(stored)] = stored
        return copy.deepcopy(stored)

    def _begin(self, verb: str, name: str) -> None:
        self.writes.append(f"{verb} {name}")
        hook, self.before_write = self.before_write, lambda: None
        hook()
        if name in self.errors:
            raise self.errors[name]

    async def get(self, resource: Resource, *, namespace: str, name: str) -> Manifest | None:
        return copy.deepcopy(self.objects.get(Key(resource.kind, namespace, name)))

    def _check(self, live: Manifest | None, version: str | None) -> None:
        if version is not None and (live is None or live["metadata"]["resourceVersion"] != version):
            raise ApiError(status=409, reason="Conflict", message="changed")

    async def apply(self, manifest: Manifest) -> Manifest:
        self._begin("apply", manifest["metadata"]["name"])
        live = self.objects.get(key_of(manifest))
        self._check(live, manifest["metadata"].get("resourceVersion"))
        return self.put(manifest)

    async def delete(self, resource: Resource, *, namespace: str, name: str, uid: str, version: str | None) -> None:
        self._begin("delete", name)
        key = Key(resource.kind, namespace, name)
        self._check(self.objects.get(key), version)
        del self.objects[key]


class Store(dict[Key, Manifest]):
    def put(self, thing: Manifest) -> bool:
        self[key_of(thing)] = thing
        return True


@pytest.fixture
def api() -> FakeApi:
    return FakeApi()


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def applier(api: FakeApi, store: Store) -> Applier:
    return Applier(api, store)  # type: ignore[arg-type]


def owned(api: FakeApi, store: Store, name: str, value: str = "1") -> Manifest:
    thing = api.put(stamped(child(name, value), OWNER))
    store.put(thing)
    return thing


def refused(status: int = 422, **more: Any) -> ApiError:
    return ApiError(status=status, reason="R", message="it is wrong", **more)


async def test_one_refusal_holds_back_no_other_child_and_no_deletion(
    api: FakeApi, store: Store, applier: Applier
) -> None:
    old = owned(api, store, "old")
    api.errors["b"] = refused()
    api.put(child("c"))  # somebody else's
    outcome = await applier.apply(
        owner=OWNER, wanted=[child("a"), child("b"), child("c"), child("d")], existing=[old]
    )  # fmt: skip
    assert api.writes == ["apply a", "apply b", "apply d", "delete old"]
    assert outcome.writes == 3
    assert [(each.key.name, each.foreign) for each in outcome.refusals] == [("b", False), ("c", True)]
    assert outcome.refusals[0].message == "the API server refuses ConfigMap b: it is wrong"
    assert "belongs to somebody else" in outcome.refusals[1].message
    with pytest.raises(ApplyError, match=r"ConfigMap b: it is wrong; ConfigMap c exists in namespace n"):
        outcome.raise_incomplete()


async def test_what_is_as_planned_takes_no_write(api: FakeApi, store: Store, applier: Applier) -> None:
    await applier.apply(owner=OWNER, wanted=[child("a")], existing=[])
    outcome = await applier.apply(owner=OWNER, wanted=[child("a")], existing=list(store.values()))
    assert (outcome.writes, outcome.complete, api.writes) == (0, True, ["apply a"])
    outcome.raise_incomplete()


async def test_the_same_plan_is_compared_with_the_same_version_once(
    api: FakeApi, store: Store, applier: Applier, monkeypatch: pytest.MonkeyPatch
) -> None:
    await applier.apply(owner=OWNER, wanted=[child("a")], existing=[])
    compared = []
    monkeypatch.setattr(
        "twin_operator.engine.apply.first_difference",
        lambda wanted, live: compared.append(live["metadata"]["resourceVersion"]) or first_difference(wanted, live),
    )
    for _ in range(3):
        assert (await applier.apply(owner=OWNER, wanted=[child("a")], existing=[])).writes == 0
    assert len(compared) == 1
    key = Key("ConfigMap", "n", "a")
    store.put(api.put({**api.objects[key], "data": {"key": "of somebody else"}}))
    assert (await applier.apply(owner=OWNER, wanted=[child("a")], existing=[])).writes == 1
    assert (await applier.apply(owner=OWNER, wanted=[child("a", "2")], existing=[])).writes == 1


async def test_an_api_server_out_of_reach_is_not_waited_for_once_a_child(api: FakeApi, applier: Applier) -> None:
    api.errors["a"] = ApiError(status=0, reason="Timeout", message="no answer")
    outcome = await applier.apply(owner=OWNER, wanted=[child("a"), child("b")], existing=[])
    assert api.writes == ["apply a"]
    with pytest.raises(ApplyError):
        outcome.raise_incomplete()


async def test_one_that_is_too_busy_is_tried_again_and_told_to_nobody(api: FakeApi, applier: Applier) -> None:
    api.errors["a"] = refused(429)
    outcome = await applier.apply(owner=OWNER, wanted=[child("a"), child("b")], existing=[])
    assert (api.writes, outcome.refusals, len(outcome.failures)) == (["apply a", "apply b"], (), 1)


@pytest.mark.parametrize(
    "error",
    [
        ApiError(status=403, reason="Forbidden", message="is being terminated", causes=["NamespaceTerminating"]),
        ApiError(status=404, reason="NotFound", message='namespaces "n" not found'),
    ],
)
async def test_in_a_namespace_that_ends_nothing_more_is_made_and_nobody_told(
    api: FakeApi, applier: Applier, error: ApiError
) -> None:
    api.errors["a"] = error
    outcome = await applier.apply(owner=OWNER, wanted=[child("a"), child("b")], existing=[])
    assert (api.writes, outcome.namespace_ends, outcome.complete) == (["apply a"], True, True)


async def test_a_child_that_lost_its_label_is_taken_back(api: FakeApi, store: Store, applier: Applier) -> None:
    """A watch by label says that it is deleted, so the store doesn't have it; it is there, and ours by its owner."""
    wanted = child("a", labels={"component": "engine"})
    made = stamped(wanted, OWNER)
    live = api.put({**made, "metadata": {**made["metadata"], "labels": {}}})
    outcome = await applier.apply(owner=OWNER, wanted=[wanted], existing=[])
    assert outcome.complete
    (now,) = api.objects.values()
    assert (now["metadata"]["uid"], now["metadata"]["labels"]) == (live["metadata"]["uid"], {"component": "engine"})
    assert key_of(now) in store


async def test_a_write_decided_on_an_older_version_is_decided_again(
    api: FakeApi, store: Store, applier: Applier
) -> None:
    owned(api, store, "a", "old")

    def other_leader_wrote_the_same() -> None:
        api.put(stamped(child("a", "new"), OWNER))

    api.before_write = other_leader_wrote_the_same
    outcome = await applier.apply(owner=OWNER, wanted=[child("a", "new")], existing=[])
    assert (outcome.writes, api.writes, outcome.complete) == (0, ["apply a"], True)


async def test_an_older_one_is_brought_up_to_date_in_two_steps(api: FakeApi, store: Store, applier: Applier) -> None:
    owned(api, store, "a", "old")
    api.before_write = lambda: api.put(stamped(child("a", "other"), OWNER)) and None
    outcome = await applier.apply(owner=OWNER, wanted=[child("a", "new")], existing=[])
    assert (outcome.writes, api.writes) == (1, ["apply a", "apply a"])
    assert api.objects[Key("ConfigMap", "n", "a")]["data"] == {"key": "new"}


async def test_a_child_made_by_somebody_else_this_moment_is_not_taken(api: FakeApi, applier: Applier) -> None:
    api.errors["a"] = ApiError(status=409, reason="AlreadyExists", message="exists")
    api.before_write = lambda: api.put(child("a")) and None
    outcome = await applier.apply(owner=OWNER, wanted=[child("a")], existing=[])
    assert [each.foreign for each in outcome.refusals] == [True]


async def test_what_changes_all_the_time_is_left_for_later(api: FakeApi, store: Store, applier: Applier) -> None:
    owned(api, store, "a", "old")
    api.errors["a"] = ApiError(status=409, reason="Conflict", message="changed")
    outcome = await applier.apply(owner=OWNER, wanted=[child("a", "new")], existing=[])
    assert (len(outcome.conflicts), len(api.writes), outcome.complete) == (1, 6, False)


async def test_only_what_the_owner_controls_and_nobody_keeps_is_deleted(
    api: FakeApi, store: Store, applier: Applier
) -> None:
    things = [owned(api, store, name) for name in ("a", "kept", "going")]
    things[2]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    foreign = api.put(child("foreign"))
    outcome = await applier.apply(
        owner=OWNER, wanted=[], existing=[*things, foreign], keep=lambda key: key.name == "kept"
    )  # fmt: skip
    assert (api.writes, outcome.writes) == (["delete a"], 1)


async def test_a_child_that_changed_is_deleted_only_while_it_is_ours(
    api: FakeApi, store: Store, applier: Applier
) -> None:
    stale = owned(api, store, "a")
    api.put(stamped(child("a", "2"), OWNER))
    assert (await applier.delete(owner=OWNER, existing=[stale])).writes == 1
    stale = owned(api, store, "b")
    api.put(child("b", "2"))  # made again by somebody else
    assert (await applier.delete(owner=OWNER, existing=[stale])).writes == 0
    assert Key("ConfigMap", "n", "b") in api.objects


async def test_losing_leadership_ends_it_at_once(api: FakeApi, applier: Applier) -> None:
    api.errors["a"] = NotLeaderError("x")
    with pytest.raises(NotLeaderError):
        await applier.apply(owner=OWNER, wanted=[child("a"), child("b")], existing=[])
    assert api.writes == ["apply a"]


async def test_an_api_server_that_keeps_another_value_is_not_fought_with(
    api: FakeApi, store: Store, applier: Applier
) -> None:
    def rewrite(thing: Manifest) -> Manifest:
        thing["data"] = {"key": f"mirror/{thing['data']['key']}"}
        return thing

    api.admission = rewrite
    for _ in range(3):
        outcome = await applier.apply(owner=OWNER, wanted=[child("a")], existing=[])
    assert (outcome.complete, api.writes) == (True, ["apply a"])
    api.admission = lambda thing: thing
    store.put(api.put(stamped(child("a", "9"), OWNER)))
    await applier.apply(owner=OWNER, wanted=[child("a")], existing=[])
    assert api.writes == ["apply a", "apply a"], "a change by somebody is another difference"


async def test_what_somebody_changes_beside_what_the_api_server_keeps_otherwise_is_put_back(
    api: FakeApi, store: Store, applier: Applier
) -> None:
    """Whichever of the values the API server rewrites is compared first, and however long they are."""
    wanted = child("a", "m") | {"data": {"a": "1" * 100, "m": "m", "z": "2" * 100}}

    def rewrite(thing: Manifest) -> Manifest:
        thing["data"] = {**thing["data"], "a": "1" * 99 + "!", "z": "2" * 99 + "!"}
        return thing

    api.admission = rewrite
    await applier.apply(owner=OWNER, wanted=[wanted], existing=[])
    await applier.apply(owner=OWNER, wanted=[wanted], existing=[])
    assert api.writes == ["apply a"]
    (live,) = api.objects.values()
    for changes in ({"m": "other"}, {"a": "1" * 99 + "?"}, {"z": None}):
        api.admission = lambda thing: thing
        store.put(api.put({**live, "data": {**live["data"], **changes}}))
        api.admission = rewrite
        api.writes.clear()
        for _ in range(2):
            await applier.apply(owner=OWNER, wanted=[wanted], existing=[])
        assert api.writes == ["apply a"], changes
    api.admission = lambda thing: thing
    store.put(api.put({**live, "data": {**live["data"], "a": "1" * 100}}))
    api.writes.clear()
    await applier.apply(owner=OWNER, wanted=[wanted], existing=[])
    assert api.writes == [], "what somebody brought nearer to the plan is no other difference"

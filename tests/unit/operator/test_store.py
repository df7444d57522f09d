"""The store takes events, lists and answers in any order, ends with the newest, and keeps nothing of what went."""

from __future__ import annotations

from typing import Any

from bettertherapy_api import names
from twin_operator.engine.resources import CONFIG_MAP, JOB, Key, Manifest, Resource
from twin_operator.engine.store import Entry, Store, Watched
from twin_operator.kinds.watched import POOL, WATCHED

KEY = Key("ConfigMap", "clinic", "c")


def thing(version: int, *, uid: str = "u", name: str = "c", pool: str | None = "p") -> dict[str, Any]:
    labels = {names.LABEL_POOL: pool} if pool else {}
    return {
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {
            "name": name, "namespace": "clinic", "uid": uid, "resourceVersion": str(version), "labels": labels,
        },
    }  # fmt: skip


def version(store: Store) -> str | None:
    found = store.get(KEY)
    return found["metadata"]["resourceVersion"] if found else None


def replace(store: Store, things: list[Manifest], *, version: int, namespace: str | None) -> None:
    """Take a full list, as the process does."""
    listed = {store.put_listed(store.known_version(each), version=version) for each in things}
    store.end_list(CONFIG_MAP, listed, version=version, namespace=namespace)


def test_of_a_list_that_brings_nothing_new_nothing_is_kept() -> None:
    """A page at a time: ten thousand objects that are known already are not there twice."""
    store = Store(WATCHED)
    store.put(thing(1))
    assert store.known_version(thing(1)) is store.get(KEY)
    assert store.known_version(thing(2)) is not store.get(KEY)
    assert store.known_version(thing(1, uid="another")) is not store.get(KEY)
    assert not store.put(store.known_version(thing(1)))


def test_an_older_version_does_not_replace_a_newer_one() -> None:
    store = Store(WATCHED)
    store.put(thing(9))
    assert store.put(thing(10))
    assert not store.put(thing(9))
    assert not store.put(thing(10))
    assert version(store) == "10"


def test_an_object_seen_deleted_is_not_brought_back_by_a_late_event() -> None:
    store = Store(WATCHED)
    store.put(thing(1))
    store.remove(thing(3))
    assert not store.put(thing(2))
    assert version(store) is None


def test_a_late_deletion_does_not_take_the_successor() -> None:
    store = Store(WATCHED)
    store.put(thing(5, uid="new"))
    store.remove(thing(3, uid="old"))
    assert version(store) == "5"


def test_a_list_finds_deletions_that_a_watch_lost() -> None:
    store = Store(WATCHED)
    store.put(thing(1))
    replace(store, [], version=5, namespace=None)
    assert version(store) is None


def test_a_list_older_than_an_object_does_not_take_it() -> None:
    store = Store(WATCHED)
    store.put(thing(7))
    replace(store, [], version=5, namespace=None)
    assert version(store) == "7"


def test_what_a_list_showed_gone_is_not_brought_back_by_what_is_older_than_the_list() -> None:
    """A watch that lags behind the list tells of changes of an object whose deletion it has not come to yet."""
    store = Store(WATCHED)
    replace(store, [thing(1)], version=2, namespace=None)
    replace(store, [], version=5, namespace=None)
    assert not store.put(thing(4))
    assert not store.put(thing(5))
    assert version(store) is None
    assert store.put(thing(6, uid="made after the list"))


def test_a_list_that_comes_late_brings_nothing_back_that_a_newer_one_showed_gone() -> None:
    store = Store(WATCHED)
    replace(store, [], version=9, namespace=None)
    replace(store, [thing(4)], version=5, namespace=None)
    assert version(store) is None
    assert not store.put(thing(8)), "the newer list still counts"


def test_what_a_list_shows_is_taken_however_old_it_is() -> None:
    """An object that lost its label, so that its watch said DELETED, and got it back may be missed by watches."""
    store = Store(WATCHED)
    replace(store, [], version=5, namespace=None)
    replace(store, [thing(3)], version=7, namespace=None)
    assert version(store) == "3"


def test_a_list_of_one_namespace_says_nothing_of_others() -> None:
    store = Store(WATCHED)
    replace(store, [], version=5, namespace="elsewhere")
    assert store.put(thing(3))
    replace(store, [], version=6, namespace="clinic")
    assert not store.put(thing(4))


def test_a_list_of_one_namespace_leaves_the_others() -> None:
    store = Store(WATCHED)
    store.put(thing(1))
    replace(store, [], version=5, namespace="elsewhere")
    assert version(store) == "1"


def test_children_are_found_by_their_pool_and_follow_their_label() -> None:
    store = Store(WATCHED)
    store.put(thing(1))
    store.put(thing(2, pool="q"))
    assert (len(store.find(POOL, ("clinic", "p"))), len(store.find(POOL, ("clinic", "q")))) == (0, 1)
    store.remove(thing(3, pool="q"))
    assert store.values_of(POOL) == []


def version_of(entry: Entry | None) -> str | None:
    return entry.manifest["metadata"]["resourceVersion"] if entry is not None else None


def test_the_listener_hears_of_each_change_once() -> None:
    heard: list[tuple[Any, Any]] = []
    store = Store(WATCHED, lambda old, new: heard.append((version_of(old), version_of(new))))
    store.put(thing(1))
    store.put(thing(1))
    store.put(thing(2))
    store.remove(thing(3))
    assert heard == [(None, "1"), ("1", "2"), ("2", None)]


def test_another_object_under_a_known_name_is_told_as_one_that_went_and_one_that_came() -> None:
    heard: list[tuple[Any, Any]] = []
    store = Store(WATCHED, lambda old, new: heard.append((version_of(old), version_of(new))))
    store.put(thing(1, uid="old"))
    store.put(thing(5, uid="new"))
    assert heard[1:] == [("1", None), (None, "5")]


def test_an_object_that_lost_its_label_and_got_it_back_is_seen_again() -> None:
    """A watch with a selector says DELETED of it, with the version that it lives on under."""
    store = Store(WATCHED)
    store.put(thing(1))
    store.remove(thing(3))
    assert store.put(thing(4))
    assert version(store) == "4"


def test_what_was_decoded_is_made_once_and_goes_with_its_object() -> None:
    made: list[tuple[str, Any]] = []

    def decode(manifest: Manifest, former: Any) -> str:
        made.append((manifest["metadata"]["resourceVersion"], former))
        return "v" + manifest["metadata"]["resourceVersion"]

    store = Store([Watched(resource=Resource("", "v1", "ConfigMap", "configmaps"), decode=decode)])
    store.put(thing(1))
    store.put(thing(2))
    assert [store.value(KEY) for _ in range(3)] == ["v2"] * 3
    store.put(thing(3, uid="another"))
    assert made == [("1", None), ("2", "v1"), ("3", None)]
    store.remove(thing(4, uid="another"))
    assert (store.value(KEY), len(store)) == (None, 0)


def test_of_a_slice_of_which_one_twin_changed_the_others_are_what_they_were() -> None:
    """Neither made compact nor decoded nor compared anew: a hundred twins stand in a slice, a thousand in a report."""
    store = Store(WATCHED)
    entries = {uid: {"name": uid, "doctor": "Dr. A"} for uid in ("u-1", "u-2", "u-3")}
    key = Key("RoutingSlice", "clinic", "c")

    def put(version: int, twins: dict[str, Any]) -> None:
        twins = {uid: dict(entry) for uid, entry in twins.items()}
        store.put({**thing(version), "apiVersion": names.API_VERSION, "kind": "RoutingSlice", "twins": twins})

    put(1, entries)
    before = store.value(key)
    put(2, {**entries, "u-2": {"name": "u-2", "doctor": "Dr. B"}})
    after = store.value(key)
    assert after.twins["u-2"].doctor == "Dr. B"
    for uid in ("u-1", "u-3"):
        assert after.raw[uid] is before.raw[uid]
        assert after.twins[uid] is before.twins[uid]


def test_a_part_of_another_type_is_taken_anew() -> None:
    store = Store(WATCHED)
    store.put({**thing(1), "data": {"a": "1", "b": {"c": "x"}}})
    store.put({**thing(2), "data": {"a": ["1"], "b": {"c": "y"}, "d": {}}})
    assert store.get(KEY)["data"] == {"a": ["1"], "b": {"c": "y"}, "d": {}}  # type: ignore[index]


def test_managed_fields_are_not_kept() -> None:
    store = Store(WATCHED)
    made = thing(1)
    made["metadata"]["managedFields"] = [{}]
    store.put(made)
    found = store.get(KEY)
    assert found is not None
    assert "managedFields" not in found["metadata"]


def test_of_a_job_only_what_may_change_is_kept() -> None:
    store = Store(WATCHED)
    job = thing(1) | {"kind": "Job", "spec": {"suspend": True, "template": {"spec": {}}}, "status": {"active": 1}}
    store.put(job)
    found = store.get(Key(JOB.kind, "clinic", "c"))
    assert found is not None
    assert (found["spec"], found["status"]) == ({"suspend": True}, {"active": 1})
    assert "template" in job["spec"]

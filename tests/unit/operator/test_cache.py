"""The cache takes events, lists and answers in any order and ends with the newest."""

from __future__ import annotations

from typing import Any

from bettertherapy_api import names
from twin_operator.engine.cache import Cache
from twin_operator.engine.resources import CONFIG_MAP, Key

KEY = Key("ConfigMap", "clinic", "c")


def thing(version: int, *, uid: str = "u", name: str = "c", pool: str | None = "p") -> dict[str, Any]:
    labels = {names.LABEL_POOL: pool} if pool else {}
    return {
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {
            "name": name, "namespace": "clinic", "uid": uid, "resourceVersion": str(version), "labels": labels,
        },
    }  # fmt: skip


def version(cache: Cache) -> str | None:
    found = cache.get(KEY)
    return found["metadata"]["resourceVersion"] if found else None


def test_an_older_version_does_not_replace_a_newer_one() -> None:
    cache = Cache()
    cache.put(thing(9))
    assert cache.put(thing(10))
    assert not cache.put(thing(9))
    assert not cache.put(thing(10))
    assert version(cache) == "10"


def test_an_object_seen_deleted_is_not_brought_back_by_a_late_event() -> None:
    cache = Cache()
    cache.put(thing(1))
    cache.remove(thing(3))
    assert not cache.put(thing(2))
    assert version(cache) is None


def test_a_late_deletion_does_not_take_the_successor() -> None:
    cache = Cache()
    cache.put(thing(5, uid="new"))
    cache.remove(thing(3, uid="old"))
    assert version(cache) == "5"


def test_a_list_finds_deletions_that_a_watch_lost() -> None:
    cache = Cache()
    cache.put(thing(1))
    cache.replace(CONFIG_MAP, [], version=5, namespace=None)
    assert version(cache) is None


def test_a_list_older_than_an_object_does_not_take_it() -> None:
    cache = Cache()
    cache.put(thing(7))
    cache.replace(CONFIG_MAP, [], version=5, namespace=None)
    assert version(cache) == "7"


def test_a_list_of_one_namespace_leaves_the_others() -> None:
    cache = Cache()
    cache.put(thing(1))
    cache.replace(CONFIG_MAP, [], version=5, namespace="elsewhere")
    assert version(cache) == "1"


def test_children_are_found_by_their_pool_and_follow_their_label() -> None:
    cache = Cache()
    cache.put(thing(1))
    cache.put(thing(2, pool="q"))
    assert (len(cache.of_pool("clinic", "p")), len(cache.of_pool("clinic", "q"))) == (0, 1)


def test_the_listener_hears_of_each_change_once() -> None:
    heard: list[tuple[Any, Any]] = []
    cache = Cache(
        lambda old, new: heard.append(
            (old and old["metadata"]["resourceVersion"], new and new["metadata"]["resourceVersion"])
        )
    )
    cache.put(thing(1))
    cache.put(thing(1))
    cache.put(thing(2))
    cache.remove(thing(3))
    assert heard == [(None, "1"), ("1", "2"), ("2", None)]


def test_managed_fields_are_not_kept() -> None:
    cache = Cache()
    made = thing(1)
    made["metadata"]["managedFields"] = [{}]
    cache.put(made)
    found = cache.get(KEY)
    assert found is not None
    assert "managedFields" not in found["metadata"]


def test_of_a_job_only_what_may_change_is_kept() -> None:
    cache = Cache()
    job = thing(1) | {"kind": "Job", "spec": {"suspend": True, "template": {"spec": {}}}, "status": {"active": 1}}
    cache.put(job)
    found = cache.get(Key("Job", "clinic", "c"))
    assert found is not None
    assert (found["spec"], found["status"]) == ({"suspend": True}, {"active": 1})
    assert "template" in job["spec"]

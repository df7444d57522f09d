"""kopf only hears of events here: it compares no versions of an object, copies none, and writes nothing to one."""

from __future__ import annotations

from typing import Any

import kopf

from twin_operator.main import kopf_settings
from twin_operator.settings import Settings

KEPT = kopf_settings(Settings(identity="op", lease_namespace="system")).persistence


class Unread(dict[str, Any]):
    """An object whose parts may not be looked at: with a thousand of them each look is dear."""

    def __getitem__(self, key: str) -> Any:
        raise AssertionError(f"{key} was read")

    def __deepcopy__(self, memo: Any) -> Any:
        raise AssertionError("it was copied")

    def __iter__(self) -> Any:
        raise AssertionError("it was read")


def body() -> kopf.Body:
    return kopf.Body({"metadata": {"name": "p-routing-0", "labels": {}}, "twins": Unread()})


def test_an_event_costs_no_copy_of_its_object() -> None:
    storage = KEPT.diffbase_storage
    former, newer = storage.fetch(body=body()), storage.build(body=body())
    assert KEPT.progress_storage.clear(essence=newer) == former == newer


def test_nothing_is_written_to_an_object() -> None:
    patch = kopf.Patch()
    KEPT.diffbase_storage.store(body=body(), patch=patch, essence=kopf.BodyEssence({}))
    progress = KEPT.progress_storage
    progress.touch(body=body(), patch=patch, value="now")
    progress.store(key="any", record={}, body=body(), patch=patch)  # type: ignore[arg-type]
    progress.purge(key="any", body=body(), patch=patch)  # type: ignore[arg-type]
    assert not patch
    assert progress.fetch(key="any", body=body()) is None  # type: ignore[arg-type]

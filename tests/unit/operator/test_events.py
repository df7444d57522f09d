"""Events: one per occasion, and none that the API server would refuse."""

from __future__ import annotations

import re

import pytest

from twin_operator.engine.events import EventPoster, Notice
from twin_operator.engine.resources import Manifest
from twin_operator.errors import ApiError

THING: Manifest = {
    "apiVersion": "x/v1", "kind": "Thing", "metadata": {"name": "t", "namespace": "n", "uid": "u"},
}  # fmt: skip


class FakeApi:
    def __init__(self) -> None:
        self.events: list[Manifest] = []
        self.error: ApiError | None = None

    async def create(self, manifest: Manifest) -> Manifest:
        self.events.append(manifest)
        if self.error is not None:
            raise self.error
        return manifest


async def posted(notice: Notice, thing: Manifest = THING) -> Manifest:
    api = FakeApi()
    await EventPoster(api, instance="op").post(thing, notice)  # type: ignore[arg-type]
    (event,) = api.events
    return event


@pytest.mark.parametrize("note", ["short", "x" * 1024, "x" * 5000, "डाक्टर" * 300])
async def test_a_note_has_at_most_1024_bytes_whatever_its_script(note: str) -> None:
    shown = (await posted(Notice(reason="R", note=note)))["note"]
    assert len(shown.encode()) <= 1024
    assert shown == note or (note.startswith(shown[:-1]) and shown.endswith("…") and len(shown.encode()) > 1015)


async def test_a_long_name_makes_a_valid_one() -> None:
    thing = {**THING, "metadata": {**THING["metadata"], "name": "a" * 199 + "-" + "b" * 50}}
    name = (await posted(Notice(reason="R", note="x"), thing))["metadata"]["name"]
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*", name)


async def test_an_occasion_is_posted_once() -> None:
    api = FakeApi()
    poster = EventPoster(api, instance="op")  # type: ignore[arg-type]
    for occasion in ("1", "1", "2"):
        await poster.post(THING, Notice(reason="R", note="x", occasion=occasion))
    assert len(api.events) == 2


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ApiError(status=409, reason="AlreadyExists", message="x"), False),
        (ApiError(status=403, reason="Forbidden", message="x", causes=["NamespaceTerminating"]), False),
        (ApiError(status=500, reason="R", message="x"), True),
    ],
)
async def test_only_what_somebody_should_know_is_logged(
    error: ApiError, told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    api = FakeApi()
    api.error = error
    await EventPoster(api, instance="op").post(THING, Notice(reason="R", note="x"))  # type: ignore[arg-type]
    assert bool(caplog.records) == told

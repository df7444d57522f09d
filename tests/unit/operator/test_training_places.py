"""A pool's places for training are taken as soon as a run can take them, and no run keeps one for ever."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.operator.played import Played, api_error
from tests.unit.operator.run_samples import run_object
from tests.unit.operator.samples import NAMESPACE, digest
from twin_operator.engine.resources import Key, Manifest
from twin_operator.errors import ApiError

STORE = {"uri": "pvc://adapters/store"}
LONG_AGO = "2026-02-01T00:00:00Z"


async def clinic(*twins: str, places: int) -> Played:
    world = Played()
    world.start_pool(store=STORE, fineTune={"maxConcurrentRuns": places})
    for twin in twins:
        world.start_twin(twin)
    await world.lead()
    await world.settle()
    return world


async def ask(world: Played, name: str, twin: str, second: int, **spec: Any) -> None:
    made = run_object(parentDigest=digest("a"), twinRef={"name": twin}, **spec)
    world.api.put({
        **{part: made[part] for part in ("apiVersion", "kind", "spec")},
        "metadata": {
            "name": name, "namespace": NAMESPACE, "creationTimestamp": f"2026-02-01T00:00:{second:02}Z",
        },
    })  # fmt: skip
    await world.settle()


def run(world: Played, name: str) -> Manifest:
    return world.api.kinds("FineTuneRun")[name]


def started(world: Played) -> set[str]:
    runs = world.api.kinds("FineTuneRun")
    return {name for name, each in runs.items() if "startTime" in (each.get("status") or {})}


async def test_a_place_is_taken_though_many_runs_of_a_busy_twin_wait_before() -> None:
    world = await clinic("x", "y", "z", places=2)
    await ask(world, "x0", "x", 0)
    await ask(world, "z0", "z", 1)
    for number in range(1, 13):
        await ask(world, f"x{number}", "x", 1 + number)
    await ask(world, "y0", "y", 30)
    assert started(world) == {"x0", "z0"}
    world.api.drop(Key("FineTuneRun", NAMESPACE, "z0"))
    await world.settle()
    assert started(world) == {"x0", "y0"}


async def test_a_new_pool_takes_what_waits_in_another() -> None:
    world = await clinic("x", "y", places=1)
    await ask(world, "x0", "x", 0)
    await ask(world, "y0", "y", 1)
    assert started(world) == {"x0"}
    world.start_pool("a", store=STORE, fineTune={"maxConcurrentRuns": 1})
    await world.settle()
    assert started(world) == {"x0", "y0"}
    assert run(world, "y0")["status"]["pool"] == "a"


@pytest.mark.parametrize(
    "error", [api_error(403, "a policy forbids the image"), ApiError(status=500, reason="I", message="webhook is away")]
)
async def test_a_run_whose_job_can_never_be_made_ends_at_its_deadline_and_says_why(error: ApiError) -> None:
    world = await clinic("x", "y", places=1)

    def refuse(verb: str, key: Key, body: Manifest) -> None:
        if key == Key("Job", NAMESPACE, "x0"):
            raise error

    world.api.refuse = refuse
    await ask(world, "x0", "x", 0, deadlineSeconds=3600)
    await ask(world, "y0", "y", 1)
    assert "completionTime" not in run(world, "x0")["status"], "until then it may still be let"
    world.api.put({**run(world, "x0"), "status": {**run(world, "x0")["status"], "startTime": LONG_AGO}})
    await world.lead()
    await world.settle()
    status, reason, message = world.condition("Failed", run(world, "x0"))
    assert (status, reason) == ("True", "DeadlineExceeded")
    assert error.message in message
    assert started(world) == {"x0", "y0"}
    assert list(world.api.kinds("Job")) == ["y0"]


async def test_after_the_operator_was_away_a_run_without_its_job_is_tried_first() -> None:
    world = await clinic("x", places=1)
    refused = [api_error(403)]

    def refuse(verb: str, key: Key, body: Manifest) -> None:
        if key.kind == "Job" and refused:
            raise refused[0]

    world.api.refuse = refuse
    await ask(world, "x0", "x", 0, deadlineSeconds=3600)
    refused.clear()
    world.api.put({**run(world, "x0"), "status": {**run(world, "x0")["status"], "startTime": LONG_AGO}})
    await world.lead()
    await world.settle()
    assert list(world.api.kinds("Job")) == ["x0"]
    assert "completionTime" not in run(world, "x0")["status"]

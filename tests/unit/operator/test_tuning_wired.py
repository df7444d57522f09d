"""Engines started for their adapters, by the whole operator: what is gathered, applied, told and published."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from bettertherapy_api import names
from bettertherapy_api.report import AdapterReport
from tests.unit.operator.played import Played
from tests.unit.operator.samples import adapter_report, digest, report
from twin_operator.domain.activity import Activity
from twin_operator.domain.objects import Pool
from twin_operator.domain.reasons import Reason
from twin_operator.engine.resources import Manifest
from twin_operator.kinds.miner_pool.engine_needs import ReadAdapters, needs_of

GPU: dict[str, Any] = {"engine": {"device": "GPU", "maxLoras": "Auto", "loraTargets": "Auto"}}
DONE = {
    "observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1,
    "conditions": [
        {"type": "Available", "status": "True", "lastTransitionTime": "2026-01-05T10:00:00Z"},
        {
            "type": "Progressing", "status": "True", "lastUpdateTime": "2026-01-05T10:00:00Z",
            "reason": "NewReplicaSetAvailable",
        },
    ],
}  # fmt: skip


async def pool_with(twins: int, **spec: Any) -> Played:
    world = Played()
    world.start_pool(**{**GPU, **spec})
    world.start_pod()
    world.report()
    for number in range(twins):
        world.start_twin(f"dr-{number}")
    await world.lead()
    await world.settle(rounds=100_000)
    return world


async def come_up(world: Played) -> None:
    """Let the engines' Deployment be complete."""
    deployment = world.api.kinds("Deployment")["p-engine"]
    world.api.put({**deployment, "status": {**DONE, "observedGeneration": deployment["metadata"].get("generation")}})
    await world.settle(rounds=100_000)


def arguments(world: Played) -> list[str]:
    containers = world.api.kinds("Deployment")["p-engine"]["spec"]["template"]["spec"]["containers"]
    return [each for each in containers[0]["args"] if "lora" in each]


def tuning(world: Played) -> Manifest:
    found: Manifest = world.pool()["status"]["tuning"]
    return found


def hold(world: Played, twins: int, **said: Any) -> None:
    """Let the pod's agent have read every adapter."""
    held = {
        names.served_name(f"dr-{number}", digest("a")): {
            "twin": f"dr-{number}", "digest": digest("a"), "state": "Verified", **said,
        }
        for number in range(twins)
    }  # fmt: skip
    world.report("e1", adapters={name: AdapterReport.model_validate(each).to_dict() for name, each in held.items()})


async def test_engines_that_start_get_slots_for_the_twins_that_are_there_and_everybody_is_told() -> None:
    world = await pool_with(20)
    assert "--max-loras=32" in arguments(world)
    assert "--specialize-active-lora" in arguments(world)
    assert tuning(world)["running"]["maxLoras"] == 32
    assert world.pool()["status"]["slots"]["total"] == 32
    headers = [each["pool"]["maxLoras"] for each in world.api.kinds("RoutingSlice").values()]
    assert headers
    assert set(headers) == {32}
    status, reason, message = world.condition("EnginesTuned", world.pool())
    assert (status, reason) == ("True", Reason.TUNED)
    assert "a pod holds up to 20 adapters of rank 8 at most, of 20 twins" in message


async def test_engines_in_use_keep_their_slots_for_a_while_and_say_so() -> None:
    world = await pool_with(4)
    await come_up(world)
    for number in range(4, 20):
        world.start_twin(f"dr-{number}")
    await world.settle(rounds=100_000)
    assert "--max-loras=8" in arguments(world)
    status, reason, message = world.condition("EnginesTuned", world.pool())
    assert (status, reason) == ("False", Reason.TUNING_AWAITED)
    assert message.startswith("20 twins share 8 LoRA slots, 32 would do; they are restarted for it at 20")
    since = datetime.fromisoformat(tuning(world)["shortSince"])
    writes = len(world.api.writes)
    await world.settle(rounds=100_000)
    assert len(world.api.writes) == writes
    assert datetime.fromisoformat(tuning(world)["shortSince"]) == since
    assert world.condition("CapacityAvailable", world.pool())[2].startswith("20 twins share the 8 LoRA slots")


async def test_what_agents_have_read_decides_what_is_wrapped_from_the_next_restart_on() -> None:
    world = await pool_with(3)
    assert "of 3 it isn't known what they change" in world.condition("EnginesTuned", world.pool())[2]
    await come_up(world)
    hold(world, 3, attentionOnly=True)
    await world.settle(rounds=100_000)
    assert tuning(world)["wanted"]["loraTargets"] == "Attention"
    message = world.condition("EnginesTuned", world.pool())[2]
    assert message.endswith("; from the next restart on LoRA on attention alone instead of all linear layers")
    assert "--lora-target-modules" not in arguments(world)
    world.start_pool(**{**GPU, "drainSeconds": 7})
    await world.settle(rounds=100_000)
    assert "--lora-target-modules" in arguments(world)


async def test_what_agents_have_read_stays_known_when_adapters_are_let_go_again() -> None:
    """Of twins that are loaded on demand no more are reported than fit: never were all of them known at once."""
    world = await pool_with(0)
    for letter in "abc":
        world.start_twin(f"dr-{letter}", adapter=letter)
    await world.settle(rounds=100_000)
    await come_up(world)
    served = {letter: names.served_name(f"dr-{letter}", digest(letter)) for letter in "abc"}
    for letter in "abc":
        said = {"twin": f"dr-{letter}", "digest": digest(letter), "state": "Verified", "attentionOnly": True}
        world.report(adapters={**dict.fromkeys(served.values()), served[letter]: said})
        await world.settle(rounds=100_000)
        (held,) = world.api.kinds("PodReport")["e1"]["adapters"]
        assert held == served[letter]
    assert "all change attention alone" in world.condition("EnginesTuned", world.pool())[2]
    assert tuning(world)["wanted"]["loraTargets"] == "Attention"


def test_nothing_is_kept_of_adapters_that_are_wanted_no_more() -> None:
    read = ReadAdapters()
    reports = [report("e1", adapter_report(letter=letter, attention_only=letter == "a")) for letter in "ab"]
    assert read.update("uid-p", {digest("a"), digest("b")}, reports) == {digest("a"): True, digest("b"): False}
    assert read.update("uid-p", {digest("a"), digest("c")}, []) == {digest("a"): True}
    assert read.update("uid-p", {digest("b")}, []) == {}
    assert read.update("uid-p", {digest("a")}, reports) == {digest("a"): True}
    read.forget("uid-p")
    assert read.update("uid-p", {digest("a")}, []) == {}


async def test_a_twin_is_told_that_its_adapter_changes_what_engines_do_not_wrap() -> None:
    world = await pool_with(1, engine={"device": "GPU", "loraTargets": "Attention"})
    hold(
        world, 1, state="Failed", reason="ModulesNotWrapped", retryable=False, attentionOnly=False,
        message="the adapter changes down_proj, and this pod's engine was started for attention's projections alone",
    )  # fmt: skip
    await world.settle(rounds=100_000)
    for kind in ("AdaptersVerified", "ArtifactVerified", "Ready"):
        status, reason, message = world.condition(kind, world.twin("dr-0"))
        assert (status, reason) == ("False", "ModulesNotWrapped"), kind
        assert "changes down_proj" in message


async def test_a_status_that_somebody_wrote_over_loses_no_more_than_its_memory() -> None:
    world = await pool_with(20)
    pool = world.pool()
    world.api.put({**pool, "status": {**pool["status"], "tuning": {"running": "many"}}})
    await world.settle(rounds=100_000)
    assert tuning(world)["running"]["maxLoras"] == 32


async def test_twins_in_use_are_counted_on_the_pod_that_has_most_of_them() -> None:
    world = await pool_with(6)
    found = next(each for each in world.process.world.pools("clinic") if isinstance(each, Pool))
    published, facts = world.process.world.published(found), world.process.world.facts("clinic", "p")
    busy = Activity(by_twin={"dr-0": 512, "dr-1": 1}, others=0)
    assert needs_of(published, facts, busy).in_use == 2
    assert needs_of(published, facts, Activity(by_twin={"dr-0": 512})).in_use is None  # of others nobody can say
    assert needs_of(published, facts).in_use is None

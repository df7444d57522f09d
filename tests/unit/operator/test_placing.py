"""Twins on chosen pods, by the whole operator: who holds what, and that a move leaves no patient without answer."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from bettertherapy_api.routing import TwinEntry
from tests.unit.operator.played import Played
from tests.unit.operator.samples import NAMESPACE, deployment_object, digest
from twin_operator.engine.resources import Key, Manifest
from twin_operator.kinds.miner_pool.engine_needs import adapters_of

SPREAD: dict[str, Any] = {"placement": {"mode": "Spread", "replicas": 1}}


async def fleet(twins: int, pods: int, *, slots: int = 8, **spec: Any) -> Played:
    """Twins in one pool, each answering with version `a` where it is to be."""
    world = Played()
    world.start_pool(engine={"device": "CPU", "maxLoras": slots}, replicas=pods)
    for number in range(pods):
        start(world, f"e{number}")
    for number in range(twins):
        world.start_twin(f"dr-{number}", **spec)
    await world.lead()
    await world.settle(rounds=100_000)
    await hold(world)
    return world


def start(world: Played, name: str) -> None:
    world.start_pod(name, ip=f"10.0.0.{int(name[1:]) + 1}")
    world.report(name)


def uid_of(world: Played, pod: str) -> str:
    return str(world.api.objects[Key("Pod", NAMESPACE, pod)]["metadata"]["uid"])


def pods(world: Played) -> dict[str, str]:
    """Return names by UID."""
    return {
        thing["metadata"]["uid"]: key.name
        for key, thing in world.api.objects.items()
        if key.kind == "Pod" and key.name.startswith("e")
    }


def entry(world: Played, name: str) -> Manifest:
    return next(each for each in world.entries().values() if each["name"] == name)


def wanted(world: Played, pod: str) -> list[tuple[str, str]]:
    """Return what the pod's agent would hold by the routing, as (twin, letter)."""
    uid, found = uid_of(world, pod), []
    for each in world.entries().values():
        letters = {digest(letter): letter for letter in "abc"}
        found += [(each["name"], letters[adapter.digest]) for adapter in TwinEntry.model_validate(each).held_by(uid)]
    return found


async def hold(world: Played, *names: str) -> None:
    """Let these agents (all of them by default) verify what they are to hold, and let go of the rest."""
    for name in names or sorted(pods(world).values()):
        world.report(name, *wanted(world, name))
    await world.settle(rounds=100_000)


def holders(world: Played, name: str) -> list[str]:
    names = pods(world)
    return [names[uid] for uid in entry(world, name).get("pods") or () if uid in names]


def fullest(world: Played, count: int) -> int:
    return max(Counter(holders(world, f"dr-{number}")[0] for number in range(count)).values())


async def test_24_twins_on_3_pods_of_8_slots_are_preferred_on_each_by_8() -> None:
    world = await fleet(24, 3)
    assert fullest(world, 24) == 8
    assert all("placement" not in each for each in world.entries().values())
    assert world.condition("CapacityAvailable", world.twin("dr-0"))[0] == "True"
    assert world.pool()["status"]["slots"] == {"used": 8, "total": 8, "summary": "8/8"}
    assert len(wanted(world, "e0")) == 24


async def test_a_pool_with_one_pod_says_nothing_of_pods() -> None:
    world = await fleet(4, 1)
    assert all("pods" not in each for each in world.entries().values())


async def test_a_second_pod_that_comes_and_goes_leaves_the_entries_as_they_were() -> None:
    world = await fleet(4, 1)
    before = world.entries()
    start(world, "e1")
    await world.settle(rounds=100_000)
    await hold(world)
    assert fullest(world, 4) == 2
    world.api.drop(Key("PodReport", NAMESPACE, "e1"))
    world.api.drop(Key("Pod", NAMESPACE, "e1"))
    await world.settle(rounds=100_000)
    assert world.entries() == before


async def test_spread_twins_are_held_by_their_pods_alone_and_counted_there() -> None:
    world = await fleet(6, 3, placement={"mode": "Spread", "replicas": 2})
    assert {len(holders(world, f"dr-{number}")) for number in range(6)} == {2}
    loads = [len(wanted(world, f"e{number}")) for number in range(3)]
    assert sum(loads) == 12
    assert max(loads) - min(loads) <= 2
    twin = world.twin("dr-0")
    assert twin["status"]["pods"] == {"desired": 2, "loaded": 2, "verified": 2, "summary": "2/2"}
    status, reason, message = world.condition("PlacementActive", twin)
    assert (status, reason) == ("True", "Placed")
    assert all(name in message for name in holders(world, "dr-0"))
    assert world.condition("AdaptersVerified", twin)[1] == "Unproven"  # no fingerprint is reported here
    assert world.pool()["status"]["adapters"] == {"desired": 6, "loaded": 6, "failed": 0}


async def test_an_engine_keeps_at_hand_what_its_fullest_pod_holds_of_spread_twins() -> None:
    def at_hand(world: Played) -> str:
        containers = world.api.kinds("Deployment")["p-engine"]["spec"]["template"]["spec"]["containers"]
        (said,) = [each for each in containers[0]["args"] if each.startswith("--max-cpu-loras=")]
        return str(said)

    everywhere, spread = await fleet(40, 4, slots=8), await fleet(40, 4, slots=8, **SPREAD)
    assert int(at_hand(everywhere).partition("=")[2]) >= 40
    held = adapters_of(spread.process.world.published(next(spread.process.world.pools(NAMESPACE))))
    assert 10 <= held <= 13


async def test_a_spread_version_takes_over_when_its_own_pods_have_verified_it() -> None:
    world = await fleet(1, 3, **SPREAD)
    [pod] = holders(world, "dr-0")
    world.start_twin("dr-0", adapter="b", **SPREAD)
    await world.settle()
    assert world.answering("dr-0") == [(digest("a"), 100)]
    world.report(pod, ("dr-0", "a"), ("dr-0", "b"))
    await world.settle()
    assert world.answering("dr-0") == [(digest("b"), 100)]


async def test_a_twin_that_is_spread_anew_is_let_go_only_where_it_is_held_elsewhere() -> None:
    world = await fleet(3, 3)
    world.start_twin("dr-0", **SPREAD)
    await world.settle()
    assert len(holders(world, "dr-0")) == 1
    assert len(wanted(world, holders(world, "dr-0")[0])) == 3
    assert world.answering("dr-0") == [(digest("a"), 100)]
    world.start_twin("dr-0", placement={"mode": "All"})
    await world.settle()
    assert "placement" not in entry(world, "dr-0")
    assert all(("dr-0", "a") in wanted(world, f"e{number}") for number in range(3))


async def test_a_moving_twin_is_kept_where_it_was_until_it_is_verified_where_it_goes() -> None:
    world = await fleet(8, 1, **SPREAD)
    start(world, "e1")
    await world.settle(rounds=100_000)
    moving = [f"dr-{number}" for number in range(8) if holders(world, f"dr-{number}") == ["e1", "e0"]]
    assert 0 < len(moving) <= 4
    assert all(("dr-0", "a") in wanted(world, "e0") for _ in moving)
    assert "it moves" in world.condition("PlacementActive", world.twin(moving[0]))[2]
    await hold(world, "e1")
    assert {tuple(holders(world, name)) for name in moving} == {("e1",)}
    assert all(world.answering(name) == [(digest("a"), 100)] for name in moving)


async def test_what_fails_where_it_goes_stays_where_it_was() -> None:
    world = await fleet(8, 1, **SPREAD)
    start(world, "e1")
    await world.settle(rounds=100_000)
    for _ in range(3):
        world.report("e1")
        await world.settle(rounds=100_000)
        assert all("e0" in holders(world, f"dr-{number}") for number in range(8))


async def test_a_new_pod_costs_a_write_per_slice_and_a_changed_twin_one_entry() -> None:
    world = await fleet(150, 3, slots=80)
    world.api.writes.clear()
    start(world, "e3")
    await world.settle(rounds=100_000)
    written = [each for each in world.api.writes if each.key.kind == "RoutingSlice"]
    changed = sum(len(each.body.get("twins") or {}) for each in written)
    assert 20 <= changed <= 2 * 150 / 4
    assert len(written) <= 6
    world.api.writes.clear()
    world.start_twin("dr-7", adapter="b")
    await world.settle(rounds=100_000)
    written = [each for each in world.api.writes if each.key.kind == "RoutingSlice"]
    assert [list(each.body["twins"]) for each in written] == [[world.twin("dr-7")["metadata"]["uid"]]]


async def test_a_pod_that_is_gone_is_stood_in_for() -> None:
    world = await fleet(9, 3, **SPREAD)
    world.api.drop(Key("PodReport", NAMESPACE, "e0"))
    world.api.drop(Key("Pod", NAMESPACE, "e0"))
    await world.settle(rounds=100_000)
    assert Counter(name for number in range(9) for name in holders(world, f"dr-{number}")).keys() == {"e1", "e2"}


async def test_a_new_leader_publishes_the_same() -> None:
    world = await fleet(12, 3, **SPREAD)
    before = world.entries()
    other = Played(world.api)
    world.hears = False
    world.api.writes.clear()
    await other.lead()
    await other.settle(rounds=100_000)
    assert other.entries() == before
    assert not [each for each in world.api.writes if each.key.kind == "RoutingSlice"]


async def test_too_few_pods_are_said() -> None:
    world = await fleet(1, 2, placement={"mode": "Spread", "replicas": 3})
    status, reason, message = world.condition("PlacementActive", world.twin("dr-0"))
    assert (status, reason) == ("False", "TooFewPods")
    assert "2 ready engine pods" in message
    assert len(holders(world, "dr-0")) == 2


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_comes_and_goes_what_answers_is_held_somewhere(seed: int) -> None:
    """Agents verify and let go in any order; pods come, pause and go, but for one that alone holds a twin."""
    draw = random.Random(seed)
    world = await fleet(16, 2, slots=10, **SPREAD)
    resident: dict[str, set[tuple[str, str]]] = {name: set(wanted(world, name)) for name in pods(world).values()}
    paused: set[str] = set()
    fresh = 2

    def only_holder(name: str) -> bool:
        return any(all(twin not in held for pod, held in resident.items() if pod != name) for twin in resident[name])

    for step in range(30):
        name = draw.choice(sorted(resident))
        match draw.choice(["verify", "verify", "release", "release", "come", "go", "pause", "version"]):
            case "verify" if name not in paused:
                resident[name] |= set(draw.sample(now := wanted(world, name), draw.randint(0, len(now))))
            case "release" if name not in paused:
                resident[name] &= set(wanted(world, name))
            case "come" if len(resident) < 5:
                name, fresh = f"e{fresh}", fresh + 1
                start(world, name)
                resident[name] = set()
            case "go" if len(resident) > 1 and not only_holder(name):
                world.api.drop(Key("PodReport", NAMESPACE, name))
                world.api.drop(Key("Pod", NAMESPACE, name))
                del resident[name]
                paused.discard(name)
            case "pause":
                paused ^= {name}
            case "version":
                world.start_twin(f"dr-{draw.randrange(16)}", adapter=draw.choice("ab"), **SPREAD)
        for pod in sorted(resident):
            ready = pod not in paused
            thing = world.api.objects[Key("Pod", NAMESPACE, pod)]
            thing["status"]["conditions"][0]["status"] = str(ready)
            world.api.put(thing)
            world.report(pod, *sorted(resident[pod]), ready=ready)
        await world.settle(rounds=100_000)
        for each in world.entries().values():
            for version in each["versions"]:
                answers = {(each["name"], letter) for letter in "ab" if digest(letter) == version["digest"]}
                told = [pod for pod in resident if answers <= set(wanted(world, pod))]
                assert any(answers <= resident[pod] for pod in told), f"step {step}: nobody keeps {answers}"


async def test_where_the_slices_were_lost_whoever_holds_a_twin_goes_on_until_its_new_pods_hold_it() -> None:
    world = await fleet(9, 3, **SPREAD)
    before = {name: set(wanted(world, name)) for name in pods(world).values()}
    for name in list(world.api.kinds("RoutingSlice")):
        world.api.drop(Key("RoutingSlice", NAMESPACE, name))
    await world.settle(rounds=100_000)
    assert len(world.entries()) == 9
    after = {name: set(wanted(world, name)) for name in pods(world).values()}
    assert all(before[name] <= after[name] for name in before)
    await hold(world)
    assert {len(holders(world, f"dr-{number}")) for number in range(9)} == {1}


ON_DEMAND: dict[str, Any] = {"placement": {"mode": "OnDemand"}}


async def open_door(world: Played) -> None:
    """Let a miner be ready, and clients have tokens."""
    made = deployment_object("p-miner")
    key = Key("Deployment", NAMESPACE, "p-miner")
    generation = world.api.objects[key]["metadata"].get("generation", 1)
    world.api.put(
        {
            **{each: made[each] for each in ("apiVersion", "kind")},
            "metadata": {"name": "p-miner", "namespace": NAMESPACE},
            "status": {**made["status"], "observedGeneration": generation},
        }
    )
    await world.settle(rounds=100_000)


async def test_a_twin_on_demand_is_verified_once_on_a_pod_and_then_held_by_none() -> None:
    world = await fleet(6, 3, **ON_DEMAND)
    assert [len(holders(world, f"dr-{number}")) for number in range(6)] == [1] * 6
    assert fullest(world, 6) <= 3
    assert all(world.answering(f"dr-{number}") == [(digest("a"), 100)] for number in range(6))
    assert [wanted(world, f"e{number}") for number in range(3)] == [[], [], []]
    await hold(world)
    assert all(world.answering(f"dr-{number}") == [(digest("a"), 100)] for number in range(6))
    assert world.pool()["status"]["slots"]["used"] == 0
    assert world.pool()["status"]["adapters"] == {"desired": 6, "loaded": 0, "failed": 0}


async def test_a_twin_on_demand_that_no_pod_holds_serves_and_is_not_called_loaded_or_verified() -> None:
    world = await fleet(1, 2, **ON_DEMAND)
    await open_door(world)
    await hold(world)
    twin = world.twin("dr-0")
    assert twin["status"]["pods"] == {"desired": 0, "loaded": 0, "verified": 0, "summary": "0/0"}
    assert {kind: world.condition(kind, twin)[:2] for kind in ("Ready", "Serving", "AdaptersVerified")} == {
        "Ready": ("True", "Serving"),
        "Serving": ("True", "VersionServing"),
        "AdaptersVerified": ("Unknown", "OnDemand"),
    }  # fmt: skip
    assert "once a question has loaded it" in world.condition("Serving", twin)[2]
    assert world.condition("PlacementActive", twin)[1] == "Placed"
    [pod] = holders(world, "dr-0")
    world.report(pod, ("dr-0", "a"))
    await world.settle()
    twin = world.twin("dr-0")
    assert twin["status"]["pods"] == {"desired": 1, "loaded": 1, "verified": 1, "summary": "1/1"}
    assert world.condition("AdaptersVerified", twin)[1] == "Unproven"  # no fingerprint is reported here
    assert "on 1 pod" in world.condition("Serving", twin)[2]


async def test_a_new_version_on_demand_answers_once_its_pod_has_verified_it() -> None:
    world = await fleet(1, 3, **ON_DEMAND)
    await open_door(world)
    await hold(world)
    [pod] = holders(world, "dr-0")
    world.start_twin("dr-0", adapter="b", **ON_DEMAND)
    await world.settle()
    assert world.answering("dr-0") == [(digest("a"), 100)]
    assert wanted(world, pod) == [("dr-0", "b")]
    assert world.condition("Ready", world.twin("dr-0"))[:2] == ("False", "Loading")
    await hold(world, pod)
    assert world.answering("dr-0") == [(digest("b"), 100)]
    assert wanted(world, pod) == []


async def test_another_pod_loads_what_is_on_demand_when_its_own_is_gone() -> None:
    world = await fleet(4, 2, **ON_DEMAND)
    await hold(world)
    world.api.drop(Key("PodReport", NAMESPACE, "e0"))
    world.api.drop(Key("Pod", NAMESPACE, "e0"))
    await world.settle(rounds=100_000)
    assert {tuple(holders(world, f"dr-{number}")) for number in range(4)} == {("e1",)}
    assert all(world.answering(f"dr-{number}") == [(digest("a"), 100)] for number in range(4))


async def test_a_twin_goes_on_demand_and_back() -> None:
    world = await fleet(1, 2)
    await open_door(world)
    world.start_twin("dr-0", **ON_DEMAND)
    await world.settle()
    assert world.answering("dr-0") == [(digest("a"), 100)]
    await hold(world)
    world.start_twin("dr-0", placement={"mode": "All"})
    await world.settle()
    assert world.answering("dr-0") == [(digest("a"), 100)]
    assert all(wanted(world, pod) == [("dr-0", "a")] for pod in ("e0", "e1"))
    assert world.condition("Ready", world.twin("dr-0"))[0] == "False", "no pod holds it yet"
    await hold(world)
    assert world.condition("Ready", world.twin("dr-0"))[0] == "True"

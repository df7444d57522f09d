"""What is published: one twin's change is one small write to one slice, and one refusal holds back nothing else."""

from __future__ import annotations

import gc
import json
from typing import Any

import orjson
import pytest

from bettertherapy_api import names
from bettertherapy_api.routing import TWINS_PER_SLICE, TwinEntry
from tests.unit.operator.fake_api import Written
from tests.unit.operator.played import Played, api_error
from tests.unit.operator.samples import NAMESPACE, digest
from twin_operator.domain.objects import Pool
from twin_operator.domain.routing import Candidate, plan_entry
from twin_operator.engine.resources import Key, Manifest
from twin_operator.kinds.routing import reconcile

PROMPT = "तपाईं डाक्टरको जुम्ल्याहा हुनुहुन्छ। " * 200


async def clinic(count: int, *, prompt: str | None = None) -> Played:
    """So many twins in one pool with one pod, each answering with version `a`."""
    world = Played()
    world.start_pool()
    world.start_pod()
    world.report()
    spec = {"systemPrompt": prompt} if prompt else {}
    for number in range(count):
        world.start_twin(f"dr-{number}", adapter="a", **spec)
    await world.lead()
    await world.settle(rounds=100_000)
    world.report("e1", *((f"dr-{number}", "a") for number in range(count)))
    await world.settle(rounds=100_000)
    assert all(entry["versions"] for entry in world.entries().values())
    return world


def slice_writes(writes: list[Written]) -> list[Written]:
    return [each for each in writes if each.key.kind == "RoutingSlice"]


async def test_twins_are_spread_over_slices_of_bounded_size() -> None:
    world = await clinic(2 * TWINS_PER_SLICE + 1)
    sizes = {name: len(each.get("twins") or {}) for name, each in world.api.kinds("RoutingSlice").items()}
    assert {name: sizes[name] for name in sizes if name.rpartition("-")[2].isdigit() and "prompts" not in name} == {
        "p-routing-0": TWINS_PER_SLICE, "p-routing-1": TWINS_PER_SLICE, "p-routing-2": 1,
    }  # fmt: skip


async def test_a_new_version_writes_its_own_entry_in_one_slice_and_no_prompt() -> None:
    world = await clinic(120, prompt=PROMPT)
    world.api.writes.clear()
    world.start_twin("dr-7", adapter="b", systemPrompt=PROMPT)
    await world.settle()
    world.report("e1", *((f"dr-{number}", "a") for number in range(120)), ("dr-7", "b"))
    await world.settle()
    written = slice_writes(world.api.writes)
    assert {each.key.name for each in written} == {"p-routing-0"}
    assert [list(each.body["twins"]) for each in written] == [[world.twin("dr-7")["metadata"]["uid"]]] * 2
    assert all("prompts" not in each.body for each in written)
    assert sum(len(orjson.dumps(each.body)) for each in world.api.writes) < 16 * 1024
    assert world.answering("dr-7") == [(digest("b"), 100)]


async def test_a_twin_stays_in_its_slice_and_a_new_one_fills_the_gap() -> None:
    world = await clinic(TWINS_PER_SLICE + 2)
    before = {uid: name for name, each in world.api.kinds("RoutingSlice").items() for uid in each.get("twins") or {}}
    world.drop_twin("dr-3")
    world.start_twin("dr-new")
    await world.settle()
    after = {uid: name for name, each in world.api.kinds("RoutingSlice").items() for uid in each.get("twins") or {}}
    assert after.pop(world.twin("dr-new")["metadata"]["uid"]) == "p-routing-0"
    assert after == {uid: name for uid, name in before.items() if uid in after}


async def test_many_changes_at_once_take_one_write_per_slice() -> None:
    world = await clinic(150)
    world.api.writes.clear()
    for number in range(150):
        world.start_twin(f"dr-{number}", adapter="b")
    await world.settle(rounds=10_000)
    assert len(slice_writes(world.api.writes)) <= 4


async def test_system_prompts_are_written_once_in_utf8_before_the_twins_that_name_them() -> None:
    world = await clinic(30, prompt=PROMPT)
    written = slice_writes(world.api.writes)
    first_prompt = next(i for i, each in enumerate(written) if PROMPT in (each.body.get("prompts") or {}).values())
    first_twin = next(i for i, each in enumerate(written) if each.body.get("twins"))
    assert first_prompt < first_twin
    assert sum("prompts" in each.body for each in written) == 1
    [(key, text)] = world.api.kinds("RoutingSlice")["p-routing-prompts-0"]["prompts"].items()
    assert (key, text) == (names.prompt_digest(PROMPT), PROMPT)


async def test_long_prompts_of_many_twins_go_to_slices_of_their_own() -> None:
    """24 twins with Nepali prompts of 8,192 characters once filled the one object that held all."""
    world = Played()
    world.start_pool()
    world.start_pod()
    world.report()
    for number in range(60):
        world.start_twin(f"dr-{number}", systemPrompt=(f"{number} " + PROMPT * 2)[:8192])
    await world.lead()
    await world.settle(rounds=100_000)
    sizes = [len(json.dumps(each, ensure_ascii=False).encode()) for each in world.api.kinds("RoutingSlice").values()]
    assert max(sizes) < 400 * 1024
    assert len(world.entries()) == 60


async def test_a_prompt_that_no_twin_has_any_more_goes() -> None:
    world = await clinic(2, prompt=PROMPT)
    for number in range(2):
        world.start_twin(f"dr-{number}", adapter="a", systemPrompt="Short.")
    await world.settle()
    await world.lead()
    await world.settle()
    prompts = [
        text for each in world.api.kinds("RoutingSlice").values() for text in (each.get("prompts") or {}).values()
    ]
    assert prompts == ["Short."]


async def test_one_entry_that_is_refused_holds_back_no_other() -> None:
    world = await clinic(5)
    bad = world.twin("dr-2")["metadata"]["uid"]

    def refuse(verb: str, key: Key, body: Manifest) -> None:
        if key.kind == "RoutingSlice" and bad in (body.get("twins") or {}):
            raise api_error(422, "too odd")

    world.api.refuse = refuse
    for number in range(5):
        world.start_twin(f"dr-{number}", adapter="b")
    await world.settle()
    world.report("e1", *((f"dr-{number}", letter) for number in range(5) for letter in "ab"))
    await world.settle()
    assert [world.answering(f"dr-{number}")[0][0] for number in range(5)] == [
        digest("a" if number == 2 else "b") for number in range(5)
    ]
    status, reason, message = world.condition("Ready", world.twin("dr-2"))
    assert (status, reason) == ("False", "RoutingRefused")
    assert "too odd" in message
    world.api.refuse = lambda verb, key, body: None
    await world.lead()
    await world.settle()
    assert world.answering("dr-2") == [(digest("b"), 100)]


async def test_addresses_come_from_the_pod_and_never_from_a_report() -> None:
    world = await clinic(1)
    world.report("e1", ("dr-0", "a"), address="10.6.6.6:8080")
    await world.settle()
    [(_, pod)] = world.api.kinds("RoutingSlice")["p-routing-pods"]["pods"].items()
    assert pod == {"name": "e1", "address": "10.0.0.1:8080"}


async def test_a_report_under_another_pods_name_counts_for_nothing() -> None:
    world = await clinic(1)
    world.start_twin("dr-0", adapter="b")
    world.start_pod("e2", ip="10.0.0.2")
    await world.settle()
    live = world.api.kinds("PodReport")["e1"]
    forged = {**live, "metadata": {**live["metadata"], "name": "e2"}, "adapters": {
        "dr-0-bbbbbbbb": {"twin": "dr-0", "digest": digest("b"), "state": "Verified"},
    }}  # fmt: skip
    world.api.put(forged)
    world.report("e1", ("dr-0", "a"), ("dr-0", "b"))
    await world.settle()
    assert world.answering("dr-0") == [(digest("a"), 100)]


@pytest.mark.timeout(300)
async def test_memory_is_flat_over_thousands_of_changes() -> None:
    count, changes = 50, 500
    world = await clinic(count, prompt=PROMPT)

    async def change(times: int) -> None:
        for number in range(times):
            letter = "ab"[(number // count + 1) % 2]
            world.start_twin(f"dr-{number % count}", adapter=letter, systemPrompt=PROMPT)
            world.api.writes.clear()
            if number % 50 == 49:
                await world.settle(rounds=100_000)
        await world.settle(rounds=100_000)
        world.api.writes.clear()
        gc.collect()

    await change(2 * count)
    before = len(gc.get_objects())
    await change(changes)
    grown = len(gc.get_objects()) - before
    assert grown < changes / 2, f"{grown} objects more after {changes} changes"


def unread_spec(world: Played) -> None:
    """Let the pool have a spec of another release."""
    spec = world.pool()["spec"]
    world.api.put({**world.pool(), "spec": {**spec, "engine": {**spec["engine"], "maxLoraRank": 512}}})


def addresses(world: Played) -> list[str]:
    slices = world.api.kinds("RoutingSlice").values()
    return [pod["address"] for each in slices for pod in (each.get("pods") or {}).values()]


def move_pod(world: Played, *held: tuple[str, str]) -> None:
    """Let the only engine pod be replaced by one at another address."""
    for kind in ("PodReport", "Pod"):
        world.api.drop(Key(kind, NAMESPACE, "e1"))
    world.start_pod("e2", ip="10.0.0.2")
    world.report("e2", *held)


async def test_one_twin_that_nothing_can_be_made_of_holds_back_no_other_and_no_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = await clinic(3)

    def plan(pool: Pool, candidate: Candidate, **more: Any) -> TwinEntry | None:
        if candidate.twin.name == "dr-1":
            raise ValueError("too odd")
        return plan_entry(pool, candidate, **more)

    monkeypatch.setattr(reconcile, "plan_entry", plan)
    for number in range(3):
        world.start_twin(f"dr-{number}", adapter="b")
    await world.settle()
    move_pod(world, *((f"dr-{number}", letter) for number in range(3) for letter in "ab"))
    await world.settle()
    assert [world.answering(f"dr-{number}")[0][0] for number in range(3)] == [digest("b"), digest("a"), digest("b")]
    assert addresses(world) == ["10.0.0.2:8080"]
    status, reason, message = world.condition("Ready", world.twin("dr-1"))
    assert (status, reason) == ("False", "RoutingRefused")
    assert "too odd" in message
    monkeypatch.undo()
    await world.lead()
    await world.settle()
    assert world.answering("dr-1") == [(digest("b"), 100)]
    assert world.condition("Ready", world.twin("dr-1"))[1] != "RoutingRefused"


async def test_a_pod_with_an_odd_address_keeps_no_other_from_its_own() -> None:
    world = await clinic(1)
    world.start_pod("e2", ip="fe80::1%eth0")
    world.start_pod("e3", ip="10.0.0.3")
    await world.settle()
    assert addresses(world) == ["10.0.0.1:8080", "10.0.0.3:8080"]


@pytest.mark.parametrize(
    "odd", [{"digest": "garbage"}, {"servedName": "Dr A"}, {"uri": ""}], ids=["digest", "servedName", "uri"]
)
@pytest.mark.parametrize("field", ["promotedVersion", "canaryVersion"])
async def test_a_new_leader_publishes_though_one_twins_version_is_odd(field: str, odd: dict[str, Any]) -> None:
    world = await clinic(2)
    live = world.twin("dr-0")
    version = {"digest": digest("b"), "servedName": "dr-0-bbbbbbbb", "uri": "pvc://x/y", "rank": 8, **odd}
    world.hears = False
    world.api.put({**live, "status": {**live["status"], field: version}})
    world.start_twin("dr-1", adapter="c")
    world.report("e1", ("dr-0", "a"), ("dr-1", "a"), ("dr-1", "c"))
    world.hears = True
    await world.lead()
    await world.settle()
    assert world.answering("dr-1") == [(digest("c"), 100)]
    assert world.answering("dr-0") == [(digest("a"), 100)]
    status, reason, message = world.condition("Ready", world.twin("dr-0"))
    assert (status, reason) == ("False", "StatusUnreadable")
    assert f"{field}.{next(iter(odd))}" in message


async def test_a_pool_whose_spec_cannot_be_read_publishes_where_its_pods_are() -> None:
    world = await clinic(1)
    unread_spec(world)
    await world.settle()
    move_pod(world, ("dr-0", "a"))
    await world.settle()
    assert addresses(world) == ["10.0.0.2:8080"]
    assert world.answering("dr-0") == [(digest("a"), 100)]


@pytest.mark.parametrize("away", [False, True], ids=["watched", "missed"])
async def test_another_doctor_under_the_name_is_never_answered_for_by_a_pool_whose_spec_cannot_be_read(
    *, away: bool
) -> None:
    world = await clinic(2)
    readable = world.pool()["spec"]
    unread_spec(world)
    await world.settle()
    world.hears = not away
    world.drop_twin("dr-0")
    world.start_twin("dr-0", adapter="c", doctor={"name": "Dr. Other", "licence": "L2"})
    world.hears = True
    if away:
        await world.lead()
    await world.settle()
    assert world.answering("dr-0") == []
    assert world.answering("dr-1") == [(digest("a"), 100)]
    assert world.condition("Ready", world.twin("dr-0"))[:2] == ("False", "PoolUnreadable")
    world.api.put({**world.pool(), "spec": {**readable, "engine": {**readable["engine"], "maxLoraRank": 16}}})
    world.report("e1", ("dr-1", "a"), ("dr-0", "c"))
    await world.settle()
    assert world.answering("dr-0") == [(digest("c"), 100)]


def try_again(world: Played) -> None:
    """Let the time pass for which what failed is held."""
    queue = world.process.queue
    for key in list(queue._held_until):
        queue._cancel(key)
        queue._due(key)


def refuse_writes(world: Played, *parts: str, status: int = 403) -> None:
    """Refuse all writes to slices with one of these in their names."""

    def refuse(verb: str, key: Key, body: Manifest) -> None:
        if key.kind == "RoutingSlice" and any(part in key.name for part in parts):
            raise api_error(status, "exceeded quota")

    world.api.refuse = refuse


def accept_writes(world: Played) -> None:
    world.api.refuse = lambda verb, key, body: None


def prompts(world: Played) -> set[str]:
    return {digest for each in world.api.kinds("RoutingSlice").values() for digest in each.get("prompts") or {}}


def take_label(world: Played, name: str, label: str) -> None:
    world.api.put({"kind": "RoutingSlice", "metadata": {"name": name, "namespace": NAMESPACE, "labels": {label: None}}})


def found_by_readers(world: Played) -> set[str]:
    labels = {names.LABEL_POOL: "p", names.LABEL_COMPONENT: "routing"}
    slices = world.api.kinds("RoutingSlice")
    return {name for name, each in slices.items() if labels.items() <= each["metadata"]["labels"].items()}


@pytest.mark.parametrize("status", [403, 500])
async def test_a_prompt_that_is_not_accepted_takes_no_twin_off_and_is_said_until_it_is_published(status: int) -> None:
    world = await clinic(2, prompt=PROMPT)
    refuse_writes(world, "prompts", status=status)
    world.start_twin("dr-0", adapter="a", systemPrompt="Be very kind.")
    await world.settle()
    uid = world.twin("dr-0")["metadata"]["uid"]
    assert world.entries()[uid]["promptDigest"] == names.prompt_digest(PROMPT)
    world.start_twin("dr-new")
    await world.settle()
    if status == 403:
        for thing in (world.twin("dr-0"), world.pool()):
            assert "exceeded quota" in world.condition("Ready", thing)[2]
        assert world.condition("Ready", world.twin("dr-0"))[:2] == ("False", "RoutingRefused")
    assert world.condition("Ready", world.twin("dr-1"))[1] != "RoutingRefused"
    accept_writes(world)
    try_again(world)
    await world.settle()
    assert world.entries()[uid]["promptDigest"] == names.prompt_digest("Be very kind.")
    assert names.prompt_digest("Be very kind.") in prompts(world)
    assert world.condition("Ready", world.twin("dr-0"))[1] != "RoutingRefused"


async def test_a_new_twin_whose_prompt_is_refused_answers_nobody_without_it() -> None:
    world = await clinic(1)
    refuse_writes(world, "prompts")
    world.start_twin("dr-new", systemPrompt=PROMPT)
    await world.settle()
    assert world.entries()[world.twin("dr-new")["metadata"]["uid"]]["promptDigest"] == names.prompt_digest(PROMPT)


async def test_one_prompt_that_is_refused_holds_back_no_other() -> None:
    world = await clinic(2)

    def refuse(verb: str, key: Key, body: Manifest) -> None:
        if "odd" in (body.get("prompts") or {}).values():
            raise api_error(422, "too odd")

    world.api.refuse = refuse
    world.start_twin("dr-0", adapter="a", systemPrompt="odd")
    world.start_twin("dr-1", adapter="a", systemPrompt="Be kind.")
    await world.settle()
    assert world.entries()[world.twin("dr-1")["metadata"]["uid"]]["promptDigest"] == names.prompt_digest("Be kind.")
    assert prompts(world) == {names.prompt_digest("Be kind.")}


async def test_a_twin_whose_entry_stays_refused_delays_no_other_twin() -> None:
    world = await clinic(2)
    bad = world.twin("dr-0")["metadata"]["uid"]

    def refuse(verb: str, key: Key, body: Manifest) -> None:
        if bad in (body.get("twins") or {}):
            raise api_error(403)

    world.api.refuse = refuse
    world.start_twin("dr-0", adapter="b")
    await world.settle()
    assert Key("Routing", NAMESPACE, "p") not in world.process.queue._held_until
    assert Key("Routing", NAMESPACE, f"p/{bad}") in world.process.queue._held_until


@pytest.mark.parametrize("label", [names.LABEL_COMPONENT, names.LABEL_POOL])
@pytest.mark.parametrize("name", ["p-routing-0", "p-routing-1", "p-routing-pods", "p-routing-prompts-0"])
async def test_a_slice_that_lost_a_label_gets_it_back_with_what_it_holds(name: str, label: str) -> None:
    world = await clinic(TWINS_PER_SLICE + 1, prompt=PROMPT)
    before = {part: each.get("twins") for part, each in world.api.kinds("RoutingSlice").items()}
    take_label(world, name, label)
    await world.settle()
    await world.lead()
    await world.settle()
    assert found_by_readers(world) == before.keys()
    assert {part: each.get("twins") for part, each in world.api.kinds("RoutingSlice").items()} == before


@pytest.mark.parametrize("first", [True, False])
async def test_a_twin_in_two_slices_comes_to_rest_on_the_entry_that_answers(*, first: bool) -> None:
    world = await clinic(1)
    live = world.api.kinds("RoutingSlice")["p-routing-0"]
    [(uid, entry)] = live["twins"].items()
    world.api.put({
        **live, "metadata": {**{k: live["metadata"][k] for k in ("namespace", "labels", "ownerReferences")},
                             "name": "p-routing-1"},
    })  # fmt: skip
    silent = {**live, "metadata": {"name": f"p-routing-{int(first)}", "namespace": NAMESPACE}}
    world.api.put({**silent, "twins": {uid: {**entry, "versions": []}}})
    await world.settle()
    await world.lead()
    await world.settle()
    kept = [each["twins"][uid] for each in world.api.kinds("RoutingSlice").values() if uid in (each.get("twins") or {})]
    assert kept == [entry]

"""What a validator's gateways say of their subnet becomes its condition ChainReachable and its count of miners."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bettertherapy_api import names
from bettertherapy_api.report import GATEWAY_STALE_SECONDS, GatewayView
from tests.unit.operator.played import Played, without_server_fields
from tests.unit.operator.samples import NAMESPACE, metadata, pod_object
from tests.unit.operator.validator.test_validator_reconcile import V, act, started, status
from tests.unit.operator.validator.validators import validator, validator_object
from twin_operator.domain.appearances import appears, conditions_said
from twin_operator.domain.pool_facts import pod_facts
from twin_operator.engine.conditions import Condition
from twin_operator.engine.resources import Key, Manifest
from twin_operator.engine.store import Store
from twin_operator.kinds.resources import MINER_POOL, POD_REPORT
from twin_operator.kinds.triggers.change import Route, Soon, Woken
from twin_operator.kinds.triggers.table import woken
from twin_operator.kinds.validator.facts import ValidatorFacts
from twin_operator.kinds.validator.notices import validator_notices
from twin_operator.kinds.validator.subnet import Sight, chain_reachable, sight
from twin_operator.kinds.watched import WATCHED, decode_report
from twin_operator.kinds.world import World

NOW = datetime(2026, 1, 2, 3, 0, tzinfo=UTC)
AWAY: dict[str, Any] = {"reachable": False, "message": "finney can't be reached"}


def ago(seconds: float, *, now: datetime = NOW) -> str:
    return (now - timedelta(seconds=seconds)).isoformat()


def view(*, seconds_ago: float = 30, **more: Any) -> GatewayView:
    given = {"netuid": 42, "reachable": True, "miners": 3, "twins": 2, "block": 1000, "read_at": ago(60)}
    return GatewayView(**({**given, "reported_at": ago(seconds_ago)} | more))


def seen(*views: GatewayView, at: datetime = NOW) -> Sight:
    """Return what counts of what g1, g2, … say."""
    said = {f"g{number}": each for number, each in enumerate(views, start=1)}
    pods = tuple(pod_facts(pod_object(name, component="gateway")) for name in said)
    return sight(validator(), ValidatorFacts(gateways=pods, views=said), now=at)


def says(*views: GatewayView, replicas: int = 1) -> Condition:
    found = chain_reachable(validator(gateway={"replicas": replicas}), seen(*views))
    assert found.type in conditions_said("Validator")
    assert found.reason in appears("Validator", found.type, found.status), found
    return found


def test_a_validator_without_its_permit_is_told_that_miners_refuse_it() -> None:
    assert "no permit there, so miners refuse it" in says(view(permit=False)).message
    assert "permit" not in says(view(permit=True)).message


def test_a_chain_that_gateways_read_is_reachable_and_the_miners_are_counted() -> None:
    found = says(view())
    assert (found.status, found.reason) == ("True", "ChainRead")
    assert found.message == (
        "the gateway reads subnet 42: 3 miners with an address, and 2 twins of this validator can be asked there"
    )
    assert "1 miner with an address" in says(view(miners=1, twins=None), view(miners=1, twins=None)).message
    assert "2 gateways read" in says(view(), view()).message


def test_what_goes_on_by_itself_changes_no_word() -> None:
    later = view(seconds_ago=0, block=1010, read_at=ago(0))
    assert says(view()) == says(later)
    assert says(view(**AWAY)) == says(view(**AWAY, seconds_ago=0))


def test_one_gateway_that_can_not_read_it_is_named_with_its_own_words() -> None:
    found = says(view(), view(**AWAY, block=900))
    assert (found.status, found.reason) == ("False", "ChainUnreachable")
    assert "gateway g2 can't read the metagraph of subnet 42: finney can't be reached" in found.message
    assert f"goes on with that of block 900, read at {ago(60)}" in found.message
    assert "1 of 2 gateways say so" in found.message
    never = says(view(**AWAY, miners=None, twins=None, block=None, read_at=None))
    assert "none was ever read, so nobody can be asked" in never.message


def test_the_newest_metagraph_counts_whoever_spoke_last() -> None:
    old, new = view(miners=2, block=990, seconds_ago=1), view(miners=3, block=1000, seconds_ago=100)
    for order in ((old, new), (new, old)):
        newest = seen(*order).newest
        assert newest is not None
        assert newest.miners == 3
    blind = seen(view(**AWAY, miners=None, block=None)).newest
    assert blind is not None
    assert blind.miners is None


def test_what_was_said_too_long_ago_is_said_to_be_old() -> None:
    found = says(view(seconds_ago=GATEWAY_STALE_SECONDS + 1))
    assert (found.status, found.reason) == ("Unknown", "ReportStale")
    assert f"gateway g1 last said at {ago(GATEWAY_STALE_SECONDS + 1)}" in found.message
    assert seen(view(seconds_ago=GATEWAY_STALE_SECONDS + 1)).newest is None
    mixed = says(view(), view(seconds_ago=GATEWAY_STALE_SECONDS + 1, **AWAY))
    assert (mixed.status, mixed.reason) == ("True", "ChainRead")
    assert f"; gateway g2 has said nothing since {ago(GATEWAY_STALE_SECONDS + 1)}" in mixed.message


def test_a_clock_that_goes_ahead_makes_no_report_last_for_ever() -> None:
    assert says(view(seconds_ago=-5)).status == "True"
    assert says(view(seconds_ago=-GATEWAY_STALE_SECONDS - 1)).reason == "ReportStale"


def test_it_is_looked_at_again_when_the_first_report_grows_old() -> None:
    both = (view(seconds_ago=30), view(seconds_ago=100))
    at = seen(*both).stale_at
    assert at is not None
    assert len(seen(*both, at=at - timedelta(seconds=2)).fresh) == 2
    assert len(seen(*both, at=at).fresh) == 1
    assert seen().stale_at is None
    assert seen(view(seconds_ago=GATEWAY_STALE_SECONDS + 1)).stale_at is None


def test_without_any_report_nothing_is_claimed() -> None:
    assert (says().status, says().reason) == ("Unknown", "ChainNotReported")
    assert says(view(netuid=7)).reason == "ChainNotReported", "of the subnet that the spec named before"
    none = says(replicas=0)
    assert (none.status, none.reason) == ("Unknown", "NoGateway")


def test_a_chain_that_is_lost_is_an_event() -> None:
    def shown(condition: Condition) -> dict[str, Any]:
        return {"conditions": [{
            "type": condition.type, "status": condition.status, "reason": condition.reason,
            "message": condition.message, "lastTransitionTime": "t",
        }]}  # fmt: skip

    read, lost = shown(says(view())), shown(says(view(**AWAY)))
    assert [(each.reason, each.kind) for each in validator_notices(read, lost)] == [("ChainUnreachable", "Warning")]
    assert validator_notices(lost, lost) == []


def stored(pod: str = "g1", *, uid: str | None = None, owner: str | None = None, **gateway: Any) -> dict[str, Any]:
    uid = uid or f"uid-{pod}"
    labels = {names.LABEL_VALIDATOR: "v", names.LABEL_COMPONENT: "gateway-report"}
    reference = {"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": owner or uid}
    return {
        "apiVersion": POD_REPORT.api_version, "kind": POD_REPORT.kind,
        "metadata": {**metadata(pod, labels=labels, uid=f"uid-report-{pod}"), "ownerReferences": [reference]},
        "pod": {"name": pod, "uid": uid}, "gateway": view().to_dict() | gateway,
    }  # fmt: skip


@pytest.mark.parametrize(
    "gateway",
    [
        {"netuid": -1}, {"reachable": "perhaps"}, {"message": "x" * 2000}, {"miners": -1}, {"miners": "many"},
        {"block": 1.5}, {"readAt": "yesterday"}, {"reportedAt": None}, {"reportedAt": "9999-12-31T23:59:59Z"},
        {"reportedAt": "2026-01-01T00:00:00"}, {"reportedAt": "2026-01-01T23:59:60Z"}, {"reportedAt": 7},
        {"miners": 2**16 + 1}, {"twins": 10**7}, {"block": 2**60}, {"block": 10**30}, {"netuid": True, "miners": []},
        {"message": {"en": "x"}},
    ],
)  # fmt: skip
def test_what_is_no_report_is_not_believed(gateway: dict[str, Any]) -> None:
    assert decode_report(stored(), None).gateway is not None
    found = decode_report(stored(**gateway), None)
    assert (found.gateway, found.report, found.miner) == (None, None, None)


def test_what_a_gateway_says_of_the_chain_moves_no_terminal() -> None:
    said = decode_report(stored(**AWAY | {"message": "gone\n\x1b[2J\u202eeslaf"}), None).gateway
    assert said is not None
    assert "gone  [2J eslaf" in says(said.gateway).message


def test_a_report_that_another_pod_owns_is_not_believed() -> None:
    assert decode_report(stored(owner="uid-other"), None).gateway is None


def woken_by(*reports: dict[str, Any] | None) -> set[Woken]:
    store = Store(WATCHED)
    key = Key(POD_REPORT.kind, NAMESPACE, "g1")
    entries = []
    for each in reports:
        if each is not None:
            store.put(each)
        entries.append(store.entry(key) if each is not None else None)
    return set(woken(World(store), entries[0], entries[1]))


def test_a_report_that_changes_wakes_its_validator_and_nothing_else() -> None:
    for before, after in ((None, stored()), (stored(), stored(miners=4)), (stored(), stored(reportedAt=ago(0)))):
        assert woken_by(before, after) == {V}
    assert woken_by(stored(), stored()) == set(), "it says the same"
    assert not {Soon(V), Route(NAMESPACE, "v", None), Key(MINER_POOL.kind, NAMESPACE, "v")} & woken_by(None, stored())


# --- in the whole operator

REPORTED = Key(POD_REPORT.kind, NAMESPACE, "v-gateway-0")


def tell(world: Played, pod: str = "v-gateway-0", *, uid: str | None = None, at: float = 0, **gateway: Any) -> None:
    """Write what a gateway says, `at` seconds ago."""
    said = view(reported_at=ago(at, now=datetime.now(UTC)), read_at=None, **gateway).to_dict()
    uid = uid or world.api.objects[Key("Pod", NAMESPACE, pod)]["metadata"]["uid"]
    report = stored(pod, uid=uid)
    meta = {part: report["metadata"][part] for part in ("name", "namespace", "labels", "ownerReferences")}
    world.api.put({**report, "metadata": meta, "gateway": said})


def chain(world: Played) -> tuple[str, str]:
    return world.condition("ChainReachable", world.api.objects[V])[:2]


def writes(world: Played) -> int:
    return len(world.api.writes)


async def answering() -> Played:
    world = await started("dr-a")
    await act(world)
    return world


async def test_a_validator_shows_what_its_gateway_says_of_the_subnet() -> None:
    world = await answering()
    assert chain(world) == ("Unknown", "ChainNotReported")
    assert "miners" not in status(world)
    tell(world)
    await world.settle()
    assert (chain(world), status(world)["miners"]) == (("True", "ChainRead"), 3)
    before = writes(world)
    tell(world, block=1012)
    await world.settle()
    assert writes(world) == before, "that it holds still is nothing to write"
    tell(world, miners=4)
    await world.settle()
    assert status(world)["miners"] == 4
    tell(world, **AWAY)
    await world.settle()
    assert (chain(world), status(world)["miners"]) == (("False", "ChainUnreachable"), 3)
    assert world.condition("Ready", world.api.objects[V])[0] == "True", "patients are answered by the last metagraph"


async def test_a_report_that_grew_old_counts_no_more_and_one_that_comes_again_does() -> None:
    world = await answering()
    tell(world)
    await world.settle()
    validators = world.process._kinds["Validator"]
    due: list[tuple[Key, datetime]] = []
    validators.tools = replace(validators.tools, wake_at=lambda key, when: due.append((key, when)))
    await validators.reconcile(V)
    said = datetime.fromisoformat(world.api.objects[REPORTED]["gateway"]["reportedAt"])
    assert (V, said + timedelta(seconds=GATEWAY_STALE_SECONDS + 1)) in due
    tell(world, at=GATEWAY_STALE_SECONDS + 60)
    await world.settle()
    assert chain(world) == ("Unknown", "ReportStale")
    assert "miners" not in status(world)
    tell(world)
    await world.settle()
    assert (chain(world), status(world)["miners"]) == (("True", "ChainRead"), 3)


async def test_a_report_goes_with_its_pod() -> None:
    world = await answering()
    tell(world)
    await world.settle()
    world.api.drop(Key("Pod", NAMESPACE, "v-gateway-0"))
    assert REPORTED not in world.api.objects
    await world.settle()
    assert chain(world) == ("Unknown", "ChainNotReported")
    assert "miners" not in status(world)


async def test_only_a_gateway_of_the_validator_is_believed() -> None:
    world = await answering()
    tell(world, uid="uid-of-a-pod-that-had-the-name-before")
    world.start_pod("e1", component="engine")
    tell(world, "e1", miners=99)
    await world.settle()
    assert chain(world) == ("Unknown", "ChainNotReported")
    tell(world)
    await world.settle()
    assert status(world)["miners"] == 3


async def test_of_two_validators_each_has_its_own() -> None:
    """A report wakes the validator that its label names, and counts for the one whose label its pod bears."""
    world = await answering()
    tell(world)
    await world.settle()
    tell(world, miners=7)
    report: Manifest = world.api.objects[REPORTED]
    labels = {**report["metadata"]["labels"], names.LABEL_VALIDATOR: "w"}
    world.api.put({**report, "metadata": {**report["metadata"], "labels": labels}})
    await world.settle()
    assert chain(world) == ("Unknown", "ChainNotReported")


RAVINGS: list[Any] = [
    None, [], "x" * 10_000, {}, {"netuid": "none"}, {"reportedAt": "0001-01-01T00:00:00+23:59"},
    {**view().to_dict(), "block": 10**30}, {**view().to_dict(), "miners": -1, "message": ["x"]},
    {**view(**AWAY).to_dict(), "message": "\x1b]0;owned\x07" + "x" * 900},
]  # fmt: skip


async def test_a_gateway_that_lies_or_raves_harms_its_own_validator_at_most() -> None:
    """Its report is its pod's; what it says under another validator's label counts for nobody."""
    world = await answering()
    world.api.put(without_server_fields(validator_object("w")))
    await world.settle()
    await act(world)
    other = Key("Validator", NAMESPACE, "w")

    def of_the_other() -> tuple[Any, ...]:
        found = world.api.objects[other]
        return (*world.condition("ChainReachable", found)[:2], found["status"].get("miners"))

    def report(pod: str, said: Any, *, label: str) -> None:
        made = stored(pod, uid=world.api.objects[Key("Pod", NAMESPACE, pod)]["metadata"]["uid"])
        meta = {part: made["metadata"][part] for part in ("name", "namespace", "labels", "ownerReferences")}
        meta["labels"] = {**meta["labels"], names.LABEL_VALIDATOR: label}
        world.api.put({**made, "metadata": meta, "gateway": said})

    def now(**more: Any) -> dict[str, Any]:
        return view(**more).to_dict() | {"reportedAt": ago(0, now=datetime.now(UTC))}

    report("w-gateway-0", now(), label="w")
    await world.settle()
    assert of_the_other() == ("True", "ChainRead", 3)
    for raving in RAVINGS:
        for label in ("v", "w"):
            report("v-gateway-0", raving, label=label)
            await world.settle()
            assert of_the_other() == ("True", "ChainRead", 3), raving
    for lie in (now(miners=9, block=2**53), now(**AWAY)):
        report("v-gateway-0", lie, label="w")
        await world.settle()
        assert of_the_other() == ("True", "ChainRead", 3), lie
    # And the operator goes on: news of both are heard.
    report("v-gateway-0", now(miners=5), label="v")
    report("w-gateway-0", now(miners=4), label="w")
    await world.settle()
    assert (*chain(world), status(world)["miners"]) == ("True", "ChainRead", 5)
    assert of_the_other() == ("True", "ChainRead", 4)

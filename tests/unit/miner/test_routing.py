"""Which version and which pod answer."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from pathlib import Path

import pytest
from yarl import URL

from bettertherapy_api.routing import Version
from neurons.miner.chat import parse_chat
from neurons.miner.metrics import Metrics
from neurons.miner.rewrite import ModelName
from neurons.miner.selection import Spread, choose_pod, choose_version, load_share, usable_pods
from neurons.miner.sessions import session_of
from neurons.miner.tables import Pod, VersionRoute
from tests.unit.miner.fake_agent import FakeAgent
from tests.unit.miner.running_miner import RunningMiner, Twin, digest, eventually, held, version


def route(letter: str, weight: int) -> VersionRoute:
    served = f"indra-{letter * 8}"
    return VersionRoute(
        twin="indra",
        served_name=served,
        digest=digest(letter),
        weight=weight,
        model=ModelName(twin="indra", served_name=served, digest=digest(letter)),
    )


def pod(name: str, in_flight: int = 0) -> Pod:
    return Pod(name=name, uid=name, url=URL("http://127.0.0.1:1/"), in_flight=in_flight)


SESSIONS = [f"session-{n}".encode() for n in range(10_000)]


def test_sessions_spread_over_versions_by_weight() -> None:
    versions = [route("a", 90), route("b", 10)]
    share = sum(choose_version(versions, s) is versions[1] for s in SESSIONS) / len(SESSIONS)
    assert 0.085 < share < 0.115


def test_a_growing_weight_moves_sessions_only_to_the_growing_version() -> None:
    small, large = route("b", 10), route("b", 50)
    for session in SESSIONS[:2000]:
        if choose_version([route("a", 90), small], session) is small:
            assert choose_version([large, route("a", 50)], session) is large


def test_a_preferred_pod_under_its_share_is_kept() -> None:
    first, second = pod("a", in_flight=3), pod("b", in_flight=0)
    assert choose_pod([first, second]) is first


def test_a_preferred_pod_over_its_share_spills_to_the_next() -> None:
    first, second, third = pod("a", in_flight=12), pod("b", in_flight=0), pod("c", in_flight=0)
    assert choose_pod([first, second, third]) is second


def test_no_pod_gets_more_than_its_share() -> None:
    pods = [pod(str(n)) for n in range(4)]
    for _ in range(100):
        chosen = choose_pod(pods)
        assert chosen is not None
        assert chosen.in_flight < load_share(pods)
        chosen.in_flight += 1
    assert max(p.in_flight for p in pods) <= 32


def test_a_pod_that_failed_comes_last_until_it_is_forgiven() -> None:
    first, second = pod("a"), pod("b")
    first.failed(now=100.0)
    assert choose_pod(usable_pods([first, second], avoid=(), now=100.5)) is second
    assert choose_pod(usable_pods([first, second], avoid=(), now=101.5)) is first
    assert choose_pod(usable_pods([first], avoid=(), now=100.5)) is first


async def test_the_pods_that_a_twin_is_placed_on_are_asked_first_and_the_others_when_they_are_gone(
    tmp_path: Path,
) -> None:
    twins = [f"twin{n}" for n in range(8)]
    versions = {twin: version(twin, "a") for twin in twins}
    holds = held(*versions.values())
    async with (
        FakeAgent(pod="a", holds=holds) as a,
        FakeAgent(pod="b", holds=holds) as b,
        FakeAgent(pod="c", holds=holds) as c,
        RunningMiner(tmp_path) as miner,
    ):
        miner.report([a, b, c])
        for first, second in itertools.permutations("abc", 2):
            placed = (f"uid-{first}", "uid-gone", f"uid-{second}")
            miner.route({twin: Twin((versions[twin],), pods=placed) for twin in twins})
            snapshot = miner.service.tables.snapshot
            for twin in twins:
                order = [pod.name for pod in snapshot.pods_for(snapshot.twins[twin].active[0])]
                assert order[:2] == [first, second]
                assert len(order) == 3
        miner.route({twin: Twin((versions[twin],), pods=("uid-b",)) for twin in twins})
        for twin in twins:
            assert (await miner.ask(twin))[0] == 200
        assert (len(a.bodies), len(b.bodies), len(c.bodies)) == (0, 8, 0)
        miner.report([a, c])
        for twin in twins:
            assert (await miner.ask(twin))[0] == 200
        assert len(a.bodies) + len(c.bodies) == 8


async def test_a_twin_stays_on_one_pod_and_twins_spread(tmp_path: Path) -> None:
    twins = [f"twin{n}" for n in range(24)]
    versions = {twin: version(twin, "a") for twin in twins}
    async with (
        FakeAgent(pod="a", holds=held(*versions.values())) as a,
        FakeAgent(pod="b", holds=held(*versions.values())) as b,
        RunningMiner(tmp_path) as miner,
    ):
        miner.route({twin: Twin(versions=(v,)) for twin, v in versions.items()})
        miner.report([a, b])
        pods: dict[str, set[str]] = {}
        for twin, _ in itertools.product(twins, range(3)):
            status, headers, _ = await miner.ask(twin)
            assert status == 200
            pods.setdefault(twin, set()).add(headers["x-twin-pod"])
        assert all(len(names) == 1 for names in pods.values())
        assert min(Counter(next(iter(names)) for names in pods.values()).values()) >= 4


async def test_load_beyond_a_pods_share_goes_to_another(tmp_path: Path) -> None:
    v = version("indra", "a")
    gate = asyncio.Event()
    async with (
        FakeAgent(pod="a", holds=held(v), gate=gate) as a,
        FakeAgent(pod="b", holds=held(v), gate=gate) as b,
        RunningMiner(tmp_path) as miner,
    ):
        miner.route({"indra": Twin(versions=(v,))})
        miner.report([a, b])
        asked = [asyncio.create_task(miner.ask("indra")) for _ in range(40)]
        await eventually(lambda: a.running + b.running == 40)
        assert max(a.running, b.running) <= 26
        gate.set()
        assert {status for status, _, _ in await asyncio.gather(*asked)} == {200}


async def test_a_session_stays_on_its_version(tmp_path: Path) -> None:
    old, new = version("indra", "a", 50), version("indra", "b", 50)
    async with FakeAgent(pod="a", holds=held(old, new)) as agent, RunningMiner(tmp_path) as miner:
        miner.route({"indra": Twin(versions=(old, new))})
        miner.report([agent])
        seen = set()
        for session in range(12):
            served = set()
            for _ in range(4):
                _, headers, _ = await miner.ask("indra", headers={"x-session-id": f"s{session}"})
                served.add(headers["x-twin-served-name"])
            assert len(served) == 1
            seen |= served
        assert seen == {old.served_name, new.served_name}


async def test_the_bodys_user_is_a_session_and_never_reaches_the_engine(tmp_path: Path) -> None:
    old, new = version("indra", "a", 50), version("indra", "b", 50)
    async with FakeAgent(pod="a", holds=held(old, new)) as agent, RunningMiner(tmp_path) as miner:
        miner.route({"indra": Twin(versions=(old, new))})
        miner.report([agent])
        served = {(await miner.ask("indra", user="patient 7"))[1]["x-twin-served-name"] for _ in range(8)}
        assert len(served) == 1
        assert all("user" not in body for body in agent.bodies)


async def turns_of(miner: RunningMiner, number: int, **more: object) -> set[str]:
    """Ask ten turns of one conversation, as a client without any id does: the whole of it each time."""
    messages = [{"role": "user", "content": f"Conversation {number}: my head aches."}]
    served = set()
    for turn in range(10):
        _, headers, document = await miner.ask("indra", messages=messages, **more)
        served.add(headers["x-twin-served-name"])
        messages += [document["choices"][0]["message"], {"role": "user", "content": f"And in {turn} days?"}]
    return served


async def test_a_conversation_without_any_id_stays_on_its_version(tmp_path: Path) -> None:
    old, new = version("indra", "a", 50), version("indra", "b", 50)
    async with FakeAgent(pod="a", holds=held(old, new)) as agent, RunningMiner(tmp_path) as miner:
        miner.route({"indra": Twin(versions=(old, new))})
        miner.report([agent])
        served = [await turns_of(miner, number) for number in range(12)]
        assert {len(names) for names in served} == {1}
        assert len(set.union(*served)) == 2


@pytest.mark.parametrize("field", ["user", "safety_identifier", "prompt_cache_key"])
async def test_what_names_a_conversation_in_a_body_keeps_its_version(tmp_path: Path, field: str) -> None:
    old, new = version("indra", "a", 50), version("indra", "b", 50)
    async with FakeAgent(pod="a", holds=held(old, new)) as agent, RunningMiner(tmp_path) as miner:
        miner.route({"indra": Twin(versions=(old, new))})
        miner.report([agent])
        by_key = []
        for key in range(10):
            asked: list[dict[str, object]] = [{"text": f"{n}", field: f"key-{key}"} for n in range(4)]
            by_key.append({(await miner.ask("indra", **body))[1]["x-twin-served-name"] for body in asked})  # type: ignore[arg-type]
        assert {len(names) for names in by_key} == {1}
        assert len(set.union(*by_key)) == 2
        assert all(field not in body for body in agent.bodies)


def test_two_clients_never_share_a_conversation() -> None:
    asked = parse_chat(b'{"model": "indra", "messages": [{"role": "user", "content": "Hello"}], "user": "1"}')
    by_client = {session_of(asked, client=client, header=header) for client in ("a", "b") for header in (None, "1")}
    assert len(by_client) == 4


def test_sessions_of_a_twin_that_needs_several_pods_each_keep_theirs() -> None:
    pods = [pod(str(n)) for n in range(4)]
    chosen = {s: choose_pod(pods, session=s, width=3) for s in SESSIONS[:300]}
    assert Counter(p.name for p in chosen.values() if p).keys() == {"0", "1", "2"}
    assert min(Counter(p.name for p in chosen.values() if p).values()) > 60
    grown = {s: choose_pod(pods, session=s, width=4) for s in chosen}
    moved = [s for s in chosen if grown[s] is not chosen[s]]
    assert {grown[s] for s in moved} == {pods[3]}
    assert len(moved) < 130


def test_a_twin_takes_as_many_pods_as_its_load_needs_and_keeps_them_a_while() -> None:
    now = [0.0]
    spread, pods = Spread(clock=lambda: now[0]), [pod(str(n)) for n in range(4)]
    spread.begin("indra")
    assert spread.width("indra", pods) == 1
    for _ in range(11):
        spread.begin("indra")
    assert spread.width("indra", pods) == 3
    for _ in range(11):
        spread.end("indra")
    assert spread.width("indra", pods) == 3
    now[0] = 61.0
    assert spread.width("indra", pods) == 1


async def test_a_version_that_no_pod_holds_leaves_its_share_to_the_verified_one(tmp_path: Path) -> None:
    old, new = version("indra", "a", 50), version("indra", "b", 50)
    async with FakeAgent(pod="a", holds=held(old)) as agent, RunningMiner(tmp_path) as miner:
        miner.route({"indra": Twin(versions=(old, new))})
        miner.report([agent])
        for _ in range(10):
            status, headers, _ = await miner.ask("indra")
            assert (status, headers["x-twin-served-name"]) == (200, old.served_name)


async def test_a_pod_that_reports_another_digest_gets_nothing(tmp_path: Path) -> None:
    v = version("indra", "a")
    async with (
        FakeAgent(pod="a", holds={v.served_name: digest("b")}) as wrong,
        RunningMiner(tmp_path, hold_seconds=0.1) as miner,
    ):
        miner.route({"indra": Twin(versions=(v,))})
        miner.report([wrong])
        status, _, _ = await miner.ask("indra")
        assert status == 503
        assert wrong.bodies == []


async def test_a_twin_without_adapter_is_answered_by_the_base_model(tmp_path: Path) -> None:
    async with FakeAgent(pod="a") as agent, RunningMiner(tmp_path) as miner:
        miner.route({"indra": Twin(versions=(Version(served_name="base", weight_percent=100),))})
        miner.report([agent])
        status, headers, document = await miner.ask("indra")
        assert status == 200
        assert "x-twin-adapter-digest" not in headers
        assert document["model"] == "indra"
        assert document["bettertherapy"] == {"adapterDigest": None, "servedName": "base"}


def test_a_restarted_miner_counts_on_beside_what_it_had_counted() -> None:
    """Prometheus takes each series' largest value: of one series it would see the larger half only."""
    largest: dict[str, float] = {}
    for asked in (7, 5):
        metrics = Metrics()  # the process that came after
        for _ in range(asked):
            metrics.count("indra", "indra-aaaaaaaa", "200")
        for line in metrics.render().decode().splitlines():
            if line.startswith("bettertherapy_miner_requests_total{"):
                series, value = line.rsplit(" ", 1)
                largest[series] = max(largest.get(series, 0.0), float(value))
    assert sum(largest.values()) == 12


def test_series_of_a_version_are_dropped_when_forgotten() -> None:
    metrics = Metrics()
    metrics.count("indra", "indra-aaaaaaaa", "200")
    metrics.series("indra", "indra-aaaaaaaa").request_seconds.observe(1)
    metrics.forget("indra", "indra-aaaaaaaa")
    assert b"indra-aaaaaaaa" not in metrics.render()


def on_demand(*pods: str) -> Twin:
    return Twin(versions=(version("indra", "a"),), pods=pods, placement="OnDemand")


async def test_what_is_loaded_on_demand_is_asked_of_the_pod_that_holds_it(tmp_path: Path) -> None:
    async with (
        FakeAgent(pod="a") as home,
        FakeAgent(pod="b", holds=held(version("indra", "a"))) as holder,
        RunningMiner(tmp_path) as miner,
    ):
        miner.route({"indra": on_demand(home.uid)})
        miner.report([home, holder])
        assert (await miner.ask("indra"))[0] == 200
        assert (len(holder.bodies), home.refused) == (1, 0)


async def test_what_no_pod_holds_is_asked_of_the_pod_that_is_to_load_it(tmp_path: Path) -> None:
    async with FakeAgent(pod="a") as other, FakeAgent(pod="b") as home, RunningMiner(tmp_path) as miner:
        miner.route({"indra": on_demand(home.uid)})
        miner.report([other, home])
        async with miner.client.get("/v1/models") as response:
            [listed] = (await response.json())["data"]
        assert listed["bettertherapy"]["versions"][0]["pods"] == 0, "it is served, and no pod holds it"
        home.holds = held(version("indra", "a"))  # as by the first question
        assert (await miner.ask("indra"))[0] == 200
        assert (len(home.bodies), other.refused) == (1, 0)


async def test_where_the_pod_that_is_to_load_it_is_not_ready_another_is_asked(tmp_path: Path) -> None:
    async with FakeAgent(pod="a") as other, FakeAgent(pod="b", ready=False) as home, RunningMiner(tmp_path) as miner:
        miner.route({"indra": on_demand(home.uid)})
        miner.report([other, home])
        other.holds = held(version("indra", "a"))
        assert (await miner.ask("indra"))[0] == 200
        assert (len(other.bodies), home.refused) == (1, 0)


async def test_who_waits_for_a_pod_that_has_no_room_is_answered_once_it_has(tmp_path: Path) -> None:
    busy = {"x-twin-retry": "other-pod", "Retry-After": "1"}
    async with (
        FakeAgent(pod="a", status=503, error={"type": "Busy"}, marks=busy) as home,
        RunningMiner(tmp_path) as miner,
    ):
        miner.route({"indra": on_demand(home.uid)})
        miner.report([home])
        home.holds = held(version("indra", "a"))
        one = asyncio.create_task(miner.ask("indra"))
        await eventually(lambda: len(home.bodies) >= 1)
        home.status = 200
        assert (await one)[0] == 200


async def test_a_version_on_trial_is_asked_only_where_it_is_held(tmp_path: Path) -> None:
    async with FakeAgent(pod="a", holds=held(version("indra", "a"))) as home, RunningMiner(tmp_path) as miner:
        twin = Twin(
            versions=(version("indra", "a", 1), version("indra", "b", 99)), pods=(home.uid,), placement="OnDemand"
        )
        miner.route({"indra": twin})
        miner.report([home])
        for number in range(10):
            assert (await miner.ask("indra", text=str(number)))[0] == 200
        assert home.refused == 0

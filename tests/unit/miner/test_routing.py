"""Which version and which pod answer."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from pathlib import Path

from yarl import URL

from bettertherapy_api.routing import Version
from neurons.miner.metrics import Metrics
from neurons.miner.rewrite import ModelName
from neurons.miner.selection import choose_pod, choose_version, load_share
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
    assert choose_pod([first, second], avoid=(), now=0) is first


def test_a_preferred_pod_over_its_share_spills_to_the_next() -> None:
    first, second, third = pod("a", in_flight=12), pod("b", in_flight=0), pod("c", in_flight=0)
    assert choose_pod([first, second, third], avoid=(), now=0) is second


def test_no_pod_gets_more_than_its_share() -> None:
    pods = [pod(str(n)) for n in range(4)]
    for _ in range(100):
        chosen = choose_pod(pods, avoid=(), now=0)
        assert chosen is not None
        assert chosen.in_flight < load_share(pods)
        chosen.in_flight += 1
    assert max(p.in_flight for p in pods) <= 32


def test_a_pod_that_failed_comes_last_until_it_is_forgiven() -> None:
    first, second = pod("a"), pod("b")
    first.failed(now=100.0)
    assert choose_pod([first, second], avoid=(), now=100.5) is second
    assert choose_pod([first, second], avoid=(), now=101.5) is first
    assert choose_pod([first], avoid=(), now=100.5) is first


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


def test_series_of_a_version_are_dropped_when_forgotten() -> None:
    metrics = Metrics()
    metrics.count("indra", "indra-aaaaaaaa", "200")
    metrics.series("indra", "indra-aaaaaaaa").request_seconds.observe(1)
    metrics.forget("indra", "indra-aaaaaaaa")
    assert b"indra-aaaaaaaa" not in metrics.render()

"""Requests that no engine pod is there for are told to the operator at once, and only while they wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bettertherapy_api.report import PodRef
from neurons.miner.demand import LINGER_SECONDS, Demand
from neurons.miner.demand_report import report_demand
from neurons.miner.registration_report import report_standing
from neurons.miner.settings import Settings, SubnetSettings
from tests.unit.cluster.report_server import ReportServer, report_server
from tests.unit.miner.fake_agent import FakeAgent
from tests.unit.miner.running_miner import RunningMiner, Twin, eventually, eventually_async, held, version

POD = PodRef(name="p-miner-0", uid="uid-m")


@pytest.fixture
async def api() -> AsyncIterator[ReportServer]:
    async with report_server() as served:
        yield served


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_what_waits_at_one_table_after_another_is_one_demand() -> None:
    told: list[str | None] = []
    demand = Demand()
    demand.changed = lambda: told.append("changed")
    demand.begin()
    since = demand.report().held_since
    assert since is not None
    demand.end()
    demand.begin()
    assert demand.report().held_since == since
    demand.end()
    assert demand.report().held_since is None
    assert told[0] == "changed"


def test_what_was_turned_away_stands_until_a_pod_is_there_or_nobody_came_again() -> None:
    clock = Clock()
    demand = Demand(clock)
    demand.turned_away()
    assert demand.report().held_since is not None
    clock.now = LINGER_SECONDS + 1
    assert demand.report().held_since is None
    demand.turned_away()
    demand.met()
    assert demand.report().held_since is None


async def test_a_question_without_any_pod_is_held_told_and_answered_when_one_comes(
    tmp_path: Path, api: ReportServer
) -> None:
    v = version("dr-a", "a")
    async with FakeAgent(pod="a", holds=held(v)) as agent, RunningMiner(tmp_path, hold_seconds=20.0) as miner:
        demand = miner.service._demand
        reporting = asyncio.create_task(
            report_demand(demand, pod=POD, namespace="clinic", pool="pool", connect=api.connect)
        )
        miner.route({"dr-a": Twin(versions=(v,))})
        miner.report([])
        await eventually_async(lambda: _is(api, held=False))
        assert api.report is not None
        assert api.report["metadata"]["labels"]["bettertherapy.io/component"] == "miner-report"
        asked = [asyncio.create_task(miner.ask("dr-a")) for _ in range(10)]
        await eventually_async(lambda: _is(api, held=True))
        assert miner.metric("bettertherapy_miner_held") == 10
        writes = api.writes
        miner.report([agent])
        assert {(await each)[0] for each in asked} == {200}
        await eventually_async(lambda: _is(api, held=False))
        assert api.writes == writes + 1
        reporting.cancel()
        await asyncio.gather(reporting, return_exceptions=True)


async def test_requests_that_wait_for_a_busy_pod_wake_nobody(tmp_path: Path) -> None:
    v = version("dr-a", "a")
    async with FakeAgent(pod="a", holds={}) as agent, RunningMiner(tmp_path, hold_seconds=0.3) as miner:
        miner.route({"dr-a": Twin(versions=(v,))})
        miner.report([agent])  # it is ready, and doesn't hold this twin
        asked = asyncio.create_task(miner.ask("dr-a"))
        await eventually(lambda: miner.metric("bettertherapy_miner_held") == 1)
        assert miner.service._demand.report().held_since is None
        assert (await asked)[0] == 503


async def test_a_twin_without_a_verified_version_wakes_a_pool_without_pods(tmp_path: Path) -> None:
    async with RunningMiner(tmp_path) as miner:
        miner.route({"dr-a": Twin(versions=())})
        miner.report([])
        assert (await miner.ask("dr-a"))[0] == 503
        assert miner.service._demand.report().held_since is not None


async def test_an_api_server_that_refuses_is_asked_again(tmp_path: Path, api: ReportServer) -> None:
    api.refuses = True
    demand = Demand()
    demand.begin()
    reporting = asyncio.create_task(
        report_demand(demand, pod=POD, namespace="clinic", pool="pool", connect=api.connect)
    )
    await asyncio.sleep(0)
    api.refuses = False
    await eventually_async(lambda: _is(api, held=True))
    reporting.cancel()
    await asyncio.gather(reporting, return_exceptions=True)


async def _is(api: ReportServer, *, held: bool) -> bool:
    said: Any = api.report
    return said is not None and ("heldSince" in said["demand"]) is held


class Subnet:
    """A miner's subnet, of which nothing is known yet."""

    def __init__(self) -> None:
        self.news = asyncio.Event()

    def standing(self) -> None:
        return None


async def test_a_miner_with_a_wallet_tells_of_it_before_it_knows_its_place(tmp_path: Path, api: ReportServer) -> None:
    subnet, demand = Subnet(), Demand()
    demand.changed = subnet.news.set
    given = Settings(
        pool="pool", namespace="clinic", access_secret="pool-access", wakes=True,
        subnet=SubnetSettings(wallet_dir=tmp_path, netuid=42, pod_name=POD.name, pod_uid=POD.uid),
    )  # fmt: skip
    reporting = asyncio.create_task(
        report_standing(given, subnet, demand=demand, connect=api.connect)  # type: ignore[arg-type]
    )
    demand.begin()
    await eventually_async(lambda: _is(api, held=True))
    demand.end()
    await eventually_async(lambda: _is(api, held=False))
    assert api.report is not None
    assert "subnet" not in api.report
    reporting.cancel()
    await asyncio.gather(reporting, return_exceptions=True)

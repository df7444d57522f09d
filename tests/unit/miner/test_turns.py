"""Full engines' places are shared by twins: one that floods delays itself, and leaves no place empty."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from neurons.miner.settings import parse
from tests.unit.miner.fake_agent import FakeAgent
from tests.unit.miner.running_miner import RunningMiner, Twin, eventually, eventually_async, held, version

FLOOD, LIGHT, THIRD = version("indra", "a"), version("asha", "b"), version("bina", "c")
TWINS = {each: Twin(versions=(of,)) for each, of in {"indra": FLOOD, "asha": LIGHT, "bina": THIRD}.items()}


def pod(name: str, *, gate: asyncio.Event) -> FakeAgent:
    return FakeAgent(pod=name, holds=held(FLOOD, LIGHT, THIRD), gate=gate)


@asynccontextmanager
async def full_engine(
    tmp_path: Path, *, running: int | None = 4, flood: int = 20, **settings: Any
) -> AsyncIterator[tuple[RunningMiner, FakeAgent, list[asyncio.Task[Any]]]]:
    """An engine that runs so many at once, all of them of one twin, of which more wait."""
    async with pod("a", gate=asyncio.Event()) as agent, RunningMiner(tmp_path, **settings) as miner:
        miner.running = running
        miner.route(TWINS)
        miner.report([agent])
        tasks = [asyncio.create_task(miner.ask("indra")) for _ in range(flood)]
        await eventually(lambda: agent.running + waiting(miner) == flood)
        yield miner, agent, tasks
        release(agent)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def waiting(miner: RunningMiner) -> float:
    return miner.metric("bettertherapy_miner_held")


def release(agent: FakeAgent) -> None:
    assert agent.gate is not None
    agent.gate.set()


def order(agent: FakeAgent) -> list[str]:
    """Return whose questions the engine got, in order."""
    return [body["model"].rpartition("-")[0] for body in agent.bodies]


async def test_no_more_than_the_engine_runs_is_sent_to_it_and_no_place_stays_empty(tmp_path: Path) -> None:
    async with full_engine(tmp_path) as (miner, agent, tasks):
        assert (agent.running, waiting(miner)) == (4, 16)
        release(agent)
        assert {(await each)[0] for each in tasks} == {200}
        assert agent.most_running == 4
        assert waiting(miner) == 0
        assert miner.metric("bettertherapy_miner_turn_seconds_count") == 16


async def test_who_comes_beside_a_flood_has_the_next_place(tmp_path: Path) -> None:
    async with full_engine(tmp_path) as (miner, agent, tasks):
        one = asyncio.create_task(miner.ask("asha"))
        await eventually(lambda: waiting(miner) == 17)
        release(agent)
        assert (await one)[0] == 200
        await asyncio.gather(*tasks)
        assert order(agent).index("asha") <= 5


async def test_alone_a_twin_has_all_places(tmp_path: Path) -> None:
    async with full_engine(tmp_path, running=16, flood=40) as (_, agent, __):
        assert agent.running == 16


async def test_beside_others_a_flood_leaves_an_eighth_of_the_places_to_them(tmp_path: Path) -> None:
    async with full_engine(tmp_path, running=16, flood=0) as (miner, agent, _):
        others = [asyncio.create_task(miner.ask("asha"))]
        await eventually(lambda: agent.running == 1)
        flood = [asyncio.create_task(miner.ask("indra")) for _ in range(40)]
        await eventually(lambda: agent.running + waiting(miner) == 41)
        assert agent.running == 14
        others += [asyncio.create_task(miner.ask("asha")) for _ in range(2)]
        await eventually(lambda: agent.running == 16)
        release(agent)
        assert {(await each)[0] for each in (*others, *flood)} == {200}


async def test_without_a_word_on_what_engines_run_all_is_sent_at_once(tmp_path: Path) -> None:
    async with full_engine(tmp_path, running=None) as (miner, agent, _):
        assert (agent.running, waiting(miner)) == (20, 0)


async def test_places_go_by_weight(tmp_path: Path) -> None:
    async with full_engine(tmp_path, twin_weights={"asha": 3.0}) as (miner, agent, tasks):
        others = [asyncio.create_task(miner.ask("asha")) for _ in range(15)]
        await eventually(lambda: waiting(miner) == 31)
        release(agent)
        assert {(await each)[0] for each in (*tasks, *others)} == {200}
        first = order(agent)[4:20]
        assert first.count("asha") == pytest.approx(12, abs=1)


async def test_who_has_waited_its_time_is_told_when_to_ask_again(tmp_path: Path) -> None:
    async with full_engine(tmp_path, flood=4, turn_seconds=0.2) as (miner, _, __):
        status, headers, document = await miner.ask("asha")
        assert (status, headers["Retry-After"], document["error"]["code"]) == (429, "1", "overloaded")
        assert "asha" in document["error"]["message"]
        assert miner.metric("bettertherapy_miner_turned_away_total") == 1
        assert waiting(miner) == 0


async def test_a_flood_that_waits_keeps_no_other_from_waiting(tmp_path: Path) -> None:
    async with full_engine(tmp_path, flood=12, max_held=8) as (miner, agent, tasks):
        status, headers, document = await miner.ask("indra")
        assert (status, document["error"]["code"]) == (429, "overloaded")
        assert int(headers["Retry-After"]) >= 1
        one = asyncio.create_task(miner.ask("asha"))
        await eventually(lambda: waiting(miner) == 9)
        release(agent)
        assert {(await each)[0] for each in (*tasks, one)} == {200}


async def test_clients_that_leave_while_they_wait_take_no_place_along(tmp_path: Path) -> None:
    async with full_engine(tmp_path) as (miner, agent, tasks):
        for task in tasks:
            task.cancel()
        await eventually(lambda: agent.running + waiting(miner) == 0)
        release(agent)
        assert [(await miner.ask("asha"))[0] for _ in range(5)] == [200] * 5
        assert sum(each.in_flight for each in miner.service.tables.snapshot.ready_pods) == 0


async def test_a_pod_that_comes_takes_what_waits(tmp_path: Path) -> None:
    async with full_engine(tmp_path, flood=8) as (miner, agent, _), pod("b", gate=asyncio.Event()) as second:
        miner.report([agent, second])
        await eventually(lambda: second.running == 4)
        release(second)


async def test_what_waits_at_a_pod_that_goes_waits_at_the_other(tmp_path: Path) -> None:
    async with full_engine(tmp_path, flood=8) as (miner, agent, _), pod("b", gate=asyncio.Event()) as second:
        release(second)
        one = asyncio.create_task(miner.ask("asha"))
        await eventually(lambda: waiting(miner) == 5)
        agent.ready = False
        miner.report([agent, second])
        assert (await one)[0] == 200
        await eventually(lambda: waiting(miner) == 0)
        assert agent.running == 4


async def test_an_engine_that_runs_more_by_a_new_table_is_sent_more(tmp_path: Path) -> None:
    async with full_engine(tmp_path) as (miner, agent, _):
        miner.running = 16
        miner.route(TWINS)
        await eventually(lambda: agent.running == 16)


async def test_a_deleted_twins_questions_leave_the_line(tmp_path: Path) -> None:
    async with full_engine(tmp_path, flood=6) as (miner, agent, tasks):
        one = asyncio.create_task(miner.ask("asha"))
        await eventually(lambda: waiting(miner) == 3)
        miner.route({name: twin for name, twin in TWINS.items() if name != "asha"})
        assert (await one)[0] == 404
        release(agent)
        assert {(await each)[0] for each in tasks} == {200}


@pytest.mark.parametrize("given", ["asha", "asha=", "asha=0", "asha=-1", "asha=nan", "=2", "asha=2,bina"])
def test_weights_that_are_none_are_refused_in_words(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--pool", "p", "--twin-weights", given], {})
    assert "TWIN=WEIGHT" in capsys.readouterr().err


def test_weights_are_read() -> None:
    assert parse(["--pool", "p", "--twin-weights", "asha=2,bina=0.5"], {}).twin_weights == {"asha": 2.0, "bina": 0.5}


async def another_client(miner: RunningMiner) -> dict[str, str]:
    """Return the headers of a second client, once it is known."""
    (miner.access_dir / "quiet").write_text("another-token-of-good-length\n")
    headers = {"Authorization": "Bearer another-token-of-good-length"}

    async def is_known() -> bool:
        async with miner.client.get("/v1/models", headers=headers) as response:
            return response.status == 200

    await eventually_async(is_known)
    return headers


@pytest.mark.parametrize("most", [{"max_held": 8}, {"max_in_flight": 12}], ids=["to wait", "to run"])
async def test_of_one_twin_a_client_that_takes_all_places_keeps_no_other_out(
    tmp_path: Path, most: dict[str, int]
) -> None:
    async with full_engine(tmp_path, flood=12, **most) as (miner, agent, tasks):
        headers = await another_client(miner)
        assert (await miner.ask("indra"))[0] == 429
        one = asyncio.create_task(miner.ask("indra", headers=headers))
        await eventually(lambda: waiting(miner) == 9)
        release(agent)
        assert {(await each)[0] for each in (*tasks, one)} == {200}


async def test_of_one_twin_a_client_that_floods_keeps_no_other_client_waiting(tmp_path: Path) -> None:
    async with full_engine(tmp_path) as (miner, agent, tasks):
        headers = await another_client(miner)
        one = asyncio.create_task(miner.ask("indra", text="the quiet one's", headers=headers))
        await eventually(lambda: waiting(miner) == 17)
        release(agent)
        assert (await one)[0] == 200
        await asyncio.gather(*tasks)
        said = [body["messages"][-1]["content"] for body in agent.bodies]
        assert said.index("the quiet one's") <= 5

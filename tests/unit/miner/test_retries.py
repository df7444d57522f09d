"""Requests move, wait and survive: other pods, newer tables, swaps under load."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from bettertherapy_api.routing import Version
from tests.unit.miner.fake_agent import FakeAgent
from tests.unit.miner.running_miner import TOKEN, RunningMiner, Twin, eventually, held, version

OLD, NEW = version("indra", "a"), version("indra", "b")


async def preferred_first(miner: RunningMiner, *agents: FakeAgent) -> list[FakeAgent]:
    """Return the agents in the twin's order."""
    miner.report(agents)
    snapshot = miner.service.tables.snapshot
    order = [pod.name for pod in snapshot.pods_for(snapshot.twins["indra"].active[0])]
    return sorted(agents, key=lambda agent: order.index(agent.pod))


@asynccontextmanager
async def two_pods(folder: Path, **settings: Any) -> AsyncIterator[tuple[RunningMiner, FakeAgent, FakeAgent]]:
    """Yield a miner and two pods that hold the twin's version, the preferred one first."""
    async with (
        FakeAgent(pod="a", holds=held(OLD)) as a,
        FakeAgent(pod="b", holds=held(OLD)) as b,
        RunningMiner(folder, **settings) as miner,
    ):
        miner.route({"indra": Twin(versions=(OLD,))})
        first, second = await preferred_first(miner, a, b)
        yield miner, first, second


@pytest.mark.parametrize("fault", ["not_here", "draining", "gone", "breaks_off", "forgot", "forgot_in_old_vllm"])
async def test_a_pod_that_fails_before_the_first_byte_is_passed_over(tmp_path: Path, fault: str) -> None:
    async with two_pods(tmp_path) as (miner, first, second):
        reason = "adapter_not_here"
        match fault:
            case "not_here":
                first.holds = {}
            case "draining":
                first.draining, reason = True, "pod_draining"
            case "gone":
                await first.__aexit__()
                reason = "connect"
            case "breaks_off":
                first.break_off, reason = True, "reset"
            case "forgot":
                first.status, first.error = 404, {"type": "NotFoundError"}
            case "forgot_in_old_vllm":
                first.status, first.error = 400, {"type": "NotFoundError"}
        for stream in (False, True):
            body = {"model": "indra", "messages": [{"role": "user", "content": "x"}], "stream": stream}
            async with miner.client.post("/v1/chat/completions", json=body) as response:
                assert response.status == 200
                assert response.headers["x-twin-pod"] == second.pod
                await response.read()
        assert miner.metric("bettertherapy_miner_retries_total", reason=reason) >= 1


async def test_an_answer_by_another_adapter_is_not_forwarded(tmp_path: Path) -> None:
    async with two_pods(tmp_path) as (miner, first, second):
        first.marks = {"x-twin-adapter-digest": str(NEW.digest)}
        second.marks = {"x-twin-adapter-digest": str(OLD.digest)}
        status, headers, _ = await miner.ask("indra")
        assert (status, headers["x-twin-pod"]) == (200, second.pod)


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_names_no_adapter_is_not_forwarded(tmp_path: Path, stream: bool) -> None:
    async with two_pods(tmp_path, hold_seconds=0.2) as (miner, first, second):
        first.names_adapter = False
        body = {"model": "indra", "messages": [{"role": "user", "content": "x"}], "stream": stream}
        async with miner.client.post("/v1/chat/completions", json=body) as response:
            assert (response.status, response.headers["x-twin-pod"]) == (200, second.pod)
        second.names_adapter = False
        async with miner.client.post("/v1/chat/completions", json=body) as response:
            assert response.status == 503
        assert miner.metric("bettertherapy_miner_retries_total", reason="adapter_not_here") >= 3


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("answer", [b"<html>ok</html>", b'"ok"', b"{}", b'{"choices": []}', b'{"choices": [{"index"'])
async def test_what_is_no_answer_is_not_forwarded(tmp_path: Path, answer: bytes, stream: bool) -> None:
    async with two_pods(tmp_path) as (miner, first, second):
        first.answer = answer
        body = {"model": "indra", "messages": [{"role": "user", "content": "x"}], "stream": stream}
        async with miner.client.post("/v1/chat/completions", json=body) as response:
            assert (response.status, response.headers["x-twin-pod"]) == (200, second.pod)
        second.answer = answer
        async with miner.client.post("/v1/chat/completions", json=body) as response:
            assert (response.status, (await response.json())["error"]["code"]) == (502, "engine_broke_off")


async def test_a_whole_answer_that_was_stopped_in_the_middle_is_not_forwarded(tmp_path: Path) -> None:
    async with two_pods(tmp_path) as (miner, first, second):
        first.finish = "abort"
        status, headers, document = await miner.ask("indra")
        assert (status, headers["x-twin-pod"]) == (200, second.pod)
        second.finish = "abort"
        status, _, document = await miner.ask("indra")
        assert (status, document["error"]["code"]) == (502, "engine_broke_off")


async def test_a_500_ends_nothing_while_another_pod_is_busy_for_a_moment(tmp_path: Path) -> None:
    busy = {"x-twin-retry": "other-pod", "Retry-After": "1"}
    async with two_pods(tmp_path) as (miner, first, second):
        first.status, first.error = 500, {"type": "InternalServerError", "message": "x"}
        second.status, second.error, second.marks = 503, {"type": "Busy"}, busy
        asked = asyncio.create_task(miner.ask("indra"))
        await eventually(lambda: len(second.bodies) >= 3)
        second.status, second.marks = 200, {}
        status, headers, _ = await asked
        assert (status, headers["x-twin-pod"], len(first.bodies)) == (200, second.pod, 1)


@pytest.mark.parametrize("status", [429, 503])
async def test_an_engine_that_is_full_for_a_moment_is_waited_for(tmp_path: Path, status: int) -> None:
    full = {"type": "TooManyRequests", "message": "full"}
    async with FakeAgent(pod="a", holds=held(OLD), status=status, error=full) as agent, RunningMiner(tmp_path) as miner:
        miner.route({"indra": Twin(versions=(OLD,))})
        miner.report([agent])
        asked = asyncio.create_task(miner.ask("indra"))
        await eventually(lambda: len(agent.bodies) >= 2)
        agent.status = 200
        assert (await asked)[0] == 200


@pytest.mark.parametrize("status", [429, 503])
async def test_an_engine_that_stays_full_is_told_with_a_retry_after(tmp_path: Path, status: int) -> None:
    full = {"type": "TooManyRequests", "message": "full"}
    async with (
        FakeAgent(pod="a", holds=held(OLD), status=status, error=full) as agent,
        RunningMiner(tmp_path, hold_seconds=0.2) as miner,
    ):
        miner.route({"indra": Twin(versions=(OLD,))})
        miner.report([agent])
        answered, headers, document = await miner.ask("indra")
        assert (answered, document) == (status, {"error": full})
        assert int(headers["Retry-After"]) > 0
        assert "x-should-retry" not in headers


async def test_an_error_event_that_says_full_is_waited_for_as_its_status_is(tmp_path: Path) -> None:
    full = b'data: {"error": {"message": "full", "type": "TooManyRequests", "code": 429}}\n\n'
    async with (
        FakeAgent(pod="a", holds=held(OLD), events=[full]) as agent,
        RunningMiner(tmp_path, hold_seconds=1.5) as miner,
    ):
        miner.route({"indra": Twin(versions=(OLD,))})
        miner.report([agent])
        body = {"model": "indra", "messages": [{"role": "user", "content": "x"}], "stream": True}
        async with miner.client.post("/v1/chat/completions", json=body) as response:
            assert response.status == 429
            assert int(response.headers["Retry-After"]) > 0
        assert len(agent.bodies) >= 2


async def test_a_stream_cut_before_its_first_event_moves(tmp_path: Path) -> None:
    async with two_pods(tmp_path) as (miner, first, second):
        first.cut_after = 0
        body = {"model": "indra", "messages": [{"role": "user", "content": "x"}], "stream": True}
        async with miner.client.post("/v1/chat/completions", json=body) as response:
            assert (await response.read()).endswith(b"data: [DONE]\n\n")
            assert response.headers["x-twin-pod"] == second.pod


async def test_a_request_that_kills_engines_does_not_go_through_all_of_them(tmp_path: Path) -> None:
    agents = [FakeAgent(pod=str(n), holds=held(OLD), break_off=True) for n in range(5)]
    async with RunningMiner(tmp_path) as miner:
        for agent in agents:
            await agent.__aenter__()
        miner.route({"indra": Twin(versions=(OLD,))})
        miner.report(agents)
        status, headers, document = await miner.ask("indra")
        assert (status, document["error"]["code"]) == (502, "engine_broke_off")
        assert headers["x-should-retry"] == "false"
        assert sum(len(agent.bodies) for agent in agents) == 3
        for agent in agents:
            await agent.__aexit__()


async def test_a_500_moves_to_another_pod(tmp_path: Path) -> None:
    async with two_pods(tmp_path) as (miner, first, second):
        first.status, first.error = 500, {"type": "InternalServerError", "message": "CUDA error"}
        status, headers, _ = await miner.ask("indra")
        assert (status, headers["x-twin-pod"]) == (200, second.pod)
        assert miner.metric("bettertherapy_miner_retries_total", reason="engine_error") == 1


async def test_a_500_that_every_pod_gives_is_passed_on_once_each_was_asked(tmp_path: Path) -> None:
    error = {"type": "InternalServerError", "message": "this image is odd", "code": 500}
    async with (
        FakeAgent(pod="a", holds=held(OLD), status=500, error=error) as a,
        FakeAgent(pod="b", holds=held(OLD), status=500, error=error) as b,
        RunningMiner(tmp_path) as miner,
    ):
        miner.route({"indra": Twin(versions=(OLD,))})
        miner.report([a, b])
        status, headers, document = await miner.ask("indra")
        assert (status, document) == (500, {"error": error})
        assert headers["x-should-retry"] == "false"
        assert (len(a.bodies), len(b.bodies)) == (1, 1)


@pytest.mark.parametrize("fault", ["breaks_off", "500", "error_event"])
async def test_openais_client_makes_no_more_of_three_attempts(tmp_path: Path, fault: str) -> None:
    """It repeats a failed call twice by itself: with three attempts each, one call would go through nine engines."""
    agents = [FakeAgent(pod=str(n), holds=held(OLD)) for n in range(6)]
    async with AsyncExitStack() as stack:
        for agent in agents:
            await stack.enter_async_context(agent)
            agent.break_off = fault == "breaks_off"
            agent.status = 500 if fault == "500" else 200
            agent.events = (
                [b'data: {"error": {"message": "dead", "code": 500}}\n\n'] if fault == "error_event" else None
            )
        miner = await stack.enter_async_context(RunningMiner(tmp_path))
        miner.route({"indra": Twin(versions=(OLD,))})
        miner.report(agents)
        async with openai.AsyncOpenAI(base_url=miner.url + "/v1", api_key=TOKEN) as client:
            with pytest.raises(openai.InternalServerError):
                await client.chat.completions.create(
                    model="indra", messages=[{"role": "user", "content": "x"}], stream=fault == "error_event"
                )
        assert sum(len(agent.bodies) for agent in agents) == 3


async def test_an_engine_that_is_busy_is_passed_over_and_its_retry_after_kept(tmp_path: Path) -> None:
    async with two_pods(tmp_path) as (miner, first, second):
        first.status, first.marks = 429, {"Retry-After": "17"}
        assert (await miner.ask("indra"))[0] == 200
        second.status, second.marks = 429, {"Retry-After": "17"}
        status, headers, _ = await miner.ask("indra")
        assert (status, headers["Retry-After"]) == (429, "17")
        assert "x-should-retry" not in headers


async def test_pods_that_are_all_busy_are_a_429(tmp_path: Path) -> None:
    busy = {"x-twin-retry": "other-pod", "Retry-After": "2"}
    async with (
        FakeAgent(pod="a", holds=held(OLD), status=503, error={"type": "Busy"}, marks=busy) as agent,
        RunningMiner(tmp_path, hold_seconds=0.2) as miner,
    ):
        miner.route({"indra": Twin(versions=(OLD,))})
        miner.report([agent])
        status, headers, document = await miner.ask("indra")
        assert (status, headers["Retry-After"], document["error"]["code"]) == (429, "2", "overloaded")


async def test_more_requests_than_the_miner_takes_are_a_429(tmp_path: Path) -> None:
    async with FakeAgent(pod="a", holds=held(OLD)) as agent, RunningMiner(tmp_path, max_in_flight=0) as miner:
        miner.route({"indra": Twin(versions=(OLD,))})
        miner.report([agent])
        status, headers, document = await miner.ask("indra")
        assert (status, headers["Retry-After"], document["error"]["code"]) == (429, "1", "overloaded")


async def test_one_twins_flood_turns_no_other_twins_patients_away(tmp_path: Path) -> None:
    light = version("asha", "c")
    async with (
        FakeAgent(pod="a", holds=held(OLD, light), gate=asyncio.Event()) as agent,
        RunningMiner(tmp_path, max_in_flight=8) as miner,
    ):
        miner.route({"indra": Twin(versions=(OLD,)), "asha": Twin(versions=(light,))})
        miner.report([agent])
        flood = [asyncio.create_task(miner.ask("indra")) for _ in range(8)]
        await eventually(lambda: agent.running == 8)
        status, headers, document = await miner.ask("indra")
        assert (status, headers["Retry-After"], document["error"]["code"]) == (429, "1", "overloaded")
        assert "indra" in document["error"]["message"]
        one = asyncio.create_task(miner.ask("asha"))
        await eventually(lambda: agent.running == 9 or one.done())
        assert agent.gate is not None
        agent.gate.set()
        assert (await one)[0] == 200
        assert [(await each)[0] for each in flood] == [200] * 8


async def test_several_twins_floods_turn_no_other_twins_patients_away(tmp_path: Path) -> None:
    others, light = version("bina", "b"), version("asha", "c")
    async with (
        FakeAgent(pod="a", holds=held(OLD, others, light), gate=asyncio.Event()) as agent,
        RunningMiner(tmp_path, max_in_flight=8) as miner,
    ):
        miner.route({name: Twin(versions=(of,)) for name, of in {"indra": OLD, "bina": others, "asha": light}.items()})
        miner.report([agent])
        flood = [asyncio.create_task(miner.ask("indra")) for _ in range(8)]
        await eventually(lambda: agent.running == 8)
        flood.append(asyncio.create_task(miner.ask("bina")))
        await eventually(lambda: agent.running == 9)
        one = asyncio.create_task(miner.ask("asha"))
        await eventually(lambda: agent.running == 10 or one.done())
        assert agent.gate is not None
        agent.gate.set()
        assert (await one)[0] == 200
        assert [(await each)[0] for each in flood] == [200] * 9


async def test_a_twin_that_no_pod_holds_keeps_no_other_from_waiting(tmp_path: Path) -> None:
    light = version("asha", "c")
    async with (
        FakeAgent(pod="a", holds=held(OLD, light)) as agent,
        RunningMiner(tmp_path, max_held=8) as miner,
    ):
        miner.route({"indra": Twin(versions=(OLD,)), "asha": Twin(versions=(light,))})
        miner.report([])
        flood = [asyncio.create_task(miner.ask("indra")) for _ in range(8)]
        await eventually(lambda: miner.metric("bettertherapy_miner_held") == 8)
        assert (await miner.ask("indra"))[0] == 429
        one = asyncio.create_task(miner.ask("asha"))
        await eventually(lambda: miner.metric("bettertherapy_miner_held") == 9 or one.done())
        miner.report([agent])
        assert (await one)[0] == 200
        assert [(await each)[0] for each in flood] == [200] * 8


async def test_a_pod_is_told_whose_question_it_is(tmp_path: Path) -> None:
    async with FakeAgent(pod="a") as agent, RunningMiner(tmp_path) as miner:
        miner.route({"indra": Twin(versions=(Version(served_name="base", weight_percent=100),))})
        miner.report([agent])
        assert (await miner.ask("indra"))[0] == 200
        assert agent.headers[-1]["x-twin-name"] == "indra"


async def test_a_request_waits_while_the_pool_scales_from_zero(tmp_path: Path) -> None:
    async with FakeAgent(pod="a", holds=held(OLD)) as agent, RunningMiner(tmp_path) as miner:
        miner.route({"indra": Twin(versions=(OLD,))})
        miner.report([])
        asked = asyncio.create_task(miner.ask("indra"))
        await eventually(lambda: miner.metric("bettertherapy_miner_held") == 1)
        began = time.monotonic()
        miner.report([agent])
        assert (await asked)[0] == 200
        assert time.monotonic() - began < 4.0  # the miner looks for itself after 5 s
        assert miner.metric("bettertherapy_miner_held") == 0


async def test_a_request_that_waited_in_vain_is_told_to_come_back(tmp_path: Path) -> None:
    async with RunningMiner(tmp_path, hold_seconds=0.1) as miner:
        miner.route({"indra": Twin(versions=(OLD,))})
        miner.report([])
        status, headers, document = await miner.ask("indra")
        assert status == 503
        assert int(headers["Retry-After"]) > 0
        assert document["error"]["code"] == "no_pod_ready"
        assert "kubectl describe twin indra" in document["error"]["message"]


async def test_no_more_than_max_held_wait(tmp_path: Path) -> None:
    async with FakeAgent(pod="a", holds=held(OLD)) as agent, RunningMiner(tmp_path, max_held=2) as miner:
        miner.route({"indra": Twin(versions=(OLD,))})
        miner.report([])
        waiting = [asyncio.create_task(miner.ask("indra")) for _ in range(2)]
        await eventually(lambda: miner.metric("bettertherapy_miner_held") == 2)
        status, headers, document = await miner.ask("indra")
        assert (status, document["error"]["code"]) == (429, "overloaded")
        assert int(headers["Retry-After"]) > 0
        miner.report([agent])
        assert [status for status, _, _ in await asyncio.gather(*waiting)] == [200, 200]


async def test_a_twin_without_any_version_is_not_waited_for(tmp_path: Path) -> None:
    async with RunningMiner(tmp_path) as miner:
        miner.route({"indra": Twin(versions=())})
        miner.report([])
        status, _, document = await miner.ask("indra")
        assert (status, document["error"]["code"]) == (503, "twin_not_ready")


async def test_a_stale_report_is_retried_until_the_pod_holds_it(tmp_path: Path) -> None:
    async with FakeAgent(pod="a", holds=held(OLD)) as agent, RunningMiner(tmp_path) as miner:
        miner.route({"indra": Twin(versions=(OLD,))})
        miner.report([agent])
        agent.holds = {}
        asked = asyncio.create_task(miner.ask("indra"))
        await eventually(lambda: agent.refused >= 2)
        agent.holds = held(OLD)
        assert (await asked)[0] == 200


async def test_a_restarted_agent_on_another_port_is_found(tmp_path: Path) -> None:
    async with RunningMiner(tmp_path) as miner:
        miner.route({"indra": Twin(versions=(OLD,))})
        async with FakeAgent(pod="a", holds=held(OLD)) as agent:
            miner.report([agent])
            assert (await miner.ask("indra"))[0] == 200
        asked = asyncio.create_task(miner.ask("indra"))
        await eventually(lambda: miner.metric("bettertherapy_miner_retries_total", reason="connect") >= 1)
        async with FakeAgent(pod="a2", holds=held(OLD)) as agent:
            miner.report([agent])
            assert (await asked)[0] == 200


async def test_a_thousand_swaps_under_load_fail_no_request(tmp_path: Path) -> None:
    """As the operator does it: new beside old → reports say verified → weight flips → old is unloaded."""
    swaps = 1000
    async with (
        FakeAgent(pod="a", holds=held(OLD)) as a,
        FakeAgent(pod="b", holds=held(OLD)) as b,
        RunningMiner(tmp_path) as miner,
    ):
        miner.route({"indra": Twin(versions=(OLD,))})
        miner.report([a, b])
        done = asyncio.Event()
        failed: list[object] = []
        answered: dict[str, int] = {}

        async def client(stream: bool) -> None:
            body = {"model": "indra", "messages": [{"role": "user", "content": "x"}], "stream": stream}
            while not done.is_set():
                async with miner.client.post("/v1/chat/completions", json=body) as response:
                    answer = await response.read()
                    served = response.headers.get("x-twin-served-name", "")
                    complete = answer.endswith(b"data: [DONE]\n\n") if stream else b"It is fine." in answer
                    if response.status != 200 or not complete:
                        failed.append((response.status, answer))
                    answered[served] = answered.get(served, 0) + 1

        clients = [asyncio.create_task(client(number % 2 == 0)) for number in range(8)]
        current = OLD
        for number in range(swaps):
            following = NEW if current is OLD else OLD
            for agent in (a, b):
                agent.holds = agent.holds | held(following)
            if number % 3 == 0:
                # Watches are not ordered against each other: at times the flip is seen before the reports are.
                miner.route({"indra": Twin(versions=(following,))})
                await asyncio.sleep(0)
                miner.report([a, b])
            else:
                miner.report([a, b])
                miner.route({"indra": Twin(versions=(following,))})
            await asyncio.sleep(0.002)
            for agent in (a, b):
                agent.holds = held(following)
            if number % 2 == 0:
                await asyncio.sleep(0.001)
            miner.report([a, b])
            current = following
        done.set()
        await asyncio.gather(*clients)
        assert failed == []
        assert min(answered[OLD.served_name], answered[NEW.served_name]) > 100

"""Small requests don't wait for large bodies that come together, nor a client's for another's."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from neurons.miner.body_turns import BodyTurns, takes_turns
from neurons.miner.chat import parse_chat
from neurons.miner.memory import RequestMemory, cost_of
from neurons.miner.sessions import session_of
from tests.bench.attackers import of_one_text, of_tiny_messages
from tests.unit.miner.fake_agent import FakeAgent
from tests.unit.miner.running_miner import RunningMiner, Twin, held, version

INDRA = version("indra", "a")


async def work(turns: BodyTurns, client: str, done: list[str], *, large: bool = True, seconds: float = 0.01) -> None:
    async with turns.turn(client, large=large):
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            pass
        done.append(client)


async def test_between_two_large_bodies_there_is_room_for_many_small_ones() -> None:
    turns, done = BodyTurns(), list[str]()
    large = [asyncio.create_task(work(turns, "a", done)) for _ in range(5)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert done == ["a"], "the others wait"
    for number in range(20):
        await work(turns, f"small {number}", done, large=False, seconds=0)
    assert len(done) == 21, "who is small waits for none of them"
    began = time.perf_counter()
    await asyncio.gather(*large)
    assert time.perf_counter() - began >= 3 * 4 * 0.01 * 0.9
    await asyncio.wait_for(work(turns, "a", done), 5)


async def test_who_sends_many_waits_for_its_own() -> None:
    turns, done = BodyTurns(), list[str]()
    many = [asyncio.create_task(work(turns, "many", done)) for _ in range(6)]
    await asyncio.sleep(0)
    one = asyncio.create_task(work(turns, "one", done))
    await asyncio.gather(*many, one)
    assert done.index("one") <= 2


async def test_who_leaves_while_waiting_keeps_nobody_waiting() -> None:
    turns, done = BodyTurns(), list[str]()
    first = asyncio.create_task(work(turns, "a", done))
    await asyncio.sleep(0)
    leaves = [asyncio.create_task(work(turns, "b", done)) for _ in range(3)]
    last = asyncio.create_task(work(turns, "c", done))
    await asyncio.sleep(0)
    for each in leaves:
        each.cancel()
    await asyncio.wait_for(asyncio.gather(first, last), 5)
    assert done == ["a", "c"]


async def test_a_turn_whose_client_leaves_as_it_is_given_goes_to_the_next() -> None:
    turns, done = BodyTurns(), list[str]()
    first = asyncio.create_task(work(turns, "a", done))
    await asyncio.sleep(0)
    leaves = asyncio.create_task(work(turns, "b", done))
    last = asyncio.create_task(work(turns, "c", done))
    await asyncio.sleep(0)
    [waits] = turns._waiting["b"]
    await waits  # it has the turn, and has not been resumed yet
    leaves.cancel()
    await asyncio.wait_for(asyncio.gather(first, last), 5)
    assert done[-1] == "c"


async def test_a_body_that_fails_ends_its_turn() -> None:
    turns, done = BodyTurns(), list[str]()
    with pytest.raises(ValueError, match="no"):
        async with turns.turn("a", large=True):
            raise ValueError("no")
    await asyncio.wait_for(work(turns, "b", done), 5)


async def test_a_miner_answers_small_questions_between_large_ones(tmp_path: Path) -> None:
    async with FakeAgent(pod="a", holds=held(INDRA)) as agent, RunningMiner(tmp_path) as miner:
        miner.route({"indra": Twin(versions=(INDRA,))})
        miner.report([agent])
        body = of_one_text(512 * 1024)

        async def large() -> int:
            headers = {"Content-Type": "application/json"}
            async with miner.client.post("/v1/chat/completions", data=body, headers=headers) as response:
                return response.status

        asking = [asyncio.create_task(large()) for _ in range(8)]
        assert (await miner.ask("indra"))[0] == 200
        assert [await each for each in asking] == [200] * 8


async def waited(turns: BodyTurns, large: bytes, *, counted: bool) -> float:
    """Return the longest that a small question waited beside 16 such bodies, in seconds of this thread's own time.

    `counted`: the large ones take turns.
    """
    small = of_one_text(300)
    memory, waits = RequestMemory(1 << 30, client_percent=100), list[float]()

    async def handle(body: bytes) -> None:
        with memory.request() as held_:
            async with turns.turn("patient", large=counted and takes_turns(body)):
                held_.prove("patient", body)
                session_of(parse_chat(body), client="patient", header=None)

    async def ask() -> None:
        began = time.thread_time()
        await asyncio.sleep(0)  # it comes with the large ones, in whatever order
        await handle(small)
        waits.append(time.thread_time() - began)

    await handle(small)
    asking = [asyncio.create_task(each) for _ in range(16) for each in (ask(), handle(large))]
    await asyncio.gather(*asking)
    return max(waits)


@pytest.mark.parametrize("body", [of_one_text(1024 * 1024), of_tiny_messages(15 * 1024)], ids=["a text", "messages"])
async def test_a_small_question_waits_for_one_large_body_and_not_for_all(body: bytes) -> None:
    """On a busy machine, too: what others take of the processor isn't counted."""
    together = min([await waited(BodyTurns(), body, counted=False) for _ in range(3)])
    in_turn = min([await waited(BodyTurns(), body, counted=True) for _ in range(3)])
    assert in_turn < together / 4, (in_turn, together)


def test_it_takes_no_longer_to_tell_what_devanagari_costs_than_plain_letters() -> None:
    """Each of its bytes begins or goes on with a character that might be a wider one."""

    def taken(body: bytes) -> float:
        best = 1.0
        for _ in range(9):
            began = time.thread_time()
            cost_of(body)
            best = min(best, time.thread_time() - began)
        return best

    size = 1024 * 1024
    assert taken(of_one_text(size, letter="\N{DEVANAGARI LETTER KA}")) < 2.5 * taken(of_one_text(size))

"""What requests hold of a miner's memory has bounds: of all, of each client, and whatever their bodies are made of."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from yarl import URL

from neurons.conversation import DEFAULT
from neurons.memory_limit import REQUEST_MEMORY_BYTES, request_memory
from neurons.miner import settings
from neurons.miner.asked import EngineRequest
from neurons.miner.chat import parse_chat
from neurons.miner.completions import parse_completion, parse_embedding
from neurons.miner.errors import RequestError
from neurons.miner.limits import Limits
from neurons.miner.memory import MOST_OF_ONE, REQUEST_BYTES, RequestMemory, cost_of
from neurons.miner.responses import parse_responses
from neurons.miner.settings import MAX_BODY_BYTES
from neurons.wire.signer import RequestSigner
from tests.unit.miner.engine_bodies import VERSION, twin_of
from tests.unit.miner.fake_agent import FakeAgent
from tests.unit.miner.running_miner import RunningMiner, Twin, eventually, eventually_async, held, version
from tests.unit.miner.signing_miner import CHAT, on_subnet, validator
from tests.unit.receipts.keyring import MINER, STRANGER, VALIDATOR

INDRA = version("indra", "a")
QUESTION = {"model": "indra", "messages": [{"role": "user", "content": "x" * (MAX_BODY_BYTES - 200)}]}
BODY = json.dumps(QUESTION).encode()
COST = cost_of(BODY)


class SlowBodies:
    """Bodies that stand still after their beginning until they are told to go on."""

    def __init__(self) -> None:
        self.begun, self.go_on = 0, asyncio.Event()

    async def one(self) -> AsyncIterator[bytes]:
        yield BODY[:1000]
        self.begun += 1
        await self.go_on.wait()
        yield BODY[1000:]


async def send(miner: RunningMiner, body: Any, *, length: int | None = None) -> tuple[int, dict[str, Any]]:
    headers = {"Content-Type": "application/json"} | ({"Content-Length": str(length)} if length is not None else {})
    async with miner.client.post("/v1/chat/completions", data=body, headers=headers) as response:
        return response.status, json.loads(await response.read())


@pytest.mark.parametrize("length", [len(BODY), None], ids=["with its length", "chunked"])
async def test_slow_large_bodies_are_bounded_and_keep_no_small_one_out(tmp_path: Path, length: int | None) -> None:
    bodies = SlowBodies()

    async with (
        FakeAgent(pod="a", holds=held(INDRA)) as agent,
        RunningMiner(tmp_path, request_memory_bytes=2 * COST + 4 * REQUEST_BYTES, client_memory_percent=100) as miner,
    ):
        miner.route({"indra": Twin(versions=(INDRA,))})
        miner.report([agent])
        slow = [asyncio.create_task(send(miner, bodies.one(), length=length)) for _ in range(2)]
        await eventually(lambda: bodies.begun == 2)
        status, document = await send(miner, BODY)
        assert (status, document["error"]["code"]) == (429, "overloaded")
        assert "of this client" in document["error"]["message"]
        assert (await miner.ask("indra"))[0] == 200
        bodies.go_on.set()
        assert [(await each)[0] for each in slow] == [200, 200]
        assert (await send(miner, BODY))[0] == 200


async def test_large_bodies_count_for_as_long_as_their_questions_wait(tmp_path: Path) -> None:
    async with (
        FakeAgent(pod="a", holds=held(INDRA)) as agent,
        RunningMiner(tmp_path, request_memory_bytes=COST + 3 * REQUEST_BYTES, client_memory_percent=100) as miner,
    ):
        miner.route({"indra": Twin(versions=(INDRA,))})
        miner.report([])
        waits = asyncio.create_task(send(miner, BODY))
        await eventually(lambda: miner.metric("bettertherapy_miner_held") == 1)
        assert (await send(miner, BODY))[0] == 429
        miner.report([agent])
        assert (await waits)[0] == 200
        assert (await send(miner, BODY))[0] == 200


async def test_bodies_of_whoever_only_says_to_be_a_validator_keep_no_clients_body_out(tmp_path: Path) -> None:
    """A validator's hotkey is public: until its signature was seen, a body is a stranger's."""
    bodies = SlowBodies()
    room = {"request_memory_bytes": 4 * COST + 4 * REQUEST_BYTES, "client_memory_percent": 100}

    async def pretend(miner: RunningMiner) -> int:
        signer = RequestSigner(STRANGER)
        headers = signer.headers(method="POST", url=URL(CHAT), body=b"", receiver=MINER.ss58_address)
        headers |= {"X-Bittensor-Hotkey": VALIDATOR.ss58_address, "Content-Length": str(len(BODY))}
        async with miner.client.post(CHAT, data=bodies.one(), headers=headers) as response:
            return response.status

    async with (
        FakeAgent(pod="a", holds=held(INDRA)) as agent,
        RunningMiner(tmp_path, subnet=on_subnet(tmp_path), **room) as miner,
        validator(miner) as bob,
    ):
        miner.route({"indra": Twin(versions=(INDRA,))})
        miner.report([agent])
        await eventually(lambda: miner.metric("bettertherapy_miner_metagraph_age_seconds") != float("inf"))
        impostors = [asyncio.create_task(pretend(miner)) for _ in range(4)]
        await eventually(lambda: bodies.begun == 4)
        await eventually(lambda: sum(each.done() for each in impostors) == 2)
        assert (await send(miner, BODY))[0] == 200, "a token's client is known before its body is read"
        bodies.go_on.set()
        assert sorted(await asyncio.gather(*impostors)) == [401, 401, 503, 503]

        miner.report([])  # nobody answers now: questions wait, and with them their bodies
        large = [{"role": "user", "content": "x" * (MAX_BODY_BYTES - 400)}]
        proven = []
        for number in range(3):
            proven.append(asyncio.create_task(bob.ask(messages=large)))
            await eventually(lambda number=number: miner.metric("bettertherapy_miner_held") == number + 1)
        miner.report([agent])
        assert [(await each)[0] for each in proven] == [200] * 3, "once proven, a body has all the room"


# --- what a body costs

WIDE = Limits(messages=100_000, answers=128)
MESSAGE = '{"role":"user","content":"a"}'


def of(messages: str, **more: str) -> bytes:
    beside = "".join(f',"{name}":{value}' for name, value in more.items())
    return f'{{"model":"indra","messages":[{messages}]{beside}}}'.encode()


def parts(part: str, count: int) -> str:
    return f'{{"role":"user","content":[{",".join([part] * count)}]}}'


def text(value: str) -> str:
    return json.dumps({"role": "user", "content": value}, ensure_ascii=False)


def raw(value: str) -> str:
    return '{"role":"user","content":"' + value + '"}'


BODIES = {
    "tiny messages": of(",".join([MESSAGE] * 8000)),
    "tiny parts": of(parts('{"type":"text","text":"a"}', 8000)),
    "distinct texts": of(",".join(text(f"word {number}") for number in range(8000))),
    "a long text": of(text("word " * 50_000)),
    "an emoji in a long text": of(text("word " * 50_000 + "\N{GRINNING FACE}")),
    "an escaped emoji in a long text": of(raw("word " * 50_000 + "\\ud83d\\ude00")),
    "emojis": of(text("\N{GRINNING FACE}" * 60_000)),
    "devanagari": of(text("\N{DEVANAGARI LETTER KA} " * 60_000)),
    "empty objects": of(MESSAGE, metadata="[" + ",".join(["{}"] * 60_000) + "]"),
    "empty lists": of(MESSAGE, metadata="[" + ",".join(["[]"] * 60_000) + "]"),
    "nested lists": of(MESSAGE, metadata="[" + ",".join(["[[[[]]]]"] * 20_000) + "]"),
    "small objects": of(MESSAGE, metadata="[" + ",".join(['{"a":1}'] * 30_000) + "]"),
    "numbers": of(MESSAGE, metadata="[" + ",".join(["1.5"] * 60_000) + "]"),
    "large numbers": of(MESSAGE, metadata="[" + ",".join(["123456789012"] * 30_000) + "]"),
    "short texts": of(MESSAGE, metadata="[" + ",".join(f'"{number}"' for number in range(40_000)) + "]"),
    "members": of(MESSAGE, metadata="{" + ",".join(f'"{number}":0' for number in range(30_000)) + "}"),
    "calls": of(
        '{"role":"assistant","tool_calls":['
        + ",".join(['{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}'] * 3000) + "]}"
    ),
}  # fmt: skip


def resident_bytes() -> int:
    """What this process has in RAM now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measured(hold: Callable[[], object], copies: int = 24) -> int:
    """What one of so many results takes of a process's RAM, in a process of its own."""
    hold()  # the first time fills caches
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        gc.disable()
        before = resident_bytes()
        kept = [hold() for _ in range(copies)]
        os.write(writes, str((resident_bytes() - before) // len(kept)).encode())
        os._exit(0)
    os.close(writes)
    with os.fdopen(reads) as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    return int(told)


def of_route(parse: Callable[[bytes], EngineRequest], body: bytes) -> Callable[[], object]:
    """What a miner keeps of a body while an engine answers: what was read, and what was written."""

    def hold() -> object:
        asked = parse(bytes(bytearray(body)))
        return asked, asked.to_bytes(twin_of(), VERSION, DEFAULT)

    return hold


@pytest.mark.parametrize("kind", BODIES)
def test_no_request_takes_more_memory_than_it_is_counted_for(kind: str) -> None:
    body = BODIES[kind]
    assert measured(of_route(partial(parse_chat, limits=WIDE), body)) <= REQUEST_BYTES + cost_of(body)


LONG = json.dumps("word " * 50_000 + "\N{GRINNING FACE}", ensure_ascii=False)


@pytest.mark.parametrize(
    ("parse", "body"),
    [
        (parse_completion, f'{{"model":"indra","prompt":{LONG}}}'),
        (parse_completion, f'{{"model":"indra","prompt":[{",".join([LONG] * 3)}]}}'),
        (parse_embedding, f'{{"model":"indra","input":{LONG}}}'),
        (parse_responses, f'{{"model":"indra","input":{LONG}}}'),
        (partial(parse_responses, limits=WIDE), f'{{"model":"indra","input":[{",".join([MESSAGE] * 8000)}]}}'),
    ],
    ids=["completion", "completions", "embedding", "response", "response of tiny messages"],
)
def test_other_routes_requests_take_no_more_either(parse: Callable[[bytes], EngineRequest], body: str) -> None:
    assert measured(of_route(parse, body.encode())) <= REQUEST_BYTES + cost_of(body.encode())


def test_an_everyday_question_is_not_counted_for_much_more_than_it_is() -> None:
    paragraph = "I have had a cough since Monday, with some fever at night, and my mother, who is 80, has it, too. "
    body = of(",".join(text(paragraph * 20) for _ in range(20)))
    assert cost_of(body) < 10 * len(body)


async def test_nine_bodies_of_tiny_messages_don_t_fill_a_miner(tmp_path: Path) -> None:
    """A patient's token, a mebibyte each: they took all of a miner's 256 MiB."""
    body = of(",".join([MESSAGE] * (MAX_BODY_BYTES // (len(MESSAGE) + 1) - 10)))
    assert MAX_BODY_BYTES * 0.95 < len(body) < MAX_BODY_BYTES
    async with RunningMiner(tmp_path) as miner:
        miner.route({"indra": Twin(versions=(INDRA,))})
        tracemalloc.start()
        answers = await asyncio.gather(*(send(miner, body) for _ in range(9)))
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert {status for status, _ in answers} == {413}
    assert "too many values" in answers[0][1]["error"]["message"]
    assert most < 9 * 6 * MAX_BODY_BYTES


async def test_what_one_client_holds_leaves_room_for_others(tmp_path: Path) -> None:
    question = of(",".join([MESSAGE] * 500))
    share = 8 * (cost_of(question) + REQUEST_BYTES)
    async with (
        FakeAgent(pod="a", holds=held(INDRA)) as agent,
        RunningMiner(tmp_path, request_memory_bytes=2 * share, hold_seconds=10) as miner,
    ):
        other = "another-token-of-good-length"
        (miner.access_dir / "other").write_text(other)
        await eventually(lambda: miner.metric("bettertherapy_miner_clients") == 2)
        miner.route({"indra": Twin(versions=(INDRA,))})
        miner.report([])  # nobody answers now: questions wait, and hold what they do
        waiting = [asyncio.create_task(send(miner, question)) for _ in range(300)]
        await eventually(lambda: sum(each.done() for each in waiting) >= 290)
        refused = [each.result() for each in waiting if each.done()]
        assert {(status, document["error"]["code"]) for status, document in refused} == {(429, "overloaded")}
        headers = {"Authorization": f"Bearer {other}"}
        others = [asyncio.create_task(miner.ask("indra", headers=headers)) for _ in range(20)]
        await eventually(lambda: miner.metric("bettertherapy_miner_held") >= 20)
        miner.report([agent])
        assert [(await each)[0] for each in others] == [200] * 20


async def test_one_client_has_so_many_requests_at_once_and_no_more(tmp_path: Path) -> None:
    async with (
        FakeAgent(pod="a", holds=held(INDRA)) as agent,
        RunningMiner(tmp_path, client_requests=3, hold_seconds=10) as miner,
    ):
        miner.route({"indra": Twin(versions=(INDRA,))})
        miner.report([])
        waiting = [asyncio.create_task(miner.ask("indra")) for _ in range(3)]
        await eventually(lambda: miner.metric("bettertherapy_miner_held") == 3)
        status, headers, document = await miner.ask("indra")
        assert (status, headers["Retry-After"]) == (429, "1")
        assert "one client may have so many" in document["error"]["message"]
        miner.report([agent])
        assert [(await each)[0] for each in waiting] == [200] * 3
        assert (await miner.ask("indra"))[0] == 200


async def test_three_clients_that_flood_leave_a_quiet_one_its_question(tmp_path: Path) -> None:
    body = json.dumps({"model": "indra", "messages": [{"role": "user", "content": "x" * 60_000}]}).encode()
    room = 30 * (REQUEST_BYTES + 4 * len(body)) + REQUEST_BYTES // 2
    go_on = asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield body[:1000]
        await go_on.wait()
        yield body[1000:]

    async with (
        FakeAgent(pod="a", holds=held(INDRA)) as agent,
        RunningMiner(tmp_path, request_memory_bytes=room) as miner,
    ):
        for name in ("flood0", "flood1", "flood2"):
            (miner.access_dir / name).write_text(f"{name}-has-a-token\n")
        miner.route({"indra": Twin(versions=(INDRA,))})
        miner.report([agent])

        async def one(client: str) -> int:
            headers = {"Authorization": f"Bearer {client}-has-a-token", "Content-Length": str(len(body))}
            async with miner.client.post("/v1/chat/completions", data=slowly(), headers=headers) as response:
                return response.status

        async def is_known() -> bool:
            async with miner.client.get("/v1/models", headers={"Authorization": "Bearer flood2-has-a-token"}) as answer:
                return answer.status == 200

        await eventually_async(is_known)
        floods = [asyncio.create_task(one(f"flood{number}")) for number in range(3) for _ in range(16)]
        await eventually(lambda: sum(each.done() for each in floods) >= 3 * 16 - 30)
        assert {each.result() for each in floods if each.done()} <= {429, 503}
        status, _, document = await miner.ask("indra")
        assert status == 200, document
        go_on.set()
        await asyncio.gather(*floods)


def hold(memory: RequestMemory, client: str, size: int) -> int:
    """Let a client hold as many requests of so many bytes as it may; returns how many."""
    for count in range(10_000):
        try:
            memory.check(client, size)
        except RequestError:
            return count
        memory.change(client, size)
    raise AssertionError("there is no end to it")


@pytest.mark.parametrize("clients", [1, 2, 3, 10, 40])
@pytest.mark.parametrize("size", [REQUEST_BYTES, 264 * 1024, 4 * MAX_BODY_BYTES])
def test_however_many_clients_flood_one_that_holds_nothing_has_room(clients: int, size: int) -> None:
    memory = RequestMemory(REQUEST_MEMORY_BYTES)
    shares = [hold(memory, f"flood{number}", size) * size for number in range(clients)]
    assert shares[0] > REQUEST_MEMORY_BYTES // 2 - size - 1, "one alone has its half"
    assert memory.held <= REQUEST_MEMORY_BYTES
    assert hold(memory, "quiet", REQUEST_BYTES + 20_000) >= 2
    other = RequestMemory(REQUEST_MEMORY_BYTES)
    for _ in range(REQUEST_MEMORY_BYTES // size):
        for number in range(clients):  # who come together share alike
            with suppress(RequestError):
                other.check(f"flood{number}", size)
                other.change(f"flood{number}", size)
    had = [other.of_client(f"flood{number}") for number in range(clients)]
    assert max(had) - min(had) <= size
    assert hold(other, "quiet", REQUEST_BYTES + 20_000) >= 2


def test_a_client_that_holds_more_than_its_share_is_told_of_the_others() -> None:
    memory = RequestMemory(REQUEST_MEMORY_BYTES)
    for client in ("a", "b", "c"):
        memory.change(client, REQUEST_MEMORY_BYTES // 5)
    with pytest.raises(RequestError) as refused:
        memory.check("a", REQUEST_MEMORY_BYTES // 5)
    assert (refused.value.status, refused.value.code) == (429, "overloaded")
    assert "3 clients hold something" in refused.value.message
    with pytest.raises(RequestError) as full:
        memory.check("d", REQUEST_MEMORY_BYTES // 3)
    assert full.value.status == 503, "it holds nothing, and others have it all"


def test_all_that_was_counted_is_given_back() -> None:
    memory = RequestMemory(10 * MAX_BODY_BYTES)
    body = of(MESSAGE)
    with memory.request() as one, memory.request() as other:
        one.prove("clinic", body)
        one.grow(5000)
        other.prove("hotkey:x", body)
        assert memory.of_client("clinic") == REQUEST_BYTES + cost_of(body) + 5000
        with pytest.raises(RequestError) as refused:
            one.grow(6 * MAX_BODY_BYTES)
        assert (refused.value.status, refused.value.retry_after) == (429, 5)
        with pytest.raises(RequestError):
            other.prove("hotkey:x", of(",".join(["{}"] * (MOST_OF_ONE // 400))))
    assert (memory.held, memory.unproven, memory.of_client("clinic")) == (0, 0, 0)


def test_a_body_that_waits_for_its_turn_is_its_senders_once_that_one_is_known() -> None:
    memory = RequestMemory(10 * MAX_BODY_BYTES)
    with memory.request() as one:
        memory.change(None, 5000)
        one._size = 5000  # as `read` leaves it of whom only the body tells
        one.own("hotkey:x")
        assert (memory.unproven, memory.of_client("hotkey:x")) == (0, 5000)
        one.own("hotkey:y")
        assert memory.of_client("hotkey:y") == 0
    assert (memory.held, memory.unproven) == (0, 0)


def test_what_is_full_for_all_is_said_to_be_so() -> None:
    memory = RequestMemory(4 * MAX_BODY_BYTES, client_percent=100)
    with memory.request() as one, memory.request() as other:
        one.prove("clinic", of(MESSAGE))
        one.grow(3 * MAX_BODY_BYTES)
        other.prove("b", of(MESSAGE))
        with pytest.raises(RequestError) as refused:
            other.grow(MAX_BODY_BYTES)
    assert (refused.value.status, refused.value.code, refused.value.retry_after) == (503, "overloaded", 5)


def test_what_requests_may_hold_follows_the_pods_limit() -> None:
    mebibyte = 1024 * 1024
    room = [request_memory(limit * mebibyte, beside=settings.OWN_BYTES) for limit in (128, 256, 512, 1024)]
    assert room == sorted(room)
    assert all(limit * mebibyte > 64 * mebibyte + each for limit, each in zip((128, 256, 512, 1024), room, strict=True))
    assert request_memory(512 * mebibyte, beside=settings.OWN_BYTES + 128 * mebibyte) < room[2]
    assert request_memory(None, beside=settings.OWN_BYTES) == REQUEST_MEMORY_BYTES
    given = settings.parse(["--pool", "p", f"--memory-limit-bytes={512 * mebibyte}", "--client-requests=7"], {})
    assert (given.request_memory_bytes, given.client_requests) == (room[2], 7)

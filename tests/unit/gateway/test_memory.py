"""What questions, answers and conversations hold of a gateway's memory has bounds: of all, and of each client."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from neurons.ledger import patient_digest
from neurons.miner.memory import REQUEST_BYTES, RequestMemory, cost_of
from neurons.miner.settings import MAX_BODY_BYTES
from neurons.validator.gateway import service, settings
from neurons.validator.gateway.chat import Chats
from neurons.validator.gateway.keys import new_key
from neurons.validator.gateway.request import parse
from neurons.validator.gateway.sessions import MAX_ALL_CHARACTERS, MAX_CHARACTERS, Ids, Session, Sessions
from tests.unit.gateway.rogue_miner import RogueMiner
from tests.unit.gateway.running_gateway import RunningGateway, gateway
from tests.unit.gateway.test_keys import bearer
from tests.unit.miner.running_miner import eventually
from tests.unit.miner.test_memory import BODIES, MESSAGE, SlowBodies, measured, of
from tests.unit.pages.browsing import pages

TINY = of(",".join([MESSAGE] * (MAX_BODY_BYTES // (len(MESSAGE) + 1) - 10)))
LARGE = json.dumps({"model": "indra", "messages": [{"role": "user", "content": "x" * (MAX_BODY_BYTES - 200)}]}).encode()
ROUTES = ("/v1/chat/completions", "/v1/ratings", "/v1/sessions", "/v1/preferences")


async def send(running: RunningGateway, path: str, body: Any, **headers: str) -> tuple[int, str]:
    """Return status and message."""
    async with running.client.post(path, data=body, headers=headers) as response:
        document = await response.json()
        return response.status, document.get("error", {}).get("message", "")


@pytest.mark.parametrize("path", ROUTES)
async def test_nine_bodies_of_tiny_messages_don_t_fill_a_gateway(tmp_path: Path, path: str) -> None:
    async with gateway(tmp_path, names=()) as running:
        tracemalloc.start()
        answers = await asyncio.gather(*(send(running, path, TINY) for _ in range(9)))
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert most < 9 * 6 * MAX_BODY_BYTES
        assert {status for status, _ in answers} == {413}
        assert all("too many values" in said for _, said in answers)
        if path in ROUTES[:2]:
            assert all("emergency" in said for _, said in answers), "it isn't read what it tells of"


async def test_what_one_key_sends_leaves_room_for_others(tmp_path: Path) -> None:
    """Bodies that stand still after their beginning, of one key."""
    bodies, other = SlowBodies(), new_key()
    room = {"request_memory_bytes": 10 * MAX_BODY_BYTES}
    async with gateway(tmp_path, names=("Alice",), keys={"other": {"key": other}}, settings=room) as running:
        slow = [
            asyncio.create_task(
                send(running, "/v1/chat/completions", bodies.one(), **{"Content-Length": str(len(LARGE))})
            )
            for _ in range(3)
        ]
        await eventually(lambda: sum(each.done() for each in slow) == 2)
        refused = [each.result() for each in slow if each.done()]
        assert {status for status, _ in refused} == {429}
        assert all("of this client" in said and "emergency" in said for _, said in refused)
        assert (await running.ask())[0] == 200, "a small one has room"
        assert (await running.ask(headers=bearer(other)))[0] == 200
        bodies.go_on.set()
        await asyncio.gather(*slow)
        assert (await running.ask())[0] == 200


async def test_what_visitors_of_the_pages_send_is_counted_too(tmp_path: Path) -> None:
    body = json.dumps({"text": "x" * 900_000}).encode()
    room = {"request_memory_bytes": 10 * MAX_BODY_BYTES}
    async with (
        pages(tmp_path, names=(), settings=room) as running,
        running.browser() as browser,
        running.browser() as other,
    ):
        await browser.get("/doctor/indra")
        begun = asyncio.Event()
        go_on = asyncio.Event()

        async def slowly() -> Any:
            yield body[:1000]
            begun.set()
            await go_on.wait()
            yield body[1000:]

        given = {"X-Form-Token": browser.token, "Content-Type": "application/json", "Content-Length": str(len(body))}

        async def one(data: Any) -> int:
            async with browser.session.post("/doctor/indra/ask", data=data, headers=given) as response:
                return response.status

        slow = asyncio.create_task(one(slowly()))
        await begun.wait()
        assert await one(body) == 429
        await other.get("/doctor/indra")
        assert (await other.submit("/language", {"language": "ne"}))[0] == 200
        go_on.set()
        assert await slow == 400


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[RequestMemory]:
    """What a gateway counts by, once it runs."""
    made: list[RequestMemory] = []

    def make(most: int, **settings: Any) -> RequestMemory:
        made.append(RequestMemory(most, **settings))
        return made[-1]

    monkeypatch.setattr(service, "RequestMemory", make)
    return made


async def test_large_bodies_of_some_visitors_keep_no_small_question_of_others_out(
    tmp_path: Path, counted: list[RequestMemory]
) -> None:
    body = json.dumps({"text": "x" * 100_000}).encode()
    room = {"request_memory_bytes": 16 * MAX_BODY_BYTES}
    async with (
        pages(tmp_path, names=(), settings=room) as running,
        running.browser() as browser,
        running.browser() as other,
    ):
        await browser.get("/doctor/indra")
        await other.get("/doctor/indra")
        go_on = asyncio.Event()

        async def slowly() -> Any:
            yield body[:1000]
            await go_on.wait()
            yield body[1000:]

        given = {"X-Form-Token": browser.token, "Content-Type": "application/json", "Content-Length": str(len(body))}

        async def one() -> int:
            async with browser.session.post("/doctor/indra/ask", data=slowly(), headers=given) as response:
                return response.status

        share, cost = 8 * MAX_BODY_BYTES, REQUEST_BYTES + 4 * len(body)
        flood = [asyncio.create_task(one()) for _ in range(2 * share // cost)]
        await eventually(lambda: sum(each.done() for each in flood) + counted[0].held // cost == len(flood))
        assert {each.result() for each in flood if each.done()} == {429}
        long = json.dumps({"text": "x" * 6_000})
        # What the flood left of a share that it may take as a whole is less than this one takes.
        assert counted[0].held + REQUEST_BYTES + 4 * len(long) < share - cost
        assert (await other.submit("/language", {"language": "ne"}))[0] == 200
        go_on.set()
        await asyncio.gather(*flood)
        assert counted[0].held == 0


async def test_three_keys_that_flood_leave_a_quiet_one_its_question(
    tmp_path: Path, counted: list[RequestMemory]
) -> None:
    """What one key may hold falls as others hold something, and the last of it is for those that hold little."""
    body = json.dumps({"model": "indra", "messages": [{"role": "user", "content": "x" * 60_000}]}).encode()
    cost = REQUEST_BYTES + 4 * len(body)
    keys = {f"flood{number}": {"key": new_key()} for number in range(3)} | {"quiet": {"key": new_key()}}
    room = {"request_memory_bytes": 30 * cost + REQUEST_BYTES // 2}
    async with gateway(tmp_path, names=("Alice",), keys=keys, settings=room) as running:
        go_on = asyncio.Event()

        async def slowly() -> Any:
            yield body[:1000]
            await go_on.wait()
            yield body[1000:]

        async def one(key: str) -> tuple[int, str]:
            given = {"Authorization": f"Bearer {key}", "Content-Length": str(len(body))}
            return await send(running, "/v1/chat/completions", slowly(), **given)

        floods = [asyncio.create_task(one(keys[f"flood{number}"]["key"])) for number in range(3) for _ in range(16)]
        [memory] = counted
        await eventually(lambda: sum(each.done() for each in floods) + memory.held // cost == len(floods))
        assert {each.result()[0] for each in floods if each.done()} <= {429, 503}
        assert all(memory.of_client(f"flood{number}") for number in range(3)), "each has something"
        status, _, document = await running.ask(headers=bearer(keys["quiet"]["key"]))
        assert status == 200, document
        go_on.set()
        await asyncio.gather(*floods)
        assert memory.held == 0


async def test_nothing_stays_counted_however_a_request_ends(
    tmp_path: Path, counted: list[RequestMemory], monkeypatch: pytest.MonkeyPatch
) -> None:
    room = {"request_memory_bytes": 12 * MAX_BODY_BYTES}
    miner = RogueMiner(gate=asyncio.Event())
    async with gateway(tmp_path, names=(), rogues=[miner], settings=room) as running:
        [memory] = counted
        assert miner.gate is not None
        miner.gate.set()
        chat = ROUTES[0]

        async def ended() -> None:
            await eventually(lambda: (memory.held, memory.unproven, memory.of_client("clinic")) == (0, 0, 0))
            assert running.metric("in_flight") == 0

        assert (await running.ask())[0] == 200
        await ended()
        assert (await running.stream())[0] == 200
        await ended()
        for body, headers, status in (
            (TINY, {}, 413), (b"{", {}, 400), (b"x", {"Content-Encoding": "gzip"}, 400),
            (LARGE, {"Authorization": "Bearer nobody"}, 401),
        ):  # fmt: skip
            assert (await send(running, chat, body, **headers))[0] == status
            await ended()
        assert (await running.ask(model="nobody"))[0] == 404
        await ended()
        miner.gate.clear()
        for leaving in (
            lambda: send(running, chat, SlowBodies().one(), **{"Content-Length": str(len(LARGE))}),
            running.ask,
            running.stream,
        ):
            task = asyncio.create_task(leaving())
            await eventually(lambda: memory.held > 0)
            task.cancel()
            await ended()

        async def breaks(*_: Any, **__: Any) -> Any:
            raise ZeroDivisionError

        monkeypatch.setattr(Chats, "answer", breaks)
        assert (await running.ask())[0] == 500
        await ended()


async def test_miners_large_answers_are_counted_with_their_question(tmp_path: Path) -> None:
    """Three miners, a megabyte each: more than this gateway has for one question."""
    says = "word " * 150_000
    rogues = [RogueMiner(name=name, says=says) for name in ("Eve", "Ferdie", "Mallory")]
    room = {"request_memory_bytes": 12 * MAX_BODY_BYTES}
    async with gateway(tmp_path, names=("Alice",), rogues=rogues, settings=room) as running:
        await running.ask()
        assert running.outcomes("noRoom") >= 1
        assert running.metric("in_flight") == 0
        assert (await running.ask())[0] in (200, 503)


# --- what a question costs


def of_question(body: bytes) -> Callable[[], object]:
    """What a gateway keeps of a body while miners answer: what was read, and what was written for them."""

    def hold() -> object:
        asked = parse(bytes(bytearray(body)))
        return asked, asked.to_miners(asked.messages)

    return hold


@pytest.mark.parametrize("kind", ["a long text", "emojis", "devanagari", "an escaped emoji in a long text"])
def test_no_question_takes_more_memory_than_it_is_counted_for(kind: str) -> None:
    assert measured(of_question(BODIES[kind])) <= REQUEST_BYTES + cost_of(BODIES[kind])


def test_what_requests_may_hold_follows_the_pods_limit() -> None:
    gibibyte = 1024 * MAX_BODY_BYTES
    paths = ["--keys-file=k", "--metagraph-file=m"]
    room = [
        settings.parse([*paths, f"--memory-limit-bytes={limit * gibibyte}"], {}).request_memory_bytes
        for limit in (1, 2, 4)
    ]
    assert room == sorted(room)
    assert all(limit * gibibyte > settings.OWN_BYTES + each for limit, each in zip((2, 4), room[1:], strict=True))


# --- conversations


def sessions() -> Sessions:
    return Sessions(Ids(b"s" * 32), None, uid_of=lambda _: None)


def said(session: Session, content: Any, answer: str = "Rest.") -> None:
    session.said([{"role": "user", "content": content}], answer, anew=False)


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "text", "text": "x" * 60_000}],
        [{"type": "text", "text": "x"}] * 1000,
        "x" * 60_000,
    ],
    ids=["one part", "many parts", "a text"],
)  # fmt: skip
def test_a_conversations_words_are_counted_however_they_are_sent(content: Any) -> None:
    session = sessions().create(key_id="clinic", twin="indra")
    for _ in range(32):
        said(session, content)
    assert len(json.dumps(session.messages)) <= 1.2 * MAX_CHARACTERS
    assert session.messages, "the newest stays"


def test_all_conversations_together_are_bounded_and_the_newest_stay() -> None:
    known = sessions()
    made = []
    for _ in range(2 * MAX_ALL_CHARACTERS // 60_000):
        session = known.create(key_id="clinic", twin="indra")
        said(session, "x" * 60_000)
        known.grew(session)
        made.append(session)
    left = known.of_key("clinic")
    assert sum(each.characters for each in left) <= MAX_ALL_CHARACTERS
    assert known.characters == sum(each.characters for each in left)
    assert left[0] is made[-1]
    assert len(left) > 1
    known.forget([patient_digest(each.patient_id) for each in made])
    assert (known.characters, known.of_key("clinic")) == (0, [])
    known.grew(made[-1])
    assert known.of_key("clinic") == [], "a question in work brings back nobody who was erased"

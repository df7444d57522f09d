"""In an emergency the notice comes first, whatever the miners say, and when they say nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai
import pytest

from neurons.receipts import answer_of, decode
from neurons.validator.gateway.chat import NOBODY
from neurons.validator.gateway.keys import new_key
from tests.unit.gateway.rogue_miner import RogueMiner
from tests.unit.gateway.running_gateway import PATIENCE, gateway
from tests.unit.miner.engine_pods import events, text
from tests.unit.miner.running_miner import eventually

CHEST = "I have chest pain and my left arm is numb"


async def test_the_notice_stands_before_the_answer_and_the_receipt_holds_for_the_rest(tmp_path: Path) -> None:
    async with gateway(tmp_path, names=("Alice",)) as running:
        _, headers, document = await running.ask(CHEST)
        content = document["choices"][0]["message"]["content"]
        notice = document["bettertherapy"]["notice"]
        assert notice["kinds"][0] == "heart"
        assert content.endswith("It is fine.")
        assert len(content) > len("It is fine.") + 10
        receipt = decode(headers["x-bettertherapy-receipt"])
        assert receipt.answer == answer_of([content[notice["characters"] :]])
        assert running.metric("emergencies_total", kind="heart") == 1
        assert running.miners[0].agent.bodies[0]["messages"][-1]["content"] == CHEST


async def test_in_a_stream_it_comes_before_any_miner_answers(tmp_path: Path) -> None:
    async with gateway(tmp_path, names=("Alice",)) as running:
        _, _, document = await running.ask(CHEST)
        gate = running.miners[0].agent.gate = asyncio.Event()
        asked = {"model": "indra", "messages": [{"role": "user", "content": CHEST}], "stream": True}
        async with running.client.post("/v1/chat/completions", json=asked) as response:
            first = await response.content.readuntil(b"\n\n")
            notice = text(events(first))
            assert notice.strip()
            gate.set()
            rest = await response.read()
        assert notice + text(events(rest)) == document["choices"][0]["message"]["content"]
        assert events(rest)[-1] == "[DONE]"


async def test_it_comes_also_when_every_miner_fails(tmp_path: Path) -> None:
    failing = RogueMiner(status=500)
    async with gateway(tmp_path, names=(), rogues=[failing]) as running:
        status, headers, document = await running.ask(CHEST)
        assert status == 200, "a client would hide the notice behind an error"
        content = document["choices"][0]["message"]["content"]
        notice = document["bettertherapy"]["notice"]
        assert content[: notice["characters"]].strip()
        assert "not by the doctor" in content
        assert document["bettertherapy"]["answered"] is False
        assert document["bettertherapy"]["error"]["code"] == "no_answer"
        assert "x-bettertherapy-receipt" not in headers
        assert running.metric("requests_total", twin="indra", code="503") == 1
        client = openai.AsyncOpenAI(base_url=f"{running.url}/v1", api_key=running.key, max_retries=0)
        said = ""
        async for chunk in await client.chat.completions.create(
            model="indra", messages=[{"role": "user", "content": CHEST}], stream=True
        ):
            said += "".join(choice.delta.content or "" for choice in chunk.choices)
        assert said == content


async def test_it_comes_when_nobody_serves_the_twin(tmp_path: Path) -> None:
    async with gateway(tmp_path, names=()) as running:
        status, _, document = await running.ask(CHEST)
        assert status == 200
        assert document["bettertherapy"]["notice"]["characters"] > 0
        assert (await running.ask("Hello"))[0] == 404


async def test_it_comes_when_all_hang(tmp_path: Path) -> None:
    hanging = RogueMiner(gate=asyncio.Event())
    async with gateway(tmp_path, names=(), rogues=[hanging], patience=replace(PATIENCE, deadline=0.2)) as running:
        _, sent = await running.stream(CHEST)
        got = events(sent.encode())
        assert got[-1] == "[DONE]"
        assert "not by the doctor" in text(got)


async def test_rules_that_fail_keep_nobody_from_an_answer(tmp_path: Path) -> None:
    from neurons.validator.gateway import notices

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("I have chest pain")

    assess, notices.assess = notices.assess, broken  # type: ignore[assignment]
    try:
        async with gateway(tmp_path, names=("Alice",)) as running:
            assert (await running.ask(CHEST))[0] == 200
    finally:
        notices.assess = assess


async def test_what_a_session_said_before_counts_for_the_notice(tmp_path: Path) -> None:
    """A bare "yes" tells of an emergency only beside the question that it answers."""
    seen: list[list[str]] = []

    def notices(messages: Sequence[Mapping[str, Any]]) -> None:
        seen.append([str(message["content"]) for message in messages])

    rogue = RogueMiner(says="Do you have chest pain?")
    async with gateway(tmp_path, names=(), rogues=[rogue], notices=notices) as running:
        _, headers, _ = await running.ask("I feel odd.")
        await running.ask("Yes.", headers={"x-session-id": headers["x-session-id"]})
        assert seen[-1] == ["I feel odd.", "Do you have chest pain?", "Yes."]


async def test_it_comes_from_a_gateway_with_too_much_in_work(tmp_path: Path) -> None:
    gate = asyncio.Event()
    hanging = RogueMiner(gate=gate)
    async with gateway(tmp_path, names=(), rogues=[hanging], settings={"max_in_flight": 1}) as running:
        first = asyncio.create_task(running.ask("Hello"))
        await eventually(lambda: running.metric("in_flight") == 1)
        status, _, document = await running.ask(CHEST)
        assert status == 200, "a client would hide the notice behind an error"
        assert document["bettertherapy"]["notice"]["kinds"][0] == "heart"
        assert document["bettertherapy"]["error"]["code"] == "overloaded"
        assert document["choices"][0]["message"]["content"].endswith(NOBODY)
        got = events((await running.stream(CHEST))[1].encode())
        assert text(got) == document["choices"][0]["message"]["content"]
        assert got[-1] == "[DONE]"
        status, headers, document = await running.ask("Hello again")
        assert (status, document["error"]["code"], headers["Retry-After"]) == (429, "overloaded", "2")
        assert running.metric("in_flight") == 1
        gate.set()
        await first


async def test_it_comes_when_a_key_has_asked_too_often(tmp_path: Path) -> None:
    slow = new_key()
    async with gateway(tmp_path, names=(), keys={"slow": {"key": slow, "perMinute": 1, "burst": 1}}) as running:
        headers = {"Authorization": f"Bearer {slow}"}
        await running.ask("Hello", headers=headers)
        assert (await running.ask("Hello", headers=headers))[0] == 429
        status, _, document = await running.ask(CHEST, headers=headers)
        assert status == 200
        assert document["bettertherapy"]["error"]["code"] == "key_rate"
        assert document["bettertherapy"]["notice"]["kinds"][0] == "heart"


async def test_it_comes_in_a_session_or_to_a_twin_that_is_not_the_keys(tmp_path: Path) -> None:
    own = new_key()
    async with gateway(tmp_path, names=(), keys={"other": {"key": own, "twins": ["maya"]}}) as running:
        for headers in (
            {"x-session-id": "12345678-1234-1234-1234-123456789012"}, {"Authorization": f"Bearer {own}"},
        ):  # fmt: skip
            assert (await running.ask("Hello", headers=headers))[0] == 404
            status, _, document = await running.ask(CHEST, headers=headers)
            assert status == 200
            assert document["bettertherapy"]["notice"]["kinds"][0] == "heart"
            assert document["bettertherapy"]["answered"] is False


@pytest.mark.parametrize(
    "body",
    [
        {"model": "indra", "messages": [{"role": "user", "content": CHEST}], "logprobs": True},
        {"model": "indra", "messages": [{"role": "user", "content": [{"type": "text", "text": CHEST}, {}]}]},
        {"messages": [{"role": "user", "content": CHEST}]},
        {"model": "indra", "messages": CHEST},
    ],
)
async def test_it_comes_with_the_error_of_a_body_that_is_no_question(tmp_path: Path, body: Any) -> None:
    async with gateway(tmp_path, names=()) as running:
        status, headers, document = await running.post("/v1/chat/completions", body)
        assert status == 400
        assert headers["x-bettertherapy-emergency"].split(", ")[0] == "heart"
        notice, _, why = document["error"]["message"].rpartition("\n\n")
        assert "102" in notice or "112" in notice
        assert "`" in why
        body = {**body, "messages": [{"role": "user", "content": "Hello"}], "logprobs": True}
        assert "x-bettertherapy-emergency" not in (await running.post("/v1/chat/completions", body))[1]


async def test_it_comes_when_the_gateway_itself_fails(tmp_path: Path) -> None:
    class Broken:
        def scores(self, *_: object) -> None:
            raise RuntimeError(CHEST)

    async with gateway(tmp_path, names=("Alice",), ranker=Broken()) as running:
        assert (await running.ask("Hello"))[0] == 500
        status, _, document = await running.ask(CHEST)
        assert status == 200
        assert document["bettertherapy"]["error"]["code"] == "internal_error"
        assert document["bettertherapy"]["notice"]["kinds"][0] == "heart"

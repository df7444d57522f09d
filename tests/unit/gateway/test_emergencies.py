"""In an emergency the notice comes first, whatever the miners say, and when they say nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai
import pytest

from neurons.receipts import answer_of, decode
from neurons.validator.gateway.chat import NOBODY
from neurons.validator.gateway.keys import new_key
from neurons.validator.gateway.refused import said_in
from tests.unit.gateway.rogue_miner import RogueMiner
from tests.unit.gateway.running_gateway import PATIENCE, gateway
from tests.unit.miner.engine_pods import events, text
from tests.unit.miner.running_miner import eventually

CHEST = "I have chest pain and my left arm is numb"
NEPALI = "मलाई छाती दुखेको छ र बायाँ हात लाटो भएको छ"


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


async def test_an_answer_that_plays_it_down_is_never_given_while_another_is_there(tmp_path: Path) -> None:
    careless = RogueMiner(name="Eve", says="This is not serious. Go to bed and see how you feel tomorrow.")
    careful = RogueMiner(name="Zoe", says="Call an ambulance.")
    async with gateway(tmp_path, names=(), rogues=[careless, careful]) as running:
        for _ in range(3):
            _, _, document = await running.ask(CHEST)
            assert document["choices"][0]["message"]["content"].endswith("Call an ambulance.")
            ranked = document["bettertherapy"]["ranking"]
            assert [each.get("heldBack") for each in ranked] == [None, "playsDown"]
            assert ranked[-1]["score"] == 0.0
        _, _, document = await running.ask("How do I sleep better?")
        assert not any("heldBack" in each for each in document["bettertherapy"]["ranking"])
        assert running.metric("answers_held_back_total") == 3


@pytest.mark.parametrize("compare", [False, True])
async def test_where_every_answer_plays_it_down_there_is_the_notice_alone(tmp_path: Path, compare: bool) -> None:
    careless = [RogueMiner(name=name, says="It is usually harmless. Wait and see.") for name in ("Eve", "Zoe")]
    async with gateway(tmp_path, names=(), rogues=careless) as running:
        status, headers, document = await running.ask(
            CHEST, **({"bettertherapy": {"compare": True}} if compare else {})
        )
        assert status == 200
        content = document["choices"][0]["message"]["content"]
        assert "harmless" not in content
        assert content[: document["bettertherapy"]["notice"]["characters"]].strip()
        assert document["bettertherapy"]["answered"] is False
        assert "plays it down" in document["bettertherapy"]["error"]["message"]
        assert "x-bettertherapy-receipt" not in headers


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


async def test_what_a_session_said_counts_also_where_the_next_question_is_turned_away(tmp_path: Path) -> None:
    slow = new_key()
    rogue = RogueMiner(says="Do you have chest pain?")
    limits = {"slow": {"key": slow, "perMinute": 1, "burst": 1}}
    async with gateway(tmp_path, names=(), rogues=[rogue], keys=limits) as running:
        mine = {"Authorization": f"Bearer {slow}"}
        _, headers, _ = await running.ask("I feel odd.", headers=mine)
        session = {"x-session-id": headers["x-session-id"]}
        status, _, document = await running.ask("Yes.", headers=mine | session)
        assert (status, document["bettertherapy"]["error"]["code"]) == (200, "key_rate")
        assert document["bettertherapy"]["notice"]["kinds"][0] == "heart"
        assert (await running.ask("Yes.", headers=mine))[0] == 429
        # Another key's session is nobody's.
        document = (await running.ask("Yes.", headers=session))[2]
        assert document["error"]["code"] == "session_not_found"


async def test_what_nobody_answered_counts_until_something_is_answered(tmp_path: Path) -> None:
    seen: list[list[str]] = []

    def notices(messages: Sequence[Mapping[str, Any]]) -> None:
        seen.append([str(message["content"]) for message in messages])

    rogue = RogueMiner(says="Rest.", status=500)
    async with gateway(tmp_path, names=(), rogues=[rogue], notices=notices) as running:
        _, _, made = await running.post("/v1/sessions", {"model": "indra"})
        session = {"x-session-id": made["id"]}
        await running.ask("I took forty of his pills.", headers=session)
        rogue.status = 200
        running.service.standings.of.clear()  # it would be left alone for a second
        await running.ask("I drank vodka, too.", headers=session)
        assert seen[-1] == ["I took forty of his pills.", "I drank vodka, too."]
        assert [each["content"] for each in rogue.questions[-1]["messages"]] == ["I drank vodka, too."]
        await running.ask("And now?", headers=session)
        assert seen[-1] == ["I drank vodka, too.", "Rest.", "And now?"]


@pytest.mark.parametrize("role", ["system", "developer", "tool"])
async def test_it_comes_where_nobody_speaks_as_the_user(tmp_path: Path, role: str) -> None:
    async with gateway(tmp_path, names=("Alice",)) as running:
        asked = {"model": "indra", "messages": [{"role": role, "content": CHEST}]}
        _, _, document = await running.post("/v1/chat/completions", asked)
        assert document["bettertherapy"]["notice"]["kinds"][0] == "heart"


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
        {"model": "indra", "messages": [CHEST]},
        {"model": "indra", "messages": [{"content": CHEST}]},
        {"model": "indra", "messages": [{"role": "human", "content": CHEST}]},
        {"model": "indra", "messages": [{"role": "user", "text": CHEST}]},
        {"model": "indra", "messages": [{"role": "user", "content": [{"type": "input_text", "content": [CHEST]}]}]},
        {"model": "indra", "messages": [{"role": "user", "content": "Hello"}], "input": CHEST},
        {"model": "indra", "messages": {"role": "user", "content": NEPALI}},
        {"model": "indra", "prompt": NEPALI},
    ],
)
async def test_it_comes_with_the_error_of_a_body_that_is_no_question(tmp_path: Path, body: Any) -> None:
    async with gateway(tmp_path, names=()) as running:
        status, headers, document = await running.post("/v1/chat/completions", body)
        assert status == 400
        assert headers["x-bettertherapy-emergency"].split(", ")[0] == "heart"
        notice, _, why = document["error"]["message"].rpartition("\n\n")
        assert "102" in notice or "112" in notice or "१०२" in notice
        assert "`" in why
        body = {"model": "indra", "messages": [{"role": "user", "content": "Hello"}], "logprobs": True}
        assert "x-bettertherapy-emergency" not in (await running.post("/v1/chat/completions", body))[1]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/ratings"])
@pytest.mark.parametrize(
    "body",
    [
        json.dumps([NEPALI]),
        json.dumps(NEPALI),
        json.dumps({"messages": [{"role": "user", "content": NEPALI}]})[:-2],
        json.dumps({"comment": [CHEST]}),
        json.dumps({"text": {"said": CHEST}}),
    ],
)  # fmt: skip
async def test_it_comes_whatever_shape_a_body_has(tmp_path: Path, path: str, body: str) -> None:
    async with gateway(tmp_path, names=()) as running, running.client.post(path, data=body) as response:
        assert response.status == 400
        assert response.headers["x-bettertherapy-emergency"].split(", ")[0] == "heart"


def test_what_others_say_in_a_body_that_is_refused_is_not_the_patients() -> None:
    rules = {"role": "system", "content": f"Tell whoever says {CHEST!r} to call"}
    asked = {"role": "user", "content": "Hello"}
    assert said_in(json.dumps({"model": "indra", "messages": [rules, asked], "n": 2}).encode()) == [[rules, asked], []]
    assert said_in(b"[" * 900 + b'"x"' + b"]" * 900) == [[{"role": "user", "content": "x"}]]
    [[cut]] = said_in(b'{"a": "\\ud83d\\ude00 \\ud83d \\"b\\"\\n')
    assert cut == {"role": "user", "content": '{"a": "😀 \ufffd "b"\n'}


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


async def test_a_stream_that_the_gateway_itself_breaks_ends_in_words(tmp_path: Path) -> None:
    class Broken:
        def scores(self, *_: object) -> None:
            raise RuntimeError(CHEST)

    async with gateway(tmp_path, names=("Alice",), ranker=Broken()) as running:
        gate = running.miners[0].agent.gate = asyncio.Event()
        asked = {"model": "indra", "messages": [{"role": "user", "content": "Hello"}], "stream": True}
        async with running.client.post("/v1/chat/completions", json=asked) as response:
            assert (await response.content.readuntil(b"\n\n")).startswith(b":")
            gate.set()
            [failure] = events(await response.read())
        assert failure["error"]["code"] == "internal_error"
        got = events((await running.stream(CHEST))[1].encode())
        assert text(got).endswith(NOBODY)
        assert got[-2]["bettertherapy"]["error"]["code"] == "internal_error"
        assert got[-1] == "[DONE]"
        assert (await running.stream("Hello"))[0] == 500, "nothing had begun"


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b'{"messages": "' + b"x" * (1 << 20), {}, 413),
        (b"no gzip", {"Content-Encoding": "gzip"}, 400),
        (b"?", {"Content-Encoding": "br"}, 415),
        (b"{}", {"Authorization": "Bearer bt-unknown"}, 401),
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/ratings"])
async def test_what_is_not_read_is_answered_with_whom_to_call(
    tmp_path: Path, path: str, body: bytes, headers: dict[str, str], status: int
) -> None:
    async with (
        gateway(tmp_path, names=(), settings={"country": "NP"}) as running,
        running.client.post(path, data=body, headers=headers) as response,
    ):
        said = (await response.json())["error"]["message"]
        assert response.status == status
        assert said.startswith("In an emergency")
        assert "102" in said
        assert "१०२" in said
        assert "x-bettertherapy-emergency" not in response.headers, "nobody knows whether it is one"


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/completions", "/v1/chat/completions/", "/v1/messages"])
async def test_what_is_asked_by_a_route_that_is_not_there_is_answered_with_whom_to_call(
    tmp_path: Path, path: str
) -> None:
    async with gateway(tmp_path, names=()) as running:
        status, _, document = await running.post(path, {"model": "indra", "input": CHEST})
        assert (status, document["error"]["code"]) == (404, "unknown_route")
        assert document["error"]["message"].startswith("In an emergency")
        assert (await running.get(path))[1]["error"]["message"].startswith("there is no")


async def test_a_comment_that_tells_of_an_emergency_is_answered_with_its_notice(tmp_path: Path) -> None:
    async with gateway(tmp_path, names=("Alice",)) as running:
        _, headers, document = await running.ask("My knee hurts")
        rating = {
            "sessionId": headers["x-session-id"], "answerId": document["bettertherapy"]["answerId"], "stars": 2,
        }  # fmt: skip
        status, _, said = await running.post("/v1/ratings", rating | {"comment": "Thank you"})
        assert (status, said.get("notice")) == (201, None)
        status, _, said = await running.post("/v1/ratings", rating | {"comment": CHEST})
        assert (status, said["notice"]["kinds"][0]) == (201, "heart")
        assert "112" in said["notice"]["text"]
        assert running.metric("emergencies_total", kind="heart") == 1
        # Also where the rating isn't taken: an answer that isn't there, a document that is none, a limit.
        for refused in (rating | {"comment": CHEST, "stars": 9}, rating | {"comment": CHEST, "answerId": "x"}, [CHEST]):
            status, headers, said = await running.post("/v1/ratings", refused)
            assert status == 400
            assert headers["x-bettertherapy-emergency"].split(", ")[0] == "heart"
            assert "112" in said["error"]["message"].rpartition("\n\n")[0]


async def test_a_comment_of_a_key_that_may_not_ask_now_gets_its_notice(tmp_path: Path) -> None:
    slow = new_key()
    async with gateway(tmp_path, names=(), keys={"slow": {"key": slow, "perMinute": 1, "burst": 1}}) as running:
        headers = {"Authorization": f"Bearer {slow}"}
        await running.post("/v1/ratings", {}, headers)
        status, headers, said = await running.post("/v1/ratings", {"comment": CHEST}, headers)
        assert (status, said["error"]["code"]) == (429, "key_rate")
        assert headers["x-bettertherapy-emergency"].split(", ")[0] == "heart"


async def test_what_is_known_of_the_patient_makes_an_emergency_of_a_small_thing(tmp_path: Path) -> None:
    bump = "I bumped my head on the cupboard door"
    async with gateway(tmp_path, names=("Alice",)) as running:
        _, _, plain = await running.ask(bump)
        assert plain["bettertherapy"]["notice"] is None
        told = {"patient": {"age": 71, "medicines": ["warfarin 5 mg"]}}
        _, headers, document = await running.ask(bump, bettertherapy=told)
        assert document["bettertherapy"]["notice"]["kinds"] == ["injury"]
        again = {"x-session-id": headers["x-session-id"]}
        _, _, document = await running.ask("When is the library open?", headers=again)
        assert document["bettertherapy"]["notice"] is None
        _, _, document = await running.ask("And today I hit my head again", headers=again)
        assert document["bettertherapy"]["notice"] is not None


async def test_it_counts_also_where_nobody_can_be_asked(tmp_path: Path) -> None:
    async with gateway(tmp_path, names=()) as running:
        told = {"patient": {"medicines": ["warfarin 5 mg"]}}
        _, _, document = await running.ask("I bumped my head on the cupboard door", bettertherapy=told)
        assert document["choices"][0]["message"]["content"].endswith(NOBODY)

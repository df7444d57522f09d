"""A patient asks, three miners answer, the best answer is given with its receipt."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import openai
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from neurons.receipts import answer_of, decode, question_of_messages
from tests.unit.gateway.rogue_miner import RogueMiner
from tests.unit.gateway.running_gateway import PATIENCE, QUESTION, gateway
from tests.unit.miner.engine_pods import events, text
from tests.unit.miner.running_miner import digest, eventually


async def test_three_miners_are_asked_and_one_answers_with_its_receipt(tmp_path: Path) -> None:
    async with gateway(tmp_path) as running:
        status, headers, document = await running.ask()
        assert status == 200, document
        assert all(len(each.agent.bodies) == 1 for each in running.miners)
        [choice] = document["choices"]
        assert choice["message"]["content"] == "It is fine."
        assert choice["finish_reason"] == "stop"
        more = document["bettertherapy"]
        receipt = decode(headers["x-bettertherapy-receipt"])
        assert more["receipt"] == headers["x-bettertherapy-receipt"]
        assert receipt.is_genuine()
        assert receipt.hotkey == more["miner"]["hotkey"] == headers["x-bettertherapy-miner"]
        assert receipt.hotkey in {each.keypair.ss58_address for each in running.miners}
        assert (receipt.question, receipt.answer) == (question_of_messages(QUESTION), answer_of(["It is fine."]))
        assert more["adapter"] == receipt.adapter == digest("a") == headers["x-twin-adapter-digest"]
        assert (more["minersAsked"], more["minersProven"]) == (3, 3)
        assert running.metric("requests_total", twin="indra", code="200") == 1
        assert running.outcomes("answered") == 3


async def test_the_answer_that_others_agree_with_is_given(tmp_path: Path) -> None:
    rogue = RogueMiner(says="Take twelve tablets of whatever lies in the drawer and drive to the seaside tonight.")
    async with gateway(tmp_path, names=("Alice", "Charlie"), rogues=[rogue]) as running:
        for miner, words in zip(running.miners, (("Drink water and rest.",), ("Rest, and drink water.",)), strict=True):
            miner.agent.words = words
        for _ in range(3):
            _, _, document = await running.ask()
            assert "water" in document["choices"][0]["message"]["content"]
        assert len(rogue.questions) == 3


async def test_the_answer_says_how_all_that_were_asked_did(tmp_path: Path) -> None:
    odd = RogueMiner(says="Take twelve tablets of whatever lies in the drawer and drive to the seaside tonight.")
    broken = RogueMiner(name="Ferdie", status=500)
    async with gateway(
        tmp_path, names=("Alice", "Charlie"), rogues=[odd, broken], patience=replace(PATIENCE, miners=4)
    ) as running:
        _, _, document = await running.ask()
        more = document["bettertherapy"]
        assert len(more["ranking"]) == more["minersAsked"] == 4
        best, second, worst, failed = more["ranking"]
        assert (best["hotkey"], best["uid"]) == (more["miner"]["hotkey"], more["miner"]["uid"])
        assert best["score"] == more["score"] >= second["score"] > worst["score"]
        assert worst["hotkey"] == odd.keypair.ss58_address
        assert (failed["hotkey"], failed["failure"]) == (broken.keypair.ss58_address, "error")
        assert "score" not in failed
        assert all(each["seconds"] >= 0 for each in more["ranking"])
        _, _, blind = await running.ask(bettertherapy={"compare": True})
        assert "ranking" not in blind["bettertherapy"], "whose two answers are is not to be guessed"


async def test_a_stream_is_kept_alive_and_ends_with_the_receipt(tmp_path: Path) -> None:
    async with gateway(tmp_path) as running:
        _, sent = await running.stream(stream_options={"include_usage": True})
        got = events(sent.encode())
        assert got[-1] == "[DONE]"
        assert text(got) == "It is fine."
        receipt = decode(got[-2]["bettertherapy"]["receipt"])
        assert receipt.answer == answer_of(["It is fine."])
        assert got[-3]["usage"]["completion_tokens"] == 4
        # Slow miners: comments keep the connection alive, before any word.
        import asyncio

        gate = asyncio.Event()
        for miner in running.miners:
            miner.agent.gate = gate
        asked = {"model": "indra", "messages": QUESTION, "stream": True}
        async with running.client.post("/v1/chat/completions", json=asked) as response:
            first = await response.content.readuntil(b"\n\n")
            assert first == b": comparing answers\n\n"
            gate.set()
            assert text(events(await response.read())) == "It is fine."


async def test_openais_and_langchains_clients_work_unmodified(tmp_path: Path) -> None:
    async with gateway(tmp_path) as running:
        client = openai.AsyncOpenAI(base_url=f"{running.url}/v1", api_key=running.key, max_retries=0)
        assert [model.id async for model in client.models.list()] == ["indra"]
        answer = await client.chat.completions.create(model="indra", messages=QUESTION, temperature=0.2)  # type: ignore[arg-type]
        assert answer.choices[0].message.content == "It is fine."
        assert answer.usage is not None
        for miner in running.miners:  # long enough for a keep-alive
            miner.agent.words = ["It ", "is ", "well."]
        said, usage, receipts = "", None, []
        options: object = {"include_usage": True}
        async for chunk in await client.chat.completions.create(
            model="indra", messages=QUESTION, stream=True, stream_options=options
        ):  # type: ignore[call-overload]
            said += "".join(choice.delta.content or "" for choice in chunk.choices)
            usage = chunk.usage or usage
            receipts += [chunk.bettertherapy["receipt"]] if getattr(chunk, "bettertherapy", None) else []
        assert said == "It is well."
        assert usage is not None
        assert usage.completion_tokens == 4
        assert decode(receipts[0]).answer == answer_of([said])
        chat = ChatOpenAI(base_url=f"{running.url}/v1", api_key=SecretStr(running.key), model="indra", max_retries=0)
        assert (await chat.ainvoke("Hello")).content == "It is well."
        assert "".join([str(part.content) async for part in chat.astream("Hello")]) == "It is well."


async def test_what_a_twin_cannot_sign_is_refused_by_name(tmp_path: Path) -> None:
    async with gateway(tmp_path, names=()) as running:
        tool = {"type": "function", "function": {"name": "look"}}
        for field, value in (("n", 2), ("tools", [tool]), ("logprobs", True), ("top_k", 4)):
            status, _, document = await running.ask(**{field: value})
            assert (status, document["error"]["param"]) == (400, field)
        assert (await running.ask(nonsense=1))[0] == 400
        assert (await running.ask(n=1, tools=[], logprobs=False))[0] == 404, "these ask for nothing"


async def test_only_the_signed_text_is_given(tmp_path: Path) -> None:
    rogue = RogueMiner(beside={"tool_calls": [{"id": "1"}], "reasoning_content": "I lie", "annotations": ["x"]})
    async with gateway(tmp_path, names=(), rogues=[rogue]) as running:
        _, _, document = await running.ask()
        assert document["choices"][0]["message"] == {
            "role": "assistant", "content": "Drink water and rest.", "refusal": None
        }  # fmt: skip


async def test_a_client_that_leaves_ends_the_miners_work(tmp_path: Path) -> None:
    import asyncio

    rogue = RogueMiner(gate=asyncio.Event())
    async with gateway(tmp_path, names=(), rogues=[rogue]) as running:
        asking = asyncio.create_task(running.ask())
        await eventually(lambda: bool(rogue.questions))
        asking.cancel()
        await eventually(lambda: rogue.cancelled == 1)
        await eventually(lambda: running.metric("in_flight") == 0)
        assert running.metric("requests_total", twin="indra", code="499") == 1


async def test_html_arrives_as_it_was_said(tmp_path: Path) -> None:
    says = "<script>alert('x')</script> & rest"
    async with gateway(tmp_path, names=(), rogues=[RogueMiner(says=says)]) as running:
        _, headers, document = await running.ask("<img src=x onerror=alert(1)>")
        assert document["choices"][0]["message"]["content"] == says
        assert headers["Content-Type"].startswith("application/json")
        assert json.loads(json.dumps(running.rogues[0].questions[0]))["messages"][0]["content"].startswith("<img")


async def test_an_old_client_that_keeps_its_connection_sees_where_a_stream_ends(tmp_path: Path) -> None:
    """HTTP/1.0 knows no chunks: only the connection's end tells it."""
    body = json.dumps({"model": "indra", "messages": QUESTION, "stream": True}).encode()
    async with gateway(tmp_path) as running:
        head = f"POST /v1/chat/completions HTTP/1.0\r\nAuthorization: Bearer {running.key}\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", running.service.port)
        writer.write(f"{head}Connection: keep-alive\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        async with asyncio.timeout(10):
            answer = await reader.read()
        writer.close()
        assert answer.endswith(b"data: [DONE]\n\n")

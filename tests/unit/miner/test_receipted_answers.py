"""Each answer of a miner with a wallet carries a receipt over exactly what was asked and what arrived."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from bettertherapy_api import names
from bettertherapy_api.routing import BaseModelRef
from neurons.cluster import Put
from neurons.miner.chat import parse_chat
from neurons.miner.rewrite import ModelName
from neurons.miner.stamp import Stamper
from neurons.miner.tables import VersionRoute
from neurons.miner.transcript import Transcript
from neurons.receipts import (
    Receipt,
    ReceiptSigner,
    answer_of,
    decode,
    question_of_input,
    question_of_messages,
    question_of_prompt,
    question_of_text,
)
from tests.unit.miner.engine_pods import Pool, events, pool, text
from tests.unit.miner.fake_agent import FakeAgent
from tests.unit.miner.running_miner import TOKEN, Twin, digest, header, held, slices
from tests.unit.miner.signing_miner import INDRA, QUESTION, on_subnet, signing, validator
from tests.unit.receipts.keyring import MINER

ASKED = question_of_messages(QUESTION)
BASE_MODEL = {"name": "base", "revision": None}


def of_header(headers: Mapping[str, str]) -> Receipt:
    found = {name.lower(): value for name, value in headers.items()}
    return genuine(found[names.RECEIPT_HEADER])


def genuine(encoded: str) -> Receipt:
    receipt = decode(encoded)
    assert receipt.is_genuine()
    assert receipt.hotkey == MINER.ss58_address
    return receipt


def of_stream(got: list[Any]) -> Receipt:
    """Return the receipt in the last event before [DONE]."""
    assert got[-1] == "[DONE]"
    assert [event for event in got[:-1] if "bettertherapy" in event] == [got[-2]], "one, and the last"
    return genuine(got[-2]["bettertherapy"]["receipt"])


@asynccontextmanager
async def engines(folder: Path, **knobs: Any) -> AsyncIterator[Pool]:
    async with pool(folder, miner_subnet=on_subnet(folder), **knobs) as running:
        yield running


async def test_a_whole_answer_has_its_receipt_in_a_header(tmp_path: Path) -> None:
    async with signing(tmp_path) as miner, validator(miner) as bob:
        _, headers, body = await bob.ask()
        receipt = of_header(headers)
        said = json.loads(body)["choices"][0]["message"]["content"]
        assert (receipt.question, receipt.answer) == (ASKED, answer_of([said]))
        assert (receipt.twin, receipt.adapter) == ("indra", digest("a"))
        assert (receipt.base.name, receipt.base.digest) == ("base", None)
        assert miner.metric("bettertherapy_miner_receipts_total") == 1
        assert of_header((await miner.ask("indra"))[1]).question == question_of_text("Hello"), "so has a token's"


async def test_a_stream_has_its_receipt_before_done(tmp_path: Path) -> None:
    async with signing(tmp_path) as miner, validator(miner) as bob:
        _, headers, data = await bob.ask(stream=True)
        got = events(data)
        receipt = of_stream(got)
        assert (receipt.question, receipt.answer) == (ASKED, answer_of(["It is fine."]))
        assert got[-2]["choices"][0]["delta"] == {}, "a client that reads choices[0] of each chunk finds one"
        assert got[-2]["model"] == "indra"
        assert names.RECEIPT_HEADER not in {name.lower() for name in headers}


async def test_openais_client_reads_signed_streams_as_any_other(tmp_path: Path) -> None:
    async with engines(tmp_path, count=1) as running:
        client = openai.AsyncOpenAI(base_url=f"{running.miner.url}/v1", api_key=TOKEN)
        parts, receipts = [], []
        options: Any = {"include_usage": True}
        async for chunk in await client.chat.completions.create(
            model="indra", messages=QUESTION, stream=True, max_tokens=5, stream_options=options
        ):  # type: ignore[call-overload]
            parts += [choice.delta.content or "" for choice in chunk.choices]
            receipts += [chunk.bettertherapy["receipt"]] if hasattr(chunk, "bettertherapy") else []
        assert genuine(receipts[0]).answer == answer_of(["".join(parts)])


@pytest.mark.parametrize(("fault", "after"), [("cut_stream_after", 4), ("fail_stream_after", 1)])
async def test_a_stream_that_went_on_elsewhere_has_one_receipt_over_all_of_it(
    tmp_path: Path, fault: str, after: int
) -> None:
    async with engines(tmp_path) as running:
        whole = text(await running.stream())
        setattr(running.order[0].knobs, fault, after)
        got = await running.stream()
        assert text(got) == whole
        assert of_stream(got).answer == answer_of([whole])
        assert running.miner.metric("bettertherapy_miner_continued_streams_total", outcome="continued") == 1


async def test_the_base_models_digest_is_what_was_measured_where_it_was_answered(tmp_path: Path) -> None:
    agent = FakeAgent(pod="a", holds=held(INDRA), base_digest=digest("e"))
    async with signing(tmp_path, agent=agent) as miner, validator(miner) as bob:
        _, headers, _ = await bob.ask()
        assert of_header(headers).base.digest == digest("e")
        assert of_stream(events((await bob.ask(stream=True))[2])).base.digest == digest("e")
        assert miner.service.tables.base["digest"] == digest("e")
        agent.base_digest = None  # another engine process, whose files are other ones than were hashed
        miner.report([agent])
        assert of_header((await bob.ask())[1]).base.digest is None
        assert miner.service.tables.base["digest"] is None


async def test_what_the_pool_names_is_not_what_was_measured(tmp_path: Path) -> None:
    async with signing(tmp_path) as miner, validator(miner) as bob:
        named = header().model_copy(update={"base_model": BaseModelRef(name="base", revision=digest("e"))})
        for part in slices({"indra": Twin(versions=(INDRA,))}, miner._agents, pool=named):
            miner.service.tables.take_routing(Put(part))
        said = of_header((await bob.ask())[1]).base
        assert (said.revision, said.digest) == (digest("e"), None)


@pytest.mark.parametrize(("second", "signed"), [("e", digest("e")), ("f", None), (None, None)])
async def test_of_two_pods_words_a_digest_is_signed_only_where_both_measured_the_same(
    tmp_path: Path, second: str | None, signed: str | None
) -> None:
    async with engines(tmp_path) as running:
        first = running.order[0].port
        for pod in running.miner.service.tables.snapshot.ready_pods:
            measured = "e" if pod.url.port == first else second
            pod.base = measured and digest(measured)
        running.order[0].knobs.cut_stream_after = 4
        assert of_stream(await running.stream()).base.digest == signed


async def test_a_stream_that_broke_has_none(tmp_path: Path) -> None:
    async with engines(tmp_path, count=1, cut_stream_after=3) as running:
        got = await running.stream(seed=1)
        assert got[-1]["error"]["code"] == "stream_broken"
        assert not [event for event in got if "bettertherapy" in event]


async def test_several_choices_are_covered_together(tmp_path: Path) -> None:
    async with engines(tmp_path, count=1) as running:
        body = {"model": "indra", "messages": QUESTION, "n": 2, "max_tokens": 4}
        async with running.miner.client.post("/v1/chat/completions", json=body) as response:
            said = [choice["message"]["content"] for choice in (await response.json())["choices"]]
            receipt = of_header(response.headers)
        assert (receipt.choices, receipt.answer) == (2, answer_of(said))
        got = await running.stream(n=2)
        streamed = ["", ""]
        for event in got[:-2]:
            for choice in event["choices"]:
                streamed[choice["index"]] += choice["delta"].get("content") or ""
        assert (of_stream(got).choices, of_stream(got).answer) == (2, answer_of(streamed))


async def test_the_other_routes_have_receipts_over_what_they_were_sent(tmp_path: Path) -> None:
    async with engines(tmp_path, count=1) as running:
        client = running.miner.client
        async with client.post(
            "/v1/completions", json={"model": "indra", "prompt": "Say", "max_tokens": 3}
        ) as response:
            said = (await response.json())["choices"][0]["text"]
            receipt = of_header(response.headers)
        assert (receipt.question, receipt.answer) == (question_of_prompt("Say"), answer_of([said]))
        asked = {"model": "indra", "input": "Hi", "instructions": "Be kind.", "max_output_tokens": 3}
        async with client.post("/v1/responses", json=asked) as response:
            said = (await response.json())["output"][0]["content"][0]["text"]
            receipt = of_header(response.headers)
        assert (receipt.question, receipt.answer) == (question_of_input(asked), answer_of([said]))
        async with client.post("/v1/responses", json=asked | {"stream": True}) as response:
            lines = [line for line in (await response.read()).split(b"\n") if line.startswith(b"data: ")]
            done = json.loads(lines[-1].removeprefix(b"data: "))["response"]
        receipt = genuine(done["bettertherapy"]["receipt"])
        assert receipt.answer == answer_of([done["output"][0]["content"][0]["text"]])
        assert receipt.adapter is None, "the base model itself answered"


async def test_an_error_has_no_receipt(tmp_path: Path) -> None:
    agent = FakeAgent(pod="a", holds=held(INDRA), status=400, error={"message": "no", "type": "BadRequestError"})
    async with signing(tmp_path, agent=agent) as miner, validator(miner) as bob:
        status, headers, _ = await bob.ask()
        assert status == 400
        assert names.RECEIPT_HEADER not in {name.lower() for name in headers}


async def test_what_was_said_beside_text_is_named(tmp_path: Path) -> None:
    chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": INDRA.served_name}
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    said = [{"content": "It is", "reasoning_content": "Hm"}, {"tool_calls": [call]}]
    stream = [
        b"data: " + json.dumps({**chunk, "choices": [{"index": 0, "delta": delta}]}).encode() + b"\n\n"
        for delta in said
    ]
    agent = FakeAgent(pod="a", holds=held(INDRA), events=[*stream, b"data: [DONE]\n\n"])
    async with signing(tmp_path, agent=agent) as miner, validator(miner) as bob:
        _, _, data = await bob.ask(stream=True)
        receipt = of_stream(events(data))
        assert (receipt.unsigned, receipt.answer) == (("reasoning_content", "tool_calls"), answer_of(["It is"]))


def test_done_inside_a_text_is_no_end() -> None:
    asked = parse_chat(json.dumps({"model": "indra", "messages": QUESTION}).encode())
    version = VersionRoute(
        twin="indra", served_name="indra-1", digest=digest("a"), weight=100,
        model=ModelName(twin="indra", served_name="indra-1", digest=digest("a")),
    )  # fmt: skip
    stamper, transcript = Stamper(ReceiptSigner(MINER), base=lambda: BASE_MODEL), Transcript()
    for said in ("data: [DONE]", "\ndata: [DONE]\n\n"):
        lines = b"data: " + json.dumps({"choices": [{"index": 0, "delta": {"content": said}}]}).encode() + b"\n\n"
        transcript.add(lines)
        assert stamper.lines(lines, asked, version, transcript, measured=None) == lines
    # The network may cut between the two line feeds that end an event.
    stamped = stamper.lines(b"\ndata: [DONE]\n\n", asked, version, transcript, measured=None)
    assert stamped.startswith(b"\ndata: {")
    assert stamped.endswith(b"}\n\ndata: [DONE]\n\n")
    [event] = [event for event in events(stamped) if isinstance(event, dict)]
    assert genuine(event["bettertherapy"]["receipt"]).answer == answer_of(["data: [DONE]\ndata: [DONE]\n\n"])

"""What a client gets, and what the engine gets."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import zlib
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest

from neurons.cluster import Put
from tests.unit.miner.fake_agent import FakeAgent
from tests.unit.miner.running_miner import TOKEN, RunningMiner, Twin, digest, eventually, held, version

INDRA = version("indra", "a")
BODY = {"model": "indra", "messages": [{"role": "user", "content": "Hello"}]}


async def serve(miner: RunningMiner, *agents: FakeAgent, system_prompt: str | None = None) -> None:
    miner.route({"indra": Twin(versions=(INDRA,), system_prompt=system_prompt, doctor="Indra Gurung")})
    miner.report(agents)


async def test_an_answer_names_the_twin_the_adapter_and_the_pod(tmp_path: Path) -> None:
    async with FakeAgent(pod="pod-1", holds=held(INDRA)) as agent, RunningMiner(tmp_path) as miner:
        await serve(miner, agent)
        status, headers, document = await miner.ask("indra")
        assert status == 200
        assert document["model"] == "indra"
        assert document["choices"][0]["message"]["content"] == "It is fine."
        assert document["bettertherapy"] == {"adapterDigest": digest("a"), "servedName": INDRA.served_name}
        assert headers["x-twin-adapter-digest"] == digest("a")
        assert headers["x-twin-served-name"] == INDRA.served_name
        assert headers["x-twin-pod"] == "pod-1"
        assert agent.bodies[0]["model"] == INDRA.served_name


async def test_openais_client_streams_from_it(tmp_path: Path) -> None:
    async with FakeAgent(pod="a", holds=held(INDRA)) as agent, RunningMiner(tmp_path) as miner:
        await serve(miner, agent)
        async with openai.AsyncOpenAI(base_url=miner.url + "/v1", api_key=TOKEN, max_retries=0) as client:
            assert [model.id async for model in client.models.list()] == ["indra"]
            stream = await client.chat.completions.create(
                model="indra", messages=[{"role": "user", "content": "Hi"}], stream=True
            )
            chunks = [chunk async for chunk in stream]
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "It is fine."
        assert {chunk.model for chunk in chunks} == {"indra"}


async def test_a_chunk_is_forwarded_before_the_next_is_made(tmp_path: Path) -> None:
    step = asyncio.Semaphore(0)
    async with FakeAgent(pod="a", holds=held(INDRA), step=step) as agent, RunningMiner(tmp_path) as miner:
        await serve(miner, agent)
        step.release()
        async with miner.client.post("/v1/chat/completions", json=BODY | {"stream": True}) as response:
            for word in agent.words:
                async with asyncio.timeout(5):
                    line = await response.content.readline()
                    await response.content.readline()
                assert json.loads(line.removeprefix(b"data: "))["choices"][0]["delta"]["content"] == word
                step.release()
            assert (await response.content.read()) == b"data: [DONE]\n\n"


async def test_the_twins_name_is_put_in_when_an_event_arrives_in_pieces(tmp_path: Path) -> None:
    event = b'data: {"model":"' + INDRA.served_name.encode() + b'","choices":[]}\n\n'
    pieces = [event[:20], event[20:25], event[25:], b"data: [DO", b"NE]\n\n"]
    step = asyncio.Semaphore(0)
    async with (
        FakeAgent(pod="a", holds=held(INDRA), events=pieces, step=step) as agent,
        RunningMiner(tmp_path) as miner,
    ):
        await serve(miner, agent)
        task = asyncio.create_task(_stream(miner))
        for _ in pieces:
            step.release()
            await asyncio.sleep(0.01)  # so that the pieces travel apart; the outcome must not depend on it
        assert await task == b'data: {"model":"indra","choices":[]}\n\ndata: [DONE]\n\n'


async def test_text_that_looks_like_the_model_field_is_left_alone(tmp_path: Path) -> None:
    text = f'"model":"{INDRA.served_name}"'
    async with FakeAgent(pod="a", holds=held(INDRA), words=[text]) as agent, RunningMiner(tmp_path) as miner:
        await serve(miner, agent)
        _, _, document = await miner.ask("indra")
        assert document["choices"][0]["message"]["content"] == text
        events = (await _stream(miner)).split(b"\n\n")
        assert json.loads(events[0].removeprefix(b"data: "))["choices"][0]["delta"]["content"] == text


@pytest.mark.parametrize("cut", [1, 2, 4])
async def test_a_stream_that_breaks_ends_with_an_error_event(tmp_path: Path, cut: int) -> None:
    async with FakeAgent(pod="a", holds=held(INDRA), cut_after=cut) as agent, RunningMiner(tmp_path) as miner:
        await serve(miner, agent)
        events = [event for event in (await _stream(miner, seed=7)).split(b"\n\n") if event.strip()]
        assert "error" in json.loads(events[-1].removeprefix(b"data: "))
        assert len(events) == cut + 1
        assert (
            miner.metric("bettertherapy_miner_requests_total", twin="indra", version=INDRA.served_name, code="broken")
            == 1
        )


async def test_half_a_line_of_a_broken_stream_is_not_forwarded(tmp_path: Path) -> None:
    events = [b'data: {"a":1}\n\n', b'data: {"b"', b"never"]
    async with (
        FakeAgent(pod="a", holds=held(INDRA), events=events, cut_after=2) as agent,
        RunningMiner(tmp_path) as miner,
    ):
        await serve(miner, agent)
        got = await _stream(miner, seed=7)
        assert b'"b"' not in got
        assert b'"error"' in got


async def test_a_stream_that_ends_without_done_is_called_incomplete(tmp_path: Path) -> None:
    events = [b'data: {"a":1}\n\n']
    async with FakeAgent(pod="a", holds=held(INDRA), events=events) as agent, RunningMiner(tmp_path) as miner:
        await serve(miner, agent)
        assert b'"stream_broken"' in await _stream(miner)


async def test_a_client_that_leaves_stops_the_engine(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with FakeAgent(pod="a", holds=held(INDRA), gate=gate) as agent, RunningMiner(tmp_path) as miner:
        await serve(miner, agent)
        asked = asyncio.create_task(miner.ask("indra"))
        await eventually(lambda: agent.running == 1)
        asked.cancel()
        await eventually(lambda: agent.cancelled == 1)
        await eventually(lambda: miner.service.relay.in_flight == 0)
        assert (
            miner.metric("bettertherapy_miner_requests_total", twin="indra", version=INDRA.served_name, code="499") == 1
        )


async def test_a_client_that_leaves_in_a_stream_stops_the_engine(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    step = asyncio.Semaphore(1)
    async with FakeAgent(pod="a", holds=held(INDRA), step=step) as agent, RunningMiner(tmp_path) as miner:
        await serve(miner, agent)
        response = await miner.client.post("/v1/chat/completions", json=BODY | {"stream": True})
        await response.content.readline()
        response.close()
        await eventually(lambda: agent.cancelled == 1)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR and record.exc_info]


async def test_the_twins_system_prompt_and_the_clients_are_one(tmp_path: Path) -> None:
    async with FakeAgent(pod="a", holds=held(INDRA)) as agent, RunningMiner(tmp_path) as miner:
        await serve(miner, agent, system_prompt="You are Dr. Gurung's twin.")
        messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
        await miner.ask("indra", messages=messages)
        assert agent.bodies[-1]["messages"] == [
            {"role": "system", "content": "You are Dr. Gurung's twin.\n\nBe brief."}, messages[1]
        ]  # fmt: skip


async def test_only_the_body_reaches_the_engine(tmp_path: Path) -> None:
    async with FakeAgent(pod="a", holds=held(INDRA)) as agent, RunningMiner(tmp_path) as miner:
        await serve(miner, agent)
        await miner.ask("indra", headers={"X-Patient": "Ram", "x-session-id": "s"})
        own = {"host", "content-type", "content-length", "accept", "x-twin-name", "traceparent"}
        assert set(agent.headers[0]) <= own


async def test_an_engines_refusal_of_a_request_is_passed_on(tmp_path: Path) -> None:
    error = {"message": "maximum context length is 1024", "type": "BadRequestError", "code": 400}
    async with (
        FakeAgent(pod="a", holds=held(INDRA), status=400, error=error) as agent,
        RunningMiner(tmp_path) as miner,
    ):
        await serve(miner, agent)
        status, headers, document = await miner.ask("indra")
        assert (status, document) == (400, {"error": error})
        assert headers["x-twin-pod"] == "a"
        assert len(agent.bodies) == 1


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"{", None),
        (b"[]", None),
        (b'"x"', None),
        (b"", None),
        (b'{"messages": [{"role": "user"}]}', "model"),
        (b'{"model": 7, "messages": [{"role": "user"}]}', "model"),
        (b'{"model": "indra"}', "messages"),
        (b'{"model": "indra", "messages": []}', "messages"),
        (b'{"model": "indra", "messages": ["hello"]}', "messages"),
        (b'{"model": "indra", "messages": [{"content": "x"}]}', "messages"),
        (b'{"model": "indra", "messages": [{"role": "user"}], "stream": "yes"}', "stream"),
    ],
)
async def test_a_bad_body_is_a_400(tmp_path: Path, body: bytes, param: str | None) -> None:
    async with RunningMiner(tmp_path) as miner:
        await serve(miner)
        async with miner.client.post("/v1/chat/completions", data=body) as response:
            assert response.status == 400
            error = (await response.json())["error"]
            assert error["param"] == param
            assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "field", ["lora_request", "lora_name", "adapter", "chat_template", "chat_template_kwargs", "kv_transfer_params"]
)
async def test_a_field_that_might_steer_the_engine_is_refused(tmp_path: Path, field: str) -> None:
    async with FakeAgent(pod="a", holds=held(INDRA)) as agent, RunningMiner(tmp_path) as miner:
        await serve(miner, agent)
        extra: dict[str, Any] = {field: "x"}
        status, _, document = await miner.ask("indra", **extra)
        assert (status, document["error"]["param"]) == (400, field)
        assert agent.bodies == []


async def test_a_second_model_field_cannot_choose_a_served_name(tmp_path: Path) -> None:
    async with FakeAgent(pod="a", holds=held(INDRA)) as agent, RunningMiner(tmp_path) as miner:
        await serve(miner, agent)
        body = b'{"model":"base","messages":[{"role":"user","content":"x"}],"model":"indra"}'
        async with miner.client.post("/v1/chat/completions", data=body) as response:
            assert response.status == 200
        assert agent.bodies[0]["model"] == INDRA.served_name


@pytest.mark.parametrize("model", ["base", INDRA.served_name, "nobody", "indra "])
async def test_only_twins_names_are_models(tmp_path: Path, model: str) -> None:
    async with FakeAgent(pod="a", holds=held(INDRA)) as agent, RunningMiner(tmp_path) as miner:
        await serve(miner, agent)
        status, _, document = await miner.ask(model)
        assert (status, document["error"]["code"]) == (404, "model_not_found")
        assert "GET /v1/models" in document["error"]["message"]
        assert b"nobody" not in miner.service.metrics.render()


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_a_mebibyte_is_refused(tmp_path: Path, chunked: bool) -> None:
    async def parts() -> object:
        for _ in range(20):
            yield b"x" * 65536

    async with RunningMiner(tmp_path) as miner:
        await serve(miner)
        data = parts() if chunked else b"x" * (20 * 65536)
        async with miner.client.post("/v1/chat/completions", data=data) as response:
            assert response.status == 413


QUESTION = json.dumps({"model": "indra", "messages": [{"role": "user", "content": "Hello"}]}).encode()


async def send(miner: RunningMiner, body: bytes, encoding: str) -> tuple[int, dict[str, str]]:
    """Post these bytes; returns the answer's status and its error."""
    headers = {"Content-Encoding": encoding, "Content-Type": "application/json"}
    async with miner.client.post("/v1/chat/completions", data=body, headers=headers) as response:
        document = json.loads(await response.read())
        return response.status, document.get("error", {})


@pytest.mark.parametrize(
    ("encoding", "body", "status", "words"),
    [
        ("gzip", b"hello", 400, "not encoded as gzip"),
        ("deflate", b"hello", 400, "not encoded as deflate"),
        ("gzip", gzip.compress(QUESTION)[:-12], 400, "ends before its gzip"),
        ("deflate", zlib.compress(QUESTION)[:-6], 400, "ends before its deflate"),
        ("gzip", gzip.compress(QUESTION) + b"more", 400, "not encoded as gzip"),
        ("gzip", gzip.compress(b"") * 10_000 + gzip.compress(QUESTION), 400, "more than 16 parts"),
        ("br", b"hello", 415, "gzip or deflate"),
        ("zstd", b"hello", 415, "gzip or deflate"),
        ("compress", b"hello", 415, "gzip or deflate"),
        ("gzip, br", b"hello", 415, "gzip or deflate"),
        ("x" * 1000, b"hello", 415, "gzip or deflate"),
    ],
    ids=[
        "gzip",
        "deflate",
        "cut gzip",
        "cut deflate",
        "gzip and more",
        "many gzips",
        "br",
        "zstd",
        "compress",
        "two",
        "long",
    ],
)
async def test_a_body_that_is_not_encoded_as_it_says_is_refused_in_words(
    tmp_path: Path, encoding: str, body: bytes, status: int, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with RunningMiner(tmp_path) as miner:
        await serve(miner)
        said, error = await send(miner, body, encoding)
        assert (said, error["type"]) == (status, "invalid_request_error")
        assert words in error["message"]
        assert len(error["message"]) < 200
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(QUESTION)),
        ("X-GZIP", gzip.compress(QUESTION[:9]) + gzip.compress(QUESTION[9:])),
        ("deflate", zlib.compress(QUESTION)),
        ("deflate", zlib.compress(QUESTION)[2:-4]),
        ("identity", QUESTION),
    ],
    ids=["gzip", "two members", "zlib", "bare deflate", "as it is"],
)
async def test_a_body_that_is_packed_is_read(tmp_path: Path, encoding: str, body: bytes) -> None:
    async with FakeAgent(pod="a", holds=held(INDRA)) as agent, RunningMiner(tmp_path) as miner:
        await serve(miner, agent)
        assert (await send(miner, body, encoding))[0] == 200
        assert agent.bodies[0]["messages"][0]["content"] == "Hello"


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_bomb_is_too_large(tmp_path: Path, encoding: str) -> None:
    pack = gzip.compress if encoding == "gzip" else zlib.compress
    async with RunningMiner(tmp_path) as miner:
        await serve(miner)
        said, error = await send(miner, pack(b" " * (64 * 1024 * 1024)), encoding)
        assert (said, error["code"]) == (413, "body_too_large")


async def test_a_body_of_just_under_a_mebibyte_arrives_whole(tmp_path: Path) -> None:
    async with FakeAgent(pod="a", holds=held(INDRA)) as agent, RunningMiner(tmp_path) as miner:
        await serve(miner, agent)
        # The agent of the test reads at most 1 MiB too.
        status, _, _ = await miner.ask("indra", text="x" * (1024 * 1024 - 300))
        assert status == 200
        assert len(agent.bodies[0]["messages"][0]["content"]) == 1024 * 1024 - 300


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v1", 404),
        ("GET", "/v1/completions", 405),
        ("GET", "/v1/responses", 405),
        ("GET", "/v1/responses/1", 404),
        ("OPTIONS", "/v1/chat/completions", 405),
        ("HEAD", "/v1/chat/completions", 405),
        ("POST", "/v1/load_lora_adapter", 404),
        ("POST", "/v1/messages", 404),
        ("GET", "/docs", 404),
        ("GET", "/v1/models/a/b", 404),
        ("POST", "/v1/chat/completions/", 404),
        ("GET", "/v1/chat/completions", 405),
        ("DELETE", "/v1/models", 405),
        ("DELETE", "/v1/models/indra", 405),
        ("GET", "/metrics", 404),
    ],
)
async def test_nothing_else_exists(tmp_path: Path, method: str, path: str, status: int) -> None:
    async with FakeAgent(pod="a", holds=held(INDRA)) as agent, RunningMiner(tmp_path) as miner:
        await serve(miner, agent)
        async with miner.client.request(method, path) as response:
            assert response.status == status
            assert method == "HEAD" or "message" in (await response.json())["error"]
            reads = "models" in path
            assert response.headers.get("Allow") == (None if status == 404 else "GET, HEAD" if reads else "POST")


async def test_models_lists_only_what_answers_now(tmp_path: Path) -> None:
    async with FakeAgent(pod="a", holds=held(INDRA)) as agent, RunningMiner(tmp_path) as miner:
        miner.route(
            {
                "indra": Twin(versions=(INDRA,), doctor="Indra Gurung"),
                "loading": Twin(versions=(version("loading", "c"),)),
                "empty": Twin(versions=()),
            }
        )
        miner.report([agent])
        async with miner.client.get("/v1/models") as response:
            models = await response.json()
        assert [model["id"] for model in models["data"]] == ["indra"]
        assert models["data"][0]["owned_by"] == "Indra Gurung"
        assert models["data"][0]["bettertherapy"]["versions"] == [
            {"servedName": INDRA.served_name, "adapterDigest": digest("a"), "weightPercent": 100, "pods": 1}
        ]
        for name, status in (("indra", 200), ("loading", 404), ("nobody", 404)):
            async with miner.client.get(f"/v1/models/{name}") as response:
                assert response.status == status


async def test_no_prompt_and_no_answer_is_ever_logged_or_measured(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    agent = FakeAgent(pod="a", holds=held(INDRA), words=["ANSWERED-SECRET"])
    async with agent, RunningMiner(tmp_path, hold_seconds=0.2) as miner:
        await serve(miner, agent, system_prompt="SYSTEM-SECRET")
        secret: dict[str, Any] = {
            "text": "PATIENT-SECRET", "user": "USER-SECRET", "headers": {"x-session-id": "SESSION-SECRET"}
        }  # fmt: skip
        assert (await miner.ask("indra", **secret))[0] == 200
        agent.cut_after = 1
        await _stream(miner, "PATIENT-SECRET")
        agent.break_off = True
        assert (await miner.ask("indra", **secret))[0] in (502, 503)
        async with miner.client.post("/v1/chat/completions", data=b'{"PATIENT-SECRET') as response:
            assert response.status == 400
            assert "SECRET" not in await response.text()
        for secret_part in ({"prompts": {"sha256:0": "SYSTEM-SECRET"}}, {"prompts": {"x": ["SYSTEM-SECRET"]}},
                            {"twins": {"x": {"name": ["SYSTEM-SECRET"]}}}, {"pool": "SYSTEM-SECRET"}):  # fmt: skip
            miner.service.tables.take_routing(Put({"metadata": {"name": "pool-routing-9"}, **secret_part}))
        miner.service.tables.take_reports(Put({"metadata": {"name": "x"}, "engine": "PATIENT-SECRET"}))
        assert caplog.records
        for record in caplog.records:
            assert "SECRET" not in record.getMessage()
            assert "SECRET" not in str({k: v for k, v in record.__dict__.items() if k != "exc_info"})
        assert b"SECRET" not in miner.service.metrics.render()


async def _stream(miner: RunningMiner, text: str = "Hello", **more: Any) -> bytes:
    body = BODY | {"stream": True, "messages": [{"role": "user", "content": text}]} | more
    async with miner.client.post(
        "/v1/chat/completions", json=body, timeout=aiohttp.ClientTimeout(total=10)
    ) as response:
        assert response.status == 200
        assert response.headers["x-twin-adapter-digest"] == digest("a")
        return await response.read()


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_the_doctors_rules_cannot_be_cut_off_the_prompt(tmp_path: Path, path: str) -> None:
    async with FakeAgent(pod="a", holds=held(INDRA)) as agent, RunningMiner(tmp_path) as miner:
        await serve(miner, agent, system_prompt="Never name a dose.")
        body = BODY if path.endswith("chat/completions") else {"model": "indra", "prompt": "Hello"}
        async with miner.client.post(path, json=body | {"truncate_prompt_tokens": 5}) as response:
            assert response.status == 400
            assert "truncate_prompt_tokens" in (await response.json())["error"]["message"]
        assert agent.bodies == []

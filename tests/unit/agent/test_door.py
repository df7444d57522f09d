"""The agent's port is the pod's only door: four routes to the engine, for verified names, and nothing else."""

from __future__ import annotations

import asyncio
import gzip
import json
from pathlib import Path

import aiohttp
import orjson
import pytest

from bettertherapy_api.routing import TwinEntry
from neurons.miner.settings import MAX_BODY_BYTES
from tests.standin import BASE, ROUTES
from tests.unit.agent.pod import Pod, read_events, running_pod, until, words

ALLOWED = {
    ("GET", "/v1/models"), ("POST", "/v1/chat/completions"), ("POST", "/v1/completions"), ("POST", "/tokenize"),
}  # fmt: skip
CHAT = "/v1/chat/completions"
REFUSED_ROUTES = [route for route in ROUTES if route not in ALLOWED]


@pytest.fixture
async def served(pod: Pod) -> Pod:
    """A pod that is ready to answer with its base model."""
    agent = pod.agent
    # The agent's own questions are over, so that what reaches the engine from now on came by the door.
    await until(lambda: agent.ready and agent.roster.known_answers.taken and agent.template.settled)
    pod.engine.calls.clear()
    return pod


async def raw(pod: Pod, head: str, body: bytes = b"") -> bytes:
    """Send bytes as they are and return the answer's first line."""
    reader, writer = await asyncio.open_connection("127.0.0.1", pod.agent.port)
    try:
        writer.write(head.replace("\n", "\r\n").encode() + body)
        await writer.drain()
        async with asyncio.timeout(5):
            return await reader.readline()
    finally:
        writer.close()


def sent_to_engine(pod: Pod) -> set[str]:
    """Routes that reached the engine, the agent's own questions left out."""
    own = {"GET /v1/models", "GET /metrics", "GET /version"}
    return {call for call in pod.engine.calls if call not in own}


@pytest.mark.parametrize(("method", "path"), REFUSED_ROUTES)
async def test_every_other_route_of_vllm_is_refused(served: Pod, method: str, path: str) -> None:
    adapter = served.adapter("dr")
    body = {"lora_name": "x", "lora_path": str(adapter.folder), "name": "x", "src": str(adapter.folder)}
    path = path.replace("{adapter_name}", "x").replace("{id}", "x")
    async with served.http.request(method, served.url + path, json=body) as response:
        assert response.status == 404
    assert not sent_to_engine(served)
    assert not served.engine.loras


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE", "BREW"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/models"])
async def test_other_methods_of_allowed_routes_are_refused(served: Pod, method: str, path: str) -> None:
    if (method, path) == ("GET", "/v1/models"):
        pytest.skip("allowed")
    body = '{"model": "base-model", "prompt": "a"}'
    head = f"{method} {path} HTTP/1.1\nHost: x\nContent-Type: application/json\nContent-Length: {len(body)}\n\n"
    line = await raw(served, head, body.encode())
    assert b" 404 " in line or b" 400 " in line
    assert not sent_to_engine(served)


@pytest.mark.parametrize(
    "target",
    [
        "/v1/chat/completions/../../load", "/v1/chat/completions/", "//v1/chat/completions", "/v1//chat/completions",
        "/v1/chat%2Fcompletions", "/v1/chat/completions%2F..%2F..%2Fadapters", "/./v1/chat/completions",
        "/V1/CHAT/COMPLETIONS", "/v1/chat/completions;x=1", "/v1/chat/completions?x=1", "/v1/chat/completions%00",
        "/%61dapters", "/adapters#/v1/chat/completions", "http://engine/v1/load_lora_adapter",
        "http://engine/v1/chat/completions", "*", "engine:80",
    ],
)  # fmt: skip
async def test_paths_that_only_look_allowed_are_refused(served: Pod, target: str) -> None:
    body = '{"model": "base-model", "messages": [{"role": "user", "content": "x"}]}'
    head = f"POST {target} HTTP/1.1\nHost: x\nContent-Type: application/json\nContent-Length: {len(body)}\n\n"
    line = await raw(served, head, body.encode())
    assert b" 404 " in line or b" 400 " in line
    assert not sent_to_engine(served)


async def test_connect_is_refused(served: Pod) -> None:
    line = await raw(served, "CONNECT engine:80 HTTP/1.1\nHost: engine:80\n\n")
    assert b" 404 " in line or b" 400 " in line


async def test_an_upgrade_is_refused(served: Pod) -> None:
    head = "GET /v1/models HTTP/1.1\nHost: x\nConnection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13\n\n"
    assert b" 400 " in await raw(served, head)


async def test_a_smuggled_second_request_does_not_reach_the_engine(served: Pod) -> None:
    smuggled = b"POST /v1/load_lora_adapter HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
    body = b'{"model": "base-model", "messages": []}'
    head = (
        f"POST {CHAT} HTTP/1.1\nHost: x\nContent-Type: application/json\n"
        f"Content-Length: {len(body)}\nTransfer-Encoding: chunked\n\n"
    )
    line = await raw(served, head, b"0\r\n\r\n" + smuggled)
    assert b" 400 " in line
    assert sent_to_engine(served) <= {"POST /v1/chat/completions"}


async def test_the_base_model_answers_under_its_own_name(served: Pod) -> None:
    status, document, headers = await served.answer("base-model")
    assert status == 200
    assert headers["x-twin-pod"] == "pod-1"
    assert "x-twin-adapter-digest" not in headers
    assert document["model"] == "base-model"


async def test_a_verified_adapter_answers_and_the_answer_names_its_digest(served: Pod) -> None:
    adapter = served.adapter("dr")
    served.tables.write(adapter)
    await served.verified(adapter)
    status, document, headers = await served.answer(adapter.name)
    assert status == 200
    assert headers["x-twin-adapter-digest"] == adapter.digest
    assert headers["x-twin-served-name"] == adapter.name
    assert words(document).startswith(adapter.seed[:8])


async def test_completions_are_let_through_too(served: Pod) -> None:
    body = {"model": "base-model", "prompt": "hello", "max_tokens": 2}
    async with served.http.post(served.url + "/v1/completions", json=body) as response:
        assert response.status == 200
        assert (await response.json())["object"] == "text_completion"


async def test_an_unknown_name_is_for_another_pod(served: Pod) -> None:
    status, document, headers = await served.answer("nobody-12345678")
    assert status == 421
    assert document["error"]["type"] == "AdapterNotHere"
    assert headers["x-twin-retry"] == "other-pod"
    assert not sent_to_engine(served)


async def test_a_name_that_the_engine_knows_but_we_have_not_verified_is_refused(served: Pod) -> None:
    adapter = served.adapter("dr")
    await served.agent.engine.load("sneaked-in", adapter.folder)
    assert (await served.answer("sneaked-in"))[0] == 421


@pytest.mark.parametrize("model", [None, "", 7, ["base-model"], {"a": 1}])
async def test_a_request_must_name_its_model(served: Pod, model: object) -> None:
    async with served.http.post(served.url + CHAT, json={"model": model, "messages": []}) as response:
        assert response.status == 400
    assert not sent_to_engine(served)


async def test_of_two_models_the_engine_reads_the_one_that_was_checked(served: Pod) -> None:
    adapter = served.adapter("dr")
    await served.agent.engine.load("sneaked-in", adapter.folder)
    served.engine.bodies.clear()
    for order in (("base-model", "sneaked-in"), ("sneaked-in", "base-model")):
        body = '{"messages": [], "model": "%s", "model": "%s"}' % order  # noqa: UP031
        headers = {"Content-Type": "application/json"}
        async with served.http.post(served.url + CHAT, data=body, headers=headers) as response:
            assert response.status in (200, 421)
    assert {body["model"] for body in served.engine.bodies} == {"base-model"}


@pytest.mark.parametrize(
    "field",
    [
        "lora_request",
        "kv_transfer_params",
        "chat_template",
        "vllm_xargs",
        "prompt_embeds",
        "request_id",
        "prompt_logprobs",
        "echo",
        "logprob_token_ids",
    ],
)
async def test_fields_that_reach_around_the_check_are_refused(served: Pod, field: str) -> None:
    status, document, _ = await served.answer("base-model", **{field: "x"})
    assert status == 400
    assert field in document["error"]["message"]
    assert not sent_to_engine(served)


async def test_prompt_logprobs_of_0_are_refused_as_well(served: Pod) -> None:
    """They kill vLLM 0.32 on a CPU when another request runs in the same step."""
    assert (await served.answer("base-model", prompt_logprobs=0))[0] == 400
    assert (await served.answer("base-model", prompt_logprobs=None, echo=False))[0] == 200


async def test_a_url_that_the_engine_would_fetch_is_refused(served: Pod) -> None:
    part = {"type": "image_url", "image_url": {"url": "http://169.254.169.254/latest"}}
    messages = [{"role": "user", "content": [{"type": "text", "text": "look"}, part]}]
    assert (await served.answer("base-model", messages=messages))[0] == 400
    assert not sent_to_engine(served)


@pytest.mark.parametrize(
    ("part", "status"),
    [
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}, 200),
        ({"type": "image_url", "image_url": {"url": "data:text/html,x"}}, 400),
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}, "video_url": {"url": "x"}}, 400),
        ({"type": "image_url", "image_url": "file:///etc/passwd"}, 400),
    ],
)
async def test_only_an_image_that_lies_in_the_request_passes_where_the_pool_takes_any(
    tmp_path: Path, part: object, status: int
) -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "look"}, part]}]
    async with running_pod(tmp_path, images=True) as pod:
        await until(lambda: pod.agent.ready)
        assert (await pod.answer("base-model", messages=messages))[0] == status


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
        {"type": "image_embeds", "image_embeds": "AA=="},
        {"type": "audio_embeds", "audio_embeds": "AA=="},
        {"type": "video_embeds", "video_embeds": "AA=="},
        {"type": "prompt_embeds", "prompt_embeds": "AA=="},
        {"image_embeds": "AA=="},
        {"type": "text", "text": "x", "image_embeds": "AA=="},
        {"type": "text", "text": ["x"]},
        "text",
    ],
    ids=str,
)
async def test_no_part_of_a_message_passes_but_text(served: Pod, part: object) -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "look"}, part]}]
    status, document, _ = await served.answer("base-model", messages=messages)
    assert (status, "only text" in document["error"]["message"]) == (400, True)
    assert not sent_to_engine(served)


async def test_unknown_fields_are_refused(served: Pod) -> None:
    assert (await served.answer("base-model", min_p=0.1, something_new=None))[0] == 200
    assert "something_new" not in served.engine.bodies[-1]
    status, document, _ = await served.answer("base-model", min_p=0.1, something_new=True)
    assert (status, "something_new" in document["error"]["message"]) == (400, True)
    messages = [{"role": "user", "content": "x", "mm_uuids": ["a"]}]
    assert (await served.answer("base-model", messages=messages))[0] == 400


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{not json", {"Content-Type": "application/json"}, 400),
        (b"[]", {"Content-Type": "application/json"}, 400),
        (b'{"model": "base-model"}', {"Content-Type": "text/plain"}, 415),
        (gzip.compress(b"{}"), {"Content-Type": "application/json", "Content-Encoding": "gzip"}, 415),
        (b"x" * 2_100_000, {"Content-Type": "application/json"}, 413),
    ],
    ids=["no JSON", "no object", "no JSON by its type", "compressed", "too large"],
)
async def test_bodies_that_are_no_small_plain_json_are_refused(
    served: Pod, body: bytes, headers: dict[str, str], status: int
) -> None:
    async with served.http.post(served.url + CHAT, data=body, headers=headers) as response:
        assert response.status == status
    assert not sent_to_engine(served)


async def test_a_body_without_a_length_is_bounded_as_well(served: Pod) -> None:
    async def endless() -> object:
        for _ in range(40):
            yield b" " * 65536

    headers = {"Content-Type": "application/json"}
    async with served.http.post(served.url + CHAT, data=endless(), headers=headers) as response:
        assert response.status == 413


async def test_a_stream_arrives_piece_by_piece(served: Pod) -> None:
    served.engine.knobs.token_seconds = 0.1
    async with served.ask("base-model", stream=True, max_tokens=10) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        first = await response.content.readline()
        assert first.startswith(b"data: ")
        assert served.engine.running == 1  # it still generates: nothing was held back
        await read_events(response)


async def test_a_client_that_leaves_ends_its_request_in_the_engine(served: Pod) -> None:
    served.engine.knobs.token_seconds = 0.05
    response = await served.ask("base-model", stream=True, max_tokens=500)
    await response.content.readline()
    response.close()
    await until(lambda: served.engine.aborted == 1 and served.agent.traffic.total == 0)


async def test_a_client_that_leaves_before_the_first_byte_ends_its_request_too(served: Pod) -> None:
    served.engine.knobs.prefill_seconds = 60
    task = asyncio.ensure_future(served.answer("base-model"))
    await until(lambda: served.engine.running == 1)
    task.cancel()
    await until(lambda: served.engine.aborted == 1 and served.agent.traffic.total == 0)


async def test_a_stream_cut_by_the_engine_ends_as_a_broken_connection(served: Pod) -> None:
    served.engine.knobs.token_seconds = 0.05
    async with served.ask("base-model", stream=True, max_tokens=500) as response:
        await response.content.readline()
        await served.engine.stop()
        with pytest.raises(aiohttp.ClientError):
            await read_events(response)


async def test_an_engine_that_is_down_sends_requests_elsewhere(served: Pod) -> None:
    await served.engine.stop()
    status, _, headers = await served.answer("base-model")
    assert (status, headers["x-twin-retry"]) == (503, "other-pod")


async def test_the_engines_own_errors_pass(served: Pod) -> None:
    status, document, headers = await served.answer("base-model", max_tokens=100_000)
    assert status == 400
    assert document["error"]["param"] == "input_tokens"
    assert headers["x-twin-pod"] == "pod-1"


async def test_credentials_of_the_client_stay_at_the_door(served: Pod) -> None:
    headers = {"Authorization": "Bearer secret", "Cookie": "a=b", "X-Request-Id": "r-1", "X-Data-Parallel-Rank": "1"}
    body = {"model": "base-model", "messages": []}
    async with served.http.post(served.url + CHAT, json=body, headers=headers) as response:
        assert response.status == 200
    seen = served.engine.seen_headers[-1]
    assert seen["x-request-id"] == "r-1"
    assert not {"authorization", "cookie", "x-data-parallel-rank"} & seen.keys()


async def test_too_many_requests_are_sent_elsewhere(tmp_path: Path) -> None:
    async with running_pod(tmp_path, max_in_flight=2) as pod:
        await until(lambda: pod.agent.ready)
        pod.engine.knobs.prefill_seconds = 0.5
        answers = await asyncio.gather(*(pod.answer("base-model") for _ in range(3)))
        assert sorted(status for status, _, _ in answers) == [200, 200, 503]


async def test_no_more_are_let_in_than_the_engine_runs_however_many_miners_send(tmp_path: Path) -> None:
    async with running_pod(tmp_path) as pod:
        await until(lambda: pod.agent.ready)
        pod.tables.write(running=2)
        await until(lambda: pod.agent.view.header is not None and pod.agent.view.header.max_running == 2)
        pod.engine.knobs.prefill_seconds = 0.5
        answers = await asyncio.gather(*(pod.answer("base-model") for _ in range(3)))
        assert sorted(status for status, _, _ in answers) == [200, 200, 503]


async def test_one_twins_flood_sends_no_other_twins_requests_away(tmp_path: Path) -> None:
    """Twins without an adapter are one model to the pod; the miner says whose question it is."""
    async with running_pod(tmp_path, TwinEntry(name="indra"), TwinEntry(name="asha"), max_in_flight=8) as pod:
        await until(lambda: pod.agent.ready and pod.agent.roster.known_answers.taken)
        pod.engine.wedge()

        async def ask(twin: str) -> int:
            body = {"model": "base-model", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 2}
            async with pod.http.post(pod.url + CHAT, json=body, headers={"x-twin-name": twin}) as response:
                return response.status

        flood = [asyncio.create_task(ask("indra")) for _ in range(8)]
        await until(lambda: pod.agent.traffic.total == 8)
        assert await ask("indra") == 503
        one = asyncio.create_task(ask("asha"))
        await until(lambda: pod.agent.traffic.total == 9 or one.done())
        pod.engine.unwedge()
        assert await one == 200
        assert [await each for each in flood] == [200] * 8
        assert pod.agent.traffic.total == 0
        assert "x-twin-name" not in pod.engine.seen_headers[-1]


async def test_names_of_no_twin_have_no_places(tmp_path: Path) -> None:
    async with running_pod(tmp_path, TwinEntry(name="asha"), max_in_flight=8) as pod:
        await until(lambda: pod.agent.ready and pod.agent.roster.known_answers.taken)
        pod.engine.wedge()

        async def ask(twin: str) -> int:
            body = {"model": "base-model", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 2}
            async with pod.http.post(pod.url + CHAT, json=body, headers={"x-twin-name": twin}) as response:
                return response.status

        flood = [asyncio.create_task(ask(f"made up {number}")) for number in range(8)]
        await until(lambda: pod.agent.traffic.total == 8)
        assert await ask("one more") == 503
        one = asyncio.create_task(ask("asha"))
        await until(lambda: pod.agent.traffic.total == 9 or one.done())
        pod.engine.unwedge()
        assert await one == 200
        assert [await each for each in flood] == [200] * 8


async def test_models_lists_the_base_and_what_is_verified_without_paths(served: Pod) -> None:
    adapter, bad = served.adapter("dr"), served.adapter("bad", rank=64)
    served.tables.write(adapter, bad)
    await served.verified(adapter)
    await served.failed(bad)
    status, text = await served.get("/v1/models")
    assert status == 200
    assert [model["id"] for model in json.loads(text)["data"]] == ["base-model", adapter.name]
    assert "/adapters" not in text


async def test_metrics_hold_the_agents_series_and_the_engines(served: Pod) -> None:
    adapter = served.adapter("dr")
    served.tables.write(adapter)
    await served.verified(adapter)
    text = await served.metrics()
    assert 'bettertherapy_agent_adapters{state="Verified"} 1.0' in text
    assert "bettertherapy_agent_adapter_load_seconds_count 1.0" in text
    assert "bettertherapy_agent_engine_up 1.0" in text
    assert "vllm:num_requests_running" in text


async def test_metrics_come_without_an_engine(tmp_path: Path) -> None:
    async with running_pod(tmp_path, engine=False) as pod:
        assert "bettertherapy_agent_engine_up 0.0" in await pod.metrics()


async def test_status_is_the_pods_report(served: Pod) -> None:
    _, text = await served.get("/agent/v1/status")
    assert json.loads(text) == json.loads(served.agent.report().to_json())


async def test_what_a_miner_takes_the_agent_takes_with_the_doctors_rules_before_it(served: Pod) -> None:
    """A patient was told that the body is too large, and it was not."""
    served.engine.knobs.max_model_len = 1 << 30
    rules = {"role": "system", "content": "\N{DEVANAGARI LETTER KA}" * 8192}
    said = {"role": "user", "content": "x" * (MAX_BODY_BYTES - 1000)}
    body = orjson.dumps({"model": "base-model", "max_tokens": 1, "messages": [rules, said]})
    async with served.http.post(served.url + CHAT, data=body, headers={"Content-Type": "application/json"}) as response:
        assert response.status == 200, await response.text()


async def test_another_pools_agent_can_take_its_proofs_here(served: Pod) -> None:
    """As `engine.endpoint` may be another pool's agents."""
    body = {
        "model": BASE, "prompt": [1, 2, 3], "max_tokens": 1, "temperature": 0, "logprobs": 1, "allowed_token_ids": [5],
        "return_tokens_as_token_ids": True,
    }  # fmt: skip
    async with served.http.post(f"{served.url}/v1/completions", json=body) as response:
        assert response.status == 200, await response.text()

"""What HTTP itself asks for: HEAD, CORS, ids of requests, images, fields that do no harm."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from bettertherapy_api import names
from neurons.miner import settings
from neurons.miner.errors import EMERGENCY_HEADER, SHOULD_RETRY_HEADER
from neurons.miner.limits import Limits
from neurons.miner.preparation import HISTORY_HEADER, LESSONS_HEADER
from neurons.miner.tracing import REQUEST_ID, trace_id_of, trace_of
from neurons.validator.gateway.response import ANSWER_HEADER, MINER_HEADER
from tests.unit.miner.fake_agent import FakeAgent
from tests.unit.miner.running_miner import TOKEN, RunningMiner, Twin, held, version

INDRA = version("indra", "a")
BODY: dict[str, Any] = {"model": "indra", "messages": [{"role": "user", "content": "Hello"}]}
PAGE = "https://clinic.example"
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/indra", "/healthz", "/readyz"])
async def test_head_is_get_without_a_body(tmp_path: Path, path: str) -> None:
    async with FakeAgent(pod="a", holds=held(INDRA)) as agent, RunningMiner(tmp_path) as miner:
        miner.route({"indra": Twin(versions=(INDRA,))})
        miner.report([agent])
        async with miner.client.get(path) as response:
            whole = response.headers["Content-Type"]
        async with miner.client.head(path) as response:
            assert (response.status, response.headers["Content-Type"]) == (200, whole)
            assert await response.read() == b""


async def test_a_request_keeps_its_id_and_trace_on_its_way(tmp_path: Path) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    given = {"x-request-id": "clinic-7", "traceparent": trace, "tracestate": "a=b"}
    async with FakeAgent(pod="a", holds=held(INDRA)) as agent, RunningMiner(tmp_path) as miner:
        miner.route({"indra": Twin(versions=(INDRA,))})
        miner.report([agent])
        for stream in (False, True):
            async with miner.client.post(
                "/v1/chat/completions", json=BODY | {"stream": stream}, headers=given
            ) as response:
                assert response.headers["x-request-id"] == "clinic-7"
            assert given.items() <= agent.headers[-1].items()
        async with miner.client.get("/v1/nothing", headers=given) as response:
            assert response.headers["x-request-id"] == "clinic-7"
        odd = {"x-request-id": "a b", "traceparent": "x"}
        async with miner.client.post("/v1/chat/completions", json=BODY, headers=odd) as response:
            assert response.headers["x-request-id"].startswith("req_")
        assert not {"x-request-id", "tracestate"} & agent.headers[-1].keys()
        assert trace_id_of(agent.headers[-1])


@pytest.mark.parametrize(
    "odd",
    [
        None,
        "x",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
    ],
)
def test_a_trace_that_is_none_is_replaced_with_what_belongs_to_it(odd: str | None) -> None:
    given = {"tracestate": "a=b"} | ({} if odd is None else {"traceparent": odd})
    first, second = trace_of(given), trace_of(given)
    assert first.keys() == {"traceparent"}
    assert len(trace_id_of(first)) == 32
    assert trace_id_of(first) != trace_id_of(second)


async def test_histograms_name_the_trace_beside_an_observation_where_openmetrics_is_asked_for(tmp_path: Path) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    given = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    async with FakeAgent(pod="a", holds=held(INDRA)) as agent, RunningMiner(tmp_path) as miner:
        miner.route({"indra": Twin(versions=(INDRA,))})
        miner.report([agent])
        async with miner.client.post("/v1/chat/completions", json=BODY | {"stream": True}, headers=given) as response:
            await response.read()
        url = f"http://127.0.0.1:{miner.service.metrics_port}/metrics"
        accept = {"Accept": "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5"}
        async with aiohttp.ClientSession() as session:
            async with session.get(url, headers=accept) as response:
                assert response.headers["Content-Type"].startswith("application/openmetrics-text")
                page = await response.text()
            async with session.get(url) as response:
                plain = await response.text()
        found = [family for family in text_string_to_metric_families(page) if family.name.endswith("_seconds")]
        marked = {
            family.name: sample.exemplar.labels
            for family in found
            for sample in family.samples
            if sample.exemplar is not None
        }
        assert marked == {
            "bettertherapy_miner_request_seconds": {"trace_id": trace},
            "bettertherapy_miner_first_token_seconds": {"trace_id": trace},
        }
        assert trace not in plain


async def test_an_old_client_that_keeps_its_connection_sees_where_a_stream_ends(tmp_path: Path) -> None:
    """HTTP/1.0 knows no chunks: only the connection's end tells it."""
    body = json.dumps(BODY | {"stream": True}).encode()
    head = f"POST /v1/chat/completions HTTP/1.0\r\nAuthorization: Bearer {TOKEN}\r\nConnection: keep-alive\r\n"
    async with FakeAgent(pod="a", holds=held(INDRA)) as agent, RunningMiner(tmp_path) as miner:
        miner.route({"indra": Twin(versions=(INDRA,))})
        miner.report([agent])
        reader, writer = await asyncio.open_connection("127.0.0.1", miner.service.port)
        writer.write(f"{head}Content-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n".encode() + body)
        async with asyncio.timeout(5):
            answer = await reader.read()
        writer.close()
        assert answer.startswith(b"HTTP/1.0 200 OK")  # and no 100, which came with HTTP/1.1
        assert answer.endswith(b"data: [DONE]\n\n")


async def test_pages_of_allowed_origins_may_ask(tmp_path: Path) -> None:
    async with (
        FakeAgent(pod="a", holds=held(INDRA)) as agent,
        RunningMiner(tmp_path, cors_origins=frozenset({PAGE})) as miner,
    ):
        miner.route({"indra": Twin(versions=(INDRA,))})
        miner.report([agent])
        asks = {
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,x-stainless-os",
        }
        for origin, allowed in ((PAGE, PAGE), ("https://elsewhere.example", None)):
            async with miner.client.options("/v1/chat/completions", headers=asks | {"Origin": origin}) as response:
                assert response.status == 204
                assert response.headers.get("Access-Control-Allow-Origin") == allowed
                assert response.headers["Access-Control-Allow-Headers"] == "authorization,x-stainless-os"
            for stream in (False, True):
                body = BODY | {"stream": stream}
                async with miner.client.post("/v1/chat/completions", json=body, headers={"Origin": origin}) as response:
                    assert response.status == 200
                    assert response.headers.get("Access-Control-Allow-Origin") == allowed
                    assert response.headers["Vary"] == "Origin"
        async with miner.client.get("/v1/nothing", headers={"Origin": PAGE}) as response:
            assert response.headers["Access-Control-Allow-Origin"] == PAGE  # a page must be able to read the error
            assert "x-twin-adapter-digest" in response.headers["Access-Control-Expose-Headers"]


async def test_pages_can_read_all_that_the_headers_of_an_answer_tell(tmp_path: Path) -> None:
    told = {
        names.SERVED_NAME_HEADER, names.ADAPTER_DIGEST_HEADER, names.POD_HEADER, names.RECEIPT_HEADER,
        names.CANDIDATES_HEADER, names.CACHED_HEADER, HISTORY_HEADER, LESSONS_HEADER, EMERGENCY_HEADER,
        SHOULD_RETRY_HEADER, REQUEST_ID, ANSWER_HEADER, MINER_HEADER, "retry-after",
    }  # fmt: skip
    async with (
        RunningMiner(tmp_path, cors_origins=frozenset({PAGE})) as miner,
        miner.client.get("/v1/models", headers={"Origin": PAGE}) as answer,
    ):
        assert told == set(answer.headers["Access-Control-Expose-Headers"].split(", "))


async def test_without_configuration_no_page_may_ask(tmp_path: Path) -> None:
    async with RunningMiner(tmp_path) as miner:
        asks = {"Access-Control-Request-Method": "POST", "Origin": PAGE}
        async with miner.client.options("/v1/chat/completions", headers=asks) as response:
            assert response.status == 405
            assert "Access-Control-Allow-Origin" not in response.headers


async def test_images_go_on_as_data_urls_where_the_pool_takes_them(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, IMAGE]}]
    seeing = Limits(images=True)
    async with FakeAgent(pod="a", holds=held(INDRA)) as agent, RunningMiner(tmp_path, limits=seeing) as miner:
        miner.route({"indra": Twin(versions=(INDRA,))})
        miner.report([agent])
        assert (await miner.ask("indra", messages=messages))[0] == 200
        assert agent.bodies[-1]["messages"] == messages
        fetched = {"type": "image_url", "image_url": {"url": "http://169.254.169.254/"}}
        status, _, document = await miner.ask("indra", messages=[{"role": "user", "content": [fetched]}])
        assert (status, document["error"]["code"]) == (400, "image_url")
        assert len(agent.bodies) == 1


async def test_images_are_refused_where_the_pool_does_not_take_them(tmp_path: Path) -> None:
    async with FakeAgent(pod="a", holds=held(INDRA)) as agent, RunningMiner(tmp_path) as miner:
        miner.route({"indra": Twin(versions=(INDRA,))})
        miner.report([agent])
        status, _, document = await miner.ask("indra", messages=[{"role": "user", "content": [IMAGE]}])
        assert (status, document["error"]["code"]) == (400, "images_not_taken")
        assert agent.bodies == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("chat_template_kwargs", {"chat_template": "x"}),
        ("chat_template_kwargs", {"messages": []}),
        ("chat_template_kwargs", {"documents": "x"}),
        ("chat_template_kwargs", {"enable_thinking": {"a": 1}}),
        ("modalities", ["text", "audio"]),
        ("audio", {"voice": "x"}),
    ],
)
async def test_fields_that_would_do_harm_are_refused(tmp_path: Path, field: str, value: object) -> None:
    async with FakeAgent(pod="a", holds=held(INDRA)) as agent, RunningMiner(tmp_path) as miner:
        miner.route({"indra": Twin(versions=(INDRA,))})
        miner.report([agent])
        asked: dict[str, Any] = {field: value}
        status, _, document = await miner.ask("indra", **asked)
        assert (status, document["error"]["param"].split(".")[0]) == (400, field)
        assert agent.bodies == []


async def test_a_null_is_no_field_whatever_its_name(tmp_path: Path) -> None:
    async with FakeAgent(pod="a", holds=held(INDRA)) as agent, RunningMiner(tmp_path) as miner:
        miner.route({"indra": Twin(versions=(INDRA,))})
        miner.report([agent])
        nulls: dict[str, Any] = {"audio": None, "lora_request": None, "tools": None, "stream": None, "user": None}
        assert (await miner.ask("indra", **nulls))[0] == 200
        assert not nulls.keys() & agent.bodies[0].keys()


def test_the_settings_are_read_from_the_command_line_and_the_environment() -> None:
    given = settings.parse(["--pool", "p", "--cors-origins", f"{PAGE}, https://b.example", "--images"], {})
    assert (given.cors_origins, given.limits.images) == (frozenset({PAGE, "https://b.example"}), True)
    given = settings.parse(["--pool", "p"], {"CORS_ORIGINS": "*", "IMAGES": "true"})
    assert (given.cors_origins, given.limits.images) == (frozenset({"*"}), True)
    assert settings.parse(["--pool", "p"], {}).cors_origins == frozenset()


@pytest.mark.parametrize(
    "origin",
    [
        PAGE + "/",
        PAGE + "/app",
        "clinic.example",
        "https://",
        "https://a.example https://b.example",
        "**",
        PAGE + "?x",
        PAGE + "#x",
        "https://me:pw@clinic.example",
        PAGE + ":0",
        PAGE + ":99999",
        PAGE + ":",
    ],
)
def test_an_origin_that_no_browser_sends_is_refused_at_the_start(
    origin: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        settings.parse(["--pool", "p", "--cors-origins", f"{PAGE},{origin}"], {})
    assert repr(origin) in capsys.readouterr().err
    with pytest.raises(SystemExit):
        settings.parse(["--pool", "p"], {"CORS_ORIGINS": origin})
    assert "as in https://clinic.example" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("https://Clinic.Example:443", PAGE),
        ("http://clinic.example:80", "http://clinic.example"),
        ("https://clinic.example:80", "https://clinic.example:80"),
        ("http://[::1]:5173", "http://[::1]:5173"),
        ("capacitor://localhost", "capacitor://localhost"),
        ("", None),
    ],
)
def test_an_origin_is_read_as_browsers_send_it(given: str, sent: str | None) -> None:
    read = settings.parse(["--pool", "p", "--cors-origins", given], {}).cors_origins
    assert read == ({sent} if sent is not None else set())


async def test_who_has_no_token_learns_no_twins_name(tmp_path: Path) -> None:
    """Series name the twins, and the port that patients ask may stand on the internet."""
    async with FakeAgent(pod="a", holds=held(INDRA)) as agent, RunningMiner(tmp_path) as miner:
        miner.route({"indra": Twin(versions=(INDRA,))})
        miner.report([agent])
        await miner.ask("indra")
        async with aiohttp.ClientSession() as anybody:
            for path in ("/metrics", "/metrics/", "/healthz", "/readyz", "/v1/models"):
                async with anybody.get(f"{miner.url}{path}") as response:
                    assert "indra" not in await response.text()
            async with anybody.get(miner.metrics_url) as response:
                assert 'twin="indra"' in await response.text()
            async with anybody.get(miner.metrics_url.replace("/metrics", "/v1/models")) as response:
                assert response.status == 404


async def test_an_unforeseen_failure_is_not_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError

    monkeypatch.setattr("neurons.miner.server.parse_chat", fail)
    async with RunningMiner(tmp_path) as miner:
        status, headers, _ = await miner.ask("indra")
        assert (status, headers["x-should-retry"]) == (500, "false")


@pytest.mark.parametrize("path", ["/v1/models/%FF", "/v1/models/%ED%A0%80", "/v1/models/\xff", "/\xed\xa0\xbd", "/%00"])
async def test_a_path_of_any_bytes_is_a_404(tmp_path: Path, path: str) -> None:
    async with RunningMiner(tmp_path) as miner:
        miner.route({"indra": Twin(versions=(INDRA,))})
        reader, writer = await asyncio.open_connection("127.0.0.1", miner.service.port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode("latin-1"))
        async with asyncio.timeout(10):
            assert (await reader.readline()).split()[1] in (b"404", b"400")
        writer.close()

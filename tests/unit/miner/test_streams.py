"""What is true of a stream: its errors are errors, and one that breaks goes on elsewhere without a trace."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.standin import BASE
from tests.unit.miner.engine_pods import QUESTION, events, pool, text
from tests.unit.miner.fake_agent import FakeAgent
from tests.unit.miner.running_miner import TOKEN, RunningMiner, Twin, eventually, held, version

BREAKS = [
    *((fault, after) for fault in ("fail_stream_after", "cut_stream_after") for after in (1, 4, 7)),
    ("abort_stream_after", 2),  # the aborted event's own word is asked for again
    ("abort_stream_after", 5),
]


def counted(miner: RunningMiner, code: str, served: str = BASE) -> float:
    return miner.metric("bettertherapy_miner_requests_total", twin="indra", version=served, code=code)


async def test_an_error_event_that_comes_first_moves_the_request(tmp_path: Path) -> None:
    async with pool(tmp_path) as running:
        running.order[0].knobs.fail_stream_after = 0
        assert (await running.stream())[-1] == "[DONE]"
        assert counted(running.miner, "200") == 1
        assert running.miner.metric("bettertherapy_miner_retries_total", reason="error_event") == 1


async def test_an_error_event_of_the_only_pod_is_the_answers_status(tmp_path: Path) -> None:
    async with pool(tmp_path, 1, fail_stream_after=0) as running:
        body = {"model": "indra", "messages": QUESTION, "stream": True}
        async with running.miner.client.post("/v1/chat/completions", json=body) as response:
            assert response.status == 500
            assert response.headers["Content-Type"] == "application/json"
            assert response.headers["x-should-retry"] == "false"
            assert "EngineCore" in (await response.json())["error"]["message"]
        assert counted(running.miner, "500") == 1
        assert running.asked == 1


async def test_an_error_event_in_the_middle_counts_as_its_status(tmp_path: Path) -> None:
    async with pool(tmp_path, 1, fail_stream_after=3) as running:
        got = await running.stream(seed=7)
        assert got[-1]["error"]["code"] == "stream_broken"
        assert "EngineCore encountered an issue" in got[-1]["error"]["message"]
        assert "`seed`" in got[-1]["error"]["message"]
        assert counted(running.miner, "500") == 1
        assert counted(running.miner, "200") == 0


async def test_an_error_that_is_the_clients_own_is_passed_on_and_counted(tmp_path: Path) -> None:
    indra = version("indra", "a")
    error = b'data: {"error": {"message": "bad guide", "type": "BadRequestError", "param": null, "code": 400}}\n\n'
    said = b'data: {"id":"1","model":"x","choices":[{"index":0,"delta":{"content":"It"}}]}\n\n'
    for first, status in (([error], 400), ([said, error], 200)):
        agent = FakeAgent(pod="a", holds=held(indra), events=[*first, b"data: [DONE]\n\n"])
        async with agent, RunningMiner(tmp_path) as miner:
            miner.route({"indra": Twin(versions=(indra,))})
            miner.report([agent])
            body = {"model": "indra", "messages": QUESTION, "stream": True}
            async with miner.client.post("/v1/chat/completions", json=body) as response:
                assert response.status == status
                assert b"bad guide" in await response.read()
            assert counted(miner, "400", indra.served_name) == 1
            assert len(agent.bodies) == 1


@pytest.mark.parametrize(("fault", "after"), BREAKS)
async def test_a_stream_that_breaks_goes_on_elsewhere_and_its_client_notices_nothing(
    tmp_path: Path, fault: str, after: int
) -> None:
    usage = {"stream_options": {"include_usage": True}}
    async with pool(tmp_path, system_prompt="You are Dr. Gurung's twin.") as running:
        whole = await running.stream(**usage)
        setattr(running.order[0].knobs, fault, after)
        got = await running.stream(**usage)
        after -= fault == "abort_stream_after"
        assert text(got) == text(whole)
        assert [event if event == "[DONE]" else shape_of(event) for event in got] == [
            event if event == "[DONE]" else shape_of(event) for event in whole
        ]
        assert len({event["id"] for event in got[:-1]}) == 1
        assert len({event["created"] for event in got[:-1]}) == 1
        assert {event["model"] for event in got[:-1]} == {"indra"}
        assert got[-2]["usage"] == whole[-2]["usage"]
        sent = running.order[1].bodies[-1]
        assert sent["messages"][-1] == {"role": "assistant", "content": text(whole[: after + 1])}
        assert (sent["continue_final_message"], sent["add_generation_prompt"]) == (True, False)
        assert sent["max_tokens"] == 8 - after
        assert counted(running.miner, "200") == 2
        assert running.miner.metric("bettertherapy_miner_continued_streams_total", outcome="continued") == 1


def shape_of(event: dict[str, Any]) -> Any:
    return [(choice["index"], choice["delta"], choice["finish_reason"]) for choice in event["choices"]]


async def test_a_stream_goes_on_twice(tmp_path: Path) -> None:
    async with pool(tmp_path, 3) as running:
        whole = await running.stream()
        first, second, _ = running.order
        first.knobs.cut_stream_after, second.knobs.fail_stream_after = 3, 2
        assert text(await running.stream()) == text(whole)


async def test_a_stream_of_more_than_is_kept_as_it_came_goes_on(tmp_path: Path) -> None:
    async with pool(tmp_path, max_model_len=4096) as running:
        whole = await running.stream(max_tokens=1200)
        running.order[0].knobs.cut_stream_after = 1000
        assert text(await running.stream(max_tokens=1200)) == text(whole)


async def test_openais_client_reads_a_stream_that_went_on_elsewhere(tmp_path: Path) -> None:
    async with pool(tmp_path) as running:
        whole = text(await running.stream())
        running.order[0].knobs.cut_stream_after = 4
        async with openai.AsyncOpenAI(base_url=running.miner.url + "/v1", api_key=TOKEN, max_retries=0) as client:
            stream = await client.chat.completions.create(
                model="indra", messages=[{"role": "user", "content": QUESTION[0]["content"]}], stream=True, max_tokens=8
            )
            assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == whole


@pytest.mark.parametrize("fault", ["cut_stream_after", "fail_stream_after"])
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seed", 0),
        ("n", 2),
        ("logprobs", True),
        ("tools", [{"type": "function", "function": {"name": "look", "parameters": {}}}]),
        ("response_format", {"type": "json_object"}),
    ],
)
async def test_a_stream_that_cannot_go_on_elsewhere_says_why(
    tmp_path: Path, field: str, value: object, fault: str
) -> None:
    async with pool(tmp_path) as running:
        setattr(running.order[0].knobs, fault, 3)
        got = await running.stream(**{field: value})
        assert f"`{field}`" in got[-1]["error"]["message"]
        assert got[-1]["error"]["type"] == "upstream_broken"
        assert running.order[1].bodies == []
        assert running.miner.metric("bettertherapy_miner_continued_streams_total", outcome="impossible") == 1
        assert counted(running.miner, "broken") + counted(running.miner, "500") == 1


async def test_a_stream_of_which_nothing_was_said_is_asked_again_whatever_it_has(tmp_path: Path) -> None:
    opening = b'data: {"id":"1","model":"x","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'
    indra = version("indra", "a")
    async with (
        FakeAgent(pod="a", holds=held(indra)) as a,
        FakeAgent(pod="b", holds=held(indra)) as b,
        RunningMiner(tmp_path) as miner,
    ):
        miner.route({"indra": Twin(versions=(indra,))})
        miner.report([a, b])
        order = [
            pod.name
            for pod in miner.service.tables.snapshot.pods_for(miner.service.tables.snapshot.twins["indra"].active[0])
        ]
        first = a if order[0] == "a" else b
        first.events, first.cut_after = [opening, b"never"], 1
        body = {"model": "indra", "messages": QUESTION, "stream": True, "seed": 7}
        async with miner.client.post("/v1/chat/completions", json=body) as response:
            data = await response.read()
        assert data.endswith(b"data: [DONE]\n\n")
        assert data.count(b'"role"') == 1


async def test_another_version_never_goes_on(tmp_path: Path) -> None:
    old, new = version("indra", "a"), version("indra", "b")
    async with (
        FakeAgent(pod="a", holds=held(old), cut_after=2) as a,
        FakeAgent(pod="b", holds=held(new)) as b,
        RunningMiner(tmp_path, hold_seconds=0.3) as miner,
    ):
        miner.route({"indra": Twin(versions=(old, new.model_copy(update={"weight_percent": 0})))})
        miner.report([b, a])
        body = {"model": "indra", "messages": QUESTION, "stream": True}
        async with miner.client.post("/v1/chat/completions", json=body) as response:
            assert b"upstream_broken" in await response.read()
        assert b.bodies == []


async def test_a_twin_that_was_replaced_never_goes_on(tmp_path: Path) -> None:
    """The name is another doctor's by now, in one change of the table: the other's weights must not end the answer."""
    first_doctors, others = version("indra", "a"), version("indra", "b")
    step = asyncio.Semaphore(2)
    async with (
        FakeAgent(pod="a", holds=held(first_doctors), cut_after=2, step=step) as a,
        FakeAgent(pod="b", holds=held(others)) as b,
        RunningMiner(tmp_path) as miner,
    ):
        miner.route({"indra": Twin(versions=(first_doctors,))})
        miner.report([a, b])
        body = {"model": "indra", "messages": QUESTION, "stream": True}
        async with miner.client.post("/v1/chat/completions", json=body) as response:
            await response.content.readline()
            a.cut_after = 3
            miner.route({"indra": Twin(versions=(others,), uid="uid-another")})
            step.release()
            data = await response.read()
        assert b"deleted or replaced meanwhile" in data
        assert b"[DONE]" not in data
        assert b.bodies == []


async def test_a_stream_waits_for_a_pod_of_its_version(tmp_path: Path) -> None:
    async with pool(tmp_path, 1) as running:
        (engine,) = running.order
        whole = await running.stream()
        engine.knobs.cut_stream_after = 2
        got = await running.stream()
        # One pod, which breaks each time: three attempts in all, each two words further, and then the truth.
        assert len(engine.bodies) == 4
        assert text(whole).startswith(text(got))
        assert "3 engines broke off" in got[-1]["error"]["message"]
        assert counted(running.miner, "broken") == 1


async def test_a_stream_whose_next_engine_is_full_for_a_moment_waits_for_it(tmp_path: Path) -> None:
    async with pool(tmp_path) as running:
        whole = await running.stream()
        first, second = running.order
        first.knobs.cut_stream_after, second.knobs.fail_generation = 3, (429, "TooManyRequests", "full")
        got = asyncio.create_task(running.stream())
        await eventually(lambda: bool(second.bodies))
        second.knobs.fail_generation = None
        assert text(await got) == text(whole)


async def test_a_stream_does_not_wait_for_ever_for_an_engine_that_is_full(tmp_path: Path) -> None:
    async with pool(tmp_path, miner_hold_seconds=0.3) as running:
        first, second = running.order
        first.knobs.cut_stream_after, second.knobs.fail_generation = 3, (429, "TooManyRequests", "full")
        async with asyncio.timeout(10):
            got = await running.stream()
        assert "no engine pod answers" in got[-1]["error"]["message"]


@pytest.mark.parametrize(("after", "asked"), [(10, {}), (3, {"max_tokens": 8}), (3, {"max_tokens": 40})])
async def test_a_completion_that_goes_on_elsewhere_is_as_long_as_asked(
    tmp_path: Path, after: int, asked: dict[str, Any]
) -> None:
    async with pool(tmp_path) as running:
        body = {"messages": None, "prompt": "Hello ", "max_tokens": None, **asked}
        whole = await running.stream("/v1/completions", **body)
        running.order[0].knobs.cut_stream_after = after
        got = await running.stream("/v1/completions", **body)
        assert [event["choices"][0]["text"] for event in got[:-1]] == [e["choices"][0]["text"] for e in whole[:-1]]


async def test_a_stream_at_its_length_is_not_gone_on_with(tmp_path: Path) -> None:
    """Only the count of its tokens is missing, which another engine would make only by saying more."""
    indra = version("indra", "a")
    async with (
        FakeAgent(pod="a", holds=held(indra), cut_after=3) as a,
        FakeAgent(pod="b", holds=held(indra), cut_after=3) as b,
        RunningMiner(tmp_path) as miner,
    ):
        miner.route({"indra": Twin(versions=(indra,))})
        miner.report([a, b])
        body = {"model": "indra", "messages": QUESTION, "stream": True, "max_tokens": 3}
        async with miner.client.post("/v1/chat/completions", json=body) as response:
            assert (await response.read()).endswith(b"data: [DONE]\n\n")
        body |= {"stream_options": {"include_usage": True}}
        async with miner.client.post("/v1/chat/completions", json=body) as response:
            assert b"the count of its tokens is lost" in await response.read()
        assert len(a.bodies) + len(b.bodies) == 2


@pytest.mark.parametrize(
    ("said", "then", "read"),
    [
        (("Take", " 1", " "), ("0", " mg", "."), None),
        (("Take", " 1", " "), (".5", " mg"), None),
        (("Take", " 1", "\n\n"), ("0", " mg"), None),
        (("Take", " 1", " "), ("", "0", " mg"), None),
        (("Take", " 1", " "), (" mg", "."), "Take 1 mg."),
        (("Take", " 1"), ("0", " mg"), "Take 10 mg"),
        (("Take", "\n"), ("\n\n", "- 1"), "Take\n\n- 1"),
        (("Take", " 1", " "), ("",), "Take 1 "),
    ],
)
async def test_a_number_is_never_torn_apart_where_a_stream_broke(
    tmp_path: Path, said: tuple[str, ...], then: tuple[str, ...], read: str | None
) -> None:
    indra = version("indra", "a")
    async with (
        FakeAgent(pod="a", holds=held(indra)) as a,
        FakeAgent(pod="b", holds=held(indra)) as b,
        RunningMiner(tmp_path) as miner,
    ):
        miner.route({"indra": Twin(versions=(indra,))})
        miner.report([a, b])
        snapshot = miner.service.tables.snapshot
        order = snapshot.pods_for(snapshot.twins["indra"].active[0])
        first, second = (a, b) if order[0].name == "a" else (b, a)
        first.words, first.cut_after, second.words = (*said, "never"), len(said), then
        body = {"model": "indra", "messages": QUESTION, "stream": True}
        async with miner.client.post("/v1/chat/completions", json=body) as response:
            got = events(await response.read())
        if read is None:
            assert text(got) == "".join(said)
            assert "in the middle of a word" in got[-1]["error"]["message"]
        else:
            assert (text(got), got[-1]) == (read, "[DONE]")


async def test_white_space_at_the_break_is_not_said_twice(tmp_path: Path) -> None:
    from neurons.miner.continuation import GoOn, Splice
    from neurons.miner.transcript import Transcript, event_bytes, events_of

    def said(content: str, going_on: GoOn) -> str:
        splice = Splice(Transcript(), going_on)
        pieces = [{"choices": [{"index": 0, "delta": {"content": piece}}]} for piece in content.split("|")]
        out = list(events_of(splice.rewrite(b"".join(event_bytes(piece) for piece in pieces))))
        return "".join(event["choices"][0]["delta"]["content"] for event in out if event)

    assert said(" fine", GoOn("It is", 2, " ")) == "fine"
    assert said("\n\n| So", GoOn("It is.", 2, "\n")) == "\n So"
    assert said(" So", GoOn("It is.", 2, "\n\n")) == "So"
    assert said("So", GoOn("It is.", 2, "")) == "So"

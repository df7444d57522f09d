"""Adapters that spoil only a later answer: looked at again in turn, and when odd answers pass by."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from bettertherapy_api.report import AdapterState, FailureReason
from neurons.agent.known_answers import Health
from neurons.agent.oddities import ENOUGH, WINDOW, Asked, OddAnswers, Oddity, oddity
from neurons.agent.places import LONG_TOKENS, long_text
from tests.standin import BASE, NOT_FINITE, SPOILING
from tests.unit.agent.pod import Pod, words
from tests.unit.agent.pod import until as within

BEYOND = 100
"""Tokens after which the flaws of these tests show: more than any probe at load has."""
LONG = [{"role": "user", "content": "word " * (BEYOND + 10)}]


async def until(condition: Callable[[], bool]) -> None:
    await within(condition, seconds=30.0)


@pytest.fixture
async def patient(tmp_path: Path) -> AsyncIterator[Pod]:
    """A pod that looks at nothing by itself for long, so that only odd answers make it look."""
    async with running(tmp_path, look_seconds=1000.0) as pod:
        yield pod


@pytest.fixture
async def watchful(tmp_path: Path) -> AsyncIterator[Pod]:
    """A pod that looks twenty times a second."""
    async with running(tmp_path, look_seconds=0.05) as pod:
        yield pod


@asynccontextmanager
async def running(folder: Path, *, look_seconds: float) -> AsyncIterator[Pod]:
    async with Pod(folder) as pod:
        pod.engine.knobs.flaw_beyond = BEYOND
        pod.agent.second_looks.look_seconds = look_seconds
        pod.agent.second_looks.rest = 0.0
        pod.tables.write()
        async with pod.engine, pod.agent:
            yield pod


def reason(pod: Pod, adapter: Any) -> FailureReason | None:
    report = pod.state(adapter)
    return report.reason if report is not None else None


async def test_a_flaw_that_shows_only_after_a_long_text_is_found_in_turn_and_goes_for_good(watchful: Pod) -> None:
    pod = watchful
    good, bad = pod.adapter("good"), pod.adapter("bad", flaw=NOT_FINITE)
    pod.tables.write(good, bad)
    await pod.verified(good, seconds=30)
    await until(lambda: reason(pod, bad) is FailureReason.WEIGHTS_NOT_FINITE)
    await until(lambda: bad.name not in pod.engine.loras)
    assert (await pod.answer(bad.name))[0] == 421
    assert words((await pod.answer(good.name))[1]).startswith(good.seed[:8])
    assert not pod.agent.monitor.wedged
    pod.agent.second_looks.look_seconds = 1000.0
    pod.engine.bodies.clear()
    await pod.engine.restart()
    await pod.verified(good, seconds=30)
    await until(lambda: any(len(body["prompt"]) > BEYOND for body in pod.engine.bodies if body["model"] == bad.name))
    await until(lambda: reason(pod, bad) is FailureReason.WEIGHTS_NOT_FINITE)
    assert bad.name not in pod.engine.loras


async def test_one_that_spoils_the_engine_by_a_long_text_is_banned_after_the_second_process(watchful: Pod) -> None:
    pod = watchful
    good, bad = pod.adapter("good"), pod.adapter("bad", flaw=SPOILING)
    pod.tables.write(good, bad)
    await until(pod.settings.wedged_file.exists)
    await pod.engine.restart()
    await until(lambda: reason(pod, bad) is FailureReason.WEIGHTS_NOT_FINITE)
    await pod.engine.restart()
    await pod.verified(good, seconds=30)
    assert (await pod.failed(bad, seconds=30)).reason is FailureReason.WEIGHTS_NOT_FINITE
    assert not pod.engine.spoilt


async def test_who_was_asked_when_an_engine_was_spoilt_is_asked_a_long_text_before_it_serves_again(
    patient: Pod,
) -> None:
    pod = patient
    good, bad = pod.adapter("good"), pod.adapter("bad", flaw=SPOILING)
    pod.tables.write(good, bad)
    await pod.verified(good, bad, seconds=30)
    pod.agent.roster.known_answers.check_seconds = 0.05
    await pod.answer(bad.name, messages=LONG)
    await pod.agent.roster.known_answers.check()
    await until(pod.settings.wedged_file.exists)
    for _ in range(2):
        await pod.engine.restart()
        await until(lambda: pod.agent.monitor.condemned or reason(pod, bad) is FailureReason.WEIGHTS_NOT_FINITE)
        report = pod.state(bad)
        assert report is not None
        assert report.state is not AdapterState.VERIFIED
    await until(lambda: reason(pod, bad) is FailureReason.WEIGHTS_NOT_FINITE)
    await pod.engine.restart()
    await pod.verified(good, seconds=30)


async def test_odd_answers_that_pass_by_have_adapter_and_base_measured(patient: Pod) -> None:
    pod = patient
    good, bad = pod.adapter("good"), pod.adapter("bad", flaw=NOT_FINITE)
    pod.tables.write(good, bad)
    await pod.verified(good, bad, seconds=30)
    await until(lambda: pod.agent.roster.known_answers.settled)
    checks = pod.agent.roster.known_answers.checks
    for _ in range(ENOUGH):
        assert pod.state(bad).state is AdapterState.VERIFIED  # type: ignore[union-attr]
        assert words((await pod.answer(bad.name, messages=LONG, max_tokens=40))[1]) == ""
    await until(lambda: reason(pod, bad) is FailureReason.WEIGHTS_NOT_FINITE)
    assert pod.agent.roster.known_answers.checks > checks
    await until(lambda: bad.name not in pod.engine.loras)
    assert 'bettertherapy_agent_odd_answers_total{kind="empty"} 3.0' in await pod.metrics()
    assert pod.state(good).state is AdapterState.VERIFIED  # type: ignore[union-attr]


async def test_odd_answers_of_the_base_model_have_it_asked_its_known_answers(patient: Pod) -> None:
    pod = patient
    good = pod.adapter("good")
    pod.tables.write(good)
    await pod.verified(good, seconds=30)
    await until(lambda: pod.agent.roster.known_answers.settled)  # no look for the newcomer is under way
    checks = pod.agent.roster.known_answers.checks
    pod.engine.spoilt = True
    for _ in range(ENOUGH):
        assert pod.agent.roster.known_answers.checks == checks
        assert (await pod.answer(BASE, max_tokens=40))[0] == 200
    await until(pod.settings.wedged_file.exists)
    await pod.engine.restart()
    await pod.verified(good, seconds=30)


async def test_requests_in_flight_when_a_base_model_is_found_spoilt_are_told_so(patient: Pod) -> None:
    """What was not begun is answered in words; of a stream that was, only a broken connection says that it isn't whole.

    The door is open as before: the connection of the first serves the next request.
    """
    pod = patient
    good = pod.adapter("good")
    pod.tables.write(good)
    await pod.verified(good, seconds=30)
    await until(lambda: pod.agent.roster.known_answers.settled)
    pod.engine.knobs.token_seconds = 0.05
    running = asyncio.ensure_future(pod.answer(BASE, max_tokens=1000))
    async with pod.ask(BASE, max_tokens=1000, stream=True) as stream:
        await stream.content.readany()
        await until(lambda: pod.agent.traffic.total == 2)
        pod.engine.spoilt = True
        assert await pod.agent.roster.known_answers.check() is Health.SPOILT
        status, document, _ = await running
        assert (status, document["error"]["type"]) == (502, "BrokenOff")
        with pytest.raises(aiohttp.ClientPayloadError):
            await stream.read()
    assert (await pod.answer(BASE))[0] == 503
    await until(lambda: pod.agent.traffic.total == 0 and pod.engine.aborted >= 2)
    assert pod.agent.traffic.unanswered == 0  # no client left


async def test_who_asks_an_adapter_while_it_is_found_unsound_is_told_so_and_others_go_on(patient: Pod) -> None:
    pod = patient
    good, bad = pod.adapter("good"), pod.adapter("bad", flaw=NOT_FINITE)
    pod.tables.write(good, bad)
    await pod.verified(good, bad, seconds=30)
    await until(lambda: pod.agent.roster.known_answers.settled)
    pod.engine.knobs.token_seconds = 0.01
    running = {each: asyncio.ensure_future(pod.answer(each.name, max_tokens=100)) for each in (good, bad)}
    await until(lambda: pod.agent.traffic.total == 2)
    pod.agent.traffic.abort(bad.name)
    pod.agent.traffic.abort(bad.name)  # said twice, it is done once
    assert (await running[bad])[0] == 502
    assert not running[good].done()
    assert (await running[good])[0] == 200


async def test_weights_that_become_anothers_while_they_serve_are_loaded_afresh(watchful: Pod) -> None:
    pod = watchful
    good = pod.adapter("good")
    pod.tables.write(good)
    await pod.verified(good, seconds=30)
    loads = pod.engine.calls["POST /v1/load_lora_adapter"]
    pod.engine.knobs.wrong_weights.add(good.name)
    await until(lambda: pod.engine.calls["POST /v1/load_lora_adapter"] > loads)
    await until(lambda: reason(pod, good) is FailureReason.FINGERPRINT_MISMATCH)


async def test_a_sound_adapter_is_left_alone_however_often_it_is_looked_at(watchful: Pod) -> None:
    pod = watchful
    adapters = [pod.adapter(f"dr-{i}", with_fingerprint=i % 2 == 0) for i in range(3)]
    pod.tables.write(*adapters)
    await pod.verified(*adapters, seconds=30)
    loads = pod.engine.calls["POST /v1/load_lora_adapter"]
    pod.engine.bodies.clear()

    def long_asked() -> set[str]:
        return {body["model"] for body in pod.engine.bodies if len(body["prompt"]) == LONG_TOKENS - 1}

    await until(lambda: long_asked() == {BASE, *(adapter.name for adapter in adapters)})
    assert pod.engine.calls["POST /v1/load_lora_adapter"] == loads
    assert all(pod.state(a).state is AdapterState.VERIFIED for a in adapters)  # type: ignore[union-attr]


def chat(content: str | None, finish: str = "stop", **message: Any) -> bytes:
    choice = {"index": 0, "message": {"content": content, **message}, "finish_reason": finish}
    return orjson.dumps({"choices": [choice]})


def stream(*pieces: str, finish: str | None = "stop") -> bytes:
    deltas = [{"index": 0, "delta": {"content": piece}, "finish_reason": None} for piece in pieces]
    deltas += [{"index": 0, "delta": {}, "finish_reason": finish}] if finish else []
    return b"".join(b"data: " + orjson.dumps({"choices": [d]}) + b"\n\n" for d in deltas) + b"data: [DONE]\n\n"


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (chat("Rest well."), None),
        (chat(""), Oddity.EMPTY),
        (chat(" \u200b\n"), Oddity.EMPTY),
        (chat(None, "tool_calls", tool_calls=[{"function": {"name": "f"}}]), None),
        (chat("", "abort"), None),
        (chat("!" * 64), Oddity.STUCK),
        (chat("Take care. " + " the the" * 30), Oddity.STUCK),
        (chat("!" * 20), None),
        (stream("Rest", " well."), None),
        (stream(), Oddity.EMPTY),
        (stream(finish=None), None),
        (stream(*["!"] * 100, finish=None), Oddity.STUCK),
        (b'data: {"error":{"message":"Out of range float values are not JSON compliant"}}\n\n', Oddity.NOT_FINITE),
        (b"no JSON", None),
        (b'{"choices": 3}', None),
        (b'{"choices": [3, {"index": 0, "message": "x"}]}', None),
        (orjson.dumps({"choices": [{"index": 0, "text": "", "finish_reason": "length"}]}), Oddity.EMPTY),
        (chat("They are not JSON compliant."), None),
    ],
)
def test_which_answers_are_odd(answer: bytes, found: Oddity | None) -> None:
    assert oddity(200, answer) is found


def several(*choices: dict[str, Any], **usage: int) -> bytes:
    document: dict[str, Any] = {"choices": [{"index": at, **choice} for at, choice in enumerate(choices)]}
    return orjson.dumps(document | ({"usage": usage} if usage else {}))


def said(text: str, finish: str = "stop", **more: Any) -> dict[str, Any]:
    return {"message": {"content": text}, "finish_reason": finish, **more}


CALL = {"tool_calls": [{"index": 0, "function": {"arguments": "{"}}]}
CALLING = b"".join(
    b"data: " + orjson.dumps({"choices": [{"index": 0, "delta": CALL, "finish_reason": None}]}) + b"\n\n"
    for _ in range(40)
)


@pytest.mark.parametrize(
    ("request_", "answer", "found"),
    [
        ({"max_tokens": 1}, chat("", "length"), None),
        ({"max_completion_tokens": 1}, stream("\n", finish="length"), None),
        ({"max_tokens": 500, "max_completion_tokens": 3}, chat("", "length"), None),
        ({"max_tokens": 1}, chat(""), None),
        ({"max_tokens": 500}, chat("", "length"), Oddity.EMPTY),
        ({}, several(said("\n", "length"), completion_tokens=2), None),  # the prompt left no room for more
        ({}, several(said("\n", "length"), completion_tokens=200), Oddity.EMPTY),
        ({}, several(said(""), completion_tokens=1), Oddity.EMPTY),
        ({"stop": ["\n"]}, several(said("", stop_reason="\n")), None),
        ({"stop": "\n"}, chat(""), None),  # a server that doesn't tell by what it was stopped
        ({"stop_token_ids": [7]}, several(said("", stop_reason=7)), None),
        ({"stop": ["Observation:"]}, several(said("", stop_reason=None)), Oddity.EMPTY),
        ({"stop": []}, chat(""), Oddity.EMPTY),
        ({"tools": []}, CALLING, None),
        ({"n": 2}, several(said("Rest well."), said("")), None),
        ({"n": 2}, several(said("Rest well."), said("!" * 64)), None),
        ({"n": 2}, several(said(""), said(" ")), Oddity.EMPTY),
        ({"n": 2}, several(said("!" * 64), said("")), Oddity.EMPTY),
        ({"response_format": {"type": "json_object"}}, chat(" " * 64, "length"), None),
        ({"response_format": {"type": "json_object"}}, chat(""), Oddity.EMPTY),
        ({"structured_outputs": {"json": {}}}, chat("!" * 64, "length"), Oddity.STUCK),
        ({"response_format": {"type": "text"}}, chat(" " * 64, "length"), Oddity.EMPTY),
        ({"allowed_token_ids": [5]}, chat("!" * 64), None),
        ({"ignore_eos": True}, chat("!" * 64), None),
        ({"continue_final_message": True, "add_generation_prompt": False}, chat(""), None),
        ({"logprobs": True, "top_logprobs": 3}, several(said("Rest.", logprobs={"content": []})), None),
    ],
)
def test_what_the_request_explains_is_not_odd(request_: dict[str, Any], answer: bytes, found: Oddity | None) -> None:
    assert oddity(200, answer, Asked.of(request_)) is found


def test_what_says_nothing_of_the_model_hides_no_odd_answer() -> None:
    enough: list[str] = []
    answers = OddAnswers(enough=enough.append, count=lambda kind: None)
    tells_nothing = [
        (200, b'{"data": [{"embedding": [0.1]}]}', Asked.of({})),
        (200, b'{"count": 3, "tokens": [1, 2, 3]}', Asked.of({})),
        (200, chat("", "length"), Asked.of({"max_tokens": 1})),
        (400, b'{"error":{"message":"too long"}}', Asked.of({})),
    ]
    for _ in range(ENOUGH):
        assert enough == []
        answers.saw("dr-a", 200, chat(""), Asked.of({}))
        for each in tells_nothing * WINDOW:
            answers.saw("dr-a", *each)
    assert enough == ["dr-a"]


def test_a_refusal_is_odd_only_for_a_value_that_is_no_number() -> None:
    assert oddity(400, b'{"error":{"message":"Out of range float values are not JSON compliant"}}') is Oddity.NOT_FINITE
    assert oddity(400, b'{"error":{"message":"too long"}}') is None


def test_a_long_text_keeps_within_the_engines_length_and_is_another_each_time() -> None:
    assert long_text(1, most=64)[-1] == long_text(1, most=64)[-1]
    assert len(long_text(1, most=64)[-1][0]) < 64
    assert len(long_text(1, most=None)[-1][0]) == LONG_TOKENS - 1
    assert long_text(1, most=None) != long_text(2, most=None)

"""What the agent relies on in vLLM. The stand-in and a real vLLM have to pass the same tests.

A module collects them by `from tests.standin.contract import *` beside a fixture `subject` that gives a Subject.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

TEXT = tuple(range(100, 117))


@dataclass(frozen=True)
class Subject:
    """An engine to try. Adapter folders are paths as the engine sees them."""

    http: aiohttp.ClientSession
    url: str
    base: str
    adapters: tuple[str, ...]
    """At least two, of different weights."""
    too_high: str | None = None
    """An adapter above the engine's maximum rank."""
    no_effect: str | None = None
    """An adapter whose tensors bear names that the model has not."""
    not_finite: str | None = None
    """An adapter with a NaN. It may spoil the engine for all: give it only for an engine that may be thrown away."""

    async def call(self, method: str, path: str, body: object | None = None) -> tuple[int, Any]:
        """Return status and body, as JSON where it is JSON."""
        async with self.http.request(method, self.url + path, json=body) as response:
            text = await response.text()
            try:
                return response.status, json.loads(text)
            except ValueError:
                return response.status, text

    async def load(self, name: str, path: str) -> tuple[int, Any]:
        return await self.call("POST", "/v1/load_lora_adapter", {"lora_name": name, "lora_path": path})

    async def unload(self, name: str) -> tuple[int, Any]:
        return await self.call("POST", "/v1/unload_lora_adapter", {"lora_name": name})

    async def card(self, name: str) -> dict[str, Any] | None:
        _, models = await self.call("GET", "/v1/models")
        return next((dict(card) for card in models["data"] if card["id"] == name), None)

    async def logprobs(self, model: str) -> list[float]:
        """Log-probabilities of TEXT, each token forced after those before it."""
        values = []
        for position in range(1, len(TEXT)):
            body = {
                "model": model, "prompt": list(TEXT[:position]), "max_tokens": 1, "temperature": 0, "logprobs": 1,
                "allowed_token_ids": [TEXT[position]], "return_tokens_as_token_ids": True,
            }  # fmt: skip
            status, answer = await self.call("POST", "/v1/completions", body)
            assert status == 200, answer
            said = answer["choices"][0]["logprobs"]
            assert said["tokens"] == [f"token_id:{TEXT[position]}"]
            values += said["token_logprobs"]
        return values

    async def metric(self, name: str) -> float:
        _, text = await self.call("GET", "/metrics")
        return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name))


@pytest.fixture
def name() -> str:
    """A name that no test used before: unloading leaves traces in an engine."""
    return f"try-{uuid.uuid4().hex[:8]}"


def mean(a: list[float], b: list[float]) -> float:
    return sum(abs(x - y) for x, y in zip(a, b, strict=True)) / len(a)


def is_error(answer: tuple[int, Any], status: int, kind: str) -> dict[str, Any]:
    assert answer[0] == status, answer
    error = answer[1]["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert (error["type"], error["code"]) == (kind, status)
    return dict(error)


async def test_a_load_is_listed_with_the_path_as_root(subject: Subject, name: str) -> None:
    status, text = await subject.load(name, subject.adapters[0])
    assert (status, text) == (200, f"Success: LoRA adapter '{name}' added successfully.")
    card = await subject.card(name)
    assert card is not None
    assert (card["root"], card["parent"], card["max_model_len"]) == (subject.adapters[0], subject.base, None)


async def test_the_base_model_has_no_parent_and_a_length(subject: Subject) -> None:
    card = await subject.card(subject.base)
    assert card is not None
    assert card["parent"] is None
    assert card["max_model_len"] > 0


async def test_created_is_made_anew_on_each_call(subject: Subject) -> None:
    first = await subject.card(subject.base)
    await asyncio.sleep(1.1)
    second = await subject.card(subject.base)
    assert first is not None
    assert second is not None
    assert second["created"] > first["created"]


async def test_a_name_is_not_loaded_twice_and_keeps_its_first_path(subject: Subject, name: str) -> None:
    await subject.load(name, subject.adapters[0])
    for path in subject.adapters[:2]:
        error = is_error(await subject.load(name, path), 400, "InvalidUserInput")
        assert "has already been loaded" in error["message"]
    card = await subject.card(name)
    assert card is not None
    assert card["root"] == subject.adapters[0]


async def test_the_base_models_name_cannot_be_loaded(subject: Subject) -> None:
    error = is_error(await subject.load(subject.base, subject.adapters[0]), 400, "InvalidUserInput")
    assert "conflicts with a served base model" in error["message"]


async def test_a_missing_folder_is_not_found(subject: Subject, name: str) -> None:
    error = is_error(await subject.load(name, "/nowhere/at-all"), 404, "NotFoundError")
    assert "No adapter found" in error["message"]
    assert await subject.card(name) is None


async def test_an_empty_name_or_a_missing_field_is_bad_input(subject: Subject, name: str) -> None:
    is_error(await subject.load("", subject.adapters[0]), 400, "InvalidUserInput")
    is_error(await subject.call("POST", "/v1/load_lora_adapter", {"lora_name": name}), 400, "Bad Request")


async def test_a_rank_above_the_maximum_is_refused_with_500(subject: Subject, name: str) -> None:
    if subject.too_high is None:
        pytest.skip("no adapter of a higher rank is at hand in this engine")
    error = is_error(await subject.load(name, subject.too_high), 500, "InternalServerError")
    assert "is greater than max_lora_rank" in error["message"]
    assert await subject.card(name) is None


async def test_unloading_takes_the_name_away(subject: Subject, name: str) -> None:
    await subject.load(name, subject.adapters[0])
    assert await subject.unload(name) == (200, f"Success: LoRA adapter '{name}' removed successfully.")
    assert await subject.card(name) is None


async def test_unloading_an_unknown_name_is_not_found(subject: Subject, name: str) -> None:
    error = is_error(await subject.unload(name), 404, "NotFoundError")
    assert "cannot be found" in error["message"]


async def test_a_name_loaded_again_after_unloading_answers_with_the_new_weights(subject: Subject, name: str) -> None:
    await subject.load(name, subject.adapters[0])
    first = await subject.logprobs(name)
    await subject.unload(name)
    await subject.load(name, subject.adapters[1])
    assert mean(first, await subject.logprobs(name)) > 0.2


async def test_log_probabilities_of_forced_tokens_tell_weights_apart(subject: Subject, name: str) -> None:
    other = name + "-b"
    await subject.load(name, subject.adapters[0])
    await subject.load(other, subject.adapters[1])
    mine, again = await subject.logprobs(name), await subject.logprobs(name)
    assert mean(mine, again) < 0.1
    assert mean(mine, await subject.logprobs(other)) > 0.2
    assert mean(mine, await subject.logprobs(subject.base)) > 0.2
    assert max(mine) < 0.0  # raw ones: after the restriction each would be certain


async def test_an_adapter_under_unknown_names_loads_and_changes_nothing(subject: Subject, name: str) -> None:
    if subject.no_effect is None:
        pytest.skip("no such adapter is at hand in this engine")
    assert (await subject.load(name, subject.no_effect))[0] == 200
    assert mean(await subject.logprobs(name), await subject.logprobs(subject.base)) < 0.05


async def test_log_probabilities_that_are_no_numbers_are_a_bad_request(subject: Subject, name: str) -> None:
    if subject.not_finite is None:
        pytest.skip("this engine may not be spoilt")
    assert (await subject.load(name, subject.not_finite))[0] == 200
    body = {
        "model": name, "prompt": list(TEXT[:4]), "max_tokens": 1, "temperature": 0, "logprobs": 1,
        "allowed_token_ids": [TEXT[4]], "return_tokens_as_token_ids": True,
    }  # fmt: skip
    error = is_error(await subject.call("POST", "/v1/completions", body), 400, "BadRequestError")
    assert "not JSON compliant" in error["message"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_an_unknown_model_is_not_found(subject: Subject, path: str) -> None:
    body = {"model": "nobody", "prompt": "a", "messages": [{"role": "user", "content": "a"}]}
    error = is_error(await subject.call("POST", path, body), 404, "NotFoundError")
    assert error["param"] == "model"
    assert "`nobody` does not exist" in error["message"]


async def test_a_prompt_that_is_too_long_is_bad_input(subject: Subject) -> None:
    body = {"model": subject.base, "prompt": [100] * 100_000, "max_tokens": 1}
    error = is_error(await subject.call("POST", "/v1/completions", body), 400, "BadRequestError")
    assert error["param"] == "input_tokens"


async def test_more_adapters_than_slots_load_and_answer(subject: Subject, name: str) -> None:
    names = [f"{name}-{i}" for i in range(6)]
    for i, one in enumerate(names):
        assert (await subject.load(one, subject.adapters[i % 2]))[0] == 200
    body = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 2}
    answers = await asyncio.gather(
        *(subject.call("POST", "/v1/chat/completions", {"model": one, **body}) for one in names)
    )
    assert [(status, answer["model"]) for status, answer in answers] == [(200, one) for one in names]


async def test_a_chat_answer_has_openais_form(subject: Subject) -> None:
    body = {"model": subject.base, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 3}
    status, answer = await subject.call("POST", "/v1/chat/completions", body)
    assert status == 200
    assert answer["object"] == "chat.completion"
    assert answer["choices"][0]["message"]["role"] == "assistant"
    assert answer["choices"][0]["finish_reason"] in ("length", "stop")
    assert answer["usage"]["completion_tokens"] <= 3


async def test_a_stream_is_sse_that_ends_with_done(subject: Subject) -> None:
    body = {"model": subject.base, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4, "stream": True}
    async with subject.http.post(subject.url + "/v1/chat/completions", json=body) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in (await response.text()).split("\n\n") if line]
    assert lines[-1] == "data: [DONE]"
    events = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    assert all(event["object"] == "chat.completion.chunk" for event in events)
    assert events[0]["choices"][0]["delta"]["role"] == "assistant"
    assert events[-1]["choices"][0]["finish_reason"] in ("length", "stop")


async def events_of(subject: Subject, **more: Any) -> list[Any]:
    """Return a chat stream's events without its `[DONE]`."""
    body = {"model": subject.base, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4, "stream": True}
    async with subject.http.post(subject.url + "/v1/chat/completions", json=body | more) as response:
        assert response.status == 200, await response.text()
        lines = [line for line in (await response.text()).split("\n\n") if line]
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


async def test_a_final_message_of_the_assistant_is_gone_on_with(subject: Subject) -> None:
    """What lets a stream that broke go on at another engine."""
    said = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "Hello, how"}]
    events = await events_of(subject, messages=said, add_generation_prompt=False, continue_final_message=True)
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert not "".join(event["choices"][0]["delta"]["content"] for event in events).startswith("Hello, how")


async def test_usage_comes_last_in_an_event_without_choices(subject: Subject) -> None:
    events = await events_of(subject, stream_options={"include_usage": True}, ignore_eos=True)
    assert events[-1]["choices"] == []
    assert events[-1]["usage"]["completion_tokens"] == 4
    assert all("usage" not in event for event in events[:-1])


async def test_several_answers_are_told_apart_by_their_index(subject: Subject) -> None:
    events = await events_of(subject, n=2, logprobs=True, temperature=0.5)
    assert {event["choices"][0]["index"] for event in events} == {0, 1}
    assert all(
        event["choices"][0]["logprobs"]["content"]
        for event in events[2:]
        if event["choices"][0]["delta"].get("content")
    )


TEXTS = ["The headache", "My knee hurts when I climb the stairs, and"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_list_of_texts_is_gone_on_with_by_choices_whose_numbers_run_on(subject: Subject, stream: bool) -> None:
    """First all choices of the first text. LangChain's `OpenAI` sends a list even for one text."""
    asked: dict[str, Any] = {"model": subject.base, "max_tokens": 3, "ignore_eos": True, "temperature": 0.5, "n": 2}
    alone = [await subject.call("POST", "/v1/completions", {**asked, "prompt": [text]}) for text in TEXTS]
    assert [[choice["index"] for choice in answer["choices"]] for _, answer in alone] == [[0, 1], [0, 1]]
    given = sum(answer["usage"]["prompt_tokens"] for _, answer in alone)
    body = {**asked, "prompt": TEXTS, "stream": stream} | (
        {"stream_options": {"include_usage": True}} if stream else {}
    )
    if not stream:
        status, answer = await subject.call("POST", "/v1/completions", body)
        assert (status, answer["object"]) == (200, "text_completion")
        choices = answer["choices"]
        assert [choice["index"] for choice in choices] == [0, 1, 2, 3]
    else:
        async with subject.http.post(subject.url + "/v1/completions", json=body) as response:
            assert response.status == 200, await response.text()
            lines = [line for line in (await response.text()).split("\n\n") if line]
        assert lines[-1] == "data: [DONE]"
        *events, answer = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
        assert answer["choices"] == []
        assert all(len(event["choices"]) == 1 for event in events)
        choices = [event["choices"][0] for event in events]
        assert {choice["index"] for choice in choices} == {0, 1, 2, 3}
        ends = [choice["index"] for choice in choices if choice["finish_reason"] is not None]
        assert sorted(ends) == [0, 1, 2, 3]
    assert all(isinstance(choice["text"], str) for choice in choices)
    assert answer["usage"] == {
        **answer["usage"],
        "prompt_tokens": given,
        "completion_tokens": 12,
        "total_tokens": given + 12,
    }


async def test_a_list_of_lists_of_tokens_is_gone_on_with_too(subject: Subject) -> None:
    body = {"model": subject.base, "prompt": [[100, 101], [102]], "max_tokens": 1}
    status, answer = await subject.call("POST", "/v1/completions", body)
    assert (status, [choice["index"] for choice in answer["choices"]]) == (200, [0, 1])
    assert answer["usage"]["prompt_tokens"] == 3


async def test_sagemakers_routes_load_and_unload_without_any_key(subject: Subject, name: str) -> None:
    """The reason why the engine's port must not be reachable."""
    status, _ = await subject.call("POST", "/adapters", {"name": name, "src": subject.adapters[0]})
    assert status == 200
    assert await subject.card(name) is not None
    assert (await subject.call("DELETE", f"/adapters/{name}"))[0] == 200
    assert await subject.card(name) is None


async def test_an_unknown_route_is_a_plain_404(subject: Subject) -> None:
    assert await subject.call("GET", "/v1/nothing") == (404, {"detail": "Not Found"})


async def test_the_counters_move_with_a_request_and_rest_without(subject: Subject) -> None:
    counter = "vllm:iteration_tokens_total_count"
    before = await subject.metric(counter)
    body = {"model": subject.base, "prompt": "hello", "max_tokens": 8, "ignore_eos": True}
    assert (await subject.call("POST", "/v1/completions", body))[0] == 200
    async with asyncio.timeout(10):
        while (moved := await subject.metric(counter)) <= before:
            await asyncio.sleep(0.05)
    await asyncio.sleep(0.5)
    assert await subject.metric(counter) >= moved
    assert await subject.metric("vllm:num_requests_running") == 0


async def test_the_start_of_the_process_is_in_the_metrics(subject: Subject) -> None:
    assert await subject.metric("process_start_time_seconds") > 1_600_000_000


async def test_health_and_version_answer(subject: Subject) -> None:
    assert (await subject.call("GET", "/health"))[0] == 200
    status, answer = await subject.call("GET", "/version")
    assert status == 200
    assert answer["version"][0].isdigit()


__all__ = [name for name in dir() if name.startswith("test_")] + ["Subject", "name"]

"""OpenAI's and LangChain's clients as they are, against an engine in vLLM's wire form."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings
from pydantic import SecretStr

from tests.unit.miner.engine_pods import Pool, pool
from tests.unit.miner.running_miner import TOKEN

RULES = "You are Dr. Gurung's twin."
ASK: list[Any] = [{"role": "user", "content": "I have had a headache for two days."}]
PARAMETERS = {"type": "object", "properties": {"drug": {"type": "string"}}}
TOOL: Any = {"type": "function", "function": {"name": "look_up", "parameters": PARAMETERS}}


@asynccontextmanager
async def client_of(running: Pool) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=running.miner.url + "/v1", api_key=TOKEN, max_retries=0) as client:
        yield client


async def test_a_chat_with_several_answers_and_their_probabilities(tmp_path: Path) -> None:
    async with pool(tmp_path, 1, system_prompt=RULES) as running, client_of(running) as client:
        answer = await client.chat.completions.create(
            model="indra", messages=ASK, n=2, logprobs=True, top_logprobs=1, max_tokens=4, modalities=["text"],
            user="patient 7", safety_identifier="p7", prompt_cache_key="c1", metadata={"a": "b"}, store=False,
            extra_body={"chat_template_kwargs": {"enable_thinking": False}, "seed": None, "tools": None},
        )  # fmt: skip
        assert [choice.index for choice in answer.choices] == [0, 1]
        assert answer.choices[0].logprobs is not None
        assert len(answer.choices[0].logprobs.content or ()) == 4
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 8
        sent = running.order[0].bodies[-1]
        assert sent["chat_template_kwargs"] == {"enable_thinking": False}
        assert sent["messages"][0] == {"role": "system", "content": RULES}
        assert not {"user", "safety_identifier", "prompt_cache_key", "metadata", "store", "modalities", "tools"} & set(
            sent
        )


async def test_a_stream_of_several_answers_with_probabilities_and_usage(tmp_path: Path) -> None:
    async with pool(tmp_path, 1) as running, client_of(running) as client:
        stream = await client.chat.completions.create(
            model="indra", messages=ASK, n=2, logprobs=True, max_tokens=4, stream=True,
            stream_options={"include_usage": True, "include_obfuscation": False},
        )  # fmt: skip
        chunks = [chunk async for chunk in stream]
        said = ["", ""]
        for chunk in chunks:
            for choice in chunk.choices:
                said[choice.index] += choice.delta.content or ""
                assert choice.logprobs is None or len(choice.logprobs.content or ()) == 1
        assert said[0] == said[1] != ""
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens == 8


@pytest.mark.parametrize("stream", [False, True])
async def test_a_tool_is_called_and_its_result_taken(tmp_path: Path, stream: bool) -> None:
    async with pool(tmp_path, 1) as running, client_of(running) as client:
        if stream:
            async with client.chat.completions.stream(
                model="indra", messages=ASK, tools=[TOOL], max_tokens=4
            ) as events:
                completion: Any = await events.get_final_completion()
        else:
            completion = await client.chat.completions.create(model="indra", messages=ASK, tools=[TOOL], max_tokens=4)
        choice = completion.choices[0]
        assert choice.finish_reason == "tool_calls"
        (call,) = choice.message.tool_calls
        assert (call.function.name, json.loads(call.function.arguments)) == ("look_up", {"drug": "x"})
        # The client sends the model's own message back, with all its nulls.
        result = {"role": "tool", "tool_call_id": call.id, "content": "no interaction"}
        messages = [*ASK, choice.message.model_dump(), result]
        answer = await client.chat.completions.create(model="indra", messages=messages, tools=[TOOL], max_tokens=4)
        assert answer.choices[0].message.content
        assert "audio" not in running.order[0].bodies[-1]["messages"][1]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_text_is_completed_after_the_doctors_rules(tmp_path: Path, stream: bool) -> None:
    async with pool(tmp_path, system_prompt=RULES) as running, client_of(running) as client:
        running.order[0].knobs.cut_stream_after = 2
        asked: Any = {"model": "indra", "prompt": "The headache", "max_tokens": 4, "stream": stream}
        answer = await client.completions.create(**asked)
        chunks = [chunk async for chunk in answer] if stream else [answer]
        assert len("".join(chunk.choices[0].text for chunk in chunks).split()) == 4
        assert running.order[0].bodies[0]["prompt"] == f"{RULES}\n\nThe headache"
        assert {chunk.model for chunk in chunks} == {"indra"}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_list_of_texts_is_completed_each_after_the_doctors_rules(tmp_path: Path, stream: bool) -> None:
    async with pool(tmp_path, 1, system_prompt=RULES) as running, client_of(running) as client:
        asked: Any = {"model": "indra", "prompt": ["The headache", "My knee"], "n": 2, "max_tokens": 3}
        answer = await client.completions.create(**asked, stream=stream)
        chunks = [chunk async for chunk in answer] if stream else [answer]
        said = dict.fromkeys(range(4), "")
        for choice in (choice for chunk in chunks for choice in chunk.choices):
            said[choice.index] += choice.text
        assert [len(text.split()) for text in said.values()] == [3] * 4
        assert running.order[0].bodies[0]["prompt"] == [f"{RULES}\n\nThe headache", f"{RULES}\n\nMy knee"]


async def test_langchains_completions_send_lists(tmp_path: Path) -> None:
    async with pool(tmp_path, system_prompt=RULES) as running:
        llm = OpenAI(
            model="indra", base_url=running.miner.url + "/v1", api_key=SecretStr(TOKEN), max_retries=0, max_tokens=4
        )
        whole = await llm.agenerate(["The headache", "My knee"])
        assert [len(text.text.split()) for (text,) in whole.generations] == [4, 4]
        assert whole.llm_output is not None
        assert whole.llm_output["token_usage"]["completion_tokens"] == 8
        running.order[0].knobs.cut_stream_after = 2  # a list of one text goes on elsewhere, too
        said = "".join([chunk async for chunk in llm.astream("The headache")])
        assert said == whole.generations[0][0].text
        assert running.asked == 3


async def test_prompts_of_tokens_are_refused_in_words(tmp_path: Path) -> None:
    async with pool(tmp_path, 1) as running, client_of(running) as client:
        with pytest.raises(openai.BadRequestError, match="list of texts"):
            await client.completions.create(model="indra", prompt=[1, 2, 3])


async def test_embeddings_where_the_pool_has_them(tmp_path: Path) -> None:
    async with pool(tmp_path, 1, embeddings=True) as running, client_of(running) as client:
        answer = await client.embeddings.create(model="indra", input=["a", "bc"], encoding_format="float")
        assert [entry.embedding for entry in answer.data] == [[0.5, 1.0], [0.5, 2.0]]
        running.order[0].knobs.embeddings = False
        with pytest.raises(openai.NotFoundError, match="this pool's engines have no /v1/embeddings"):
            await client.embeddings.create(model="indra", input="a")


async def test_a_response_whole(tmp_path: Path) -> None:
    async with pool(tmp_path, 1, system_prompt=RULES) as running, client_of(running) as client:
        answer = await client.responses.create(
            model="indra", instructions="Be brief.", input="I have a headache.", max_output_tokens=4, store=False
        )
        assert len(answer.output_text.split()) == 4
        assert (answer.status, answer.model) == ("incomplete", "indra")
        assert answer.incomplete_details is not None
        assert answer.incomplete_details.reason == "max_output_tokens"
        assert answer.usage is not None
        assert answer.usage.output_tokens == 4
        assert running.order[0].bodies[-1]["messages"] == [
            {"role": "system", "content": f"{RULES}\n\nBe brief."}, {"role": "user", "content": "I have a headache."}
        ]  # fmt: skip


async def test_a_response_as_a_stream_that_goes_on_elsewhere(tmp_path: Path) -> None:
    async with pool(tmp_path) as running, client_of(running) as client:
        whole = await client.responses.create(model="indra", input="I have a headache.", max_output_tokens=6)
        running.order[0].knobs.cut_stream_after = 3
        async with client.responses.stream(model="indra", input="I have a headache.", max_output_tokens=6) as stream:
            events = [event async for event in stream]
        kinds = [event.type for event in events]
        assert kinds[:2] == ["response.created", "response.in_progress"]
        assert kinds[-1] == "response.incomplete"  # as OpenAI's, when the tokens run out
        said = [event.delta for event in events if event.type == "response.output_text.delta"]
        assert len(said) == 6
        assert "".join(said) == whole.output_text


@pytest.mark.parametrize("stream", [False, True])
async def test_a_response_that_calls_a_tool_and_takes_its_result(tmp_path: Path, stream: bool) -> None:
    tool: Any = {"type": "function", "name": "look_up", "parameters": PARAMETERS, "strict": False}
    async with pool(tmp_path, 1) as running, client_of(running) as client:
        asked: Any = {"model": "indra", "input": ASK, "tools": [tool], "max_output_tokens": 4}
        if stream:
            async with client.responses.stream(**asked) as events:
                async for _ in events:
                    pass
                answer: Any = await events.get_final_response()
        else:
            answer = await client.responses.create(**asked)
        call = answer.output[0]
        assert (call.type, call.name, json.loads(call.arguments)) == ("function_call", "look_up", {"drug": "x"})
        result = {"type": "function_call_output", "call_id": call.call_id, "output": "none"}
        items: Any = [*ASK, call.model_dump(exclude_none=True, exclude={"parsed_arguments"}), result]
        answer = await client.responses.create(model="indra", input=items, tools=[tool], max_output_tokens=4)
        assert answer.output_text
        assert [m["role"] for m in running.order[0].bodies[-1]["messages"]] == ["user", "assistant", "tool"]


@pytest.mark.parametrize(
    ("field", "value"),
    [("previous_response_id", "resp_1"), ("background", True), ("tools", [{"type": "web_search"}]), ("odd", 1)],
)
async def test_what_a_chat_cannot_express_is_refused_in_words(tmp_path: Path, field: str, value: object) -> None:
    async with pool(tmp_path, 1) as running, client_of(running) as client:
        with pytest.raises(openai.BadRequestError) as caught:
            await client.responses.create(model="indra", input="Hi", extra_body={field: value})
        assert caught.value.param == field
        assert running.asked == 0


async def test_a_broken_response_says_that_it_failed(tmp_path: Path) -> None:
    async with pool(tmp_path, 1, fail_stream_after=2) as running, client_of(running) as client:
        stream = await client.responses.create(model="indra", input="Hi", stream=True, extra_body={"seed": 1})
        events = [event async for event in stream]
        assert events[-1].type == "response.failed"
        assert "incomplete" in (events[-1].response.error.message if events[-1].response.error else "")


async def test_a_broken_response_holds_what_was_said(tmp_path: Path) -> None:
    async with pool(tmp_path, 1, fail_stream_after=2) as running, client_of(running) as client:
        stream = await client.responses.create(model="indra", input="Hi", stream=True, extra_body={"seed": 1})
        events: list[Any] = [event async for event in stream]
        said = "".join(event.delta for event in events if event.type == "response.output_text.delta")
        (message,) = events[-1].response.output
        assert (message.status, message.content[0].text) == ("incomplete", said)
        assert said


async def test_a_streamed_response_ends_with_all_its_probabilities(tmp_path: Path) -> None:
    asked: Any = {
        "model": "indra", "input": "Hi", "max_output_tokens": 3, "top_logprobs": 1,
        "include": ["message.output_text.logprobs"],
    }  # fmt: skip
    async with pool(tmp_path, 1) as running, client_of(running) as client:
        whole: Any = await client.responses.create(**asked)
        events: list[Any] = [event async for event in await client.responses.create(**asked, stream=True)]
        tokens = [one.token for one in whole.output[0].content[0].logprobs]
        assert len(tokens) == 3
        done = next(event for event in events if event.type == "response.output_text.done")
        part = next(event for event in events if event.type == "response.content_part.done")
        final = events[-1].response.output[0].content[0]
        for given in (done.logprobs, part.part.logprobs, final.logprobs):
            assert [one.token for one in given] == tokens


async def test_langchains_embeddings_are_told_what_to_set(tmp_path: Path) -> None:
    asked: Any = {"model": "indra", "base_url": "", "api_key": SecretStr(TOKEN), "max_retries": 0}
    async with pool(tmp_path, 1, embeddings=True) as running, client_of(running) as client:
        with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False"):
            await client.embeddings.create(model="indra", input=[[9906, 1917]])
        asked["base_url"] = running.miner.url + "/v1"
        embeddings = OpenAIEmbeddings(**asked, check_embedding_ctx_length=False)
        assert await embeddings.aembed_documents(["a", "bc"]) == [[0.5, 1.0], [0.5, 2.0]]


@pytest.mark.parametrize("responses", [False, True])
async def test_langchain_asks_streams_and_calls_tools(tmp_path: Path, responses: bool) -> None:
    async with pool(tmp_path, 1, system_prompt=RULES) as running:
        chat = ChatOpenAI(
            model="indra", base_url=running.miner.url + "/v1", api_key=SecretStr(TOKEN), max_retries=0,
            use_responses_api=responses, max_completion_tokens=4, stream_usage=True,
        )  # fmt: skip
        answer = await chat.ainvoke([("system", "Be brief."), ("human", "I have a headache.")])
        assert len(str(answer.text).split()) == 4
        assert answer.usage_metadata is not None
        assert answer.usage_metadata["output_tokens"] == 4
        chunks = [chunk async for chunk in chat.astream("I have a headache.")]
        assert "".join(str(chunk.text) for chunk in chunks).split() == str(answer.text).split()
        assert sum((chunk.usage_metadata or {}).get("output_tokens", 0) for chunk in chunks) == 4
        tools = chat.bind_tools([{"title": "look_up", "description": "Look a drug up.", **PARAMETERS}])
        called: Any = await tools.ainvoke("I have a headache.")
        assert [(call["name"], call["args"]) for call in called.tool_calls] == [("look_up", {"drug": "x"})]


async def test_langchain_reads_probabilities_and_several_answers(tmp_path: Path) -> None:
    async with pool(tmp_path, 1) as running:
        chat = ChatOpenAI(
            model="indra", base_url=running.miner.url + "/v1", api_key=SecretStr(TOKEN), n=2, logprobs=True,
            max_completion_tokens=4,
        )  # fmt: skip
        result = await chat.agenerate([[HumanMessage("Hi")]])
        assert len(result.generations[0]) == 2
        first: Any = result.generations[0][0]
        assert len(first.message.response_metadata["logprobs"]["content"]) == 4
